//! Who calls, as what, and for which tenants.

use std::{collections::BTreeSet, fmt, str::FromStr};

use super::{
    ids::{InvalidId, TenantId},
    text::{Country, Text},
};

macro_rules! roles {
    ($($(#[$doc:meta])* $variant:ident => $name:literal),* $(,)?) => {
        /// What a principal is there for. Names are configured and logged: they never change.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Role {
            $($(#[$doc])* $variant),*
        }

        impl Role {
            /// Every role.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The role's stable name.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name),*
                }
            }
        }

        impl FromStr for Role {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::ALL.iter().copied().find(|role| role.name() == text).ok_or(InvalidId {
                    what: "role",
                    rule: concat!("one of: ", $($name, " "),*),
                })
            }
        }
    };
}

roles! {
    /// Ingests, and never reads back.
    Uploader => "uploader",
    /// Reads content for its declared purposes.
    Reader => "reader",
    /// Reads the calls it took part in.
    Agent => "agent",
    /// Reads the team's calls, and corrects their descriptors.
    Supervisor => "supervisor",
    /// Runs tenants and retention classes.
    TenantAdmin => "tenant-admin",
    /// Rotates, retires and destroys keys.
    KeyAdmin => "key-admin",
    /// Holds, restricts, proposes erasures.
    Compliance => "compliance",
    /// Approves, handles the rights of the people concerned.
    Dpo => "dpo",
    /// Reads evidence, changes nothing.
    Auditor => "auditor",
    /// Sees health.
    Support => "support",
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a call does. One per call of the API; the calls of a resumable upload are together one `PutRecording`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Stores content.
    PutRecording,
    /// Opens content.
    ReadRecording,
    /// Stores a message.
    PutMessage,
    /// Stores many messages.
    BatchPutMessages,
    /// Opens a message.
    GetMessage,
    /// Opens many messages.
    BatchGetMessages,
    /// Opens one descriptor.
    GetRecord,
    /// Opens many descriptors.
    ListRecords,
    /// Corrects a descriptor.
    UpdateRecord,
    /// Adds a tenant.
    CreateTenant,
    /// Shows a tenant.
    GetTenant,
    /// Shows the tenants in scope.
    ListTenants,
    /// Changes a tenant.
    UpdateTenant,
    /// Adds a retention class.
    CreateRetentionClass,
    /// Shows a tenant's retention classes.
    ListRetentionClasses,
    /// Shows what is known of a tenant's keys.
    ListKeyVersions,
    /// Gives a tenant a new key.
    RotateTenantKey,
    /// Destroys a key that nothing needs.
    DestroyKeyVersion,
    /// Gives the region a new root epoch.
    RotateRootEpoch,
    /// Shows what is known of the root.
    ListRootEpochs,
    /// Shows public keys.
    ListSigningKeys,
    /// Shows work on keys.
    GetKeyOperation,
    /// Shows all work on keys.
    ListKeyOperations,
    /// Says what an erasure would cover.
    PreviewErasure,
    /// Erases.
    RequestErasure,
    /// Takes an erasure back.
    CancelErasure,
    /// Shows an erasure.
    GetErasure,
    /// Shows a tenant's erasures.
    ListErasures,
    /// Hands out the proof of an erasure.
    GetCertificate,
    /// Makes what was shredded final.
    RunSweep,
    /// Shows a sweep.
    GetSweep,
    /// Serves a tenant no more for now.
    SuspendTenant,
    /// Serves it again.
    ResumeTenant,
}

impl Action {
    /// Every action.
    pub const ALL: &'static [Self] = &[
        Self::PutRecording,
        Self::ReadRecording,
        Self::PutMessage,
        Self::BatchPutMessages,
        Self::GetMessage,
        Self::BatchGetMessages,
        Self::GetRecord,
        Self::ListRecords,
        Self::UpdateRecord,
        Self::CreateTenant,
        Self::GetTenant,
        Self::ListTenants,
        Self::UpdateTenant,
        Self::CreateRetentionClass,
        Self::ListRetentionClasses,
        Self::ListKeyVersions,
        Self::RotateTenantKey,
        Self::DestroyKeyVersion,
        Self::RotateRootEpoch,
        Self::ListRootEpochs,
        Self::ListSigningKeys,
        Self::GetKeyOperation,
        Self::ListKeyOperations,
        Self::PreviewErasure,
        Self::RequestErasure,
        Self::CancelErasure,
        Self::GetErasure,
        Self::ListErasures,
        Self::GetCertificate,
        Self::RunSweep,
        Self::GetSweep,
        Self::SuspendTenant,
        Self::ResumeTenant,
    ];
}

/// Roles that one principal may not hold together, with the reason. Symmetric.
///
/// A role's "never" would mean nothing beside a role that grants it.
const CONFLICTS: &[(Role, &[Role], &str)] = &[
    (Role::Uploader, READERS, "an uploader never reads back"),
    (Role::TenantAdmin, READERS, "a tenant admin never reads content"),
    (Role::KeyAdmin, READERS, "a key admin never reads content"),
    (
        Role::Compliance,
        READERS,
        "a compliance officer never reads content",
    ),
    (Role::Dpo, READERS, "a dpo reads content only within a case"),
    (Role::Compliance, &[Role::Dpo], "who proposes never approves"),
    (Role::Auditor, READERS, "an auditor never reads content"),
    (
        Role::Auditor,
        &[
            Role::Uploader,
            Role::TenantAdmin,
            Role::KeyAdmin,
            Role::Compliance,
            Role::Dpo,
        ],
        "an auditor changes nothing",
    ),
    (Role::Support, READERS, "support never sees content"),
    (Role::Support, &[Role::KeyAdmin], "support never touches keys"),
];

/// The roles that open content.
const READERS: &[Role] = &[Role::Reader, Role::Agent, Role::Supervisor];

/// The tenants that a principal acts for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TenantScope {
    /// Every tenant, also those yet to come.
    All,
    /// These alone.
    Some(BTreeSet<TenantId>),
}

impl TenantScope {
    /// Whether `tenant` is within the scope.
    pub fn covers(&self, tenant: &TenantId) -> bool {
        match self {
            Self::All => true,
            Self::Some(tenants) => tenants.contains(tenant),
        }
    }
}

/// Roles that are held for some tenants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// What for; never empty.
    pub roles: BTreeSet<Role>,
    /// For whom.
    pub scope: TenantScope,
}

/// The teams whose calls a principal sees, where its role sees a team's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Teams {
    /// All of them.
    All,
    /// These alone.
    Some(BTreeSet<Text>),
}

impl Default for Teams {
    fn default() -> Self {
        Self::Some(BTreeSet::new())
    }
}

/// How sure it is who calls. In the order of their strength.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AuthStrength {
    /// A bearer token: whoever has it.
    Token,
    /// A token that is bound to the certificate that the connection was opened with (RFC 8705).
    BoundToken,
    /// A certificate, whose key the caller holds.
    Certificate,
}

impl AuthStrength {
    /// Its stable name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::BoundToken => "bound-token",
            Self::Certificate => "certificate",
        }
    }
}

/// An authenticated caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    alias: String,
    grants: Vec<Grant>,
    country: Option<Country>,
    strength: AuthStrength,
    agent: Option<Text>,
    teams: Teams,
}

impl Principal {
    /// A caller known as `alias`, 1 to 63 lowercase letters, digits and hyphens: an opaque name that is logged. It comes with a
    /// certificate, from nobody knows where.
    ///
    /// # Errors
    /// [`InvalidPrincipal`] if the alias could be personal data, there is no role, or two roles conflict.
    pub fn new(
        alias: impl Into<String>,
        roles: impl IntoIterator<Item = Role>,
        scope: TenantScope,
    ) -> Result<Self, InvalidPrincipal> {
        let roles = roles.into_iter().collect();
        Self::with_grants(alias, vec![Grant { roles, scope }])
    }

    /// The same with different roles for different tenants. Roles that conflict cannot be held together, not even for different
    /// tenants: it is one person who would hold them.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_grants(alias: impl Into<String>, grants: Vec<Grant>) -> Result<Self, InvalidPrincipal> {
        let alias = alias.into();
        if !is_alias(&alias) {
            return Err(InvalidPrincipal::Alias);
        }
        if grants.is_empty() || grants.iter().any(|grant| grant.roles.is_empty()) {
            return Err(InvalidPrincipal::NoRole);
        }
        let roles = grants.iter().flat_map(|grant| grant.roles.iter().copied());
        match conflict(&roles.collect()) {
            Some(conflict) => Err(conflict),
            None => Ok(Self {
                alias,
                grants,
                country: None,
                strength: AuthStrength::Certificate,
                agent: None,
                teams: Teams::default(),
            }),
        }
    }

    /// The same, calling from this country.
    #[must_use]
    pub fn from_country(self, country: Option<Country>) -> Self {
        Self { country, ..self }
    }

    /// The same, recognised so.
    #[must_use]
    pub fn recognised_by(self, strength: AuthStrength) -> Self {
        Self { strength, ..self }
    }

    /// The same, known to the platform as this agent, and seeing these teams' calls.
    #[must_use]
    pub fn at_work_as(self, agent: Option<Text>, teams: Teams) -> Self {
        Self { agent, teams, ..self }
    }

    /// The same with one of its grants alone.
    #[must_use]
    pub fn only(&self, grant: &Grant) -> Self {
        Self {
            grants: vec![grant.clone()],
            ..self.clone()
        }
    }

    /// The opaque name for logs and ledger leaves.
    pub fn alias(&self) -> &str {
        &self.alias
    }

    /// Its roles, for whomever.
    pub fn roles(&self) -> BTreeSet<Role> {
        let roles = self.grants.iter().flat_map(|grant| grant.roles.iter().copied());
        roles.collect()
    }

    /// Which roles it has for whom; never empty.
    pub fn grants(&self) -> &[Grant] {
        &self.grants
    }

    /// Where it calls from, as its identity says: never as the call does. `None` if nobody knows.
    pub fn country(&self) -> Option<&Country> {
        self.country.as_ref()
    }

    /// How sure it is who calls.
    pub fn strength(&self) -> AuthStrength {
        self.strength
    }

    /// The platform's id of the agent that it is, if it is one.
    pub fn agent(&self) -> Option<&Text> {
        self.agent.as_ref()
    }

    /// The teams whose calls it sees.
    pub fn teams(&self) -> &Teams {
        &self.teams
    }

    /// The tenants that it acts for, whatever it may do.
    pub fn whole_scope(&self) -> TenantScope {
        let mut some = BTreeSet::new();
        for grant in &self.grants {
            match &grant.scope {
                TenantScope::All => return TenantScope::All,
                TenantScope::Some(tenants) => some.extend(tenants.iter().cloned()),
            }
        }
        TenantScope::Some(some)
    }

    /// Its roles for a tenant.
    pub fn roles_for(&self, tenant: &TenantId) -> BTreeSet<Role> {
        let covering = self.grants.iter().filter(|grant| grant.scope.covers(tenant));
        covering.flat_map(|grant| grant.roles.iter().copied()).collect()
    }

    /// Whether it acts for `tenant` at all, whatever it may do.
    pub fn knows(&self, tenant: &TenantId) -> bool {
        self.grants.iter().any(|grant| grant.scope.covers(tenant))
    }
}

/// Why something is not a principal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPrincipal {
    /// The alias is not opaque.
    #[error("alias must be 1 to 63 lowercase letters, digits and hyphens")]
    Alias,
    /// It may do nothing.
    #[error("roles must name at least one role")]
    NoRole,
    /// Two roles exclude each other.
    #[error("roles {one} and {other} cannot be held together: {why}; use two certificates")]
    Conflict {
        /// The role that excludes.
        one: Role,
        /// The role that is excluded.
        other: Role,
        /// The rule.
        why: &'static str,
    },
}

fn is_alias(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn conflict(roles: &BTreeSet<Role>) -> Option<InvalidPrincipal> {
    CONFLICTS
        .iter()
        .filter(|(one, _, _)| roles.contains(one))
        .find_map(|(one, others, why)| {
            let other = others.iter().find(|other| roles.contains(other))?;
            Some(InvalidPrincipal::Conflict {
                one: *one,
                other: *other,
                why,
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn role_names_are_read_back() {
        for role in Role::ALL {
            assert_eq!(role.name().parse::<Role>().unwrap(), *role);
        }
        assert!("admin".parse::<Role>().is_err());
    }

    #[test]
    fn conflicting_roles_cannot_be_held_together() {
        let hold = |roles: &[Role]| Principal::new("x", roles.iter().copied(), TenantScope::All);
        for refused in [
            [Role::KeyAdmin, Role::Reader],
            [Role::Compliance, Role::Supervisor],
            [Role::Compliance, Role::Dpo],
            [Role::Auditor, Role::TenantAdmin],
            [Role::Uploader, Role::Reader],
        ] {
            let err = hold(&refused).unwrap_err();
            assert!(matches!(err, InvalidPrincipal::Conflict { .. }), "{refused:?}");
        }
        for fine in [
            [Role::Reader, Role::Supervisor],
            [Role::TenantAdmin, Role::Uploader],
        ] {
            assert!(hold(&fine).is_ok(), "{fine:?}");
        }
    }

    #[test]
    fn an_alias_cannot_be_an_address_and_roles_cannot_be_none() {
        let new =
            |alias: &str, roles: &[Role]| Principal::new(alias, roles.iter().copied(), TenantScope::All);
        for bad in ["", "jane@example.com", "Jane", &"a".repeat(64)] {
            assert_eq!(new(bad, &[Role::Reader]), Err(InvalidPrincipal::Alias), "{bad}");
        }
        assert_eq!(new("a", &[]), Err(InvalidPrincipal::NoRole));
    }

    #[test]
    fn roles_of_one_tenant_are_none_of_another() {
        let (one, other): (TenantId, TenantId) = ("one".parse().unwrap(), "other".parse().unwrap());
        let grant = |role, tenant: &TenantId| Grant {
            roles: BTreeSet::from([role]),
            scope: TenantScope::Some(BTreeSet::from([tenant.clone()])),
        };
        let grants = vec![grant(Role::Reader, &one), grant(Role::Supervisor, &other)];
        let both = Principal::with_grants("both", grants).unwrap();
        assert_eq!(both.roles_for(&one), [Role::Reader].into());
        assert_eq!(both.roles_for(&other), [Role::Supervisor].into());
        assert_eq!(both.roles_for(&"third".parse().unwrap()), BTreeSet::new());
        assert_eq!(both.only(&both.grants()[0]).roles(), [Role::Reader].into());
        let grants = vec![grant(Role::Compliance, &one), grant(Role::Dpo, &other)];
        let refused = Principal::with_grants("both", grants).unwrap_err();
        assert!(matches!(refused, InvalidPrincipal::Conflict { .. }));
    }

    #[test]
    fn a_scope_covers_its_tenants_alone() {
        let (one, other): (TenantId, TenantId) = ("one".parse().unwrap(), "other".parse().unwrap());
        let scope = TenantScope::Some(BTreeSet::from([one.clone()]));
        assert!(scope.covers(&one) && !scope.covers(&other));
        assert!(TenantScope::All.covers(&other));
    }
}
