//! The gates. Gate 1 is before any lookup, so that its answer reveals nothing of what is stored; gate 2 when a record is known.

use std::sync::Arc;

use super::{
    policy::{Decision, Resource},
    session::Session,
};
use crate::domain::{
    error::{Error, Kind},
    ids::TenantId,
    judge::{Judge, Reason},
    principal::Action,
    purpose::Purpose,
    record::Record,
};

/// Refuses unless a policy permits the caller to do `action`, for `tenant` where the call has one.
///
/// # Errors
/// `Forbidden` (`ROLE_DENIED`, `POLICY_DENIED`), the same for every tenant; else the one `NotFound` for tenants out of scope.
pub fn gate1(
    session: &Session,
    action: Action,
    tenant: Option<&TenantId>,
    purpose: Option<Purpose>,
) -> Result<(), Error> {
    let Some(tenant) = tenant else {
        // Where a deployment permits more for some tenants, only the tenant tells.
        if session.policies().permits_more() {
            return Ok(());
        }
        return permitted(&session.decide(action, Resource::Region, purpose));
    };
    if !session.knows(tenant) {
        // Whoever may do this for nobody learns nothing of tenants.
        permitted(&session.decide(action, Resource::Region, purpose))?;
        return Err(Error::not_found());
    }
    permitted(&session.decide(action, Resource::Tenant(tenant), purpose))
}

fn permitted(decision: &Decision) -> Result<(), Error> {
    if decision.allowed {
        return Ok(());
    }
    let by = decision.by.first();
    Err(match by.map(String::as_str) {
        None | Some("code:never-plaintext") => Error::new(
            Kind::Forbidden,
            "ROLE_DENIED",
            "none of the caller's roles may make this call",
        ),
        Some(policy) => denied(policy, &decision.set),
    })
}

fn denied(policy: &str, set: &str) -> Error {
    Error::new(
        Kind::Forbidden,
        "POLICY_DENIED",
        format!("a policy forbids this; ask whoever runs this deployment policy={policy}"),
    )
    .with("policy", policy)
    .with("policy_set", set)
}

/// Why a caller asks for records, and who judges each.
pub fn reason(session: &Session, action: Action, purpose: Purpose) -> Reason {
    let judge = judge(session, action, Some(purpose));
    Reason::new(purpose, judge)
}

/// Who judges each record that a caller has to do with.
pub fn judge(session: &Session, action: Action, purpose: Option<Purpose>) -> Arc<dyn Judge> {
    Arc::new(Gate2 {
        session: session.clone(),
        action,
        purpose,
    })
}

/// Gate 2.
#[derive(Debug)]
struct Gate2 {
    session: Session,
    action: Action,
    purpose: Option<Purpose>,
}

impl Judge for Gate2 {
    fn judge(&self, record: &Record) -> Result<(), Error> {
        let decision = self
            .session
            .decide(self.action, Resource::Record(record), self.purpose);
        if decision.allowed {
            return Ok(());
        }
        Err(match decision.by.first().map(String::as_str) {
            None => Error::new(
                Kind::Forbidden,
                "RECORD_DENIED",
                "no policy permits the caller to have to do with this record: it is another agent's, or another team's",
            ),
            Some("home-country") => Error::new(
                Kind::Forbidden,
                "COUNTRY_DENIED",
                "the record lies in another country than the caller, and no transfer rule allows that",
            ),
            Some(policy) => denied(policy, &decision.set),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{
        access::policy::PolicySet,
        domain::principal::{Grant, Principal, Role, TenantScope},
    };

    fn session(grants: &[(Role, &str)]) -> Session {
        let grants = grants.iter().map(|(role, tenant)| Grant {
            roles: BTreeSet::from([*role]),
            scope: TenantScope::Some(BTreeSet::from([tenant.parse().unwrap()])),
        });
        let principal = Principal::with_grants("x", grants.collect()).unwrap();
        let policies = PolicySet::default_set("MX".parse().unwrap()).unwrap();
        Session::new(Arc::new(principal), Arc::new(policies))
    }

    fn asked(session: &Session, action: Action, tenant: &str) -> Option<(Kind, &'static str, String)> {
        let asked = gate1(session, action, Some(&tenant.parse().unwrap()), None);
        asked.err().map(|error| (error.kind, error.reason, error.message))
    }

    #[test]
    fn a_role_opens_its_own_tenants() {
        let reader = session(&[(Role::Reader, "one")]);
        assert_eq!(asked(&reader, Action::ReadRecording, "one"), None);
        gate1(&reader, Action::ReadRecording, None, None).unwrap();
    }

    #[test]
    fn a_missing_role_is_answered_alike_whatever_the_tenant() {
        let reader = session(&[(Role::Reader, "one")]);
        let inside = asked(&reader, Action::PutRecording, "one").unwrap();
        assert_eq!(inside, asked(&reader, Action::PutRecording, "other").unwrap());
        assert_eq!((inside.0, inside.1), (Kind::Forbidden, "ROLE_DENIED"));
        let whatever = gate1(&reader, Action::PutRecording, None, None).unwrap_err();
        assert_eq!(whatever.reason, "ROLE_DENIED");
    }

    #[test]
    fn a_tenant_out_of_scope_does_not_exist() {
        let reader = session(&[(Role::Reader, "one")]);
        let (kind, _, message) = asked(&reader, Action::GetRecord, "other").unwrap();
        assert_eq!((kind, message), (Kind::NotFound, Error::not_found().message));
    }

    #[test]
    fn a_role_for_one_tenant_is_none_for_another() {
        let both = session(&[(Role::Reader, "one"), (Role::Supervisor, "other")]);
        assert_eq!(asked(&both, Action::UpdateRecord, "other"), None);
        assert_eq!(
            asked(&both, Action::UpdateRecord, "one").unwrap().1,
            "ROLE_DENIED"
        );
        assert_eq!(
            both.scope(Action::UpdateRecord),
            TenantScope::Some(["other".parse().unwrap()].into())
        );
    }
}
