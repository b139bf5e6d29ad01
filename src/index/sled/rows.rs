//! Rows: a checksum with every value, long values in pieces.
//!
//! | head row at the key | bytes |
//! |---|---|
//! | whole | 00, CRC-32C (4) of key and value, value |
//! | in pieces | 01, CRC-32C (4) of key and value, length (4); the value in [`keys::chunk`] rows of 1 KiB |
//!
//! sled checks what it reads from the file; this checks what sled gives back: a value under another key, a piece of
//! another value, or (chance 2^-32) any other mix. Whoever can write the file can make it fit: only a MAC helps there.

use ::sled::{Batch, IVec, Tree};

use super::keys;
use crate::index::IndexError;

/// Bytes of one piece. sled keeps 16 rows in a node and rewrites a node whole.
const CHUNK: usize = 1_024;
const WHOLE: u8 = 0;
const IN_PIECES: u8 = 1;
/// How often the same head is looked at again before its pieces are said to be wrong.
const LOOKS: u32 = 4;

/// The value at `key`.
///
/// # Errors
/// [`IndexError::Corrupt`] if head, pieces and checksum do not belong together.
pub(super) fn read(tree: &Tree, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
    match tree.get(key)? {
        Some(head) => complete(tree, key, head),
        None => Ok(None),
    }
}

/// The value that `head`, just read at `key`, is the head of; `None` if the row has been deleted since.
///
/// The pieces are read after the head, so a value replaced in between shows as pieces that do not fit. Then the row is read
/// again, and only pieces that do not fit a head that stays are wrong.
///
/// # Errors
/// [`IndexError::Corrupt`] as [`read`].
pub(super) fn complete(tree: &Tree, key: &[u8], mut head: IVec) -> Result<Option<Vec<u8>>, IndexError> {
    let mut looks = 0;
    loop {
        if let Some(value) = assemble(tree, key, &head)? {
            return Ok(Some(value));
        }
        let Some(again) = tree.get(key)? else {
            return Ok(None);
        };
        looks = if again == head { looks + 1 } else { 0 };
        if looks == LOOKS {
            return Err(IndexError::Corrupt("a value differs from its checksum"));
        }
        head = again;
    }
}

/// Writes `value` at `key`, in the place of a value of `before` pieces.
///
/// # Errors
/// [`IndexError::InvalidChange`] if the value is longer than any may be.
pub(super) fn write(batch: &mut Batch, key: Vec<u8>, value: &[u8], before: u16) -> Result<(), IndexError> {
    let (head, after) = head_of(&key, value)?;
    for (place, piece) in (0..after).zip(value.chunks(CHUNK)) {
        batch.insert(keys::chunk(&key, place), piece);
    }
    for place in after..before {
        batch.remove(keys::chunk(&key, place));
    }
    batch.insert(key, head);
    Ok(())
}

/// Removes the row at `key`, whose value has so many pieces.
pub(super) fn remove(batch: &mut Batch, key: Vec<u8>, pieces: u16) {
    for place in 0..pieces {
        batch.remove(keys::chunk(&key, place));
    }
    batch.remove(key);
}

/// How many pieces the value at `key` has; none where nothing is.
///
/// # Errors
/// [`IndexError::Corrupt`] if the row cannot be read.
pub(super) fn pieces_at(tree: &Tree, key: &[u8]) -> Result<u16, IndexError> {
    tree.get(key)?.map_or(Ok(0), |head| pieces(&head))
}

/// How many chunk rows belong to `head`.
///
/// # Errors
/// [`IndexError::Corrupt`] if it is no head.
pub(super) fn pieces(head: &[u8]) -> Result<u16, IndexError> {
    match Head::read(head)? {
        Head::Whole { .. } => Ok(0),
        Head::InPieces { length, .. } => piece_count(length),
    }
}

enum Head<'a> {
    Whole { crc: u32, value: &'a [u8] },
    InPieces { crc: u32, length: usize },
}

impl<'a> Head<'a> {
    fn read(head: &'a [u8]) -> Result<Self, IndexError> {
        let ([kind, crc @ ..], rest) = head.split_first_chunk::<5>().ok_or_else(unreadable)?;
        let crc = u32::from_be_bytes(*crc);
        match *kind {
            WHOLE => Ok(Self::Whole { crc, value: rest }),
            IN_PIECES => Ok(Self::InPieces {
                crc,
                length: read_length(rest)?,
            }),
            _ => Err(unreadable()),
        }
    }
}

fn head_of(key: &[u8], value: &[u8]) -> Result<(Vec<u8>, u16), IndexError> {
    let crc = checksum(key, value).to_be_bytes();
    if value.len() <= CHUNK {
        return Ok(([&[WHOLE][..], &crc, value].concat(), 0));
    }
    let length = u32::try_from(value.len()).map_err(|_| IndexError::InvalidChange("a value is too long"))?;
    Ok((
        [&[IN_PIECES][..], &crc, &length.to_be_bytes()].concat(),
        piece_count(value.len())?,
    ))
}

/// The value, or `None` if head and pieces do not fit together.
fn assemble(tree: &Tree, key: &[u8], head: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
    let (crc, value) = match Head::read(head)? {
        Head::Whole { crc, value } => (crc, value.to_vec()),
        Head::InPieces { crc, length } => (crc, gather(tree, key, length)?),
    };
    Ok((checksum(key, &value) == crc).then_some(value))
}

fn gather(tree: &Tree, key: &[u8], length: usize) -> Result<Vec<u8>, IndexError> {
    let mut value = Vec::new();
    for place in 0..piece_count(length)? {
        let Some(piece) = tree.get(keys::chunk(key, place))? else {
            break;
        };
        value.extend_from_slice(&piece);
    }
    Ok(value)
}

fn checksum(key: &[u8], value: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(key), value)
}

fn piece_count(length: usize) -> Result<u16, IndexError> {
    u16::try_from(length.div_ceil(CHUNK)).map_err(|_| unreadable())
}

fn read_length(bytes: &[u8]) -> Result<usize, IndexError> {
    let bytes = bytes.try_into().map_err(|_| unreadable())?;
    usize::try_from(u32::from_be_bytes(bytes)).map_err(|_| unreadable())
}

fn unreadable() -> IndexError {
    IndexError::Corrupt("a row cannot be read")
}
