//! Gate 1: before any lookup, so that its answer reveals nothing of what is stored.

use crate::domain::{
    error::{Error, Kind},
    ids::TenantId,
    principal::{Action, Principal},
};

/// Refuses unless a role of `principal` may do `action`, and `tenant`, where the call has one, is in its scope.
///
/// # Errors
/// `Forbidden` (`ROLE_DENIED`), the same for every tenant; else the one `NotFound` for tenants out of scope.
pub fn gate1(principal: &Principal, action: Action, tenant: Option<&TenantId>) -> Result<(), Error> {
    if !principal.may(action) {
        return Err(role_denied());
    }
    match tenant {
        Some(tenant) if !principal.knows(tenant) => Err(Error::not_found()),
        // It acts for this tenant, in another role.
        Some(tenant) if !principal.may_for(action, tenant) => Err(role_denied()),
        _ => Ok(()),
    }
}

fn role_denied() -> Error {
    Error::new(
        Kind::Forbidden,
        "ROLE_DENIED",
        "none of the caller's roles may make this call",
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::domain::principal::{Role, TenantScope};

    fn reader_of_one() -> Principal {
        let scope = TenantScope::Some(BTreeSet::from(["one".parse().unwrap()]));
        Principal::new("reader", [Role::Reader], scope).unwrap()
    }

    fn refusal(action: Action, tenant: &str) -> (Kind, &'static str, String) {
        let err = gate1(&reader_of_one(), action, Some(&tenant.parse().unwrap())).unwrap_err();
        (err.kind, err.reason, err.message)
    }

    #[test]
    fn a_role_opens_its_own_tenants() {
        let one = "one".parse().unwrap();
        assert!(gate1(&reader_of_one(), Action::ReadRecording, Some(&one)).is_ok());
    }

    #[test]
    fn a_missing_role_is_answered_alike_whatever_the_tenant() {
        let inside = refusal(Action::PutRecording, "one");
        assert_eq!(inside, refusal(Action::PutRecording, "other"));
        assert_eq!((inside.0, inside.1), (Kind::Forbidden, "ROLE_DENIED"));
    }

    #[test]
    fn a_tenant_out_of_scope_does_not_exist() {
        assert_eq!(refusal(Action::GetRecord, "other").0, Kind::NotFound);
        let plain = Error::not_found();
        assert_eq!(refusal(Action::GetRecord, "other").2, plain.message);
    }
}
