//! One change: checked, then written as one batch of sled's.
//!
//! The batch is all or nothing, for readers and after a crash. Nothing can come between check and batch: the one thread of
//! `writer` applies changes, and what else writes (`queue::forget`) touches no row that a change reads. So sled's one lock is
//! held while rows are written, not while they are looked up, and no row is looked up twice.

use std::collections::{BTreeMap, BTreeSet};

use ::sled::{Batch, Tree};

use super::{keys, queue, rows};
use crate::index::{
    Change, Expect, IndexError, Key, LeafReceipt, LogId, Scope,
    change::{after, counter, is_numbered},
};

/// Applies `change`, whole or not at all. Not yet durable.
///
/// # Errors
/// [`IndexError::Expectation`] with the first precondition that does not hold.
pub(super) fn apply(tree: &Tree, change: &Change) -> Result<Vec<LeafReceipt>, IndexError> {
    let absent = check(tree, &change.expect)?;
    let mut batch = Batch::default();
    for row in &change.put {
        let key = keys::encode(&row.key);
        // Where nothing is, or only ever something empty, there are no pieces to look for.
        let never_long = row.value.is_empty() && keys::finds_a_record(&key);
        let before = match absent.contains(&key) || never_long {
            true => 0,
            false => rows::pieces_at(tree, &key)?,
        };
        rows::write(&mut batch, key, &row.value, before)?;
    }
    for key in &change.delete {
        let key = keys::encode(key);
        let before = rows::pieces_at(tree, &key)?;
        rows::remove(&mut batch, key, before);
    }
    let receipts = match change.log {
        Some(log) => enqueue(tree, &mut batch, log, change)?,
        None => Vec::new(),
    };
    tree.apply_batch(batch)?;
    Ok(receipts)
}

/// The keys that no row has.
fn check(tree: &Tree, expectations: &[Expect]) -> Result<BTreeSet<Vec<u8>>, IndexError> {
    let mut absent = BTreeSet::new();
    for (place, expect) in expectations.iter().enumerate() {
        let holds = match expect {
            Expect::Absent(key) => {
                let key = keys::encode(key);
                let holds = tree.get(&key)?.is_none();
                absent.insert(key);
                holds
            }
            Expect::Present(key) => tree.get(keys::encode(key))?.is_some(),
            Expect::Equals(key, value) => rows::read(tree, &keys::encode(key))?.as_ref() == Some(value),
        };
        if !holds {
            return Err(IndexError::Expectation(place));
        }
    }
    Ok(absent)
}

fn enqueue(
    tree: &Tree,
    batch: &mut Batch,
    log: LogId,
    change: &Change,
) -> Result<Vec<LeafReceipt>, IndexError> {
    let mut counters = Counters {
        tree,
        taken: BTreeMap::new(),
    };
    let mut receipts = Vec::with_capacity(change.leaves.len());
    for leaf in &change.leaves {
        let receipt = LeafReceipt {
            position: counters.next_position(log)?,
            sequence: counters.next_sequence(&leaf.scope)?,
        };
        let queued = queue::encode(receipt.sequence, leaf)?;
        // A position is handed out once, so nothing lies there.
        rows::write(batch, keys::position(log, receipt.position), &queued, 0)?;
        receipts.push(receipt);
    }
    for (key, number) in counters.taken {
        rows::write(batch, key, &number.to_be_bytes(), 0)?;
    }
    Ok(receipts)
}

/// Counters as a change leaves them.
struct Counters<'a> {
    tree: &'a Tree,
    taken: BTreeMap<Vec<u8>, u64>,
}

impl Counters<'_> {
    /// The counter holds the position after it.
    fn next_position(&mut self, log: LogId) -> Result<u64, IndexError> {
        let key = keys::encode(&Key::LogNext(log));
        let position = self.read(&key)?;
        self.taken.insert(key, after(position)?);
        Ok(position)
    }

    /// The counter holds the number itself.
    fn next_sequence(&mut self, scope: &Scope) -> Result<u64, IndexError> {
        if !is_numbered(scope) {
            return Ok(0);
        }
        let key = keys::encode(&Key::Sequence(scope.clone()));
        let sequence = after(self.read(&key)?)?;
        self.taken.insert(key, sequence);
        Ok(sequence)
    }

    fn read(&self, key: &[u8]) -> Result<u64, IndexError> {
        match self.taken.get(key) {
            Some(number) => Ok(*number),
            None => counter(rows::read(self.tree, key)?.as_deref()),
        }
    }
}
