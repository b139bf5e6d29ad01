//! What an operator should know before something is lost. Reads; makes nothing, and needs no lock: a server may be running.

use std::{
    collections::{BTreeMap, HashSet},
    io,
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt, TryStreamExt, stream};
use prost::Message;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    blob::{
        store::{BlobStore, ByteRange, ObjectKey, StoreError},
        walk::lacking,
    },
    config::{Config, RootKind, Store},
    crypto::rng::SystemRng,
    domain::{
        clock::{Clock, Rng, SystemClock, Timestamp},
        ids::VaultId,
    },
    index::{LogId, LogKind},
    ledger::{
        leaf,
        log::{Head, LogError, LogName, LogReader, listed, logs},
    },
    proto::storage::{VaultManifest, state_leaf::Body},
    vault::Named,
};

use super::{
    AppError, causes, check_store,
    root::{SeenRoot, look_at_roots},
    store,
};

const MANIFEST: &str = "vault/manifest";
/// Longer than any manifest.
const MOST_MANIFEST: u64 = 1 << 20;
/// Entries of a bundle, and bundles read ahead.
const BUNDLE: usize = 256;
const READ_AHEAD: usize = 8;
/// Longest wait for a server's word of its health, and its longest word.
const PATIENCE: Duration = Duration::from_secs(5);
const LONGEST: u64 = 16 << 10;
/// What a backup is good for.
const BACKUP: &str = "a valid backup is blobs of any age (blobs/, and payloads/ with corrected descriptors) and a key state at least as new as the last sweep that \
     destroyed a root epoch (log/, payloads/, vault/): what is older opens nothing. Nothing of the root belongs in it";
const AHEAD: &str = "it has leaves that the bucket has not (RECOVERY_AHEAD): the bucket was rolled back. Do not start the vault; bring the bucket back from it \
     (docs/operations.md, \"A rolled-back bucket\")";
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
    let mut found = vec![reached("store", check_store(config).await)];
    let vault = vault_of(&config.store).await;
    for (kind, seen) in look_at_roots(config).await {
        let (weight, text) = of_root(seen, kind, kind == config.root.provider, vault);
        found.push(finding("root", weight, &text));
    }
    found.push(match &config.recovery_store {
        None => finding("recovery_store", Weight::Warning, NO_RECOVERY),
        Some(copies) => match compare_twice(&config.store, copies).await {
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

/// Whose bucket it is, as far as it can be told.
async fn vault_of(bucket: &Store) -> Option<VaultId> {
    let bucket = opened(bucket).await.ok()??;
    let manifest = read(&*bucket, MANIFEST, MOST_MANIFEST).await.ok()??;
    vault_in(manifest)
}

fn vault_in(manifest: bytes::Bytes) -> Option<VaultId> {
    let manifest = VaultManifest::decode(manifest).ok()?;
    VaultId::from_slice(&manifest.vault_id).ok()
}

fn of_root(
    seen: Result<SeenRoot, AppError>,
    kind: RootKind,
    is_named: bool,
    vault: Option<VaultId>,
) -> (Weight, String) {
    let seen = match seen {
        Ok(seen) => seen,
        Err(error) if is_named => return (Weight::Problem, causes(&error)),
        Err(error) => {
            return (
                Weight::Problem,
                format!("another root ({kind}): {}", causes(&error)),
            );
        }
    };
    let text = seen.text;
    match (vault, seen.of) {
        (Some(vault), Some(of)) if of != vault => (
            Weight::Problem,
            format!("{text}, and the bucket to vault {vault}: one of them is the wrong one"),
        ),
        (Some(vault), None) if is_named => (
            Weight::Warning,
            format!(
                "{text}, and the bucket to vault {vault}: it is the wrong root, or its anchor was taken away"
            ),
        ),
        _ => (Weight::Fine, text),
    }
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
    /// It is another vault's, or has what the bucket has not; and what to do.
    foreign: Option<&'static str>,
    /// Payload objects that copied leaves name and a living key opens.
    needed: usize,
    /// Those of them that are not there; and logs that tiles are missing of.
    missing: usize,
    broken_logs: usize,
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
            return (Weight::Problem, what.to_owned());
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
        let (needed, missing, broken) = (self.needed, self.missing, self.broken_logs);
        if missing > 0 || broken > 0 {
            return (
                Weight::Problem,
                format!(
                    "it lacks {missing} of the {needed} payload objects that its logs name as needed, and tiles of {broken} logs: a bucket may not be brought \
                     back from it; a server that runs copies them again when it looks for sweeps, `callvault sweep run` at once"
                ),
            );
        }
        let listed = format!("the {needed} payload objects that its logs name as needed are listed in it");
        match (self.behind, self.keys) {
            (0, _) => (
                Weight::Fine,
                format!("its logs are as long as the bucket's, and {listed}"),
            ),
            (behind, 0) => (
                Weight::Fine,
                format!(
                    "its logs are as new as the bucket's keys, {behind} leaves were logged{since}, and {listed}"
                ),
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

/// Once more if something is missing: a server that runs may have copied and removed meanwhile.
async fn compare_twice(bucket: &Store, copies: &Store) -> Result<Compared, AppError> {
    let compared = compare(bucket, copies).await?;
    if compared.missing == 0 && compared.broken_logs == 0 {
        return Ok(compared);
    }
    compare(bucket, copies).await
}

async fn compare(bucket: &Store, copies: &Store) -> Result<Compared, AppError> {
    let copies = opened(copies).await?;
    let empty = || Compared {
        empty: true,
        ..Compared::default()
    };
    let Some(bucket) = opened(bucket).await? else {
        return Ok(empty());
    };
    let Some(manifest) = read(&*bucket, MANIFEST, MOST_MANIFEST).await? else {
        return Ok(empty());
    };
    let mut compared = Compared::default();
    if let Some(copies) = &copies {
        compared.foreign = foreign(&**copies, &manifest).await?;
    }
    let vault = vault_in(manifest);
    let (Some(vault), None) = (vault, compared.foreign) else {
        compared.foreign = compared.foreign.or(Some("the bucket's manifest is malformed"));
        return Ok(compared);
    };
    // Before the bucket's: what is copied is in the bucket already.
    let copied = match &copies {
        Some(copies) => heads(copies, vault).await?,
        None => BTreeMap::new(),
    };
    let there = logs(&*bucket, LogKind::State).await.map_err(failed)?;
    if copied
        .iter()
        .any(|(log, head)| head.size > 0 && !there.contains(log))
    {
        compared.foreign = Some(AHEAD);
        return Ok(compared);
    }
    let (mut named, mut of_copied) = (Named::default(), Named::default());
    for log in there {
        let Some(there) = reader(&bucket, LogName { vault, log }).await? else {
            continue;
        };
        let copied = copied.get(&log).copied().unwrap_or(Head::EMPTY);
        if copied.size > there.head().size || there.root_at(copied.size).await.map_err(failed)? != copied.root
        {
            compared.foreign = Some(AHEAD);
            return Ok(compared);
        }
        let bundles = (0..there.head().size).step_by(BUNDLE);
        let mut bundles = stream::iter(bundles.map(|position| there.read(position))).buffered(READ_AHEAD);
        let mut position = 0;
        while let Some(entries) = bundles.try_next().await.map_err(failed)? {
            for entry in entries {
                named.take(&entry);
                if position < copied.size {
                    of_copied.take(&entry);
                } else {
                    compared.take(&entry);
                }
                position += 1;
            }
        }
    }
    named.sort_out();
    if let Some(copies) = &copies {
        let sizes = copied.iter().map(|(log, head)| (*log, head.size));
        compared.broken_logs = listed(&**copies, LogKind::State, sizes).await?.lacking.len();
        let needed = named.needed();
        let of_copied = of_copied.needed().into_keys();
        let of_copied = of_copied.filter(|sha256| needed.contains_key(sha256));
        let of_copied: HashSet<String> = of_copied.map(hex::encode).collect();
        compared.needed = of_copied.len();
        compared.missing = lacking(&**copies, "payloads/", of_copied).await?.len();
    }
    Ok(compared)
}

/// Why the copies are none of this vault.
async fn foreign(copies: &dyn BlobStore, manifest: &bytes::Bytes) -> Result<Option<&'static str>, AppError> {
    let is_empty = async |prefix: &str| -> Result<bool, StoreError> {
        let page = copies.list(prefix, false, None, 1).await?;
        Ok(page.objects.is_empty())
    };
    if !is_empty("claims/").await? {
        return Ok(Some(
            "a vault serves from it; point recovery_store at a bucket of its own",
        ));
    }
    if !is_empty("blobs/").await? {
        return Ok(Some(
            "it holds recordings; point recovery_store at a bucket of its own",
        ));
    }
    let found = read(copies, MANIFEST, manifest.len() as u64 + 1).await?;
    Ok(found
        .is_some_and(|found| found != *manifest)
        .then_some("it holds copies of another vault; point recovery_store at a bucket of its own"))
}

/// How far each copied log goes.
async fn heads(copies: &Arc<dyn BlobStore>, vault: VaultId) -> Result<BTreeMap<LogId, Head>, AppError> {
    let mut heads = BTreeMap::new();
    for log in listed(&**copies, LogKind::State, []).await?.logs {
        if let Some(copied) = reader(copies, LogName { vault, log }).await? {
            heads.insert(log, copied.head());
        }
    }
    Ok(heads)
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

/// The end of an object, at most so many bytes of it.
async fn read(store: &dyn BlobStore, name: &str, most: u64) -> Result<Option<bytes::Bytes>, AppError> {
    let range = ByteRange::Suffix { length: most };
    match store.get(&ObjectKey::parse(name)?, range).await {
        Ok(found) => Ok(Some(found.bytes)),
        Err(StoreError::OutOfRange { .. }) => Ok(Some(bytes::Bytes::new())),
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

    /// What alone is in a directory.
    fn only(dir: &Path) -> std::path::PathBuf {
        let found: Vec<_> = fs::read_dir(dir).unwrap().collect();
        assert_eq!(found.len(), 1, "{found:?}");
        found[0].as_ref().unwrap().path()
    }

    async fn of_roots(config: &Config) -> Vec<(Weight, String)> {
        let found = examine(config).await.into_iter();
        let of = found.filter(|finding| finding.subject == "root");
        of.map(|finding| (finding.weight, finding.text)).collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_doctor_finds_a_root_that_fails_or_is_anothers() {
        let dir = tempfile::tempdir().unwrap();
        let made = async |name: &str| {
            let config = Config::dev(&dir.path().join(name), ([127, 0, 0, 1], 0).into()).unwrap();
            OpenVault::open(&config, MAKE).await.unwrap().close().await;
            config
        };
        let (config, other) = (made("data").await, made("other").await);
        let said = of_roots(&config).await;
        assert!(said.len() == 1 && said[0].0 == Weight::Fine, "{said:?}");

        // The other's root, under this bucket.
        let mut wrong = config.clone();
        wrong.root.file = other.root.file.clone();
        let said = of_roots(&wrong).await;
        assert_eq!(said[0].0, Weight::Problem, "{said:?}");
        assert!(said[0].1.contains("one of them is the wrong one"), "{said:?}");
        wrong.root.file.as_mut().unwrap().dir = dir.path().join("nowhere");
        let said = of_roots(&wrong).await;
        assert_eq!(said[0].0, Weight::Warning, "{said:?}");

        // One beside it that cannot be reached.
        let mut beside = config.clone();
        let section = format!("module = {:?}\ntoken = \"none\"\npin_env = \"NONE\"", dir.path());
        beside.root.pkcs11 = Some(toml::from_str(&section).unwrap());
        let said = of_roots(&beside).await;
        assert_eq!((said.len(), said[0].0), (2, Weight::Fine), "{said:?}");
        assert_eq!(said[1].0, Weight::Problem, "{said:?}");
        assert!(said[1].1.contains("another root (pkcs11)"), "{said:?}");
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
        let whole = "its logs are as long as the bucket's, and the 1 payload objects that its logs name as needed are listed in it";
        assert_eq!(told, (Weight::Fine, whole.to_owned()));
        let log = only(&only(&copies.join("objects/log/state")));
        for (part, says) in [
            (copies.join("objects/payloads"), "1 of the 1 payload objects"),
            (log.join("tile/0"), "tiles of 1 logs"),
        ] {
            let aside = dir.path().join("aside");
            fs::rename(&part, &aside).unwrap();
            let (weight, text) = of_copies(&config).await;
            assert!(weight == Weight::Problem && text.contains(says), "{text}");
            fs::rename(&aside, &part).unwrap();
        }
        let recording = copies.join("objects/blobs");
        fs::create_dir(&recording).unwrap();
        fs::write(recording.join("a"), b"said").unwrap();
        let (weight, text) = of_copies(&config).await;
        assert!(weight == Weight::Problem && text.contains("recordings"), "{text}");
        fs::remove_dir_all(&recording).unwrap();
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
        let newest = log.join("checkpoint");
        let longer = String::from_utf8(fs::read(&newest).unwrap()).unwrap();
        let mut lines: Vec<String> = longer.split('\n').map(str::to_owned).collect();
        let size: u64 = lines[1].parse().unwrap();
        lines[1] = (size + 1_000).to_string();
        fs::write(&newest, lines.join("\n")).unwrap();
        let (weight, text) = of_copies(&config).await;
        assert!(
            weight == Weight::Problem && text.contains("RECOVERY_AHEAD"),
            "{text}"
        );
        fs::write(&newest, longer).unwrap();
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
