//! A tenant's searchable identifiers are blinded under a new index key, so that the old one may die.
//!
//! ```text
//! stage    the new key beside the old one, in the keyring           whoever puts writes under both from here on
//! scan     what was there before, record by record
//! switch   a rotation whose keyring holds the new key alone         lookups use it from here on
//! forget   what the old key led to
//! ```
//!
//! The old key is sealed under a version of the tenant's key that the sweep destroys, and never under a later one. Numbers that
//! a shredded record was found by ([`Key::Renumber`]) are left behind with it: under the new key their identifiers have others.
//!
//! Every run stages a key of its own: a number that is to be replaced at that moment is replaced in everything that is written
//! under the key, by whomever. What an earlier run that was cut short has written is found by its generation, and deleted.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    domain::{
        clock::Timestamp,
        ids::{RecordId, TenantId},
        limits,
    },
    index::{
        Change, Expect, IndexError, Key, Range, Row, Scan, Scope,
        key::{Blind, Number},
    },
    keys::tenant::{NextIndexKey, TenantKeys},
    ledger::{
        leaf,
        outbox::{LedgerError, Until},
    },
    proto::storage::{ExternalRow, IdentifierRow, IndexKeyStaged, state_leaf::Body},
};

use super::{
    Error, KeyOperation, Kind, Vault, blinding,
    pace::Pace,
    record::Located,
    terms::{self, Numbers, Terms},
    turns::{Turn, let_others_in},
};

/// Records read at once.
const BATCH: usize = 16;
/// Rows of one deletion.
const DELETIONS: usize = limits::BACKGROUND_ROWS;
/// Rows looked at at once.
const LOOKED_AT: usize = 250;
/// Numbers to be replaced that are kept in memory at once, 16 bytes each and some for the tree.
const NUMBERS: usize = 100_000;
/// How often a batch that others change meanwhile is done again.
const RACES: usize = 64;
/// Records between two lines of progress.
const TELL_EVERY: u64 = 65_536;

/// A tenant whose identifiers are all blinded under the index key that is staged: a rotation may make it the current one.
#[derive(Debug)]
#[must_use = "only a rotation makes the index key the current one"]
pub struct Reblinded {
    generation: u64,
}

impl Reblinded {
    /// What the rotation has to seal.
    pub(super) fn takes_over(&self) -> NextIndexKey {
        NextIndexKey::Staged(self.generation)
    }
}

/// Which rows a record lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lacking {
    /// Those of the next index key, of this generation.
    Next(u64),
    /// All that it is found by.
    All,
}

/// What a pass over records lacks as yet, looked up at once.
struct Batch {
    keys: std::sync::Arc<TenantKeys>,
    found: Vec<(Located, Terms)>,
    numbers: Numbers,
    externals: BTreeMap<Key, RecordId>,
}

impl Vault {
    /// Stages a new index key and blinds everything that the tenant's records are found by under it as well. Everything goes on
    /// meanwhile. What was shredded before this is called cannot be found in old copies once the old index key is gone.
    ///
    /// # Errors
    /// What index and bucket answered. Nothing is lost: another call begins anew.
    pub async fn stage_and_reblind(
        &self,
        operation: &KeyOperation,
        tenant: &TenantId,
    ) -> Result<Reblinded, Error> {
        let generation = self.stage_index_key(&operation.actor, tenant).await?;
        if generation > self.keys.tenant(tenant).await?.blinding().0 + 1 {
            // Runs that came to nothing have left rows behind.
            self.forget_old_blinds(tenant).await?;
        }
        let told =
            |records| tracing::info!(operation = %operation.id, records, "identifiers are blinded again");
        self.reblind(tenant, generation, told).await
    }

    /// Puts a new index key beside the current one; returns its generation when that is in the bucket. One that was staged
    /// before is given up: what was written under it may have numbers that are to be replaced now.
    pub(super) async fn stage_index_key(&self, actor: &str, tenant: &TenantId) -> Result<u64, Error> {
        let _gate = self.keys.tenant_gate(tenant).await;
        let staged = self.keys.stage_index_key(tenant).await?;
        let body = IndexKeyStaged {
            sealed_keyring: staged.sealed.into(),
            generation: staged.next_generation,
        };
        for _ in 0..RACES {
            let (before, value) = self.tenant_row(tenant).await?.ok_or_else(Error::not_found)?;
            if before.sealed_keyring[..] != staged.made_from[..] {
                break;
            }
            let now = self.clock.now();
            let leaf = Body::IndexKeyStaged(body.clone());
            let change = Change {
                expect: vec![Expect::Equals(Key::Tenant(tenant.clone()), value)],
                put: blinding::staged(&self.rows, tenant, before, staged.generation, &body),
                leaves: vec![leaf::draft(Scope::Tenant(tenant.clone()), actor, now, leaf)],
                ..Change::default()
            };
            match self.ledger.commit(change, Until::Shipped).await {
                // The tenant's settings changed meanwhile.
                Err(LedgerError::Index(IndexError::Expectation(_))) => {}
                done => {
                    done?;
                    return Ok(staged.next_generation);
                }
            }
        }
        Err(IndexError::Expectation(0).into())
    }

    /// Writes what the staged index key of this generation leads to, for all records that are there; tells now and then how many
    /// are done. Those that come or change meanwhile bring theirs along. Idempotent.
    pub(super) async fn reblind(
        &self,
        tenant: &TenantId,
        generation: u64,
        progress: impl Fn(u64) + Send + Sync,
    ) -> Result<Reblinded, Error> {
        self.each_batch(tenant, Lacking::Next(generation), Some(Pace::begin()), progress)
            .await?;
        Ok(Reblinded { generation })
    }

    async fn each_batch(
        &self,
        tenant: &TenantId,
        lacking: Lacking,
        mut pace: Option<Pace>,
        progress: impl Fn(u64) + Send + Sync,
    ) -> Result<(), Error> {
        let mut after = None;
        let mut done: u64 = 0;
        loop {
            let scan = Scan {
                range: Range::Records(tenant.clone()),
                reverse: false,
                after,
                limit: BATCH,
            };
            let keys: Vec<Key> = self.index.scan(&scan).await?.into_iter().map(|r| r.key).collect();
            let Some(last) = keys.last().cloned() else {
                progress(done);
                return Ok(());
            };
            self.blind_records(tenant, lacking, &keys).await?;
            let before = done / TELL_EVERY;
            done += keys.len() as u64;
            if done / TELL_EVERY > before {
                progress(done);
            }
            after = Some(last);
            match &mut pace {
                Some(pace) => pace.rest().await,
                None => tokio::task::yield_now().await,
            }
        }
    }

    /// Writes what some records lack.
    async fn blind_records(&self, tenant: &TenantId, lacking: Lacking, keys: &[Key]) -> Result<(), Error> {
        for _ in 0..RACES {
            let turn = self.patient_turn(tenant).await?;
            let batch = self.look_up_batch(tenant, lacking, keys).await?;
            let changes = self.lacking_rows(tenant, lacking, &batch).await;
            drop(turn);
            let mut raced = false;
            for change in changes {
                let _way_in = self.way_in(tenant, change.put.len()).await;
                match self.commit_long(change, Until::Queued).await {
                    // A record was corrected or shredded, or somebody else has minted the number.
                    Err(LedgerError::Index(IndexError::Expectation(_))) => {
                        raced = true;
                        break;
                    }
                    done => {
                        done?;
                    }
                }
            }
            if !raced {
                return Ok(());
            }
        }
        Err(IndexError::Expectation(0).into())
    }

    /// Waits for the tenant's turn, however long that takes.
    async fn patient_turn(&self, tenant: &TenantId) -> Result<Turn, Error> {
        loop {
            match self.turn(tenant).await {
                Err(error) if error.kind == Kind::Exhausted => {}
                turn => return turn,
            }
        }
    }

    async fn look_up_batch(
        &self,
        tenant: &TenantId,
        lacking: Lacking,
        records: &[Key],
    ) -> Result<Batch, Error> {
        let keys = self.keys.tenant(tenant).await?;
        if let Lacking::Next(generation) = lacking
            && keys.blinding().1 != generation
        {
            return Err(crate::keys::KeyError::Superseded.into());
        }
        let mut found = Vec::with_capacity(records.len());
        for (done, key) in records.iter().enumerate() {
            let_others_in(done).await;
            let Key::Record(_, id) = key else { continue };
            if let Some((located, descriptor)) = self.to_be_blinded(tenant, id).await? {
                found.push((located, Terms::of(&keys, &descriptor)));
            }
        }
        let all = found.iter().flat_map(|(_, terms)| terms.numbered()).collect();
        let numbers = terms::numbers(&*self.index, &self.rows, &*self.rng, tenant, &keys, &all).await?;
        let wanted: Vec<Key> = found
            .iter()
            .flat_map(|(_, terms)| terms.external_keys(tenant))
            .collect();
        let values = self.index.get_many(&wanted).await?;
        let mut externals = BTreeMap::new();
        for (key, value) in wanted.into_iter().zip(values) {
            if let Some(value) = value {
                let row: ExternalRow = self.rows.open(&key, &value)?;
                let of = RecordId::from_slice(&row.record_id).map_err(|_| Error::corrupt("index row"))?;
                externals.insert(key, of);
            }
        }
        Ok(Batch {
            keys,
            found,
            numbers,
            externals,
        })
    }

    /// A record and its descriptor, if there is one and it opens: what does not is left out, and reported by `verify`.
    async fn to_be_blinded(
        &self,
        tenant: &TenantId,
        id: &RecordId,
    ) -> Result<Option<(Located, crate::domain::record::Descriptor)>, Error> {
        let mut again = true;
        loop {
            let key = Key::Record(tenant.clone(), *id);
            let Some(value) = self.index.get(&key).await? else {
                return Ok(None);
            };
            let opened = match self.parse_row(tenant, id, value) {
                Ok(located) => self
                    .open_record(&located)
                    .await
                    .map(|(record, _)| (located, record)),
                Err(error) => Err(error),
            };
            match opened {
                Ok((located, record)) => return Ok(Some((located, record.descriptor))),
                // Row and page are no snapshot.
                Err(error) if is_its_own(&error) && again => again = false,
                Err(error) if is_its_own(&error) => {
                    tracing::error!(%tenant, record = %id, reason = error.reason, %error, "a record cannot be opened: nobody will find it by what it is about");
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The rows that records lack, in transactions.
    async fn lacking_rows(&self, tenant: &TenantId, lacking: Lacking, batch: &Batch) -> Vec<Change> {
        let fence = blinding::fence(&self.rows, tenant, &batch.keys);
        let mut packed: Vec<Change> = Vec::new();
        let mut known: BTreeSet<Blind> = BTreeSet::new();
        for (done, (located, terms)) in batch.found.iter().enumerate() {
            let_others_in(done).await;
            let mut change = Change::default();
            for term in terms.numbered() {
                if known.insert(term.now) {
                    change.put.extend_from_slice(batch.numbers.minted(&term));
                }
            }
            for row in terms.external_rows(&self.rows, tenant, &batch.keys, &located.id) {
                match batch.externals.get(&row.key) {
                    None => change.put.push(row),
                    Some(of) if *of == located.id => {}
                    Some(_) => {
                        tracing::error!(%tenant, record = %located.id, "its external id leads to another record");
                    }
                }
            }
            let absent = change.put.iter().map(|row| Expect::Absent(row.key.clone()));
            change.expect = absent.collect();
            let found_by = match lacking {
                Lacking::Next(_) => terms.renumbered_keys(tenant, &located.id, &batch.numbers),
                Lacking::All => terms.keys(tenant, &located.id, &batch.numbers),
            };
            change.put.extend(found_by.into_iter().map(|key| Row {
                key,
                value: Vec::new(),
            }));
            if change.put.is_empty() {
                continue;
            }
            let key = Key::Record(tenant.clone(), located.id);
            change.expect.push(Expect::Equals(key, located.value.clone()));
            match packed.last_mut() {
                Some(last) if fits(last, &change) => {
                    last.put.extend(change.put);
                    last.expect.extend(change.expect);
                }
                _ => {
                    change.expect.push(fence.clone());
                    packed.push(change);
                }
            }
        }
        packed
    }

    /// Deletes what index keys that are gone led to: their identifiers and external ids, and numbers that no identifier has any
    /// more with all that is found by them. Idempotent; nothing that is looked up is touched.
    ///
    /// # Errors
    /// What the index answered; what was deleted stays deleted.
    pub async fn forget_old_blinds(&self, tenant: &TenantId) -> Result<(), Error> {
        let mut from = None;
        loop {
            let (mut replaced, last) = self.numbers_to_replace(tenant, from).await?;
            let keys = self.keys.tenant(tenant).await?;
            let mut doomed = Deletion::under(self, tenant, &keys);
            let mut after = None;
            loop {
                let rows = self.some_rows(Range::Identifiers(tenant.clone()), after).await?;
                let Some(end) = rows.last().map(|row| row.key.clone()) else {
                    break;
                };
                for row in rows {
                    let of: IdentifierRow = self.rows.open(&row.key, &row.value)?;
                    if is_old(&keys, of.generation) {
                        doomed.add(row.key).await?;
                    } else if let Ok(number) = Number::try_from(&of.number[..]) {
                        replaced.remove(&number);
                    }
                }
                after = Some(end);
            }
            for number in replaced {
                self.forget_number(&mut doomed, tenant, number).await?;
            }
            doomed.finish().await?;
            match last {
                Some(last) => from = Some(last),
                None => break,
            }
        }
        let keys = self.keys.tenant(tenant).await?;
        let mut doomed = Deletion::under(self, tenant, &keys);
        let mut after = None;
        loop {
            let rows = self.some_rows(Range::Externals(tenant.clone()), after).await?;
            let Some(end) = rows.last().map(|row| row.key.clone()) else {
                return doomed.finish().await;
            };
            for row in rows {
                let of: ExternalRow = self.rows.open(&row.key, &row.value)?;
                if is_old(&keys, of.generation) {
                    doomed.add(row.key).await?;
                }
            }
            after = Some(end);
        }
    }

    /// Numbers that are to be replaced, after `from`; and the last of them, if there are more.
    async fn numbers_to_replace(
        &self,
        tenant: &TenantId,
        mut from: Option<Key>,
    ) -> Result<(BTreeSet<Number>, Option<Key>), Error> {
        let mut numbers = BTreeSet::new();
        loop {
            let rows = self.some_rows(Range::Renumbers(tenant.clone()), from).await?;
            let Some(last) = rows.last().map(|row| row.key.clone()) else {
                return Ok((numbers, None));
            };
            numbers.extend(rows.iter().filter_map(|row| match row.key {
                Key::Renumber(_, number) => Some(number),
                _ => None,
            }));
            if numbers.len() >= NUMBERS {
                return Ok((numbers, Some(last)));
            }
            from = Some(last);
        }
    }

    /// Deletes what is found by a number that nothing has any more.
    async fn forget_number(
        &self,
        doomed: &mut Deletion<'_>,
        tenant: &TenantId,
        number: Number,
    ) -> Result<(), Error> {
        let (first, last) = (Timestamp(i64::MIN), Timestamp(i64::MAX));
        for range in [
            Range::ByConversation(tenant.clone(), number, first, last),
            Range::BySubject(tenant.clone(), number, first, last),
        ] {
            self.forget_rows(doomed, range).await?;
        }
        doomed.add(Key::Renumber(tenant.clone(), number)).await
    }

    async fn forget_rows(&self, doomed: &mut Deletion<'_>, range: Range) -> Result<(), Error> {
        let mut after = None;
        loop {
            let rows = self.some_rows(range.clone(), after).await?;
            let Some(end) = rows.last().map(|row| row.key.clone()) else {
                return Ok(());
            };
            for row in rows {
                doomed.add(row.key).await?;
            }
            after = Some(end);
        }
    }

    async fn some_rows(&self, range: Range, after: Option<Key>) -> Result<Vec<Row>, Error> {
        let scan = Scan {
            range,
            reverse: false,
            after,
            limit: LOOKED_AT,
        };
        tokio::task::yield_now().await;
        Ok(self.index.scan(&scan).await?)
    }

    /// Makes anew what records are found by, of every tenant whose rows are of an index key that the logs say is gone: an old
    /// copy of the index has been restored. For a replay that has brought the keys into their newest state; nobody else writes.
    pub(super) async fn blind_anew(&self) -> Result<(), Error> {
        for row in self.all_rows(Range::Tenants).await? {
            let Key::Tenant(tenant) = row.key else { continue };
            let blinding = self.blinding_row(&tenant).await?;
            if blinding.is_none_or(|row| row.generation == blinding::NONE) {
                continue;
            }
            let keys = match self.keys.tenant(&tenant).await {
                Ok(keys) => keys,
                // It was shredded.
                Err(crate::keys::KeyError::Punctured) => continue,
                Err(error) => return Err(error.into()),
            };
            if !self.has_old_blinds(&tenant, &keys).await? {
                continue;
            }
            tracing::warn!(%tenant, "identifiers are of an index key that is gone, they are blinded again before serving");
            // What the old numbers lead to goes first and the old identifiers last: were this cut short, it would begin again.
            let mut doomed = Deletion::under(self, &tenant, &keys);
            for range in [
                Range::Conversations(tenant.clone()),
                Range::Subjects(tenant.clone()),
            ] {
                self.forget_rows(&mut doomed, range).await?;
            }
            doomed.finish().await?;
            self.each_batch(&tenant, Lacking::All, None, |_| {}).await?;
            self.forget_old_blinds(&tenant).await?;
        }
        Ok(())
    }

    async fn has_old_blinds(&self, tenant: &TenantId, keys: &TenantKeys) -> Result<bool, Error> {
        let mut after = None;
        loop {
            let rows = self.some_rows(Range::Identifiers(tenant.clone()), after).await?;
            let Some(end) = rows.last().map(|row| row.key.clone()) else {
                return Ok(false);
            };
            for row in rows {
                let of: IdentifierRow = self.rows.open(&row.key, &row.value)?;
                // A later one was staged and given up.
                if of.generation.max(1) < keys.blinding().0 {
                    return Ok(true);
                }
            }
            after = Some(end);
        }
    }
}

/// Whether a row was blinded under neither of the tenant's index keys. Only keys that are gone are older.
fn is_old(keys: &TenantKeys, generation: u64) -> bool {
    let (now, next) = keys.blinding();
    let of = generation.max(1);
    of != now && of != next
}

/// Whether it lies in the record that it does not open.
fn is_its_own(error: &Error) -> bool {
    matches!(error.kind, Kind::Corrupt | Kind::NotFound | Kind::Shredded)
}

fn fits(change: &Change, more: &Change) -> bool {
    change.put.len() + more.put.len() <= limits::BACKGROUND_ROWS
        && change.expect.len() + more.expect.len() <= limits::TRANSACTION_ROWS
}

/// Keys to delete, in transactions. All is void if the tenant's index keys change meanwhile.
struct Deletion<'a> {
    vault: &'a Vault,
    tenant: &'a TenantId,
    fence: Expect,
    keys: Vec<Key>,
    pace: Pace,
}

impl<'a> Deletion<'a> {
    fn under(vault: &'a Vault, tenant: &'a TenantId, keys: &TenantKeys) -> Self {
        Self {
            vault,
            tenant,
            fence: blinding::fence(&vault.rows, tenant, keys),
            keys: Vec::new(),
            pace: Pace::begin(),
        }
    }

    async fn add(&mut self, key: Key) -> Result<(), Error> {
        self.keys.push(key);
        if self.keys.len() >= DELETIONS {
            self.delete().await?;
        }
        Ok(())
    }

    async fn delete(&mut self) -> Result<(), Error> {
        let delete = std::mem::take(&mut self.keys);
        let _way_in = self.vault.way_in(self.tenant, delete.len()).await;
        let change = Change {
            expect: vec![self.fence.clone()],
            delete,
            ..Change::default()
        };
        self.vault.index.commit(change).await?;
        self.pace.rest().await;
        Ok(())
    }

    async fn finish(mut self) -> Result<(), Error> {
        if self.keys.is_empty() {
            return Ok(());
        }
        self.delete().await
    }
}
