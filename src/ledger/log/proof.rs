//! Checks of proofs: offline, from hashes alone.

use tlog_tiles::{Hash, check_record, check_tree, record_hash};

use super::{Head, LogError, checkpoint::MOST_ENTRIES};

/// Checks that the log of `head` holds `entry` at `position`.
///
/// # Errors
/// [`LogError::Proof`].
///
/// Source: RFC 6962 section 2.1.1.
pub fn check_inclusion(proof: &[[u8; 32]], head: &Head, position: u64, entry: &[u8]) -> Result<(), LogError> {
    if head.size > MOST_ENTRIES {
        return Err(LogError::Proof);
    }
    check_record(
        &hashes(proof),
        head.size,
        head.hash(),
        position,
        record_hash(entry),
    )
    .map_err(|_| LogError::Proof)
}

/// Checks that the log of `new` begins with all of the log of `old`.
///
/// Every log begins with the empty one; the proof of that is empty.
///
/// # Errors
/// [`LogError::Proof`].
///
/// Source: RFC 6962 section 2.1.2.
pub fn check_consistency(proof: &[[u8; 32]], old: &Head, new: &Head) -> Result<(), LogError> {
    if new.size > MOST_ENTRIES {
        return Err(LogError::Proof);
    }
    if old.size == 0 {
        let holds = *old == Head::EMPTY && proof.is_empty();
        return if holds { Ok(()) } else { Err(LogError::Proof) };
    }
    check_tree(&hashes(proof), new.size, new.hash(), old.size, old.hash()).map_err(|_| LogError::Proof)
}

fn hashes(proof: &[[u8; 32]]) -> Vec<Hash> {
    proof.iter().copied().map(Hash).collect()
}
