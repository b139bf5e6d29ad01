//! The public keys of an issuer: a JSON Web Key Set (RFC 7517).

use std::{collections::HashMap, fmt};

use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse},
};

/// Bytes of a set, 64 KiB: some dozens of keys.
pub const SET_BYTES: usize = 64 << 10;
/// Keys of a set.
const KEYS: usize = 64;

/// One key, and what it may verify.
pub(super) struct Key {
    pub(super) decoding: DecodingKey,
    algorithms: Vec<Algorithm>,
}

impl Key {
    pub(super) fn verifies(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }
}

/// Keys by their ids.
pub struct KeySet {
    named: HashMap<String, Key>,
    /// The one key of a set whose key has no id.
    only: Option<Key>,
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "KeySet({} keys)",
            self.named.len() + usize::from(self.only.is_some())
        )
    }
}

/// Why a text is no set of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// It is too long, or has too many keys.
    #[error("the key set is too large; at most 64 KiB and 64 keys")]
    TooLarge,
    /// It is no JSON of the right shape.
    #[error("the key set is not JSON as RFC 7517 has it")]
    Malformed,
    /// There is none that verifies signatures.
    #[error("the key set has no key that verifies signatures (RSA, P-256, P-384 or Ed25519)")]
    Empty,
    /// Two keys cannot be told apart.
    #[error("two keys of the key set have one id, or none")]
    Ambiguous,
}

impl KeySet {
    /// Keys of kinds that are not known, for encryption, or with a shared secret are passed over.
    ///
    /// # Errors
    /// [`KeySetError`].
    pub fn parse(text: &[u8]) -> Result<Self, KeySetError> {
        #[derive(serde::Deserialize)]
        struct Set {
            keys: Vec<serde_json::Value>,
        }
        if text.len() > SET_BYTES {
            return Err(KeySetError::TooLarge);
        }
        let set: Set = serde_json::from_slice(text).map_err(|_| KeySetError::Malformed)?;
        if set.keys.len() > KEYS {
            return Err(KeySetError::TooLarge);
        }
        let listed = set.keys.len();
        let keys = set.keys.into_iter();
        let known: Vec<Jwk> = keys.filter_map(|key| serde_json::from_value(key).ok()).collect();
        let mut found = Self {
            named: HashMap::new(),
            only: None,
        };
        let mut nameless = 0;
        for jwk in known {
            let Some(key) = key(&jwk) else { continue };
            match jwk.common.key_id {
                Some(id) => {
                    if found.named.insert(id, key).is_some() {
                        return Err(KeySetError::Ambiguous);
                    }
                }
                None => {
                    nameless += 1;
                    found.only = Some(key);
                }
            }
        }
        match (found.named.len(), nameless) {
            // Every key was withdrawn; what has keys of none that is known is more likely a mistake.
            (0, 0) if listed == 0 => Ok(found),
            (0, 0) => Err(KeySetError::Empty),
            (0, 1) | (_, 0) => Ok(found),
            _ => Err(KeySetError::Ambiguous),
        }
    }

    /// The key of this id; without one, the only one there is.
    pub(super) fn find(&self, id: Option<&str>) -> Option<&Key> {
        match id {
            Some(id) => self.named.get(id).or(self.only.as_ref()),
            None if self.named.len() == 1 => self.named.values().next(),
            None => self.only.as_ref(),
        }
    }
}

fn key(jwk: &Jwk) -> Option<Key> {
    let signs = jwk
        .common
        .public_key_use
        .as_ref()
        .is_none_or(|purpose| *purpose == PublicKeyUse::Signature);
    let verifies = jwk
        .common
        .key_operations
        .as_ref()
        .is_none_or(|operations| operations.contains(&KeyOperations::Verify));
    if !signs || !verifies {
        return None;
    }
    let mut algorithms = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => vec![
            Algorithm::RS256,
            Algorithm::RS384,
            Algorithm::RS512,
            Algorithm::PS256,
            Algorithm::PS384,
            Algorithm::PS512,
        ],
        AlgorithmParameters::EllipticCurve(key) => match key.curve {
            EllipticCurve::P256 => vec![Algorithm::ES256],
            EllipticCurve::P384 => vec![Algorithm::ES384],
            _ => return None,
        },
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            vec![Algorithm::EdDSA]
        }
        AlgorithmParameters::OctetKeyPair(_) | AlgorithmParameters::OctetKey(_) => return None,
    };
    if let Some(stated) = jwk.common.key_algorithm {
        algorithms.retain(|algorithm| stated.to_string() == format!("{algorithm:?}"));
    }
    let decoding = DecodingKey::from_jwk(jwk).ok()?;
    (!algorithms.is_empty()).then_some(Key { decoding, algorithms })
}
