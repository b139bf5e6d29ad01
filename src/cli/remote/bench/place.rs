//! Where the load goes: connections as uploader and reader, tenants that are there.

use crate::{
    cli::CliError,
    client::{Client, ClientConfig, ClientError, Code, Retry},
    proto::v1::{CreateRetentionClassRequest, CreateTenantRequest, RetentionAction, RetentionClass, Tenant},
};

use super::Bench;

/// Retention class of what a bench writes into tenants that it made.
const CLASS: &str = "bench";

/// Connections and tenants.
pub(super) struct Place {
    uploaders: Vec<Client>,
    readers: Vec<Client>,
    tenants: Vec<String>,
    /// Empty for the tenant's own default.
    pub(super) retention_class: &'static str,
}

impl Place {
    pub(super) async fn prepare(bench: &Bench) -> Result<Self, CliError> {
        let session = bench.remote.connect("uploader").await?;
        let role = |usual: &str| {
            let role = bench.remote.role.as_deref().unwrap_or(usual);
            let mut config = session.file.role(role)?;
            config.purpose = bench.remote.purpose.clone().or(config.purpose);
            Ok::<_, CliError>(config)
        };
        let several = bench.tenants > 1;
        let tenants = if several {
            (1..=bench.tenants).map(|n| format!("bench-{n}")).collect()
        } else {
            vec![session.tenant()?]
        };
        if several {
            let admin = Client::connect(&role("tenant-admin")?).await?;
            for tenant in &tenants {
                make(&admin, tenant).await?;
            }
        }
        Ok(Self {
            uploaders: connections(&role("uploader")?, bench.connections).await?,
            readers: connections(&role("reader")?, bench.connections).await?,
            tenants,
            retention_class: if several { CLASS } else { "" },
        })
    }

    pub(super) fn uploader(&self, stream: usize) -> &Client {
        &self.uploaders[stream % self.uploaders.len()]
    }

    pub(super) fn reader(&self, stream: usize) -> &Client {
        &self.readers[stream % self.readers.len()]
    }

    pub(super) fn tenant(&self, stream: usize) -> &str {
        &self.tenants[stream % self.tenants.len()]
    }
}

/// Without patience: what the server refuses is what a bench is to show.
async fn connections(config: &ClientConfig, count: u32) -> Result<Vec<Client>, CliError> {
    let mut clients = Vec::new();
    for _ in 0..count {
        clients.push(Client::connect(config).await?.with_retry(Retry::NEVER));
    }
    Ok(clients)
}

async fn make(admin: &Client, tenant: &str) -> Result<(), CliError> {
    let request = CreateTenantRequest {
        tenant: Some(Tenant {
            tenant_id: tenant.to_owned(),
            ..Tenant::default()
        }),
        ..CreateTenantRequest::default()
    };
    there(admin.create_tenant(request).await)?;
    let request = CreateRetentionClassRequest {
        tenant_id: tenant.to_owned(),
        retention_class: Some(RetentionClass {
            retention_class_id: CLASS.to_owned(),
            maximum_days: 1,
            action: RetentionAction::Shred.into(),
            ..RetentionClass::default()
        }),
        ..CreateRetentionClassRequest::default()
    };
    there(admin.create_retention_class(request).await)
}

/// Made now or before.
fn there<T>(answer: Result<T, ClientError>) -> Result<(), CliError> {
    match answer {
        Ok(_) => Ok(()),
        Err(error) if error.code() == Some(Code::AlreadyExists) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
