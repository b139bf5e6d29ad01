//! The first question of every call: may this caller make it, and for this tenant? Asked before anything is looked up.

use std::sync::Arc;

use tonic::{Request, Status};

use super::{caller, convert};
use crate::{
    access::gate::gate1,
    domain::{
        ids::TenantId,
        principal::{Action, Principal},
    },
    vault::Error,
};

/// The caller, if one of its roles may make this call at all.
pub(super) fn may_call<T>(request: &Request<T>, action: Action) -> Result<Arc<Principal>, Status> {
    let caller = caller(request)?;
    gate1(&caller, action, None)?;
    Ok(caller)
}

/// The tenant that a request is made for, if it is in the caller's scope; `at` is the field that names it.
pub(super) fn in_scope(
    caller: &Principal,
    action: Action,
    tenant: &str,
    at: &convert::Path<'_>,
) -> Result<TenantId, Error> {
    let tenant = convert::required(tenant, at)?;
    gate1(caller, action, Some(&tenant))?;
    Ok(tenant)
}
