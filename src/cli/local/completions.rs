//! `completions`: for a shell's own directory of them.

use std::io::Write;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::cli::{Cli, CliError};

/// Options of `completions`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Completions {
    /// Which shell
    shell: Shell,
}

impl Completions {
    pub(super) fn run(self) -> Result<(), CliError> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "callvault", &mut script);
        Ok(std::io::stdout().lock().write_all(&script)?)
    }
}
