//! `sweep`: what was shredded becomes final.

use clap::{Args, Subcommand};
use indicatif::ProgressBar;

use super::{Remote, Session, erase::ROLE, json, keys::Asked, render, request_id};
use crate::{
    cli::{CliError, terminal},
    proto::v1::{RunSweepRequest, Sweep, SweepState},
};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// Destroy every key that old copies of what was shredded could be opened with
    Run(Run),
    /// Show how far a sweep is
    Status(Status),
}

/// Options of `sweep run`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Run {
    #[command(flatten)]
    asked: Asked,
    #[command(flatten)]
    remote: Remote,
}

/// Options of `sweep status`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Status {
    /// The sweep
    #[arg(value_name = "SWEEP")]
    sweep: String,
    #[command(flatten)]
    remote: Remote,
}

impl Command {
    pub(super) async fn run(self) -> Result<(), CliError> {
        match self {
            Self::Run(command) => command.run().await,
            Self::Status(command) => command.run().await,
        }
    }
}

impl Run {
    async fn run(self) -> Result<(), CliError> {
        let session = self.remote.connect(ROLE).await?;
        let request = RunSweepRequest {
            request_id: request_id(self.asked.request_id),
        };
        let begun = session.client.run_sweep(request).await?;
        let bar = terminal::pages();
        let ended = if self.asked.no_wait {
            begun
        } else {
            session.client.sweep_ended(begun, |now| show(&bar, now)).await?
        };
        bar.finish_and_clear();
        tell(&session, &ended)?;
        if ended.state() == SweepState::Failed {
            return Err(CliError::failed(format!(
                "{} reason={}",
                ended.detail, ended.reason
            )));
        }
        Ok(())
    }
}

impl Status {
    async fn run(self) -> Result<(), CliError> {
        let session = self.remote.connect(ROLE).await?;
        tell(&session, &session.client.get_sweep(&self.sweep).await?)
    }
}

fn tell(session: &Session, sweep: &Sweep) -> Result<(), CliError> {
    if session.json {
        return Ok(terminal::say(json::to_text(sweep)?)?);
    }
    Ok(terminal::say(render::sweep(sweep))?)
}

fn show(bar: &ProgressBar, now: &Sweep) {
    bar.set_length(u64::try_from(now.pages_total).unwrap_or(0));
    bar.set_position(u64::try_from(now.pages_done).unwrap_or(0));
}
