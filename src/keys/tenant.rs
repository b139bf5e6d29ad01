//! A tenant's keys: versions of the envelope key, the keyring beside it, and pages of slots.

use prost::Message;

use crate::{
    crypto::{
        aead, context, kdf,
        page::PageState,
        secret::{IndexKey, RequestKey, Secret, SecretBytes, SlotKey, TenantKey},
    },
    domain::{
        clock::{Rng, Timestamp},
        ids::{PageId, TenantId},
    },
    proto::storage,
};

use super::{
    FreshSlot, KeyError, Realm, fresh_page,
    store::{StoredPage, StoredTenantKey},
};

/// Root hierarchy of tenants that did not bring their own.
pub const REGION_ROOT: &str = "region";

/// Everything a new tenant needs, sealed; nothing of it is stored yet.
#[derive(Debug)]
pub struct NewTenant {
    /// Version 1 of its key.
    pub key: StoredTenantKey,
    /// Its keyring under that key.
    pub sealed_keyring: Vec<u8>,
    /// Id of the page that its settings take slots from.
    pub settings_page: PageId,
    /// That page, sealed.
    pub settings_state: StoredPage,
    /// Slot 0 of it.
    pub settings_slot: FreshSlot,
    /// The keys, opened.
    pub keys: TenantKeys,
}

impl NewTenant {
    pub(super) fn generate(
        realm: &Realm,
        tenant: &TenantId,
        slot: &FreshSlot,
        now: Timestamp,
        rng: &dyn Rng,
    ) -> Result<Self, KeyError> {
        let failed = KeyError::opening("tenant key");
        let key = TenantKey::generate(rng).map_err(&failed)?;
        let aad = context::wrapped_tenant_key(&realm.vault, tenant, 1, REGION_ROOT, &slot.page, slot.slot);
        let stored = StoredTenantKey {
            version: 1,
            root_id: REGION_ROOT.to_owned(),
            region_page: slot.page,
            slot: slot.slot,
            wrapped: aead::wrap(&slot.key, key.expose(), &aad, rng).map_err(&failed)?,
            commitment: key.commitment(),
        };
        let sealed_keyring = new_keyring(realm, tenant, &key, rng)?;
        let keys = TenantKeys::open(realm, tenant, 1, &key, &sealed_keyring)?;
        let settings_page = PageId::mint(now, rng)?;
        let settings_state = keys.new_page(realm, tenant, &settings_page, super::SETTINGS_CLASS, 0, rng)?;
        let state = keys.open_page(realm, tenant, &settings_page, &settings_state)?;
        let slot_key = state.slot_key(0).map_err(&failed)?;
        Ok(Self {
            key: stored,
            sealed_keyring,
            settings_page,
            settings_state,
            settings_slot: FreshSlot {
                page: settings_page,
                slot: 0,
                key: slot_key,
            },
            keys,
        })
    }
}

fn new_keyring(
    realm: &Realm,
    tenant: &TenantId,
    key: &TenantKey,
    rng: &dyn Rng,
) -> Result<Vec<u8>, KeyError> {
    let failed = KeyError::opening("tenant keyring");
    let index_key = IndexKey::generate(rng).map_err(&failed)?;
    let request_key = RequestKey::generate(rng).map_err(&failed)?;
    let keyring = SecretBytes::from_vec(
        storage::TenantKeyring {
            index_key: index_key.expose().to_vec().into(),
            index_key_generation: 1,
            request_key: request_key.expose().to_vec().into(),
        }
        .encode_to_vec(),
    );
    let aad = context::tenant_keyring(&realm.vault, tenant, 1);
    aead::wrap(&kdf::tenant_keyring_key(key), keyring.expose(), &aad, rng).map_err(&failed)
}

/// Unwraps a version of a tenant's key and checks its commitment.
pub(super) fn open_key(
    realm: &Realm,
    tenant: &TenantId,
    stored: &StoredTenantKey,
    slot_key: &SlotKey,
) -> Result<TenantKey, KeyError> {
    let aad = context::wrapped_tenant_key(
        &realm.vault,
        tenant,
        stored.version,
        &stored.root_id,
        &stored.region_page,
        stored.slot,
    );
    kdf::open_tenant_key(slot_key, &stored.wrapped, &aad, &stored.commitment)
        .map_err(KeyError::opening("tenant key"))
}

/// An opened version of a tenant's key, as what it is used for.
#[derive(Debug)]
pub struct TenantKeys {
    version: u64,
    page_key: Secret<32>,
    index_key: IndexKey,
    request_key: RequestKey,
}

impl TenantKeys {
    pub(super) fn open(
        realm: &Realm,
        tenant: &TenantId,
        version: u64,
        key: &TenantKey,
        sealed_keyring: &[u8],
    ) -> Result<Self, KeyError> {
        let corrupt = |_| KeyError::Corrupt("tenant keyring");
        let aad = context::tenant_keyring(&realm.vault, tenant, version);
        let opened = aead::unwrap_to(&kdf::tenant_keyring_key(key), sealed_keyring, &aad)
            .map_err(KeyError::opening("tenant keyring"))?;
        let keyring = storage::TenantKeyring::decode(opened.expose())
            .map_err(|_| KeyError::Corrupt("tenant keyring"))?;
        Ok(Self {
            version,
            page_key: kdf::tenant_page_key(key),
            index_key: IndexKey::from_slice(&keyring.index_key).map_err(corrupt)?,
            request_key: RequestKey::from_slice(&keyring.request_key).map_err(corrupt)?,
        })
    }

    /// The same tenant with another version of its key; the keyring stays the current one.
    pub(super) fn at_version(&self, version: u64, key: &TenantKey) -> Result<Self, KeyError> {
        let copied = |_| KeyError::Corrupt("tenant keyring");
        Ok(Self {
            version,
            page_key: kdf::tenant_page_key(key),
            index_key: IndexKey::from_slice(self.index_key.expose()).map_err(copied)?,
            request_key: RequestKey::from_slice(self.request_key.expose()).map_err(copied)?,
        })
    }

    /// Which version this is.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Blinds searchable identifiers.
    pub fn index_key(&self) -> &IndexKey {
        &self.index_key
    }

    /// Keys request ids.
    pub fn request_key(&self) -> &RequestKey {
        &self.request_key
    }

    pub(super) fn new_page(
        &self,
        realm: &Realm,
        tenant: &TenantId,
        page: &PageId,
        class: &str,
        month: u32,
        rng: &dyn Rng,
    ) -> Result<StoredPage, KeyError> {
        let aad = context::tenant_page_state(&realm.vault, tenant, page, 1, self.version);
        let seal = |state: &[u8]| aead::wrap(&self.page_key, state, &aad, rng);
        fresh_page(seal, self.version, class, month, rng)
    }

    pub(super) fn open_page(
        &self,
        realm: &Realm,
        tenant: &TenantId,
        page: &PageId,
        stored: &StoredPage,
    ) -> Result<PageState, KeyError> {
        let aad =
            context::tenant_page_state(&realm.vault, tenant, page, stored.generation, stored.key_version);
        let state =
            aead::unwrap_to(&self.page_key, &stored.sealed_state, &aad).map_err(KeyError::opening("page"))?;
        PageState::from_bytes(state.expose()).map_err(KeyError::opening("page"))
    }
}
