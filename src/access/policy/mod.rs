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
mod memo;
mod rules;
#[cfg(test)]
mod tests;

use std::{
    fmt, fs,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use cedar_policy::{Authorizer, PolicyId, PolicySet as CedarSet, Schema, ValidationMode, Validator};

use self::{
    entities::Vocabulary,
    memo::{Memo, Question},
};
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
    /// Whether any policy is not one of the default set's.
    has_more: bool,
    /// Whether any names a record.
    names_records: bool,
    memo: Memo,
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
    /// There is nothing.
    #[error("no *.cedar in the directory of policies; put one there, or leave out policy.dir path={}", path.display())]
    Empty {
        /// Which.
        path: PathBuf,
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
        let few = policies.policies().count();
        for (path, text) in &own {
            add(&mut policies, path, text)?;
        }
        validate(&policies)?;
        let names_record = |policy: &cedar_policy::Policy| {
            let text: String = policy.to_string().split_whitespace().collect();
            text.contains("Record::")
        };
        let names_records = policies.policies().any(names_record);
        Ok(Self {
            hash: hash(&policies, &home).into(),
            has_more: policies.policies().count() > few,
            names_records,
            memo: Memo::default(),
            vocabulary: Vocabulary::new(home).map_err(PolicyError::Invalid)?,
            policies,
        })
    }

    /// The SHA-256 of schema, policies and home country, in hex: what decides has one.
    pub fn hash(&self) -> &Arc<str> {
        &self.hash
    }

    /// Whether there are policies of the deployment's own: then roles alone do not say what a caller may never do.
    pub fn has_more(&self) -> bool {
        self.has_more
    }

    /// Decides, or knows from before.
    pub fn decide_for(
        &self,
        principal: &Arc<Principal>,
        action: Action,
        resource: Resource<'_>,
        purpose: Option<Purpose>,
    ) -> Decision {
        let question = Question::of(principal, action, resource, purpose, self.names_records);
        if let Some(known) = self.memo.get(&question) {
            return known;
        }
        let decision = self.decide(&Ask {
            principal,
            action,
            resource,
            purpose,
        });
        self.memo.put(question, principal, &decision);
        decision
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
        let mut by: Vec<String> = response.diagnostics().reason().map(ToString::to_string).collect();
        by.sort();
        tracing::debug!(
            action = ?ask.action, caller = ask.principal.alias(), allowed, by = ?by, policy_set = %self.hash, "decided"
        );
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

/// Every file of a directory that has policies, by its name.
fn files(dir: &Path) -> Result<Vec<(PathBuf, String)>, PolicyError> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |source| PolicyError::Unreadable { path, source }
    };
    let (mut found, mut bytes) = (Vec::new(), 0);
    for path in paths(dir).map_err(unreadable(dir))? {
        let room = BYTES.saturating_sub(bytes);
        let mut text = String::new();
        let file = fs::File::open(&path).map_err(unreadable(&path))?;
        let read = file.take(room as u64 + 1).read_to_string(&mut text);
        bytes += read.map_err(unreadable(&path))?;
        found.push((path, text));
        if found.len() > FILES || bytes > BYTES {
            return Err(PolicyError::TooMuch { path: dir.to_owned() });
        }
    }
    if found.is_empty() {
        return Err(PolicyError::Empty { path: dir.to_owned() });
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
        // Editors leave files that begin with a dot; what is no file has no end.
        let is_hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if path.extension().is_some_and(|ending| ending == ENDING) && !is_hidden && path.is_file() {
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

fn hash(policies: &CedarSet, home: &Country) -> String {
    let mut texts: Vec<String> = policies.policies().map(ToString::to_string).collect();
    texts.sort();
    texts.push(SCHEMA.to_owned());
    texts.push(home.as_str().to_owned());
    hex::encode(sha256(texts.join("\n").as_bytes()))
}

/// Roles as policies name them.
fn role_names<'a>(roles: impl IntoIterator<Item = &'a Role>) -> impl Iterator<Item = String> {
    roles.into_iter().map(|role| role.name().to_owned())
}
