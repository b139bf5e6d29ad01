//! Tokens that were verified before: a service comes with the same one thousands of times a second.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Bearer, Issuer, KeySet, Times};
use crate::{access::identity::PeerCertificate, crypto::context::sha256};

/// Tokens of a generation; there are two. A few hundred bytes each.
const TOKENS: usize = 8_192;

/// By the digest of a token and of the certificate that it came over: the tokens themselves are not kept.
#[derive(Default)]
pub(super) struct Cache(Mutex<Generations>);

#[derive(Default)]
struct Generations {
    young: HashMap<[u8; 32], Known>,
    old: HashMap<[u8; 32], Known>,
}

/// What a token was known to say, under these keys.
#[derive(Clone)]
pub(super) struct Known {
    pub(super) bearer: Bearer,
    pub(super) claims: Times,
    pub(super) issuer: Arc<Issuer>,
    /// The issuer's keys when it was verified.
    pub(super) keys: Arc<KeySet>,
}

impl Cache {
    /// What is known of a token that came over a connection with this certificate.
    pub(super) fn get(&self, token: &str, peer: &PeerCertificate) -> Option<Known> {
        let name = name(token, peer);
        let mut tokens = self.lock();
        if let Some(known) = tokens.young.get(&name) {
            return Some(known.clone());
        }
        let known = tokens.old.remove(&name)?;
        tokens.insert(name, known.clone());
        Some(known)
    }

    pub(super) fn put(&self, token: &str, peer: &PeerCertificate, known: Known) {
        self.lock().insert(name(token, peer), known);
    }

    fn lock(&self) -> MutexGuard<'_, Generations> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Generations {
    /// What was not asked for during a whole generation is forgotten.
    fn insert(&mut self, name: [u8; 32], known: Known) {
        if self.young.len() >= TOKENS {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(name, known);
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tokens = self.lock();
        write!(f, "Cache({} tokens)", tokens.young.len() + tokens.old.len())
    }
}

fn name(token: &str, peer: &PeerCertificate) -> [u8; 32] {
    sha256(&[peer.sha256(), token.as_bytes()].concat())
}
