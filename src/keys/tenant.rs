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
    pending::Reservation,
    resealed,
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
    /// Keeps a sweep from the slot until all this is stored.
    pub reserved: Reservation,
}

impl NewTenant {
    pub(super) fn generate(
        realm: &Realm,
        tenant: &TenantId,
        slot: &FreshSlot,
        reserved: Reservation,
        now: Timestamp,
        rng: &dyn Rng,
    ) -> Result<Self, KeyError> {
        let failed = KeyError::opening("tenant key");
        let (stored, key) = wrapped_key(realm, tenant, 1, slot, rng)?;
        let sealed_keyring = seal_keyring(realm, tenant, 1, &key, &new_keyring(rng)?, rng)?;
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
            reserved,
        })
    }
}

/// The next version of a tenant's key, sealed; nothing of it is stored yet.
#[derive(Debug)]
pub struct NextVersion {
    /// The key, wrapped.
    pub key: StoredTenantKey,
    /// The tenant's keyring under it: what it held before.
    pub sealed_keyring: Vec<u8>,
    /// The keys, opened.
    pub keys: TenantKeys,
    /// Keeps a sweep from the slot until all this is stored.
    pub reserved: Reservation,
}

impl NextVersion {
    pub(super) fn generate(
        realm: &Realm,
        tenant: &TenantId,
        current: &TenantKeys,
        slot: &FreshSlot,
        reserved: Reservation,
        rng: &dyn Rng,
    ) -> Result<Self, KeyError> {
        let version = current.version + 1;
        let (stored, key) = wrapped_key(realm, tenant, version, slot, rng)?;
        let sealed_keyring = seal_keyring(realm, tenant, version, &key, &current.keyring, rng)?;
        Ok(Self {
            key: stored,
            keys: TenantKeys::open(realm, tenant, version, &key, &sealed_keyring)?,
            sealed_keyring,
            reserved,
        })
    }
}

/// A random key, wrapped by a slot of a region page.
fn wrapped_key(
    realm: &Realm,
    tenant: &TenantId,
    version: u64,
    slot: &FreshSlot,
    rng: &dyn Rng,
) -> Result<(StoredTenantKey, TenantKey), KeyError> {
    let failed = KeyError::opening("tenant key");
    let key = TenantKey::generate(rng).map_err(&failed)?;
    let aad = context::wrapped_tenant_key(&realm.vault, tenant, version, REGION_ROOT, &slot.page, slot.slot);
    let stored = StoredTenantKey {
        version,
        root_id: REGION_ROOT.to_owned(),
        region_page: slot.page,
        slot: slot.slot,
        wrapped: aead::wrap(&slot.key, key.expose(), &aad, rng).map_err(&failed)?,
        commitment: key.commitment(),
    };
    Ok((stored, key))
}

fn new_keyring(rng: &dyn Rng) -> Result<SecretBytes, KeyError> {
    let failed = KeyError::opening("tenant keyring");
    let index_key = IndexKey::generate(rng).map_err(&failed)?;
    let request_key = RequestKey::generate(rng).map_err(&failed)?;
    let keyring = storage::TenantKeyring {
        index_key: index_key.expose().to_vec().into(),
        index_key_generation: 1,
        request_key: request_key.expose().to_vec().into(),
        next_index_key: Default::default(),
    };
    Ok(SecretBytes::from_vec(keyring.encode_to_vec()))
}

fn seal_keyring(
    realm: &Realm,
    tenant: &TenantId,
    version: u64,
    key: &TenantKey,
    keyring: &SecretBytes,
    rng: &dyn Rng,
) -> Result<Vec<u8>, KeyError> {
    let aad = context::tenant_keyring(&realm.vault, tenant, version);
    aead::wrap(&kdf::tenant_keyring_key(key), keyring.expose(), &aad, rng)
        .map_err(KeyError::opening("tenant keyring"))
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
    /// The whole keyring, to be sealed under the next version.
    keyring: SecretBytes,
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
            keyring: opened,
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

    /// Seals a state as the generation after `before`.
    pub(super) fn seal_page(
        &self,
        realm: &Realm,
        tenant: &TenantId,
        page: &PageId,
        before: &StoredPage,
        state: &PageState,
        rng: &dyn Rng,
    ) -> Result<StoredPage, KeyError> {
        let generation = before.generation + 1;
        let aad = context::tenant_page_state(&realm.vault, tenant, page, generation, self.version);
        let seal = |state: &[u8]| aead::wrap(&self.page_key, state, &aad, rng);
        resealed(seal, self.version, before, state)
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
