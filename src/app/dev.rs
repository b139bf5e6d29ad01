//! What dev mode makes at its first start: a tenant, a retention class, and a file that clients read.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::{Path, PathBuf},
};

use crate::{
    client::{ClientFile, Identity},
    domain::{
        ids::{RetentionClassId, TenantId},
        principal::Role,
        purpose::Purpose,
        tenant::{RetentionAction, RetentionClass, TenantSettings},
    },
    server::pki::DevPki,
    vault::{Error, Kind, TenantChange, Vault},
};

use super::{AppError, index};

/// The file that tells clients of dev mode where the server is.
pub const CLIENT_FILE: &str = "client.toml";
/// The tenant of dev mode.
pub const TENANT: &str = "dev";
const RETENTION_CLASS: &str = "standard";
const RETENTION_DAYS: u32 = 365;
/// Who did it, in the ledger.
const ACTOR: &str = "dev-mode";

/// Makes what is missing of the dev tenant; a start that was cut short is completed by the next.
///
/// # Errors
/// What the vault answered.
pub(super) async fn seed(vault: &Vault) -> Result<(), AppError> {
    let tenant: TenantId = TENANT.parse()?;
    let class: RetentionClassId = RETENTION_CLASS.parse()?;
    let settings = match vault.tenant(&tenant).await {
        Ok(found) => found.settings,
        Err(Error {
            kind: Kind::NotFound, ..
        }) => {
            let made = vault
                .create_tenant(ACTOR, &tenant, TenantSettings::default(), None)
                .await?;
            made.settings
        }
        Err(error) => return Err(error.into()),
    };
    let standard = RetentionClass {
        id: class.clone(),
        minimum_days: 0,
        maximum_days: Some(RETENTION_DAYS),
        action: RetentionAction::Shred,
        jurisdiction: None,
        legal_ground: None,
        effective: vault.clock().now(),
        created: vault.clock().now(),
    };
    match vault.create_retention_class(ACTOR, &tenant, standard, None).await {
        Ok(_)
        | Err(Error {
            kind: Kind::AlreadyExists,
            ..
        }) => {}
        Err(error) => return Err(error.into()),
    }
    if settings.default_retention_class.is_none() {
        let change = TenantChange {
            fields: BTreeSet::from(["default_retention_class"]),
            settings: TenantSettings {
                default_retention_class: Some(class),
                ..TenantSettings::default()
            },
        };
        vault.update_tenant(ACTOR, &tenant, &change, None, None).await?;
    }
    Ok(())
}

/// Writes `client.toml` with the address of this start; its paths begin where it lies.
///
/// # Errors
/// [`AppError::File`].
pub(super) fn write_client_file(data: &Path, pki: &DevPki, address: SocketAddr) -> Result<PathBuf, AppError> {
    let relative = |path: PathBuf| path.strip_prefix(data).map(Path::to_owned).unwrap_or(path);
    let identity = |role: &Role| {
        let (certificate, key) = pki.client(*role);
        let identity = Identity::with_certificate(relative(certificate), relative(key));
        (role.name().to_owned(), identity)
    };
    let file = ClientFile {
        endpoint: format!("https://{address}"),
        server_name: None,
        tenant: Some(TENANT.to_owned()),
        purpose: Some(Purpose::ServiceProvision.term().to_owned()),
        ca: relative(pki.authority()),
        roles: Role::ALL.iter().map(identity).collect::<BTreeMap<_, _>>(),
    };
    let path = data.join(CLIENT_FILE);
    let text = toml::to_string(&file).map_err(|e| AppError::file(&path)(std::io::Error::other(e)))?;
    index::write(&path, text.as_bytes())?;
    Ok(path)
}
