//! What every engine refuses before it begins, so that all refuse the same.

use std::collections::BTreeSet;

use super::{Change, IndexError, Key, LeafDraft, Row, SCAN_ROWS, Scan, Scope, VALUE_BYTES};
use crate::domain::limits;

impl Change {
    /// Whether this change is one that an engine may be asked to apply.
    ///
    /// # Errors
    /// [`IndexError::InvalidChange`] names what is wrong with it.
    pub fn check(&self) -> Result<(), IndexError> {
        self.check_size()?;
        self.put.iter().try_for_each(check_row)?;
        self.leaves.iter().try_for_each(check_leaf)?;
        let written = self.written_once()?;
        self.check_counters(&written)
    }

    fn check_size(&self) -> Result<(), IndexError> {
        let rows = self.put.len() + self.delete.len() + self.leaves.len();
        ensure(
            rows <= limits::TRANSACTION_ROWS,
            "more rows and leaves than a transaction has",
        )?;
        ensure(
            self.expect.len() <= limits::TRANSACTION_ROWS,
            "more preconditions than a transaction has",
        )
    }

    fn written_once(&self) -> Result<BTreeSet<&Key>, IndexError> {
        let mut written = BTreeSet::new();
        for key in self.put.iter().map(|row| &row.key).chain(&self.delete) {
            ensure(written.insert(key), "a key is written twice")?;
        }
        Ok(written)
    }

    fn check_counters(&self, written: &BTreeSet<&Key>) -> Result<(), IndexError> {
        if self.leaves.is_empty() {
            return Ok(());
        }
        let Some(log) = self.log else {
            return Err(IndexError::InvalidChange("leaves without a log"));
        };
        let taken = self.leaves.iter().map(|leaf| Key::Sequence(leaf.scope.clone()));
        for counter in taken.chain([Key::LogNext(log)]) {
            ensure(!written.contains(&counter), "a counter is written and counted")?;
        }
        Ok(())
    }
}

impl Scan {
    /// Whether this scan is one that an engine may be asked for.
    ///
    /// # Errors
    /// [`IndexError::InvalidChange`] unless the limit is 1..=[`SCAN_ROWS`].
    pub fn check(&self) -> Result<(), IndexError> {
        ensure(
            (1..=SCAN_ROWS).contains(&self.limit),
            "the limit of a scan is 1 to 1000",
        )
    }
}

/// The number that a counter row holds; no row means 0.
///
/// # Errors
/// [`IndexError::Corrupt`] unless the row is eight bytes.
pub(super) fn counter(row: Option<&[u8]>) -> Result<u64, IndexError> {
    let Some(bytes) = row else { return Ok(0) };
    let bytes = bytes
        .try_into()
        .map_err(|_| IndexError::Corrupt("a counter is not eight bytes"))?;
    Ok(u64::from_be_bytes(bytes))
}

/// The number after `number`.
///
/// # Errors
/// [`IndexError::Corrupt`] at the end of all numbers: nobody counts that far.
pub(super) fn after(number: u64) -> Result<u64, IndexError> {
    number
        .checked_add(1)
        .ok_or(IndexError::Corrupt("a counter is at its end"))
}

/// Whether leaves of `scope` are numbered.
pub(super) fn is_numbered(scope: &Scope) -> bool {
    !matches!(scope, Scope::Fact)
}

fn check_row(row: &Row) -> Result<(), IndexError> {
    ensure(row.value.len() <= VALUE_BYTES, "a value is longer than 160 KiB")?;
    let counts = matches!(row.key, Key::Sequence(_) | Key::LogNext(_));
    ensure(
        !counts || row.value.len() == size_of::<u64>(),
        "a counter is eight bytes",
    )
}

fn check_leaf(leaf: &LeafDraft) -> Result<(), IndexError> {
    ensure(
        leaf.body.len() <= limits::LEAF_BYTES,
        "a leaf is longer than 60 KiB",
    )
}

fn ensure(holds: bool, what: &'static str) -> Result<(), IndexError> {
    if holds {
        Ok(())
    } else {
        Err(IndexError::InvalidChange(what))
    }
}
