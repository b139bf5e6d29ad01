//! Who calls, as what, and for which tenants.

use std::{collections::BTreeSet, fmt, str::FromStr};

use super::{
    ids::{InvalidId, TenantId},
    text::Country,
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
    ];
}

/// Whether `role` may do `action` at all; tenant, purpose and state are asked after it.
///
/// A correction is a right of the people concerned (GDPR Art. 16), so it belongs to those who answer them: the
/// supervisor, compliance and the DPO. An uploader could otherwise rewrite evidence that it has already handed over.
pub fn allows(role: Role, action: Action) -> bool {
    use Action as A;
    match role {
        Role::Uploader => matches!(
            action,
            A::PutRecording | A::PutMessage | A::BatchPutMessages | A::GetTenant | A::ListRetentionClasses
        ),
        Role::Reader | Role::Agent => opens(action),
        Role::Supervisor => opens(action) || action == A::UpdateRecord,
        Role::TenantAdmin => matches!(
            action,
            A::CreateTenant
                | A::GetTenant
                | A::ListTenants
                | A::UpdateTenant
                | A::CreateRetentionClass
                | A::ListRetentionClasses
        ),
        Role::KeyAdmin => {
            looks_at_keys(action)
                || matches!(
                    action,
                    A::GetTenant
                        | A::ListTenants
                        | A::RotateTenantKey
                        | A::DestroyKeyVersion
                        | A::RotateRootEpoch
                        | A::RunSweep
                        | A::GetSweep
                )
        }
        Role::Compliance => {
            looks_at_people(action)
                || looks_at_erasures(action)
                || matches!(
                    action,
                    A::PreviewErasure | A::RequestErasure | A::CancelErasure | A::RunSweep
                )
        }
        Role::Dpo => looks_at_people(action) || looks_at_erasures(action) || action == A::PreviewErasure,
        Role::Auditor => {
            looks_at_keys(action)
                || looks_at_erasures(action)
                || matches!(action, A::GetTenant | A::ListTenants | A::ListRetentionClasses)
        }
        Role::Support => false,
    }
}

/// Whether `action` answers the people concerned: finds, shows and corrects what is known of them.
fn looks_at_people(action: Action) -> bool {
    use Action as A;
    matches!(
        action,
        A::GetRecord
            | A::ListRecords
            | A::UpdateRecord
            | A::GetTenant
            | A::ListTenants
            | A::ListRetentionClasses
    )
}

/// Whether `action` shows what was erased and the proof of it, and changes nothing.
fn looks_at_erasures(action: Action) -> bool {
    use Action as A;
    matches!(
        action,
        A::GetErasure | A::ListErasures | A::GetCertificate | A::GetSweep | A::ListSigningKeys
    )
}

/// Whether `action` shows what is known of keys, and changes nothing.
fn looks_at_keys(action: Action) -> bool {
    use Action as A;
    matches!(
        action,
        A::ListKeyVersions
            | A::ListRootEpochs
            | A::ListSigningKeys
            | A::GetKeyOperation
            | A::ListKeyOperations
    )
}

/// Whether `action` opens content, or finds what to open.
fn opens(action: Action) -> bool {
    use Action as A;
    matches!(
        action,
        A::ReadRecording | A::GetMessage | A::BatchGetMessages | A::GetRecord | A::ListRecords
    )
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

impl Grant {
    fn allows(&self, action: Action) -> bool {
        self.roles.iter().any(|role| allows(*role, action))
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

    /// The tenants for which it may do `action`.
    pub fn scope(&self, action: Action) -> TenantScope {
        let mut some = BTreeSet::new();
        for grant in self.grants.iter().filter(|grant| grant.allows(action)) {
            match &grant.scope {
                TenantScope::All => return TenantScope::All,
                TenantScope::Some(tenants) => some.extend(tenants.iter().cloned()),
            }
        }
        TenantScope::Some(some)
    }

    /// Whether it acts for `tenant` at all, whatever it may do.
    pub fn knows(&self, tenant: &TenantId) -> bool {
        self.grants.iter().any(|grant| grant.scope.covers(tenant))
    }

    /// Whether any of its roles may do `action`, for whomever.
    pub fn may(&self, action: Action) -> bool {
        self.grants.iter().any(|grant| grant.allows(action))
    }

    /// Whether a role that it has for `tenant` may do `action`.
    pub fn may_for(&self, action: Action, tenant: &TenantId) -> bool {
        let granted = |grant: &Grant| grant.allows(action) && grant.scope.covers(tenant);
        self.grants.iter().any(granted)
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

    /// One row per role, one column per action, in the order of `Action::ALL`.
    const TABLE: &[(&str, &str)] = &[
        //   recording put read, message put batch get batch, record get list update | tenant create get list update | class create list |
        //   key list rotate destroy, root rotate list, signing list, operation get list |
        //   erasure preview request cancel get list, certificate get, sweep run get
        ("uploader", "x.xx......x...x................"),
        ("reader", ".x..xxxx......................."),
        ("agent", ".x..xxxx......................."),
        ("supervisor", ".x..xxxxx......................"),
        ("tenant-admin", ".........xxxxxx................"),
        ("key-admin", "..........xx...xxxxxxxx......xx"),
        ("compliance", "......xxx.xx..x.....x..xxxxxxxx"),
        ("dpo", "......xxx.xx..x.....x..x..xxx.x"),
        ("auditor", "..........xx..xx...xxxx...xxx.x"),
        ("support", "..............................."),
    ];

    #[test]
    fn every_role_may_do_what_its_row_says_and_nothing_else() {
        assert_eq!(TABLE.len(), Role::ALL.len());
        for (name, row) in TABLE {
            let role: Role = name.parse().unwrap();
            assert_eq!(row.len(), Action::ALL.len(), "{name}");
            for (action, cell) in Action::ALL.iter().zip(row.chars()) {
                assert_eq!(allows(role, *action), cell == 'x', "{name} {action:?}");
            }
        }
    }

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
        assert!(both.may_for(Action::ReadRecording, &one) && both.may_for(Action::ReadRecording, &other));
        assert!(both.may(Action::UpdateRecord) && both.may_for(Action::UpdateRecord, &other));
        assert!(!both.may_for(Action::UpdateRecord, &one));
        assert_eq!(
            both.scope(Action::UpdateRecord),
            grant(Role::Reader, &other).scope
        );
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
