//! The index: a view of the bucket, fast to search, free to lose.
//!
//! The trait is shaped so that an embedded tree (sled) and the PostgreSQL wire protocol serve it alike: typed keys that are
//! a composite of columns, values that are opaque bytes to the engine, one kind of write ([`Change`]: preconditions, rows
//! and log leaves, all or nothing), reads by key, and ordered scans by keyset. No engine's transaction object leaks out.

mod change;
pub mod key;
#[cfg(any(test, feature = "testing"))]
pub mod memory;
pub mod sled;
#[cfg(any(test, feature = "testing"))]
pub mod suite;

use std::fmt;

use async_trait::async_trait;

pub use key::{Key, LogId, LogKind, Range, Scope};

/// Longest value of a row, 160 KiB: two states of a page with every second slot punctured, 71,711 bytes each.
pub const VALUE_BYTES: usize = 160 << 10;
/// Most rows of one [`Scan`].
pub const SCAN_ROWS: usize = 1_000;

/// A key and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Where.
    pub key: Key,
    /// What; at most [`VALUE_BYTES`].
    pub value: Vec<u8>,
}

/// Something that must hold when a change is applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// No row has this key.
    Absent(Key),
    /// A row has this key, whatever its value.
    Present(Key),
    /// The row has exactly this value.
    Equals(Key, Vec<u8>),
}

/// A leaf to be queued for a log together with the rows that it explains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafDraft {
    /// Whose sequence it takes the next number of.
    pub scope: Scope,
    /// The leaf without its sequence number.
    pub body: Vec<u8>,
}

/// Rows and leaves that become true together, or not at all.
///
/// Rows put, rows deleted and leaves are at most [`crate::domain::limits::TRANSACTION_ROWS`] together, and so are the
/// preconditions. A key is written once, a leaf is at most [`crate::domain::limits::LEAF_BYTES`], and a counter whose next
/// number is taken by a leaf is not written as well. A rebuild may put counters: exactly eight bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Checked in order, first failure reported.
    pub expect: Vec<Expect>,
    /// Written.
    pub put: Vec<Row>,
    /// Removed; a missing row is no error.
    pub delete: Vec<Key>,
    /// The log that `leaves` are queued for; required when there are any.
    pub log: Option<LogId>,
    /// Queued at the log's next positions, in this order.
    pub leaves: Vec<LeafDraft>,
}

/// Where a queued leaf stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeafReceipt {
    /// Position in its log, from 0.
    pub position: u64,
    /// Number in its scope's sequence, from 1; 0 for [`Scope::Fact`].
    pub sequence: u64,
}

/// A queued leaf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueuedLeaf {
    /// Where it stands.
    pub receipt: LeafReceipt,
    /// Whose sequence it is numbered in.
    pub scope: Scope,
    /// The leaf without its sequence number.
    pub body: Vec<u8>,
}

/// One page of an ordered read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    /// Which rows.
    pub range: Range,
    /// Descending order of keys when set.
    pub reverse: bool,
    /// Only rows strictly after this key, in the direction of the scan.
    pub after: Option<Key>,
    /// At most this many rows, 1..=1000.
    pub limit: usize,
}

/// Why an index did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// A precondition did not hold; nothing was changed. `0` is its place in [`Change::expect`].
    #[error("a precondition failed place={0}")]
    Expectation(usize),
    /// The change (or scan) is larger than it may be, or malformed.
    #[error("invalid change what={0}")]
    InvalidChange(&'static str),
    /// The index holds something that it cannot have written. Move it aside and rebuild.
    #[error("the index is corrupt what={0}")]
    Corrupt(&'static str),
    /// Another process has it open.
    #[error("the index is in use by another process")]
    Locked,
    /// No room.
    #[error("the index has no room")]
    Full,
    /// The engine cannot be asked now; a change may or may not have been applied.
    #[error("the index is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// An index engine.
///
/// Every call is cancel safe: a dropped future may or may not have applied its change, never half of it.
#[async_trait]
pub trait Index: Send + Sync + fmt::Debug {
    /// Applies a change and returns when it is durable (fsync).
    ///
    /// Sequence numbers are handed out without gaps per scope ([`Key::Sequence`] holds the last one as u64 big-endian) and
    /// positions without gaps per log ([`Key::LogNext`] holds the next one). Returns one receipt a leaf, in order.
    ///
    /// Either answer, and the empty change as well, says that everything that was readable when the call began is durable:
    /// `commit(Change::default())` is the barrier for whoever is about to acknowledge what it has only read.
    ///
    /// # Errors
    /// [`IndexError::Expectation`] if a precondition failed: nothing was changed. [`IndexError::InvalidChange`] before the
    /// engine is asked.
    async fn commit(&self, change: Change) -> Result<Vec<LeafReceipt>, IndexError>;

    /// The value of one row, never a mixture of two. It may be read a moment before it is durable.
    async fn get(&self, key: &Key) -> Result<Option<Vec<u8>>, IndexError>;

    /// The values of several rows, in the order of `keys`. Each is whole; together they are no snapshot.
    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Vec<u8>>>, IndexError>;

    /// Rows in order. Each is whole; together they are no snapshot.
    ///
    /// # Errors
    /// [`IndexError::InvalidChange`] if the limit is not 1..=[`SCAN_ROWS`].
    async fn scan(&self, scan: &Scan) -> Result<Vec<Row>, IndexError>;

    /// Up to `limit` leaves queued for `log` at positions `from` and later, in order; only durable ones, so that no leaf
    /// is in the bucket whose position a crash could hand out again.
    async fn queued(&self, log: LogId, from: u64, limit: usize) -> Result<Vec<QueuedLeaf>, IndexError>;

    /// Whether changes can become durable, as far as is known without asking the disk.
    ///
    /// # Errors
    /// Why they cannot, if that lasts until the index is opened again.
    fn health(&self) -> Result<(), IndexError> {
        Ok(())
    }

    /// Forgets the leaves of `log` below `position`: they are in the bucket. Need not be durable: shipping again is harmless.
    async fn shipped(&self, log: LogId, position: u64) -> Result<(), IndexError>;
}
