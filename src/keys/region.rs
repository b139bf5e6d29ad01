//! The region's own keys: what signs, what authenticates rows; and epochs, each of which seals the region's pages.

use prost::Message;

use crate::{
    crypto::{
        aead, context, kdf,
        page::PageState,
        secret::{EpochKey, RowMacKey, Secret, SecretBytes},
        sign::{self, SigningKey},
    },
    domain::{
        clock::{Rng, Timestamp},
        ids::PageId,
    },
};

use super::{
    KeyError, Realm, fresh_page,
    keyring::{self, RegionKeyring},
    resealed,
    store::StoredPage,
};

/// Keys that outlive epochs. They travel sealed under the newest one.
#[derive(Debug)]
pub struct RegionKeys {
    signing: SigningKey,
    certificate_signing: SigningKey,
    signing_keys: Vec<SigningKeyInfo>,
    row_mac: RowMacKey,
    manifest_sha256: [u8; 32],
    /// The whole keyring, to be sealed under the next epoch.
    keyring: SecretBytes,
}

/// What a key signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SigningUse {
    /// Checkpoints of logs.
    LogCheckpoint,
    /// Certificates.
    Certificate,
}

/// A key that signs, as everybody may know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigningKeyInfo {
    /// What it signs.
    pub signing_use: SigningUse,
    /// Its name in signatures.
    pub kid: String,
    /// Ed25519.
    pub public_key: [u8; 32],
    /// When it was made.
    pub created: Timestamp,
}

/// An opened root epoch.
#[derive(Debug)]
pub struct EpochKeys {
    epoch: u64,
    page_key: Secret<32>,
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
        let keyring = RegionKeyring {
            signing_keys: vec![keyring::SigningKey {
                kid: signing.kid(),
                seed: seed.expose().to_vec(),
                created_micros: now.micros(),
            }],
            row_mac_key: row_mac.expose().to_vec(),
            manifest_sha256: manifest_sha256.to_vec(),
        };
        let keys = Self::from_keyring(SecretBytes::from_vec(keyring.encode_to_vec()))?;
        let sealed = keys.seal(realm, epoch, key, rng)?;
        Ok((keys, sealed))
    }

    /// Opens the keyring sealed under an epoch.
    ///
    /// # Errors
    /// [`KeyError::Corrupt`] if it does not authenticate under this epoch of this vault and region.
    pub fn open(realm: &Realm, epoch: u64, key: &EpochKey, sealed: &[u8]) -> Result<Self, KeyError> {
        let aad = context::region_keyring(&realm.vault, &realm.region, epoch);
        let opened = aead::unwrap_to(&kdf::region_keyring_key(key), sealed, &aad)
            .map_err(KeyError::opening("region keyring"))?;
        Self::from_keyring(opened)
    }

    /// The same keyring, sealed under another epoch.
    ///
    /// # Errors
    /// [`KeyError::Rng`] without randomness.
    pub fn seal(
        &self,
        realm: &Realm,
        epoch: u64,
        key: &EpochKey,
        rng: &dyn Rng,
    ) -> Result<Vec<u8>, KeyError> {
        let aad = context::region_keyring(&realm.vault, &realm.region, epoch);
        aead::wrap(&kdf::region_keyring_key(key), self.keyring.expose(), &aad, rng)
            .map_err(KeyError::opening("region keyring"))
    }

    fn from_keyring(encoded: SecretBytes) -> Result<Self, KeyError> {
        let corrupt = || KeyError::Corrupt("region keyring");
        let keyring = RegionKeyring::decode(encoded.expose()).map_err(|_| corrupt())?;
        let open = |key: &keyring::SigningKey| -> Result<_, KeyError> {
            let seed = Secret::<32>::from_slice(&key.seed).map_err(|_| corrupt())?;
            let pair = |seed: &Secret<32>| SigningKey::from_seed(seed).map_err(|_| corrupt());
            Ok((pair(&seed)?, pair(&kdf::certificate_seed(&seed))?))
        };
        let mut signing_keys = Vec::with_capacity(2 * keyring.signing_keys.len());
        let mut last = None;
        for key in &keyring.signing_keys {
            let (log, certificate) = open(key)?;
            let created = Timestamp(key.created_micros);
            // The last of all is the one that signs logs, as it was before there were certificates.
            signing_keys.push(SigningKeyInfo {
                signing_use: SigningUse::Certificate,
                kid: sign::certificate_kid(&certificate.public_key()),
                public_key: certificate.public_key(),
                created,
            });
            signing_keys.push(SigningKeyInfo {
                signing_use: SigningUse::LogCheckpoint,
                kid: key.kid.clone(),
                public_key: log.public_key(),
                created,
            });
            last = Some((log, certificate));
        }
        let (signing, certificate_signing) = last.ok_or_else(corrupt)?;
        Ok(Self {
            signing,
            certificate_signing,
            signing_keys,
            row_mac: RowMacKey::from_slice(&keyring.row_mac_key).map_err(|_| corrupt())?,
            manifest_sha256: keyring.manifest_sha256[..].try_into().map_err(|_| corrupt())?,
            keyring: encoded,
        })
    }

    /// What signs checkpoints.
    pub fn signing(&self) -> &SigningKey {
        &self.signing
    }

    /// What signs certificates: derived from the seed of what signs checkpoints.
    pub fn certificate_signing(&self) -> &SigningKey {
        &self.certificate_signing
    }

    /// Every key that has signed checkpoints or certificates, oldest first; of each use the last one does.
    pub fn signing_keys(&self) -> &[SigningKeyInfo] {
        &self.signing_keys
    }

    /// SHA-256 of the bucket's manifest: the keyring is what vouches for it.
    pub fn manifest_sha256(&self) -> &[u8; 32] {
        &self.manifest_sha256
    }

    /// What authenticates index rows and page tokens.
    pub fn row_mac(&self) -> &RowMacKey {
        &self.row_mac
    }
}

impl EpochKeys {
    /// What an epoch key is used for.
    pub fn new(epoch: u64, key: &EpochKey) -> Self {
        Self {
            epoch,
            page_key: kdf::region_page_key(key),
        }
    }

    /// Which epoch it is.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether it was made of this key.
    pub(super) fn is_of(&self, key: &EpochKey) -> bool {
        self.page_key.ct_eq(&kdf::region_page_key(key))
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

    /// Seals a state as the generation after `before`.
    pub(super) fn seal_page(
        &self,
        realm: &Realm,
        page: &PageId,
        before: &StoredPage,
        state: &PageState,
        rng: &dyn Rng,
    ) -> Result<StoredPage, KeyError> {
        let generation = before.generation + 1;
        let aad = context::region_page_state(&realm.vault, &realm.region, page, generation, self.epoch);
        let seal = |state: &[u8]| aead::wrap(&self.page_key, state, &aad, rng);
        resealed(seal, self.epoch, before, state)
    }

    /// Whether a stored state of a page is one, under this epoch.
    ///
    /// # Errors
    /// [`KeyError::Corrupt`] if it does not authenticate.
    pub fn check_page(&self, realm: &Realm, page: &PageId, stored: &StoredPage) -> Result<(), KeyError> {
        self.open_page(realm, page, stored).map(|_| ())
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
