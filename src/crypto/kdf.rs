//! All key derivation, on one page.
//!
//! | from | label | gives |
//! |---|---|---|
//! | DEK | `callvault/v1/content` | [`ContentKey`] |
//! | DEK | `callvault/v1/descriptor` | [`DescriptorKey`] |
//! | DEK | `callvault/v1/payload` | key of a payload object |
//! | DEK | `callvault/v1/spool` | [`SpoolKey`] |
//! | DEK | `callvault/v1/fingerprint` | [`FingerprintKey`] |
//! | DEK, tenant key | `callvault/v1/commitment` | commitment, stored beside the wrap |
//! | tenant key | `callvault/v1/tenant-page` | key of the tenant's page states |
//! | tenant key | `callvault/v1/tenant-keyring` | key of the tenant's keyring |
//! | epoch key | `callvault/v1/region-page` | key of the region's page states |
//! | epoch key | `callvault/v1/region-keyring` | key of the region's keyring |
//! | signing seed | `callvault/v1/certificate-signing` | seed of the key that signs certificates |
//! | content key | the extent's associated data; salt from its header | key of one extent |
//!
//! Everything is HKDF-SHA256 with 32 bytes of output; the label is `info` as it stands, the salt is empty but for extents.
//! No key is used for two things, and none that is derived from is used itself, but for the signing seed: Ed25519 hashes it
//! before it signs (RFC 8032), so what signs checkpoints is as far from it as what is derived here.

use ring::hmac;
use subtle::ConstantTimeEq;

use super::{
    CryptoError, aead,
    secret::{
        ContentKey, Dek, DescriptorKey, EpochKey, FingerprintKey, Secret, SecretBytes, SlotKey, SpoolKey,
        TenantKey,
    },
};

const CONTENT: &str = "callvault/v1/content";
const DESCRIPTOR: &str = "callvault/v1/descriptor";
const PAYLOAD: &str = "callvault/v1/payload";
const SPOOL: &str = "callvault/v1/spool";
const FINGERPRINT: &str = "callvault/v1/fingerprint";
const COMMITMENT: &str = "callvault/v1/commitment";
const TENANT_PAGE: &str = "callvault/v1/tenant-page";
const TENANT_KEYRING: &str = "callvault/v1/tenant-keyring";
const REGION_PAGE: &str = "callvault/v1/region-page";
const REGION_KEYRING: &str = "callvault/v1/region-keyring";
const CERTIFICATE_SIGNING: &str = "callvault/v1/certificate-signing";

/// What a record's DEK opens.
#[derive(Debug)]
pub struct DekKeys {
    /// Seals the record's extents.
    pub content: ContentKey,
    /// Seals the record's descriptors, of every version.
    pub descriptor: DescriptorKey,
}

impl DekKeys {
    /// Derives both keys.
    pub fn derive(dek: &Dek) -> Self {
        Self {
            content: labelled(dek.expose(), CONTENT).into(),
            descriptor: labelled(dek.expose(), DESCRIPTOR).into(),
        }
    }
}

impl Dek {
    /// What is stored beside the wrap, so that it opens to one key only: GCM alone does not commit to its key.
    ///
    /// Source: Albertini et al., "How to Abuse and Fix Authenticated Encryption Without Key Commitment", section 5.
    pub fn commitment(&self) -> [u8; 32] {
        commitment(self.expose())
    }
}

impl TenantKey {
    /// As [`Dek::commitment`], for a tenant key's wrap.
    pub fn commitment(&self) -> [u8; 32] {
        commitment(self.expose())
    }
}

/// Key of a payload object: its own DEK's, or its record's.
pub fn payload_key(dek: &Dek) -> Secret<32> {
    labelled(dek.expose(), PAYLOAD)
}

/// Key of what an unfinished upload keeps in the data directory.
pub fn spool_key(dek: &Dek) -> SpoolKey {
    labelled(dek.expose(), SPOOL).into()
}

/// Key of the fingerprints of requests about a record: what they asked for dies with the record.
pub fn fingerprint_key(dek: &Dek) -> FingerprintKey {
    labelled(dek.expose(), FINGERPRINT).into()
}

/// Key that seals the states of a tenant's pages.
pub fn tenant_page_key(key: &TenantKey) -> Secret<32> {
    labelled(key.expose(), TENANT_PAGE)
}

/// Key that seals a tenant's keyring.
pub fn tenant_keyring_key(key: &TenantKey) -> Secret<32> {
    labelled(key.expose(), TENANT_KEYRING)
}

/// Key that seals the states of a region's pages.
pub fn region_page_key(key: &EpochKey) -> Secret<32> {
    labelled(key.expose(), REGION_PAGE)
}

/// Key that seals a region's keyring.
pub fn region_keyring_key(key: &EpochKey) -> Secret<32> {
    labelled(key.expose(), REGION_KEYRING)
}

/// Seed of the key that signs certificates, from that of the key that signs logs.
pub fn certificate_seed(signing_seed: &Secret<32>) -> Secret<32> {
    labelled(signing_seed.expose(), CERTIFICATE_SIGNING)
}

/// Key of one extent: `salt` from its header, `aad` its associated data.
///
/// Source: Tink AES-GCM-HKDF streaming, key derivation.
pub(super) fn extent_key(content: &ContentKey, salt: &[u8; 32], aad: &[u8]) -> Secret<32> {
    hkdf(content.expose(), salt, aad)
}

/// Unwraps a DEK and makes sure that it is the one committed to.
///
/// # Errors
/// [`CryptoError::Unauthentic`] if the wrap does not open or opens to another key.
pub fn open_dek(
    slot_key: &SlotKey,
    wrapped: &[u8],
    aad: &[u8],
    commitment: &[u8],
) -> Result<Dek, CryptoError> {
    let dek = Dek::from_slice(unwrap_key(slot_key, wrapped, aad)?.expose())?;
    same(&dek.commitment(), commitment)?;
    Ok(dek)
}

/// Unwraps a tenant key and makes sure that it is the one committed to.
///
/// # Errors
/// [`CryptoError::Unauthentic`] if the wrap does not open or opens to another key.
pub fn open_tenant_key(
    slot_key: &SlotKey,
    wrapped: &[u8],
    aad: &[u8],
    commitment: &[u8],
) -> Result<TenantKey, CryptoError> {
    let key = TenantKey::from_slice(unwrap_key(slot_key, wrapped, aad)?.expose())?;
    same(&key.commitment(), commitment)?;
    Ok(key)
}

fn unwrap_key(slot_key: &SlotKey, wrapped: &[u8], aad: &[u8]) -> Result<SecretBytes, CryptoError> {
    let key = aead::unwrap_to(slot_key, wrapped, aad)?;
    if key.len() == 32 {
        Ok(key)
    } else {
        Err(CryptoError::Unauthentic)
    }
}

fn same(computed: &[u8; 32], stored: &[u8]) -> Result<(), CryptoError> {
    if bool::from(computed.as_slice().ct_eq(stored)) {
        Ok(())
    } else {
        Err(CryptoError::Unauthentic)
    }
}

/// No secret: it is stored in the clear.
fn commitment(key: &[u8; 32]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(hkdf_block(key, &[], COMMITMENT.as_bytes()).as_ref());
    out
}

fn labelled(key: &[u8; 32], label: &str) -> Secret<32> {
    hkdf(key, &[], label.as_bytes())
}

/// HKDF-SHA256 with 32 bytes of output: one block of expansion, so that it cannot fail.
///
/// Source: RFC 5869 sections 2.2, 2.3.
fn hkdf(ikm: &[u8], salt: &[u8], info: &[u8]) -> Secret<32> {
    Secret::filled_by(|out| out.copy_from_slice(hkdf_block(ikm, salt, info).as_ref()))
}

fn hkdf_block(ikm: &[u8], salt: &[u8], info: &[u8]) -> hmac::Tag {
    let extracted = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, salt), ikm);
    let mut expand = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, extracted.as_ref()));
    expand.update(info);
    expand.update(&[1]);
    expand.sign()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::crypto::rng::SystemRng;

    proptest! {
        #[test]
        fn hkdf_is_rings(ikm: [u8; 32], salt: Vec<u8>, info: Vec<u8>) {
            let mut expected = [0; 32];
            ring::hkdf::Salt::new(ring::hkdf::HKDF_SHA256, &salt)
                .extract(&ikm)
                .expand(&[&info], ring::hkdf::HKDF_SHA256)
                .unwrap()
                .fill(&mut expected)
                .unwrap();
            prop_assert_eq!(*hkdf(&ikm, &salt, &info).expose(), expected);
        }
    }

    #[test]
    fn every_label_gives_another_key() {
        let (dek, tenant, epoch) = (
            Dek::from_bytes([5; 32]),
            TenantKey::from_bytes([5; 32]),
            EpochKey::from_bytes([5; 32]),
        );
        let keys = DekKeys::derive(&dek);
        let derived = BTreeSet::from([
            [5; 32],
            *keys.content.expose(),
            *keys.descriptor.expose(),
            dek.commitment(),
            *payload_key(&dek).expose(),
            *spool_key(&dek).expose(),
            *fingerprint_key(&dek).expose(),
            *tenant_page_key(&tenant).expose(),
            *tenant_keyring_key(&tenant).expose(),
            *region_page_key(&epoch).expose(),
            *region_keyring_key(&epoch).expose(),
            *certificate_seed(&Secret::from_bytes([5; 32])).expose(),
        ]);
        assert_eq!(derived.len(), 12);
    }

    #[test]
    fn a_wrap_opens_to_the_key_committed_to_only() {
        let rng = SystemRng::new();
        let (slot, dek) = (SlotKey::generate(&rng).unwrap(), Dek::generate(&rng).unwrap());
        let wrapped = aead::wrap(&slot, dek.expose(), b"aad", &rng).unwrap();
        let opened = open_dek(&slot, &wrapped, b"aad", &dek.commitment()).unwrap();
        assert!(opened.ct_eq(&dek));

        let other = Dek::generate(&rng).unwrap().commitment();
        for commitment in [other.as_slice(), &dek.commitment()[..31], &[]] {
            assert_eq!(
                open_dek(&slot, &wrapped, b"aad", commitment).err(),
                Some(CryptoError::Unauthentic)
            );
        }
        let short = aead::wrap(&slot, &dek.expose()[..31], b"aad", &rng).unwrap();
        assert_eq!(
            open_dek(&slot, &short, b"aad", &dek.commitment()).err(),
            Some(CryptoError::Unauthentic)
        );
    }
}
