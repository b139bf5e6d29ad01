//! Entry bundles: up to 256 entries, each u16be length then bytes, nothing before, between or after.

use bytes::{Buf, BufMut, Bytes};

use super::LogError;
use crate::domain::limits::LEAF_BYTES;

/// Entries of a full bundle and hashes of a full tile (C2SP tlog-tiles).
pub(super) const WIDTH: u64 = 256;
/// Longest possible bundle.
pub(super) const BUNDLE_BYTES: usize = 256 * (2 + LEAF_BYTES);

/// Checks that an entry may be appended.
///
/// # Errors
/// [`LogError::EntryEmpty`], [`LogError::EntryTooLong`].
pub(super) fn check(entry: &Bytes) -> Result<(), LogError> {
    match entry.len() {
        0 => Err(LogError::EntryEmpty),
        1..=LEAF_BYTES => Ok(()),
        length => Err(LogError::EntryTooLong { length }),
    }
}

/// Adds a [checked](check) entry to a bundle.
pub(super) fn push(bundle: &mut Vec<u8>, entry: &[u8]) {
    let length = u16::try_from(entry.len()).unwrap_or(u16::MAX); // checked: at most LEAF_BYTES
    bundle.put_u16(length);
    bundle.put_slice(entry);
}

/// The first `count` entries of a bundle and what follows them.
///
/// # Errors
/// [`LogError::Corrupt`] if it has fewer.
pub(super) fn split(mut bundle: Bytes, count: usize) -> Result<(Vec<Bytes>, Bytes), LogError> {
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        let length = bundle.try_get_u16().map_err(|_| short())?;
        if bundle.len() < usize::from(length) {
            return Err(short());
        }
        entries.push(bundle.split_to(usize::from(length)));
    }
    Ok((entries, bundle))
}

fn short() -> LogError {
    LogError::Corrupt {
        what: "entry bundle is short",
    }
}
