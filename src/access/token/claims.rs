//! What a token says, once its signature is known to be the issuer's.

use serde::Deserialize;
use serde_json::{Map, Value};

/// The claims that are looked at by name (RFC 7519 section 4.1, RFC 8705 section 3.1). Types are strict: a time that is a text is
/// no time, and JSON has no number that is none.
#[derive(Deserialize)]
pub(super) struct Claims {
    pub(super) iss: String,
    aud: Audience,
    pub(super) exp: f64,
    #[serde(default)]
    pub(super) nbf: Option<f64>,
    #[serde(default)]
    pub(super) iat: Option<f64>,
    #[serde(default)]
    pub(super) cnf: Option<Confirmation>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Some(Vec<String>),
}

/// What the token is bound to.
#[derive(Deserialize)]
pub(super) struct Confirmation {
    #[serde(rename = "x5t#S256", default)]
    pub(super) certificate_sha256: Option<String>,
    /// Anything else that it is bound to, which this server cannot check.
    #[serde(flatten)]
    others: Map<String, Value>,
}

impl Confirmation {
    /// Whether it is bound to a certificate and nothing else.
    pub(super) fn is_checkable(&self) -> bool {
        self.certificate_sha256.is_some() && self.others.is_empty()
    }
}

impl Claims {
    pub(super) fn is_for(&self, audience: &str) -> bool {
        match &self.aud {
            Audience::One(one) => one == audience,
            Audience::Some(some) => some.iter().any(|one| one == audience),
        }
    }

    /// The texts of a claim: one, or each of several. A name with dots leads into objects, as `realm_access.roles`; a claim of
    /// that very name goes before it.
    pub(super) fn texts(&self, name: &str) -> Vec<&str> {
        match self.find(name) {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(some)) => some.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        }
    }

    fn find(&self, name: &str) -> Option<&Value> {
        if let Some(value) = self.others.get(name) {
            return Some(value);
        }
        let mut parts = name.split('.');
        let mut value = self.others.get(parts.next()?)?;
        for part in parts {
            value = value.as_object()?.get(part)?;
        }
        Some(value)
    }
}
