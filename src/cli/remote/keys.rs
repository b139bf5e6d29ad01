//! `keys`: a tenant's keys are listed, rotated and destroyed.

use clap::{Args, Subcommand};
use indicatif::ProgressBar;

use super::{Remote, Session, json, render, request_id};
use crate::{
    cli::{CliError, terminal},
    proto::v1::{
        KeyOperation, KeyOperationState, ListKeyOperationsRequest, ListKeyOperationsResponse,
        ListKeyVersionsResponse, RotateTenantKeyRequest,
    },
};

const ROLE: &str = "key-admin";

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// List the versions of a tenant's key
    List(List),
    /// Give a tenant a new key and seal its pages again under it; no record is touched
    Rotate(Rotate),
    /// Destroy a retired version
    Destroy(Destroy),
    /// List what was asked for and how far it is
    Operations(Operations),
}

/// Options of `keys list`.
#[derive(Debug, Args)]
pub(in crate::cli) struct List {
    #[command(flatten)]
    remote: Remote,
}

/// Options of `keys rotate`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Rotate {
    #[command(flatten)]
    asked: Asked,
    #[command(flatten)]
    remote: Remote,
}

/// How long work is asked for.
#[derive(Debug, Args)]
pub(super) struct Asked {
    /// Do not wait until it is done
    #[arg(long)]
    pub(super) no_wait: bool,
    /// Makes the call idempotent for 24 hours
    #[arg(long, value_name = "ID")]
    pub(super) request_id: Option<String>,
}

/// Options of `keys destroy`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Destroy {
    /// The version's number
    #[arg(value_name = "VERSION", value_parser = clap::value_parser!(i64).range(1..))]
    version: i64,
    #[command(flatten)]
    remote: Remote,
}

/// Options of `keys operations`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Operations {
    #[command(flatten)]
    remote: Remote,
}

impl Command {
    pub(super) async fn run(self) -> Result<(), CliError> {
        match self {
            Self::List(command) => command.run().await,
            Self::Rotate(command) => command.run().await,
            Self::Destroy(command) => command.run().await,
            Self::Operations(command) => command.run().await,
        }
    }
}

impl List {
    async fn run(self) -> Result<(), CliError> {
        let session = self.remote.connect(ROLE).await?;
        let key_versions = session.client.list_key_versions(&session.tenant()?).await?;
        if session.json {
            return Ok(terminal::say(json::to_text(&ListKeyVersionsResponse {
                key_versions,
            })?)?);
        }
        let rows: Vec<_> = std::iter::once(render::key_version_head())
            .chain(key_versions.iter().map(render::key_version_row))
            .collect();
        Ok(terminal::say(terminal::columns(&rows))?)
    }
}

impl Rotate {
    async fn run(self) -> Result<(), CliError> {
        let session = self.remote.connect(ROLE).await?;
        let request = RotateTenantKeyRequest {
            tenant_id: session.tenant()?,
            request_id: request_id(self.asked.request_id.clone()),
        };
        let begun = session.client.rotate_tenant_key(request).await?;
        follow(&session, begun, self.asked.no_wait).await
    }
}

impl Destroy {
    async fn run(self) -> Result<(), CliError> {
        let session = self.remote.connect(ROLE).await?;
        let destroyed = session
            .client
            .destroy_key_version(&session.tenant()?, self.version)
            .await?;
        if session.json {
            return Ok(terminal::say(json::to_text(&destroyed)?)?);
        }
        let rows = [render::key_version_head(), render::key_version_row(&destroyed)];
        Ok(terminal::say(terminal::columns(&rows))?)
    }
}

impl Operations {
    async fn run(self) -> Result<(), CliError> {
        let session = self.remote.connect(ROLE).await?;
        let mut operations = Vec::new();
        let mut request = ListKeyOperationsRequest::default();
        loop {
            let page = session.client.list_key_operations(request.clone()).await?;
            operations.extend(page.operations);
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                break;
            }
        }
        if session.json {
            let all = ListKeyOperationsResponse {
                operations,
                next_page_token: String::new(),
            };
            return Ok(terminal::say(json::to_text(&all)?)?);
        }
        let rows: Vec<_> = std::iter::once(render::operation_head())
            .chain(operations.iter().map(render::operation_row))
            .collect();
        Ok(terminal::say(terminal::columns(&rows))?)
    }
}

/// Waits for an operation, with a bar of pages on a terminal, and says what it came to.
pub(super) async fn follow(session: &Session, begun: KeyOperation, no_wait: bool) -> Result<(), CliError> {
    let bar = terminal::pages();
    let ended = if no_wait {
        begun
    } else {
        let told = |now: &KeyOperation| show(&bar, now);
        session.client.key_operation_ended(begun, told).await?
    };
    bar.finish_and_clear();
    if session.json {
        terminal::say(json::to_text(&ended)?)?;
    } else {
        let rows = [render::operation_head(), render::operation_row(&ended)];
        terminal::say(terminal::columns(&rows))?;
    }
    if ended.state() == KeyOperationState::Failed {
        return Err(CliError::failed(format!(
            "{} reason={}",
            ended.detail, ended.reason
        )));
    }
    Ok(())
}

fn show(bar: &ProgressBar, now: &KeyOperation) {
    bar.set_length(u64::try_from(now.pages_total).unwrap_or(0));
    bar.set_position(u64::try_from(now.pages_done).unwrap_or(0));
}
