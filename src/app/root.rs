//! The root providers of a configuration.

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, OnceLock},
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::OnceCell;

use crate::{
    config::{Config, Root, RootAwsKms, RootKind, RootPkcs11},
    crypto::secret::EpochKey,
    domain::{clock::Rng, ids::VaultId},
    keys::{
        aws_kms::{self, AwsKmsRoot},
        file::FileRoot,
        patient::PatientRoot,
        pkcs11::{self, PinSource, Pkcs11Root},
        provider::{Anchor, Destruction, EpochGrant, EpochLabel, ProviderError, RootProvider},
        providers::Providers,
    },
};

use super::AppError;

/// No call of a provider takes longer: longer than the longest that a configuration allows for one request.
const PATIENCE: Duration = Duration::from_secs(90);
/// About how long to wait before a request is repeated; doubles from there.
const BACKOFF: Duration = Duration::from_millis(200);

/// Opens the provider that is configured, and the one that the root is to move to. Others that have a section are reached when
/// somebody asks them: older epochs may be with them.
///
/// # Errors
/// [`AppError::Root`] with what to do; [`AppError::Config`] if a section is missing.
pub(super) async fn open(
    config: &Config,
    to: Option<RootKind>,
    rng: &Arc<dyn Rng>,
) -> Result<Providers, AppError> {
    let root = &config.root;
    let mut providers = Providers::one(reach(root, root.provider, rng).await?);
    for kind in root.others().filter(|kind| Some(*kind) != to) {
        let (root, rng) = (root.clone(), Arc::clone(rng));
        providers = providers.with(Arc::new(Later::new(kind, move || {
            let (root, rng) = (root.clone(), Arc::clone(&rng));
            Box::pin(async move { reach(&root, kind, &rng).await })
        })));
    }
    Ok(match to {
        None => providers,
        Some(to) if to == root.provider => {
            let named = Arc::clone(providers.named());
            providers.moving_to(named)
        }
        Some(to) => providers.moving_to(reach(root, to, rng).await?),
    })
}

async fn reach(root: &Root, kind: RootKind, rng: &Arc<dyn Rng>) -> Result<Arc<dyn RootProvider>, AppError> {
    let rng = Arc::clone(rng);
    let missing = || AppError::Config(Root::missing_section(kind));
    Ok(match kind {
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

type Reaching = Pin<Box<dyn Future<Output = Result<Arc<dyn RootProvider>, AppError>> + Send>>;

/// A provider that is reached when it is first asked, and again until it is. One that lets nobody in is not asked again by this process:
/// each try may cost a token one of its few.
struct Later {
    kind: RootKind,
    reach: Box<dyn Fn() -> Reaching + Send + Sync>,
    reached: OnceCell<Arc<dyn RootProvider>>,
    refused: OnceLock<String>,
}

impl Later {
    fn new(kind: RootKind, reach: impl Fn() -> Reaching + Send + Sync + 'static) -> Self {
        Self {
            kind,
            reach: Box::new(reach),
            reached: OnceCell::new(),
            refused: OnceLock::new(),
        }
    }

    async fn reached(&self) -> Result<&Arc<dyn RootProvider>, ProviderError> {
        // Whoever waited meanwhile is told what the first one was.
        let reach = || async {
            if let Some(why) = self.refused.get() {
                return Err(ProviderError::Refused(why.clone()));
            }
            let refused = match (self.reach)().await {
                Ok(reached) => return Ok(reached),
                Err(AppError::Root(error)) => error,
                Err(other) => ProviderError::unavailable(other),
            };
            if let ProviderError::Refused(why) = &refused {
                let _ = self.refused.set(why.clone());
            }
            Err(refused)
        };
        self.reached.get_or_try_init(reach).await
    }
}

impl fmt::Debug for Later {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Later")
            .field("kind", &self.kind)
            .field("reached", &self.reached)
            .field("refused", &self.refused)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl RootProvider for Later {
    fn kind(&self) -> &'static str {
        self.kind.name()
    }

    async fn create_epoch(&self, label: EpochLabel) -> Result<EpochGrant, ProviderError> {
        self.reached().await?.create_epoch(label).await
    }

    async fn unwrap(&self, label: EpochLabel, grant: &EpochGrant) -> Result<EpochKey, ProviderError> {
        self.reached().await?.unwrap(label, grant).await
    }

    async fn destroy(&self, label: EpochLabel, handle: &str) -> Result<Destruction, ProviderError> {
        self.reached().await?.destroy(label, handle).await
    }

    async fn destruction(
        &self,
        label: EpochLabel,
        handle: &str,
    ) -> Result<Option<Destruction>, ProviderError> {
        self.reached().await?.destruction(label, handle).await
    }

    async fn anchor(&self) -> Result<Option<Anchor>, ProviderError> {
        self.reached().await?.anchor().await
    }

    async fn advance(&self, anchor: &Anchor) -> Result<(), ProviderError> {
        self.reached().await?.advance(anchor).await
    }
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

/// Reaches the root as a start would, and says what is there; and likewise every other provider that has a section: the root may
/// move there, or older epochs be with it. Makes nothing.
///
/// # Errors
/// As a start: [`AppError::Root`].
pub async fn check_root(config: &Config) -> Result<String, AppError> {
    let mut told = Vec::new();
    for (kind, found) in look_at_roots(config).await {
        told.push(match found {
            Err(error) if kind == config.root.provider => return Err(error),
            Err(error) => format!("another root ({kind}): {error}"),
            Ok(found) => found.text,
        });
    }
    Ok(told.join("\n"))
}

/// What was seen of a provider.
pub(super) struct SeenRoot {
    /// For people.
    pub(super) text: String,
    /// Whose anchor it has.
    pub(super) of: Option<VaultId>,
}

/// The provider that is named, and every other one that has a section; each may fail by itself.
pub(super) async fn look_at_roots(config: &Config) -> Vec<(RootKind, Result<SeenRoot, AppError>)> {
    let root = &config.root;
    let mut seen = vec![(root.provider, look_at(root, root.provider, "the root").await)];
    for kind in root.others() {
        seen.push((kind, look_at(root, kind, "another root").await));
    }
    seen
}

async fn look_at(root: &Root, kind: RootKind, what: &str) -> Result<SeenRoot, AppError> {
    let rng: Arc<dyn Rng> = Arc::new(crate::crypto::rng::SystemRng::new());
    let dir = root.file.as_ref().filter(|_| kind == RootKind::File);
    if let Some(file) = dir
        && !file.dir.exists()
    {
        let dir = file.dir.display();
        return Ok(SeenRoot {
            text: format!("{what} is a directory that is made when it is needed: {dir}"),
            of: None,
        });
    }
    let provider = reach(root, kind, &rng).await?;
    let of = provider.anchor().await?.map(|anchor| anchor.vault);
    let text = match of {
        Some(vault) => format!("{what} is there ({kind}); it belongs to vault {vault}"),
        None => format!("{what} is there ({kind}); it belongs to no vault yet"),
    };
    Ok(SeenRoot { text, of })
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use super::*;
    use crate::{
        app::{
            Offline,
            vault::{How, OpenVault},
        },
        blob::s3::tests::credentials,
        config::{Root, Store},
        domain::tenant::TenantSettings,
        testing::{
            kms::Service,
            token::{PIN, TOKEN, module, write_pin},
        },
        vault::OperationState,
    };

    const MAKE: How = How {
        may_make: true,
        rebuild: false,
        move_to: None,
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

    #[tokio::test]
    async fn a_provider_that_lets_nobody_in_is_asked_once_and_one_that_is_away_again() {
        for (refuses, most) in [(true, 1), (false, 3)] {
            let tries = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&tries);
            let later = Later::new(RootKind::Pkcs11, move || {
                counted.fetch_add(1, Ordering::SeqCst);
                Box::pin(async move {
                    Err(AppError::Root(if refuses {
                        ProviderError::Refused("a wrong PIN".to_owned())
                    } else {
                        ProviderError::unavailable("it is away")
                    }))
                })
            });
            for _ in 0..3 {
                let told = later.anchor().await.unwrap_err();
                assert_eq!(
                    matches!(&told, ProviderError::Refused(why) if why == "a wrong PIN"),
                    refuses
                );
            }
            assert_eq!(tries.load(Ordering::SeqCst), most);
        }
    }

    async fn swept(vault: &Arc<crate::vault::Vault>) {
        let begun = vault.run_sweep("keys", None).await.unwrap();
        loop {
            let now = vault.key_operation(&begun.id, |_| true).await.unwrap();
            assert_eq!(now.reason, None);
            if now.state == OperationState::Succeeded {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// From a directory to another provider and back; what is left behind is destroyed where it is.
    async fn a_root_moves_from_a_directory(mut config: Config, to: RootKind) {
        assert_eq!(config.root.provider, RootKind::File);
        OpenVault::open(&config, MAKE).await.unwrap().close().await;
        for (from, to) in [(RootKind::File, to), (to, RootKind::File)] {
            config.root.provider = from;
            let moved = Offline::migrate_root(&config, to, |_, _| ()).await.unwrap();
            assert!(moved.moved && moved.to == to.name(), "{moved:?}");
            let refused = OpenVault::open(&config, MAKE).await.unwrap_err().to_string();
            assert!(
                refused.contains(&format!("set root.provider to {to}")),
                "{refused}"
            );
            config.root.provider = to;
            let told = check_root(&config).await.unwrap();
            assert!(told.contains(&format!("the root is there ({to})")), "{told}");
            assert!(
                told.contains(&format!("another root is there ({from})")),
                "{told}"
            );
            let open = OpenVault::open(&config, MAKE).await.unwrap();
            let vault = Arc::clone(&open.opened.vault);
            swept(&vault).await;
            for epoch in vault.root_epochs().await.unwrap() {
                let lives = epoch.provider == to.name() && epoch.retired.is_none();
                // KMS takes its days.
                let waits = epoch.provider == RootKind::AwsKms.name();
                assert!(lives || waits || epoch.destroyed.is_some(), "{epoch:?}");
            }
            drop(vault);
            open.close().await;
            let offline = Offline::open(&config).await.unwrap();
            assert_eq!(offline.verify().await.unwrap().findings, vec![]);
            offline.close().await;
        }
    }

    fn beside_a_directory(keep: &tempfile::TempDir, section: &str) -> Config {
        let dir = keep.path().join("root");
        configured(
            keep,
            &format!("provider = \"file\"\nfile = {{ dir = {dir:?} }}\n{section}"),
        )
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_root_moves_from_a_directory_to_kms_and_back() {
        let (service, keep) = (Service::new(), tempfile::tempdir().unwrap());
        let file = credentials(&keep, "any", "any");
        let endpoint = service.serve().await;
        let section = format!(
            "aws_kms = {{ region = \"us-east-1\", endpoint = {endpoint:?}, credentials_file = {file:?} }}"
        );
        a_root_moves_from_a_directory(beside_a_directory(&keep, &section), RootKind::AwsKms).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs a token: a_root_may_move_to_a_token_and_back"]
    async fn a_root_moves_to_a_token() {
        let keep = tempfile::tempdir().unwrap();
        write_pin(keep.path(), PIN);
        let (module, pin) = (module().unwrap(), keep.path().join("pin"));
        let section = format!("pkcs11 = {{ module = {module:?}, token = {TOKEN:?}, pin_file = {pin:?} }}");
        a_root_moves_from_a_directory(beside_a_directory(&keep, &section), RootKind::Pkcs11).await;
    }
}
