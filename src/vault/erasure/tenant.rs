//! A tenant is shredded: one row cuts it, whatever its size, and every version of its key is punctured in the region's pages.

use std::collections::{BTreeMap, HashMap};

use crate::{
    domain::{
        clock::Timestamp,
        erasure::{Event, Obstacle},
        ids::{PageId, TenantId},
    },
    index::{Change, Expect, IndexError, Key, Range, Scope},
    ledger::{
        leaf,
        outbox::{LedgerError, Until},
    },
    proto::storage::{
        ErasureEffective, ErasureRow, PageRow, RecordRow, RetentionClass, TenantKeyRow, TenantShredded,
        state_leaf::Body,
    },
};

use super::{
    super::{Error, Vault, apply, blinding},
    case::Case,
    purge::wanted_of_tenant,
    shred::effective,
};

/// How often something may change while a tenant is about to be shredded.
const RACES: usize = 32;
const DAY_MICROS: i64 = 24 * 3_600 * 1_000_000;
/// Versions of one transaction: each may lie in a page of its own.
const VERSIONS: usize = 64;

impl Vault {
    /// Shreds a tenant. The caller holds its gate of erasures.
    pub(super) async fn shred_tenant(&self, case: Case) -> Result<(), Error> {
        let tenant = &case.tenant;
        let _gate = self.keys.tenant_gate(tenant).await;
        let _region_gate = self.keys.region_gate().await;
        for _ in 0..RACES {
            match self.try_to_shred(&case).await {
                Err(LedgerError::Index(IndexError::Expectation(_))) => {}
                done => {
                    done?;
                    self.keys.forget_region_pages();
                    self.keys.forget_tenant(tenant);
                    self.streams.cut_all(tenant);
                    self.forget_uploads_of(tenant, None).await;
                    self.erasing.purge.notify_one();
                    return Ok(());
                }
            }
        }
        Err(IndexError::Expectation(0).into())
    }

    /// Until when the law wants anything of a tenant kept, as the classes of its records have it. A page is filled by records of
    /// one class, so that no descriptor has to be opened.
    pub(super) async fn tenant_keep_until(&self, tenant: &TenantId) -> Result<Option<Timestamp>, Error> {
        let mut days_of = BTreeMap::new();
        for row in self.all_rows(Range::RetentionClasses(tenant.clone())).await? {
            let class: RetentionClass = self.rows.open(&row.key, &row.value)?;
            if class.minimum_days > 0 {
                days_of.insert(class.id, i64::from(class.minimum_days));
            }
        }
        if days_of.is_empty() {
            return Ok(None);
        }
        let mut pages = HashMap::new();
        self.each_row(Range::Pages(tenant.clone()), |row| {
            let page: PageRow = self.rows.open(&row.key, &row.value)?;
            if let (Key::Page(_, id), Some(days)) = (row.key, days_of.get(&page.retention_class)) {
                pages.insert(id.as_bytes().to_vec(), *days);
            }
            Ok(())
        })
        .await?;
        let mut last = None;
        self.each_row(Range::Records(tenant.clone()), |row| {
            let record: RecordRow = self.rows.open(&row.key, &row.value)?;
            let days = pages.get(&record.page_id[..]);
            let until = days.map(|days| Timestamp(record.created_micros).plus_micros(days * DAY_MICROS));
            last = last.max(until);
            Ok(())
        })
        .await?;
        Ok(last)
    }

    /// A tenant that is to go, but not now.
    pub(super) async fn tenant_waits(
        &self,
        case: &Case,
        obstacle: Obstacle,
        until: Option<Timestamp>,
    ) -> Result<(), Error> {
        let row = ErasureRow {
            waiting: 1,
            obstacle: obstacle.name().to_owned(),
            check_micros: until.unwrap_or_else(|| self.clock.now()).micros(),
            ..case.row.clone()
        };
        self.index.commit(case.change(&self.rows, row)).await?;
        Ok(())
    }

    async fn try_to_shred(&self, case: &Case) -> Result<(), LedgerError> {
        let change = self.shredding_tenant(case).await;
        let change = change.map_err(|error| {
            tracing::warn!(tenant = %case.tenant, %error, "a tenant is not shredded");
            LedgerError::Index(IndexError::Unavailable(Box::new(error)))
        })?;
        self.ledger.commit(change, Until::Shipped).await.map(|_| ())
    }

    async fn shredding_tenant(&self, case: &Case) -> Result<Change, Error> {
        let corrupt = || Error::corrupt("key material");
        let (tenant, now) = (&case.tenant, self.clock.now());
        let (owner, owner_value) = self.tenant_row(tenant).await?.ok_or_else(Error::not_found)?;
        let case = self.case(tenant, &case.id).await?.ok_or_else(Error::not_found)?;
        let next = case.state()?.after(Event::Shredded).ok_or_else(corrupt)?;
        let mut change = case.change(&self.rows, effective(&case.row, next, now));
        change
            .expect
            .push(Expect::Equals(Key::Tenant(tenant.clone()), owner_value));
        let mut body = TenantShredded {
            erasure_id: case.id.as_bytes().to_vec().into(),
            ..TenantShredded::default()
        };
        self.puncture_versions(tenant, &mut change, &mut body).await?;
        change.put.extend([
            apply::tenant_shredded(&self.rows, tenant, owner),
            // Whoever writes rows of the tenant looks again, and finds that its keys are gone.
            blinding::none(&self.rows, tenant),
            super::unswept_row(&self.rows, tenant, &case.id),
            wanted_of_tenant(&self.rows, &case.id, tenant),
        ]);
        let effective = ErasureEffective {
            erasure_id: case.id.as_bytes().to_vec().into(),
            records: 0,
        };
        for body in [Body::TenantShredded(body), Body::ErasureEffective(effective)] {
            let scope = Scope::Tenant(tenant.clone());
            change.leaves.push(leaf::draft(scope, &case.row.actor, now, body));
        }
        Ok(change)
    }

    /// Takes the slots of all versions that are left out of their region pages.
    async fn puncture_versions(
        &self,
        tenant: &TenantId,
        change: &mut Change,
        body: &mut TenantShredded,
    ) -> Result<(), Error> {
        let corrupt = || Error::corrupt("key material");
        let now = self.clock.now();
        let mut slots: BTreeMap<PageId, Vec<u16>> = BTreeMap::new();
        let mut versions = self.all_rows(Range::TenantKeys(tenant.clone())).await?;
        // The newest ones: they open what is sealed now. Older ones die with the next sweep.
        versions.reverse();
        for row in versions.into_iter().take(VERSIONS) {
            let Key::TenantKey(_, version) = row.key else {
                continue;
            };
            let key: TenantKeyRow = self.rows.open(&row.key, &row.value)?;
            if key.state == apply::DESTROYED {
                continue;
            }
            let wrapped = key.key.as_ref().ok_or_else(corrupt)?;
            let stored = apply::stored_tenant_key(wrapped).ok_or_else(corrupt)?;
            slots.entry(stored.region_page).or_default().push(stored.slot);
            body.key_versions.push(version);
            let destroyed = apply::tenant_key_destroyed(&self.rows, tenant, version, key, now);
            change.expect.push(Expect::Equals(row.key, row.value));
            change.put.push(destroyed);
        }
        for (page, slots) in slots {
            let key = Key::RegionPage(page);
            let value = self.index.get(&key).await?.ok_or_else(corrupt)?;
            let row: PageRow = self.rows.open(&key, &value)?;
            let stored = apply::page_under(&row, self.keys.current_epoch()).ok_or_else(corrupt)?;
            let next = self.keys.puncture_region_page(&page, &stored, slots)?;
            let sealed = apply::region_page_leaf(&page, &next);
            change
                .put
                .push(apply::region_page(&self.rows, &sealed).ok_or_else(corrupt)?);
            change.expect.push(Expect::Equals(key, value));
            let in_leaf = self.in_leaf(sealed).await?;
            change.leaves.push(leaf::draft(
                Scope::Region,
                leaf::SYSTEM,
                now,
                Body::RegionPageSealed(in_leaf),
            ));
        }
        Ok(())
    }
}
