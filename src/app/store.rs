//! The bucket of a configuration: a directory, or one that speaks S3.

use std::{sync::Arc, time::Duration};

use crate::{
    blob::{
        local::LocalStore,
        s3::{self, Checksum, Patience, S3Store},
        store::BlobStore,
    },
    config::{Config, S3, S3Checksum, Store},
    crypto::rng::SystemRng,
    domain::clock::{Clock, Rng, SystemClock},
};

use super::{AppError, late::Late};

/// About how long to wait before a request is repeated; doubles from there.
const BACKOFF: Duration = Duration::from_millis(200);

/// Opens the bucket.
///
/// # Errors
/// [`AppError::Store`], [`AppError::S3`].
pub(super) async fn open(
    config: &Config,
    clock: &Arc<dyn Clock>,
    rng: &Arc<dyn Rng>,
) -> Result<Arc<dyn BlobStore>, AppError> {
    open_one(&config.store, clock, rng).await
}

/// The second bucket, if there is one: reached when it is first asked for something.
pub(super) fn recovery(
    config: &Config,
    clock: &Arc<dyn Clock>,
    rng: &Arc<dyn Rng>,
) -> Option<Arc<dyn BlobStore>> {
    let (place, clock, rng) = (config.recovery_store.clone()?, Arc::clone(clock), Arc::clone(rng));
    Some(Arc::new(Late::new(move || {
        let (place, clock, rng) = (place.clone(), Arc::clone(&clock), Arc::clone(&rng));
        Box::pin(async move { open_one(&place, &clock, &rng).await })
    })))
}

pub(super) async fn open_one(
    store: &Store,
    clock: &Arc<dyn Clock>,
    rng: &Arc<dyn Rng>,
) -> Result<Arc<dyn BlobStore>, AppError> {
    match store {
        Store::Local(path) => {
            let store = LocalStore::open(path, Arc::clone(clock), Arc::clone(rng)).await?;
            Ok(Arc::new(store))
        }
        Store::S3(s3) => Ok(Arc::new(S3Store::open(settings(s3), &**clock, &**rng).await?)),
    }
}

/// Reaches the bucket as a start would, and says what it can do beyond what a vault needs.
///
/// # Errors
/// As a start: [`AppError::Store`], [`AppError::S3`].
pub async fn check_store(config: &Config) -> Result<String, AppError> {
    let Store::S3(s3) = &config.store else {
        return Ok("the store is a directory".to_owned());
    };
    let store = S3Store::open(settings(s3), &SystemClock, &SystemRng::new()).await?;
    Ok(store.abilities().to_string())
}

/// Whether there is no bucket yet, as far as can be told without asking.
pub(super) fn is_missing(config: &Config) -> bool {
    match &config.store {
        Store::Local(path) => !path.is_dir() || !config.data.is_dir(),
        // What a lost machine took with it, a rebuild makes again: the bucket is elsewhere.
        Store::S3(_) => false,
    }
}

fn settings(s3: &S3) -> s3::Settings {
    s3::Settings {
        bucket: s3.bucket.clone(),
        region: s3.region.clone(),
        endpoint: s3.endpoint.clone(),
        path_style: s3.is_path_style(),
        ca_file: s3.ca_file.clone(),
        profile: s3.profile.clone(),
        credentials_file: s3.credentials_file.clone(),
        checksum: match s3.checksum {
            S3Checksum::Crc32c => Checksum::Crc32c,
            S3Checksum::None => Checksum::None,
        },
        tags: s3.tags.clone(),
        patience: Patience {
            attempts: s3.attempts,
            backoff: BACKOFF,
            connect: Duration::from_secs(s3.connect_seconds),
            read: Duration::from_secs(s3.read_seconds),
            operation: Duration::from_secs(s3.operation_seconds),
        },
    }
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
        blob::s3::tests::{
            bucket::{self, Bucket, Ways},
            credentials,
        },
        domain::tenant::TenantSettings,
    };

    async fn configured(bucket: &Bucket, keep: &tempfile::TempDir) -> Config {
        let mut config = Config::dev(&keep.path().join("data"), ([127, 0, 0, 1], 0).into()).unwrap();
        let file = credentials(keep, bucket::ACCESS_KEY, bucket::SECRET_KEY);
        let text = format!(
            "bucket = {:?}\nendpoint = \"http://{}\"\ncredentials_file = {file:?}\n",
            bucket::NAME,
            bucket.serve().await,
        );
        config.store = Store::S3(toml::from_str(&text).unwrap());
        config
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_machine_that_was_lost_is_made_again_from_its_bucket_and_root() {
        let (bucket, keep) = (Bucket::new(Ways::default()), tempfile::tempdir().unwrap());
        let config = configured(&bucket, &keep).await;
        let nothing = Offline::open(&config).await.unwrap_err();
        assert!(matches!(nothing, AppError::NoVault { .. }), "{nothing}");
        let make = How {
            may_make: true,
            rebuild: false,
            move_to: None,
        };
        let open = OpenVault::open(&config, make).await.unwrap();
        let tenant = "acme".parse().unwrap();
        let vault = Arc::clone(&open.opened.vault);
        vault
            .create_tenant("admin", &tenant, TenantSettings::default(), None)
            .await
            .unwrap();
        drop(vault);
        open.close().await;
        assert!(bucket.kept().contains_key("vault/manifest"));
        fs::remove_dir_all(&config.data).unwrap();
        let (again, rebuilt) = Offline::rebuild(&config).await.unwrap();
        assert!(rebuilt.leaves > 0 && rebuilt.broken.is_empty(), "{rebuilt:?}");
        assert_eq!(again.verify().await.unwrap().findings, vec![]);
        again.close().await;
        assert_eq!(bucket.removed_beyond_the_policy(), Vec::<String>::new());
        assert!(bucket.kept().keys().all(|name| !name.starts_with("probe/")));
    }

    #[tokio::test]
    async fn a_bucket_is_checked_without_making_a_vault() {
        let (bucket, keep) = (Bucket::new(Ways::default()), tempfile::tempdir().unwrap());
        let config = configured(&bucket, &keep).await;
        let told = check_store(&config).await.unwrap();
        assert!(
            told.contains("keeps versions      no") && told.contains("checks CRC-32C      yes"),
            "{told}"
        );
        assert!(bucket.kept().is_empty());
        bucket.change(|ways| ways.gone = true);
        let refused = check_store(&config).await.unwrap_err().to_string();
        assert!(refused.contains("NoSuchBucket"), "{refused}");
    }
}
