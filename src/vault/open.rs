//! A vault is opened: bucket, root and index are found to belong together, or are made; what is behind catches up first.
//!
//! ```text
//! manifest -> claim -> anchor against heads -> epoch -> keyring -> replay what the index lacks -> ship what the bucket lacks
//! ```

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicBool},
};

use async_trait::async_trait;
use prost::Message;
use ring::digest;
use tokio::{sync::watch, task::JoinHandle};

use crate::{
    blob::store::{BlobStore, ByteRange, ObjectKey, StoreError},
    domain::{
        clock::{Clock, Rng},
        ids::{IndexId, RegionName, VaultId},
        limits,
    },
    index::{Change, Expect, Index, IndexError, Key, LogId, LogKind, Range, Scan, Scope},
    keys::{
        KeyError, Keys, Realm,
        provider::{Anchor, AnchoredHead, EpochGrant, EpochLabel, ProviderError, RootProvider, make_epoch},
        providers::Providers,
        region::{EpochKeys, RegionKeys},
    },
    ledger::{
        leaf,
        log::{Head, LogError, LogName, LogReader, Signer, logs},
        outbox::{Causes, Ledger, LedgerParts, ShipObserver, Until, retire},
    },
    proto::storage::{Claim, EpochRow, LogRow, RootEpochCreated, VaultManifest, state_leaf::Body},
    spool::{Disk, Spool},
};

use super::{
    Budget, Error, Vault, apply,
    erasure::Erasing,
    keystore::IndexKeyStore,
    message::Lanes,
    put::UnderWay,
    record::{plain_row, read_plain},
    recovery::Recovery,
    replay::{self, Replayed},
    rotation,
    rows::{self, RowCodec},
    streams::Streams,
    turns::Turns,
    uploads::Uploads,
};

pub(super) const MANIFEST: &str = "vault/manifest";
const FORMAT_VERSION: u32 = 1;
/// The vault that an index belongs to.
const META_VAULT: &str = "vault";
/// The format of an index's rows. One of another format is made again from the bucket.
const META_FORMAT: &str = "format";
const INDEX_FORMAT: &[u8] = b"3";

/// What a vault is told at its start.
#[derive(Clone, Debug)]
pub struct VaultSettings {
    /// Its region.
    pub region: RegionName,
    /// The region's country, ISO 3166-1 alpha-2.
    pub country: String,
    /// This node's slot.
    pub node: u32,
    /// Bytes that may be in flight.
    pub memory_budget: u64,
    /// Of these, what one tenant may have, hundredths.
    pub tenant_share_percent: u8,
    /// Which index this is: the claim in the bucket names it.
    pub index_id: IndexId,
    /// Take the vault from an index that is gone.
    pub take_over: bool,
    /// Where unfinished uploads are kept.
    pub uploads: UploadSettings,
    /// Another bucket, for copies of what the keys are made again from.
    pub recovery: Option<Arc<dyn BlobStore>>,
}

/// Where unfinished uploads are kept, and for how long.
#[derive(Clone, Debug)]
pub struct UploadSettings {
    /// The directory of their files.
    pub disk: Arc<dyn Disk>,
    /// Bytes that may lie there.
    pub spool_bytes: u64,
    /// How long an upload may take, at most [`limits::UPLOAD_MICROS`].
    pub life_micros: i64,
}

impl UploadSettings {
    /// With the longest life, and the default room.
    pub fn new(disk: Arc<dyn Disk>) -> Self {
        Self {
            disk,
            spool_bytes: limits::SPOOL_BYTES,
            life_micros: limits::UPLOAD_MICROS,
        }
    }
}

/// Why a vault does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The bucket holds less than the root remembers.
    #[error(
        "the bucket is behind the anchor: it was rolled back, or is another one ({0}). Nothing was changed. Restore the newest copy of the \
         bucket; if this state is what you want to keep, follow docs/operations.md, \"A rolled-back bucket\""
    )]
    BucketBehind(String),
    /// The bucket belongs to another region.
    #[error("the bucket belongs to region {0}, not to the one configured; correct region.name")]
    WrongRegion(String),
    /// The index belongs to another vault.
    #[error(
        "the index belongs to another vault; point index and bucket at the same one, or run `callvault rebuild-index`"
    )]
    WrongIndex,
    /// The root belongs to another vault.
    #[error("the root belongs to another vault; point root and bucket at the same one")]
    WrongRoot,
    /// Another index serves this vault.
    #[error(
        "another index serves this vault (claims/{0}); a vault has one. If that one is gone for good, run `callvault rebuild-index`"
    )]
    Claimed(String),
    /// The bucket's manifest cannot be read.
    #[error(
        "the bucket's manifest is malformed or of a newer format; this is not a bucket that this release may touch"
    )]
    Manifest,
    /// The logs contradict each other.
    #[error(
        "the state logs do not add up: {0}. Nothing was changed. Report this with the output of `callvault verify`"
    )]
    Inconsistent(String),
    /// The root provider failed.
    #[error("the root provider failed: {}", Causes(.0))]
    Provider(#[from] ProviderError),
    /// The newest epoch is another provider's.
    #[error(
        "the newest root epoch is held by the provider {held}, and the configuration names {named}; set root.provider to {held} and \
         keep the sections of both. To move the root to {named}, run `callvault root migrate --to {named}`, again if it was cut short"
    )]
    OtherProvider {
        /// Who holds it.
        held: String,
        /// Who is configured.
        named: &'static str,
    },
    /// Something else failed.
    #[error("{0}")]
    Vault(#[from] Error),
}

macro_rules! open_error_from {
    ($($from:ty),*) => {$(
        impl From<$from> for OpenError {
            fn from(error: $from) -> Self {
                Self::Vault(error.into())
            }
        }
    )*};
}
open_error_from!(
    StoreError,
    IndexError,
    LogError,
    crate::ledger::outbox::LedgerError,
    KeyError
);
open_error_from!(crate::domain::clock::RngFailed);

/// An open vault and its background work.
#[derive(Debug)]
pub struct Opened {
    /// The vault.
    pub vault: Arc<Vault>,
    /// What the index lacked and has caught up with, if anything.
    pub replayed: Option<Replayed>,
    stop: watch::Sender<bool>,
    shipping: JoinHandle<()>,
    syncing: JoinHandle<()>,
    key_work: JoinHandle<()>,
    purging: JoinHandle<()>,
}

impl Opened {
    /// Ends the groups of messages that are under way, ships what is queued and stops.
    pub async fn close(self) {
        self.vault.lanes.finish().await;
        self.stop.send_replace(true);
        let _ = self.syncing.await;
        let _ = self.key_work.await;
        let _ = self.purging.await;
        let _ = self.shipping.await;
        self.vault.keys.changes().halt().await;
    }

    /// Stops at once, as if the process had died: what is queued stays queued.
    #[cfg(any(test, feature = "testing"))]
    pub async fn crash(self) {
        self.syncing.abort();
        let _ = self.syncing.await;
        self.key_work.abort();
        let _ = self.key_work.await;
        self.purging.abort();
        let _ = self.purging.await;
        self.vault.keys.changes().halt().await;
        self.vault.uploads.halt();
        self.vault.lanes.cut().await;
        self.shipping.abort();
        let _ = self.shipping.await;
    }
}

/// What a vault is opened over.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    pub(crate) store: Arc<dyn BlobStore>,
    pub(crate) index: Arc<dyn Index>,
    pub(crate) providers: Providers,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) rng: Arc<dyn Rng>,
}

impl Vault {
    /// Opens a vault, or makes one where there is none.
    ///
    /// # Errors
    /// [`OpenError`] says what does not fit and what to do. Nothing is overwritten.
    pub async fn open(
        settings: VaultSettings,
        store: Arc<dyn BlobStore>,
        index: Arc<dyn Index>,
        providers: impl Into<Providers>,
        clock: Arc<dyn Clock>,
        rng: Arc<dyn Rng>,
    ) -> Result<Opened, OpenError> {
        let parts = Parts {
            store,
            index,
            providers: providers.into(),
            clock,
            rng,
        };
        let mut anchors = Vec::new();
        for root in parts.providers.anchors() {
            anchors.extend(root.anchor().await?);
        }
        let (id, manifest) = find_or_make(&parts, &settings, !anchors.is_empty()).await?;
        let realm = Realm {
            vault: id,
            region: settings.region.clone(),
        };
        if anchors.iter().any(|anchor| anchor.vault != id) {
            return Err(OpenError::WrongRoot);
        }
        claim(&parts, &settings).await?;
        let found = logs(&*parts.store, LogKind::State).await?;
        let in_bucket = read_heads(&parts, id, &found).await?;
        check_anchors(&anchors, &in_bucket).await?;
        let term = next_term(&parts, settings.node, &found).await?;
        refuse_other_format(&parts).await?;
        let OpenEpoch {
            region,
            epoch,
            genesis,
        } = open_epoch(&parts, &realm, &manifest, &in_bucket).await?;
        if *region.manifest_sha256() != manifest {
            return Err(OpenError::Manifest);
        }
        for log in in_bucket.values() {
            log.verify_signature(region.signing().public_key())?;
        }
        bind_index(&parts, id).await?;
        let anchoring = Anchoring::new(&realm, &parts.providers, &anchors, (settings.node, term));
        let vault = assemble(&parts, &settings, realm, (&region, epoch), anchoring, term);
        vault.register_log().await?;
        if let Some(created) = genesis {
            vault.log_genesis(created).await?;
        }
        vault.close_open_pages().await?;
        let replayed = replay::catch_up(&vault, &in_bucket).await?;
        vault.retire_earlier_logs().await?;
        let (stop, stopped) = watch::channel(false);
        let shipping = tokio::spawn(Arc::clone(&vault.ledger).run(stopped.clone()));
        let replayed = match replayed {
            None => None,
            Some(mut replayed) => {
                vault.adopt_unlogged(&mut replayed).await?;
                vault.caught_up().await?;
                Some(replayed)
            }
        };
        // After all that the bucket knows: an upload may have become a record before the last process ended.
        vault.find_uploads().await?;
        let syncing = tokio::spawn(Arc::clone(&vault).sync_uploads(stopped.clone()));
        vault.finish_cuts().await?;
        vault.find_key_work().await?;
        // Somebody came to move the root: what else there is to do with keys waits for the next start.
        let key_work = match vault.providers.is_moving() {
            true => tokio::spawn(std::future::ready(())),
            false => tokio::spawn(Arc::clone(&vault).work_on_keys(stopped.clone())),
        };
        let purging = tokio::spawn(Arc::clone(&vault).purge_on(stopped));
        Ok(Opened {
            vault,
            replayed,
            stop,
            shipping,
            syncing,
            key_work,
            purging,
        })
    }

    /// The first leaf of a vault: its epoch.
    async fn log_genesis(&self, created: RootEpochCreated) -> Result<(), OpenError> {
        let now = self.clock.now();
        let change = Change {
            expect: vec![Expect::Absent(Key::Epoch(created.epoch))],
            put: vec![apply::epoch(&self.rows, &created, now)],
            leaves: vec![leaf::draft(
                Scope::Region,
                leaf::SYSTEM,
                now,
                Body::RootEpochCreated(created),
            )],
            ..Change::default()
        };
        self.ledger.commit(change, Until::Queued).await?;
        Ok(self.ledger.ship().await?)
    }

    /// Ships what earlier processes of this node left queued, and closes their logs.
    async fn retire_earlier_logs(&self) -> Result<(), OpenError> {
        let sequence = self.index.get(&Key::Sequence(Scope::Region)).await?;
        let sequence = sequence
            .and_then(|v| v.try_into().ok())
            .map_or(0, u64::from_be_bytes);
        self.ledger.note_region_seq(sequence);
        for (log, row) in self.known_logs().await? {
            if row.closed || log.node != self.node || log.term >= self.ledger.log().term {
                continue;
            }
            let closed = plain_row(Key::Log(log), &LogRow { closed: true, ..row });
            retire(&self.ledger, log, closed).await?;
        }
        Ok(())
    }

    /// Makes the own log known before anything is queued for it: whatever happens now, the next process takes another term
    /// and ships what this one left.
    async fn register_log(&self) -> Result<(), OpenError> {
        let own = self.ledger.log();
        let origin = LogName {
            vault: self.realm.vault,
            log: own,
        }
        .origin();
        let row = plain_row(
            Key::Log(own),
            &LogRow {
                origin,
                ..LogRow::default()
            },
        );
        self.index
            .commit(Change {
                put: vec![row],
                ..Change::default()
            })
            .await?;
        Ok(())
    }

    pub(super) async fn known_logs(&self) -> Result<Vec<(LogId, LogRow)>, Error> {
        let mut found = Vec::new();
        let mut after = None;
        loop {
            let scan = Scan {
                range: Range::Logs,
                reverse: false,
                after: after.clone(),
                limit: 1_000,
            };
            let rows = self.index.scan(&scan).await?;
            let full = rows.len() == scan.limit;
            for row in rows {
                let value = LogRow::decode(&row.value[..]).map_err(|_| Error::corrupt("index row"))?;
                if let Key::Log(log) = row.key {
                    found.push((log, value));
                }
                after = Some(row.key);
            }
            if !full {
                return Ok(found);
            }
        }
    }
}

fn assemble(
    parts: &Parts,
    settings: &VaultSettings,
    realm: Realm,
    (region, epoch): (&Arc<RegionKeys>, EpochKeys),
    anchoring: Anchoring,
    term: u64,
) -> Arc<Vault> {
    let rows = RowCodec::new(Arc::clone(region));
    let anchoring = Arc::new(anchoring);
    let ledger = Ledger::new(LedgerParts {
        vault: realm.vault,
        node: settings.node,
        term,
        index: Arc::clone(&parts.index),
        store: Arc::clone(&parts.store),
        signer: Arc::new(RegionSigner(Arc::clone(region))),
        clock: Arc::clone(&parts.clock),
        observer: Arc::clone(&anchoring) as _,
    });
    let key_store = IndexKeyStore {
        index: Arc::clone(&parts.index),
        ledger: Arc::clone(&ledger),
        rows: rows.clone(),
        clock: Arc::clone(&parts.clock),
    };
    let keys = Keys::new(
        realm.clone(),
        Arc::clone(region),
        epoch,
        Arc::new(key_store),
        Arc::clone(&parts.clock),
        Arc::clone(&parts.rng),
    );
    Arc::new(Vault {
        realm,
        node: settings.node,
        store: Arc::clone(&parts.store),
        index: Arc::clone(&parts.index),
        ledger,
        keys: Arc::new(keys),
        rows,
        clock: Arc::clone(&parts.clock),
        rng: Arc::clone(&parts.rng),
        budget: Budget::shared(settings.memory_budget, settings.tenant_share_percent),
        turns: Turns::new(),
        under_way: UnderWay::default(),
        uploads: Uploads::new(
            Spool::new(Arc::clone(&settings.uploads.disk), settings.uploads.spool_bytes),
            settings.uploads.life_micros.min(limits::UPLOAD_MICROS),
        ),
        lanes: Lanes::default(),
        providers: parts.providers.clone(),
        anchoring,
        without_provider: AtomicBool::new(false),
        key_work: rotation::Work::default(),
        streams: Streams::default(),
        erasing: Erasing::default(),
        recovery: Recovery::new(settings.recovery.clone()),
    })
}

/// The vault that bucket and index hold, and its manifest's SHA-256; a new one if both are empty and the root remembers none.
async fn find_or_make(
    parts: &Parts,
    settings: &VaultSettings,
    is_anchored: bool,
) -> Result<(VaultId, [u8; 32]), OpenError> {
    let key = ObjectKey::parse(MANIFEST)?;
    let indexed = parts.index.get(&Key::Meta(META_VAULT)).await?;
    let manifest = match parts.store.get(&key, ByteRange::Full).await {
        Ok(object) => object.bytes,
        Err(StoreError::NotFound) if is_anchored || indexed.is_some() => {
            return Err(OpenError::BucketBehind("it has no vault in it".to_owned()));
        }
        Err(StoreError::NotFound) => make_manifest(parts, settings, &key).await?,
        Err(error) => return Err(error.into()),
    };
    let sha256 = manifest_sha256(&manifest);
    let manifest = VaultManifest::decode(manifest).map_err(|_| OpenError::Manifest)?;
    if manifest.format_version != FORMAT_VERSION {
        return Err(OpenError::Manifest);
    }
    if manifest.region != settings.region.as_str() {
        return Err(OpenError::WrongRegion(manifest.region));
    }
    let id = VaultId::from_slice(&manifest.vault_id).map_err(|_| OpenError::Manifest)?;
    if indexed.is_some_and(|have| have != id.as_bytes()) {
        return Err(OpenError::WrongIndex);
    }
    Ok((id, sha256))
}

/// Binds an index to its vault, once the root has vouched for the manifest: one that was misread must not be remembered.
async fn bind_index(parts: &Parts, id: VaultId) -> Result<(), OpenError> {
    let meta = |name, value: &[u8]| crate::index::Row {
        key: Key::Meta(name),
        value: value.to_vec(),
    };
    let bound = Change {
        put: vec![meta(META_VAULT, id.as_bytes()), meta(META_FORMAT, INDEX_FORMAT)],
        ..Change::default()
    };
    parts.index.commit(bound).await?;
    Ok(())
}

/// An index of another format is as good as a damaged one: the bucket makes it again.
async fn refuse_other_format(parts: &Parts) -> Result<(), OpenError> {
    let names = [META_VAULT, META_FORMAT].map(Key::Meta);
    let found = parts.index.get_many(&names).await?;
    match (&found[0], &found[1]) {
        (None, _) => Ok(()),
        (Some(_), Some(format)) if format == INDEX_FORMAT => Ok(()),
        _ => Err(IndexError::Corrupt("an index of another release's format").into()),
    }
}

/// What the region's keyring vouches for the manifest by.
pub(super) fn manifest_sha256(manifest: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, manifest).as_ref());
    out
}

async fn make_manifest(
    parts: &Parts,
    settings: &VaultSettings,
    key: &ObjectKey,
) -> Result<bytes::Bytes, OpenError> {
    let now = parts.clock.now();
    let manifest = VaultManifest {
        format_version: FORMAT_VERSION,
        vault_id: VaultId::mint(now, &*parts.rng)?.as_bytes().to_vec().into(),
        region: settings.region.to_string(),
        country: settings.country.clone(),
        created_micros: now.micros(),
    };
    let manifest = bytes::Bytes::from(manifest.encode_to_vec());
    match parts.store.put(key, manifest.clone()).await {
        Ok(_) => Ok(manifest),
        // Whoever was first made the vault: read what is there.
        Err(StoreError::AlreadyExists) => Ok(parts.store.get(key, ByteRange::Full).await?.bytes),
        Err(error) => Err(error.into()),
    }
}

/// One vault, one index: the bucket holds a claim, and a second claimant is refused.
async fn claim(parts: &Parts, settings: &VaultSettings) -> Result<(), OpenError> {
    let own = ObjectKey::parse(&format!("claims/{}", settings.index_id))?;
    let claims = parts.store.list("claims/", false, None, 1_000).await?.objects;
    for other in claims.iter().filter(|c| c.key != own) {
        if !settings.take_over {
            let name = other.key.as_str().trim_start_matches("claims/").to_owned();
            return Err(OpenError::Claimed(name));
        }
    }
    if !claims.iter().any(|c| c.key == own) {
        let claim = Claim {
            index_id: settings.index_id.as_bytes().to_vec().into(),
            claimed_micros: parts.clock.now().micros(),
        };
        parts.store.overwrite(&own, claim.encode_to_vec().into()).await?;
    }
    for other in claims.into_iter().filter(|c| c.key != own) {
        parts.store.delete(&other.key).await?;
    }
    Ok(())
}

/// The state logs in the bucket, by id.
async fn read_heads(
    parts: &Parts,
    vault: VaultId,
    found: &[LogId],
) -> Result<BTreeMap<LogId, LogReader>, OpenError> {
    let mut readers = BTreeMap::new();
    for &log in found {
        let name = LogName { vault, log };
        if let Some(reader) = LogReader::open(Arc::clone(&parts.store), name, None).await? {
            readers.insert(log, reader);
        }
    }
    Ok(readers)
}

/// Refuses a bucket that holds less than the root remembers.
async fn check_anchors(anchors: &[Anchor], in_bucket: &BTreeMap<LogId, LogReader>) -> Result<(), OpenError> {
    for head in anchors.iter().flat_map(|anchor| &anchor.heads) {
        let behind = || OpenError::BucketBehind(format!("log {} had {} leaves", head.origin, head.size));
        let log = in_bucket
            .values()
            .find(|log| log.name().origin() == head.origin)
            .ok_or_else(behind)?;
        if log.head().size < head.size || log.root_at(head.size).await? != head.root {
            return Err(behind());
        }
    }
    Ok(())
}

/// A lease term that no process of this node has had, not even one that died before its first checkpoint.
async fn next_term(parts: &Parts, node: u32, in_bucket: &[LogId]) -> Result<u64, OpenError> {
    let in_bucket = in_bucket
        .iter()
        .filter(|log| log.node == node)
        .map(|log| log.term)
        .max();
    let mut highest = in_bucket.unwrap_or(0);
    let scan = Scan {
        range: Range::Logs,
        reverse: true,
        after: None,
        limit: 1_000,
    };
    for row in parts.index.scan(&scan).await? {
        if let Key::Log(log) = row.key
            && log.node == node
        {
            highest = highest.max(log.term);
        }
    }
    Ok(highest + 1)
}

/// An opened root.
struct OpenEpoch {
    region: Arc<RegionKeys>,
    epoch: EpochKeys,
    /// Its leaf, if it was made just now.
    genesis: Option<RootEpochCreated>,
}

/// Opens the newest epoch: named by the index, or by the bucket's logs if the index lacks some of what they say, else made.
async fn open_epoch(
    parts: &Parts,
    realm: &Realm,
    manifest: &[u8; 32],
    in_bucket: &BTreeMap<LogId, LogReader>,
) -> Result<OpenEpoch, OpenError> {
    let named = parts.providers.named();
    if let Some(row) = newest_epoch(parts, in_bucket).await? {
        // One whose anchor was looked at: nobody else knows how far the bucket has come.
        let anchors = parts.providers.anchors();
        let Some(holder) = anchors.into_iter().find(|root| root.kind() == row.provider) else {
            return Err(OpenError::OtherProvider {
                held: row.provider,
                named: named.kind(),
            });
        };
        let label = EpochLabel {
            vault: realm.vault,
            epoch: row.epoch,
        };
        let grant = EpochGrant {
            handle: row.handle,
            wrapped: row.wrapped_epoch_key.to_vec(),
        };
        let key = holder.unwrap(label, &grant).await?;
        return Ok(OpenEpoch {
            region: Arc::new(RegionKeys::open(realm, row.epoch, &key, &row.sealed_keyring)?),
            epoch: EpochKeys::new(row.epoch, &key),
            genesis: None,
        });
    }
    if parts.providers.is_moving() {
        return Err(OpenError::BucketBehind(
            "it has no root epoch that could be moved".to_owned(),
        ));
    }
    // Nothing vouches for the manifest yet, and what is made now will for ever: it must not have been misread.
    let again = parts
        .store
        .get(&ObjectKey::parse(MANIFEST)?, ByteRange::Full)
        .await?;
    if manifest_sha256(&again.bytes) != *manifest {
        return Err(OpenError::Manifest);
    }
    // The manifest, written before, is the intent: a crash from here on finds the same epoch by its label.
    let label = EpochLabel {
        vault: realm.vault,
        epoch: 1,
    };
    let (grant, key) = make_epoch(&**named, label).await?;
    let (region, sealed_keyring) =
        RegionKeys::create(realm, 1, &key, manifest, parts.clock.now(), &*parts.rng)?;
    let created = RootEpochCreated {
        epoch: 1,
        provider: named.kind().to_owned(),
        handle: grant.handle,
        wrapped_epoch_key: grant.wrapped.into(),
        sealed_keyring: sealed_keyring.into(),
        ..RootEpochCreated::default()
    };
    Ok(OpenEpoch {
        region: Arc::new(region),
        epoch: EpochKeys::new(1, &key),
        genesis: Some(created),
    })
}

/// The newest epoch that is known. An index that is behind may know only one that is destroyed.
async fn newest_epoch(
    parts: &Parts,
    in_bucket: &BTreeMap<LogId, LogReader>,
) -> Result<Option<EpochRow>, OpenError> {
    let scan = Scan {
        range: Range::Epochs,
        reverse: true,
        after: None,
        limit: 1,
    };
    let indexed = match parts.index.scan(&scan).await?.first() {
        Some(row) => Some(rows::unchecked::<EpochRow>(&row.value)?),
        None => None,
    };
    if indexed.is_some() && !replay::is_behind(&*parts.index, in_bucket).await? {
        return Ok(indexed);
    }
    let logged = replay::newest_epoch(in_bucket).await?;
    Ok(logged.into_iter().chain(indexed).max_by_key(|row| row.epoch))
}

/// Signs checkpoints with the region's newest signing key.
#[derive(Debug)]
struct RegionSigner(Arc<RegionKeys>);

impl Signer for RegionSigner {
    fn public_key(&self) -> [u8; 32] {
        self.0.signing().public_key()
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.signing().sign(message)
    }
}

/// Advances the root's anchor with every head that reached the bucket; while the root moves, that of both providers.
///
/// The first leaf of a process's log names the heads that it retired, so from then on its own head vouches for theirs.
#[derive(Debug)]
pub(super) struct Anchoring {
    vault: VaultId,
    own: String,
    roots: Vec<Arc<dyn RootProvider>>,
    /// What is in the bucket, and the highest number of the region's sequence there. Held while it is written down, or an
    /// older anchor could be written over a newer one.
    reached: tokio::sync::Mutex<(BTreeMap<String, Head>, u64)>,
}

impl Anchoring {
    fn new(realm: &Realm, providers: &Providers, anchors: &[Anchor], (node, term): (u32, u64)) -> Self {
        let log = LogId {
            kind: LogKind::State,
            node,
            term,
        };
        let mut heads = BTreeMap::<String, Head>::new();
        for head in anchors.iter().flat_map(|anchor| &anchor.heads) {
            let known = Head {
                size: head.size,
                root: head.root,
            };
            let newest = heads.entry(head.origin.clone()).or_insert(known);
            if head.size > newest.size {
                *newest = known;
            }
        }
        Self {
            vault: realm.vault,
            own: LogName {
                vault: realm.vault,
                log,
            }
            .origin(),
            roots: providers.anchors().into_iter().cloned().collect(),
            reached: tokio::sync::Mutex::new((
                heads,
                anchors.iter().map(|anchor| anchor.region_seq).max().unwrap_or(0),
            )),
        }
    }

    fn anchor(&self, heads: &BTreeMap<String, Head>, region_seq: u64) -> Anchor {
        let head = |(origin, head): (&String, &Head)| AnchoredHead {
            origin: origin.clone(),
            size: head.size,
            root: head.root,
        };
        Anchor {
            vault: self.vault,
            region_seq,
            heads: heads.iter().map(head).collect(),
        }
    }

    /// Sets the anchor of every provider that counts, or says which does not take it. From then on each of them refuses a
    /// bucket that is behind this moment.
    pub(super) async fn secure(&self) -> Result<(), ProviderError> {
        let reached = self.reached.lock().await;
        let anchor = self.anchor(&reached.0, reached.1);
        for root in &self.roots {
            root.advance(&anchor).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl ShipObserver for Anchoring {
    async fn shipped(&self, name: &LogName, head: Head, region_seq: u64) {
        let mut reached = self.reached.lock().await;
        let origin = name.origin();
        if origin == self.own {
            reached.0.clear();
        }
        reached.0.insert(origin, head);
        reached.1 = region_seq;
        let anchor = self.anchor(&reached.0, region_seq);
        for root in &self.roots {
            // An anchor that lags is safe: it refuses less. The next shipment tries again.
            if let Err(error) = root.advance(&anchor).await {
                tracing::error!(error = %Causes(&error), "anchor not advanced; a rollback to before this point would go unnoticed");
            }
        }
    }
}

/// The row of a log that replay has met.
pub(super) async fn log_row(index: &dyn Index, log: LogId) -> Result<LogRow, Error> {
    Ok(read_plain(index, &Key::Log(log)).await?.unwrap_or_default())
}
