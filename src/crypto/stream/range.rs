//! Random access: from a range of plaintext to the ciphertext that has to be read.

use bytes::{Bytes, BytesMut};

use super::{
    layout::{
        HEADER_LEN, SEGMENT_LEN, SEGMENT_TEXT, TAG_LEN, ciphertext_len, extent_capacity, extent_count,
        extent_of, extent_offset,
    },
    open::ExtentOpener,
};
use crate::crypto::CryptoError;

/// The part of one extent that a range of plaintext lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Number of the extent, from 0.
    pub extent: u32,
    /// First segment to read, from 0.
    pub first_segment: u32,
    /// Segments to read, at least one.
    pub segments: u32,
    /// Number of the extent's last segment, whether it is read or not.
    pub last_segment: u32,
    /// Offset within the entry of the extent's header, which is needed in any case.
    pub header_offset: u64,
    /// Offset within the entry of the segments' ciphertext. It follows the header when `first_segment` is 0.
    pub offset: u64,
    /// Ciphertext bytes of the segments, without the header.
    pub len: u64,
    /// Plaintext bytes of the first segment to leave out.
    pub skip: u64,
    /// Plaintext bytes after them that are wanted, at least one.
    pub take: u64,
}

impl Piece {
    /// Cuts off at most `segments` segments (at least one) to be read first; what is left, if anything, comes after it.
    pub fn split(self, segments: u32) -> (Self, Option<Self>) {
        if self.segments <= segments {
            return (self, None);
        }
        let cut = u64::from(self.first_segment + segments);
        let first = u64::from(self.first_segment);
        let len = segment_start(cut) - segment_start(first);
        let take = (text_start(cut) - text_start(first) - self.skip).min(self.take);
        let head = Self {
            segments,
            len,
            take,
            ..self
        };
        let rest = Self {
            first_segment: self.first_segment + segments,
            segments: self.segments - segments,
            offset: self.offset + len,
            len: self.len - len,
            skip: 0,
            take: self.take - take,
            ..self
        };
        (head, Some(rest))
    }

    /// Opens the ciphertext of this piece and gives the wanted plaintext, `take` bytes in all.
    ///
    /// # Errors
    /// [`CryptoError::Unauthentic`] if any of it is, or its length is not [`Piece::len`].
    pub fn open(&self, opener: &ExtentOpener, ciphertext: BytesMut) -> Result<Vec<Bytes>, CryptoError> {
        if ciphertext.len() as u64 != self.len {
            return Err(CryptoError::Unauthentic);
        }
        let mut plaintexts = opener.open_run(self.first_segment, self.last_segment, ciphertext)?;
        if let Some(first) = plaintexts.first_mut() {
            *first = first.split_off(first.len().min(self.skip as usize)); // below a segment
        }
        let mut wanted = self.take;
        for plaintext in &mut plaintexts {
            plaintext.truncate(usize::try_from(wanted).unwrap_or(usize::MAX));
            wanted -= plaintext.len() as u64;
        }
        Ok(plaintexts)
    }
}

/// What to read for `limit` bytes of plaintext from `offset` on, of an entry of `plaintext_len` bytes, extent by extent.
///
/// A range that reaches beyond the end is cut there; one that starts there has no pieces. `plaintext_len` must be one that
/// the descriptor vouches for.
///
/// # Errors
/// [`CryptoError::TooLong`] if no entry is that long.
pub fn map_range(plaintext_len: u64, offset: u64, limit: u64) -> Result<Pieces, CryptoError> {
    extent_count(plaintext_len)?;
    let end = offset.saturating_add(limit).min(plaintext_len);
    Ok(Pieces {
        plaintext_len,
        next: offset,
        end,
    })
}

/// Iterates over the pieces of a range.
#[derive(Clone, Debug)]
pub struct Pieces {
    plaintext_len: u64,
    next: u64,
    end: u64,
}

impl Iterator for Pieces {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        if self.next >= self.end {
            return None;
        }
        let (number, start) = extent_of(self.next);
        let extent = u32::try_from(number).ok()?;
        let extent_len = extent_capacity(extent).min(self.plaintext_len - start);
        let (from, to) = (self.next - start, (self.end - start).min(extent_len));
        self.next = start + to;
        Some(piece(extent, extent_len, from, to))
    }
}

/// The piece for plaintext bytes `from..to` of an extent with `extent_len` bytes of plaintext.
fn piece(extent: u32, extent_len: u64, from: u64, to: u64) -> Piece {
    let segment_of = |at: u64| (at + HEADER_LEN as u64) / SEGMENT_TEXT;
    let (first, final_) = (segment_of(from), segment_of(to - 1));
    let header_offset = extent_offset(extent);
    let start = segment_start(first);
    let end = ((final_ + 1) * SEGMENT_LEN as u64).min(ciphertext_len(extent_len));
    Piece {
        extent,
        first_segment: first as u32, // below 256, as all segment numbers
        segments: (final_ - first + 1) as u32,
        last_segment: segment_of(extent_len - 1) as u32,
        header_offset,
        offset: header_offset + start,
        len: end - start,
        skip: from - text_start(first),
        take: to - from,
    }
}

/// Ciphertext offset of a segment within its extent.
fn segment_start(segment: u64) -> u64 {
    if segment == 0 {
        HEADER_LEN as u64
    } else {
        segment * SEGMENT_LEN as u64
    }
}

/// Plaintext offset of a segment's first byte within its extent.
fn text_start(segment: u64) -> u64 {
    (segment * (SEGMENT_LEN - TAG_LEN) as u64).saturating_sub(HEADER_LEN as u64)
}
