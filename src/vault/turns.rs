//! Whose turn it is to keep the machine busy: a few pieces of work at a time, and tenants that wait take turns.
//!
//! Work is what costs processor or index time and comes to an end by itself: finding rows, opening descriptors, sealing an extent.
//! Waiting for a caller, for the store or for an acknowledgement is none, and is done without a turn.

use std::{sync::Arc, thread, time::Duration};

use super::{Error, Kind, Vault};
use crate::domain::{
    fair::{Busy, Fair, Held},
    ids::TenantId,
};

/// Turns a processor: one computes while another waits for a page of the index.
const PER_PROCESSOR: usize = 2;
/// Longest wait for a turn before a caller is told to come back.
const PATIENCE: Duration = Duration::from_secs(5);

/// Who may work.
#[derive(Clone, Debug)]
pub(super) struct Turns(Arc<Fair<TenantId>>);

/// A turn, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn(#[allow(dead_code)] Held<TenantId>); // held, never read

impl Turns {
    /// As many turns as this machine has use for. A tenant may have all but one of them while nobody else wants any.
    pub(super) fn new() -> Self {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let turns = (processors * PER_PROCESSOR).max(4) as u64;
        Self(Fair::new(turns, turns - 1))
    }
}

impl Vault {
    /// Waits until it is this tenant's turn. Cancel safe.
    ///
    /// # Errors
    /// [`Kind::Exhausted`] if it did not come in time.
    pub(super) async fn turn(&self, tenant: &TenantId) -> Result<Turn, Error> {
        let taken = self.turns.0.take(tenant.clone(), 1, PATIENCE).await;
        taken.map(Turn).map_err(|Busy| {
            Error::new(
                Kind::Exhausted,
                "TENANT_BUSY",
                "the tenant has more work under way than the server can do in time; try again with fewer calls at once",
            )
        })
    }
}
