//! Ed25519 signatures of checkpoints and certificates (RFC 8032), by ring.

use std::fmt;

use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

use super::{CryptoError, context::sha256, secret::Secret};

/// A key pair. ring does not zeroise it: it lives as long as the process signs.
pub struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    /// From its seed, as a keyring holds it.
    ///
    /// # Errors
    /// [`CryptoError::Malformed`], never in practice: any 32 bytes are a seed.
    pub fn from_seed(seed: &Secret<32>) -> Result<Self, CryptoError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.expose());
        pair.map(Self).map_err(|_| CryptoError::Malformed("signing seed"))
    }

    /// The public key, as it is published.
    pub fn public_key(&self) -> [u8; 32] {
        let mut out = [0; 32];
        out.copy_from_slice(self.0.public_key().as_ref());
        out
    }

    /// Signs `message` (pure Ed25519, no prehash).
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let mut out = [0; 64];
        out.copy_from_slice(self.0.sign(message).as_ref());
        out
    }

    /// This key's name in signatures.
    pub fn kid(&self) -> String {
        kid(&self.public_key())
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.kid())
    }
}

/// Name of a public key: the first 8 bytes of its SHA-256, in hex.
pub fn kid(public: &[u8; 32]) -> String {
    hex::encode(&sha256(public)[..8])
}

/// Name of a public key that signs certificates: it is never taken for one that signs logs.
pub fn certificate_kid(public: &[u8; 32]) -> String {
    format!("cert-{}", kid(public))
}

/// Verifies a signature.
///
/// # Errors
/// [`CryptoError::Unauthentic`] unless `signature` is `public`'s of `message`.
pub fn verify(public: &[u8; 32], message: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
    let key = UnparsedPublicKey::new(&ED25519, public);
    key.verify(message, signature)
        .map_err(|_| CryptoError::Unauthentic)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8032 section 7.1, test 2.
    #[test]
    fn signs_as_the_rfc_does() {
        let seed = hex::decode("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb").unwrap();
        let key = SigningKey::from_seed(&Secret::from_slice(&seed).unwrap()).unwrap();
        assert_eq!(
            hex::encode(key.public_key()),
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
        );
        assert_eq!(
            hex::encode(key.sign(&[0x72])),
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
             085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
        );
    }

    #[test]
    fn other_messages_keys_and_signatures_do_not_verify() {
        let key = SigningKey::from_seed(&Secret::from_bytes([1; 32])).unwrap();
        let other = SigningKey::from_seed(&Secret::from_bytes([2; 32])).unwrap();
        let signature = key.sign(b"checkpoint");
        assert_eq!(verify(&key.public_key(), b"checkpoint", &signature), Ok(()));
        assert!(verify(&key.public_key(), b"checkpoinT", &signature).is_err());
        assert!(verify(&other.public_key(), b"checkpoint", &signature).is_err());
        assert!(verify(&key.public_key(), b"checkpoint", &signature[..63]).is_err());
        assert_eq!(key.kid().len(), 16);
        assert_ne!(key.kid(), other.kid());
    }
}
