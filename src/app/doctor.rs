//! What an operator should know before something is lost. Reads; makes nothing, and needs no lock: a server may be running.

use std::{io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use prost::Message;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    blob::store::{BlobStore, ByteRange, ObjectKey, StoreError},
    config::{Config, Store},
    crypto::rng::SystemRng,
    domain::{
        clock::{Clock, Rng, SystemClock, Timestamp},
        ids::VaultId,
    },
    index::LogKind,
    ledger::{
        leaf,
        log::{LogError, LogName, LogReader, logs},
    },
    proto::storage::{VaultManifest, state_leaf::Body},
};

use super::{AppError, causes, check_root, check_store, store};

const MANIFEST: &str = "vault/manifest";
/// Longest wait for a server's word of its health, and its longest word.
const PATIENCE: Duration = Duration::from_secs(5);
const LONGEST: u64 = 16 << 10;
/// What a backup is good for.
const BACKUP: &str = "a valid backup is blobs of any age (blobs/, and payloads/ with corrected descriptors) and a key state at least as new as the last sweep that \
     destroyed a root epoch (log/, payloads/, vault/): what is older opens nothing. Nothing of the root belongs in it";
const NO_RECOVERY: &str = "there is none: a bucket that loses its key state (payloads/, log/) after a sweep can be opened by nobody. Configure [recovery_store], \
     another bucket";

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// As it should be.
    Fine,
    /// It works, and something may be lost.
    Warning,
    /// It does not work.
    Problem,
}

/// What was seen of one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Of what: the section of the configuration.
    pub subject: &'static str,
    /// How bad it is.
    pub weight: Weight,
    /// What, and what to do.
    pub text: String,
}

/// Looks at everything that a configuration names.
pub async fn examine(config: &Config) -> Vec<Finding> {
    let finding = |subject, weight, text: &str| Finding {
        subject,
        weight,
        text: text.to_owned(),
    };
    let reached = |subject, outcome: Result<String, AppError>| match outcome {
        Ok(text) => finding(subject, Weight::Fine, &text),
        Err(error) => finding(subject, Weight::Problem, &error.to_string()),
    };
    let mut found = vec![
        reached("store", check_store(config).await),
        reached("root", check_root(config).await),
    ];
    found.push(match &config.recovery_store {
        None => finding("recovery_store", Weight::Warning, NO_RECOVERY),
        Some(copies) => match compare(&config.store, copies).await {
            Ok(seen) => {
                let (weight, text) = seen.told();
                finding("recovery_store", weight, &text)
            }
            Err(error) => finding("recovery_store", Weight::Problem, &causes(&error)),
        },
    });
    found.push(finding("backups", Weight::Fine, BACKUP));
    if let Some(address) = config.ops_listen {
        let (weight, text) = health(address).await;
        found.push(finding("ops_listen", weight, &text));
    }
    found
}

/// What a server that runs says of itself: what only its index knows, such as older epochs that nobody can be asked to destroy.
async fn health(address: SocketAddr) -> (Weight, String) {
    match timeout(PATIENCE, ready(address)).await {
        Ok(Ok((200, said))) if said.is_empty() => (Weight::Fine, "the server that runs is well".to_owned()),
        Ok(Ok((200, said))) => (
            Weight::Warning,
            format!(
                "the server that runs warns: {said}; docs/operations.md, \"Health and metrics\", says what to do"
            ),
        ),
        Ok(Ok((_, said))) => (
            Weight::Problem,
            format!("the server that runs takes nothing in: {said}"),
        ),
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => (
            Weight::Fine,
            "no server runs; what it would warn of is not known".to_owned(),
        ),
        Ok(Err(error)) => (
            Weight::Warning,
            format!("the server's health cannot be asked for: {error}"),
        ),
        Err(_) => (Weight::Warning, "the server does not tell its health".to_owned()),
    }
}

async fn ready(address: SocketAddr) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).await?;
    let ask = b"GET /readyz HTTP/1.1\r\nhost: callvault\r\nconnection: close\r\n\r\n";
    stream.write_all(ask).await?;
    let mut answer = String::new();
    stream.take(LONGEST).read_to_string(&mut answer).await?;
    let malformed = || io::Error::from(io::ErrorKind::InvalidData);
    let (head, said) = answer.split_once("\r\n\r\n").ok_or_else(malformed)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.ok_or_else(malformed)?, said.trim().to_owned()))
}

/// How the copies of the state logs stand beside those in the bucket.
#[derive(Debug, Default)]
struct Compared {
    /// There is no vault in the bucket.
    empty: bool,
    /// Leaves that are not copied yet.
    behind: u64,
    /// Those of them that change keys.
    keys: u64,
    /// When the first of them was logged.
    since: Option<i64>,
    /// The root turned among them, and after that epochs were destroyed: what is copied may open nothing.
    turned: bool,
    behind_a_destruction: bool,
    /// It is another vault's, or has what the bucket has not.
    foreign: Option<&'static str>,
}

impl Compared {
    fn told(&self) -> (Weight, String) {
        if self.empty {
            return (
                Weight::Fine,
                "it can be reached; there is no vault yet".to_owned(),
            );
        }
        if let Some(what) = self.foreign {
            return (
                Weight::Problem,
                format!("{what}; point recovery_store at a bucket of its own"),
            );
        }
        let since = self.since.map(|micros| format!(" since {}", Timestamp(micros)));
        let since = since.unwrap_or_default();
        if self.behind_a_destruction {
            return (
                Weight::Problem,
                format!(
                    "it is older than the last destruction of a root epoch{since}: what it holds may open nothing; start the vault and run `callvault sweep run`"
                ),
            );
        }
        match (self.behind, self.keys) {
            (0, _) => (Weight::Fine, "it is as new as the bucket".to_owned()),
            (behind, 0) => (
                Weight::Fine,
                format!("it is as new as the bucket's keys; {behind} leaves were logged{since}"),
            ),
            (behind, keys) => (
                Weight::Warning,
                format!(
                    "{keys} changes of keys, of {behind} leaves{since}, are not copied yet; they are with the next sweep, or when the vault looks for one"
                ),
            ),
        }
    }

    fn take(&mut self, entry: &bytes::Bytes) {
        self.behind += 1;
        let Ok(leaf) = leaf::parse(entry) else { return };
        self.since = Some(self.since.unwrap_or(leaf.time_micros));
        match leaf.body {
            Some(Body::RootEpochCreated(_)) => {
                self.keys += 1;
                self.turned = true;
            }
            Some(Body::RootEpochDestroying(_)) => self.behind_a_destruction |= self.turned,
            Some(
                Body::RegionPageSealed(_)
                | Body::TenantCreated(_)
                | Body::TenantPageSealed(_)
                | Body::TenantKeyRotated(_)
                | Body::RecordsShredded(_)
                | Body::TenantShredded(_)
                | Body::IndexKeyStaged(_),
            ) => self.keys += 1,
            _ => {}
        }
    }
}

async fn compare(bucket: &Store, copies: &Store) -> Result<Compared, AppError> {
    let copies = opened(copies).await?;
    let mut compared = Compared::default();
    let bucket = match opened(bucket).await? {
        Some(bucket) => bucket,
        None => {
            return Ok(Compared {
                empty: true,
                ..compared
            });
        }
    };
    let Some(manifest) = read(&*bucket, MANIFEST).await? else {
        return Ok(Compared {
            empty: true,
            ..compared
        });
    };
    if let Some(copies) = &copies {
        let of_a_vault = copies.list("claims/", false, None, 1).await?;
        if !of_a_vault.objects.is_empty() {
            compared.foreign = Some("a vault serves from it");
        } else if read(&**copies, MANIFEST)
            .await?
            .is_some_and(|found| found != manifest)
        {
            compared.foreign = Some("it holds copies of another vault");
        }
    }
    let vault = VaultManifest::decode(manifest).ok();
    let vault = vault.and_then(|manifest| VaultId::from_slice(&manifest.vault_id).ok());
    let (Some(vault), None) = (vault, compared.foreign) else {
        compared.foreign = compared.foreign.or(Some("the bucket's manifest is malformed"));
        return Ok(compared);
    };
    for log in logs(&*bucket, LogKind::State).await.map_err(failed)? {
        let name = || LogName { vault, log };
        let Some(there) = reader(&bucket, name()).await? else {
            continue;
        };
        let copied = match &copies {
            Some(copies) => reader(copies, name()).await?,
            None => None,
        };
        let copied = copied.map_or(crate::ledger::log::Head::EMPTY, |copied| copied.head());
        if copied.size > there.head().size || there.root_at(copied.size).await.map_err(failed)? != copied.root
        {
            compared.foreign = Some(
                "it has logs that the bucket has not: the bucket was rolled back, or it is another vault's",
            );
            return Ok(compared);
        }
        let mut position = copied.size;
        loop {
            let entries = there.read(position).await.map_err(failed)?;
            if entries.is_empty() {
                break;
            }
            position += entries.len() as u64;
            entries.iter().for_each(|entry| compared.take(entry));
        }
    }
    Ok(compared)
}

async fn reader(store: &Arc<dyn BlobStore>, name: LogName) -> Result<Option<LogReader>, AppError> {
    // Who signed it is for whoever has the root to say.
    LogReader::open(Arc::clone(store), name, None)
        .await
        .map_err(failed)
}

fn failed(error: LogError) -> AppError {
    match error {
        LogError::Store(error) => error.into(),
        error => AppError::Vault(error.into()),
    }
}

async fn read(store: &dyn BlobStore, name: &str) -> Result<Option<bytes::Bytes>, AppError> {
    match store.get(&ObjectKey::parse(name)?, ByteRange::Full).await {
        Ok(found) => Ok(Some(found.bytes)),
        Err(StoreError::NotFound) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A store, unless it is a directory that nobody has made yet.
async fn opened(place: &Store) -> Result<Option<Arc<dyn BlobStore>>, AppError> {
    if let Store::Local(dir) = place
        && !Path::is_dir(dir)
    {
        return Ok(None);
    }
    let (clock, rng): (Arc<dyn Clock>, Arc<dyn Rng>) = (Arc::new(SystemClock), Arc::new(SystemRng::new()));
    Ok(Some(store::open_one(place, &clock, &rng).await?))
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use super::*;
    use crate::{
        app::vault::{How, OpenVault},
        domain::tenant::TenantSettings,
        testing::world::copy,
        vault::{OperationState, Vault},
    };

    const MAKE: How = How {
        may_make: true,
        rebuild: false,
        move_to: None,
    };

    async fn of_copies(config: &Config) -> (Weight, String) {
        let found = examine(config).await;
        let of = found
            .into_iter()
            .find(|finding| finding.subject == "recovery_store");
        let of = of.unwrap();
        (of.weight, of.text)
    }

    async fn sweep(vault: &Vault) {
        let begun = vault.run_sweep("keys", None).await.unwrap();
        while vault.key_operation(&begun.id, |_| true).await.unwrap().state == OperationState::Running {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_doctor_passes_on_what_a_server_warns_of() {
        use axum::{Router, routing::get};
        for (status, said, weight) in [
            (200, "", Weight::Fine),
            (200, "ROOT_NOT_CONFIGURED", Weight::Warning),
            (503, "INDEX_FULL", Weight::Problem),
        ] {
            let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
            let address = listener.local_addr().unwrap();
            let status = http::StatusCode::from_u16(status).unwrap();
            let router = Router::new().route("/readyz", get(move || async move { (status, said) }));
            let serving = tokio::spawn(async move { axum::serve(listener, router).await });
            let (told, text) = health(address).await;
            assert!(told == weight && text.contains(said), "{told:?} {text}");
            serving.abort();
            let _ = serving.await;
            let (told, text) = health(address).await;
            assert!(told == Weight::Fine && text.contains("no server runs"), "{text}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_doctor_says_whether_the_copies_are_as_new_as_the_last_destruction() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::dev(&dir.path().join("data"), ([127, 0, 0, 1], 0).into()).unwrap();
        let (weight, text) = of_copies(&config).await;
        assert!(
            weight == Weight::Warning && text.contains("[recovery_store]"),
            "{text}"
        );
        let copies = dir.path().join("copies");
        config.recovery_store = Some(Store::Local(copies.clone()));
        let (weight, text) = of_copies(&config).await;
        assert!(weight == Weight::Fine && text.contains("no vault yet"), "{text}");
        assert!(!copies.exists(), "it makes nothing");

        let open = OpenVault::open(&config, MAKE).await.unwrap();
        let vault = Arc::clone(&open.opened.vault);
        let (tenant, settings) = ("acme".parse().unwrap(), TenantSettings::default());
        let made = vault.create_tenant("admin", &tenant, settings, None);
        made.await.unwrap();
        let (weight, text) = of_copies(&config).await;
        assert!(
            weight == Weight::Warning && text.contains("changes of keys"),
            "{text}"
        );
        vault.back_up_key_state().await.unwrap();
        let told = of_copies(&config).await;
        assert_eq!(told, (Weight::Fine, "it is as new as the bucket".to_owned()));
        let before = dir.path().join("before");
        copy(&copies, &before).unwrap();
        sweep(&vault).await;
        let (weight, text) = of_copies(&config).await;
        assert_eq!(weight, Weight::Fine, "{text}");

        for part in ["log", "payloads", "vault"] {
            fs::remove_dir_all(copies.join("objects").join(part)).unwrap();
        }
        copy(&before.join("objects"), &copies.join("objects")).unwrap();
        let (weight, text) = of_copies(&config).await;
        assert!(
            weight == Weight::Problem && text.contains("older than the last destruction"),
            "{text}"
        );
        fs::write(copies.join("objects/vault/manifest"), b"another's").unwrap();
        let (weight, text) = of_copies(&config).await;
        assert!(
            weight == Weight::Problem && text.contains("another vault"),
            "{text}"
        );
        drop(vault);
        open.close().await;
    }
}
