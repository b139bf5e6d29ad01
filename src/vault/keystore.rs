//! Key rows over the index, key leaves over the ledger.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use async_trait::async_trait;

use crate::{
    domain::{
        clock::Clock,
        ids::{PageId, TenantId},
    },
    index::{Change, Expect, Index, IndexError, Key, Range, Scan, Scope},
    keys::store::{KeyStore, KeyStoreError, Reserved, StoredKeyring, StoredPage, StoredTenantKey},
    ledger::{
        leaf,
        outbox::{Ledger, Until},
    },
    proto::storage::{EpochRow, OpenPageRow, PageRow, TenantKeyRow, TenantRow, state_leaf::Body},
};

use super::{apply, rows::RowCodec};

/// How often a page is looked up whose key is rotated meanwhile.
const LOOKS: u32 = 4;
const DAY_MICROS: i64 = 24 * 3_600 * 1_000_000;
/// Slots of a page.
const SLOTS: u32 = crate::crypto::page::SLOTS as u32;

#[derive(Debug)]
pub(crate) struct IndexKeyStore {
    pub(crate) index: Arc<dyn Index>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) rows: RowCodec,
    pub(crate) clock: Arc<dyn Clock>,
    /// How long a key may wrap others, in microseconds.
    pub(crate) wraps_for: Arc<AtomicI64>,
}

impl IndexKeyStore {
    /// Refuses to let a key wrap anything that has done so for too long, and warns some time before.
    ///
    /// Source: NIST SP 800-57 part 1, section 5.3.6, originator-usage period of a key-wrapping key: at most two years.
    fn may_wrap(&self, what: &'static str, tenant: &str, created_micros: i64) -> Result<(), KeyStoreError> {
        let longest = self.wraps_for.load(Ordering::Relaxed);
        let age = self.clock.now().micros().saturating_sub(created_micros);
        if age > longest {
            return Err(KeyStoreError::TooOld(what));
        }
        if age > longest / 10 * 9 {
            tracing::warn!(what, %tenant, days = age / DAY_MICROS, "a key is nearly too old to wrap anything; rotate it");
        }
        Ok(())
    }

    async fn read<M: prost::Message + Default>(&self, key: &Key) -> Result<Option<M>, KeyStoreError> {
        let Some(value) = self.index.get(key).await.map_err(unavailable)? else {
            return Ok(None);
        };
        self.rows
            .open(key, &value)
            .map(Some)
            .map_err(|_| KeyStoreError::Corrupt)
    }

    /// Two rows in one trip.
    async fn read_two<A, B>(&self, keys: &[Key; 2]) -> Result<(Option<A>, Option<B>), KeyStoreError>
    where
        A: prost::Message + Default,
        B: prost::Message + Default,
    {
        let found = self.index.get_many(keys).await.map_err(unavailable)?;
        let [one, two] = <[Option<Vec<u8>>; 2]>::try_from(found).map_err(|_| KeyStoreError::Corrupt)?;
        let one = one.map(|value| self.rows.open(&keys[0], &value)).transpose();
        let two = two.map(|value| self.rows.open(&keys[1], &value)).transpose();
        Ok((
            one.map_err(|_| KeyStoreError::Corrupt)?,
            two.map_err(|_| KeyStoreError::Corrupt)?,
        ))
    }

    /// Takes up to `count` slots of the page behind `open`, durably.
    async fn take(&self, open: Key, count: u32) -> Result<Option<Reserved>, KeyStoreError> {
        loop {
            let Some(value) = self.index.get(&open).await.map_err(unavailable)? else {
                return Ok(None);
            };
            let row: OpenPageRow = self
                .rows
                .open(&open, &value)
                .map_err(|_| KeyStoreError::Corrupt)?;
            if row.next_slot >= SLOTS {
                return Ok(None);
            }
            if row.next_slot == 0 {
                // Its leaf may still be queued, if whoever began it was not answered: lost with the index, the page would take
                // with it all that was sealed under it. Leaves are shipped in order, so the tenant's keys are there as well.
                self.ledger.settled().await.map_err(unavailable)?;
            }
            let end = (row.next_slot + count).min(SLOTS);
            let taken = OpenPageRow {
                page_id: row.page_id.clone(),
                next_slot: end,
            };
            let change = Change {
                expect: vec![Expect::Equals(open.clone(), value)],
                put: vec![self.rows.row(open.clone(), &taken)],
                ..Change::default()
            };
            match self.index.commit(change).await {
                Ok(_) => {
                    let page = PageId::from_slice(&row.page_id).map_err(|_| KeyStoreError::Corrupt)?;
                    let slot = |n: u32| u16::try_from(n).map_err(|_| KeyStoreError::Corrupt);
                    return Ok(Some(Reserved {
                        page,
                        slots: slot(row.next_slot)?..slot(end)?,
                    }));
                }
                Err(IndexError::Expectation(_)) => {}
                Err(error) => return Err(unavailable(error)),
            }
        }
    }

    async fn append(&self, change: Change) -> Result<(), KeyStoreError> {
        self.ledger
            .commit(change, Until::Shipped)
            .await
            .map(|_| ())
            .map_err(unavailable)
    }
}

#[async_trait]
impl KeyStore for IndexKeyStore {
    async fn tenant_keyring(&self, tenant: &TenantId) -> Result<Option<StoredKeyring>, KeyStoreError> {
        let row: Option<TenantRow> = self.read(&Key::Tenant(tenant.clone())).await?;
        Ok(row.map(|r| StoredKeyring {
            key_version: r.current_key_version,
            sealed: r.sealed_keyring.into(),
        }))
    }

    async fn tenant_key(
        &self,
        tenant: &TenantId,
        version: u64,
    ) -> Result<Option<StoredTenantKey>, KeyStoreError> {
        let row: Option<TenantKeyRow> = self.read(&Key::TenantKey(tenant.clone(), version)).await?;
        row.and_then(|r| r.key)
            .map(|k| apply::stored_tenant_key(&k).ok_or(KeyStoreError::Corrupt))
            .transpose()
    }

    async fn page(&self, tenant: &TenantId, page: &PageId) -> Result<Option<StoredPage>, KeyStoreError> {
        let keys = [Key::Tenant(tenant.clone()), Key::Page(tenant.clone(), *page)];
        for _ in 0..LOOKS {
            let (Some(owner), Some(row)) = self.read_two::<TenantRow, PageRow>(&keys).await? else {
                return Ok(None);
            };
            if let Some(stored) = apply::page_under(&row, owner.current_key_version) {
                return Ok(Some(stored));
            }
            // Two rows are no snapshot: a rotation ended between them, and the next one began.
        }
        Err(KeyStoreError::Corrupt)
    }

    async fn region_page(&self, page: &PageId) -> Result<Option<StoredPage>, KeyStoreError> {
        let Some(row) = self.read::<PageRow>(&Key::RegionPage(*page)).await? else {
            return Ok(None);
        };
        // The newer of both counts as soon as its epoch is known: what is staged for one that never came does not.
        let staged = row.staged.as_ref().map(|staged| staged.key_version);
        let known = match staged {
            Some(epoch) => self.index.get(&Key::Epoch(epoch)).await.map_err(unavailable)?,
            None => None,
        };
        let epoch = staged.filter(|_| known.is_some()).unwrap_or(row.key_version);
        apply::page_under(&row, epoch)
            .map(Some)
            .ok_or(KeyStoreError::Corrupt)
    }

    async fn reserve(
        &self,
        tenant: &TenantId,
        class: &str,
        month: u32,
        count: u16,
    ) -> Result<Option<Reserved>, KeyStoreError> {
        let owner: Option<TenantRow> = self.read(&Key::Tenant(tenant.clone())).await?;
        if let Some(owner) = owner {
            let version = Key::TenantKey(tenant.clone(), owner.current_key_version);
            let key: TenantKeyRow = self.read(&version).await?.ok_or(KeyStoreError::Corrupt)?;
            self.may_wrap("tenant key", tenant.as_str(), key.created_micros)?;
        }
        self.take(
            Key::OpenPage(tenant.clone(), class.to_owned(), month),
            u32::from(count),
        )
        .await
    }

    async fn reserve_region(&self) -> Result<Option<(PageId, u16)>, KeyStoreError> {
        let newest = Scan {
            range: Range::Epochs,
            reverse: true,
            after: None,
            limit: 1,
        };
        for row in self.index.scan(&newest).await.map_err(unavailable)? {
            let epoch = self.rows.open::<EpochRow>(&row.key, &row.value);
            let epoch = epoch.map_err(|_| KeyStoreError::Corrupt)?;
            self.may_wrap("root epoch", "", epoch.created_micros)?;
        }
        let taken = self.take(Key::Meta(apply::OPEN_REGION_PAGE), 1).await?;
        Ok(taken.map(|r| (r.page, r.slots.start)))
    }

    async fn publish(
        &self,
        tenant: &TenantId,
        page: &PageId,
        stored: StoredPage,
    ) -> Result<(), KeyStoreError> {
        let body = apply::tenant_page_leaf(page, &stored);
        let open = Key::OpenPage(tenant.clone(), stored.retention_class.clone(), stored.month);
        // The caller holds the tenant's gate: nobody else counts.
        let version = Key::TenantKey(tenant.clone(), stored.key_version);
        let key: TenantKeyRow = self.read(&version).await?.ok_or(KeyStoreError::Corrupt)?;
        let counted = TenantKeyRow {
            seals: key.seals + 1,
            ..key
        };
        let change = Change {
            expect: vec![Expect::Absent(Key::Page(tenant.clone(), *page))],
            put: vec![
                self.rows.row(version, &counted),
                apply::tenant_page(&self.rows, tenant, &body).ok_or(KeyStoreError::Corrupt)?,
                self.rows.row(
                    open,
                    &OpenPageRow {
                        page_id: page.as_bytes().to_vec().into(),
                        next_slot: 0,
                    },
                ),
            ],
            leaves: vec![leaf::draft(
                Scope::Tenant(tenant.clone()),
                leaf::SYSTEM,
                self.clock.now(),
                Body::TenantPageSealed(body),
            )],
            ..Change::default()
        };
        self.append(change).await
    }

    async fn publish_region(&self, page: &PageId, stored: StoredPage) -> Result<(), KeyStoreError> {
        let body = apply::region_page_leaf(page, &stored);
        let open = OpenPageRow {
            page_id: page.as_bytes().to_vec().into(),
            next_slot: 0,
        };
        let change = Change {
            put: vec![
                apply::region_page(&self.rows, &body).ok_or(KeyStoreError::Corrupt)?,
                self.rows.row(Key::Meta(apply::OPEN_REGION_PAGE), &open),
            ],
            leaves: vec![leaf::draft(
                Scope::Region,
                leaf::SYSTEM,
                self.clock.now(),
                Body::RegionPageSealed(body),
            )],
            ..Change::default()
        };
        self.append(change).await
    }
}

fn unavailable(error: impl std::error::Error + Send + Sync + 'static) -> KeyStoreError {
    KeyStoreError::Unavailable(Box::new(error))
}
