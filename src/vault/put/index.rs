//! A blob's entries become known: rows and put leaves, as many entries to a transaction as its limit allows.
//!
//! Each transaction stands for itself: it holds the rows of some entries and a leaf that names exactly those. What happens to
//! the others of the blob, and whether the process lives to try them, changes nothing for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures_util::future::join_all;

use crate::{
    blob::format::Footer,
    domain::{
        limits,
        record::{Descriptor, Record},
    },
    index::{Change, Expect, IndexError, Key, LeafReceipt, Row, Scope, key::Blind},
    keys::tenant::TenantKeys,
    ledger::{
        leaf,
        outbox::{LedgerError, Until},
    },
    proto::storage::{RecordsPut, state_leaf::Body},
};

use super::{
    super::{
        Error, Kind, Vault,
        blinding::{fence, is_fence},
        record::{BlobName, record_row},
        terms::{self, Numbers, Terms},
        turns::let_others_in,
    },
    external_id_taken,
};

/// How often a race for the number of an identifier is run again.
const RACES: usize = 32;

/// A blob whose entries are to become known.
#[derive(Debug)]
pub(in crate::vault) struct Blob<'a> {
    pub(in crate::vault) footer: &'a Footer,
    pub(in crate::vault) name: &'a BlobName,
    /// Bytes of the object.
    pub(in crate::vault) length: u64,
}

/// One of its entries, by its place in the footer.
#[derive(Clone, Copy, Debug)]
pub(in crate::vault) struct Fresh<'a> {
    pub(in crate::vault) index: usize,
    pub(in crate::vault) descriptor: &'a Descriptor,
    /// Alias of who put it.
    pub(in crate::vault) actor: &'a str,
}

/// Who tells the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::vault) enum Told {
    /// The put itself.
    ByPut,
    /// A rebuild that found the blob.
    ByAdoption,
    /// A leaf that is being replayed.
    Already,
}

/// What became of each entry, by its place in the footer.
pub(in crate::vault) type Outcomes = BTreeMap<usize, Result<(), Error>>;

/// Entries whose rows fit into one transaction.
#[derive(Debug, Default)]
struct Part<'a> {
    entries: Vec<Fresh<'a>>,
    change: Change,
    actors: BTreeSet<&'a str>,
}

/// What the rows of some entries are made of, looked up at once.
struct Material {
    offsets: Vec<u64>,
    /// The terms were derived from.
    keys: Arc<TenantKeys>,
    terms: BTreeMap<usize, Terms>,
    numbers: Numbers,
    requests: BTreeMap<usize, (Expect, Row)>,
}

impl Vault {
    /// Makes entries of a blob known, each for itself: one that may not be holds up no other.
    pub(in crate::vault) async fn index_entries(
        &self,
        blob: &Blob<'_>,
        told: Told,
        mut entries: Vec<Fresh<'_>>,
    ) -> Outcomes {
        let mut outcomes = Outcomes::new();
        let mut races = 0;
        while !entries.is_empty() {
            let (parts, later) = match self.parts(blob, told, &entries).await {
                Ok(parts) => parts,
                Err(error) => {
                    fail(&mut outcomes, &entries, error);
                    return outcomes;
                }
            };
            entries = later;
            let tenant = &blob.footer.tenant;
            let commits = parts.into_iter().map(|part| async move {
                let _way_in = self.way_in(tenant, rows_of(&part.change)).await;
                let done = self.commit_long(part.change, Until::Queued).await;
                (part.entries, done)
            });
            for (of_part, done) in join_all(commits).await {
                match done {
                    Ok(_) => outcomes.extend(of_part.iter().map(|entry| (entry.index, Ok(())))),
                    // Another put may have minted a number for the same identifier: whoever is not at fault looks again.
                    Err(LedgerError::Index(error @ IndexError::Expectation(_))) => {
                        races += 1;
                        let blameless = self.without_taken(blob, of_part, &mut outcomes).await;
                        if races > RACES * parts_of(blob.footer) {
                            fail(&mut outcomes, &blameless, error.into());
                        } else {
                            entries.extend(blameless);
                        }
                    }
                    Err(error) => fail(&mut outcomes, &of_part, error.into()),
                }
            }
        }
        outcomes
    }

    /// The entries that no taken name keeps from becoming known; the others get their outcome.
    async fn without_taken<'a>(
        &self,
        blob: &Blob<'_>,
        entries: Vec<Fresh<'a>>,
        outcomes: &mut Outcomes,
    ) -> Vec<Fresh<'a>> {
        let mut blameless = Vec::new();
        for entry in entries {
            match self.refuse_taken(blob.footer, &entry).await {
                Ok(()) => blameless.push(entry),
                Err(error) => {
                    outcomes.insert(entry.index, Err(error));
                }
            }
        }
        blameless
    }

    /// Packs entries into transactions; those that have to wait for the outcome of these come second.
    async fn parts<'a>(
        &self,
        blob: &Blob<'_>,
        told: Told,
        entries: &[Fresh<'a>],
    ) -> Result<(Vec<Part<'a>>, Vec<Fresh<'a>>), Error> {
        let material = self.material(blob, told, entries).await?;
        // Which part makes an identifier's number known.
        let mut placed: BTreeMap<Blind, usize> = BTreeMap::new();
        let mut parts: Vec<Part<'a>> = vec![Part::default()];
        let mut later = Vec::new();
        for (done, entry) in entries.iter().enumerate() {
            let_others_in(done).await;
            let mut at = parts.len() - 1;
            let mut rows = self.entry_rows(blob, told, &material, entry, &placed, at);
            if !parts[at].has_room_for(&rows, entry) && !parts[at].entries.is_empty() {
                at += 1;
                rows = self.entry_rows(blob, told, &material, entry, &placed, at);
                if !Part::default().has_room_for(&rows, entry) {
                    // Too long for any transaction: it goes alone, when the numbers that others mint are known.
                    later.push(*entry);
                    continue;
                }
                parts.push(Part::default());
            }
            let alone = !parts[at].has_room_for(&rows, entry);
            let terms = &material.terms[&entry.index];
            for term in terms.numbered() {
                placed.entry(term.now).or_insert(at);
            }
            parts[at].add(*entry, rows);
            if alone {
                let rest = entries.iter().skip_while(|e| e.index != entry.index).skip(1);
                later.extend(rest);
                break;
            }
        }
        for part in &mut parts {
            let fence = fence(&self.rows, &blob.footer.tenant, &material.keys);
            part.change.expect.push(fence);
        }
        if told != Told::Already {
            for part in &mut parts {
                self.tell(blob, told, part);
            }
        }
        Ok((parts, later))
    }

    async fn material(&self, blob: &Blob<'_>, told: Told, entries: &[Fresh<'_>]) -> Result<Material, Error> {
        let footer = blob.footer;
        let keys = self.keys.tenant(&footer.tenant).await?;
        let mut terms = BTreeMap::new();
        for (done, entry) in entries.iter().enumerate() {
            let_others_in(done).await;
            terms.insert(entry.index, Terms::of(&keys, entry.descriptor));
        }
        let all = terms.values().flat_map(Terms::numbered).collect();
        let numbers =
            terms::numbers(&*self.index, &self.rows, &*self.rng, &footer.tenant, &keys, &all).await?;
        Ok(Material {
            keys,
            offsets: footer.entry_offsets(),
            requests: self.request_rows(footer, told, entries).await?,
            terms,
            numbers,
        })
    }

    /// The rows that remember the entries' requests, where no later use of the same id is known.
    async fn request_rows(
        &self,
        footer: &Footer,
        told: Told,
        entries: &[Fresh<'_>],
    ) -> Result<BTreeMap<usize, (Expect, Row)>, Error> {
        // A request is answered now; an upload may have begun days ago.
        let at = match told {
            Told::ByPut => self.clock.now(),
            Told::ByAdoption | Told::Already => footer.created,
        };
        let rows: Vec<(usize, Row)> = entries
            .iter()
            .filter_map(|fresh| {
                let entry = &footer.entries[fresh.index];
                let tag = entry.request.as_ref()?;
                let row = self.request_row(&footer.tenant, tag, Some(&entry.record), at);
                Some((fresh.index, row))
            })
            .collect();
        let keys: Vec<Key> = rows.iter().map(|(_, row)| row.key.clone()).collect();
        let found = self.index.get_many(&keys).await?;
        let mut remembered = BTreeMap::new();
        for ((index, row), found) in rows.into_iter().zip(found) {
            if let Some(expect) = self.remembers(&row, found, at)? {
                remembered.insert(index, (expect, row));
            }
        }
        Ok(remembered)
    }

    /// The rows of one entry in the part `at`, and what must hold for them.
    fn entry_rows(
        &self,
        blob: &Blob<'_>,
        told: Told,
        material: &Material,
        fresh: &Fresh<'_>,
        placed: &BTreeMap<Blind, usize>,
        at: usize,
    ) -> Change {
        let tenant = &blob.footer.tenant;
        let entry = &blob.footer.entries[fresh.index];
        let terms = &material.terms[&fresh.index];
        let mut change = Change::default();
        for term in terms.numbered() {
            let minted = material.numbers.minted(&term);
            match placed.get(&term.now) {
                None => {
                    let absent = minted.iter().map(|row| Expect::Absent(row.key.clone()));
                    change.expect.extend(absent);
                    change.put.extend_from_slice(minted);
                }
                Some(before) if *before < at => {
                    let known = minted
                        .iter()
                        .map(|row| Expect::Equals(row.key.clone(), row.value.clone()));
                    change.expect.extend(known);
                }
                Some(_) => {}
            }
        }
        let found_by = terms.keys(tenant, &entry.record, &material.numbers);
        change.put.extend(found_by.into_iter().map(|key| Row {
            key,
            value: Vec::new(),
        }));
        if let Some(source) = fresh.descriptor.derived_from
            && told != Told::Already
        {
            // Or it would outlive what it was derived from. A replay knows before what is shredded.
            let dead = Key::Tombstone(tenant.clone(), source);
            change.expect.push(Expect::Absent(dead));
        }
        for row in terms.external_rows(&self.rows, tenant, &material.keys, &entry.record) {
            change.expect.push(Expect::Absent(row.key.clone()));
            change.put.push(row);
        }
        if let Some((expect, row)) = material.requests.get(&fresh.index) {
            change.expect.push(expect.clone());
            change.put.push(row.clone());
        }
        let key = Key::Record(tenant.clone(), entry.record);
        let offset = material.offsets[fresh.index];
        let row = record_row(blob.footer, fresh.index, offset, blob.name, fresh.descriptor);
        change.expect.push(Expect::Absent(key.clone()));
        change.put.push(self.rows.row(key, &row));
        change
    }

    /// Adds the leaves that name a part's records, one for each who put some of them.
    fn tell(&self, blob: &Blob<'_>, told: Told, part: &mut Part<'_>) {
        for actor in &part.actors {
            let of_actor = part.entries.iter().filter(|entry| entry.actor == *actor);
            let record_ids = of_actor.map(|entry| blob.footer.entries[entry.index].record);
            let put = RecordsPut {
                record_ids: record_ids.map(|id| id.as_bytes().to_vec().into()).collect(),
                object_key: blob.name.object_key.clone(),
                object_version: blob.name.object_version.clone(),
                footer_sha256: blob.name.footer_sha256.to_vec().into(),
                object_length: blob.length,
                adopted: told == Told::ByAdoption,
            };
            let body = Body::RecordsPut(put);
            let leaf = leaf::draft(Scope::Fact, actor, self.clock.now(), body);
            part.change.leaves.push(leaf);
        }
    }

    /// Commits a change of any length: rows that fit into no transaction are written before it or deleted after it. Neither
    /// lead anywhere without it.
    pub(in crate::vault) async fn commit_long(
        &self,
        mut change: Change,
        until: Until,
    ) -> Result<Vec<LeafReceipt>, LedgerError> {
        if fits(&change) {
            return self.ledger.commit(change, until).await;
        }
        let after = self.commit_early_rows(&mut change).await?;
        let receipts = self.ledger.commit(change, until).await?;
        for change in after {
            if let Err(error) = self.index.commit(change).await {
                // Whoever finds such a row sees that the record does not match it.
                tracing::warn!(%error, "rows that a correction left behind stay until a rebuild");
                break;
            }
        }
        Ok(receipts)
    }

    /// Commits what must go before a change that is too long, and returns what must follow it.
    async fn commit_early_rows(&self, change: &mut Change) -> Result<Vec<Change>, LedgerError> {
        let most = limits::TRANSACTION_ROWS / 2;
        // Terms of keys that are no longer the tenant's must not be written, not even where they lead nowhere.
        let fence = change.expect.iter().find(|expect| is_fence(expect)).cloned();
        let mut after = Vec::new();
        if change.put.len() + change.delete.len() > most {
            after = late_deletes(change, most);
        }
        while change.put.len() + change.delete.len() > most {
            let mut before = Change::default();
            // Only rows that lead nowhere until the rest is there: the record's own rows stay.
            let (early, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut change.put)
                .into_iter()
                .partition(|row| matches!(row.key, Key::BySubject(..) | Key::Identifier(..)));
            change.put = rest;
            let mut early = early.into_iter();
            before.put = early.by_ref().take(most).collect();
            change.put.extend(early);
            if before.put.is_empty() {
                break;
            }
            let (now, later): (Vec<_>, Vec<_>) = std::mem::take(&mut change.expect).into_iter().partition(
                |e| matches!(e, Expect::Absent(key) if before.put.iter().any(|row| row.key == *key)),
            );
            before.expect = now;
            before.expect.extend(fence.clone());
            change.expect = later;
            self.index.commit(before).await?;
        }
        Ok(after)
    }

    /// Tells an external id or record that is taken from a race that is worth another try.
    async fn refuse_taken(&self, footer: &Footer, fresh: &Fresh<'_>) -> Result<(), Error> {
        let keys = self.keys.tenant(&footer.tenant).await?;
        let entry = &footer.entries[fresh.index];
        if let Some(id) = &fresh.descriptor.external_id {
            let key = Key::External(footer.tenant.clone(), terms::external(keys.index_key(), id));
            if self.index.get(&key).await?.is_some() {
                return Err(external_id_taken());
            }
        }
        if let Some(source) = fresh.descriptor.derived_from
            && self.is_shredded(&footer.tenant, &source).await?
        {
            return Err(Error {
                field: Some("descriptor.derived_from".to_owned()),
                ..Error::new(
                    Kind::NotFound,
                    "NOT_FOUND",
                    "the record that this one is derived from is gone",
                )
            });
        }
        let key = Key::Record(footer.tenant.clone(), entry.record);
        if self.index.get(&key).await?.is_some() {
            return Err(Error::new(
                Kind::AlreadyExists,
                "RECORD_EXISTS",
                "the record is indexed already",
            ));
        }
        Ok(())
    }
}

impl<'a> Part<'a> {
    fn has_room_for(&self, rows: &Change, entry: &Fresh<'_>) -> bool {
        let leaves = self.actors.len() + usize::from(!self.actors.contains(entry.actor));
        self.change.put.len() + rows.put.len() + leaves <= limits::TRANSACTION_ROWS
            // And the fence.
            && self.change.expect.len() + rows.expect.len() < limits::TRANSACTION_ROWS
    }

    fn add(&mut self, entry: Fresh<'a>, rows: Change) {
        self.entries.push(entry);
        self.actors.insert(entry.actor);
        self.change.put.extend(rows.put);
        self.change.expect.extend(rows.expect);
    }
}

/// A record that was put just now.
pub(in crate::vault) fn fresh_record(footer: &Footer, index: usize, descriptor: Descriptor) -> Record {
    let entry = &footer.entries[index];
    Record {
        tenant: footer.tenant.clone(),
        id: entry.record,
        kind: entry.kind,
        state: descriptor.resting_state(),
        descriptor,
        version: 1,
        created: footer.created,
        updated: footer.created,
        size: entry.plaintext_length,
        region: footer.region.clone(),
    }
}

/// One failure for several entries: each gets the answer, the first its cause as well.
fn fail(outcomes: &mut Outcomes, entries: &[Fresh<'_>], error: Error) {
    outcomes.extend(entries.iter().map(|entry| (entry.index, Err(error.again()))));
    if let Some(first) = entries.first() {
        outcomes.insert(first.index, Err(error));
    }
}

/// What became of one entry.
pub(in crate::vault) fn outcome_of(outcomes: &mut Outcomes, index: usize) -> Result<(), Error> {
    outcomes.remove(&index).unwrap_or_else(|| {
        Err(Error::new(
            Kind::Internal,
            "INDEX",
            "a record was not indexed; report it",
        ))
    })
}

fn rows_of(change: &Change) -> usize {
    change.put.len() + change.delete.len() + change.leaves.len()
}

fn fits(change: &Change) -> bool {
    rows_of(change) <= limits::TRANSACTION_ROWS && change.expect.len() <= limits::TRANSACTION_ROWS
}

/// At most so many transactions make a blob known.
fn parts_of(footer: &Footer) -> usize {
    footer.entries.len().max(1)
}

/// Takes the deletions of search rows out of a change, for after it: each holds only while the records are as the change left
/// them, for a later correction may need the row again.
fn late_deletes(change: &mut Change, most: usize) -> Vec<Change> {
    let (late, now): (Vec<_>, Vec<_>) = std::mem::take(&mut change.delete)
        .into_iter()
        .partition(|key| matches!(key, Key::BySubject(..)));
    change.delete = now;
    let records = change.put.iter().filter(|row| matches!(row.key, Key::Record(..)));
    let expect: Vec<_> = records
        .map(|row| Expect::Equals(row.key.clone(), row.value.clone()))
        .collect();
    late.chunks(most)
        .map(|keys| Change {
            expect: expect.clone(),
            delete: keys.to_vec(),
            ..Change::default()
        })
        .collect()
}
