//! The first question of every call: may this caller make it, and for this tenant? Asked before anything is looked up.

use tonic::{Request, Status};

use super::{Caller, caller, convert};
use crate::{
    access::gate::{self, gate1},
    domain::{
        ids::TenantId,
        judge::{Judge, Reason},
        principal::{Action, TenantScope},
        purpose::Purpose,
    },
    vault::{Error, Kind},
};

/// The caller, if one of its roles may make this call at all.
pub(super) fn may_call<T>(request: &Request<T>, action: Action) -> Result<Caller, Status> {
    let caller = caller(request)?;
    gate1(&caller, action, None, None)?;
    Ok(caller)
}

/// The tenant that a request is made for, if it is in the caller's scope; `at` is the field that names it. From here on the
/// call is one of the tenant's.
pub(super) fn in_scope(
    caller: &Caller,
    action: Action,
    tenant: &str,
    at: &convert::Path<'_>,
) -> Result<TenantId, Error> {
    in_scope_for(caller, action, tenant, at, None)
}

/// Likewise for a call that says why.
pub(super) fn in_scope_for(
    caller: &Caller,
    action: Action,
    tenant: &str,
    at: &convert::Path<'_>,
    purpose: Option<Purpose>,
) -> Result<TenantId, Error> {
    let tenant = convert::required(tenant, at)?;
    gate1(caller, action, Some(&tenant), purpose)?;
    if let Some(slot) = &caller.slot {
        slot.claim(&tenant)?;
    }
    Ok(tenant)
}

/// Why the caller asks for records; each is judged when it is known.
pub(super) fn reason(caller: &Caller, action: Action, tenant: &TenantId, purpose: Purpose) -> Reason {
    gate::reason(caller, action, tenant, purpose)
}

/// What is no tenant's, and everybody's who may ask for it.
pub(super) fn of_region(caller: &Caller, action: Action) -> Result<(), Error> {
    gate::of_region(caller, action)
}

/// Whether the caller may do something for a tenant: a listing has what each item of it would be answered with.
pub(super) fn covers(caller: &Caller, action: Action, tenant: &TenantId) -> bool {
    gate1(caller, action, Some(tenant), None).is_ok()
}

/// Who judges a record that the caller changes.
pub(super) fn judge(caller: &Caller, action: Action) -> std::sync::Arc<dyn Judge> {
    gate::judge(caller, action, None)
}

/// Keys and sweeps of the region are everybody's: who acts for some tenants only may not touch them.
pub(super) fn for_all_tenants(caller: &Caller, action: Action) -> Result<(), Error> {
    match caller.scope(action) {
        TenantScope::All => Ok(()),
        TenantScope::Some(_) => Err(Error::new(
            Kind::Forbidden,
            "SCOPE",
            "what is the region's is for principals whose scope is all tenants",
        )),
    }
}
