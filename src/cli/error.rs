//! Why a command did not do what it was asked, in one line.

use std::io;

use crate::{
    app::AppError,
    client::{self, ClientError},
    config,
};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The vault, or the way to it, refused or failed.
    #[error("{}", line(.0))]
    Client(Box<ClientError>),
    /// There is nothing to connect with.
    #[error(transparent)]
    ClientFile(#[from] client::ConfigError),
    /// The data cannot be opened or served.
    #[error(transparent)]
    App(Box<AppError>),
    /// The configuration is refused.
    #[error(transparent)]
    Config(#[from] config::ConfigError),
    /// A file, a terminal or a pipe failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The options do not fit together.
    #[error("{0}")]
    Usage(String),
    /// The command ran, and what it found is not well.
    #[error("{0}")]
    Failed(String),
}

impl CliError {
    /// A failure with a text.
    pub(super) fn failed(text: impl Into<String>) -> Self {
        Self::Failed(text.into())
    }

    /// Options that do not fit together.
    pub(super) fn usage(text: impl Into<String>) -> Self {
        Self::Usage(text.into())
    }

    /// A failure of a file, with its name.
    pub(super) fn file(path: &std::path::Path, error: &io::Error) -> Self {
        Self::Failed(format!("{error} path={}", path.display()))
    }

    /// 1 refused or failed, 2 usage.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            _ => 1,
        }
    }

    /// Nobody reads the output any more.
    pub(super) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> Self {
        Self::Client(Box::new(error))
    }
}

impl From<AppError> for CliError {
    fn from(error: AppError) -> Self {
        Self::App(Box::new(error))
    }
}

/// `message (REASON) field=...`
fn line(error: &ClientError) -> String {
    let Some(refusal) = error.refusal() else {
        return error.to_string();
    };
    let reason = if refusal.reason.is_empty() {
        format!("{:?}", refusal.code)
    } else {
        refusal.reason.clone()
    };
    match &refusal.field {
        Some(field) => format!("{} ({reason}) field={field}", refusal.message),
        None => format!("{} ({reason})", refusal.message),
    }
}
