//! The keys that a vault publishes, as a JWK set (RFC 7517, RFC 8037).

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

/// What a key signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyUse {
    /// Checkpoints of logs.
    LogCheckpoint,
    /// Certificates.
    Certificate,
}

impl KeyUse {
    /// Its name in a key set.
    pub fn name(self) -> &'static str {
        match self {
            Self::LogCheckpoint => "log-checkpoint",
            Self::Certificate => "certificate",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::LogCheckpoint, Self::Certificate]
            .into_iter()
            .find(|key_use| key_use.name() == name)
    }

    /// The name of a key of this use in signatures: 8 bytes of its SHA-256 in hex, behind `cert-` if it signs certificates.
    pub fn kid(self, public_key: &[u8; 32]) -> String {
        let name = hex::encode(&digest(&SHA256, public_key).as_ref()[..8]);
        match self {
            Self::LogCheckpoint => name,
            Self::Certificate => format!("cert-{name}"),
        }
    }
}

/// A public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedKey {
    /// What it signs.
    pub key_use: KeyUse,
    /// Ed25519.
    pub public_key: [u8; 32],
}

/// The keys of a vault, past ones included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeySet(Vec<PublishedKey>);

/// A file that is not a set of a vault's keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a set of a vault's keys: {0}")]
pub struct MalformedKeys(&'static str);

impl KeySet {
    /// These keys.
    pub fn new(keys: Vec<PublishedKey>) -> Self {
        Self(keys)
    }

    /// All of them.
    pub fn keys(&self) -> &[PublishedKey] {
        &self.0
    }

    /// The keys that sign logs.
    pub fn log_keys(&self) -> impl Iterator<Item = &[u8; 32]> {
        let logs = self.0.iter().filter(|key| key.key_use == KeyUse::LogCheckpoint);
        logs.map(|key| &key.public_key)
    }

    /// The certificate key of this name.
    pub fn certificate_key(&self, kid: &str) -> Option<[u8; 32]> {
        let mut keys = self.0.iter().filter(|key| key.key_use == KeyUse::Certificate);
        keys.find(|key| KeyUse::Certificate.kid(&key.public_key) == kid)
            .map(|key| key.public_key)
    }

    /// The set as a JWK set, indented.
    pub fn to_jwks(&self) -> String {
        let keys: Vec<_> = self.0.iter().map(jwk).collect();
        format!("{:#}\n", json!({ "keys": keys }))
    }

    /// Reads a JWK set. Members that are not known are passed over; a key that is not one of a vault's is not.
    ///
    /// # Errors
    /// [`MalformedKeys`] names what is wrong.
    pub fn from_jwks(text: &[u8]) -> Result<Self, MalformedKeys> {
        let set: Value = serde_json::from_slice(text).map_err(|_| MalformedKeys("not JSON"))?;
        let keys = set.get("keys").and_then(Value::as_array);
        let keys = keys.ok_or(MalformedKeys("no keys"))?;
        let keys: Vec<_> = keys.iter().map(from_jwk).collect::<Result<_, _>>()?;
        Ok(Self(keys))
    }
}

fn jwk(key: &PublishedKey) -> Value {
    json!({
        "kty": "OKP",
        "crv": "Ed25519",
        "alg": "EdDSA",
        "use": "sig",
        "x": BASE64_URL_SAFE_NO_PAD.encode(key.public_key),
        "kid": key.key_use.kid(&key.public_key),
        "callvault_use": key.key_use.name(),
    })
}

fn from_jwk(jwk: &Value) -> Result<PublishedKey, MalformedKeys> {
    let said = |name: &str| jwk.get(name).and_then(Value::as_str);
    if said("kty") != Some("OKP") || said("crv") != Some("Ed25519") {
        return Err(MalformedKeys("a key that is not Ed25519"));
    }
    let key_use = said("callvault_use").and_then(KeyUse::from_name);
    let key_use = key_use.ok_or(MalformedKeys("a key of no known callvault_use"))?;
    let x = said("x").and_then(|x| BASE64_URL_SAFE_NO_PAD.decode(x).ok());
    let public_key = x.and_then(|x| x.try_into().ok());
    let public_key = public_key.ok_or(MalformedKeys("a key that is not 32 bytes"))?;
    if said("kid") != Some(&key_use.kid(&public_key)) {
        return Err(MalformedKeys("a kid that is not its key's"));
    }
    Ok(PublishedKey { key_use, public_key })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_read_back_and_others_are_refused() {
        let of = |key_use, byte| PublishedKey {
            key_use,
            public_key: [byte; 32],
        };
        let set = KeySet::new(vec![of(KeyUse::LogCheckpoint, 1), of(KeyUse::Certificate, 2)]);
        let text = set.to_jwks();
        assert_eq!(KeySet::from_jwks(text.as_bytes()), Ok(set.clone()));
        let kid = KeyUse::Certificate.kid(&[2; 32]);
        assert_eq!(set.certificate_key(&kid), Some([2; 32]));
        // A log's key signs no certificate, whatever it is called.
        assert_eq!(set.certificate_key(&KeyUse::LogCheckpoint.kid(&[1; 32])), None);
        assert_eq!(set.certificate_key(&KeyUse::Certificate.kid(&[1; 32])), None);
        assert!(KeySet::from_jwks(text.replace("\"use\"", "\"more\": 1, \"use\"").as_bytes()).is_ok());
        for bad in [
            text.replace("Ed25519", "X25519"),
            text.replace("\"certificate\"", "\"log-checkpoint\""),
            text.replace("AgIC", "AgID"),
            text.replace("keys", "kees"),
            String::new(),
        ] {
            assert!(KeySet::from_jwks(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
