//! A tenant's keys: versions of the envelope key, the keyring beside it, and pages of slots.

use prost::Message;
use zeroize::Zeroize;

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
};

use super::{
    FreshSlot, KeyError, Realm, fresh_page,
    keyring::TenantKeyring,
    pending::Reservation,
    resealed,
    store::{StoredKeyring, StoredPage, StoredTenantKey},
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

/// Which index key the next version of a tenant's key seals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextIndexKey {
    /// The current one. One that is staged beside it is given up.
    Kept,
    /// The staged one of this generation, alone.
    Staged(u64),
}

/// The next version of a tenant's key, sealed; nothing of it is stored yet.
#[derive(Debug)]
pub struct NextVersion {
    /// The key, wrapped.
    pub key: StoredTenantKey,
    /// The tenant's keyring under it: what it held before, but for the index key.
    pub sealed_keyring: Vec<u8>,
    /// The keyring that it was made from, as it is stored.
    pub made_from: Vec<u8>,
    /// Generation of the index key that took over with it; 0 if none did.
    pub index_key_generation: u64,
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
        index_key: NextIndexKey,
        rng: &dyn Rng,
    ) -> Result<Self, KeyError> {
        let version = current.version + 1;
        let keyring = current.next_keyring(index_key)?;
        let (stored, key) = wrapped_key(realm, tenant, version, slot, rng)?;
        let sealed_keyring = seal_keyring(realm, tenant, version, &key, &keyring, rng)?;
        Ok(Self {
            key: stored,
            keys: TenantKeys::open(realm, tenant, version, &key, &sealed_keyring)?,
            sealed_keyring,
            reserved,
            made_from: current.sealed_keyring.clone(),
            index_key_generation: match index_key {
                NextIndexKey::Kept => 0,
                NextIndexKey::Staged(generation) => generation,
            },
        })
    }
}

/// A tenant's keyring with another index key beside the current one, sealed; not stored yet.
#[derive(Debug)]
pub struct StagedKeyring {
    /// Under the current version of the tenant's key.
    pub sealed: Vec<u8>,
    /// The keyring that it was made from, as it is stored.
    pub made_from: Vec<u8>,
    /// Generation of the current index key.
    pub generation: u64,
    /// Generation of the other one: higher than that of any before it.
    pub next_generation: u64,
}

impl StagedKeyring {
    pub(super) fn generate(
        realm: &Realm,
        tenant: &TenantId,
        key: &TenantKey,
        current: &TenantKeys,
        rng: &dyn Rng,
    ) -> Result<Self, KeyError> {
        let index_key = IndexKey::generate(rng).map_err(KeyError::opening("tenant keyring"))?;
        let next_generation = current.generation.max(current.last_generation) + 1;
        let mut keyring = current.decoded_keyring()?;
        keyring.next_index_key.zeroize();
        keyring.next_index_key = index_key.expose().to_vec();
        keyring.next_index_key_generation = next_generation;
        let keyring = SecretBytes::from_vec(keyring.encode_to_vec());
        Ok(Self {
            sealed: seal_keyring(realm, tenant, current.version, key, &keyring, rng)?,
            made_from: current.sealed_keyring.clone(),
            generation: current.generation,
            next_generation,
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
    let keyring = TenantKeyring {
        index_key: index_key.expose().to_vec(),
        index_key_generation: 1,
        request_key: request_key.expose().to_vec(),
        next_index_key: Vec::new(),
        next_index_key_generation: 0,
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
    /// Of the index key, from 1.
    generation: u64,
    /// While identifiers are blinded under another one as well.
    next_index_key: Option<IndexKey>,
    /// Of the next index key, or of the last one that was given up; 0 if there never was one.
    last_generation: u64,
    request_key: RequestKey,
    /// The whole keyring, to be sealed under the next version.
    keyring: SecretBytes,
    /// As it is stored: it may change while the version stays.
    sealed_keyring: Vec<u8>,
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
        let keyring =
            TenantKeyring::decode(opened.expose()).map_err(|_| KeyError::Corrupt("tenant keyring"))?;
        Ok(Self {
            version,
            page_key: kdf::tenant_page_key(key),
            index_key: IndexKey::from_slice(&keyring.index_key).map_err(corrupt)?,
            generation: keyring.index_key_generation.max(1),
            next_index_key: match &keyring.next_index_key[..] {
                [] => None,
                key => Some(IndexKey::from_slice(key).map_err(corrupt)?),
            },
            last_generation: keyring.next_index_key_generation,
            request_key: RequestKey::from_slice(&keyring.request_key).map_err(corrupt)?,
            keyring: opened,
            sealed_keyring: sealed_keyring.to_vec(),
        })
    }

    /// Whether these are the keys that are stored.
    pub(super) fn are(&self, stored: &StoredKeyring) -> bool {
        self.version == stored.key_version && self.sealed_keyring == stored.sealed
    }

    fn decoded_keyring(&self) -> Result<TenantKeyring, KeyError> {
        TenantKeyring::decode(self.keyring.expose()).map_err(|_| KeyError::Corrupt("tenant keyring"))
    }

    /// What the next version seals.
    fn next_keyring(&self, index_key: NextIndexKey) -> Result<SecretBytes, KeyError> {
        let mut next = self.decoded_keyring()?;
        // Either goes with the message, which zeroises.
        if let NextIndexKey::Staged(generation) = index_key {
            if self.next_index_key.is_none() || generation != self.last_generation {
                return Err(KeyError::Superseded);
            }
            let message = &mut next;
            std::mem::swap(&mut message.index_key, &mut message.next_index_key);
            next.index_key_generation = generation;
            next.next_index_key_generation = 0;
        }
        next.next_index_key.zeroize();
        Ok(SecretBytes::from_vec(next.encode_to_vec()))
    }

    /// Which version this is.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Blinds searchable identifiers.
    pub fn index_key(&self) -> &IndexKey {
        &self.index_key
    }

    /// Blinds them as well, while a new index key is about to take over.
    pub fn next_index_key(&self) -> Option<&IndexKey> {
        self.next_index_key.as_ref()
    }

    /// Generations of the index key and of the next one; the latter is 0 while there is none.
    pub fn blinding(&self) -> (u64, u64) {
        let next = self.next_index_key.as_ref().map_or(0, |_| self.last_generation);
        (self.generation, next)
    }

    /// Whether there has ever been another index key beside the first.
    pub fn was_reblinded(&self) -> bool {
        self.generation > 1 || self.last_generation > 0
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        crypto::rng::SystemRng,
        domain::ids::{RegionName, VaultId},
        keys::pending::Pending,
    };

    fn slot(rng: &dyn Rng, slot: u16) -> FreshSlot {
        FreshSlot {
            page: PageId::mint(Timestamp(1), rng).unwrap(),
            slot,
            key: SlotKey::from_bytes([7; 32]),
        }
    }

    fn holds(keys: &TenantKeys, secret: &[u8]) -> bool {
        keys.keyring.expose().windows(32).any(|bytes| bytes == secret)
    }

    #[test]
    fn the_keyring_of_the_next_version_holds_one_index_key() {
        let rng = SystemRng::new();
        let realm = Realm {
            vault: VaultId::mint(Timestamp(1), &rng).unwrap(),
            region: "test-1".parse::<RegionName>().unwrap(),
        };
        let tenant: TenantId = "acme".parse().unwrap();
        let made = slot(&rng, 0);
        let pending = Pending::default();
        let reserve = |slot: &FreshSlot| pending.reserve(slot.page, slot.slot);
        let new = NewTenant::generate(&realm, &tenant, &made, reserve(&made), Timestamp(1), &rng).unwrap();
        let key = open_key(&realm, &tenant, &new.key, &made.key).unwrap();
        let first = new.keys.index_key().expose().to_vec();
        let staged = StagedKeyring::generate(&realm, &tenant, &key, &new.keys, &rng).unwrap();
        let keys = TenantKeys::open(&realm, &tenant, 1, &key, &staged.sealed).unwrap();
        assert_eq!((new.keys.blinding(), keys.blinding()), ((1, 0), (1, 2)));
        let second = keys.next_index_key().unwrap().expose().to_vec();
        assert!(holds(&keys, &first) && holds(&keys, &second) && first != second);
        let next = |keys: &TenantKeys, index_key| {
            let slot = slot(&rng, 1);
            let reserved = reserve(&slot);
            NextVersion::generate(&realm, &tenant, keys, &slot, reserved, index_key, &rng)
        };

        let switched = next(&keys, NextIndexKey::Staged(2)).unwrap();
        assert!(holds(&switched.keys, &second) && !holds(&switched.keys, &first));
        assert_eq!(switched.keys.blinding(), (2, 0));
        let kept = next(&keys, NextIndexKey::Kept).unwrap();
        assert!(holds(&kept.keys, &first) && !holds(&kept.keys, &second));
        assert_eq!(kept.keys.blinding(), (1, 0));
        for refused in [(&new.keys, 2), (&keys, 3), (&kept.keys, 2), (&switched.keys, 2)] {
            let refused = next(refused.0, NextIndexKey::Staged(refused.1));
            assert!(matches!(refused, Err(KeyError::Superseded)));
        }
        // No generation comes twice.
        let again = StagedKeyring::generate(&realm, &tenant, &key, &keys, &rng).unwrap();
        assert_eq!(again.next_generation, 3);
    }
}
