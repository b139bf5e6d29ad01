//! Where key states are read from and made durable. Implemented over index and ledger by the vault.

use std::{fmt, ops::Range};

use async_trait::async_trait;

use crate::domain::ids::{PageId, TenantId};

/// A generation of a page's state, sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredPage {
    /// Counts from 1; part of the seal's context.
    pub generation: u64,
    /// Tenant key version, or root epoch of a region page, that seals it.
    pub key_version: u64,
    /// The sealed state.
    pub sealed_state: Vec<u8>,
    /// Class that fills it; empty for settings and region pages.
    pub retention_class: String,
    /// Month (yyyymm) that fills it; 0 for settings and region pages.
    pub month: u32,
}

/// A version of a tenant's key, wrapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredTenantKey {
    /// Counts from 1.
    pub version: u64,
    /// Which root hierarchy wraps it.
    pub root_id: String,
    /// Region page.
    pub region_page: PageId,
    /// Slot of that page.
    pub slot: u16,
    /// The wrapped key.
    pub wrapped: Vec<u8>,
    /// Checked before use.
    pub commitment: [u8; 32],
}

/// A tenant's keyring, sealed under its current key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredKeyring {
    /// Current key version.
    pub key_version: u64,
    /// The sealed keyring.
    pub sealed: Vec<u8>,
}

/// Slots that nobody else will be given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reserved {
    /// The page.
    pub page: PageId,
    /// The slots.
    pub slots: Range<u16>,
}

/// The key store failed.
#[derive(Debug, thiserror::Error)]
pub enum KeyStoreError {
    /// A row that cannot be what was written, or whose MAC is wrong.
    #[error("a key row failed authentication")]
    Corrupt,
    /// The key has wrapped others for as long as it may: it only opens from now on.
    #[error("the key is too old to wrap anything what={0}")]
    TooOld(&'static str),
    /// It cannot be asked now.
    #[error("the key store is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Rows and leaves of keys.
#[async_trait]
pub trait KeyStore: Send + Sync + fmt::Debug {
    /// A tenant's current key version and keyring.
    async fn tenant_keyring(&self, tenant: &TenantId) -> Result<Option<StoredKeyring>, KeyStoreError>;

    /// A version of a tenant's key.
    async fn tenant_key(
        &self,
        tenant: &TenantId,
        version: u64,
    ) -> Result<Option<StoredTenantKey>, KeyStoreError>;

    /// The generation of a tenant page that the tenant's current key opens.
    async fn page(&self, tenant: &TenantId, page: &PageId) -> Result<Option<StoredPage>, KeyStoreError>;

    /// The generation of a region page that the newest epoch opens.
    async fn region_page(&self, page: &PageId) -> Result<Option<StoredPage>, KeyStoreError>;

    /// Takes up to `count` slots of the page that a class and month are filling, durably; `None` if there is none or it is full.
    async fn reserve(
        &self,
        tenant: &TenantId,
        class: &str,
        month: u32,
        count: u16,
    ) -> Result<Option<Reserved>, KeyStoreError>;

    /// Takes one slot of the region page being filled, durably; `None` if there is none or it is full.
    async fn reserve_region(&self) -> Result<Option<(PageId, u16)>, KeyStoreError>;

    /// Makes a new tenant page known in the bucket and the one that its class and month fill.
    async fn publish(
        &self,
        tenant: &TenantId,
        page: &PageId,
        stored: StoredPage,
    ) -> Result<(), KeyStoreError>;

    /// Makes a new region page known in the bucket and the one being filled.
    async fn publish_region(&self, page: &PageId, stored: StoredPage) -> Result<(), KeyStoreError>;
}
