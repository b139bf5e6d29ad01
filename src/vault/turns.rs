//! Whose turn it is to keep the machine busy: a few pieces of work at a time, and tenants that wait take turns.
//!
//! Work is what costs processor or index time and comes to an end by itself: finding rows, opening descriptors, sealing an extent.
//! Waiting for a caller, for the store or for an acknowledgement is none, and is done without a turn.

use std::{sync::Arc, thread, time::Duration};

use super::{Error, Kind, Vault};
use crate::domain::{
    fair::{Busy, Fair, Held},
    ids::TenantId,
    limits,
};

/// Turns a processor: one computes while another waits for a page of the index.
const PER_PROCESSOR: usize = 2;
/// Rows that may be on their way into the index: some transactions, which share a sync and take it some milliseconds.
const ROWS: u64 = 8 * limits::TRANSACTION_ROWS as u64;
/// Pieces of work that are done in a row: about a millisecond's.
const IN_A_ROW: usize = 32;
/// Longest wait for a turn before a caller is told to come back.
const PATIENCE: Duration = Duration::from_secs(5);

/// Who may work, and who may write.
#[derive(Clone, Debug)]
pub(super) struct Turns {
    work: Arc<Fair<TenantId>>,
    rows: Arc<Fair<TenantId>>,
}

/// A turn, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn(#[allow(dead_code)] Held<TenantId>); // held, never read

impl Turns {
    /// As many turns as this machine has use for. A tenant may have all but one of them while nobody else wants any.
    pub(super) fn new() -> Self {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let turns = (processors * PER_PROCESSOR).max(4) as u64;
        Self {
            work: Fair::new(turns, turns - 1),
            // The index writes in the order in which it is asked: what one tenant has asked for, others wait for.
            rows: Fair::new(ROWS, ROWS / 2),
        }
    }
}

impl Vault {
    /// Waits until it is this tenant's turn. Cancel safe.
    ///
    /// # Errors
    /// [`Kind::Exhausted`] if it did not come in time.
    pub(super) async fn turn(&self, tenant: &TenantId) -> Result<Turn, Error> {
        let taken = self.turns.work.take(tenant.clone(), 1, PATIENCE).await;
        taken.map(Turn).map_err(|Busy| {
            Error::new(
                Kind::Exhausted,
                "TENANT_BUSY",
                "the tenant has more work under way than the server can do in time; try again with fewer calls at once",
            )
        })
    }

    /// Waits until the tenant may write so many rows of what is stored already: however long that takes, there is no way back.
    /// Cancel safe.
    pub(super) async fn way_in(&self, tenant: &TenantId, rows: usize) -> Option<Turn> {
        let taken = self.turns.rows.take(tenant.clone(), rows as u64, Duration::MAX);
        taken.await.ok().map(Turn)
    }
}

/// Lets others in from time to time, by the number of pieces of work that are done: a thousand of them in a row would keep a
/// thread from everything else.
pub(super) async fn let_others_in(done: usize) {
    if done % IN_A_ROW == IN_A_ROW - 1 {
        tokio::task::yield_now().await;
    }
}
