//! The root provider of a configuration.

use std::{sync::Arc, time::Duration};

use crate::{
    config::{Config, RootAwsKms, RootKind, RootPkcs11},
    domain::clock::Rng,
    keys::{
        aws_kms::{self, AwsKmsRoot},
        file::FileRoot,
        patient::PatientRoot,
        pkcs11::{self, PinSource, Pkcs11Root},
        provider::RootProvider,
    },
};

use super::AppError;

/// No call of a provider takes longer: longer than the longest that a configuration allows for one request.
const PATIENCE: Duration = Duration::from_secs(90);
/// About how long to wait before a request is repeated; doubles from there.
const BACKOFF: Duration = Duration::from_millis(200);

/// Opens the provider that is configured.
///
/// # Errors
/// [`AppError::Root`] with what to do; [`AppError::Config`] if its section is missing.
pub(super) async fn open(config: &Config, rng: &Arc<dyn Rng>) -> Result<Arc<dyn RootProvider>, AppError> {
    let (root, rng) = (&config.root, Arc::clone(rng));
    let missing = || AppError::Config(config.root.missing_section());
    Ok(match root.provider {
        RootKind::File => {
            let file = root.file.as_ref().ok_or_else(missing)?;
            patient(FileRoot::open(&file.dir, rng)?)
        }
        RootKind::Pkcs11 => {
            let token = root.pkcs11.as_ref().ok_or_else(missing)?;
            patient(Pkcs11Root::open(pkcs11_settings(token), rng).await?)
        }
        RootKind::AwsKms => {
            let kms = root.aws_kms.as_deref().ok_or_else(missing)?;
            patient(AwsKmsRoot::open(aws_kms_settings(kms), rng).await?)
        }
    })
}

fn patient(provider: impl RootProvider + 'static) -> Arc<dyn RootProvider> {
    Arc::new(PatientRoot::new(provider, PATIENCE))
}

fn pkcs11_settings(token: &RootPkcs11) -> pkcs11::Settings {
    let pin = match (&token.pin_file, &token.pin_env) {
        (Some(path), _) => PinSource::File(path.clone()),
        (None, name) => PinSource::Environment(name.clone().unwrap_or_default()),
    };
    pkcs11::Settings {
        module: token.module.clone(),
        token: token.token.clone(),
        name: token.name.clone(),
        pin,
        patience: Duration::from_secs(token.call_seconds),
    }
}

fn aws_kms_settings(kms: &RootAwsKms) -> aws_kms::Settings {
    aws_kms::Settings {
        name: kms.name.clone(),
        region: kms.region.clone(),
        endpoint: kms.endpoint.clone(),
        ca_file: kms.ca_file.clone(),
        profile: kms.profile.clone(),
        credentials_file: kms.credentials_file.clone(),
        deletion_days: kms.deletion_days,
        patience: aws_kms::Patience {
            attempts: kms.attempts,
            backoff: BACKOFF,
            connect: Duration::from_secs(kms.connect_seconds),
            read: Duration::from_secs(kms.read_seconds),
            operation: Duration::from_secs(kms.operation_seconds),
        },
    }
}

/// Reaches the root as a start would, and says what is there. Makes nothing.
///
/// # Errors
/// As a start: [`AppError::Root`].
pub async fn check_root(config: &Config) -> Result<String, AppError> {
    let rng: Arc<dyn Rng> = Arc::new(crate::crypto::rng::SystemRng::new());
    if let Some(dir) = config.root.dir()
        && !dir.exists()
    {
        return Ok(format!(
            "the root is a directory that a start makes: {}",
            dir.display()
        ));
    }
    let provider = open(config, &rng).await?;
    let kind = provider.kind();
    Ok(match provider.anchor().await? {
        Some(anchor) => format!("the root is there ({kind}); it belongs to vault {}", anchor.vault),
        None => format!("the root is there ({kind}); it belongs to no vault yet"),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{
        app::{
            Offline,
            vault::{How, OpenVault},
        },
        blob::s3::tests::credentials,
        config::{Root, Store},
        domain::tenant::TenantSettings,
        keys::{
            aws_kms::tests::service::Service,
            pkcs11::tests::{PIN, TOKEN, module, write_pin},
        },
        vault::OperationState,
    };

    const MAKE: How = How {
        may_make: true,
        rebuild: false,
    };

    /// A configuration whose root is what these lines of `[root]` say.
    fn configured(keep: &tempfile::TempDir, root: &str) -> Config {
        let mut config = Config::dev(&keep.path().join("data"), ([127, 0, 0, 1], 0).into()).unwrap();
        config.store = Store::Local(keep.path().join("bucket"));
        config.root = toml::from_str::<Root>(root).unwrap();
        config
    }

    async fn in_kms(service: &Service, keep: &tempfile::TempDir) -> Config {
        let file = credentials(keep, "any", "any");
        let endpoint = service.serve().await;
        let root = format!(
            "provider = \"aws_kms\"\naws_kms = {{ region = \"us-east-1\", endpoint = {endpoint:?}, credentials_file = {file:?} }}"
        );
        configured(keep, &root)
    }

    /// Made, turned to another epoch, lost but for bucket and root, and made again.
    async fn a_vault_lives_on(config: &Config) {
        assert!(check_root(config).await.unwrap().contains("no vault yet"));
        let open = OpenVault::open(config, MAKE).await.unwrap();
        let vault = Arc::clone(&open.opened.vault);
        let tenant = "acme".parse().unwrap();
        let settings = TenantSettings::default();
        vault
            .create_tenant("admin", &tenant, settings, None)
            .await
            .unwrap();
        vault.check_root().await.unwrap();
        let turning = vault.rotate_root_epoch("keys", None).await.unwrap();
        loop {
            let now = vault.key_operation(&turning.id, |_| true).await.unwrap();
            assert_eq!(now.reason, None);
            if now.state == OperationState::Succeeded {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        vault.check_root().await.unwrap();
        let epochs = vault.root_epochs().await.unwrap();
        let held: Vec<_> = epochs.iter().map(|epoch| epoch.provider.clone()).collect();
        assert_eq!(held, vec![config.root.provider.to_string(); 2]);
        let id = vault.id().to_string();
        drop(vault);
        open.close().await;
        assert!(check_root(config).await.unwrap().contains(&id));
        fs::remove_dir_all(&config.data).unwrap();
        // A bucket that is a directory is only looked for beside a data directory.
        fs::create_dir(&config.data).unwrap();
        let (again, rebuilt) = Offline::rebuild(config).await.unwrap();
        assert!(rebuilt.leaves > 0 && rebuilt.broken.is_empty(), "{rebuilt:?}");
        assert_eq!(again.verify().await.unwrap().findings, vec![]);
        again.close().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_vault_may_have_its_root_in_kms() {
        let (service, keep) = (Service::new(), tempfile::tempdir().unwrap());
        let config = in_kms(&service, &keep).await;
        a_vault_lives_on(&config).await;
        assert_eq!(service.states(), ["Enabled"; 3], "two epochs and the anchor");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_vault_is_not_made_again_over_a_kms_that_never_knew_it() {
        let (service, keep) = (Service::new(), tempfile::tempdir().unwrap());
        let mut config = in_kms(&service, &keep).await;
        OpenVault::open(&config, MAKE).await.unwrap().close().await;
        let elsewhere = Service::new();
        config.root = in_kms(&elsewhere, &keep).await.root;
        for _ in 0..2 {
            let refused = OpenVault::open(&config, MAKE).await.unwrap_err().to_string();
            assert!(refused.contains("no such root key"), "{refused}");
            let _ = fs::remove_dir_all(config.data.join("index"));
        }
        assert_eq!(elsewhere.states(), [""; 0], "nothing was made");
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs a token: a_vault_may_have_its_root_on_a_token"]
    async fn a_vault_lives_on_a_token() {
        let keep = tempfile::tempdir().unwrap();
        write_pin(keep.path(), PIN);
        let (module, pin) = (module().unwrap(), keep.path().join("pin"));
        let root = format!(
            "provider = \"pkcs11\"\npkcs11 = {{ module = {module:?}, token = {TOKEN:?}, pin_file = {pin:?} }}"
        );
        a_vault_lives_on(&configured(&keep, &root)).await;
    }
}
