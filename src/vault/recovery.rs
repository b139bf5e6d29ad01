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
//! nothing else: no blob, no corrected descriptor. Copies of page states whose key is destroyed are noise; they are removed. Whatever
//! else lies there is not the vault's to remove, and what is newer there than the bucket is not overwritten.

mod named;

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
        walk::lacking,
    },
    domain::ids::TenantId,
    index::{LogId, LogKind},
    keys::{
        KeyError,
        provider::{Anchor, ProviderError},
    },
    ledger::log::{FollowError, Followed, Head, Listed, LogError, LogName, LogReader, listed, logs},
};

pub use self::named::{Named, Needed};
use super::{
    Error, Kind, Vault,
    open::{MANIFEST, manifest_sha256},
    payload::{name_payload, once_more},
};

const PAYLOADS: &str = "payloads/";
const KEY_STATE_DAMAGED: &str = "KEY_STATE_DAMAGED";
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

/// How far the copies go.
#[derive(Debug, Default)]
struct Copied {
    heads: BTreeMap<LogId, Head>,
    /// Logs that tiles are gone of that were there.
    lacking: BTreeSet<LogId>,
}

impl Copied {
    /// Whether a log is there as far as it was followed.
    fn has(&self, log: LogId, followed: &Followed) -> bool {
        let head = self.heads.get(&log).copied().unwrap_or(Head::EMPTY);
        head == followed.head() && !self.lacking.contains(&log)
    }
}

impl Vault {
    /// Sees to it that all that everything is made again from is whole in the bucket, and in the recovery store where there is one.
    /// To be called before any key is destroyed, and now and then.
    ///
    /// Cancel safe: what was copied stays copied.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] (`KEY_STATE_DAMAGED`, `ANCHOR_DAMAGED`, `RECOVERY_NOT_READ_BACK`), [`Kind::WrongState`] (`RECOVERY_NOT_OURS`,
    /// `RECOVERY_AHEAD`) or
    /// [`Kind::Unavailable`] (`RECOVERY_UNAVAILABLE`, or as bucket and root say): nothing may be destroyed.
    pub async fn secure_key_state(&self) -> Result<(), Error> {
        let mut held = self.recovery.seen.lock().await;
        self.ledger.settled().await?;
        let mut seen = held.clone();
        let manifest = self.whole_manifest().await?;
        // Before the logs are looked at: a head that it names is in the bucket already; and so is what was copied.
        let anchor = self.anchored().await?;
        let copied = self.look_at_copies(&manifest, &seen).await?;
        let readers = self.open_logs().await?;
        refuse_ahead(&copied, &readers, &seen).await?;
        self.copy_manifest(&manifest).await?;
        for reader in &readers {
            self.secure_log(reader, &copied, &mut seen).await?;
        }
        check_heads(&anchor, &readers).await?;
        seen.named.sort_out();
        if !self.recovery.is_configured() {
            seen.named.keep_noise(HashSet::new());
        }
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

    /// Secures what is new, and removes the copies that nothing opens any more; returns how many. What cannot be removed is left
    /// for the next time.
    ///
    /// # Errors
    /// As [`Self::secure_key_state`].
    pub(super) async fn prune_recovery(&self) -> Result<u64, Error> {
        self.secure_key_state().await?;
        let Some(copies) = &self.recovery.store else {
            return Ok(0);
        };
        let mut seen = self.recovery.seen.lock().await;
        let mut noise = seen.named.noise();
        if noise.is_empty() {
            return Ok(0);
        }
        let gone = noise.iter().map(hex::encode).collect();
        let gone = lacking(&**copies, PAYLOADS, gone).await.map_err(unavailable)?;
        noise.retain(|sha256| !gone.contains(&hex::encode(sha256)));
        let removals: Vec<_> = noise
            .into_iter()
            .map(|sha256| remove(&**copies, sha256))
            .collect();
        let outcomes: Vec<Result<(), (Bytes, StoreError)>> = stream::iter(removals)
            .buffer_unordered(SIDE_BY_SIDE)
            .collect()
            .await;
        let removed = outcomes.iter().filter(|outcome| outcome.is_ok()).count() as u64;
        let left: Vec<_> = outcomes.into_iter().filter_map(Result::err).collect();
        if let Some((_, error)) = left.first() {
            tracing::warn!(
                left = left.len(),
                %error,
                "the recovery store still has copies of key states that nothing opens any more: it does not delete them; tried again"
            );
        }
        seen.named
            .keep_noise(left.into_iter().map(|(sha256, _)| sha256).collect());
        Ok(removed)
    }

    async fn whole_manifest(&self) -> Result<Bytes, Error> {
        let key = ObjectKey::parse(MANIFEST)?;
        let manifest = once_more(|| async {
            let manifest = self.store.get(&key, ByteRange::Full).await?.bytes;
            if manifest_sha256(&manifest) == *self.keys.region().manifest_sha256() {
                Ok(manifest)
            } else {
                Err(Error::corrupt("manifest"))
            }
        });
        manifest.await.map_err(|error| damaged(MANIFEST, error))
    }

    /// That the copies are not another vault's, nor the bucket itself, nor a backup of it; and how far they go.
    async fn look_at_copies(&self, manifest: &Bytes, seen: &Seen) -> Result<Copied, Error> {
        let Some(copies) = &self.recovery.store else {
            return Ok(Copied::default());
        };
        for (prefix, why) in [
            ("claims/", "a vault serves from it"),
            ("blobs/", "it holds recordings"),
        ] {
            let found = copies.list(prefix, false, None, 1).await.map_err(unavailable)?;
            if !found.objects.is_empty() {
                return Err(not_ours(why));
            }
        }
        // Read again: what a wire does to a byte is no other vault.
        let ours = is_same(&**copies, manifest).await? || is_same(&**copies, manifest).await?;
        if !ours {
            return Err(not_ours("it holds the manifest of another vault"));
        }
        let followed = seen
            .logs
            .iter()
            .map(|(log, followed)| (*log, followed.head().size));
        let found = listed(&**copies, LogKind::State, followed).await;
        let Listed { logs, lacking } = found.map_err(unavailable)?;
        let heads = logs.into_iter().map(|log| self.copied_head(copies, log));
        let heads: Vec<_> = heads.collect();
        let heads = stream::iter(heads).buffer_unordered(SIDE_BY_SIDE).try_collect();
        Ok(Copied {
            heads: heads.await?,
            lacking,
        })
    }

    /// How far a copied log goes: what somebody else signed, or nobody, tells nothing.
    async fn copied_head(&self, copies: &Arc<dyn BlobStore>, log: LogId) -> Result<(LogId, Head), Error> {
        let (vault, key) = (self.realm.vault, self.keys.region().signing().public_key());
        let open = || LogReader::open(Arc::clone(copies), LogName { vault, log }, Some(key));
        let opened = match open().await {
            Err(LogError::Store(error)) => Err(LogError::Store(error)),
            Err(_) => open().await,
            opened => opened,
        };
        match opened {
            Ok(found) => Ok((log, found.map_or(Head::EMPTY, |found| found.head()))),
            Err(LogError::Store(error)) => Err(unavailable(error)),
            Err(error) => Err(not_read_back().because(error)),
        }
    }

    async fn copy_manifest(&self, manifest: &Bytes) -> Result<(), Error> {
        if let Some(copies) = &self.recovery.store {
            let key = ObjectKey::parse(MANIFEST)?;
            keep_copy(&**copies, &key, manifest).await.map_err(not_copied)?;
        }
        Ok(())
    }

    /// Every state log, as far as it goes now.
    async fn open_logs(&self) -> Result<Vec<LogReader>, Error> {
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
            match reader.filter(|reader| reader.head().size >= size) {
                Some(reader) => readers.push(reader),
                None if size == 0 => {}
                None => {
                    let older = Error::corrupt("state log is older than the index");
                    return Err(damaged(&prefix, older));
                }
            }
        }
        Ok(readers)
    }

    /// Reads what a log has gained, and copies it; all of it, if its copy is not what this process made of it.
    async fn secure_log(&self, reader: &LogReader, copied: &Copied, seen: &mut Seen) -> Result<(), Error> {
        let (log, prefix) = (reader.name().log, reader.name().prefix());
        let (followed, named) = (seen.logs.entry(log).or_default(), &mut seen.named);
        let copies = self.recovery.store.as_ref();
        if copies.is_some() && !copied.has(log, followed) {
            *followed = Followed::default();
        }
        let done = followed.follow(reader, copies, |entry| named.take(entry)).await;
        done.map_err(|error| match error {
            FollowError::Log(error) => damaged(&prefix, error.into()),
            FollowError::Copy(error) => not_copied(error),
        })?;
        if named.is_malformed() {
            return Err(damaged(&prefix, Error::corrupt("leaf")));
        }
        Ok(())
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
            let gone = seen.whole.iter().map(hex::encode).collect();
            let gone = lacking(&**copies, PAYLOADS, gone).await.map_err(unavailable)?;
            seen.whole.retain(|sha256| !gone.contains(&hex::encode(sha256)));
        }
        let needed = seen.named.needed();
        let left = needed.iter().filter(|(sha256, _)| !seen.whole.contains(*sha256));
        let secured: Vec<_> = left
            .map(|(sha256, needed)| self.secure_what_counts(sha256, *needed))
            .collect();
        let lost: HashSet<Bytes> = stream::iter(secured)
            .buffer_unordered(SIDE_BY_SIDE)
            .try_filter_map(async |lost| Ok(lost))
            .try_collect()
            .await?;
        // Of what is needed no more, nothing is remembered.
        seen.whole = needed
            .into_keys()
            .filter(|sha256| !lost.contains(sha256))
            .collect();
        Ok(())
    }

    /// Secures an object; returns it if it is damaged and nothing is lost with it.
    async fn secure_what_counts(&self, sha256: &Bytes, needed: Needed<'_>) -> Result<Option<Bytes>, Error> {
        match self.secure_object(sha256, needed).await {
            Err(error) if error.reason == KEY_STATE_DAMAGED && !needed.counts => {
                tracing::warn!(%error, "page states of a retired version are lost; all of them were sealed again since");
                Ok(Some(sha256.clone()))
            }
            done => done.map(|()| None),
        }
    }

    async fn secure_object(&self, sha256: &Bytes, needed: Needed<'_>) -> Result<(), Error> {
        let Needed { owner, length, .. } = needed;
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

/// What is newer in the recovery store than in the bucket is all that is left of it.
async fn refuse_ahead(copied: &Copied, readers: &[LogReader], seen: &Seen) -> Result<(), Error> {
    for (log, head) in &copied.heads {
        if *head == Head::EMPTY || seen.logs.get(log).is_some_and(|seen| seen.head() == *head) {
            continue;
        }
        let reader = readers.iter().find(|reader| reader.name().log == *log);
        let Some(reader) = reader.filter(|reader| reader.head().size >= head.size) else {
            return Err(ahead());
        };
        let root = reader.root_at(head.size).await;
        let root = root.map_err(|error| damaged(&reader.name().prefix(), error.into()))?;
        if root != head.root {
            return Err(ahead());
        }
    }
    Ok(())
}

/// Whether the recovery store has this manifest, or none. Never reads more than one byte beyond it.
async fn is_same(copies: &dyn BlobStore, manifest: &Bytes) -> Result<bool, Error> {
    let range = ByteRange::Suffix {
        length: manifest.len() as u64 + 1,
    };
    match copies.get(&ObjectKey::parse(MANIFEST)?, range).await {
        Ok(found) => Ok(found.bytes == *manifest),
        Err(StoreError::OutOfRange { .. }) => Ok(false),
        Err(StoreError::NotFound) => Ok(true),
        Err(error) => Err(unavailable(error)),
    }
}

async fn remove(copies: &dyn BlobStore, sha256: Bytes) -> Result<(), (Bytes, StoreError)> {
    let key = ObjectKey::parse(&format!("{PAYLOADS}{}", hex::encode(&sha256)));
    let removed = match key {
        Ok(key) => copies.delete(&key).await,
        Err(error) => Err(error),
    };
    removed.map_err(|error| (sha256, error))
}

/// Only what is damaged: a store that cannot be asked says so itself.
fn damaged(what: &str, error: Error) -> Error {
    if error.kind != Kind::Corrupt {
        return error;
    }
    Error::new(
        Kind::Corrupt,
        KEY_STATE_DAMAGED,
        format!(
            "what the vault would be made again from is missing in the bucket or not what was written, so no key was destroyed; put the object back, from \
             the recovery store or a copy of the bucket, and it goes on by itself object={what}"
        ),
    )
    .because(error)
}

/// The error as whoever may not know other tenants is told it; whose object it is stands in the log.
pub(super) fn without_names(error: Error, tenant: &TenantId, version: u64) -> Error {
    if error.reason != KEY_STATE_DAMAGED {
        return error;
    }
    tracing::error!(%tenant, version, %error, "a key version is not destroyed");
    Error {
        message: "something that the vault would be made again from is missing in the bucket or not what was written, so no key was destroyed; tell the vault's \
                  operator, whose log names it"
            .to_owned(),
        ..error
    }
}

fn not_anchored() -> Error {
    Error::new(
        Kind::Corrupt,
        "ANCHOR_DAMAGED",
        "the root's anchor is missing, damaged or not this vault's, so no key was destroyed; it is written again with the next change: if this \
         stays, look at the root and docs/operations.md, \"A rolled-back bucket\"",
    )
}

fn ahead() -> Error {
    Error::new(
        Kind::WrongState,
        "RECOVERY_AHEAD",
        "the recovery store has leaves that the bucket has not: the bucket was rolled back. Nothing was copied, removed or destroyed. Stop the server and bring \
         the bucket back from the recovery store (docs/operations.md, \"A rolled-back bucket\"); if you go on from the older bucket, point recovery_store at an \
         empty place and keep this one",
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
        error @ CopyError::Differs { .. } => not_read_back().because(error),
    }
}

fn not_read_back() -> Error {
    Error::new(
        Kind::Corrupt,
        "RECOVERY_NOT_READ_BACK",
        "the recovery store does not give back what it took, so no key was destroyed; replace it, or take it out of the configuration",
    )
}

fn unavailable(error: StoreError) -> Error {
    Error::new(
        Kind::Unavailable,
        "RECOVERY_UNAVAILABLE",
        "the recovery store refuses the vault or cannot be reached, so no key was destroyed; it is tried again",
    )
    .because(error)
}
