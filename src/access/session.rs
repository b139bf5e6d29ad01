//! Who makes a call, and by which policies it is judged: those of its beginning.

use std::{ops::Deref, sync::Arc};

use super::policy::{Decision, PolicySet, Resource};
use crate::domain::{
    principal::{Action, Principal, TenantScope},
    purpose::Purpose,
};

/// A caller, recognised.
#[derive(Clone, Debug)]
pub struct Session {
    principal: Arc<Principal>,
    policies: Arc<PolicySet>,
}

impl Session {
    /// A principal, judged by these policies from now on.
    pub fn new(principal: Arc<Principal>, policies: Arc<PolicySet>) -> Self {
        Self { principal, policies }
    }

    /// Who it is.
    pub fn principal(&self) -> &Arc<Principal> {
        &self.principal
    }

    /// By what it is judged.
    pub fn policies(&self) -> &Arc<PolicySet> {
        &self.policies
    }

    /// Whether it may do something.
    pub fn decide(&self, action: Action, resource: Resource<'_>, purpose: Option<Purpose>) -> Decision {
        self.policies
            .decide_for(&self.principal, action, resource, purpose)
    }

    /// The tenants for which its roles allow it to do something.
    pub fn scope(&self, action: Action) -> TenantScope {
        self.policies.granted(&self.principal, action)
    }
}

impl Deref for Session {
    type Target = Principal;

    fn deref(&self) -> &Principal {
        &self.principal
    }
}
