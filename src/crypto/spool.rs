//! Seals the records of an unfinished upload's files: AES-256-GCM by ring, for content passes through here.
//!
//! The bytes are those of [`super::aead`]: nonce (12, random), ciphertext, tag (16). A random 96-bit nonce allows 2^32 records of
//! one upload (NIST SP 800-38D section 8.3); 64 GiB in pieces of a second each, or of 64 KiB, are a thousandth of that.

use super::{
    CryptoError,
    bulk::{BulkKey, NONCE_LEN, TAG_LEN},
    secret::{Secret, SpoolKey},
};
use crate::domain::clock::Rng;

/// Bytes that [`seal`] adds.
pub const OVERHEAD: usize = NONCE_LEN + TAG_LEN;

/// Appends `text`, sealed and bound to `aad`, to `out`.
///
/// # Errors
/// [`CryptoError::Rng`] if there is no randomness for the nonce.
pub fn seal(
    key: &SpoolKey,
    text: &[u8],
    aad: &[u8],
    rng: &dyn Rng,
    out: &mut Vec<u8>,
) -> Result<(), CryptoError> {
    let mut nonce = [0; NONCE_LEN];
    rng.fill(&mut nonce)?;
    out.extend_from_slice(&nonce);
    let start = out.len();
    out.extend_from_slice(text);
    let tag = cipher(key)?.seal(nonce, aad, &mut out[start..])?;
    out.extend_from_slice(&tag);
    Ok(())
}

/// Opens what [`seal`] made, in place, and returns the text.
///
/// # Errors
/// [`CryptoError::Unauthentic`] if key, `aad` or any bit of `sealed` differs, or it is too short to be anything.
pub fn open<'a>(key: &SpoolKey, sealed: &'a mut [u8], aad: &[u8]) -> Result<&'a mut [u8], CryptoError> {
    let (nonce, sealed) = sealed
        .split_first_chunk_mut::<NONCE_LEN>()
        .ok_or(CryptoError::Unauthentic)?;
    cipher(key)?.open(*nonce, aad, sealed)
}

fn cipher(key: &SpoolKey) -> Result<BulkKey, CryptoError> {
    BulkKey::new(&Secret::from_bytes(*key.expose()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{aead, rng::SystemRng};

    #[test]
    fn it_is_the_same_format_as_a_wrap_by_another_engine() {
        let (key, rng) = (SpoolKey::from_bytes([4; 32]), SystemRng::new());
        let mut sealed = Vec::new();
        seal(&key, b"text", b"aad", &rng, &mut sealed).unwrap();
        assert_eq!(aead::unwrap_to(&key, &sealed, b"aad").unwrap().expose(), b"text");
        let mut wrapped = aead::wrap(&key, b"text", b"aad", &rng).unwrap();
        assert_eq!(open(&key, &mut wrapped, b"aad").unwrap(), b"text");
    }

    #[test]
    fn wrong_key_wrong_aad_and_short_are_one_error() {
        let (key, rng) = (SpoolKey::from_bytes([4; 32]), SystemRng::new());
        let mut sealed = Vec::new();
        seal(&key, b"text", b"aad", &rng, &mut sealed).unwrap();
        let wrong = SpoolKey::from_bytes([5; 32]);
        for (key, length, aad) in [
            (&wrong, 32, b"aad"),
            (&key, 32, b"aae"),
            (&key, 27, b"aad"),
            (&key, 0, b"aad"),
        ] {
            let mut bytes = sealed[..length].to_vec();
            assert_eq!(open(key, &mut bytes, aad).err(), Some(CryptoError::Unauthentic));
        }
    }
}
