//! The vault's error as a gRPC status: one table.

use std::{collections::HashMap, error::Error as _, fmt::Write as _, time::Duration};

use prost::Message as _;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt, pb};

use crate::vault::{Error, Kind};

/// Domain of every `google.rpc.ErrorInfo`.
pub const DOMAIN: &str = "callvault";
/// How long a caller that was turned away for load should wait, unless the error knows better.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The one table.
pub fn code(kind: Kind) -> Code {
    match kind {
        Kind::Invalid => Code::InvalidArgument,
        Kind::Unauthenticated => Code::Unauthenticated,
        Kind::Forbidden => Code::PermissionDenied,
        Kind::NotFound | Kind::Shredded => Code::NotFound,
        Kind::Held | Kind::WrongState => Code::FailedPrecondition,
        Kind::Conflict => Code::Aborted,
        Kind::AlreadyExists => Code::AlreadyExists,
        Kind::Exhausted => Code::ResourceExhausted,
        Kind::Unavailable => Code::Unavailable,
        Kind::TimedOut => Code::DeadlineExceeded,
        Kind::Corrupt => Code::DataLoss,
        Kind::Internal => Code::Internal,
    }
}

impl From<Error> for Status {
    /// Logs what an operator must know of, and gives the caller everything but the cause.
    fn from(error: Error) -> Self {
        report(&error);
        let details = details(&error);
        Self::with_error_details(code(error.kind), error.message, details)
    }
}

/// The answer to one item of a batch: what the call for it alone would have been answered with.
pub(super) fn of_item(error: Error) -> pb::Status {
    let status = Status::from(error);
    // What tonic sends as `grpc-status-details-bin` is this very message.
    pb::Status::decode(status.details()).unwrap_or_else(|_| pb::Status {
        code: status.code() as i32,
        message: status.message().to_owned(),
        details: Vec::new(),
    })
}

fn details(error: &Error) -> ErrorDetails {
    let field = error.field.iter().map(|field| ("field", field));
    let details = error.details.iter().map(|(name, value)| (*name, value));
    let metadata: HashMap<String, String> = field
        .chain(details)
        .map(|(name, value)| (name.to_owned(), value.clone()))
        .collect();
    let mut details = ErrorDetails::with_error_info(error.reason, DOMAIN, metadata);
    match error.kind {
        Kind::Held | Kind::WrongState => {
            let subject = error.field.clone().unwrap_or_default();
            details.add_precondition_failure_violation(error.reason, subject, error.message.clone());
        }
        Kind::Exhausted | Kind::Unavailable => {
            details.set_retry_info(Some(error.retry_after.unwrap_or(RETRY_AFTER)));
        }
        _ => {
            if let Some(field) = &error.field {
                details.add_bad_request_violation(field.clone(), error.message.clone());
            }
        }
    }
    details
}

/// Logs once the failures that are the vault's own.
fn report(error: &Error) {
    if matches!(error.kind, Kind::Internal | Kind::Corrupt) {
        tracing::error!(reason = error.reason, cause = causes(error), "call failed");
    }
}

/// The causes' texts, outermost first. Errors' texts never hold personal data; the message may name a record.
fn causes(error: &Error) -> String {
    let mut text = String::new();
    let mut cause = error.source();
    while let Some(this) = cause {
        let separator = if text.is_empty() { "" } else { ": " };
        // Writing to a string cannot fail.
        let _ = write!(text, "{separator}{this}");
        cause = this.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[(Kind, Code)] = &[
        (Kind::Invalid, Code::InvalidArgument),
        (Kind::Unauthenticated, Code::Unauthenticated),
        (Kind::Forbidden, Code::PermissionDenied),
        (Kind::NotFound, Code::NotFound),
        (Kind::Shredded, Code::NotFound),
        (Kind::Held, Code::FailedPrecondition),
        (Kind::WrongState, Code::FailedPrecondition),
        (Kind::Conflict, Code::Aborted),
        (Kind::AlreadyExists, Code::AlreadyExists),
        (Kind::Exhausted, Code::ResourceExhausted),
        (Kind::Unavailable, Code::Unavailable),
        (Kind::TimedOut, Code::DeadlineExceeded),
        (Kind::Corrupt, Code::DataLoss),
        (Kind::Internal, Code::Internal),
    ];

    fn status_of(kind: Kind) -> Status {
        error_of(kind).into()
    }

    fn error_of(kind: Kind) -> Error {
        let error = Error {
            field: Some("a.b".to_owned()),
            ..Error::new(kind, "SOME_REASON", "do this")
        };
        error.because(std::io::Error::other("secret cause"))
    }

    #[test]
    fn every_kind_has_its_code_and_details() {
        for (kind, code) in TABLE {
            let status = status_of(*kind);
            assert_eq!(status.code(), *code, "{kind:?}");
            assert_eq!(status.message(), "do this");
            let details = status.get_error_details();
            let info = details.error_info().unwrap();
            assert_eq!(
                (info.reason.as_str(), info.domain.as_str()),
                ("SOME_REASON", DOMAIN)
            );
            assert_eq!(info.metadata["field"], "a.b");
            let retries = matches!(kind, Kind::Exhausted | Kind::Unavailable);
            assert_eq!(details.retry_info().is_some(), retries, "{kind:?}");
            let precondition = matches!(kind, Kind::Held | Kind::WrongState);
            assert_eq!(details.precondition_failure().is_some(), precondition, "{kind:?}");
            assert_eq!(
                details.bad_request().is_some(),
                !retries && !precondition,
                "{kind:?}"
            );
        }
    }

    #[test]
    fn an_item_is_answered_as_its_own_call_would_be() {
        for (kind, code) in TABLE {
            let (item, status) = (of_item(error_of(*kind)), status_of(*kind));
            assert_eq!(item.code, *code as i32);
            assert_eq!(item.encode_to_vec(), status.details(), "{kind:?}");
        }
    }

    #[test]
    fn a_cause_never_leaves() {
        for (kind, _) in TABLE {
            let status = status_of(*kind);
            let sent = [status.message().as_bytes(), status.details()].concat();
            assert!(!sent.windows(6).any(|w| w == b"secret"), "{kind:?}");
        }
    }

    #[test]
    fn a_refusal_says_when_to_come_back() {
        let after = |error: Error| {
            let details = Status::from(error).get_error_details();
            details.retry_info().and_then(|info| info.retry_delay)
        };
        let known = Duration::from_millis(70);
        assert_eq!(after(Error::busy("BUSY", "come back", known)), Some(known));
        let unknown = Error::new(Kind::Exhausted, "BUSY", "come back");
        assert_eq!(after(unknown), Some(RETRY_AFTER));
    }

    #[test]
    fn operators_see_the_chain_of_causes() {
        let error = Error::corrupt("footer").because(std::io::Error::other("inner"));
        assert_eq!(causes(&error), "inner");
    }
}
