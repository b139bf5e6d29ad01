//! Before a key is destroyed: what everything is made again from is whole in the bucket, and lies in the recovery store too.
//!
//! ```text
//! manifest     it is the one that the root vouches for
//! state logs   each entry and each tile, computed again up to the signed checkpoint
//! anchor       the root remembers a head of these logs
//! objects      each that a leaf names and a key that lives opens: page states, settings, sets of erasures
//! ```
//!
//! A process reads each of these once, and after that what is new. The recovery store has all of it under the names of the bucket, and
//! nothing else: no blob, no corrected descriptor. Copies of page states whose key is destroyed are noise; they are removed.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::sync::Mutex;

use crate::{
    blob::{
        copy::{CopyError, keep_copy},
        store::{BlobStore, ByteRange, ObjectKey, StoreError},
    },
    index::{LogId, LogKind},
    keys::{
        KeyError,
        provider::{Anchor, ProviderError},
    },
    ledger::{
        leaf,
        log::{FollowError, Followed, LogName, LogReader, logs},
    },
    proto::storage::{PageStates, RecordSet, SealedPayload, StateLeaf, state_leaf::Body},
};

use super::{
    Error, Kind, Vault,
    open::{MANIFEST, manifest_sha256},
    payload::{name_payload, once_more},
};

const PAYLOADS: &str = "payloads/";
/// Objects read and copied side by side; each is at most 4 MiB, but for sets of erasures.
const SIDE_BY_SIDE: usize = 4;

/// The second store, and what this process has seen to be whole.
#[derive(Debug)]
pub(super) struct Recovery {
    store: Option<Arc<dyn BlobStore>>,
    seen: Mutex<Seen>,
}

impl Recovery {
    pub(super) fn new(store: Option<Arc<dyn BlobStore>>) -> Self {
        Self {
            store,
            seen: Mutex::default(),
        }
    }

    /// Whether there is a second store.
    pub(super) fn is_configured(&self) -> bool {
        self.store.is_some()
    }
}

#[derive(Clone, Debug, Default)]
struct Seen {
    logs: BTreeMap<LogId, Followed>,
    named: Named,
    /// Objects that were read, and copied.
    whole: HashSet<Bytes>,
}

/// What the leaves name.
#[derive(Clone, Debug, Default)]
struct Named {
    /// By tenant; the region is nobody's.
    owners: BTreeMap<String, Owner>,
    /// Settings, and sets of erasures: small, and read by whoever reads the leaf.
    lasting: BTreeMap<Bytes, u64>,
    malformed: bool,
}

/// Objects of page states, and the versions or epochs that sealed them.
#[derive(Clone, Debug, Default)]
struct Owner {
    objects: BTreeMap<Bytes, (u64, u64)>,
    destroyed: BTreeSet<u64>,
}

impl Owner {
    fn take(&mut self, body: Body) {
        match body {
            Body::RootEpochCreated(body) => self.name(body.epoch, &body.page_states),
            Body::RegionPageSealed(page) => self.name(page.epoch, page.stored.as_slice()),
            Body::RootEpochDestroyed(body) if body.scheduled_micros == 0 => {
                self.destroyed.insert(body.epoch);
            }
            Body::TenantKeyRotated(body) => {
                self.name(body.key.map_or(0, |key| key.version), &body.page_states);
            }
            Body::RecordsShredded(body) => {
                let version = body.pages.iter().map(|page| page.key_version).max();
                self.name(version.unwrap_or(0), &body.page_states);
            }
            Body::TenantKeyDestroyed(body) => {
                self.destroyed.insert(body.version);
            }
            Body::TenantShredded(body) => self.destroyed.extend(body.key_versions),
            _ => {}
        }
    }

    fn name(&mut self, version: u64, objects: &[PageStates]) {
        for object in objects {
            let length = u64::from(object.length);
            self.objects.insert(object.sha256.clone(), (version, length));
        }
    }
}

impl Named {
    fn take(&mut self, entry: &Bytes) {
        let Ok(leaf) = leaf::parse(entry) else {
            self.malformed = true;
            return;
        };
        self.leaf(leaf);
    }

    fn leaf(&mut self, leaf: StateLeaf) {
        let Some(body) = leaf.body else { return };
        match body {
            Body::TenantCreated(body) => self.settings(body.settings),
            Body::TenantUpdated(body) => self.settings(body.settings),
            Body::ErasureRequested(body) => self.set(body.set),
            Body::RecordsPut(_) => {}
            body => self.owners.entry(leaf.tenant_id).or_default().take(body),
        }
    }

    fn settings(&mut self, payload: Option<SealedPayload>) {
        if let Some(payload) = payload {
            self.lasting.insert(payload.sha256, u64::from(payload.length));
        }
    }

    fn set(&mut self, set: Option<RecordSet>) {
        if let Some(set) = set {
            self.lasting.insert(set.sha256, u64::from(set.records) * 16);
        }
    }

    /// Forgets what is noise.
    fn forget_destroyed(&mut self) {
        for owner in self.owners.values_mut() {
            let destroyed = &owner.destroyed;
            owner
                .objects
                .retain(|_, (version, _)| !destroyed.contains(version));
        }
    }

    /// What is needed, by its digest: whose it is, and how long.
    fn needed(&self) -> BTreeMap<Bytes, (&str, u64)> {
        let states = self.owners.iter().flat_map(|(id, owner)| {
            let of =
                move |(sha256, (_, length)): (&Bytes, &(u64, u64))| (sha256.clone(), (id.as_str(), *length));
            owner.objects.iter().map(of)
        });
        let lasting = self
            .lasting
            .iter()
            .map(|(sha256, length)| (sha256.clone(), ("", *length)));
        states.chain(lasting).collect()
    }
}

impl Vault {
    /// Sees to it that all that everything is made again from is whole in the bucket, and in the recovery store where there is one.
    /// To be called before any key is destroyed, and now and then.
    ///
    /// Cancel safe: what was copied stays copied.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] (`KEY_STATE_DAMAGED`, `ANCHOR_DAMAGED`, `RECOVERY_NOT_READ_BACK`), [`Kind::WrongState`] (`RECOVERY_NOT_OURS`) or
    /// [`Kind::Unavailable`] (`RECOVERY_UNAVAILABLE`, or as bucket and root say): nothing may be destroyed.
    pub async fn secure_key_state(&self) -> Result<(), Error> {
        let mut held = self.recovery.seen.lock().await;
        self.ledger.settled().await?;
        let mut seen = held.clone();
        self.secure_manifest().await?;
        // Before the logs are looked at: a head that it names is in the bucket already.
        let anchor = self.anchored().await?;
        let readers = self.secure_logs(&mut seen).await?;
        check_heads(&anchor, &readers).await?;
        seen.named.forget_destroyed();
        self.secure_objects(&mut seen).await?;
        *held = seen;
        Ok(())
    }

    /// Copies what is new to the recovery store, if there is one: what was put since is as safe as what was swept.
    ///
    /// # Errors
    /// As [`Self::secure_key_state`].
    pub async fn back_up_key_state(&self) -> Result<(), Error> {
        if self.recovery.is_configured() {
            self.prune_recovery().await?;
        }
        Ok(())
    }

    /// Secures what is new, and removes the copies that nothing needs any more; returns how many.
    ///
    /// # Errors
    /// As [`Self::secure_key_state`].
    pub(super) async fn prune_recovery(&self) -> Result<u64, Error> {
        self.secure_key_state().await?;
        let Some(copies) = &self.recovery.store else {
            return Ok(0);
        };
        let seen = self.recovery.seen.lock().await;
        let needed: HashSet<String> = seen.named.needed().keys().map(hex::encode).collect();
        let mut removed = 0;
        for name in listed(&**copies).await?.difference(&needed) {
            let key = ObjectKey::parse(&format!("{PAYLOADS}{name}"))?;
            copies.delete(&key).await.map_err(unavailable)?;
            removed += 1;
        }
        Ok(removed)
    }

    /// The manifest; and that the copies are not another vault's, nor the bucket itself.
    async fn secure_manifest(&self) -> Result<(), Error> {
        let key = ObjectKey::parse(MANIFEST)?;
        let manifest = once_more(|| async {
            let manifest = self.store.get(&key, ByteRange::Full).await?.bytes;
            if manifest_sha256(&manifest) == *self.keys.region().manifest_sha256() {
                Ok(manifest)
            } else {
                Err(Error::corrupt("manifest"))
            }
        });
        let manifest = manifest.await.map_err(|error| damaged(MANIFEST, error))?;
        let Some(copies) = &self.recovery.store else {
            return Ok(());
        };
        let claimed = copies
            .list("claims/", false, None, 1)
            .await
            .map_err(unavailable)?;
        if !claimed.objects.is_empty() {
            return Err(not_ours("a vault serves from it"));
        }
        match copies.get(&key, ByteRange::Full).await {
            Ok(found) if found.bytes == manifest => return Ok(()),
            // Read again: what a wire does to a byte is no other vault.
            Ok(_) => match copies.get(&key, ByteRange::Full).await {
                Ok(found) if found.bytes == manifest => return Ok(()),
                _ => return Err(not_ours("it holds the manifest of another vault")),
            },
            Err(StoreError::NotFound) => {}
            Err(error) => return Err(unavailable(error)),
        }
        keep_copy(&**copies, &key, &manifest).await.map_err(not_copied)?;
        Ok(())
    }

    /// Every state log, as far as it goes now.
    async fn secure_logs(&self, seen: &mut Seen) -> Result<Vec<LogReader>, Error> {
        let key = self.keys.region().signing().public_key();
        let mut expected = BTreeMap::new();
        for log in logs(&*self.store, LogKind::State).await? {
            expected.insert(log, 0);
        }
        for (log, row) in self.known_logs().await? {
            expected.insert(log, self.expected_size(log, row.closed).await?);
        }
        let mut readers = Vec::new();
        for (log, size) in expected {
            let name = LogName {
                vault: self.realm.vault,
                log,
            };
            let prefix = name.prefix();
            let reader = LogReader::open(Arc::clone(&self.store), name, Some(key)).await;
            let reader = reader.map_err(|error| damaged(&prefix, error.into()))?;
            let Some(reader) = reader.filter(|reader| reader.head().size >= size) else {
                if size == 0 {
                    continue;
                }
                return Err(damaged(
                    &prefix,
                    Error::corrupt("state log is older than the index"),
                ));
            };
            let (followed, named) = (seen.logs.entry(log).or_default(), &mut seen.named);
            let copies = self.recovery.store.as_ref();
            let done = followed.follow(&reader, copies, |entry| named.take(entry)).await;
            done.map_err(|error| match error {
                FollowError::Log(error) => damaged(&prefix, error.into()),
                FollowError::Copy(error) => not_copied(error),
            })?;
            if named.malformed {
                return Err(damaged(&prefix, Error::corrupt("leaf")));
            }
            readers.push(reader);
        }
        Ok(readers)
    }

    /// The root's anchor: with a damaged one, or none, no rollback would be noticed after the next start.
    async fn anchored(&self) -> Result<Anchor, Error> {
        match self.providers.named().anchor().await {
            Ok(Some(anchor)) if anchor.vault == self.realm.vault => Ok(anchor),
            Ok(_) | Err(ProviderError::Corrupt) => Err(not_anchored()),
            Err(error) => Err(KeyError::Provider(error).into()),
        }
    }

    async fn secure_objects(&self, seen: &mut Seen) -> Result<(), Error> {
        if let Some(copies) = &self.recovery.store {
            // What somebody removed there since is copied again.
            let there = listed(&**copies).await?;
            seen.whole.retain(|sha256| there.contains(&hex::encode(sha256)));
        }
        let needed = seen.named.needed();
        let left = needed.iter().filter(|(sha256, _)| !seen.whole.contains(*sha256));
        let secured: Vec<_> = left
            .map(|(sha256, (owner, length))| self.secure_object(sha256, owner, *length))
            .collect();
        let secured: Vec<()> = stream::iter(secured)
            .buffer_unordered(SIDE_BY_SIDE)
            .try_collect()
            .await?;
        drop(secured);
        // Of what is needed no more, nothing is remembered.
        seen.whole = needed.into_keys().collect();
        Ok(())
    }

    async fn secure_object(&self, sha256: &Bytes, owner: &str, length: u64) -> Result<(), Error> {
        let name = format!("{PAYLOADS}{}", hex::encode(sha256));
        let key = ObjectKey::parse(&name)?;
        let read = || async {
            let range = ByteRange::Suffix { length: length + 1 };
            let read = self.store.get(&key, range).await?.bytes;
            if name_payload(&read).sha256 == *sha256 {
                Ok(read)
            } else {
                Err(Error::corrupt("object"))
            }
        };
        let of_whom = if owner.is_empty() {
            name.clone()
        } else {
            format!("{name} tenant={owner}")
        };
        let body = once_more(read).await.map_err(|error| damaged(&of_whom, error))?;
        if let Some(copies) = &self.recovery.store {
            keep_copy(&**copies, &key, &body).await.map_err(not_copied)?;
        }
        Ok(())
    }
}

/// The root remembers heads of these logs.
async fn check_heads(anchor: &Anchor, readers: &[LogReader]) -> Result<(), Error> {
    for head in &anchor.heads {
        let log = readers.iter().find(|log| log.name().origin() == head.origin);
        let log = log.filter(|log| log.head().size >= head.size);
        let log = log.ok_or_else(not_anchored)?;
        if log.root_at(head.size).await? != head.root {
            return Err(not_anchored());
        }
    }
    Ok(())
}

/// Names of the payload objects that a second store has.
async fn listed(copies: &dyn BlobStore) -> Result<HashSet<String>, Error> {
    let (mut names, mut next) = (HashSet::new(), None);
    loop {
        let page = copies.list(PAYLOADS, false, next.as_deref(), 1_000).await;
        let page = page.map_err(unavailable)?;
        let found = page.objects.iter().map(|object| object.key.as_str());
        names.extend(found.filter_map(|name| Some(name.strip_prefix(PAYLOADS)?.to_owned())));
        match page.next {
            Some(token) => next = Some(token),
            None => return Ok(names),
        }
    }
}

/// Only what is damaged: a store that cannot be asked says so itself.
fn damaged(what: &str, error: Error) -> Error {
    if error.kind != Kind::Corrupt {
        return error;
    }
    Error::new(
        Kind::Corrupt,
        "KEY_STATE_DAMAGED",
        format!(
            "what the vault would be made again from is missing in the bucket or not what was written, so no key was destroyed; put the object back, from \
             the recovery store or a copy of the bucket, and it goes on by itself object={what}"
        ),
    )
    .because(error)
}

fn not_anchored() -> Error {
    Error::new(
        Kind::Corrupt,
        "ANCHOR_DAMAGED",
        "the root's anchor is missing, damaged or not this vault's, so no key was destroyed; it is written again with the next change: if this \
         stays, look at the root and docs/operations.md, \"A rolled-back bucket\"",
    )
}

fn not_ours(why: &str) -> Error {
    Error::new(
        Kind::WrongState,
        "RECOVERY_NOT_OURS",
        format!(
            "the recovery store is none for this vault, so no key was destroyed; point recovery_store at a bucket of its own why={why}"
        ),
    )
}

fn not_copied(error: CopyError) -> Error {
    match error {
        CopyError::Store { source, .. } => unavailable(source),
        error @ CopyError::Differs { .. } => Error::new(
            Kind::Corrupt,
            "RECOVERY_NOT_READ_BACK",
            "the recovery store does not give back what it took, so no key was destroyed; replace it, or take it out of the configuration",
        )
        .because(error),
    }
}

fn unavailable(error: StoreError) -> Error {
    Error::new(
        Kind::Unavailable,
        "RECOVERY_UNAVAILABLE",
        "the recovery store refuses the vault or cannot be reached, so no key was destroyed; it is tried again",
    )
    .because(error)
}
