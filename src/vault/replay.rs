//! The index catches up with the bucket: after a loss from nothing, after a restore from where it stood.
//!
//! The logs are read three times. First the sequenced leaves, in the order of their numbers, whatever log they stand in:
//! duplicates are ignored, gaps and conflicts are errors. They bring every key into its newest state, which is the only one that
//! is sure to open. Then the put leaves, which are facts and need no order. Then corrections, of which the highest version counts.
//! The same functions make the rows that made them the first time.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use ring::digest;

use crate::{
    blob::{
        format::{self, Footer, Request, TAIL_LEN, Tail},
        store::{ByteRange, ObjectKey, StoreError},
    },
    domain::{
        clock::Timestamp,
        ids::{OperationId, RecordId, TenantId},
    },
    index::{Change, Index, Key, LogId, Range, Row, Scan, Scope},
    ledger::{
        leaf,
        log::{LogName, LogReader},
        outbox::Until,
    },
    proto::storage::{
        EpochRow, KeyOperationEnded, LogRow, RecordUpdated, RecordsPut, RegionPageSealed, RootEpochCreated,
        StateLeaf, TenantKeyRotated, TenantKeyRow, TenantPageSealed, TenantRow, TenantUpdated,
        state_leaf::Body,
    },
};

use super::{
    Error, Kind, Named, OpenError, Vault, apply,
    open::log_row,
    payload::once_more,
    put::{Blob, Fresh, Outcomes, Told},
    record::{BlobName, Name, plain_row},
    rotation::{KeyState, begun_row, done_row, if_there, region_states, step_row, tenant_states},
};

/// Put leaves applied side by side: their blobs' footers are read and their commits share an fsync.
pub(super) const SIDE_BY_SIDE: usize = 32;

/// Pages of one transaction: each may be 70 KiB.
const PAGES: usize = 16;

/// What a replay did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Leaves read.
    pub leaves: u64,
    /// Records indexed from their leaves.
    pub records: u64,
    /// Records without a leaf that were indexed and logged.
    pub adopted: u64,
    /// What a leaf promises and the bucket does not hold, or not as it was: for the operator, by object.
    pub broken: Vec<String>,
}

/// The newest epoch that the logs name.
pub(super) async fn newest_epoch(
    in_bucket: &BTreeMap<LogId, LogReader>,
) -> Result<Option<EpochRow>, OpenError> {
    let mut newest: Option<EpochRow> = None;
    for log in in_bucket.values() {
        let mut from = 0;
        loop {
            let entries = log.read(from).await?;
            if entries.is_empty() {
                break;
            }
            from += entries.len() as u64;
            for entry in &entries {
                let Some(Body::RootEpochCreated(body)) = parse(entry)?.body else {
                    continue;
                };
                if newest.as_ref().is_none_or(|have| have.epoch < body.epoch) {
                    newest = Some(apply::epoch_row(&body));
                }
            }
        }
    }
    Ok(newest)
}

/// Whether an index lacks leaves that are in the bucket.
pub(super) async fn is_behind(
    index: &dyn Index,
    in_bucket: &BTreeMap<LogId, LogReader>,
) -> Result<bool, OpenError> {
    for (log, reader) in in_bucket {
        if applied(index, *log).await? < reader.head().size {
            return Ok(true);
        }
    }
    Ok(index.get(&CATCHING_UP).await?.is_some())
}

/// Set while an index catches up, until blobs without a leaf are adopted.
const CATCHING_UP: Key = Key::Meta("catching-up");

/// Applies every leaf that the index lacks. `None` if it lacks none.
///
/// If the last start did not come to its end, it begins anew: what waited for its predecessors then was forgotten, whatever
/// the logs are said to be applied to, and nothing was adopted. What is there is not made again.
pub(super) async fn catch_up(
    vault: &Arc<Vault>,
    in_bucket: &BTreeMap<LogId, LogReader>,
) -> Result<Option<Replayed>, OpenError> {
    let interrupted = vault.index.get(&CATCHING_UP).await?.is_some();
    let mut behind = Vec::new();
    for (log, reader) in in_bucket {
        let applied = if interrupted {
            0
        } else {
            applied(&*vault.index, *log).await?
        };
        if applied < reader.head().size {
            behind.push((*log, reader, applied));
        }
    }
    // The process's own log is new: leaves queued for it are not yet in the bucket.
    if behind.is_empty() {
        return Ok(None);
    }
    tracing::warn!(
        logs = behind.len(),
        "the index is behind the bucket, catching up before serving"
    );
    let begun = Row {
        key: CATCHING_UP,
        value: Vec::new(),
    };
    vault.index.commit(put_rows(vec![begun])).await?;
    for (_, reader, from) in &behind {
        check_chain(reader, in_bucket, *from).await?;
    }
    let mut replay = Replay::new(vault, in_bucket.values().collect());
    // Keys first, in their newest state: those that sealed what an older leaf says may be gone.
    for (_, reader, from) in &behind {
        replay.sequenced_leaves(reader, *from).await?;
    }
    replay.refuse_gaps()?;
    for (_, reader, from) in &behind {
        replay.put_leaves(reader, *from).await?;
    }
    for (_, reader, from) in &behind {
        replay.corrections(reader, *from).await?;
    }
    vault.blind_anew().await?;
    if interrupted {
        replay.gone_by_tombstones().await?;
    }
    for (tenant, gone) in &replay.gone {
        vault.forget_found_by(tenant, gone).await?;
    }
    for (log, reader, _) in behind {
        replay.mark(log, reader).await?;
    }
    Ok(Some(replay.done))
}

async fn applied(index: &dyn Index, log: LogId) -> Result<u64, OpenError> {
    let value = index.get(&Key::LogNext(log)).await?;
    Ok(value
        .and_then(|v| v.try_into().ok())
        .map_or(0, u64::from_be_bytes))
}

/// The logs of a node are a chain: each names the heads of those before it.
async fn check_chain(
    reader: &LogReader,
    in_bucket: &BTreeMap<LogId, LogReader>,
    from: u64,
) -> Result<(), OpenError> {
    if from > 0 {
        return Ok(());
    }
    let first = reader.read(0).await?;
    let Some(Body::LogOpened(opened)) = first.first().map(parse).transpose()?.and_then(|l| l.body) else {
        return Err(OpenError::Inconsistent(format!(
            "{} does not begin with its opening",
            reader.name().origin()
        )));
    };
    for head in opened.retired {
        let behind = || OpenError::BucketBehind(format!("log {} had {} leaves", head.origin, head.size));
        let log = in_bucket
            .values()
            .find(|l| l.name().origin() == head.origin)
            .ok_or_else(behind)?;
        if log.head().size < head.size || log.root_at(head.size).await?[..] != head.root[..] {
            return Err(behind());
        }
    }
    Ok(())
}

fn parse(entry: &Bytes) -> Result<StateLeaf, Error> {
    leaf::parse(entry).map_err(|e| Error {
        source: Some(Box::new(e)),
        ..Error::corrupt("leaf")
    })
}

struct Replay<'a> {
    vault: &'a Arc<Vault>,
    done: Replayed,
    /// Last number applied, by scope.
    sequences: HashMap<Scope, u64>,
    /// Digests of what was applied in this run, to tell duplicates from conflicts.
    applied: HashMap<(Scope, u64), [u8; 8]>,
    /// Sequenced leaves whose predecessors have not come yet.
    early: BTreeMap<(Scope, u64), (StateLeaf, [u8; 8])>,
    /// Records of an older index that are shredded: what leads to them is left.
    gone: BTreeMap<TenantId, BTreeSet<RecordId>>,
    /// Objects of page states that the leaf in hand names and that are missing.
    missing: Missing,
    /// Every log there is, and what all of them together name; read when it is asked for.
    logs: Vec<&'a LogReader>,
    named: Option<Named>,
}

/// Objects of page states that are not there, and the version or epoch that sealed them: nothing is lost with them if no state
/// under that one counts any more.
#[derive(Debug, Default)]
pub(super) struct Missing(Vec<(Scope, u64, Error)>);

impl Missing {
    /// What an object gave; if it is not there, that is remembered.
    pub(super) fn unless<T>(
        &mut self,
        scope: &Scope,
        version: u64,
        read: Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        if_there(read).map(|read| match read {
            Ok(there) => Some(there),
            Err(error) => {
                self.0.push((scope.clone(), version, error));
                None
            }
        })
    }
}

impl<'a> Replay<'a> {
    fn new(vault: &'a Arc<Vault>, logs: Vec<&'a LogReader>) -> Self {
        Self {
            vault,
            done: Replayed::default(),
            sequences: HashMap::new(),
            applied: HashMap::new(),
            early: BTreeMap::new(),
            gone: BTreeMap::new(),
            missing: Missing::default(),
            logs,
            named: None,
        }
    }

    async fn sequenced_leaves(&mut self, reader: &LogReader, from: u64) -> Result<(), OpenError> {
        let mut position = from;
        loop {
            let entries = reader.read(position).await?;
            if entries.is_empty() {
                return Ok(());
            }
            position += entries.len() as u64;
            self.done.leaves += entries.len() as u64;
            for entry in &entries {
                let leaf = parse(entry)?;
                if !matches!(leaf.body, Some(Body::RecordsPut(_))) {
                    self.sequenced(leaf, entry).await?;
                }
            }
        }
    }

    /// Every record that is shredded: a start that was cut short may have forgotten which of them had rows.
    async fn gone_by_tombstones(&mut self) -> Result<(), OpenError> {
        for row in self.vault.all_rows(Range::Tenants).await? {
            let Key::Tenant(tenant) = row.key else { continue };
            let mut gone = BTreeSet::new();
            let bury = |id, _| {
                gone.insert(id);
            };
            self.vault.tombstones(&tenant, bury).await?;
            if !gone.is_empty() {
                self.gone.entry(tenant).or_default().extend(gone);
            }
        }
        Ok(())
    }

    async fn put_leaves(&mut self, reader: &LogReader, from: u64) -> Result<(), OpenError> {
        let mut position = from;
        loop {
            let entries = reader.read(position).await?;
            if entries.is_empty() {
                return Ok(());
            }
            position += entries.len() as u64;
            let mut facts = Vec::new();
            for entry in &entries {
                if let Some(Body::RecordsPut(put)) = parse(entry)?.body {
                    facts.push(put);
                }
            }
            self.facts(facts).await?;
        }
    }

    async fn corrections(&mut self, reader: &LogReader, from: u64) -> Result<(), OpenError> {
        let mut position = from;
        loop {
            let entries = reader.read(position).await?;
            if entries.is_empty() {
                return Ok(());
            }
            position += entries.len() as u64;
            for entry in &entries {
                let leaf = parse(entry)?;
                let at = Timestamp(leaf.time_micros);
                if let (Some((Scope::Tenant(tenant), _)), Some(Body::RecordUpdated(body))) =
                    (scope_of(&leaf)?, &leaf.body)
                {
                    self.correction(&tenant, body, at).await?;
                }
            }
        }
    }

    async fn correction(
        &mut self,
        tenant: &TenantId,
        body: &RecordUpdated,
        at: Timestamp,
    ) -> Result<(), OpenError> {
        match self.vault.replay_update(tenant, body, at).await {
            Ok(change) => {
                self.vault.commit_long(change, Until::Queued).await?;
            }
            Err(error) if error.kind == Kind::Corrupt || error.kind == Kind::NotFound => {
                let record = RecordId::from_slice(&body.record_id).map_err(|_| Error::corrupt("leaf"))?;
                if self.vault.is_shredded(tenant, &record).await?
                    || self.vault.is_tenant_shredded(tenant).await?
                {
                    return Ok(());
                }
                self.done.broken.push(format!("payloads/{}", hex_of(body)));
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Remembers how far a log is applied.
    async fn mark(&self, log: LogId, reader: &LogReader) -> Result<(), OpenError> {
        // A log of a process that did not get far may have more queued here than it has in the bucket.
        let closed = is_closed(reader).await?;
        let position = reader.head().size.max(applied(&*self.vault.index, log).await?);
        let before = log_row(&*self.vault.index, log).await?;
        let name = LogName {
            vault: self.vault.realm.vault,
            log,
        };
        let row = LogRow {
            origin: name.origin(),
            applied: position,
            root_hash: reader.head().root.to_vec().into(),
            closed: before.closed || (closed && position == reader.head().size),
        };
        let put = vec![
            plain_row(Key::Log(log), &row),
            Row {
                key: Key::LogNext(log),
                value: position.to_be_bytes().to_vec(),
            },
        ];
        self.vault
            .index
            .commit(Change {
                put,
                ..Change::default()
            })
            .await?;
        Ok(())
    }

    async fn sequenced(&mut self, leaf: StateLeaf, entry: &Bytes) -> Result<(), OpenError> {
        let Some((scope, sequence)) = scope_of(&leaf)? else {
            return Ok(());
        };
        let digest = short_digest(entry);
        let last = self.last(&scope).await?;
        let at = (scope.clone(), sequence);
        if sequence <= last {
            return match self.applied.get(&at) {
                Some(have) if *have != digest => Err(OpenError::Inconsistent(format!(
                    "two different leaves have number {sequence} of one sequence"
                ))),
                _ => Ok(()),
            };
        }
        self.early.insert(at, (leaf, digest));
        // Whatever follows without a gap is due.
        let mut next = last + 1;
        while let Some((leaf, digest)) = self.early.remove(&(scope.clone(), next)) {
            self.apply(&scope, next, leaf).await?;
            self.applied.insert((scope.clone(), next), digest);
            self.sequences.insert(scope.clone(), next);
            next += 1;
        }
        Ok(())
    }

    async fn last(&mut self, scope: &Scope) -> Result<u64, OpenError> {
        if let Some(last) = self.sequences.get(scope) {
            return Ok(*last);
        }
        let value = self.vault.index.get(&Key::Sequence(scope.clone())).await?;
        let last = value
            .and_then(|v| v.try_into().ok())
            .map_or(0, u64::from_be_bytes);
        self.sequences.insert(scope.clone(), last);
        Ok(last)
    }

    async fn apply(&mut self, scope: &Scope, sequence: u64, leaf: StateLeaf) -> Result<(), OpenError> {
        let vault = self.vault;
        let at = Timestamp(leaf.time_micros);
        let request = request_of(&leaf)?;
        let record = updated_record(&leaf)?;
        let mut change = self.change_of(scope, leaf, at).await?;
        // Before anything is written: the next start meets this leaf again, and refuses again.
        self.refuse_missing().await?;
        if let (Scope::Tenant(tenant), Some(request)) = (scope, request) {
            vault
                .remember_request(&mut change, tenant, &request, record.as_ref(), at)
                .await?;
        }
        change.put.push(Row {
            key: Key::Sequence(scope.clone()),
            value: sequence.to_be_bytes().to_vec(),
        });
        vault.commit_long(change, Until::Queued).await?;
        Ok(())
    }

    /// What a leaf changes, without its number and its request.
    async fn change_of(
        &mut self,
        scope: &Scope,
        leaf: StateLeaf,
        at: Timestamp,
    ) -> Result<Change, OpenError> {
        let vault = self.vault;
        let malformed = || Error::corrupt("leaf");
        let rows = match (scope, leaf.body) {
            (Scope::Region, Some(Body::RootEpochIntended(body))) => {
                vec![apply::intended(body.epoch, &body.provider)]
            }
            (Scope::Region, Some(Body::RootEpochCreated(body))) => {
                let missing = &mut self.missing;
                vault.replay_epoch(&body, &leaf.actor, at, missing).await?
            }
            (Scope::Region, Some(Body::RegionPageSealed(body))) => {
                vault.replay_region_page(body, &mut self.missing).await?
            }
            (scope, Some(Body::KeyOperationBegun(body))) => {
                let row = begun_row(&vault.rows, &body, scope, &leaf.actor, at);
                vec![row.ok_or_else(malformed)?]
            }
            (Scope::Tenant(tenant), Some(Body::TenantCreated(body))) => {
                let payload = body.settings.as_ref().ok_or_else(malformed)?;
                let sealed = vault.read_payload(payload).await?;
                apply::tenant_created(&vault.rows, tenant, &body, &sealed, at).ok_or_else(malformed)?
            }
            (Scope::Tenant(tenant), Some(Body::TenantUpdated(body))) => {
                return Ok(vault.replay_settings(tenant, &body).await?);
            }
            (Scope::Tenant(tenant), Some(Body::TenantSuspended(body))) => {
                let before = vault.tenant_row(tenant).await?;
                let (before, _) = before.ok_or_else(malformed)?;
                vec![apply::tenant_suspended(&vault.rows, tenant, before, &body)]
            }
            (Scope::Tenant(tenant), Some(Body::TenantPageSealed(body))) => {
                vault.replay_tenant_page(tenant, &body).await?
            }
            (Scope::Tenant(tenant), Some(Body::TenantKeyRotated(body))) => {
                let missing = &mut self.missing;
                vault
                    .replay_rotation(tenant, &body, &leaf.actor, at, missing)
                    .await?
            }
            (Scope::Tenant(tenant), Some(Body::IndexKeyStaged(body))) => {
                vault.replay_staging(tenant, &body).await?
            }
            (Scope::Tenant(tenant), Some(Body::TenantKeyDestroyed(body))) => {
                let (key, _) = vault.key_row(tenant, body.version).await?;
                let row = apply::tenant_key_destroyed(&vault.rows, tenant, body.version, key, at);
                vec![row]
            }
            (Scope::Tenant(tenant), Some(Body::RetentionClassCreated(body))) => {
                let row = apply::retention_class(&vault.rows, tenant, &body);
                vec![row.ok_or_else(malformed)?]
            }
            (Scope::Tenant(tenant), Some(Body::ErasureRequested(body))) => {
                return Ok(vault
                    .replay_erasure_requested(tenant, &body, &leaf.actor, at)
                    .await?);
            }
            (Scope::Tenant(tenant), Some(Body::ErasureCancelled(body))) => {
                return Ok(vault.replay_erasure_cancelled(tenant, &body, at).await?);
            }
            (Scope::Tenant(tenant), Some(Body::RecordsShredded(body))) => {
                let missing = &mut self.missing;
                let (change, there) = vault.replay_records_shredded(tenant, body, at, missing).await?;
                if !there.is_empty() {
                    self.gone.entry(tenant.clone()).or_default().extend(there);
                }
                return Ok(change);
            }
            (Scope::Tenant(tenant), Some(Body::TenantShredded(body))) => {
                return Ok(vault.replay_tenant_shredded(tenant, &body, at).await?);
            }
            (Scope::Tenant(tenant), Some(Body::ErasureEffective(body))) => {
                return Ok(vault.replay_erasure_effective(tenant, &body, at).await?);
            }
            (Scope::Tenant(tenant), Some(Body::ErasureFinal(body))) => {
                return Ok(vault.replay_erasure_final(tenant, &body, at).await?);
            }
            (Scope::Region, Some(Body::KeyOperationEnded(body))) => {
                vault.replay_operation_ended(&body, at).await?
            }
            (Scope::Region, Some(Body::RootEpochDestroying(body))) => {
                vault.replay_epoch_destroying(&body, at).await?
            }
            (Scope::Region, Some(Body::RootEpochDestroyed(body))) => {
                vault.replay_epoch_destroyed(&body, at).await?
            }
            // Its descriptor comes when every record is known.
            (Scope::Tenant(_), Some(Body::RecordUpdated(_))) => Vec::new(),
            _ => {
                return Err(OpenError::Inconsistent(
                    "a leaf stands in a sequence where it cannot".to_owned(),
                ));
            }
        };
        Ok(put_rows(rows))
    }

    async fn facts(&mut self, facts: Vec<RecordsPut>) -> Result<(), OpenError> {
        let vault = self.vault;
        let outcomes: Vec<(RecordsPut, Result<u64, Error>)> = stream::iter(joined(facts))
            .map(|put| async move {
                let indexed = vault.index_logged(&put).await;
                (put, indexed)
            })
            .buffer_unordered(SIDE_BY_SIDE)
            .collect()
            .await;
        for (put, outcome) in outcomes {
            match outcome {
                Ok(records) => self.done.records += records,
                // What it needs was read before it: it is not in the bucket.
                Err(error) if matches!(error.kind, Kind::Corrupt | Kind::NotFound) => {
                    self.broken(put.object_key, &error);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn broken(&mut self, object: String, error: &Error) {
        tracing::error!(object, reason = error.reason, %error, "a logged blob is missing or does not authenticate");
        self.done.broken.push(object);
    }

    /// A state that is missing must be one that counts no more, or shredded slots would live again in an older one.
    async fn refuse_missing(&mut self) -> Result<(), OpenError> {
        for (scope, version, error) in std::mem::take(&mut self.missing.0) {
            let owner = match &scope {
                Scope::Tenant(tenant) => tenant.as_str(),
                Scope::Region | Scope::Fact => "",
            };
            if self.named().await?.counts(owner, version) {
                return Err(error.into());
            }
        }
        Ok(())
    }

    /// What all logs together name.
    async fn named(&mut self) -> Result<&Named, OpenError> {
        let named = match self.named.take() {
            Some(named) => named,
            None => {
                let mut named = Named::default();
                for reader in &self.logs {
                    let mut position = 0;
                    loop {
                        let entries = reader.read(position).await?;
                        if entries.is_empty() {
                            break;
                        }
                        position += entries.len() as u64;
                        entries.iter().for_each(|entry| named.take(entry));
                    }
                }
                named
            }
        };
        Ok(self.named.insert(named))
    }

    fn refuse_gaps(&self) -> Result<(), OpenError> {
        match self.early.keys().next() {
            None => Ok(()),
            Some((_, sequence)) => Err(OpenError::Inconsistent(format!(
                "a sequence has a gap before number {sequence}"
            ))),
        }
    }
}

/// Whether the last leaf of a log closes it.
async fn is_closed(reader: &LogReader) -> Result<bool, OpenError> {
    let Some(last) = reader.head().size.checked_sub(1) else {
        return Ok(false);
    };
    let entries = reader.read(last).await?;
    let last = entries.first().map(parse).transpose()?;
    Ok(matches!(
        last.and_then(|leaf| leaf.body),
        Some(Body::LogClosed(_))
    ))
}

fn put_rows(put: Vec<Row>) -> Change {
    Change {
        put,
        ..Change::default()
    }
}

fn scope_of(leaf: &StateLeaf) -> Result<Option<(Scope, u64)>, Error> {
    match (leaf.region_seq, leaf.tenant_seq) {
        (0, 0) => Ok(None),
        (sequence, 0) => Ok(Some((Scope::Region, sequence))),
        (0, sequence) => {
            let tenant: TenantId = leaf.tenant_id.parse().map_err(|_| Error::corrupt("leaf"))?;
            Ok(Some((Scope::Tenant(tenant), sequence)))
        }
        _ => Err(Error::corrupt("leaf")),
    }
}

fn request_of(leaf: &StateLeaf) -> Result<Option<Request>, Error> {
    if leaf.request_mac.is_empty() {
        return Ok(None);
    }
    let array = |bytes: &[u8]| <[u8; 32]>::try_from(bytes).map_err(|_| Error::corrupt("leaf"));
    Ok(Some(Request {
        mac: array(&leaf.request_mac)?,
        fingerprint: array(&leaf.request_fingerprint)?,
    }))
}

/// The record that a leaf changed: what its request answers with.
fn updated_record(leaf: &StateLeaf) -> Result<Option<RecordId>, Error> {
    let id = match &leaf.body {
        Some(Body::RecordUpdated(body)) => &body.record_id,
        // An erasure is what its request answers with.
        Some(Body::ErasureRequested(body)) => &body.erasure_id,
        _ => return Ok(None),
    };
    RecordId::from_slice(id)
        .map(Some)
        .map_err(|_| Error::corrupt("leaf"))
}

fn short_digest(entry: &[u8]) -> [u8; 8] {
    let mut short = [0; 8];
    short.copy_from_slice(&digest::digest(&digest::SHA256, entry).as_ref()[..8]);
    short
}

fn hex_of(body: &RecordUpdated) -> String {
    body.descriptor
        .as_ref()
        .map(|p| hex::encode(&p.sha256))
        .unwrap_or_default()
}

/// The places of the entries that a put leaf names; `None` unless it names some, and all of them are the footer's.
fn entries_named(footer: &Footer, put: &RecordsPut) -> Option<BTreeSet<usize>> {
    let ids = footer.entries.iter().map(|entry| &entry.record.as_bytes()[..]);
    let places: HashMap<&[u8], usize> = ids.enumerate().map(|(place, id)| (id, place)).collect();
    let named = put.record_ids.iter().map(|id| places.get(&id[..]).copied());
    let named: BTreeSet<usize> = named.collect::<Option<_>>()?;
    (!named.is_empty()).then_some(named)
}

/// What a leaf says cannot be refused: the bucket contradicts itself.
fn contradicted(error: Error) -> Error {
    match error.kind {
        Kind::AlreadyExists | Kind::Conflict => Error::corrupt("leaf").because(error),
        _ => error,
    }
}

/// Leaves of one blob as one, so that its footer is read once.
fn joined(facts: Vec<RecordsPut>) -> Vec<RecordsPut> {
    let mut joined: Vec<RecordsPut> = Vec::with_capacity(facts.len());
    let mut places: HashMap<(String, Bytes), usize> = HashMap::new();
    for fact in facts {
        let blob = (fact.object_key.clone(), fact.footer_sha256.clone());
        match places.get(&blob) {
            Some(place) => joined[*place].record_ids.extend(fact.record_ids),
            None => {
                places.insert(blob, joined.len());
                joined.push(fact);
            }
        }
    }
    joined
}

impl Vault {
    /// The rows of an epoch, and of the region's pages that it took over.
    async fn replay_epoch(
        &self,
        body: &RootEpochCreated,
        actor: &str,
        at: Timestamp,
        missing: &mut Missing,
    ) -> Result<Vec<Row>, Error> {
        // A page that was punctured meanwhile is in them twice.
        let mut newest: BTreeMap<Bytes, RegionPageSealed> = BTreeMap::new();
        for states in &body.page_states {
            let read = region_states(self, states).await;
            let read = missing.unless(&Scope::Region, body.epoch, read)?;
            for page in read.into_iter().flatten() {
                let have = newest.get(&page.page_id).map_or(0, |have| have.generation);
                if page.generation > have {
                    newest.insert(page.page_id.clone(), page);
                }
            }
        }
        let pages = newest.values();
        self.put_pages(pages.map(|page| apply::region_page(&self.rows, page)))
            .await?;
        let mut rows = vec![apply::epoch(&self.rows, body, at)];
        // Numbers of epochs that were begun and given up are left out.
        for row in self.all_rows(Range::Epochs).await? {
            let before: EpochRow = self.rows.open(&row.key, &row.value)?;
            if before.state == apply::ENABLED && before.epoch < body.epoch {
                rows.push(apply::epoch_retired(&self.rows, before, at));
            }
        }
        rows.extend(
            self.replayed_operation(&body.operation_id, body.epoch, actor, at)
                .await?,
        );
        Ok(rows)
    }

    async fn replay_region_page(
        &self,
        mut body: RegionPageSealed,
        missing: &mut Missing,
    ) -> Result<Vec<Row>, Error> {
        let corrupt = || Error::corrupt("leaf");
        if let Some(stored) = &body.stored {
            let read = region_states(self, stored).await;
            let Some(mut found) = missing.unless(&Scope::Region, body.epoch, read)? else {
                return Ok(Vec::new());
            };
            body = found
                .pop()
                .filter(|page| page.page_id == body.page_id && page.generation == body.generation)
                .ok_or_else(corrupt)?;
        }
        Ok(vec![apply::region_page(&self.rows, &body).ok_or_else(corrupt)?])
    }

    /// Whether a version of a tenant's key, or an epoch, is destroyed.
    pub(super) async fn is_destroyed(&self, scope: &Scope, version: u64) -> Result<bool, Error> {
        let state = match scope {
            Scope::Fact => None,
            Scope::Region => {
                let key = Key::Epoch(version);
                let value = self.index.get(&key).await?;
                let row = value.map(|value| self.rows.open::<EpochRow>(&key, &value));
                row.transpose()?.map(|row| row.state)
            }
            Scope::Tenant(tenant) => {
                let key = Key::TenantKey(tenant.clone(), version);
                let value = self.index.get(&key).await?;
                let row = value.map(|value| self.rows.open::<TenantKeyRow>(&key, &value));
                row.transpose()?.map(|row| row.state)
            }
        };
        Ok(state == Some(KeyState::Destroyed as u32))
    }

    async fn replay_tenant_page(
        &self,
        tenant: &TenantId,
        body: &TenantPageSealed,
    ) -> Result<Vec<Row>, Error> {
        let corrupt = || Error::corrupt("leaf");
        let (key, _) = self.key_row(tenant, body.key_version).await?;
        let counted = TenantKeyRow {
            seals: key.seals + 1,
            ..key
        };
        Ok(vec![
            self.rows
                .row(Key::TenantKey(tenant.clone(), body.key_version), &counted),
            apply::tenant_page(&self.rows, tenant, body).ok_or_else(corrupt)?,
        ])
    }

    /// The rows of a tenant whose key was rotated. Those of its pages are written before: they lead nowhere without the pointer.
    async fn replay_rotation(
        &self,
        tenant: &TenantId,
        body: &TenantKeyRotated,
        actor: &str,
        at: Timestamp,
        missing: &mut Missing,
    ) -> Result<Vec<Row>, Error> {
        let corrupt = || Error::corrupt("leaf");
        let (scope, version) = (
            Scope::Tenant(tenant.clone()),
            body.key.as_ref().map_or(0, |key| key.version),
        );
        let mut newest: BTreeMap<Bytes, TenantPageSealed> = BTreeMap::new();
        for states in &body.page_states {
            let read = tenant_states(self, states).await;
            let read = missing.unless(&scope, version, read)?;
            for page in read.into_iter().flatten() {
                let have = newest.get(&page.page_id).map_or(0, |have| have.generation);
                if page.generation > have {
                    newest.insert(page.page_id.clone(), page);
                }
            }
        }
        let pages = newest.values();
        self.put_pages(pages.map(|page| apply::tenant_page(&self.rows, tenant, page)))
            .await?;
        let (before, _) = self.tenant_row(tenant).await?.ok_or_else(corrupt)?;
        let (retired, _) = self.key_row(tenant, before.current_key_version).await?;
        let mut rows =
            apply::tenant_key_rotated(&self.rows, tenant, before, retired, body, at).ok_or_else(corrupt)?;
        rows.extend(self.blinding_rotated(tenant, body).await?);
        rows.extend(
            self.replayed_operation(&body.operation_id, version, actor, at)
                .await?,
        );
        Ok(rows)
    }

    /// The row of an operation that came to its end.
    async fn replayed_operation(
        &self,
        id: &[u8],
        result: u64,
        actor: &str,
        at: Timestamp,
    ) -> Result<Option<Row>, Error> {
        if id.is_empty() {
            return Ok(None);
        }
        let id = OperationId::from_slice(id).map_err(|_| Error::corrupt("leaf"))?;
        match self.operation(&id).await {
            Ok(operation) => Ok(Some(step_row(&self.rows, &operation, result, at))),
            Err(error) if error.kind == Kind::NotFound => {
                tracing::warn!(operation = %id, actor, "the log has the end of an operation and not its beginning");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The row of an operation that says itself that it ended.
    async fn replay_operation_ended(
        &self,
        body: &KeyOperationEnded,
        at: Timestamp,
    ) -> Result<Vec<Row>, Error> {
        let id = OperationId::from_slice(&body.operation_id).map_err(|_| Error::corrupt("leaf"))?;
        let operation = self.operation(&id).await?;
        Ok(vec![done_row(&self.rows, &operation, body.result, at)])
    }

    async fn put_pages(&self, rows: impl Iterator<Item = Option<Row>>) -> Result<(), Error> {
        let rows: Option<Vec<Row>> = rows.collect();
        let rows = rows.ok_or_else(|| Error::corrupt("page states"))?;
        for rows in rows.chunks(PAGES) {
            self.index.commit(put_rows(rows.to_vec())).await?;
        }
        Ok(())
    }

    /// Slots of pages that were being filled may have been used without a trace in this index, if it is a copy from before a
    /// crash: those pages take no more. Every process fills pages of its own, and the leaf of a page is in the bucket before
    /// its first slot is used, so that an index that lacks the page is known to be behind.
    pub(super) async fn close_open_pages(&self) -> Result<(), OpenError> {
        loop {
            let scan = Scan {
                range: Range::OpenPages,
                reverse: false,
                after: None,
                limit: 32,
            };
            let delete: Vec<Key> = self
                .index
                .scan(&scan)
                .await?
                .into_iter()
                .map(|row| row.key)
                .collect();
            if delete.is_empty() {
                break;
            }
            self.index
                .commit(Change {
                    delete,
                    ..Change::default()
                })
                .await?;
        }
        let delete = vec![Key::Meta(apply::OPEN_REGION_PAGE)];
        self.index
            .commit(Change {
                delete,
                ..Change::default()
            })
            .await?;
        Ok(())
    }

    async fn replay_settings(&self, tenant: &TenantId, body: &TenantUpdated) -> Result<Change, Error> {
        let corrupt = || Error::corrupt("leaf");
        let sealed = self
            .read_payload(body.settings.as_ref().ok_or_else(corrupt)?)
            .await?;
        let (before, _): (TenantRow, _) = self.tenant_row(tenant).await?.ok_or_else(corrupt)?;
        let row = apply::tenant_updated(&self.rows, tenant, before, body, &sealed).ok_or_else(corrupt)?;
        Ok(put_rows(vec![row]))
    }

    async fn replay_update(
        &self,
        tenant: &TenantId,
        body: &RecordUpdated,
        at: Timestamp,
    ) -> Result<Change, Error> {
        let corrupt = || Error::corrupt("leaf");
        let id = RecordId::from_slice(&body.record_id).map_err(|_| corrupt())?;
        let located = self
            .locate_in_any(tenant, &Name::Id(id))
            .await?
            .ok_or_else(Error::not_found)?;
        if located.row.descriptor_version >= body.descriptor_version {
            return Ok(Change::default());
        }
        let sealed = self
            .read_payload(body.descriptor.as_ref().ok_or_else(corrupt)?)
            .await?;
        let (before, keys) = self.open_record(&located).await?;
        let version = body.descriptor_version;
        let after = located
            .place_of_version(version)
            .open(&keys.descriptor, &sealed)?;
        self.update_rows(&located, &before.descriptor, &after, version, sealed, at)
            .await
    }

    /// Indexes the records that a put leaf names, unless they are; returns how many it indexed.
    async fn index_logged(&self, put: &RecordsPut) -> Result<u64, Error> {
        let object = ObjectKey::parse(&put.object_key)?;
        if self.has_all(put).await? {
            return Ok(0);
        }
        let (footer, sha256) = self.read_footer(&object).await?;
        if sha256[..] != put.footer_sha256[..] {
            return Err(Error::corrupt("footer"));
        }
        let named = entries_named(&footer, put).ok_or_else(|| Error::corrupt("leaf"))?;
        let blob = BlobName {
            object_key: put.object_key.clone(),
            object_version: put.object_version.clone(),
            footer_sha256: sha256,
        };
        let missing = self.missing(&footer, named).await?;
        let outcomes = self
            .index_found(&footer, &blob, put.object_length, Told::Already, &missing)
            .await?;
        for outcome in outcomes.into_values() {
            outcome.map_err(contradicted)?;
        }
        Ok(missing.len() as u64)
    }

    /// Whether rows name all the records of a put leaf, in the blob that it names: a start after one that was cut short need
    /// not read every footer again.
    async fn has_all(&self, put: &RecordsPut) -> Result<bool, Error> {
        let Some((tenant, _)) = format::parse_object_key(&ObjectKey::parse(&put.object_key)?) else {
            return Ok(false);
        };
        for id in &put.record_ids {
            let id = RecordId::from_slice(id).map_err(|_| Error::corrupt("leaf"))?;
            let Some(value) = self.index.get(&Key::Record(tenant.clone(), id)).await? else {
                // What is shredded needs no row, and its blob may be gone.
                if self.is_shredded(&tenant, &id).await? {
                    continue;
                }
                return self.is_tenant_shredded(&tenant).await;
            };
            if self.parse_row(&tenant, &id, value)?.row.object_key != put.object_key {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The index has all that the bucket has.
    pub(super) async fn caught_up(&self) -> Result<(), OpenError> {
        let done = Change {
            delete: vec![CATCHING_UP],
            ..Change::default()
        };
        self.index.commit(done).await?;
        Ok(())
    }

    /// Those of a footer's entries that no row names.
    pub(super) async fn missing(
        &self,
        footer: &Footer,
        entries: impl IntoIterator<Item = usize>,
    ) -> Result<Vec<usize>, Error> {
        let entries: Vec<usize> = entries.into_iter().collect();
        let key = |index: &usize| Key::Record(footer.tenant.clone(), footer.entries[*index].record);
        let found = self
            .index
            .get_many(&entries.iter().map(key).collect::<Vec<_>>())
            .await?;
        let absent = entries
            .into_iter()
            .zip(found)
            .filter(|(_, found)| found.is_none());
        let absent: Vec<usize> = absent.map(|(index, _)| index).collect();
        let tombstone = |index: &usize| Key::Tombstone(footer.tenant.clone(), footer.entries[*index].record);
        let dead = self
            .index
            .get_many(&absent.iter().map(tombstone).collect::<Vec<_>>())
            .await?;
        let absent = absent.into_iter().zip(dead).filter(|(_, dead)| dead.is_none());
        Ok(absent.map(|(index, _)| index).collect())
    }

    /// Opens the descriptors of entries that were found in a blob, and makes them known.
    pub(super) async fn index_found(
        &self,
        footer: &Footer,
        name: &BlobName,
        length: u64,
        told: Told,
        entries: &[usize],
    ) -> Result<Outcomes, Error> {
        if footer.vault != self.realm.vault {
            return Err(Error::corrupt("footer"));
        }
        let mut descriptors = Vec::with_capacity(entries.len());
        for index in entries {
            descriptors.push(self.open_entry(footer, *index, &name.object_key).await?.0);
        }
        let fresh = entries.iter().zip(&descriptors);
        let fresh = fresh.map(|(index, descriptor)| Fresh {
            index: *index,
            descriptor,
            actor: leaf::SYSTEM,
        });
        let blob = Blob { footer, name, length };
        Ok(self.index_entries(&blob, told, fresh.collect()).await)
    }

    /// Reads the footer at the end of a blob, and its SHA-256. Not yet authenticated: the caller compares it with what is.
    ///
    /// Read once more if it is malformed: a replay leaves out what it cannot read.
    pub(super) async fn read_footer(&self, object: &ObjectKey) -> Result<(Footer, [u8; 32]), Error> {
        once_more(|| self.read_footer_once(object)).await
    }

    async fn read_footer_once(&self, object: &ObjectKey) -> Result<(Footer, [u8; 32]), Error> {
        let mut length = TAIL_LEN;
        loop {
            let tail = match self.store.get(object, ByteRange::Suffix { length }).await {
                Err(StoreError::NotFound) => return Err(Error::corrupt("missing object")),
                other => other?,
            };
            match format::find_footer(&tail.bytes, tail.object_length)? {
                Tail::Longer(needed) if needed > length => length = needed,
                Tail::Longer(_) => return Err(Error::corrupt("footer")),
                Tail::Whole(encoded) => {
                    let footer = Footer::decode(&encoded)?;
                    let whole = footer.content_length() + (encoded.len() + format::TRAILER_LEN) as u64;
                    if whole != tail.object_length {
                        return Err(Error::corrupt("footer"));
                    }
                    return Ok((footer, format::footer_sha256(&encoded)));
                }
            }
        }
    }
}
