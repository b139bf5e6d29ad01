//! What a store says when it does not do what it was asked, and what that means.

use std::{error::Error, fmt};

use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};

use crate::blob::store::StoreError;

/// Longest message of a store that is kept.
const MESSAGE_LEN: usize = 300;

/// A request that failed. Holds nothing secret: neither headers nor bodies.
#[derive(Debug)]
pub(super) struct Refusal {
    operation: &'static str,
    status: Option<u16>,
    code: Option<String>,
    text: String,
}

/// What a failure means to whoever asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Missing,
    NoUpload,
    Full,
    Denied,
    /// The credentials were good once: others may be.
    Stale,
    /// Asked again later, it may work.
    Unavailable,
    /// It can never work.
    Wrong(&'static str),
}

impl Refusal {
    pub(super) fn of<E>(operation: &'static str, error: SdkError<E>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let answered = error.raw_response().map(|response| response.status().as_u16());
        match &error {
            SdkError::ServiceError(service) => Self {
                operation,
                status: answered,
                code: service.err().code().map(str::to_owned),
                text: service
                    .err()
                    .message()
                    .unwrap_or_default()
                    .chars()
                    .take(MESSAGE_LEN)
                    .collect(),
            },
            _ => Self {
                operation,
                status: answered,
                code: None,
                text: DisplayErrorContext(&error)
                    .to_string()
                    .chars()
                    .take(MESSAGE_LEN)
                    .collect(),
            },
        }
    }

    /// A failure that no answer told.
    pub(super) fn unanswered(operation: &'static str, text: impl Into<String>) -> Self {
        Self {
            operation,
            status: None,
            code: None,
            text: text.into(),
        }
    }

    /// Whether newer credentials may help.
    pub(super) fn is_stale(&self) -> bool {
        self.class() == Class::Stale
    }

    /// An answer without a body, as to HEAD: neither which thing is missing nor why access is refused.
    pub(super) fn is_mute(&self) -> bool {
        self.status.is_some_and(|status| (400..500).contains(&status))
            && matches!(
                self.code.as_deref(),
                None | Some("" | "NotFound" | "Forbidden" | "BadRequest")
            )
    }

    /// The range lies outside the object.
    pub(super) fn is_outside(&self) -> bool {
        self.status == Some(416)
    }

    /// Done, by its status, in words that are not S3's or broke off.
    pub(super) fn is_garbled(&self) -> bool {
        self.status.is_some_and(|status| (200..300).contains(&status)) && self.code.is_none()
    }

    pub(super) fn code(&self) -> Option<&str> {
        self.code.as_deref()
    }

    /// The store does not know this call, or this header.
    pub(super) fn is_unknown_feature(&self) -> bool {
        matches!(self.code(), Some("NotImplemented" | "MethodNotAllowed")) || self.status == Some(501)
    }

    pub(super) fn is_denied(&self) -> bool {
        self.class() == Class::Denied
    }

    fn class(&self) -> Class {
        self.code()
            .and_then(by_code)
            .unwrap_or_else(|| by_status(self.status))
    }
}

fn by_code(code: &str) -> Option<Class> {
    Some(match code {
        "NoSuchKey" | "NoSuchVersion" => Class::Missing,
        "NoSuchUpload" => Class::NoUpload,
        // A bucket does not go away while a vault is open: it is out of reach, and what it held is not "not found".
        "NoSuchBucket" => Class::Unavailable,
        "QuotaExceeded"
        | "InsufficientStorage"
        | "InsufficientCapacity"
        | "XMinioStorageFull"
        | "XMinioAdminBucketQuotaExceeded"
        | "BucketQuotaExceeded" => Class::Full,
        "ExpiredToken"
        | "ExpiredTokenException"
        | "TokenRefreshRequired"
        | "InvalidToken"
        | "InvalidAccessKeyId" => Class::Stale,
        "AccessDenied"
        | "AllAccessDisabled"
        | "AccountProblem"
        | "InvalidSecurity"
        | "NotSignedUp"
        | "SignatureDoesNotMatch"
        | "AuthorizationHeaderMalformed"
        | "PermanentRedirect"
        | "IllegalLocationConstraintException" => Class::Denied,
        // Bytes that changed on their way, a clock that is off, a call that lost a race: later it may work.
        "BadDigest"
        | "XAmzContentSHA256Mismatch"
        | "XAmzContentChecksumMismatch"
        | "RequestTimeTooSkewed"
        | "RequestTimeout"
        | "OperationAborted"
        | "ConditionalRequestConflict"
        | "SlowDown"
        | "InternalError"
        | "ServiceUnavailable" => Class::Unavailable,
        "InvalidPart" | "InvalidPartOrder" => Class::Wrong("parts missing or differ from their receipts"),
        "EntityTooSmall" => Class::Wrong("part too small"),
        "EntityTooLarge" => Class::Wrong("body too large"),
        _ => return None,
    })
}

fn by_status(status: Option<u16>) -> Class {
    match status {
        Some(401 | 403) => Class::Denied,
        Some(507) => Class::Full,
        Some(301 | 307 | 308) => Class::Denied,
        // 404 without a code of S3's is not S3 speaking: something between, or another server in its place.
        Some(404 | 408 | 429 | 500..) | None => Class::Unavailable,
        Some(200..=299) => Class::Wrong("answer not understood"),
        Some(_) => Class::Wrong("request refused"),
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "operation={}", self.operation)?;
        if let Some(status) = self.status {
            write!(f, " status={status}")?;
        }
        if let Some(code) = &self.code {
            write!(f, " code={code}")?;
        }
        write!(f, " message={:?}", self.text)
    }
}

impl Error for Refusal {}

impl From<Refusal> for StoreError {
    fn from(refusal: Refusal) -> Self {
        let class = refusal.class();
        if !matches!(class, Class::Missing | Class::NoUpload) {
            tracing::warn!(%refusal, ?class, "the store did not do what it was asked");
        }
        match class {
            Class::Missing => Self::NotFound,
            Class::NoUpload => Self::UploadNotFound,
            Class::Full => Self::Full,
            // Stale: after one renewal in vain. Whoever gives credentials may yet give better ones.
            Class::Denied | Class::Stale => Self::Denied(Box::new(refusal)),
            Class::Unavailable => Self::Unavailable(Box::new(refusal)),
            Class::Wrong(what) => Self::Protocol(what),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: u16, code: Option<&str>) -> Refusal {
        Refusal {
            operation: "Test",
            status: Some(status),
            code: code.map(str::to_owned),
            text: String::new(),
        }
    }

    #[test]
    fn a_missing_bucket_is_never_a_missing_object() {
        for (status, code) in [
            (404, Some("NoSuchBucket")),
            (404, None),
            (404, Some("PageNotFound")),
        ] {
            let error = StoreError::from(refusal(status, code));
            assert!(matches!(error, StoreError::Unavailable(_)), "{code:?} {error:?}");
        }
        assert!(matches!(
            StoreError::from(refusal(404, Some("NoSuchKey"))),
            StoreError::NotFound
        ));
    }

    #[test]
    fn every_class_has_its_error() {
        type Is = fn(&StoreError) -> bool;
        let cases: [(u16, &str, Is); 9] = [
            (404, "NoSuchUpload", |e| matches!(e, StoreError::UploadNotFound)),
            (507, "", |e| matches!(e, StoreError::Full)),
            (403, "QuotaExceeded", |e| matches!(e, StoreError::Full)),
            (403, "AccessDenied", |e| matches!(e, StoreError::Denied(_))),
            (400, "ExpiredToken", |e| matches!(e, StoreError::Denied(_))),
            (503, "SlowDown", |e| matches!(e, StoreError::Unavailable(_))),
            (200, "InternalError", |e| matches!(e, StoreError::Unavailable(_))),
            (400, "BadDigest", |e| matches!(e, StoreError::Unavailable(_))),
            (400, "InvalidPart", |e| matches!(e, StoreError::Protocol(_))),
        ];
        for (status, code, is) in cases {
            let error = StoreError::from(refusal(status, Some(code)));
            assert!(is(&error), "{status} {code} gave {error:?}");
        }
    }
}
