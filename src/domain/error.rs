//! The one error that callers see: coarse, with its cause kept for operators.

use std::{fmt, time::Duration};

/// What a caller should do about an error. One gRPC code each (`grpc::status`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Fix the request.
    Invalid,
    /// Say who you are.
    Unauthenticated,
    /// Get access.
    Forbidden,
    /// Stop: it does not exist for you.
    NotFound,
    /// Stop: its key is gone, and you may know.
    Shredded,
    /// Resolve the hold.
    Held,
    /// Resolve the named condition.
    WrongState,
    /// Read again, then retry.
    Conflict,
    /// Read what is there.
    AlreadyExists,
    /// Back off.
    Exhausted,
    /// Back off.
    Unavailable,
    /// Go on faster, or begin again: the call took, or waited, too long.
    TimedOut,
    /// Alert somebody; retrying is useless.
    Corrupt,
    /// Report it.
    Internal,
}

/// A refusal or a failure.
///
/// `message` and `field` are shown to callers: never personal data, never a cause's text.
pub struct Error {
    /// What to do about it.
    pub kind: Kind,
    /// Stable, upper case, for programs. Never changes its meaning.
    pub reason: &'static str,
    /// For people, lowercase, what to do.
    pub message: String,
    /// The request's field at fault, where there is one: a path such as `descriptor.parties[1].tel`.
    pub field: Option<String>,
    /// When a caller that was turned away for load may come back, where that is known.
    pub retry_after: Option<Duration>,
    /// More for programs, by name: numbers and states, never personal data.
    pub details: Box<[(&'static str, String)]>,
    /// For operators; never shown to callers.
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error without a field or a cause.
    pub fn new(kind: Kind, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            kind,
            reason,
            message: message.into(),
            field: None,
            retry_after: None,
            details: Box::default(),
            source: None,
        }
    }

    /// A malformed field of a request.
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            field: Some(field.into()),
            ..Self::new(Kind::Invalid, "INVALID_FIELD", message)
        }
    }

    /// The one answer for whatever lies outside what the caller may know.
    pub fn not_found() -> Self {
        Self::new(Kind::NotFound, "NOT_FOUND", "no such resource")
    }

    /// A failure to authenticate stored data.
    pub fn corrupt(what: &'static str) -> Self {
        Self::new(
            Kind::Corrupt,
            "INTEGRITY",
            format!("stored data failed authentication; report it, retrying is useless what={what}"),
        )
    }

    /// A refusal for load, which says when to come back.
    pub fn busy(reason: &'static str, message: impl Into<String>, retry_after: Duration) -> Self {
        Self {
            retry_after: Some(retry_after),
            ..Self::new(Kind::Exhausted, reason, message)
        }
    }

    /// The same with one more thing for programs.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl fmt::Display) -> Self {
        let mut details = self.details.into_vec();
        details.push((name, value.to_string()));
        self.details = details.into();
        self
    }

    /// The same answer for another caller who waited for the same thing; the cause is told once, with the first.
    #[must_use]
    pub fn again(&self) -> Self {
        Self {
            kind: self.kind,
            reason: self.reason,
            message: self.message.clone(),
            field: self.field.clone(),
            retry_after: self.retry_after,
            details: self.details.clone(),
            source: None,
        }
    }

    /// The same with its cause.
    #[must_use]
    pub fn because(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(field) = &self.field {
            write!(f, " field={field}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.kind)
            .field("reason", &self.reason)
            .field("message", &self.message)
            .field("field", &self.field)
            .field("details", &self.details)
            .field("source", &self.source)
            .finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source
            .as_deref()
            .map(|s| s as &(dyn std::error::Error + 'static))
    }
}
