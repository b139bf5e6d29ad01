//! What leaves of erasures mean for an index that catches up.
//!
//! Tombstones come with the sequenced leaves, before any put leaf: what is shredded is never indexed again. Rows of an older
//! copy of the index go the same way; those that lead to them are looked for afterwards, since nothing tells any more what they
//! were found by.

use std::collections::BTreeMap;

use crate::{
    domain::{
        clock::Timestamp,
        erasure::ErasureState,
        ids::{ErasureId, RecordId, TenantId},
    },
    index::{Change, Key, Range, Row, Scan, Scope},
    proto::storage::{
        ErasureCancelled, ErasureEffective, ErasureFinal, ErasureRequested, ErasureRow, ErasureTarget,
        RecordsShredded, ShreddedRecord, TenantShredded, TombstoneRow, UnsweptRow, UnsweptStage,
    },
};

use super::{
    super::{Error, Vault, apply, blinding, replay::Missing, rotation::tenant_states},
    case::{Case, requested},
    purge::wanted_of_tenant,
    request::new_case,
    set::Set,
    shred::{effective, numbers_in, renumber},
};

/// Rows removed in one transaction; each may be found by a number that is to be replaced.
const ROWS: usize = 120;

impl Vault {
    pub(in crate::vault) async fn replay_erasure_requested(
        &self,
        tenant: &TenantId,
        body: &ErasureRequested,
        actor: &str,
        at: Timestamp,
    ) -> Result<Change, Error> {
        let corrupt = || Error::corrupt("leaf");
        let id = erasure_id(&body.erasure_id)?;
        let mut change = new_case(&self.rows, tenant, id, requested(body, actor, at));
        change.expect.clear();
        if body.target() == ErasureTarget::Tenant {
            let (owner, _) = self.tenant_row(tenant).await?.ok_or_else(corrupt)?;
            change.put.push(apply::tenant_cut_off(&self.rows, tenant, owner));
        }
        Ok(change)
    }

    pub(in crate::vault) async fn replay_erasure_cancelled(
        &self,
        tenant: &TenantId,
        body: &ErasureCancelled,
        at: Timestamp,
    ) -> Result<Change, Error> {
        let case = self.logged_case(tenant, &body.erasure_id).await?;
        let row = ErasureRow {
            state: ErasureState::Cancelled.number(),
            cancelled_micros: at.micros(),
            check_micros: 0,
            ..case.row.clone()
        };
        let mut change = case.change(&self.rows, row);
        if case.is_of_tenant() {
            let back = self.tenant_back(&case).await?;
            change.put.extend(back.map(|(row, _)| row));
        } else {
            // An older copy of the index may hold the rows as they were cut off.
            self.hand_over_to_others(&case).await?;
            self.give_back(&case).await?;
        }
        Ok(change)
    }

    /// Returns the records whose rows were there as well: an older copy of the index.
    pub(in crate::vault) async fn replay_records_shredded(
        &self,
        tenant: &TenantId,
        mut body: RecordsShredded,
        at: Timestamp,
        missing: &mut Missing,
    ) -> Result<(Change, Set), Error> {
        let corrupt = || Error::corrupt("leaf");
        let version = body.pages.iter().map(|page| page.key_version).max();
        let (scope, version) = (Scope::Tenant(tenant.clone()), version.unwrap_or(0));
        let mut lacks = false;
        for states in &body.page_states {
            let mut stored = BTreeMap::new();
            let read = tenant_states(self, states).await;
            let Some(read) = missing.unless(&scope, version, read)? else {
                lacks = true;
                continue;
            };
            for page in read {
                stored.insert((page.page_id.clone(), page.generation), page);
            }
            for page in &mut body.pages {
                if let Some(found) = stored.remove(&(page.page_id.clone(), page.generation)) {
                    *page = found;
                }
            }
        }
        if lacks {
            body.pages.retain(|page| !page.sealed_state.is_empty());
        }
        let case = self.logged_case(tenant, &body.erasure_id).await?;
        let row = ErasureRow {
            shredded: case.row.shredded + body.records.len() as u64,
            ..case.row.clone()
        };
        let mut change = case.change(&self.rows, row);
        let rows = apply::records_shredded(&self.rows, tenant, &body, at).ok_or_else(corrupt)?;
        change.put.extend(rows);
        self.replay_requests_shredded(&mut change, tenant, &body).await?;
        change.put.push(super::unswept_row(&self.rows, tenant, &case.id));
        let ids = body
            .records
            .iter()
            .map(|record| RecordId::from_slice(&record.record_id));
        let ids: Set = ids.collect::<Result<_, _>>().map_err(|_| corrupt())?;
        let keys: Vec<Key> = ids.iter().map(|id| Key::Record(tenant.clone(), *id)).collect();
        let found = self.index.get_many(&keys).await?;
        let there: Set = ids
            .into_iter()
            .zip(&found)
            .filter_map(|(id, found)| found.is_some().then_some(id))
            .collect();
        let found = keys.into_iter().zip(&found);
        change
            .delete
            .extend(found.filter(|(_, found)| found.is_some()).map(|(key, _)| key));
        Ok((change, there))
    }

    pub(in crate::vault) async fn replay_tenant_shredded(
        &self,
        tenant: &TenantId,
        body: &TenantShredded,
        at: Timestamp,
    ) -> Result<Change, Error> {
        let corrupt = || Error::corrupt("leaf");
        let id = erasure_id(&body.erasure_id)?;
        let (owner, _) = self.tenant_row(tenant).await?.ok_or_else(corrupt)?;
        let mut change = Change {
            put: vec![
                apply::tenant_shredded(&self.rows, tenant, owner),
                blinding::none(&self.rows, tenant),
                super::unswept_row(&self.rows, tenant, &id),
                wanted_of_tenant(&self.rows, &id, tenant),
            ],
            ..Change::default()
        };
        for version in &body.key_versions {
            let (key, _) = self.key_row(tenant, *version).await?;
            let row = apply::tenant_key_destroyed(&self.rows, tenant, *version, key, at);
            change.put.push(row);
        }
        Ok(change)
    }

    pub(in crate::vault) async fn replay_erasure_effective(
        &self,
        tenant: &TenantId,
        body: &ErasureEffective,
        at: Timestamp,
    ) -> Result<Change, Error> {
        let case = self.logged_case(tenant, &body.erasure_id).await?;
        let row = effective(&case.row, ErasureState::Effective, at);
        let mut change = case.change(&self.rows, row);
        change.put.push(super::unswept_row(&self.rows, tenant, &case.id));
        Ok(change)
    }

    pub(in crate::vault) async fn replay_erasure_final(
        &self,
        tenant: &TenantId,
        body: &ErasureFinal,
        at: Timestamp,
    ) -> Result<Change, Error> {
        let case = self.logged_case(tenant, &body.erasure_id).await?;
        Ok(self.final_change(&case, body, at))
    }

    /// The rows of a case of which a sweep made something final.
    pub(super) fn final_change(&self, case: &Case, body: &ErasureFinal, at: Timestamp) -> Change {
        let mut row = case.row.clone();
        if body.content && row.content_final_micros == 0 {
            row.content_final_micros = at.micros();
            row.operation_id = body.operation_id.clone();
            row.key_versions.clone_from(&body.key_versions);
            row.epochs.clone_from(&body.epochs);
        }
        if body.search_traces && row.traces_final_micros == 0 {
            row.traces_final_micros = at.micros();
        }
        let over = row.content_final_micros != 0 && row.traces_final_micros != 0;
        if over {
            row.state = ErasureState::Final.number();
        }
        let mut change = case.change(&self.rows, row);
        let key = Key::Unswept(case.tenant.clone(), case.id);
        if over {
            change.delete.push(key);
        } else {
            let unswept = UnsweptRow {
                stage: UnsweptStage::Traces.into(),
                ..UnsweptRow::default()
            };
            change.put.push(self.rows.row(key, &unswept));
        }
        change
    }

    /// Removes what leads to records that are gone, from an index that was made before they were.
    pub(in crate::vault) async fn forget_found_by(&self, tenant: &TenantId, gone: &Set) -> Result<(), Error> {
        let found = self.found_by(tenant, gone).await?;
        for keys in found.chunks(ROWS) {
            let numbers = numbers_in(keys);
            let change = Change {
                // As when they were shredded: what they were found by must lead to nothing that stays.
                put: numbers.iter().map(|number| renumber(tenant, number)).collect(),
                delete: keys.to_vec(),
                ..Change::default()
            };
            self.index.commit(change).await?;
        }
        Ok(())
    }

    async fn logged_case(&self, tenant: &TenantId, id: &[u8]) -> Result<Case, Error> {
        let case = self.case(tenant, &erasure_id(id)?).await?;
        case.ok_or_else(|| Error::corrupt("leaf"))
    }

    /// Whether a record is shredded.
    pub(in crate::vault) async fn is_shredded(
        &self,
        tenant: &TenantId,
        id: &RecordId,
    ) -> Result<bool, Error> {
        let key = Key::Tombstone(tenant.clone(), *id);
        Ok(self.index.get(&key).await?.is_some())
    }

    /// Whether a tenant is.
    pub(in crate::vault) async fn is_tenant_shredded(&self, tenant: &TenantId) -> Result<bool, Error> {
        let row = self.tenant_row(tenant).await?;
        Ok(row.is_some_and(|(row, _)| row.state == crate::domain::tenant::TenantState::Shredded as u32))
    }

    /// What stays of a record, if it is shredded.
    pub(in crate::vault) async fn tombstone(
        &self,
        tenant: &TenantId,
        id: &RecordId,
    ) -> Result<Option<ShreddedRecord>, Error> {
        let key = Key::Tombstone(tenant.clone(), *id);
        let Some(value) = self.index.get(&key).await? else {
            return Ok(None);
        };
        let row: TombstoneRow = self.rows.open(&key, &value)?;
        Ok(row.record)
    }

    /// Every tombstone of a tenant, by its record.
    pub(in crate::vault) async fn tombstones(
        &self,
        tenant: &TenantId,
        mut each: impl FnMut(RecordId, TombstoneRow) + Send,
    ) -> Result<(), Error> {
        let mut after = None;
        loop {
            let scan = Scan {
                range: Range::Tombstones(tenant.clone()),
                reverse: false,
                after,
                limit: 1_000,
            };
            let rows = self.index.scan(&scan).await?;
            let full = rows.len() == scan.limit;
            after = rows.last().map(|row| row.key.clone());
            for Row { key, value } in rows {
                let row = self.rows.open(&key, &value)?;
                if let Key::Tombstone(_, id) = key {
                    each(id, row);
                }
            }
            if !full {
                return Ok(());
            }
        }
    }
}

fn erasure_id(bytes: &[u8]) -> Result<ErasureId, Error> {
    ErasureId::from_slice(bytes).map_err(|_| Error::corrupt("leaf"))
}
