//! A vault over its concrete parts: a bucket, sled as an index, whoever holds the root.

use std::{fs, path::Path, sync::Arc};

use crate::{
    blob::{
        patient::{Patience, Patient},
        store::{BlobStore, ObjectKey, StoreError},
    },
    config::{Config, RootKind},
    crypto::rng::SystemRng,
    domain::clock::{Clock, Rng, SystemClock},
    index::IndexError,
    spool::Directory,
    vault::{OpenError, Opened, UploadSettings, Vault, VaultSettings},
};

use super::{AppError, index, lock::DataLock, root, store};

/// Tells whether a bucket holds a vault.
const MANIFEST: &str = "vault/manifest";
/// One node serves a region, until there are more.
const NODE: u32 = 0;

/// A vault that this process alone has open.
#[derive(Debug)]
pub(super) struct OpenVault {
    pub(super) opened: Opened,
    lock: DataLock,
}

/// How a vault is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct How {
    /// Make a vault if there is none.
    pub(super) may_make: bool,
    /// Start from an empty index, and take the vault from any other.
    pub(super) rebuild: bool,
    /// The root is to move there; nothing else is worked on.
    pub(super) move_to: Option<RootKind>,
}

impl OpenVault {
    /// Opens the vault of a configuration.
    ///
    /// A damaged index is moved aside and made again from the bucket.
    ///
    /// # Errors
    /// [`AppError`] says what does not fit and what to do.
    pub(super) async fn open(config: &Config, how: How) -> Result<Self, AppError> {
        if !how.may_make && store::is_missing(config) {
            return Err(AppError::NoVault {
                data: config.data.clone(),
            });
        }
        let lock = DataLock::take(&config.data)?;
        if how.rebuild {
            index::move_aside(&config.data, "old", &SystemClock)?;
        }
        match Self::open_parts(config, how).await {
            Err(error) if is_damaged_index(&error) => {
                let aside = index::move_aside(&config.data, "corrupt", &SystemClock)?;
                tracing::error!(
                    ?aside,
                    "the index is damaged; it was moved aside and is made again from the bucket"
                );
                let opened = Self::open_parts(config, how).await?;
                Ok(Self { opened, lock })
            }
            opened => Ok(Self {
                opened: opened?,
                lock,
            }),
        }
    }

    async fn open_parts(config: &Config, how: How) -> Result<Opened, AppError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let rng: Arc<dyn Rng> = Arc::new(SystemRng::new());
        let store = store::open(config, &clock, &rng).await?;
        check_root(&*store, config, how).await?;
        let root = root::open(config, how.move_to, &rng).await?;
        let recovery = store::recovery(config, &clock, &rng);
        if recovery.is_none() {
            tracing::warn!(
                "there is no recovery_store: a bucket that loses its key state after a sweep cannot be opened again; `callvault doctor` says more"
            );
        }
        let spool = config.data.join("spool");
        let settings = VaultSettings {
            region: config.region()?,
            country: config.region.country.clone(),
            node: NODE,
            memory_budget: config.limits.memory_budget_bytes,
            tenant_share_percent: config.limits.tenant_share_percent,
            index_id: index::id(&config.data, &*clock, &*rng)?,
            take_over: how.rebuild,
            uploads: UploadSettings {
                disk: Arc::new(Directory::open(&spool).map_err(AppError::file(spool))?),
                spool_bytes: config.limits.spool_bytes,
                life_micros: i64::try_from(config.limits.upload_life_seconds)
                    .unwrap_or(i64::MAX)
                    .saturating_mul(1_000_000),
            },
            recovery: recovery.map(patient),
        };
        let (data, cache_bytes) = (config.data.clone(), config.index.cache_bytes);
        let index = tokio::task::spawn_blocking(move || index::open(&data, cache_bytes))
            .await
            .map_err(std::io::Error::other)??;
        let store = patient(store);
        let opened = Vault::open(settings, store, Arc::new(index), root, clock, rng).await?;
        opened
            .vault
            .serve_without_root_for(config.keys.serve_without_root());
        if let Some(replayed) = &opened.replayed {
            tracing::info!(
                leaves = replayed.leaves,
                records = replayed.records,
                adopted = replayed.adopted,
                broken = replayed.broken.len(),
                "the index caught up with the bucket"
            );
        }
        Ok(opened)
    }

    /// Ships what is queued, closes, and lets others in.
    pub(super) async fn close(self) {
        self.opened.close().await;
        drop(self.lock);
    }
}

fn patient(store: Arc<dyn BlobStore>) -> Arc<dyn BlobStore> {
    Arc::new(Patient::new(store, Patience::default()))
}

/// A bucket with a vault in it needs its own root: a new one would only hide the loss. That a directory is empty is seen here;
/// other providers say that they have no such key when they are asked for it.
async fn check_root(store: &dyn BlobStore, config: &Config, how: How) -> Result<(), AppError> {
    let manifest = ObjectKey::parse(MANIFEST)?;
    let found = store.head(&manifest).await;
    let empty = config.root.dir().filter(|dir| is_empty(dir));
    match (found, empty) {
        // Its making was cut short before its first key: nothing was ever sealed in it, so it may be made.
        (Ok(_), Some(root)) if !(how.may_make && holds_nothing(store).await?) => Err(AppError::NoRoot {
            root: root.to_owned(),
        }),
        (Err(StoreError::NotFound), _) if !how.may_make => Err(AppError::NoVault {
            data: config.data.clone(),
        }),
        (Ok(_) | Err(StoreError::NotFound), _) => Ok(()),
        (Err(error), _) => Err(error.into()),
    }
}

/// No leaf, payload or blob was ever written.
async fn holds_nothing(store: &dyn BlobStore) -> Result<bool, StoreError> {
    for sealed in ["log/", "payloads/", "blobs/", "quarantine/"] {
        if !store.list(sealed, false, None, 1).await?.objects.is_empty() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// No epoch lies in the root.
fn is_empty(root: &Path) -> bool {
    match fs::read_dir(root) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}

/// Whether the index itself says that it is damaged, at its opening or when it is first read.
fn is_damaged_index(error: &AppError) -> bool {
    let corrupt = |error: &IndexError| matches!(error, IndexError::Corrupt(_));
    match error {
        AppError::Index(error) => corrupt(error),
        AppError::Open(OpenError::Vault(error)) => error
            .source
            .as_deref()
            .and_then(|source| source.downcast_ref())
            .is_some_and(corrupt),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAKE: How = How {
        may_make: true,
        rebuild: false,
        move_to: None,
    };

    #[tokio::test(flavor = "multi_thread")]
    async fn a_vault_whose_making_was_cut_short_before_its_first_key_is_made_by_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::dev(&dir.path().join("data"), ([127, 0, 0, 1], 0).into()).unwrap();
        OpenVault::open(&config, MAKE).await.unwrap().close().await;
        for key in fs::read_dir(config.root.dir().unwrap()).unwrap() {
            fs::remove_file(key.unwrap().path()).unwrap();
        }
        fs::remove_dir_all(config.data.join("index")).unwrap();
        let refused = OpenVault::open(&config, MAKE).await.unwrap_err();
        assert!(matches!(refused, AppError::NoRoot { .. }), "something is sealed");
        let crate::config::Store::Local(bucket) = &config.store else {
            panic!("dev mode's bucket is a directory")
        };
        fs::remove_dir_all(bucket.join("objects/log")).unwrap();
        let refused = OpenVault::open(&config, How::default()).await.unwrap_err();
        assert!(
            matches!(refused, AppError::NoRoot { .. }),
            "a scrub makes nothing"
        );
        OpenVault::open(&config, MAKE).await.unwrap().close().await;
    }
}
