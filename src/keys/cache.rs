//! Unwrapped keys, kept for a bounded time in a bounded number, and slots reserved but not yet used.
//!
//! A cached page is used only when the index still names its generation: the read that fetches a record checks it.

use std::{
    collections::HashMap,
    fmt,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    crypto::page::PageState,
    domain::{
        clock::{Clock, Timestamp},
        ids::{PageId, TenantId},
    },
};

use super::{
    store::{Reserved, StoredKeyring},
    tenant::TenantKeys,
};

/// How long an unwrapped key may live in memory, 60 s: a sweep waits this long before it destroys an epoch.
pub const TTL_MICROS: i64 = 60 * 1_000_000;
/// Tenants whose keys are kept.
const TENANTS: usize = 4_096;
/// Pages that are kept: at most 64 KiB each, 65 B when fresh.
const PAGES: usize = 1_024;

#[derive(Debug)]
pub(super) struct Cache {
    tenants: Bounded<TenantId, Arc<TenantKeys>>,
    pages: Bounded<(TenantId, PageId), (u64, Arc<PageState>)>,
    region_pages: Bounded<PageId, (u64, Arc<PageState>)>,
}

impl Cache {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            tenants: Bounded::new(TENANTS, Arc::clone(&clock)),
            pages: Bounded::new(PAGES, Arc::clone(&clock)),
            region_pages: Bounded::new(PAGES, clock),
        }
    }

    pub(super) fn tenant(&self, tenant: &TenantId, stored: &StoredKeyring) -> Option<Arc<TenantKeys>> {
        self.tenants.get(tenant).filter(|keys| keys.are(stored))
    }

    pub(super) fn put_tenant(&self, tenant: &TenantId, keys: Arc<TenantKeys>) {
        self.tenants.put(tenant.clone(), keys);
    }

    pub(super) fn page(&self, tenant: &TenantId, page: &PageId, generation: u64) -> Option<Arc<PageState>> {
        let (cached, state) = self.pages.get(&(tenant.clone(), *page))?;
        (cached == generation).then_some(state)
    }

    pub(super) fn put_page(&self, tenant: &TenantId, page: &PageId, generation: u64, state: Arc<PageState>) {
        self.pages.put((tenant.clone(), *page), (generation, state));
    }

    pub(super) fn region_page(&self, page: &PageId, generation: u64) -> Option<Arc<PageState>> {
        let (cached, state) = self.region_pages.get(page)?;
        (cached == generation).then_some(state)
    }

    pub(super) fn forget_tenant(&self, tenant: &TenantId) {
        self.tenants.retain(|of| of != tenant);
        self.pages.retain(|(of, _)| of != tenant);
    }

    pub(super) fn forget_page(&self, tenant: &TenantId, page: &PageId) {
        self.pages.retain(|(of, which)| of != tenant || which != page);
    }

    pub(super) fn forget_stale(&self) {
        self.tenants.retain(|_| true);
        self.pages.retain(|_| true);
        self.region_pages.retain(|_| true);
    }

    /// Whatever a gone epoch opened is gone as well.
    pub(super) fn forget_region_pages(&self) {
        self.region_pages.clear();
    }

    pub(super) fn put_region_page(&self, page: &PageId, generation: u64, state: Arc<PageState>) {
        self.region_pages.put(*page, (generation, state));
    }
}

/// A map that forgets: what is older than [`TTL_MICROS`], and anything when full.
struct Bounded<K, V> {
    most: usize,
    clock: Arc<dyn Clock>,
    entries: Mutex<HashMap<K, (Timestamp, V)>>,
}

impl<K: Eq + Hash + Clone, V: Clone> Bounded<K, V> {
    fn new(most: usize, clock: Arc<dyn Clock>) -> Self {
        Self {
            most,
            clock,
            entries: Mutex::default(),
        }
    }

    fn get(&self, key: &K) -> Option<V> {
        let now = self.clock.now();
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        match entries.get(key) {
            Some((since, value)) if fresh(*since, now) => Some(value.clone()),
            Some(_) => {
                entries.remove(key);
                None
            }
            None => None,
        }
    }

    /// Keeps what is fresh and wanted.
    fn retain(&self, wanted: impl Fn(&K) -> bool) {
        let now = self.clock.now();
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|key, (since, _)| fresh(*since, now) && wanted(key));
    }

    fn clear(&self) {
        self.entries
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    fn put(&self, key: K, value: V) {
        let now = self.clock.now();
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= self.most {
            entries.retain(|_, (since, _)| fresh(*since, now));
        }
        if entries.len() >= self.most {
            // Full of fresh entries: drop an arbitrary quarter rather than track every use.
            let gone: Vec<K> = entries.keys().take(self.most / 4).cloned().collect();
            for key in gone {
                entries.remove(&key);
            }
        }
        entries.insert(key, (now, value));
    }
}

/// Time that went backwards makes nothing fresh.
fn fresh(since: Timestamp, now: Timestamp) -> bool {
    (0..TTL_MICROS).contains(&(now.micros() - since.micros()))
}

impl<K, V> fmt::Debug for Bounded<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = self.entries.lock().map_or(0, |e| e.len());
        f.debug_struct("Bounded")
            .field("held", &held)
            .field("most", &self.most)
            .finish_non_exhaustive()
    }
}

/// What fills a page: a class of a tenant, in a month.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Filling {
    tenant: TenantId,
    class: String,
    month: u32,
}

/// Slots reserved in durable batches and handed out from memory.
#[derive(Debug, Default)]
pub(super) struct Leases {
    open: Mutex<HashMap<Filling, Arc<tokio::sync::Mutex<Lease>>>>,
}

impl Leases {
    /// Leases kept; one that is dropped loses its unused slots, nothing else.
    const MOST: usize = 16_384;

    pub(super) fn of(&self, tenant: &TenantId, class: &str, month: u32) -> Arc<tokio::sync::Mutex<Lease>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= Self::MOST {
            open.retain(|_, lease| Arc::strong_count(lease) > 1);
        }
        Arc::clone(
            open.entry(Filling {
                tenant: tenant.clone(),
                class: class.to_owned(),
                month,
            })
            .or_default(),
        )
    }
}

/// What is left of one reservation.
#[derive(Debug, Default)]
pub(super) struct Lease(Option<Reserved>);

impl Lease {
    /// Takes up to `count` slots; `None` if there are none left.
    pub(super) fn take(&mut self, count: u16) -> Option<Reserved> {
        let left = self.0.as_mut()?;
        let start = left.slots.start;
        let end = start.saturating_add(count).min(left.slots.end);
        left.slots.start = end;
        (start < end).then_some(Reserved {
            page: left.page,
            slots: start..end,
        })
    }

    pub(super) fn renew(&mut self, reserved: Reserved) {
        self.0 = Some(reserved);
    }
}
