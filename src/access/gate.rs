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
    principal::{Action, Role},
    purpose::Purpose,
    record::{Descriptor, Record, State},
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
        // A deployment's own policies may speak of tenants and purposes, which only the next question has.
        if session.policies().has_more() {
            return Ok(());
        }
        return permitted(&session.decide(action, Resource::Region, purpose));
    };
    if !session.knows(tenant) {
        // Whoever may do this for nobody learns nothing of tenants.
        if !session.policies().has_more() {
            permitted(&session.decide(action, Resource::Region, purpose))?;
        }
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

/// Refuses unless a policy permits the caller to do what is no tenant's.
///
/// # Errors
/// As [`gate1`].
pub fn of_region(session: &Session, action: Action) -> Result<(), Error> {
    permitted(&session.decide(action, Resource::Region, None))
}

/// Why a caller asks for a tenant's records, and who judges each.
pub fn reason(session: &Session, action: Action, tenant: &TenantId, purpose: Purpose) -> Reason {
    let reason = Reason::new(purpose, judge(session, action, Some(purpose)));
    let roles = session.roles_for(tenant);
    if OFFICERS.iter().any(|role| roles.contains(role)) {
        reason.of_an_officer()
    } else {
        reason
    }
}

/// Those who answer the people concerned.
const OFFICERS: [Role; 2] = [Role::Compliance, Role::Dpo];

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
        let told = |error: Error| error.with("policy_set", &decision.set);
        let Some(policy) = decision.by.first() else {
            return Err(told(Error::new(
                Kind::Forbidden,
                "RECORD_DENIED",
                "no policy permits the caller to have to do with this record: it is another agent's, or another team's",
            )));
        };
        if decision.by.iter().any(|policy| policy == HOME_COUNTRY) {
            let error = Error::new(
                Kind::Forbidden,
                "COUNTRY_DENIED",
                "the record lies in another country than the caller, and no transfer rule allows that",
            );
            return Err(told(error.with("policy", HOME_COUNTRY)));
        }
        Err(denied(policy, &decision.set))
    }

    /// A correction must not open to whoever makes it what was kept from him: that is for those who read nothing.
    fn judge_change(&self, before: &Record, after: &Descriptor) -> Result<(), Error> {
        let roles = self.session.roles_for(&before.tenant);
        if OFFICERS.iter().any(|role| roles.contains(role)) {
            return Ok(());
        }
        let kept = matches!(before.state, State::Restricted | State::Blocked);
        let lifts = kept && after.resting_state() == State::Active;
        let widens = !after
            .allowed_purposes
            .is_subset(&before.descriptor.allowed_purposes);
        let corrected = Record {
            descriptor: after.clone(),
            state: after.resting_state(),
            ..before.clone()
        };
        let opens = after
            .allowed_purposes
            .iter()
            .any(|purpose| self.opens(&corrected, *purpose) && !self.opens(before, *purpose));
        if lifts || widens || opens {
            return Err(Error::new(
                Kind::Forbidden,
                "CORRECTION_DENIED",
                "a correction that lifts a restriction, adds purposes, or opens content that a policy kept closed is for compliance or the dpo",
            ));
        }
        Ok(())
    }
}

impl Gate2 {
    /// Whether policies let the caller open a record's content.
    fn opens(&self, record: &Record, purpose: Purpose) -> bool {
        [Action::ReadRecording, Action::GetMessage]
            .into_iter()
            .any(|action| {
                let decision = self
                    .session
                    .decide(action, Resource::Record(record), Some(purpose));
                decision.allowed
            })
    }
}

/// The default set's policy on other countries.
const HOME_COUNTRY: &str = "home-country";

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
