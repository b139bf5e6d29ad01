//! Bulk AEAD: AES-256-GCM by ring, in place. The only file that calls it, so that another engine can be tried.
//!
//! ring does not zeroise its key schedule: `SECURITY.md` says so. Keys that come here seal one extent, or what one unfinished
//! upload keeps in the data directory.

use std::fmt;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use super::{CryptoError, secret::Secret};

/// Bytes of an authentication tag.
pub(super) const TAG_LEN: usize = 16;
/// Bytes of a nonce.
pub(super) const NONCE_LEN: usize = 12;

/// A key set up for bulk work. The caller answers for its nonces.
pub(super) struct BulkKey(LessSafeKey);

impl BulkKey {
    /// Expands `key`.
    ///
    /// # Errors
    /// [`CryptoError::Malformed`], never in practice: 32 bytes are a key.
    pub(super) fn new(key: &Secret<32>) -> Result<Self, CryptoError> {
        let unbound = UnboundKey::new(&AES_256_GCM, key.expose());
        let unbound = unbound.map_err(|_| CryptoError::Malformed("bulk key"))?;
        Ok(Self(LessSafeKey::new(unbound)))
    }

    /// Seals `text` in place, bound to `aad`, and returns its tag. `nonce` must never come again under this key.
    ///
    /// # Errors
    /// [`CryptoError::TooLong`] above 64 GiB.
    pub(super) fn seal(
        &self,
        nonce: [u8; NONCE_LEN],
        aad: &[u8],
        text: &mut [u8],
    ) -> Result<[u8; TAG_LEN], CryptoError> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self.0.seal_in_place_separate_tag(nonce, Aad::from(aad), text);
        let tag = tag.map_err(|_| CryptoError::TooLong)?;
        tag.as_ref().try_into().map_err(|_| CryptoError::Malformed("tag"))
    }

    /// Opens `sealed`, ciphertext then tag, in place, and returns the plaintext at its front.
    ///
    /// # Errors
    /// [`CryptoError::Unauthentic`] if key, nonce, `aad` or any bit differs; `sealed` holds nothing of use then.
    pub(super) fn open<'a>(
        &self,
        nonce: [u8; NONCE_LEN],
        aad: &[u8],
        sealed: &'a mut [u8],
    ) -> Result<&'a mut [u8], CryptoError> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let opened = self.0.open_in_place(nonce, Aad::from(aad), sealed);
        opened.map_err(|_| CryptoError::Unauthentic)
    }
}

impl fmt::Debug for BulkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BulkKey(32 bytes)")
    }
}
