//! The command line. Remote commands speak through the public client; local ones open the data themselves.
//!
//! Exit codes: 0 done, 1 refused or failed, 2 usage.

mod error;
mod local;
mod remote;
mod terminal;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use error::CliError;

/// The vault that call recordings and message bodies deserve: sealed, searchable, shreddable.
#[derive(Debug, Parser)]
#[command(
    name = "callvault",
    version,
    max_term_width = 100,
    arg_required_else_help = true
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant)] // there is one, for the length of the process
enum Command {
    #[command(flatten)]
    Remote(remote::Command),
    #[command(flatten)]
    Local(local::Command),
}

/// Does what the command line says.
pub fn run(cli: Cli) -> ExitCode {
    let done = match cli.command {
        Command::Remote(command) => remote::run(command),
        Command::Local(command) => local::run(command),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read the output has seen enough.
        Err(error) if error.is_broken_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            terminal::complain(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

/// A runtime for a command.
fn runtime() -> Result<tokio::runtime::Runtime, CliError> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
