//! Wraps keys and seals small things: AES-256-GCM by RustCrypto, whose key schedule zeroises itself.
//!
//! | bytes | field |
//! |---|---|
//! | 12 | nonce, random |
//! | n | ciphertext, as long as the plaintext |
//! | 16 | tag |
//!
//! A random 96-bit nonce allows 2^32 messages of one key (NIST SP 800-38D section 8.3). A slot key wraps one thing; a key
//! derived from a tenant or epoch key seals a few thousand page states before it is rotated.

use aes_gcm::{Aes256Gcm, Nonce, Tag, aead::AeadInOut, aead::KeyInit};

use super::{
    CryptoError,
    secret::{KeyBytes, SecretBytes},
};
use crate::domain::clock::Rng;

/// Bytes that [`wrap`] adds: nonce and tag.
pub const OVERHEAD: usize = NONCE_LEN + TAG_LEN;

const NONCE_LEN: usize = 12;
const TAG_LEN: usize = 16;

/// Wraps or seals `plaintext` under `key`, bound to `aad`.
///
/// Returns nonce, ciphertext and tag: [`OVERHEAD`] bytes more than `plaintext`.
///
/// # Errors
/// [`CryptoError::Rng`] if there is no randomness for the nonce; [`CryptoError::TooLong`] above 64 GiB.
///
/// Source: NIST SP 800-38D sections 7.1, 8.2.2.
pub fn wrap(
    key: &impl KeyBytes,
    plaintext: &[u8],
    aad: &[u8],
    rng: &dyn Rng,
) -> Result<Vec<u8>, CryptoError> {
    let mut nonce = [0; NONCE_LEN];
    rng.fill(&mut nonce)?;
    let mut sealed = Vec::with_capacity(OVERHEAD + plaintext.len());
    sealed.extend_from_slice(&nonce);
    sealed.extend_from_slice(plaintext);
    let tag = cipher(key)
        .encrypt_inout_detached(&Nonce::from(nonce), aad, (&mut sealed[NONCE_LEN..]).into())
        .map_err(|_| CryptoError::TooLong)?;
    sealed.extend_from_slice(&tag);
    Ok(sealed)
}

/// Unwraps or opens what [`wrap`] made.
///
/// # Errors
/// [`CryptoError::Unauthentic`] if key, `aad` or any bit of `sealed` differs, or it is too short to be anything.
pub fn unwrap_to(key: &impl KeyBytes, sealed: &[u8], aad: &[u8]) -> Result<SecretBytes, CryptoError> {
    let unauthentic = CryptoError::Unauthentic;
    let (nonce, rest) = sealed.split_first_chunk::<NONCE_LEN>().ok_or(unauthentic)?;
    let (ciphertext, tag) = rest.split_last_chunk::<TAG_LEN>().ok_or(unauthentic)?;
    let mut plaintext = ciphertext.to_vec();
    cipher(key)
        .decrypt_inout_detached(
            &Nonce::from(*nonce),
            aad,
            plaintext.as_mut_slice().into(),
            &Tag::from(*tag),
        )
        .map_err(|_| unauthentic)?;
    Ok(SecretBytes::from_vec(plaintext))
}

fn cipher(key: &impl KeyBytes) -> Aes256Gcm {
    Aes256Gcm::new(key.key_bytes().into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::crypto::rng::SystemRng;

    proptest! {
        #[test]
        fn opens_what_it_sealed(plaintext: Vec<u8>, aad: Vec<u8>, key: [u8; 32]) {
            let sealed = wrap(&key, &plaintext, &aad, &SystemRng::new()).unwrap();
            prop_assert_eq!(sealed.len(), plaintext.len() + OVERHEAD);
            let opened = unwrap_to(&key, &sealed, &aad).unwrap();
            prop_assert_eq!(opened.expose(), plaintext.as_slice());
        }

        #[test]
        fn any_flipped_bit_shows(plaintext: Vec<u8>, at: prop::sample::Index, bit in 0..8u32) {
            let key = [3; 32];
            let mut sealed = wrap(&key, &plaintext, b"aad", &SystemRng::new()).unwrap();
            let at = at.index(sealed.len());
            sealed[at] ^= 1 << bit;
            prop_assert_eq!(unwrap_to(&key, &sealed, b"aad").err(), Some(CryptoError::Unauthentic));
        }
    }

    #[test]
    fn wrong_key_wrong_aad_and_short_are_one_error() {
        let sealed = wrap(&[1; 32], b"key", b"aad", &SystemRng::new()).unwrap();
        for (key, sealed, aad) in [
            ([2; 32], sealed.as_slice(), b"aad".as_slice()),
            ([1; 32], &sealed, b"aae"),
            ([1; 32], &sealed[..OVERHEAD - 1], b"aad"),
            ([1; 32], &[], b"aad"),
        ] {
            assert_eq!(unwrap_to(&key, sealed, aad).err(), Some(CryptoError::Unauthentic));
        }
    }
}
