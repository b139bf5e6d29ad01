//! `root`: the region's epochs are listed and turned; the root moves, without a server.

use clap::{Args, Subcommand};

use super::{
    Remote, json,
    keys::{Asked, follow},
    render, request_id,
};
use crate::{
    cli::{CliError, local::Migrate, terminal},
    proto::v1::{ListRootEpochsResponse, RotateRootEpochRequest},
};

const ROLE: &str = "key-admin";

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// List the region's root epochs
    List(List),
    /// Turn the root to a new epoch and seal the region's pages again under it
    Rotate(Rotate),
    /// Move the root to another provider, the server being stopped
    Migrate(Migrate),
}

/// Options of `root list`.
#[derive(Debug, Args)]
pub(in crate::cli) struct List {
    #[command(flatten)]
    remote: Remote,
}

/// Options of `root rotate`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Rotate {
    #[command(flatten)]
    asked: Asked,
    #[command(flatten)]
    remote: Remote,
}

impl Command {
    pub(super) async fn run(self) -> Result<(), CliError> {
        match self {
            Self::List(command) => command.run().await,
            Self::Rotate(command) => command.run().await,
            Self::Migrate(command) => command.run().await,
        }
    }
}

impl List {
    async fn run(self) -> Result<(), CliError> {
        let session = self.remote.connect(ROLE).await?;
        let root_epochs = session.client.list_root_epochs().await?;
        if session.json {
            return Ok(terminal::say(json::to_text(&ListRootEpochsResponse {
                root_epochs,
            })?)?);
        }
        let rows: Vec<_> = std::iter::once(render::epoch_head())
            .chain(root_epochs.iter().map(render::epoch_row))
            .collect();
        Ok(terminal::say(terminal::columns(&rows))?)
    }
}

impl Rotate {
    async fn run(self) -> Result<(), CliError> {
        let session = self.remote.connect(ROLE).await?;
        let request = RotateRootEpochRequest {
            request_id: request_id(self.asked.request_id.clone()),
        };
        let begun = session.client.rotate_root_epoch(request).await?;
        follow(&session, begun, self.asked.no_wait).await
    }
}
