//! Commands that open the data themselves, and refuse while somebody else has it open.

mod access;
mod completions;
mod config_check;
mod demo;
mod doctor;
mod rebuild_index;
mod root_migrate;
mod serve;
mod verify;
mod verify_certificate;

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Subcommand};

use super::CliError;
use crate::config::Config;

pub(super) use root_migrate::Migrate;
pub(super) use verify_certificate::VerifyCertificate;

const DATA: &str = "./callvault-data";
const LISTEN: &str = "127.0.0.1:7443";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Everything, on a throw-away server, in under 30 s
    Demo(demo::Demo),
    /// Serve a vault
    Serve(serve::Serve),
    /// Read everything; report what does not agree or authenticate
    Verify(verify::Verify),
    /// Make the index again from the bucket
    RebuildIndex(rebuild_index::RebuildIndex),
    /// Look at store, root and recovery store; say what may be lost. A server may be running
    Doctor(doctor::Doctor),
    /// What callers may do
    #[command(subcommand)]
    Access(access::Command),
    /// Configuration files
    #[command(subcommand)]
    Config(config_check::Command),
    /// Print a shell's completion script
    Completions(completions::Completions),
}

pub(super) fn run(command: Command) -> Result<(), CliError> {
    match command {
        Command::Demo(command) => command.run(),
        Command::Serve(command) => command.run(),
        Command::Verify(command) => command.run(),
        Command::RebuildIndex(command) => command.run(),
        Command::Doctor(command) => command.run(),
        Command::Access(command) => command.run(),
        Command::Config(command) => command.run(),
        Command::Completions(command) => command.run(),
    }
}

/// Which vault.
#[derive(Debug, Args)]
pub(in crate::cli) struct Place {
    /// Data directory of dev mode
    #[arg(long, value_name = "DIR", default_value = DATA)]
    data: PathBuf,
    /// Configuration file of a server
    #[arg(long, value_name = "FILE", conflicts_with = "data")]
    config: Option<PathBuf>,
}

impl Place {
    fn config(&self) -> Result<Config, CliError> {
        match &self.config {
            Some(file) => Ok(Config::load(file)?),
            None => Ok(Config::dev(&self.data, loopback()?)?),
        }
    }
}

/// Where dev mode listens.
fn loopback() -> Result<SocketAddr, CliError> {
    LISTEN
        .parse()
        .map_err(|_| CliError::failed("the default address is malformed"))
}
