//! How many bytes go where.

use crate::{crypto::CryptoError, domain::limits};

/// Ciphertext bytes of a full segment, tag included; the first also counts the header.
pub const SEGMENT_LEN: usize = 65_536;
/// Bytes of a segment's tag.
pub const TAG_LEN: usize = crate::crypto::bulk::TAG_LEN;
/// Bytes before the first segment: own length (1), salt (32), nonce prefix (7).
pub const HEADER_LEN: usize = 40;
/// Segments of a full extent below [`BIG_PART_FROM`]: 8 MiB of ciphertext.
pub const FULL_SEGMENTS: u32 = 128;
/// Segments of a full extent from [`BIG_PART_FROM`] on: 16 MiB of ciphertext.
pub const BIG_FULL_SEGMENTS: u32 = 256;
/// First extent of the bigger size, from 0; it is part 5,001. So 64 GiB fit into S3's 10,000 parts, and retries of short
/// recordings stay small.
pub const BIG_PART_FROM: u32 = 5_000;

/// Plaintext bytes of a full segment.
pub(super) const SEGMENT_TEXT: u64 = (SEGMENT_LEN - TAG_LEN) as u64;

/// Segments of a full extent, by the extent's number from 0.
pub fn extent_segments(extent: u32) -> u32 {
    if extent < BIG_PART_FROM {
        FULL_SEGMENTS
    } else {
        BIG_FULL_SEGMENTS
    }
}

/// Plaintext bytes of a full extent, by the extent's number from 0.
pub fn extent_capacity(extent: u32) -> u64 {
    capacity(extent_segments(extent))
}

/// Ciphertext bytes of one extent with `plaintext_len` bytes in it: header, segments, tags.
pub fn ciphertext_len(plaintext_len: u64) -> u64 {
    let header = HEADER_LEN as u64;
    let segments = (plaintext_len + header).div_ceil(SEGMENT_TEXT).max(1);
    header + plaintext_len + segments * TAG_LEN as u64
}

/// Extents of an entry with `plaintext_len` bytes in it, at least one.
///
/// # Errors
/// [`CryptoError::TooLong`] if it would take more than [`limits::EXTENTS`].
pub fn extent_count(plaintext_len: u64) -> Result<u32, CryptoError> {
    let Some(last_byte) = plaintext_len.checked_sub(1) else {
        return Ok(1);
    };
    match extent_of(last_byte) {
        (extent, _) if extent < limits::EXTENTS as u64 => Ok(extent as u32 + 1), // fits: below EXTENTS
        _ => Err(CryptoError::TooLong),
    }
}

/// The extent that plaintext byte `at` of an entry lies in, and the plaintext offset of the extent's first byte.
pub(super) fn extent_of(at: u64) -> (u64, u64) {
    let (small, big) = (capacity(FULL_SEGMENTS), capacity(BIG_FULL_SEGMENTS));
    let big_start = u64::from(BIG_PART_FROM) * small;
    match at.checked_sub(big_start) {
        None => (at / small, at / small * small),
        Some(beyond) => (
            u64::from(BIG_PART_FROM) + beyond / big,
            big_start + beyond / big * big,
        ),
    }
}

/// Ciphertext offset of an extent within its entry: those before it are full.
pub(super) fn extent_offset(extent: u32) -> u64 {
    let big = u64::from(extent.saturating_sub(BIG_PART_FROM));
    let small = u64::from(extent.min(BIG_PART_FROM));
    (small * u64::from(FULL_SEGMENTS) + big * u64::from(BIG_FULL_SEGMENTS)) * SEGMENT_LEN as u64
}

const fn capacity(segments: u32) -> u64 {
    segments as u64 * SEGMENT_TEXT - HEADER_LEN as u64
}
