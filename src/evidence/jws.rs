//! A signature around a text: JWS in its general JSON serialisation (RFC 7515), Ed25519 (RFC 8037).
//!
//! ```text
//! {"payload":"<base64url>","signatures":[{"protected":"<base64url>","signature":"<base64url>"}]}
//! protected  {"alg":"EdDSA","kid":"<key's name>","typ":"callvault-erasure+jws"}
//! ```
//!
//! Of all that RFC 7515 allows, one form: exactly one signature, these header parameters and no others, canonical JSON, no
//! padding. So one text has one signature and one file, and there is nothing in it that nobody vouches for.

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use ring::signature::{ED25519, UnparsedPublicKey};
use serde::Deserialize;
use serde_json::{Value, json};

use super::canonical;
use crate::ledger::log::Signer;

/// The type of what is signed.
pub const TYP: &str = "callvault-erasure+jws";
const ALG: &str = "EdDSA";

/// Why a file is not a text that a key signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwsError {
    /// It is not a JWS of the one form.
    #[error("not a JWS as the vault writes it: {0}")]
    Malformed(&'static str),
    /// Its header asks for something that no certificate needs: `crit`, another key, a certificate chain.
    #[error("unknown header parameter {0:?}")]
    UnknownParameter(String),
    /// It says that it is signed otherwise than with Ed25519.
    #[error("signed with another algorithm than EdDSA")]
    Algorithm,
    /// It is something else that this vault signed.
    #[error("of another type than {TYP}")]
    Type,
    /// Nobody published a certificate key of this name.
    #[error("no certificate key is named {0:?}; are these the keys of the vault that issued it?")]
    UnknownKey(String),
    /// The signature is not the key's.
    #[error("the signature does not hold")]
    Signature,
}

/// A text and who signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// The key's name.
    pub kid: String,
    /// The text.
    pub payload: Vec<u8>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct General {
    payload: String,
    signatures: Vec<One>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct One {
    protected: String,
    signature: String,
}

/// Signs a text under the name of a key.
pub fn sign(payload: &[u8], kid: &str, signer: &dyn Signer) -> Vec<u8> {
    let header = json!({ "alg": ALG, "kid": kid, "typ": TYP });
    // Three strings have a spelling.
    let header = canonical::to_bytes(&header).unwrap_or_default();
    let protected = BASE64_URL_SAFE_NO_PAD.encode(header);
    let payload = BASE64_URL_SAFE_NO_PAD.encode(payload);
    let signature = signer.sign(format!("{protected}.{payload}").as_bytes());
    file(&payload, &protected, &BASE64_URL_SAFE_NO_PAD.encode(signature)).into_bytes()
}

/// Opens a file that must be signed by the key that `key` knows by its name.
///
/// # Errors
/// [`JwsError`] unless every byte of it is as [`sign`] writes it and the signature holds.
pub fn verify(bytes: &[u8], key: impl Fn(&str) -> Option<[u8; 32]>) -> Result<Signed, JwsError> {
    let general: General = serde_json::from_slice(bytes).map_err(|_| JwsError::Malformed("members"))?;
    let [one] = &general.signatures[..] else {
        return Err(JwsError::Malformed("exactly one signature"));
    };
    if file(&general.payload, &one.protected, &one.signature).as_bytes() != bytes {
        return Err(JwsError::Malformed("spelling"));
    }
    let kid = named_key(&decode(&one.protected)?)?;
    let signature = decode(&one.signature)?;
    let public = key(&kid).ok_or_else(|| JwsError::UnknownKey(kid.clone()))?;
    let signed = format!("{}.{}", one.protected, general.payload);
    UnparsedPublicKey::new(&ED25519, public)
        .verify(signed.as_bytes(), &signature)
        .map_err(|_| JwsError::Signature)?;
    Ok(Signed {
        kid,
        payload: decode(&general.payload)?,
    })
}

/// The key that a protected header names.
fn named_key(header: &[u8]) -> Result<String, JwsError> {
    let header = canonical::parse(header).map_err(|_| JwsError::Malformed("header"))?;
    let Value::Object(header) = header else {
        return Err(JwsError::Malformed("header"));
    };
    let unknown = header
        .keys()
        .find(|name| !["alg", "kid", "typ"].contains(&name.as_str()));
    if let Some(name) = unknown {
        return Err(JwsError::UnknownParameter(name.clone()));
    }
    let said = |name: &str| header.get(name).and_then(Value::as_str);
    if said("alg") != Some(ALG) {
        return Err(JwsError::Algorithm);
    }
    if said("typ") != Some(TYP) {
        return Err(JwsError::Type);
    }
    said("kid")
        .map(str::to_owned)
        .ok_or(JwsError::Malformed("no kid"))
}

/// The one spelling of a file. What base64url is made of needs no escape; anything else does not come out as it went in.
fn file(payload: &str, protected: &str, signature: &str) -> String {
    format!(
        "{{\"payload\":\"{payload}\",\"signatures\":[{{\"protected\":\"{protected}\",\"signature\":\"{signature}\"}}]}}"
    )
}

fn decode(text: &str) -> Result<Vec<u8>, JwsError> {
    BASE64_URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|_| JwsError::Malformed("base64url"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::tests::sample::TestKey;

    fn header(header: &str, key: &TestKey) -> Vec<u8> {
        let protected = BASE64_URL_SAFE_NO_PAD.encode(header);
        let payload = BASE64_URL_SAFE_NO_PAD.encode("text");
        let signature = key.sign(format!("{protected}.{payload}").as_bytes());
        file(&payload, &protected, &BASE64_URL_SAFE_NO_PAD.encode(signature)).into_bytes()
    }

    /// RFC 8037 appendix A.4: the signing input and signature of its example, under its key.
    #[test]
    fn signs_as_the_rfc_does() {
        let key = TestKey::from_hex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60");
        let input = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
        assert_eq!(
            BASE64_URL_SAFE_NO_PAD.encode(key.sign(input.as_bytes())),
            "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
        );
    }

    #[test]
    fn what_is_signed_opens_under_its_key_only() {
        let (key, other) = (TestKey::new(1), TestKey::new(2));
        let bytes = sign(b"text", "cert-1", &key);
        let known = |public: [u8; 32]| move |kid: &str| (kid == "cert-1").then_some(public);
        let signed = verify(&bytes, known(key.public_key())).unwrap();
        assert_eq!(
            (signed.kid.as_str(), &signed.payload[..]),
            ("cert-1", &b"text"[..])
        );
        assert_eq!(
            verify(&bytes, known(other.public_key())),
            Err(JwsError::Signature)
        );
        assert_eq!(
            verify(&bytes, |_| None),
            Err(JwsError::UnknownKey("cert-1".into()))
        );
    }

    #[test]
    fn headers_that_ask_for_more_are_refused() {
        let key = TestKey::new(1);
        let open = |text: &str| verify(&header(text, &key), |_| Some(key.public_key()));
        let good = format!("{{\"alg\":\"EdDSA\",\"kid\":\"k\",\"typ\":\"{TYP}\"}}");
        assert!(open(&good).is_ok());
        for (text, error) in [
            (good.replace("EdDSA", "none"), JwsError::Algorithm),
            (good.replace("EdDSA", "HS256"), JwsError::Algorithm),
            (good.replace("+jws", "+jwt"), JwsError::Type),
            (
                good.replace("\"kid\"", "\"crit\":[\"exp\"],\"kid\""),
                JwsError::UnknownParameter("crit".into()),
            ),
            (
                good.replace("\"kid\"", "\"jwk\":{},\"kid\""),
                JwsError::UnknownParameter("jwk".into()),
            ),
            (good.replace("\"kid\":\"k\",", ""), JwsError::Malformed("no kid")),
            (good.replace(',', ", "), JwsError::Malformed("header")),
        ] {
            assert_eq!(open(&text), Err(error), "{text}");
        }
    }

    #[test]
    fn other_forms_of_a_file_are_refused() {
        let key = TestKey::new(1);
        let bytes = String::from_utf8(sign(b"text", "k", &key)).unwrap();
        let one = &bytes[bytes.find('[').unwrap() + 1..bytes.find(']').unwrap()];
        for other in [
            bytes.replace(one, &format!("{one},{one}")),
            bytes.replace(one, ""),
            bytes.replace("\"signatures\"", "\"header\":{},\"signatures\""),
            format!("{bytes}\n"),
            format!(" {bytes}"),
            bytes.replace("\"payload\":\"", "\"payload\":\"\\u0064"),
        ] {
            let refused = verify(other.as_bytes(), |_| Some(key.public_key()));
            assert!(
                matches!(refused, Err(JwsError::Malformed(_))),
                "{other} {refused:?}"
            );
        }
    }
}
