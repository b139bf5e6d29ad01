//! `demo`: everything, on a throw-away server: a call goes in, comes back, and the bucket alone rebuilds the rest.

mod call;
mod erasing;
mod messages;
mod process;
mod resume;
mod search;
mod steps;
mod story;

use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::Args;

use crate::{
    app,
    cli::{CliError, runtime, terminal},
    config::{Log, LogFormat},
    telemetry,
};

/// Options of `demo`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Demo {
    /// A call of your own instead of a made one
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

impl Demo {
    pub(super) fn run(self) -> Result<(), CliError> {
        let log = Log {
            format: LogFormat::Text,
            level: "error".to_owned(),
        };
        telemetry::write_logs(&log).map_err(app::AppError::from)?;
        app::harden();
        // Removed when it is dropped, however this ends, short of a kill.
        let place = tempfile::Builder::new().prefix("callvault-demo-").tempdir()?;
        let told = runtime()?.block_on(async {
            tokio::select! {
                told = story::tell(place.path(), self.file.as_deref()) => told,
                _ = tokio::signal::ctrl_c() => Err(CliError::failed("interrupted")),
            }
        });
        place.close()?;
        told?;
        Ok(terminal::say(
            "\nall of it is as it should be; nothing was left behind",
        )?)
    }
}

/// The call that the story is about.
fn content(file: Option<&Path>) -> Result<Bytes, CliError> {
    match file {
        None => Ok(call::wav().into()),
        Some(path) => Ok(std::fs::read(path).map_err(|e| CliError::file(path, &e))?.into()),
    }
}
