//! `doctor`: what an operator should know before something is lost.

use clap::Args;

use super::Place;
use crate::{
    app::{self, Weight},
    cli::{CliError, runtime, terminal},
};

/// Options of `doctor`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Doctor {
    #[command(flatten)]
    place: Place,
}

impl Doctor {
    pub(super) fn run(self) -> Result<(), CliError> {
        let config = self.place.config()?;
        let found = runtime()?.block_on(app::examine(&config));
        let mut worst = Weight::Fine;
        for finding in &found {
            let weight = match finding.weight {
                Weight::Fine => "ok",
                Weight::Warning => "warning",
                Weight::Problem => "problem",
            };
            terminal::say(format!("{weight}: {}: {}", finding.subject, finding.text))?;
            worst = worst.max(finding.weight);
        }
        if worst < Weight::Problem {
            return Ok(());
        }
        Err(CliError::failed("the vault is not safe as it is"))
    }
}
