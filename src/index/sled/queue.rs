//! Leaves that wait for the bucket: `queue(log, position)` -> sequence u64, scope u8, tenant id (if any), body.

use ::sled::{Batch, Tree};

use super::{keys, rows};
use crate::index::{IndexError, LeafDraft, LeafReceipt, LogId, QueuedLeaf, Scope};

// Persisted. A tenant's id is never empty and at most 63 bytes, so its length says the rest.
const FACT: u8 = 0;
const REGION: u8 = u8::MAX;
/// Rows removed at once: sled lets nobody else in meanwhile.
const REMOVED_AT_ONCE: usize = 256;

/// A queued leaf as a value.
///
/// # Errors
/// [`IndexError::InvalidChange`] if the tenant's id is longer than it can be.
pub(super) fn encode(sequence: u64, leaf: &LeafDraft) -> Result<Vec<u8>, IndexError> {
    let (scope, tenant) = match &leaf.scope {
        Scope::Fact => (FACT, ""),
        Scope::Region => (REGION, ""),
        Scope::Tenant(tenant) => (length(tenant.as_str())?, tenant.as_str()),
    };
    Ok([
        &sequence.to_be_bytes()[..],
        &[scope],
        tenant.as_bytes(),
        &leaf.body,
    ]
    .concat())
}

/// Up to `limit` leaves of `log` from position `from` on, without a gap between them.
///
/// sled's ranges are no snapshot: a leaf can slip into the part that has been read already, and the one after it into the
/// part that has not. The list ends before such a gap; the next one has both.
///
/// # Errors
/// [`IndexError::Corrupt`] if one cannot be read.
pub(super) fn list(tree: &Tree, log: LogId, from: u64, limit: usize) -> Result<Vec<QueuedLeaf>, IndexError> {
    let span = keys::queue(log, from, None);
    let mut leaves: Vec<QueuedLeaf> = Vec::new();
    for row in tree.range(span.low..span.high).take(limit) {
        let (key, head) = row?;
        let position = position_of(&key)?;
        if leaves
            .last()
            .is_some_and(|last| last.receipt.position.checked_add(1) != Some(position))
        {
            break;
        }
        // Deleted since means shipped since.
        let Some(value) = rows::complete(tree, &key, head)? else {
            continue;
        };
        leaves.push(decode(position, &value)?);
    }
    Ok(leaves)
}

/// Removes the leaves of `log` below `position`.
///
/// # Errors
/// [`IndexError::Corrupt`] if one cannot be read.
pub(super) fn forget(tree: &Tree, log: LogId, position: u64) -> Result<(), IndexError> {
    let span = keys::queue(log, 0, Some(position));
    let mut batch = Batch::default();
    let mut removed = 0;
    for row in tree.range(span.low..span.high) {
        let (key, head) = row?;
        for place in 0..rows::pieces(&head)? {
            batch.remove(keys::chunk(&key, place));
            removed += 1;
        }
        batch.remove(key);
        removed += 1;
        if removed >= REMOVED_AT_ONCE {
            tree.apply_batch(std::mem::take(&mut batch))?;
            removed = 0;
        }
    }
    tree.apply_batch(batch)?;
    Ok(())
}

fn decode(position: u64, value: &[u8]) -> Result<QueuedLeaf, IndexError> {
    let (sequence, rest) = value.split_first_chunk().ok_or_else(unreadable)?;
    let (scope, rest) = rest.split_first().ok_or_else(unreadable)?;
    let (scope, body) = match *scope {
        FACT => (Scope::Fact, rest),
        REGION => (Scope::Region, rest),
        length => {
            let (tenant, body) = rest
                .split_at_checked(usize::from(length))
                .ok_or_else(unreadable)?;
            (Scope::Tenant(parse(tenant)?), body)
        }
    };
    let receipt = LeafReceipt {
        position,
        sequence: u64::from_be_bytes(*sequence),
    };
    Ok(QueuedLeaf {
        receipt,
        scope,
        body: body.to_vec(),
    })
}

fn position_of(key: &[u8]) -> Result<u64, IndexError> {
    let position = key.last_chunk().ok_or_else(unreadable)?;
    Ok(u64::from_be_bytes(*position))
}

fn parse<T: std::str::FromStr>(text: &[u8]) -> Result<T, IndexError> {
    let text = std::str::from_utf8(text).map_err(|_| unreadable())?;
    text.parse().map_err(|_| unreadable())
}

fn length(tenant: &str) -> Result<u8, IndexError> {
    u8::try_from(tenant.len()).map_err(|_| IndexError::InvalidChange("a tenant id is too long"))
}

fn unreadable() -> IndexError {
    IndexError::Corrupt("a queued leaf cannot be read")
}
