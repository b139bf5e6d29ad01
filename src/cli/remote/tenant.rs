//! `tenant`: created, shown, listed, changed, suspended.

use clap::{Args, Subcommand};
use prost_types::FieldMask;

use super::{Remote, Session, fields, json, render, request_id};
use crate::{
    cli::{CliError, terminal},
    proto::v1::{
        CreateTenantRequest, ListTenantsRequest, ListTenantsResponse, ResumeTenantRequest,
        SuspendTenantRequest, Tenant, UpdateTenantRequest,
    },
};

const ROLE: &str = "tenant-admin";

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// Create a tenant and its first key
    Create(Create),
    /// Show a tenant
    Get(One),
    /// List the tenants that the caller may know
    Ls(Many),
    /// Change a tenant's settings
    Update(Update),
    /// Serve a tenant no more for now: nothing is read, listed or stored, and reads that run are cut
    Suspend(One),
    /// Serve it again
    Resume(One),
}

/// Options of `tenant create`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Create {
    /// 1 to 63 lowercase letters, digits and hyphens; never reused, visible in object names
    #[arg(value_name = "ID")]
    id: String,
    /// For people
    #[arg(long, value_name = "TEXT")]
    display_name: Option<String>,
    /// The legal person that decides on purposes
    #[arg(long, value_name = "TEXT")]
    controller: Option<String>,
    /// What the platform is to its data: controller processor
    #[arg(long, value_name = "ROLE", value_parser = fields::tenant_role)]
    role: Option<i32>,
    /// Purpose of uploads that name none; may be repeated
    #[arg(long = "allow", value_name = "TERM", value_parser = fields::purpose)]
    allow: Vec<i32>,
    /// ISO 3166; may be repeated
    #[arg(long, value_name = "CODE")]
    jurisdiction: Vec<String>,
    /// Makes the creation idempotent for 24 hours
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
    #[command(flatten)]
    remote: Remote,
}

/// Options of `tenant get`.
#[derive(Debug, Args)]
pub(in crate::cli) struct One {
    /// The tenant; the client file's by default
    #[arg(value_name = "ID")]
    id: Option<String>,
    #[command(flatten)]
    remote: Remote,
}

/// Options of `tenant ls`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Many {
    #[command(flatten)]
    remote: Remote,
}

/// Options of `tenant update`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Update {
    /// The tenant; the client file's by default
    #[arg(value_name = "ID")]
    id: Option<String>,
    /// display_name controller role default_retention_class allowed_purposes jurisdictions; may be repeated
    #[arg(long, value_name = "FIELD=VALUE", required = true, value_parser = fields::pair)]
    set: Vec<(String, String)>,
    /// Only if the tenant still has this etag
    #[arg(long, value_name = "ETAG")]
    etag: Option<String>,
    #[command(flatten)]
    remote: Remote,
}

impl Command {
    pub(super) async fn run(self) -> Result<(), CliError> {
        match self {
            Self::Create(command) => command.run().await,
            Self::Get(command) => command.run().await,
            Self::Ls(command) => command.run().await,
            Self::Update(command) => command.run().await,
            Self::Suspend(command) => command.suspend().await,
            Self::Resume(command) => command.resume().await,
        }
    }
}

impl Create {
    async fn run(self) -> Result<(), CliError> {
        let session = self.remote.connect(ROLE).await?;
        let tenant = Tenant {
            tenant_id: self.id,
            display_name: self.display_name.unwrap_or_default(),
            controller: self.controller.unwrap_or_default(),
            role: self.role.unwrap_or_default(),
            allowed_purposes: self.allow,
            jurisdictions: self.jurisdiction,
            ..Tenant::default()
        };
        let request = CreateTenantRequest {
            tenant: Some(tenant),
            request_id: request_id(self.request_id),
        };
        tell(&session, &session.client.create_tenant(request).await?)
    }
}

impl One {
    async fn run(self) -> Result<(), CliError> {
        let session = self.remote.connect(ROLE).await?;
        let id = self.id.map_or_else(|| session.tenant(), Ok)?;
        tell(&session, &session.client.get_tenant(&id).await?)
    }
}

impl One {
    async fn suspend(self) -> Result<(), CliError> {
        let session = self.remote.connect(ROLE).await?;
        let request = SuspendTenantRequest {
            tenant_id: self.id.map_or_else(|| session.tenant(), Ok)?,
            ..SuspendTenantRequest::default()
        };
        tell(&session, &session.client.suspend_tenant(request).await?)
    }

    async fn resume(self) -> Result<(), CliError> {
        let session = self.remote.connect(ROLE).await?;
        let request = ResumeTenantRequest {
            tenant_id: self.id.map_or_else(|| session.tenant(), Ok)?,
            ..ResumeTenantRequest::default()
        };
        tell(&session, &session.client.resume_tenant(request).await?)
    }
}

impl Many {
    async fn run(self) -> Result<(), CliError> {
        let session = self.remote.connect(ROLE).await?;
        let mut tenants = Vec::new();
        let mut request = ListTenantsRequest::default();
        loop {
            let page = session.client.list_tenants(request.clone()).await?;
            tenants.extend(page.tenants);
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                break;
            }
        }
        if session.json {
            let all = ListTenantsResponse {
                tenants,
                next_page_token: String::new(),
            };
            return Ok(terminal::say(json::to_text(&all)?)?);
        }
        let rows: Vec<_> = std::iter::once(render::tenant_head())
            .chain(tenants.iter().map(render::tenant_row))
            .collect();
        Ok(terminal::say(terminal::columns(&rows))?)
    }
}

impl Update {
    async fn run(self) -> Result<(), CliError> {
        let (tenant, paths) = fields::message::<Tenant>(&self.set)?;
        let session = self.remote.connect(ROLE).await?;
        let request = UpdateTenantRequest {
            tenant_id: self.id.map_or_else(|| session.tenant(), Ok)?,
            tenant: Some(tenant),
            update_mask: Some(FieldMask { paths }),
            etag: self.etag.unwrap_or_default(),
            request_id: request_id(None),
        };
        tell(&session, &session.client.update_tenant(request).await?)
    }
}

/// Shows one tenant.
pub(super) fn tell(session: &Session, tenant: &Tenant) -> Result<(), CliError> {
    if session.json {
        return Ok(terminal::say(json::to_text(tenant)?)?);
    }
    Ok(terminal::say(render::tenant(tenant))?)
}
