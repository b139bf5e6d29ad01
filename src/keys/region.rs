//! The region's own keys: the epoch, what signs, what authenticates rows.

use prost::Message;

use crate::{
    crypto::{
        aead, context, kdf,
        page::PageState,
        secret::{EpochKey, RowMacKey, Secret, SecretBytes},
        sign::SigningKey,
    },
    domain::{
        clock::{Rng, Timestamp},
        ids::PageId,
    },
    proto::storage,
};

use super::{KeyError, Realm, fresh_page, store::StoredPage};

/// An opened epoch and the keyring sealed under it.
#[derive(Debug)]
pub struct RegionKeys {
    epoch: u64,
    page_key: Secret<32>,
    signing: SigningKey,
    row_mac: RowMacKey,
    manifest_sha256: [u8; 32],
}

impl RegionKeys {
    /// Makes a keyring for a new region and seals it under the epoch.
    ///
    /// # Errors
    /// [`KeyError::Rng`] without randomness.
    pub fn create(
        realm: &Realm,
        epoch: u64,
        key: &EpochKey,
        manifest_sha256: &[u8; 32],
        now: Timestamp,
        rng: &dyn Rng,
    ) -> Result<(Self, Vec<u8>), KeyError> {
        let seed = Secret::<32>::generate(rng).map_err(KeyError::opening("signing key"))?;
        let row_mac = RowMacKey::generate(rng).map_err(KeyError::opening("row key"))?;
        let signing = SigningKey::from_seed(&seed).map_err(KeyError::opening("signing key"))?;
        let keyring = SecretBytes::from_vec(
            storage::RegionKeyring {
                signing_keys: vec![storage::SigningKey {
                    kid: signing.kid(),
                    seed: seed.expose().to_vec().into(),
                    created_micros: now.micros(),
                }],
                row_mac_key: row_mac.expose().to_vec().into(),
                manifest_sha256: manifest_sha256.to_vec().into(),
            }
            .encode_to_vec(),
        );
        let aad = context::region_keyring(&realm.vault, &realm.region, epoch);
        let sealed = aead::wrap(&kdf::region_keyring_key(key), keyring.expose(), &aad, rng)
            .map_err(KeyError::opening("region keyring"))?;
        Ok((
            Self {
                epoch,
                page_key: kdf::region_page_key(key),
                signing,
                row_mac,
                manifest_sha256: *manifest_sha256,
            },
            sealed,
        ))
    }

    /// Opens the keyring sealed under an epoch.
    ///
    /// # Errors
    /// [`KeyError::Corrupt`] if it does not authenticate under this epoch of this vault and region.
    pub fn open(realm: &Realm, epoch: u64, key: &EpochKey, sealed: &[u8]) -> Result<Self, KeyError> {
        let corrupt = || KeyError::Corrupt("region keyring");
        let aad = context::region_keyring(&realm.vault, &realm.region, epoch);
        let opened = aead::unwrap_to(&kdf::region_keyring_key(key), sealed, &aad)
            .map_err(KeyError::opening("region keyring"))?;
        let keyring = storage::RegionKeyring::decode(opened.expose()).map_err(|_| corrupt())?;
        let newest = keyring.signing_keys.last().ok_or_else(corrupt)?;
        let seed = Secret::<32>::from_slice(&newest.seed).map_err(|_| corrupt())?;
        let signing = SigningKey::from_seed(&seed).map_err(|_| corrupt())?;
        let row_mac = RowMacKey::from_slice(&keyring.row_mac_key).map_err(|_| corrupt())?;
        Ok(Self {
            epoch,
            page_key: kdf::region_page_key(key),
            signing,
            row_mac,
            manifest_sha256: keyring.manifest_sha256[..].try_into().map_err(|_| corrupt())?,
        })
    }

    /// The epoch that is open.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// What signs checkpoints.
    pub fn signing(&self) -> &SigningKey {
        &self.signing
    }

    /// SHA-256 of the bucket's manifest: the keyring is what vouches for it.
    pub fn manifest_sha256(&self) -> &[u8; 32] {
        &self.manifest_sha256
    }

    /// What authenticates index rows and page tokens.
    pub fn row_mac(&self) -> &RowMacKey {
        &self.row_mac
    }

    pub(super) fn new_page(
        &self,
        realm: &Realm,
        page: &PageId,
        rng: &dyn Rng,
    ) -> Result<StoredPage, KeyError> {
        let aad = context::region_page_state(&realm.vault, &realm.region, page, 1, self.epoch);
        let seal = |state: &[u8]| aead::wrap(&self.page_key, state, &aad, rng);
        fresh_page(seal, self.epoch, "", 0, rng)
    }

    pub(super) fn open_page(
        &self,
        realm: &Realm,
        page: &PageId,
        stored: &StoredPage,
    ) -> Result<PageState, KeyError> {
        let aad = context::region_page_state(
            &realm.vault,
            &realm.region,
            page,
            stored.generation,
            stored.key_version,
        );
        let state = aead::unwrap_to(&self.page_key, &stored.sealed_state, &aad)
            .map_err(KeyError::opening("region page"))?;
        PageState::from_bytes(state.expose()).map_err(KeyError::opening("region page"))
    }
}
