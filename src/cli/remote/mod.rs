//! Commands that ask a server, through the public client alone.

mod about;
mod bench;
mod certificate;
mod erase;
mod fields;
mod get;
mod json;
mod keys;
mod ls;
mod message;
mod put;
mod render;
mod resume;
mod retention;
mod root;
mod show;
mod slice;
mod sweep;
mod target;
mod tenant;
mod update;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use super::{CliError, runtime};
use crate::client::{Client, ClientFile};

#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant)] // there is one, for the length of the process
pub(super) enum Command {
    /// Upload a recording
    Put(put::Put),
    /// Read a recording back, whole or a range
    Get(get::Get),
    /// Store and read messages
    #[command(subcommand)]
    Message(message::Command),
    /// Find records
    Ls(ls::Ls),
    /// Show what is known of a record
    Show(show::Show),
    /// Correct what is known of a record
    Update(update::Update),
    /// Run tenants
    #[command(subcommand)]
    Tenant(tenant::Command),
    /// Say how long records are kept
    #[command(subcommand)]
    Retention(retention::Command),
    /// List, rotate and destroy a tenant's keys
    #[command(subcommand)]
    Keys(keys::Command),
    /// List and turn the region's root epochs, and move the root
    #[command(subcommand)]
    Root(root::Command),
    /// Erase records, people and tenants, and follow what becomes of it
    #[command(subcommand)]
    Erase(erase::Command),
    /// Make what was shredded final: no old copy opens it any more
    #[command(subcommand)]
    Sweep(sweep::Command),
    /// Fetch and check certificates of erasure
    #[command(subcommand)]
    Certificate(certificate::Command),
    /// Load a running server and tell how it answered
    Bench(bench::Bench),
}

/// How to reach the server, and as whom.
#[derive(Debug, Args)]
struct Remote {
    /// Where the server is and who may call
    #[arg(
        long,
        value_name = "FILE",
        env = "CALLVAULT_CLIENT",
        default_value = "./callvault-data/client.toml",
        help_heading = "Connection"
    )]
    client: PathBuf,
    /// Identity of the client file to call as; every command has a sensible one
    #[arg(id = "as", long, value_name = "ROLE", help_heading = "Connection")]
    role: Option<String>,
    /// Tenant; the client file's by default
    #[arg(long, value_name = "ID", help_heading = "Connection")]
    tenant: Option<String>,
    /// Purpose of the call, a DPV term; the client file's by default
    #[arg(long, value_name = "TERM", help_heading = "Connection")]
    purpose: Option<String>,
    /// Answer in JSON
    #[arg(long, help_heading = "Connection")]
    json: bool,
}

/// A connection and what a command needs besides.
struct Session {
    client: Client,
    file: ClientFile,
    tenant: Option<String>,
    json: bool,
}

impl Remote {
    async fn connect(&self, usual_role: &str) -> Result<Session, CliError> {
        let file = ClientFile::load(&self.client)?;
        let mut config = file.role(self.role.as_deref().unwrap_or(usual_role))?;
        if let Some(purpose) = &self.purpose {
            config.purpose = Some(purpose.clone());
        }
        Ok(Session {
            client: Client::connect(&config).await?,
            file,
            tenant: self.tenant.clone(),
            json: self.json,
        })
    }
}

impl Session {
    fn tenant(&self) -> Result<String, CliError> {
        let tenant = self.tenant.clone().or_else(|| self.file.tenant.clone());
        tenant.ok_or_else(|| CliError::usage("no tenant: give --tenant, or set it in the client file"))
    }
}

pub(super) fn run(command: Command) -> Result<(), CliError> {
    runtime()?.block_on(async {
        tokio::select! {
            done = perform(command) => done,
            // What is half done is cleaned up as it is dropped: opened content must not stay beside the file that it was for.
            signal = interrupted() => Err(CliError::failed(signal)),
        }
    })
}

/// Waits for a signal that ends the command.
async fn interrupted() -> &'static str {
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => "interrupted",
        _ = terminate.recv() => "terminated",
    }
}

async fn perform(command: Command) -> Result<(), CliError> {
    match command {
        Command::Put(command) => command.run().await,
        Command::Get(command) => command.run().await,
        Command::Message(command) => command.run().await,
        Command::Ls(command) => command.run().await,
        Command::Show(command) => command.run().await,
        Command::Update(command) => command.run().await,
        Command::Tenant(command) => command.run().await,
        Command::Retention(command) => command.run().await,
        Command::Keys(command) => command.run().await,
        Command::Root(command) => command.run().await,
        Command::Erase(command) => command.run().await,
        Command::Sweep(command) => command.run().await,
        Command::Certificate(command) => command.run().await,
        Command::Bench(command) => command.run().await,
    }
}

/// Makes a change once, however often it is sent.
fn request_id(given: Option<String>) -> String {
    given.unwrap_or_else(|| uuid::Uuid::now_v7().simple().to_string())
}
