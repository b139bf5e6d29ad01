//! Erasure: what is asked for is cut off at once, shredded when nothing stands in the way, and swept later.
//!
//! ```text
//! request   leaf with the set  -> rows PENDING_SHRED, streams cut          (`request`, `cut`)
//! shred     leaf with tombstones and punctured pages -> rows gone          (`shred`, `tenant`)
//! effective leaf               -> the objects are deleted, one by one       (`purge`)
//! final     a sweep            -> old copies open nothing                   (`vault/rotation/sweep`)
//! proof     a signed file of what the log says of it                        (`certificate`)
//! ```
//!
//! One task at a time works on the erasures of a tenant. Each step is a transaction of its own and may be repeated; what a
//! process leaves undone, the next one finds by the case's row.

mod case;
mod certificate;
mod cut;
mod preview;
mod purge;
mod replay;
mod request;
mod requests;
mod set;
mod shred;
mod tenant;

use tokio::sync::Notify;

use crate::{
    domain::{
        clock::Timestamp,
        erasure::{ErasureState, Ground, Reference, Target},
        ids::{ErasureId, RequestId, TenantId},
    },
    keys::gates::Gates,
};

pub(super) use case::unswept_row;
pub use preview::Preview;
pub use purge::PendingDeletion;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct ErasureSpec {
    /// Whose.
    pub tenant: TenantId,
    /// Alias of who asks.
    pub actor: String,
    /// What.
    pub target: Target,
    /// Why.
    pub ground: Ground,
    /// The controller's own name of the case.
    pub reference: Reference,
    /// Until when it may be taken back, from now; the default when `None`.
    pub grace_micros: Option<i64>,
    /// Refuse unless the set is this one.
    pub expected_set: Option<[u8; 32]>,
    /// Makes the call idempotent.
    pub request: Option<RequestId>,
}

/// An erasure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Erasure {
    /// Whose.
    pub tenant: TenantId,
    /// Minted by the vault.
    pub id: ErasureId,
    /// How far it is.
    pub state: ErasureState,
    /// Why.
    pub ground: Ground,
    /// The controller's own name of the case.
    pub reference: String,
    /// Alias of who asked.
    pub actor: String,
    /// Aliases of who approved.
    pub approvers: Vec<String>,
    /// When it was asked for.
    pub created: Timestamp,
    /// When its grace ends.
    pub due: Timestamp,
    /// When the last key was gone from the current state.
    pub effective: Option<Timestamp>,
    /// When old copies opened no content any more.
    pub content_final: Option<Timestamp>,
    /// When old rows of the index led to nobody any more.
    pub traces_final: Option<Timestamp>,
    /// When it was taken back.
    pub cancelled: Option<Timestamp>,
    /// Whether it is the whole tenant.
    pub whole_tenant: bool,
    /// Records of the set; 0 for a tenant.
    pub records: u64,
    /// Those that are shredded.
    pub shredded: u64,
    /// Those that wait although the grace has passed.
    pub waiting: u64,
    /// What for: the name of an [`Obstacle`](crate::domain::erasure::Obstacle).
    pub obstacle: Option<String>,
    /// SHA-256 of the set.
    pub set_sha256: Vec<u8>,
}

/// What works on erasures.
#[derive(Debug, Default)]
pub(super) struct Erasing {
    gates: Gates,
    /// Something waits for its deletion.
    purge: Notify,
}
