//! The `callvault` binary: parses the command line and does what it says.

use std::process::ExitCode;

use callvault::cli::{self, Cli};
use clap::Parser;

fn main() -> ExitCode {
    cli::run(Cli::parse())
}
