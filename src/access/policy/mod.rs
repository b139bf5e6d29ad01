//! Policies: what a caller may do with a tenant or a record, decided by Cedar (Cutler et al., OOPSLA 2024).
//!
//! ```text
//! rules in code (nothing can permit what they forbid) -> any forbid -> any permit -> otherwise denied
//! ```
//!
//! The default set is the role table. A deployment's directory comes on top of it, validated against the schema as a whole: a set with a mistake is
//! refused, and the one before stays. A policy that cannot be evaluated denies: skipped, a forbid would be none.

pub mod cases;
mod entities;
mod rules;
#[cfg(test)]
mod tests;

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use cedar_policy::{Authorizer, Policy, PolicyId, PolicySet as CedarSet, Schema, ValidationMode, Validator};

use self::entities::Vocabulary;
use crate::{
    crypto::context::sha256,
    domain::{
        ids::TenantId,
        principal::{Action, Principal, Role},
        purpose::Purpose,
        record::Record,
        text::Country,
    },
};

const SCHEMA: &str = include_str!("schema.cedarschema");
const DEFAULT: &str = include_str!("default.cedar");
/// A deployment's policies, all files together: read whole, evaluated at every call.
const FILES: usize = 64;
const BYTES: usize = 256 << 10;
/// The ending of a file with policies.
const ENDING: &str = "cedar";

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Who.
    pub principal: &'a Principal,
    /// Does what.
    pub action: Action,
    /// With what.
    pub resource: Resource<'a>,
    /// What for.
    pub purpose: Option<Purpose>,
}

/// With what something is done.
#[derive(Clone, Copy, Debug)]
pub enum Resource<'a> {
    /// The region, and whatever is no tenant's.
    Region,
    /// A tenant.
    Tenant(&'a TenantId),
    /// A record of one.
    Record(&'a Record),
}

/// What was decided, and by what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether it may be done.
    pub allowed: bool,
    /// The policies that say so, or `code:` and a rule; none if no policy permits it.
    pub by: Vec<String>,
    /// Which set of policies it was.
    pub set: Arc<str>,
}

/// Policies that belong together.
pub struct PolicySet {
    policies: CedarSet,
    vocabulary: Vocabulary,
    hash: Arc<str>,
    /// Whether any permit is not one of the default set's.
    permits_more: bool,
}

impl fmt::Debug for PolicySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "PolicySet({} policies, {})",
            self.policies.policies().count(),
            self.hash
        )
    }
}

/// Why policies are refused.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// A file or the directory cannot be read.
    #[error("cannot read policies; check the path and its permissions path={}: {source}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is too much.
    #[error("at most {FILES} files of policies, 256 KiB together path={}", path.display())]
    TooMuch {
        /// Which.
        path: PathBuf,
    },
    /// A file is not what it should be; Cedar says where.
    #[error("not a set of Cedar policies path={}: {message}", path.display())]
    Syntax {
        /// Which.
        path: PathBuf,
        /// Where and why.
        message: String,
    },
    /// A policy has no name, or another's.
    #[error("every policy needs an @id of its own, of letters, digits, hyphens and dots: {id} path={}", path.display())]
    Name {
        /// Which file.
        path: PathBuf,
        /// Which name.
        id: String,
    },
    /// A policy speaks of what there is not.
    #[error("policies do not fit the schema: {0}")]
    Invalid(String),
}

impl PolicySet {
    /// The default set alone, for records that lie in `home`.
    ///
    /// # Errors
    /// Never in practice: a test reads it.
    pub fn default_set(home: Country) -> Result<Self, PolicyError> {
        Self::of(Vec::new(), home)
    }

    /// The default set, and every `*.cedar` of a directory.
    ///
    /// # Errors
    /// [`PolicyError`], naming the file.
    pub fn load(dir: &Path, home: Country) -> Result<Self, PolicyError> {
        Self::of(files(dir)?, home)
    }

    fn of(own: Vec<(PathBuf, String)>, home: Country) -> Result<Self, PolicyError> {
        let mut policies = CedarSet::new();
        add(&mut policies, Path::new("default.cedar"), DEFAULT)?;
        let few = policies.policies().filter(|policy| permits(policy)).count();
        for (path, text) in &own {
            add(&mut policies, path, text)?;
        }
        let all = policies.policies().filter(|policy| permits(policy)).count();
        validate(&policies)?;
        Ok(Self {
            hash: hash(&policies).into(),
            vocabulary: Vocabulary::new(home).map_err(PolicyError::Invalid)?,
            permits_more: all > few,
            policies,
        })
    }

    /// The SHA-256 of schema and policies, in hex: two sets that decide alike by their texts have one.
    pub fn hash(&self) -> &Arc<str> {
        &self.hash
    }

    /// Whether a deployment's own policies permit anything at all: then roles alone do not say what a caller may never do.
    pub fn permits_more(&self) -> bool {
        self.permits_more
    }

    /// Decides.
    pub fn decide(&self, ask: &Ask<'_>) -> Decision {
        let decision = |allowed, by| Decision {
            allowed,
            by,
            set: Arc::clone(&self.hash),
        };
        if let Some(rule) = rules::forbidding(ask) {
            return decision(false, vec![rule.to_owned()]);
        }
        let Some((request, entities)) = self.vocabulary.request(ask) else {
            return decision(false, vec!["code:not-evaluated".to_owned()]);
        };
        let response = authorizer().is_authorized(&request, &self.policies, &entities);
        if response.diagnostics().errors().next().is_some() {
            tracing::error!(action = ?ask.action, "a policy cannot be evaluated; what it is about is denied");
            return decision(false, vec!["code:not-evaluated".to_owned()]);
        }
        let allowed = response.decision() == cedar_policy::Decision::Allow;
        let by = response.diagnostics().reason().map(ToString::to_string).collect();
        decision(allowed, by)
    }

    /// Which of its grants allow a principal to do something somewhere: the roles of each are asked by themselves.
    pub fn granted(&self, principal: &Principal, action: Action) -> crate::domain::principal::TenantScope {
        use crate::domain::principal::TenantScope;
        let mut some = std::collections::BTreeSet::new();
        for grant in principal.grants() {
            let alone = principal.only(grant);
            let ask = Ask {
                principal: &alone,
                action,
                resource: Resource::Region,
                purpose: None,
            };
            if !self.decide(&ask).allowed {
                continue;
            }
            match &grant.scope {
                TenantScope::All => return TenantScope::All,
                TenantScope::Some(tenants) => some.extend(tenants.iter().cloned()),
            }
        }
        TenantScope::Some(some)
    }
}

fn authorizer() -> &'static Authorizer {
    static AUTHORIZER: OnceLock<Authorizer> = OnceLock::new();
    AUTHORIZER.get_or_init(Authorizer::new)
}

fn permits(policy: &Policy) -> bool {
    policy.effect() == cedar_policy::Effect::Permit
}

/// Every file of a directory that has policies, by its name.
fn files(dir: &Path) -> Result<Vec<(PathBuf, String)>, PolicyError> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |source| PolicyError::Unreadable { path, source }
    };
    let mut found = Vec::new();
    for path in paths(dir).map_err(unreadable(dir))? {
        let text = fs::read_to_string(&path).map_err(unreadable(&path))?;
        found.push((path, text));
    }
    let bytes: usize = found.iter().map(|(_, text)| text.len()).sum();
    if found.len() > FILES || bytes > BYTES {
        return Err(PolicyError::TooMuch { path: dir.to_owned() });
    }
    Ok(found)
}

/// The files of a directory that have policies, in order.
///
/// # Errors
/// What the system says.
pub fn paths(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == ENDING) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Adds the policies of a text under the names that they give themselves.
fn add(to: &mut CedarSet, path: &Path, text: &str) -> Result<(), PolicyError> {
    let parsed: CedarSet = text
        .parse()
        .map_err(|error: cedar_policy::ParseErrors| PolicyError::Syntax {
            path: path.to_owned(),
            message: format!("{:?}", miette_free(&error)),
        })?;
    for policy in parsed.policies() {
        let id = policy.annotation("id").unwrap_or_default().to_owned();
        let refuse = || PolicyError::Name {
            path: path.to_owned(),
            id: id.clone(),
        };
        if !is_name(&id) {
            return Err(refuse());
        }
        to.add(policy.new_id(PolicyId::new(&id))).map_err(|_| refuse())?;
    }
    if parsed.templates().next().is_some() {
        return Err(PolicyError::Syntax {
            path: path.to_owned(),
            message: "templates are not used here; write policies".to_owned(),
        });
    }
    Ok(())
}

/// What went wrong, without the sources that Cedar would draw.
fn miette_free(errors: &cedar_policy::ParseErrors) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

fn is_name(id: &str) -> bool {
    (1..=63).contains(&id.len())
        && id
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.')
}

fn validate(policies: &CedarSet) -> Result<(), PolicyError> {
    let result = Validator::new(schema()?).validate(policies, ValidationMode::Strict);
    if result.validation_passed() {
        return Ok(());
    }
    let errors: Vec<_> = result.validation_errors().map(ToString::to_string).collect();
    Err(PolicyError::Invalid(errors.join("; ")))
}

fn schema() -> Result<Schema, PolicyError> {
    let parsed = Schema::from_cedarschema_str(SCHEMA);
    parsed
        .map(|(schema, _)| schema)
        .map_err(|error| PolicyError::Invalid(error.to_string()))
}

fn hash(policies: &CedarSet) -> String {
    let mut texts: Vec<String> = policies.policies().map(ToString::to_string).collect();
    texts.sort();
    texts.push(SCHEMA.to_owned());
    hex::encode(sha256(texts.join("\n").as_bytes()))
}

/// Roles as policies name them.
fn role_names<'a>(roles: impl IntoIterator<Item = &'a Role>) -> impl Iterator<Item = String> {
    roles.into_iter().map(|role| role.name().to_owned())
}
