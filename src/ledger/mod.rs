//! The ledger: what happened, in order, so that nobody can change it unnoticed.
//!
//! [`log`] keeps bytes in append-only Merkle logs in the bucket; what the bytes mean is not its business.

pub mod leaf;
pub mod log;
pub mod outbox;
