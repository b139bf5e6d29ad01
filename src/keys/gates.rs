//! One change of a tenant's keys at a time, and one of the region's.
//!
//! Whoever makes a page known, or another generation of one, holds the gate of its owner meanwhile; so does a rotation for its
//! last step, in which the new key becomes the current one. So no page is known under a key that is no longer the current one.
//! Readers, and puts that take slots of pages that are there, hold no gate.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::OwnedMutexGuard;

use crate::domain::ids::TenantId;

/// Gates kept when nobody is at them.
const MOST: usize = 1_024;

/// The right to change somebody's keys; given back when dropped.
pub type Gate = OwnedMutexGuard<()>;

#[derive(Debug, Default)]
pub(super) struct Gates {
    region: Arc<tokio::sync::Mutex<()>>,
    tenants: Mutex<HashMap<TenantId, Arc<tokio::sync::Mutex<()>>>>,
}

impl Gates {
    pub(super) async fn region(&self) -> Gate {
        Arc::clone(&self.region).lock_owned().await
    }

    pub(super) async fn tenant(&self, tenant: &TenantId) -> Gate {
        let gate = {
            let mut gates = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
            if gates.len() >= MOST {
                gates.retain(|_, gate| Arc::strong_count(gate) > 1);
            }
            Arc::clone(gates.entry(tenant.clone()).or_default())
        };
        gate.lock_owned().await
    }
}
