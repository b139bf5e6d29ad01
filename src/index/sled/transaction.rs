//! One change as one sled transaction.

use ::sled::{Tree, transaction::TransactionalTree};

use super::{
    keys, queue,
    rows::{self, Conflict},
};
use crate::index::{
    Change, Expect, IndexError, Key, LeafDraft, LeafReceipt, LogId, Scope,
    change::{after, counter, is_numbered},
};

/// Applies `change`, whole or not at all. Not yet durable.
///
/// # Errors
/// [`IndexError::Expectation`] with the first precondition that does not hold.
pub(super) fn apply(tree: &Tree, change: &Change) -> Result<Vec<LeafReceipt>, IndexError> {
    // sled may run this more than once: it reads `change` and writes the transaction, nothing else.
    Ok(tree.transaction(|rows| {
        check(rows, &change.expect)?;
        for row in &change.put {
            rows::write(rows, &keys::encode(&row.key), &row.value)?;
        }
        for key in &change.delete {
            rows::remove(rows, &keys::encode(key))?;
        }
        match change.log {
            Some(log) => change
                .leaves
                .iter()
                .map(|leaf| enqueue(rows, log, leaf))
                .collect(),
            None => Ok(Vec::new()),
        }
    })?)
}

fn check(rows: &TransactionalTree, expectations: &[Expect]) -> Result<(), Conflict> {
    for (place, expect) in expectations.iter().enumerate() {
        if !holds(rows, expect)? {
            return Err(IndexError::Expectation(place).into());
        }
    }
    Ok(())
}

fn holds(rows: &TransactionalTree, expect: &Expect) -> Result<bool, Conflict> {
    match expect {
        Expect::Absent(key) => Ok(rows.get(keys::encode(key))?.is_none()),
        Expect::Present(key) => Ok(rows.get(keys::encode(key))?.is_some()),
        Expect::Equals(key, value) => {
            let found = rows::read(rows, &keys::encode(key))?;
            Ok(found.as_ref() == Some(value))
        }
    }
}

fn enqueue(rows: &TransactionalTree, log: LogId, leaf: &LeafDraft) -> Result<LeafReceipt, Conflict> {
    let receipt = LeafReceipt {
        position: next_position(rows, log)?,
        sequence: next_sequence(rows, &leaf.scope)?,
    };
    let queued = queue::encode(receipt.sequence, leaf)?;
    rows::write(rows, &keys::position(log, receipt.position), &queued)?;
    Ok(receipt)
}

fn next_position(rows: &TransactionalTree, log: LogId) -> Result<u64, Conflict> {
    let key = keys::encode(&Key::LogNext(log));
    let position = counter(rows::read(rows, &key)?.as_deref())?;
    rows::write(rows, &key, &after(position)?.to_be_bytes())?;
    Ok(position)
}

fn next_sequence(rows: &TransactionalTree, scope: &Scope) -> Result<u64, Conflict> {
    if !is_numbered(scope) {
        return Ok(0);
    }
    let key = keys::encode(&Key::Sequence(scope.clone()));
    let sequence = after(counter(rows::read(rows, &key)?.as_deref())?)?;
    rows::write(rows, &key, &sequence.to_be_bytes())?;
    Ok(sequence)
}
