//! Tokens that were verified before: a service comes with the same one thousands of times a second.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Bearer, KeySet, Times};
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
    keys: Arc<KeySet>,
}

impl Cache {
    /// What is known of a token, if its issuer's keys are the same still.
    pub(super) fn get(&self, token: &str, keys: &Arc<KeySet>, peer: &PeerCertificate) -> Option<Known> {
        let name = name(token, peer);
        let mut tokens = self.lock();
        let known = match tokens.young.get(&name) {
            Some(known) => known.clone(),
            None => {
                let known = tokens.old.remove(&name)?;
                tokens.insert(name, known.clone());
                known
            }
        };
        Arc::ptr_eq(&known.keys, keys).then_some(known)
    }

    pub(super) fn put(
        &self,
        token: &str,
        keys: &Arc<KeySet>,
        peer: &PeerCertificate,
        bearer: &Bearer,
        claims: Times,
    ) {
        let known = Known {
            bearer: bearer.clone(),
            claims,
            keys: Arc::clone(keys),
        };
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
