//! What a call ends with when it does not end well.

use std::{collections::BTreeMap, fmt, io, time::Duration};

use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::ConfigError;

/// Why a call did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The vault refused or failed.
    #[error(transparent)]
    Refused(Box<Refusal>),
    /// A download ended without an error before all of it was there. What was received is not the recording.
    #[error("the stream ended early expected_bytes={expected} received_bytes={received}")]
    ShortStream {
        /// Bytes that the header announced.
        expected: u64,
        /// Bytes that came.
        received: u64,
    },
    /// The server answered what no vault answers.
    #[error("the server broke the protocol: {0}")]
    Protocol(&'static str),
    /// The caller's own source or destination of bytes failed.
    #[error("the content cannot be read or written: {0}")]
    Content(#[from] io::Error),
    /// There is nothing to connect with.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No connection.
    #[error("cannot connect: {}", causes(.0))]
    Connect(#[from] tonic::transport::Error),
}

/// An answer of the vault that is not the one asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Refusal {
    /// What kind it is.
    pub code: Code,
    /// Stable, upper case, for programs (`google.rpc.ErrorInfo`); empty if the answer is not the vault's own.
    pub reason: String,
    /// For people.
    pub message: String,
    /// The request's field at fault, where there is one.
    pub field: Option<String>,
    /// What else a program may need, by name: offsets, limits, the policy that forbids it.
    pub details: BTreeMap<String, String>,
    /// How long to wait before trying again (`google.rpc.RetryInfo`).
    pub retry_after: Option<Duration>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(field) = &self.field {
            write!(f, " field={field}")?;
        }
        if !self.reason.is_empty() {
            write!(f, " reason={}", self.reason)?;
        }
        write!(f, " code={:?}", self.code)
    }
}

impl ClientError {
    /// The answer's code, if there was an answer.
    pub fn code(&self) -> Option<Code> {
        self.refusal().map(|refusal| refusal.code)
    }

    /// The answer's stable reason, if there was one.
    pub fn reason(&self) -> Option<&str> {
        self.refusal()
            .map(|refusal| refusal.reason.as_str())
            .filter(|reason| !reason.is_empty())
    }

    /// The request's field at fault, if one was named.
    pub fn field(&self) -> Option<&str> {
        self.refusal().and_then(|refusal| refusal.field.as_deref())
    }

    /// The vault's answer, if there was one.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }
}

impl From<Status> for ClientError {
    fn from(status: Status) -> Self {
        Self::Refused(Box::new(status.into()))
    }
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info();
        Self {
            code: status.code(),
            reason: info.map(|info| info.reason.clone()).unwrap_or_default(),
            message: status.message().to_owned(),
            field: info.and_then(|info| info.metadata.get("field").cloned()),
            details: info
                .map(|info| info.metadata.clone().into_iter().collect())
                .unwrap_or_default(),
            retry_after: details.retry_info().and_then(|info| info.retry_delay),
        }
    }
}

/// The innermost causes say what is wrong: the transport's own text is "transport error".
fn causes(error: &tonic::transport::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(this) = cause {
        text = format!("{text}: {this}");
        cause = this.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault;

    #[test]
    fn an_error_of_the_vault_arrives_whole() {
        let sent = vault::Error {
            field: Some("spec.tenant_id".to_owned()),
            ..vault::Error::new(vault::Kind::Exhausted, "MEMORY_BUDGET", "too many bytes")
        };
        let error = ClientError::from(Status::from(sent));
        assert_eq!(error.code(), Some(Code::ResourceExhausted));
        assert_eq!(error.reason(), Some("MEMORY_BUDGET"));
        assert_eq!(error.field(), Some("spec.tenant_id"));
        assert_eq!(error.refusal().unwrap().retry_after, Some(Duration::from_secs(1)));
        assert!(
            error
                .to_string()
                .starts_with("too many bytes field=spec.tenant_id")
        );
    }
}
