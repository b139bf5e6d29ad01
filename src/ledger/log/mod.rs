//! An append-only Merkle log in the bucket: C2SP `tlog-tiles` under a prefix, `tlog-checkpoint` as its signed head.
//!
//! | object under `log/<kind>/<node>/<term>/` | content |
//! |---|---|
//! | `checkpoint` | signed note: origin, size, root; the only object that is ever overwritten |
//! | `tile/entries/<n>`, `.p/<w>` | entry bundle `n`: 256 (or `w`) entries, each u16be length then bytes |
//! | `tile/<l>/<n>`, `.p/<w>` | hash tile `n` of level `l`: 256 (or `w`) SHA-256 hashes of RFC 6962 |
//!
//! `<n>` is written in groups of three digits, all but the last behind an `x`: 1234067 is `x001/x234/067`.
//!
//! What a writer of the bucket can and cannot do to a reader: every byte that a read returns has been traced to the root in
//! the checkpoint, and the checkpoint to the log's key, so a changed, removed, truncated, reordered or swapped object is an
//! error and never data. Two things a single log cannot tell, because they are true statements of its past: an *older
//! checkpoint* put back is a valid older head, and a *removed checkpoint* looks like a log that never began. Both are what
//! the anchor is for, which remembers heads outside the bucket.
//!
//! Sources: <https://c2sp.org/tlog-tiles>, <https://c2sp.org/tlog-checkpoint>, <https://c2sp.org/signed-note>, RFC 6962
//! section 2.1.

mod bundle;
mod checkpoint;
mod edge;
mod follow;
mod growth;
mod listed;
mod name;
mod objects;
mod proof;
mod reader;
mod tiles;
mod writer;

#[cfg(test)]
mod tests;

use crate::blob::store::StoreError;

pub use checkpoint::{Head, Signer, verifier_key, verify_checkpoint};
pub use follow::{FollowError, Followed};
pub use listed::{Listed, listed};
pub use name::{LogName, logs};
pub use proof::{check_consistency, check_inclusion};
pub use reader::LogReader;
pub use writer::LogWriter;

/// Why a log could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The store did not do what it was asked; the log is as it was, or as it was meant to become. Retry what was tried.
    #[error("the store failed")]
    Store(#[from] StoreError),
    /// No signature on the checkpoint is the key's. Not retryable.
    #[error("the checkpoint is not signed by the log's key")]
    Signature,
    /// An object of the log is missing or is not what was written. Not retryable.
    #[error("the log is corrupt what={what}")]
    Corrupt {
        /// Which part.
        what: &'static str,
    },
    /// The bucket holds another leaf than this writer's at `position` or before it: somebody else writes this log, or the
    /// caller appended other entries than before a failure. Not retryable.
    #[error("the log is forked position={position}")]
    Forked {
        /// Last position up to which the two are known to differ.
        position: u64,
    },
    /// An entry is longer than [`crate::domain::limits::LEAF_BYTES`]; nothing was appended.
    #[error("entry is too long length={length} limit=61440")]
    EntryTooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// An entry is empty; nothing was appended.
    #[error("entry is empty")]
    EntryEmpty,
    /// The log has no such position or size.
    #[error("beyond the head position={position} size={size}")]
    BeyondHead {
        /// What was asked for.
        position: u64,
        /// Entries in the log.
        size: u64,
    },
    /// The proof does not prove it.
    #[error("the proof does not hold")]
    Proof,
}
