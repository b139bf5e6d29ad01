//! `[[issuers]]`: whose tokens are taken, and what they are worth.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::{ConfigError, parse_roles, parse_scope};
use crate::{
    access::token::{ClaimGrant, GrantedTenants, IssuerSpec, TokenAlgorithm},
    domain::principal::{Principal, Role, TenantScope},
};

/// Longest life of a token that may be configured, a day: nothing but its end takes a token back.
const LIFE_SECONDS: u64 = 24 * 3_600;
const SKEW_SECONDS: u64 = 300;
const STALE_SECONDS: u64 = 7 * 24 * 3_600;
/// The least time between two looks at an issuer's keys.
const REFRESH_SECONDS: u64 = 30;

/// An OpenID Connect issuer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issuer {
    /// `iss`, to the letter.
    pub issuer: String,
    /// What `aud` must name, to the letter.
    pub audience: String,
    /// Its keys in a file; looked at every few seconds.
    #[serde(default)]
    pub jwks_file: Option<PathBuf>,
    /// Its keys over HTTPS; fetched at start, and again and again.
    #[serde(default)]
    pub jwks_url: Option<String>,
    /// The authorities that the URL's server is checked against, PEM; the system's when absent.
    #[serde(default)]
    pub jwks_ca: Option<PathBuf>,
    /// Algorithms that are taken; none of them has a shared secret.
    #[serde(default = "default_algorithms")]
    pub algorithms: Vec<String>,
    /// By how much clocks may differ.
    #[serde(default = "default_skew")]
    pub skew_seconds: u64,
    /// How long a token may live.
    #[serde(default = "default_life")]
    pub life_seconds: u64,
    /// How often keys are fetched.
    #[serde(default = "default_refresh")]
    pub refresh_seconds: u64,
    /// How long keys that could not be fetched again are used.
    #[serde(default = "default_stale")]
    pub stale_seconds: u64,
    /// Whether tokens must be bound to the caller's certificate (RFC 8705).
    #[serde(default)]
    pub bound: bool,
    /// The claim with an opaque name of whoever calls.
    #[serde(default = "default_alias")]
    pub alias_claim: String,
    /// Goes before it, so that nobody has another's name: no principal's alias begins with it, and no other issuer's prefix.
    pub alias_prefix: String,
    /// The claim with the platform's id of the agent that its bearer is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_claim: Option<String>,
    /// The claim with the teams whose calls its bearer sees.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teams_claim: Option<String>,
    /// Where its bearers call from, ISO 3166-1; the region's own country when absent.
    #[serde(default)]
    pub country: Option<String>,
    /// What claims are worth.
    #[serde(default)]
    pub grants: Vec<Grant>,
}

/// Roles of whoever has a claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// The claim's name; dots lead into objects.
    pub claim: String,
    /// What it says, or has among what it says.
    pub value: String,
    /// Names of roles.
    pub roles: Vec<String>,
    /// Tenant ids, or `*` alone for all of them.
    #[serde(default)]
    pub tenants: Vec<String>,
    /// Or the claim that names them.
    #[serde(default)]
    pub tenants_claim: Option<String>,
}

fn default_algorithms() -> Vec<String> {
    ["ES256", "EdDSA", "RS256"].map(str::to_owned).to_vec()
}

fn default_skew() -> u64 {
    30
}

fn default_life() -> u64 {
    3_600
}

fn default_refresh() -> u64 {
    300
}

fn default_stale() -> u64 {
    24 * 3_600
}

fn default_alias() -> String {
    "sub".to_owned()
}

impl Issuer {
    /// What is expected of its tokens.
    ///
    /// # Errors
    /// [`ConfigError`] for the first key at fault; `key` is the table's path.
    pub fn spec(&self, key: &str, home: &str) -> Result<IssuerSpec, ConfigError> {
        let refuse = |name: &str, message: &str| Err(ConfigError::value(format!("{key}.{name}"), message));
        for (name, text) in [
            ("issuer", &self.issuer),
            ("audience", &self.audience),
            ("alias_claim", &self.alias_claim),
        ] {
            if text.is_empty() {
                return refuse(name, "must not be empty");
            }
        }
        match (&self.jwks_file, &self.jwks_url) {
            (Some(_), None) | (None, Some(_)) => {}
            _ => return refuse("jwks_url", "give one of jwks_url and jwks_file"),
        }
        if self
            .jwks_url
            .as_deref()
            .is_some_and(|url| !url.starts_with("https://"))
        {
            return refuse(
                "jwks_url",
                "must begin with https://: whoever answers says who may call",
            );
        }
        if self.grants.is_empty() {
            return refuse("grants", "list at least one, or its tokens are worth nothing");
        }
        if Principal::new(
            format!("{}x", self.alias_prefix),
            [Role::Support],
            TenantScope::All,
        )
        .is_err()
            || self.alias_prefix.is_empty()
        {
            return refuse(
                "alias_prefix",
                "must be lowercase letters, digits and hyphens, such as idp-",
            );
        }
        self.check_times(key)?;
        Ok(IssuerSpec {
            issuer: self.issuer.clone(),
            audience: self.audience.clone(),
            algorithms: self.algorithms(key)?,
            skew: Duration::from_secs(self.skew_seconds),
            life: Duration::from_secs(self.life_seconds),
            must_be_bound: self.bound,
            alias_claim: self.alias_claim.clone(),
            alias_prefix: self.alias_prefix.clone(),
            agent_claim: self.agent_claim.clone(),
            teams_claim: self.teams_claim.clone(),
            country: Some(super::parse_country(
                self.country.as_deref().unwrap_or(home),
                &format!("{key}.country"),
            )?),
            grants: self
                .grants
                .iter()
                .enumerate()
                .map(|(at, grant)| grant.parsed(&format!("{key}.grants[{at}]")))
                .collect::<Result<_, _>>()?,
            stale: Duration::from_secs(self.stale_seconds),
        })
    }

    fn check_times(&self, key: &str) -> Result<(), ConfigError> {
        for (name, value, least, most) in [
            ("skew_seconds", self.skew_seconds, 0, SKEW_SECONDS),
            ("life_seconds", self.life_seconds, 1, LIFE_SECONDS),
            (
                "refresh_seconds",
                self.refresh_seconds,
                REFRESH_SECONDS,
                LIFE_SECONDS,
            ),
            (
                "stale_seconds",
                self.stale_seconds,
                self.refresh_seconds,
                STALE_SECONDS,
            ),
        ] {
            super::at_least_in(key, name, value, least)?;
            super::at_most_in(key, name, value, most)?;
        }
        Ok(())
    }

    fn algorithms(&self, key: &str) -> Result<Vec<TokenAlgorithm>, ConfigError> {
        let known = |name: &String| TokenAlgorithm::ALL.iter().copied().find(|a| a.name() == name);
        let named: Option<Vec<_>> = self.algorithms.iter().map(known).collect();
        named.filter(|named| !named.is_empty()).ok_or_else(|| {
            let all: Vec<_> = TokenAlgorithm::ALL.iter().map(|a| a.name()).collect();
            ConfigError::value(
                format!("{key}.algorithms"),
                format!("must be at least one of: {}", all.join(" ")),
            )
        })
    }
}

impl Grant {
    fn parsed(&self, key: &str) -> Result<ClaimGrant, ConfigError> {
        let roles = parse_roles(&self.roles, key)?;
        // Whatever tenants it is for, roles that conflict are never held together.
        Principal::new("x", roles.iter().copied(), TenantScope::All)
            .map_err(|error| ConfigError::value(format!("{key}.roles"), error.to_string()))?;
        let tenants = match (&self.tenants_claim, self.tenants.as_slice()) {
            (None, tenants) => GrantedTenants::Scope(parse_scope(tenants, key)?),
            (Some(claim), []) if !claim.is_empty() => GrantedTenants::Claim(claim.clone()),
            _ => {
                return Err(ConfigError::value(
                    format!("{key}.tenants_claim"),
                    "give one of tenants and tenants_claim",
                ));
            }
        };
        Ok(ClaimGrant {
            claim: self.claim.clone(),
            value: self.value.clone(),
            roles: roles.into_iter().collect(),
            tenants,
        })
    }
}
