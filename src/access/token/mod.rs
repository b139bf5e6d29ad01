//! From a bearer token to a principal: JSON Web Tokens (RFC 7519) of the OpenID Connect issuers that the configuration lists,
//! taken as RFC 8725 (best current practices) says.
//!
//! ```text
//! length -> header (algorithm on the list, nothing critical) -> issuer -> its key -> signature
//!        -> audience, times, binding (RFC 8705) -> grants -> principal, until the token ends
//! ```
//!
//! Whatever is wrong with a token, its caller is told what, and nothing of it is repeated: a token is a secret, its claims may be
//! personal. A call with a token that is refused is not taken for one without.

mod cache;
mod claims;
mod keys;
mod provider;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, Header, Validation};
use subtle::ConstantTimeEq;
use tokio::sync::Notify;

pub use self::keys::{KeySet, KeySetError, SET_BYTES};
use self::{
    cache::{Cache, Known},
    claims::Claims,
};
use super::identity::PeerCertificate;
use crate::domain::{
    clock::{Clock, Timestamp},
    error::{Error, Kind},
    limits,
    principal::{AuthStrength, Grant, InvalidPrincipal, Principal, Role, Teams, TenantScope},
    text::{Country, Text},
};

/// How long an issuer that was asked for its keys is not asked again for a key that it does not have.
const ASK_AGAIN: Duration = Duration::from_secs(30);

/// What is expected of an issuer's tokens, and what they are worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerSpec {
    /// `iss`, to the letter.
    pub issuer: String,
    /// Who the token must be for: one of `aud`, to the letter.
    pub audience: String,
    /// Algorithms that are taken; never empty.
    pub algorithms: Vec<TokenAlgorithm>,
    /// By how much clocks may differ.
    pub skew: Duration,
    /// How long a token may live.
    pub life: Duration,
    /// Whether it must be bound to the caller's certificate.
    pub must_be_bound: bool,
    /// The claim with the opaque name of whoever calls, for logs and the ledger.
    pub alias_claim: String,
    /// Goes before it.
    pub alias_prefix: String,
    /// The claim with the platform's id of the agent that its bearer is.
    pub agent_claim: Option<String>,
    /// The claim with the teams whose calls its bearer sees.
    pub teams_claim: Option<String>,
    /// Where its bearers call from.
    pub country: Option<Country>,
    /// Which claims are worth which roles.
    pub grants: Vec<ClaimGrant>,
    /// How long keys that could not be fetched again are used.
    pub stale: Duration,
}

/// Roles of whoever has a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimGrant {
    /// The claim's name.
    pub claim: String,
    /// What it must say, or have among what it says.
    pub value: String,
    /// The roles.
    pub roles: BTreeSet<Role>,
    /// For whom.
    pub tenants: GrantedTenants,
}

/// For whom a claim's roles are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GrantedTenants {
    /// Always these.
    Scope(TenantScope),
    /// Those that another claim names.
    Claim(String),
}

macro_rules! algorithms {
    ($($variant:ident => $name:literal, $theirs:ident),* $(,)?) => {
        /// An algorithm that tokens may be signed with. All of them have a public key.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum TokenAlgorithm {
            $(#[allow(missing_docs)] $variant),*
        }

        impl TokenAlgorithm {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Its name (RFC 7518, RFC 8037).
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name),*
                }
            }

            fn theirs(self) -> Algorithm {
                match self {
                    $(Self::$variant => Algorithm::$theirs),*
                }
            }
        }
    };
}

algorithms! {
    Es256 => "ES256", ES256,
    Es384 => "ES384", ES384,
    EdDsa => "EdDSA", EdDSA,
    Rs256 => "RS256", RS256,
    Rs384 => "RS384", RS384,
    Rs512 => "RS512", RS512,
    Ps256 => "PS256", PS256,
    Ps384 => "PS384", PS384,
    Ps512 => "PS512", PS512,
}

/// One issuer, and the keys that it is known to sign with.
pub struct Issuer {
    spec: IssuerSpec,
    keys: ArcSwapOption<KeySet>,
    /// When they were seen last, microseconds; when they were asked for last, and when somebody last looked for them.
    seen: AtomicI64,
    asked: AtomicI64,
    looked: AtomicI64,
    wanted: Notify,
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuer")
            .field("issuer", &self.spec.issuer)
            .field("keys", &self.keys.load())
            .finish_non_exhaustive()
    }
}

/// Whoever a token says, until it ends.
#[derive(Clone, Debug)]
pub struct Bearer {
    /// Who.
    pub principal: Arc<Principal>,
    /// Until when.
    pub until: Timestamp,
}

/// Every issuer that is listed.
#[derive(Debug)]
pub struct Issuers {
    by_name: HashMap<String, Arc<Issuer>>,
    cache: Cache,
    clock: Arc<dyn Clock>,
}

impl Issuers {
    /// Takes the tokens of these, each listed once.
    pub fn new(issuers: impl IntoIterator<Item = Arc<Issuer>>, clock: Arc<dyn Clock>) -> Self {
        provider::install();
        let by_name = issuers.into_iter();
        Self {
            by_name: by_name
                .map(|issuer| (issuer.spec.issuer.clone(), issuer))
                .collect(),
            cache: Cache::default(),
            clock,
        }
    }

    /// The issuer of this name.
    pub fn find(&self, name: &str) -> Option<&Arc<Issuer>> {
        self.by_name.get(name)
    }

    /// Each of them.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Issuer>> {
        self.by_name.values()
    }

    /// Whoever bears this token, over a connection with this certificate, if there is one.
    ///
    /// # Errors
    /// [`Kind::Unauthenticated`] says what is wrong with it; [`Kind::Unavailable`] (`ISSUER_UNAVAILABLE`) if the issuer's keys are
    /// not known yet, or not any more.
    pub fn bearer(&self, token: &str, peer: &PeerCertificate) -> Result<Bearer, Error> {
        let now = self.clock.now();
        if token.len() > limits::TOKEN_BYTES {
            return Err(refused(
                "TOKEN_TOO_LONG",
                format!("the token is too long limit_bytes={}", limits::TOKEN_BYTES),
            ));
        }
        // Whoever is known by this token is known only as long as its issuer's keys are the same.
        if let Some(known) = self.cache.get(token, peer)
            && known.issuer.has(&known.keys, now)
        {
            return known.issuer.in_time(&known.claims, now).map(|()| known.bearer);
        }
        let (issuer, header) = self.issuer_of(token)?;
        let keys = issuer.usable_keys(now)?;
        let claims = issuer.verified(token, &header, &keys, now)?;
        issuer.in_time(&claims.times(), now)?;
        let bearer = issuer.principal(&claims, peer)?;
        let known = Known {
            bearer: bearer.clone(),
            claims: claims.times(),
            issuer: Arc::clone(issuer),
            keys,
        };
        self.cache.put(token, peer, known);
        Ok(bearer)
    }

    /// The issuer that a token names, which nothing vouches for as yet.
    fn issuer_of(&self, token: &str) -> Result<(&Arc<Issuer>, Header), Error> {
        #[derive(serde::Deserialize)]
        struct Named {
            iss: String,
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| malformed())?;
        let named = jsonwebtoken::dangerous::insecure_decode::<Named>(token).map_err(|_| malformed())?;
        let issuer = self.by_name.get(&named.claims.iss).ok_or_else(|| {
            refused(
                "TOKEN_ISSUER",
                "the token's issuer is not listed under [[issuers]]",
            )
        })?;
        Ok((issuer, header))
    }
}

/// When a token begins and ends, seconds since 1970.
#[derive(Clone, Copy, Debug)]
struct Times {
    begins: Option<f64>,
    ends: f64,
}

impl Claims {
    fn times(&self) -> Times {
        let begins = [self.nbf, self.iat].into_iter().flatten();
        Times {
            begins: begins.reduce(f64::max),
            ends: self.exp,
        }
    }
}

impl Issuer {
    /// One whose keys are not known yet.
    pub fn new(spec: IssuerSpec) -> Self {
        Self {
            spec,
            keys: ArcSwapOption::empty(),
            seen: AtomicI64::new(i64::MIN),
            asked: AtomicI64::new(i64::MIN),
            looked: AtomicI64::new(i64::MIN),
            wanted: Notify::new(),
        }
    }

    /// What is expected of its tokens.
    pub fn spec(&self) -> &IssuerSpec {
        &self.spec
    }

    /// These are its keys now; a token of any other is refused from the next call on.
    pub fn learn(&self, keys: KeySet, now: Timestamp) {
        self.keys.store(Some(Arc::new(keys)));
        self.confirm(now);
    }

    /// The same issuer was known before, with these keys.
    pub fn take_over(&self, before: &Self) {
        self.keys.store(before.keys.load_full());
        self.seen
            .store(before.seen.load(Ordering::Acquire), Ordering::Release);
    }

    /// Its keys were looked for in vain.
    pub fn looked_in_vain(&self, now: Timestamp) {
        self.looked.store(now.micros(), Ordering::Release);
    }

    /// Its keys are the same as before.
    pub fn confirm(&self, now: Timestamp) {
        self.seen.store(now.micros(), Ordering::Release);
        self.looked.store(now.micros(), Ordering::Release);
    }

    /// Whether these are its keys still.
    fn has(&self, keys: &Arc<KeySet>, now: Timestamp) -> bool {
        self.usable_keys(now)
            .is_ok_and(|usable| Arc::ptr_eq(&usable, keys))
    }

    /// Returns when somebody came with a key that is not known.
    pub async fn asked_for(&self) {
        self.wanted.notified().await;
    }

    /// Its keys, unless they were seen too long ago.
    fn usable_keys(&self, now: Timestamp) -> Result<Arc<KeySet>, Error> {
        let stale = i64::try_from(self.spec.stale.as_micros()).unwrap_or(i64::MAX);
        let seen = self.seen.load(Ordering::Acquire);
        match self.keys.load_full() {
            Some(keys) if now.micros().saturating_sub(seen) <= stale => Ok(keys),
            _ => {
                self.wanted.notify_one();
                Err(unavailable())
            }
        }
    }

    /// What the token says, if this issuer has signed it.
    fn verified(&self, token: &str, header: &Header, keys: &KeySet, now: Timestamp) -> Result<Claims, Error> {
        let listed = self.spec.algorithms.iter().map(|algorithm| algorithm.theirs());
        if !listed.into_iter().any(|algorithm| algorithm == header.alg) {
            let names: Vec<_> = self.spec.algorithms.iter().map(|a| a.name()).collect();
            return Err(refused(
                "TOKEN_ALGORITHM",
                format!("the token's algorithm is not one of {}", names.join(" ")),
            ));
        }
        if header.crit.is_some() {
            return Err(refused(
                "TOKEN_MALFORMED",
                "the token's header has critical parts, which are not known here",
            ));
        }
        if !header.typ.as_deref().is_none_or(is_token) {
            return Err(refused(
                "TOKEN_MALFORMED",
                "the token's type must be JWT or at+jwt",
            ));
        }
        let key = keys
            .find(header.kid.as_deref())
            .ok_or_else(|| self.unknown_key(now))?;
        if !key.verifies(header.alg) {
            return Err(refused(
                "TOKEN_ALGORITHM",
                "the token's algorithm is not the one of the key that it names",
            ));
        }
        let mut validation = Validation::new(header.alg);
        // Claims are looked at here, with the vault's own clock.
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        let decoded = jsonwebtoken::decode::<Claims>(token, &key.decoding, &validation);
        let claims = decoded.map_err(|error| match error.kind() {
            jsonwebtoken::errors::ErrorKind::InvalidSignature => {
                refused("TOKEN_SIGNATURE", "the token's signature is not its issuer's")
            }
            _ => malformed(),
        })?;
        let claims = claims.claims;
        if claims.iss != self.spec.issuer {
            return Err(malformed());
        }
        if !claims.is_for(&self.spec.audience) {
            return Err(refused("TOKEN_AUDIENCE", "the token is not for this service"));
        }
        Ok(claims)
    }

    /// A key that is not known may be new: its issuer is asked, but not by everybody who makes one up; meanwhile whoever comes with one is told to
    /// come back.
    fn unknown_key(&self, now: Timestamp) -> Error {
        let (asked, pause) = (self.asked.load(Ordering::Acquire), ASK_AGAIN.as_micros());
        let pause = i64::try_from(pause).unwrap_or(i64::MAX);
        // A clock that was set back waits for nothing.
        let due = now.micros().saturating_sub(asked) >= pause || now.micros() < asked;
        if due
            && self
                .asked
                .compare_exchange(asked, now.micros(), Ordering::AcqRel, Ordering::Acquire)
                .is_ok()
        {
            self.wanted.notify_one();
            return unavailable();
        }
        if self.looked.load(Ordering::Acquire) <= self.asked.load(Ordering::Acquire) {
            return unavailable();
        }
        refused(
            "TOKEN_KEY",
            "the token names a key that its issuer does not have; if it is new, try again in half a minute",
        )
    }

    fn in_time(&self, times: &Times, now: Timestamp) -> Result<(), Error> {
        #[allow(clippy::cast_precision_loss)] // seconds, and tokens are no clocks
        let now = now.micros() as f64 / 1e6;
        let (skew, life) = (self.spec.skew.as_secs_f64(), self.spec.life.as_secs_f64());
        if times.ends + skew <= now {
            return Err(refused("TOKEN_EXPIRED", "the token has expired; get a new one"));
        }
        if times.begins.is_some_and(|begins| begins - skew > now) {
            return Err(refused("TOKEN_NOT_YET", "the token is not valid yet"));
        }
        let begins = times.begins.unwrap_or(now);
        if times.ends - begins.min(now) > life + skew {
            let seconds = self.spec.life.as_secs();
            return Err(refused(
                "TOKEN_LIFE",
                format!("the token lives longer than any may limit_seconds={seconds}"),
            ));
        }
        Ok(())
    }

    fn principal(&self, claims: &Claims, peer: &PeerCertificate) -> Result<Bearer, Error> {
        let strength = self.strength(claims, peer)?;
        let alias = match claims.texts(&self.spec.alias_claim)[..] {
            [alias] => format!("{}{alias}", self.spec.alias_prefix),
            _ => {
                return Err(refused(
                    "TOKEN_ALIAS",
                    format!("the token has no text in the claim {}", self.spec.alias_claim),
                ));
            }
        };
        let grants = self.grants(claims);
        if grants.is_empty() {
            return Err(Error::new(
                Kind::Forbidden,
                "NO_ROLE",
                "no grant of the token's issuer is for what the token claims",
            ));
        }
        let principal = Principal::with_grants(alias, grants).map_err(|error| match error {
            InvalidPrincipal::Alias => refused(
                "TOKEN_ALIAS",
                format!(
                    "the claim {} is not opaque: 1 to 63 lowercase letters, digits and hyphens with its prefix",
                    self.spec.alias_claim
                ),
            ),
            error => Error::new(Kind::Forbidden, "CONFLICTING_ROLES", error.to_string()),
        })?;
        let principal = principal
            .from_country(self.spec.country.clone())
            .at_work_as(self.agent(claims), self.teams(claims))
            .recognised_by(strength);
        Ok(Bearer {
            principal: Arc::new(principal),
            until: moment(claims.exp + self.spec.skew.as_secs_f64()),
        })
    }

    /// Whoever is two agents is none: it would see the calls of both.
    fn agent(&self, claims: &Claims) -> Option<Text> {
        match claims.texts(self.spec.agent_claim.as_deref()?)[..] {
            [agent] => agent.parse().ok(),
            _ => None,
        }
    }

    fn teams(&self, claims: &Claims) -> Teams {
        let named = self.spec.teams_claim.iter().flat_map(|claim| claims.texts(claim));
        Teams::Some(named.filter_map(|team| team.parse().ok()).collect())
    }

    fn strength(&self, claims: &Claims, peer: &PeerCertificate) -> Result<AuthStrength, Error> {
        let not_bound = |message| Err(refused("TOKEN_BINDING", message));
        match &claims.cnf {
            None if self.spec.must_be_bound => {
                not_bound("the token must be bound to the caller's certificate (RFC 8705)")
            }
            None => Ok(AuthStrength::Token),
            Some(cnf) if !cnf.is_checkable() => {
                not_bound("the token is bound to what this server cannot check")
            }
            Some(cnf) => {
                let bound = cnf.certificate_sha256.as_deref().unwrap_or_default();
                let mine = BASE64_URL_SAFE_NO_PAD.encode(peer.sha256());
                if peer.is_none() || !bool::from(mine.as_bytes().ct_eq(bound.as_bytes())) {
                    return not_bound("the token is bound to another certificate");
                }
                Ok(AuthStrength::BoundToken)
            }
        }
    }

    /// The grants whose claims the token has. A tenant that is no tenant's name is none.
    fn grants(&self, claims: &Claims) -> Vec<Grant> {
        let mut granted = Vec::new();
        for grant in &self.spec.grants {
            if !claims.texts(&grant.claim).contains(&grant.value.as_str()) {
                continue;
            }
            let scope = match &grant.tenants {
                GrantedTenants::Scope(scope) => scope.clone(),
                GrantedTenants::Claim(name) => {
                    let named = claims.texts(name).into_iter();
                    TenantScope::Some(named.filter_map(|tenant| tenant.parse().ok()).collect())
                }
            };
            if matches!(&scope, TenantScope::Some(tenants) if tenants.is_empty()) {
                continue;
            }
            granted.push(Grant {
                roles: grant.roles.clone(),
                scope,
            });
        }
        granted
    }
}

/// Whether a type is one that a bearer token may have; an ID token, a logout token and the like are for others.
fn is_token(typ: &str) -> bool {
    let typ = typ.to_ascii_lowercase();
    let typ = typ.strip_prefix("application/").unwrap_or(&typ);
    matches!(typ, "jwt" | "at+jwt")
}

fn moment(seconds: f64) -> Timestamp {
    #[allow(clippy::cast_possible_truncation)] // saturates
    Timestamp((seconds * 1e6) as i64)
}

fn malformed() -> Error {
    refused(
        "TOKEN_MALFORMED",
        "the token is not a JSON Web Token with iss, aud and exp, signed with an algorithm that has a public key",
    )
}

fn refused(reason: &'static str, message: impl Into<String>) -> Error {
    Error::new(Kind::Unauthenticated, reason, message)
}

fn unavailable() -> Error {
    Error {
        retry_after: Some(Duration::from_secs(1)),
        ..Error::new(
            Kind::Unavailable,
            "ISSUER_UNAVAILABLE",
            "the keys of the token's issuer are not known here yet; try again in a second",
        )
    }
}
