//! `retention class`: created, listed, made the tenant's default.

use clap::{Args, Subcommand};
use prost_types::{FieldMask, Timestamp};

use super::{Remote, fields, json, render, request_id, tenant};
use crate::{
    cli::{CliError, terminal},
    proto::v1::{
        CreateRetentionClassRequest, ListRetentionClassesRequest, ListRetentionClassesResponse,
        RetentionClass, Tenant, UpdateTenantRequest,
    },
};

const ROLE: &str = "tenant-admin";

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// Classes: how long records are kept, and what happens then
    #[command(subcommand)]
    Class(Class),
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Class {
    /// Add a class to a tenant
    Create(Create),
    /// List a tenant's classes
    Ls(Many),
    /// Make a class the tenant's default
    Set(Set),
}

/// Options of `retention class create`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Create {
    /// Its name within the tenant
    #[arg(value_name = "CLASS")]
    id: String,
    /// Not shredded sooner
    #[arg(long, value_name = "DAYS", default_value_t = 0)]
    minimum_days: i32,
    /// Due after; 0 for never
    #[arg(long, value_name = "DAYS")]
    maximum_days: i32,
    /// What happens then: shred anonymise
    #[arg(long, default_value = "shred", value_parser = fields::retention_action)]
    action: i32,
    /// ISO 3166 code of the law behind it
    #[arg(long, value_name = "CODE")]
    jurisdiction: Option<String>,
    /// consent contract-performance legal-obligation ...
    #[arg(long, value_name = "TERM", value_parser = fields::legal_basis)]
    legal_ground: Option<i32>,
    /// In force from; now when absent
    #[arg(long, value_name = "TIME", value_parser = fields::moment)]
    effective: Option<Timestamp>,
    /// Makes the creation idempotent for 24 hours
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
    #[command(flatten)]
    remote: Remote,
}

/// Options of `retention class ls`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Many {
    #[command(flatten)]
    remote: Remote,
}

/// Options of `retention class set`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Set {
    /// The class that uploads get which name none
    #[arg(value_name = "CLASS")]
    id: String,
    #[command(flatten)]
    remote: Remote,
}

impl Command {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let Self::Class(class) = self;
        match class {
            Class::Create(command) => command.run().await,
            Class::Ls(command) => command.run().await,
            Class::Set(command) => command.run().await,
        }
    }
}

impl Create {
    async fn run(self) -> Result<(), CliError> {
        let session = self.remote.connect(ROLE).await?;
        let class = RetentionClass {
            retention_class_id: self.id,
            minimum_days: self.minimum_days,
            maximum_days: self.maximum_days,
            action: self.action,
            jurisdiction: self.jurisdiction.unwrap_or_default(),
            legal_ground: self.legal_ground.unwrap_or_default(),
            effective_time: Some(self.effective.unwrap_or_else(fields::now)),
            create_time: None,
        };
        let request = CreateRetentionClassRequest {
            tenant_id: session.tenant()?,
            retention_class: Some(class),
            request_id: request_id(self.request_id),
        };
        let class = session.client.create_retention_class(request).await?;
        if session.json {
            return Ok(terminal::say(json::to_text(&class)?)?);
        }
        show(&[class])
    }
}

impl Many {
    async fn run(self) -> Result<(), CliError> {
        let session = self.remote.connect(ROLE).await?;
        let mut classes = Vec::new();
        let mut request = ListRetentionClassesRequest {
            tenant_id: session.tenant()?,
            ..ListRetentionClassesRequest::default()
        };
        loop {
            let page = session.client.list_retention_classes(request.clone()).await?;
            classes.extend(page.retention_classes);
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                break;
            }
        }
        if session.json {
            let all = ListRetentionClassesResponse {
                retention_classes: classes,
                next_page_token: String::new(),
            };
            return Ok(terminal::say(json::to_text(&all)?)?);
        }
        show(&classes)
    }
}

impl Set {
    async fn run(self) -> Result<(), CliError> {
        let session = self.remote.connect(ROLE).await?;
        let request = UpdateTenantRequest {
            tenant_id: session.tenant()?,
            tenant: Some(Tenant {
                default_retention_class: self.id,
                ..Tenant::default()
            }),
            update_mask: Some(FieldMask {
                paths: vec!["default_retention_class".to_owned()],
            }),
            request_id: request_id(None),
            ..UpdateTenantRequest::default()
        };
        tenant::tell(&session, &session.client.update_tenant(request).await?)
    }
}

fn show(classes: &[RetentionClass]) -> Result<(), CliError> {
    let rows: Vec<_> = std::iter::once(render::class_head())
        .chain(classes.iter().map(render::class_row))
        .collect();
    Ok(terminal::say(terminal::columns(&rows))?)
}
