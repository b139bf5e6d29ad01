//! `erase`: what is to be forgotten is looked at, asked for, taken back and followed.

use clap::{Args, Subcommand};
use prost_types::Duration;

use super::{Remote, Session, fields, json, render, request_id, target::Target};
use crate::{
    cli::{CliError, terminal},
    proto::v1::{
        Erasure, ErasureGround, ListErasuresRequest, ListErasuresResponse, PreviewErasureRequest,
        RequestErasureRequest,
    },
};

/// Who erases.
pub(super) const ROLE: &str = "compliance";

#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant)] // there is one, for the length of the process
pub(in crate::cli) enum Command {
    /// Say what an erasure would cover and what stands in its way; changes nothing
    Preview(Preview),
    /// Erase: unreadable at once, shredded when the grace has passed
    Request(Request),
    /// Take an erasure back within its grace
    Cancel(Cancel),
    /// Show how far an erasure is, or list all of them
    Status(Status),
}

/// Options of `erase preview`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Preview {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    why: Why,
    #[command(flatten)]
    remote: Remote,
}

/// Options of `erase request`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Request {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    why: Why,
    /// Your own name of the case: letters, digits and . _ : / - only. It stays in the logs for ever and must name nobody
    #[arg(long, value_name = "TEXT")]
    reference: String,
    /// How long it may be taken back, e.g. 0 or 3d, at most 14d; 7d when absent, 0 for mandatory destruction
    #[arg(long, value_name = "LENGTH", value_parser = fields::duration)]
    grace: Option<Duration>,
    /// Refuse unless the records are those that a preview named by this digest
    #[arg(long, value_name = "SHA256HEX", value_parser = fields::sha256)]
    expect: Option<bytes::Bytes>,
    /// Makes the call idempotent for 24 hours
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
    /// Do not ask before everything of a tenant is erased
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    remote: Remote,
}

/// Options of `erase cancel`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Cancel {
    /// The erasure
    #[arg(value_name = "ERASURE")]
    erasure: String,
    #[command(flatten)]
    remote: Remote,
}

/// Options of `erase status`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Status {
    /// The erasure; all of the tenant's when absent
    #[arg(value_name = "ERASURE")]
    erasure: Option<String>,
    #[command(flatten)]
    remote: Remote,
}

/// Why something is erased.
#[derive(Debug, Args)]
struct Why {
    /// a17 (right to erasure) a7-3 (consent withdrawn) retention-expired mandatory-destruction contract-ended
    #[arg(long, value_name = "TERM", default_value = "a17", value_parser = fields::ground)]
    ground: i32,
}

impl Command {
    pub(super) async fn run(self) -> Result<(), CliError> {
        match self {
            Self::Preview(command) => command.run().await,
            Self::Request(command) => command.run().await,
            Self::Cancel(command) => command.run().await,
            Self::Status(command) => command.run().await,
        }
    }
}

impl Preview {
    async fn run(self) -> Result<(), CliError> {
        let target = self.target.message()?;
        let session = self.remote.connect(ROLE).await?;
        let request = PreviewErasureRequest {
            tenant_id: session.tenant()?,
            target: Some(target),
            ground: self.why.ground,
        };
        let preview = session.client.preview_erasure(request).await?;
        if session.json {
            return Ok(terminal::say(json::to_text(&preview)?)?);
        }
        Ok(terminal::say(render::preview(&preview))?)
    }
}

impl Request {
    async fn run(self) -> Result<(), CliError> {
        let ask = self.target.is_whole_tenant() && !self.yes;
        if ask && !terminal::can_ask() {
            return Err(CliError::usage(
                "--all-of-tenant asks before it erases, and there is no terminal to ask on: add --yes",
            ));
        }
        let target = self.target.message()?;
        let session = self.remote.connect(ROLE).await?;
        let tenant_id = session.tenant()?;
        if ask {
            confirm(&tenant_id, self.why.ground).await?;
        }
        let request = RequestErasureRequest {
            tenant_id,
            target: Some(target),
            ground: self.why.ground,
            reference: self.reference,
            grace: self.grace,
            expected_set_sha256: self.expect.unwrap_or_default(),
            request_id: request_id(self.request_id),
        };
        tell(&session, &session.client.request_erasure(request).await?)
    }
}

impl Cancel {
    async fn run(self) -> Result<(), CliError> {
        let session = self.remote.connect(ROLE).await?;
        let cancelled = session
            .client
            .cancel_erasure(&session.tenant()?, &self.erasure)
            .await?;
        tell(&session, &cancelled)
    }
}

impl Status {
    async fn run(self) -> Result<(), CliError> {
        let session = self.remote.connect(ROLE).await?;
        match self.erasure {
            Some(erasure) => one(&session, &erasure).await,
            None => all(&session).await,
        }
    }
}

async fn one(session: &Session, erasure: &str) -> Result<(), CliError> {
    let found = session.client.get_erasure(&session.tenant()?, erasure).await?;
    if session.json {
        return Ok(terminal::say(json::to_text(&found)?)?);
    }
    let about = found.erasure.unwrap_or_default();
    Ok(terminal::say(render::erasure(&about, &found.pending_deletions))?)
}

async fn all(session: &Session) -> Result<(), CliError> {
    let mut erasures = Vec::new();
    let mut request = ListErasuresRequest {
        tenant_id: session.tenant()?,
        ..ListErasuresRequest::default()
    };
    loop {
        let page = session.client.list_erasures(request.clone()).await?;
        erasures.extend(page.erasures);
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    if session.json {
        let all = ListErasuresResponse {
            erasures,
            next_page_token: String::new(),
        };
        return Ok(terminal::say(json::to_text(&all)?)?);
    }
    if erasures.is_empty() {
        return Ok(terminal::say("no erasures")?);
    }
    let rows: Vec<_> = std::iter::once(render::erasure_head())
        .chain(erasures.iter().map(render::erasure_row))
        .collect();
    Ok(terminal::say(terminal::columns(&rows))?)
}

/// Shows one erasure.
fn tell(session: &Session, erasure: &Erasure) -> Result<(), CliError> {
    if session.json {
        return Ok(terminal::say(json::to_text(erasure)?)?);
    }
    Ok(terminal::say(render::erasure(erasure, &[]))?)
}

/// Has the tenant's id typed before everything of it goes.
async fn confirm(tenant: &str, ground: i32) -> Result<(), CliError> {
    let back = if ground == ErasureGround::MandatoryDestruction as i32 {
        "There is no way back."
    } else {
        "After its grace there is no way back, and the id is never used again."
    };
    let question =
        format!("This erases everything of tenant {tenant}. {back}\nType the tenant's id to go on: ");
    if terminal::ask(question).await? == tenant {
        return Ok(());
    }
    Err(CliError::failed("not confirmed: nothing was erased"))
}
