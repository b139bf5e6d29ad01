//! The life of keys: root epochs, region and tenant pages, tenant keys, and who may still open what.
//!
//! ```text
//! epoch key -> region page slot -> tenant key -> tenant page slot -> DEK
//! ```

mod anchor;
pub mod aws_kms;
pub mod cache;
pub mod file;
pub mod gates;
pub(crate) mod keyring;
pub mod patient;
mod pending;
pub mod pkcs11;
pub mod provider;
pub mod region;
pub mod standing;
pub mod store;
#[cfg(any(test, feature = "testing"))]
pub mod suite;
pub mod tenant;

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;

use crate::{
    crypto::{
        CryptoError,
        page::{PageState, SLOTS},
        secret::{SlotKey, TenantKey},
    },
    domain::{
        clock::{Clock, Rng, RngFailed},
        ids::{PageId, RegionName, RetentionClassId, TenantId, VaultId},
    },
};

use cache::{Cache, Leases};
use gates::{Changes, Gate, Gates};
use pending::{Pending, Reservation};
use provider::ProviderError;
use region::{EpochKeys, RegionKeys};
use standing::Standing;
use store::{KeyStore, KeyStoreError, Reserved, StoredKeyring, StoredPage, StoredTenantKey};
use tenant::{NewTenant, NextIndexKey, NextVersion, StagedKeyring, TenantKeys};

/// Slots taken from a page in one durable step, at least.
const LEASE_SLOTS: u16 = 64;
/// Slots taken in one durable step when many are asked for; a crash loses at most this many.
const LONGEST_LEASE: u16 = 1_024;
/// How often a page is looked up whose key was rotated between the looks.
const LOOKS: u32 = 8;
/// Retention class of the page that settings take their slots from.
pub const SETTINGS_CLASS: &str = "";

/// Why a key is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// There is no such tenant, version or page.
    #[error("no such key what={0}")]
    Unknown(&'static str),
    /// The slot was punctured: what it wrapped is gone for good.
    #[error("the slot was punctured")]
    Punctured,
    /// Stored key material failed authentication.
    #[error("key material failed authentication what={0}")]
    Corrupt(&'static str),
    /// The index key that was to take over is not the one that is staged.
    #[error("the staged index key is another one or none")]
    Superseded,
    /// The root provider failed.
    #[error("the root provider failed")]
    Provider(#[from] ProviderError),
    /// The root provider has not answered for longer than opened keys may serve without it.
    #[error("the root provider has been silent for too long")]
    RootSilent,
    /// The process ends.
    #[error("interrupted by the end of the process")]
    Interrupted,
    /// Rows or leaves could not be read or written.
    #[error("the key store failed")]
    Store(#[from] KeyStoreError),
    /// No randomness.
    #[error(transparent)]
    Rng(#[from] RngFailed),
}

impl KeyError {
    /// Names what failed to open.
    fn opening(what: &'static str) -> impl Fn(CryptoError) -> Self {
        move |error| match error {
            CryptoError::PuncturedSlot => Self::Punctured,
            CryptoError::Rng(_) => Self::Rng(RngFailed),
            _ => Self::Corrupt(what),
        }
    }
}

/// Who the keys belong to; part of every wrap's context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Realm {
    /// The vault.
    pub vault: VaultId,
    /// Its region.
    pub region: RegionName,
}

/// A slot that wraps nothing yet, and its key. Used at most once.
#[derive(Debug)]
pub struct FreshSlot {
    /// The page.
    pub page: PageId,
    /// The slot in it.
    pub slot: u16,
    /// Its key.
    pub key: SlotKey,
}

/// Slots of one page that wrap nothing yet. Their keys are derived as they are taken.
#[derive(Debug)]
pub struct FreshSlots {
    page: PageId,
    slots: Range<u16>,
    state: Arc<PageState>,
}

impl FreshSlots {
    /// How many are left.
    pub fn left(&self) -> usize {
        self.slots.len()
    }

    /// The next one; `None` after the last.
    ///
    /// # Errors
    /// [`KeyError::Punctured`] if it was punctured meanwhile.
    pub fn take(&mut self) -> Result<Option<FreshSlot>, KeyError> {
        let Some(slot) = self.slots.next() else {
            return Ok(None);
        };
        let key = self.state.slot_key(slot).map_err(KeyError::opening("page"))?;
        Ok(Some(FreshSlot {
            page: self.page,
            slot,
            key,
        }))
    }
}

/// The keys of a region, opened as they are needed.
#[derive(Debug)]
pub struct Keys {
    realm: Realm,
    region: Arc<RegionKeys>,
    /// The current one; while another takes over, both.
    epochs: ArcSwap<Vec<Arc<EpochKeys>>>,
    /// Number of the one that seals new pages.
    current_epoch: AtomicU64,
    store: Arc<dyn KeyStore>,
    clock: Arc<dyn Clock>,
    rng: Arc<dyn Rng>,
    cache: Cache,
    leases: Leases,
    gates: Gates,
    changes: Changes,
    pending: Pending,
    standing: Standing,
}

impl Keys {
    /// Keys over an opened region.
    pub fn new(
        realm: Realm,
        region: Arc<RegionKeys>,
        epoch: EpochKeys,
        store: Arc<dyn KeyStore>,
        clock: Arc<dyn Clock>,
        rng: Arc<dyn Rng>,
    ) -> Self {
        let cache = Cache::new(Arc::clone(&clock));
        let standing = Standing::new(Arc::clone(&clock));
        Self {
            realm,
            region,
            current_epoch: AtomicU64::new(epoch.epoch()),
            epochs: ArcSwap::from_pointee(vec![Arc::new(epoch)]),
            store,
            clock,
            rng,
            cache,
            leases: Leases::default(),
            gates: Gates::default(),
            changes: Changes::default(),
            pending: Pending::default(),
            standing,
        }
    }

    /// Whether what is open may still be used.
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// Whether an epoch is open with this key.
    pub fn is_open_as(&self, epoch: u64, key: &crate::crypto::secret::EpochKey) -> bool {
        self.epoch(epoch).is_ok_and(|open| open.is_of(key))
    }

    /// What needs a gate and must come to its end whatever becomes of its caller.
    pub fn changes(&self) -> &Changes {
        &self.changes
    }

    /// The region's own keys.
    pub fn region(&self) -> &RegionKeys {
        &self.region
    }

    /// The right to change a tenant's pages and versions.
    pub async fn tenant_gate(&self, tenant: &TenantId) -> Gate {
        self.gates.tenant(tenant).await
    }

    /// The right to change the region's pages and epochs.
    pub async fn region_gate(&self) -> Gate {
        self.gates.region().await
    }

    /// The epoch that seals new pages.
    pub fn current_epoch(&self) -> u64 {
        self.current_epoch.load(Ordering::Acquire)
    }

    /// Opens an epoch beside the one that is open.
    pub fn admit_epoch(&self, epoch: &Arc<EpochKeys>) {
        self.epochs.rcu(|open| {
            let others = open.iter().filter(|have| have.epoch() != epoch.epoch());
            others.chain([epoch]).map(Arc::clone).collect::<Vec<_>>()
        });
    }

    /// Makes an epoch that was admitted the current one, and forgets all others and whatever they opened.
    pub fn use_epoch(&self, epoch: u64) {
        self.current_epoch.store(epoch, Ordering::Release);
        self.epochs.rcu(|open| {
            let this = open.iter().filter(|keys| keys.epoch() == epoch);
            this.map(Arc::clone).collect::<Vec<_>>()
        });
        self.cache.forget_region_pages();
    }

    /// Forgets what was opened with a tenant's key: another one took over, or one was destroyed.
    pub fn forget_tenant(&self, tenant: &TenantId) {
        self.cache.forget_tenant(tenant);
    }

    /// Forgets what has been in memory for as long as it may; to be called about every minute.
    pub fn forget_stale(&self) {
        self.cache.forget_stale();
    }

    /// Forgets what was opened of region pages: one of them lost a slot.
    pub fn forget_region_pages(&self) {
        self.cache.forget_region_pages();
    }

    /// The region's keyring, sealed under an epoch that is about to be the current one.
    ///
    /// # Errors
    /// [`KeyError::Rng`] without randomness.
    pub fn seal_region_keyring(
        &self,
        epoch: u64,
        key: &crate::crypto::secret::EpochKey,
    ) -> Result<Vec<u8>, KeyError> {
        self.region.seal(&self.realm, epoch, key, &*self.rng)
    }

    /// Forgets what was opened of a tenant's page: it lost a slot.
    pub fn forget_page(&self, tenant: &TenantId, page: &PageId) {
        self.cache.forget_page(tenant, page);
    }

    /// Slots of region pages whose wraps are not known to anybody yet, but will be.
    pub fn pending_slots(&self) -> std::collections::HashSet<(PageId, u16)> {
        self.pending.slots()
    }

    /// The next version of a tenant's key, without storing it. Takes one slot of a region page.
    ///
    /// # Errors
    /// As [`Self::new_tenant`]; [`KeyError::Superseded`] if the index key that is to take over is not staged any more.
    pub async fn next_version(
        &self,
        tenant: &TenantId,
        index_key: NextIndexKey,
    ) -> Result<NextVersion, KeyError> {
        let (slot, reserved) = self.fresh_region_slot().await?;
        let current = self.tenant(tenant).await?;
        NextVersion::generate(
            &self.realm,
            tenant,
            &current,
            &slot,
            reserved,
            index_key,
            &*self.rng,
        )
    }

    /// A tenant's keyring with a new index key beside the current one, without storing it. The caller holds the tenant's gate.
    ///
    /// # Errors
    /// As [`Self::tenant`].
    pub async fn stage_index_key(&self, tenant: &TenantId) -> Result<StagedKeyring, KeyError> {
        let stored = self.stored_keyring(tenant).await?;
        let (key, current) = self.open_keyring(tenant, &stored).await?;
        StagedKeyring::generate(&self.realm, tenant, &key, &current, &*self.rng)
    }

    /// A tenant's page without the keys of some slots, as its next generation.
    ///
    /// # Errors
    /// As [`Self::reseal_page`].
    pub async fn puncture_page(
        &self,
        tenant: &TenantId,
        page: &PageId,
        stored: &StoredPage,
        slots: impl IntoIterator<Item = u16> + Send,
    ) -> Result<StoredPage, KeyError> {
        let keys = self.tenant(tenant).await?;
        let mut state = keys.open_page(&self.realm, tenant, page, stored)?;
        for slot in slots {
            state.puncture(slot).map_err(KeyError::opening("page"))?;
        }
        keys.seal_page(&self.realm, tenant, page, stored, &state, &*self.rng)
    }

    /// The slots of a region page that can still be derived.
    ///
    /// # Errors
    /// As [`Self::reseal_region_page`].
    pub fn live_region_slots(&self, page: &PageId, stored: &StoredPage) -> Result<Vec<u16>, KeyError> {
        let state = self
            .epoch(stored.key_version)?
            .open_page(&self.realm, page, stored)?;
        Ok(state.live_slots().collect())
    }

    /// A tenant's page, opened and sealed again as its next generation under `next`.
    ///
    /// # Errors
    /// [`KeyError::Corrupt`] if what is stored does not authenticate.
    pub async fn reseal_page(
        &self,
        tenant: &TenantId,
        page: &PageId,
        stored: &StoredPage,
        next: &TenantKeys,
    ) -> Result<StoredPage, KeyError> {
        let current = self.tenant(tenant).await?;
        let state = current.open_page(&self.realm, tenant, page, stored)?;
        next.seal_page(&self.realm, tenant, page, stored, &state, &*self.rng)
    }

    /// A region's page, opened and sealed again as its next generation under `next`.
    ///
    /// # Errors
    /// [`KeyError::Corrupt`] if what is stored does not authenticate; [`KeyError::Unknown`] if its epoch is not open.
    pub fn reseal_region_page(
        &self,
        page: &PageId,
        stored: &StoredPage,
        next: &EpochKeys,
    ) -> Result<StoredPage, KeyError> {
        let state = self
            .epoch(stored.key_version)?
            .open_page(&self.realm, page, stored)?;
        next.seal_page(&self.realm, page, stored, &state, &*self.rng)
    }

    /// A region's page without the keys of some slots, as its next generation.
    ///
    /// # Errors
    /// As [`Self::reseal_region_page`].
    pub fn puncture_region_page(
        &self,
        page: &PageId,
        stored: &StoredPage,
        slots: impl IntoIterator<Item = u16>,
    ) -> Result<StoredPage, KeyError> {
        let epoch = self.epoch(stored.key_version)?;
        let mut state = epoch.open_page(&self.realm, page, stored)?;
        for slot in slots {
            state.puncture(slot).map_err(KeyError::opening("region page"))?;
        }
        epoch.seal_page(&self.realm, page, stored, &state, &*self.rng)
    }

    /// Whether a wrapped version of a tenant's key still opens.
    ///
    /// # Errors
    /// [`KeyError::Punctured`] if it was destroyed.
    pub async fn open_version(&self, tenant: &TenantId, wrapped: &StoredTenantKey) -> Result<(), KeyError> {
        self.open_tenant_key(tenant, wrapped).await.map(|_| ())
    }

    /// Whether a stored state of a tenant's page is one, under the tenant's current key.
    ///
    /// # Errors
    /// [`KeyError::Corrupt`] if it does not authenticate.
    pub async fn check_page(
        &self,
        tenant: &TenantId,
        page: &PageId,
        stored: &StoredPage,
    ) -> Result<(), KeyError> {
        let keys = self.tenant(tenant).await?;
        keys.open_page(&self.realm, tenant, page, stored).map(|_| ())
    }

    /// Whether a stored state of a region's page is one, under an epoch that is open.
    ///
    /// # Errors
    /// [`KeyError::Corrupt`] if it does not authenticate.
    pub fn check_region_page(&self, page: &PageId, stored: &StoredPage) -> Result<(), KeyError> {
        let epoch = self.epoch(stored.key_version)?;
        epoch.open_page(&self.realm, page, stored).map(|_| ())
    }

    fn epoch(&self, epoch: u64) -> Result<Arc<EpochKeys>, KeyError> {
        let open = self.epochs.load();
        let found = open.iter().find(|keys| keys.epoch() == epoch);
        found.map(Arc::clone).ok_or(KeyError::Unknown("root epoch"))
    }

    /// Makes everything that a new tenant needs, sealed, without storing it. Takes one slot of a region page.
    ///
    /// # Errors
    /// [`KeyError::Store`] if no region page could be had or published.
    pub async fn new_tenant(&self, tenant: &TenantId) -> Result<NewTenant, KeyError> {
        let (slot, reserved) = self.fresh_region_slot().await?;
        NewTenant::generate(&self.realm, tenant, &slot, reserved, self.clock.now(), &*self.rng)
    }

    /// The opened keys of a tenant: its current version and its keyring.
    ///
    /// # Errors
    /// [`KeyError::Unknown`] if there is no such tenant; [`KeyError::Corrupt`] if its rows do not authenticate.
    pub async fn tenant(&self, tenant: &TenantId) -> Result<Arc<TenantKeys>, KeyError> {
        let stored = self.stored_keyring(tenant).await?;
        if let Some(keys) = self.cache.tenant(tenant, &stored) {
            return Ok(keys);
        }
        let (_, keys) = self.open_keyring(tenant, &stored).await?;
        let keys = Arc::new(keys);
        self.cache.put_tenant(tenant, Arc::clone(&keys));
        Ok(keys)
    }

    async fn stored_keyring(&self, tenant: &TenantId) -> Result<StoredKeyring, KeyError> {
        let stored = self.store.tenant_keyring(tenant).await?;
        stored.ok_or(KeyError::Unknown("tenant"))
    }

    async fn open_keyring(
        &self,
        tenant: &TenantId,
        stored: &StoredKeyring,
    ) -> Result<(TenantKey, TenantKeys), KeyError> {
        let wrapped = self
            .store
            .tenant_key(tenant, stored.key_version)
            .await?
            .ok_or(KeyError::Unknown("tenant key"))?;
        let key = self.open_tenant_key(tenant, &wrapped).await?;
        let keys = TenantKeys::open(&self.realm, tenant, stored.key_version, &key, &stored.sealed)?;
        Ok((key, keys))
    }

    /// A slot of the page that this class and month (yyyymm) are filling; begins a page when there is none or it is full.
    ///
    /// # Errors
    /// [`KeyError::Store`] if a reservation or a new page could not be made durable.
    pub async fn fresh_slot(
        &self,
        tenant: &TenantId,
        class: Option<&RetentionClassId>,
        month: u32,
    ) -> Result<FreshSlot, KeyError> {
        let mut one = self.fresh_slots(tenant, class, month, 1).await?;
        let slot = one.first_mut().map(FreshSlots::take).transpose()?.flatten();
        slot.ok_or(KeyError::Unknown("slot"))
    }

    /// `count` slots of the pages that this class and month are filling, in as few durable steps as may be.
    ///
    /// # Errors
    /// As [`Self::fresh_slot`]; slots that were taken before are lost.
    pub async fn fresh_slots(
        &self,
        tenant: &TenantId,
        class: Option<&RetentionClassId>,
        month: u32,
        count: usize,
    ) -> Result<Vec<FreshSlots>, KeyError> {
        let class = class.map_or(SETTINGS_CLASS, RetentionClassId::as_str);
        let lease = self.leases.of(tenant, class, month);
        let mut lease = lease.lock().await;
        let mut taken = Vec::new();
        let mut missing = u16::try_from(count).unwrap_or(u16::MAX);
        while missing > 0 {
            if let Some(Reserved { page, slots }) = lease.take(missing) {
                let state = self.page(tenant, &page).await?;
                missing -= slots.end - slots.start;
                taken.push(FreshSlots { page, slots, state });
                continue;
            }
            let wanted = missing.saturating_mul(2).clamp(LEASE_SLOTS, LONGEST_LEASE);
            match self.store.reserve(tenant, class, month, wanted).await? {
                Some(reserved) => lease.renew(reserved),
                None => self.begin_page(tenant, class, month).await?,
            }
        }
        Ok(taken)
    }

    /// The key of a slot that wraps something.
    ///
    /// # Errors
    /// [`KeyError::Punctured`] if it was punctured; [`KeyError::Unknown`] if there is no such page.
    pub async fn slot_key(&self, tenant: &TenantId, page: &PageId, slot: u16) -> Result<SlotKey, KeyError> {
        self.page(tenant, page)
            .await?
            .slot_key(slot)
            .map_err(KeyError::opening("page"))
    }

    async fn page(&self, tenant: &TenantId, page: &PageId) -> Result<Arc<PageState>, KeyError> {
        self.standing.check()?;
        for _ in 0..LOOKS {
            let stored = self
                .store
                .page(tenant, page)
                .await?
                .ok_or(KeyError::Unknown("page"))?;
            if let Some(state) = self.cache.page(tenant, page, stored.generation) {
                return Ok(state);
            }
            let keys = self.tenant(tenant).await?;
            if keys.version() != stored.key_version {
                // The key was rotated between the two looks.
                continue;
            }
            let state = Arc::new(keys.open_page(&self.realm, tenant, page, &stored)?);
            self.cache
                .put_page(tenant, page, stored.generation, Arc::clone(&state));
            return Ok(state);
        }
        Err(KeyError::Unknown("tenant key"))
    }

    async fn begin_page(&self, tenant: &TenantId, class: &str, month: u32) -> Result<(), KeyError> {
        let gate = self.gates.tenant(tenant).await;
        let keys = self.tenant(tenant).await?;
        let page = PageId::mint(self.clock.now(), &*self.rng)?;
        let stored = keys.new_page(&self.realm, tenant, &page, class, month, &*self.rng)?;
        let (store, tenant) = (Arc::clone(&self.store), tenant.clone());
        let publish = async move { store.publish(&tenant, &page, stored).await };
        Ok(self.changes.run(gate, publish).await??)
    }

    async fn open_tenant_key(
        &self,
        tenant: &TenantId,
        wrapped: &StoredTenantKey,
    ) -> Result<TenantKey, KeyError> {
        let slot = self.region_page(&wrapped.region_page).await?;
        let slot_key = slot
            .slot_key(wrapped.slot)
            .map_err(KeyError::opening("region page"))?;
        tenant::open_key(&self.realm, tenant, wrapped, &slot_key)
    }

    async fn fresh_region_slot(&self) -> Result<(FreshSlot, Reservation), KeyError> {
        loop {
            let one_at_a_time = self.gates.region().await;
            if let Some((page, slot)) = self.store.reserve_region().await? {
                let reserved = self.pending.reserve(page, slot);
                let state = self.region_page(&page).await?;
                let key = state.slot_key(slot).map_err(KeyError::opening("region page"))?;
                return Ok((FreshSlot { page, slot, key }, reserved));
            }
            let page = PageId::mint(self.clock.now(), &*self.rng)?;
            let stored = self
                .epoch(self.current_epoch())?
                .new_page(&self.realm, &page, &*self.rng)?;
            let store = Arc::clone(&self.store);
            let publish = async move { store.publish_region(&page, stored).await };
            self.changes.run(one_at_a_time, publish).await??;
        }
    }

    async fn region_page(&self, page: &PageId) -> Result<Arc<PageState>, KeyError> {
        for _ in 0..LOOKS {
            let stored = self
                .store
                .region_page(page)
                .await?
                .ok_or(KeyError::Unknown("region page"))?;
            if let Some(state) = self.cache.region_page(page, stored.generation) {
                return Ok(state);
            }
            let Ok(epoch) = self.epoch(stored.key_version) else {
                // Another one took over between the two looks.
                tokio::task::yield_now().await;
                continue;
            };
            let state = Arc::new(epoch.open_page(&self.realm, page, &stored)?);
            self.cache
                .put_region_page(page, stored.generation, Arc::clone(&state));
            return Ok(state);
        }
        Err(KeyError::Unknown("root epoch"))
    }
}

/// The generation after `before`, with this state.
fn resealed(
    seal: impl FnOnce(&[u8]) -> Result<Vec<u8>, CryptoError>,
    key_version: u64,
    before: &StoredPage,
    state: &PageState,
) -> Result<StoredPage, KeyError> {
    let sealed_state = seal(state.to_bytes().expose()).map_err(KeyError::opening("page"))?;
    Ok(StoredPage {
        generation: before.generation + 1,
        key_version,
        sealed_state,
        retention_class: before.retention_class.clone(),
        month: before.month,
    })
}

/// A sealed page of `what` for whoever publishes it.
fn fresh_page(
    seal: impl FnOnce(&[u8]) -> Result<Vec<u8>, CryptoError>,
    key_version: u64,
    class: &str,
    month: u32,
    rng: &dyn Rng,
) -> Result<StoredPage, KeyError> {
    let state = PageState::generate(rng).map_err(KeyError::opening("page"))?;
    let sealed_state = seal(state.to_bytes().expose()).map_err(KeyError::opening("page"))?;
    Ok(StoredPage {
        generation: 1,
        key_version,
        sealed_state,
        retention_class: class.to_owned(),
        month,
    })
}

const _: () = assert!(LEASE_SLOTS <= LONGEST_LEASE && LONGEST_LEASE <= SLOTS);
