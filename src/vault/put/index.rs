//! A blob becomes known: rows and put leaf.

use crate::{
    blob::format::Footer,
    domain::{
        clock::Timestamp,
        limits,
        record::{Descriptor, Record},
    },
    index::{Change, Expect, IndexError, Key, LeafReceipt, Row, Scope},
    ledger::{
        leaf,
        outbox::{LedgerError, Until},
    },
    proto::storage::{ExternalRow, RecordsPut, state_leaf::Body},
};

use super::{
    super::{
        Error, Kind, Vault,
        record::{BlobName, record_row},
        terms::{self, Terms},
    },
    external_id_taken,
};

impl Vault {
    /// Makes the records of a blob known: rows and put leaf in one transaction (rows beyond its limit go before it, and mean
    /// nothing until it).
    pub(in crate::vault) async fn index_put(
        &self,
        actor: &str,
        footer: &Footer,
        blob: &BlobName,
        object_length: u64,
        descriptors: &[Descriptor],
        adopted: bool,
    ) -> Result<(), Error> {
        let put = RecordsPut {
            record_ids: footer
                .entries
                .iter()
                .map(|e| e.record.as_bytes().to_vec().into())
                .collect(),
            object_key: blob.object_key.clone(),
            object_version: blob.object_version.clone(),
            footer_sha256: blob.footer_sha256.to_vec().into(),
            object_length,
            adopted,
        };
        let leaf = leaf::draft(Scope::Fact, actor, self.clock.now(), Body::RecordsPut(put));
        // Another upload may mint a number for the same identifier meanwhile: look again.
        for _ in 0..16 {
            let mut change = self.put_rows(footer, blob, descriptors).await?;
            change.leaves.push(leaf.clone());
            match self.commit_long(change, Until::Queued).await {
                Err(LedgerError::Index(IndexError::Expectation(_))) => {
                    self.refuse_taken(footer, descriptors).await?;
                }
                other => return Ok(other.map(|_| ())?),
            }
        }
        Err(IndexError::Expectation(0).into())
    }

    /// The rows of a blob's records, and what must hold for them.
    pub(in crate::vault) async fn put_rows(
        &self,
        footer: &Footer,
        blob: &BlobName,
        descriptors: &[Descriptor],
    ) -> Result<Change, Error> {
        let keys = self.keys.tenant(&footer.tenant).await?;
        let tenant = &footer.tenant;
        let mut change = Change::default();
        for (index, (entry, descriptor)) in footer.entries.iter().zip(descriptors).enumerate() {
            let terms = Terms::of(keys.index_key(), descriptor);
            let numbers =
                terms::numbers(&*self.index, &self.rows, &*self.rng, tenant, &terms.numbered()).await?;
            change.expect.extend(numbers.expectations());
            let found_by = terms.keys(tenant, &entry.record, &numbers);
            change.put.extend(numbers.minted);
            change.put.extend(found_by.into_iter().map(|key| Row {
                key,
                value: Vec::new(),
            }));
            if let Some(external) = terms.external {
                let key = Key::External(tenant.clone(), external);
                change.expect.push(Expect::Absent(key.clone()));
                let row = ExternalRow {
                    record_id: entry.record.as_bytes().to_vec().into(),
                };
                change.put.push(self.rows.row(key, &row));
            }
            if let Some(request) = &entry.request {
                self.remember_request(&mut change, tenant, request, Some(&entry.record), footer.created)
                    .await?;
            }
            let key = Key::Record(tenant.clone(), entry.record);
            change.expect.push(Expect::Absent(key.clone()));
            change
                .put
                .push(self.rows.row(key, &record_row(footer, index, blob, descriptor)));
        }
        Ok(change)
    }

    /// Commits a change of any length: rows that fit into no transaction are written before it or deleted after it. Neither
    /// lead anywhere without it.
    pub(in crate::vault) async fn commit_long(
        &self,
        mut change: Change,
        until: Until,
    ) -> Result<Vec<LeafReceipt>, LedgerError> {
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
            change.expect = later;
            self.index.commit(before).await?;
        }
        Ok(after)
    }

    /// Tells an external id or record that is taken from a race that is worth another try.
    async fn refuse_taken(&self, footer: &Footer, descriptors: &[Descriptor]) -> Result<(), Error> {
        let keys = self.keys.tenant(&footer.tenant).await?;
        for (entry, descriptor) in footer.entries.iter().zip(descriptors) {
            if let Some(id) = &descriptor.external_id {
                let key = Key::External(footer.tenant.clone(), terms::external(keys.index_key(), id));
                if self.index.get(&key).await?.is_some() {
                    return Err(external_id_taken());
                }
            }
            let key = Key::Record(footer.tenant.clone(), entry.record);
            if self.index.get(&key).await?.is_some() {
                return Err(Error::new(
                    Kind::AlreadyExists,
                    "RECORD_EXISTS",
                    "the record is indexed already",
                ));
            }
        }
        Ok(())
    }

    pub(in crate::vault) fn parse_fresh(
        &self,
        footer: &Footer,
        blob: &BlobName,
        descriptor: Descriptor,
    ) -> Record {
        let row = record_row(footer, 0, blob, &descriptor);
        let entry = &footer.entries[0];
        Record {
            tenant: footer.tenant.clone(),
            id: entry.record,
            kind: entry.kind,
            state: descriptor.resting_state(),
            descriptor,
            version: 1,
            created: footer.created,
            updated: Timestamp(row.updated_micros),
            size: entry.plaintext_length,
            region: footer.region.clone(),
        }
    }
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
