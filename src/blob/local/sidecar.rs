//! What is known of an upload, in a file beside its parts, so that it survives a restart.
//!
//! | bytes | what |
//! |---|---|
//! | 0..4 | `CVU1` |
//! | 4..12 | when it began, microseconds since the epoch, i64 big-endian |
//! | 12..14 | length of the key, u16 big-endian |
//! | 14..526 | the key, then zeros |
//! | 526..530 | CRC-32C of bytes 0..526 |
//! | 530 + 24 (n - 1) .. | part n: offset u64, length u64, CRC-32C of the part, CRC-32C of these 20 bytes; all big-endian |
//!
//! A part that was not written is zeros or lies beyond the end; one whose own CRC is wrong was torn by a crash and counts as
//! not written. Slots of fixed places need no order among writers, and writing a part again replaces its slot.

use std::{fs::File, io, os::unix::fs::FileExt};

use super::super::store::ObjectKey;
use crate::domain::limits;

const MAGIC: &[u8; 4] = b"CVU1";
const HEADER: usize = 530;
const SUM: usize = HEADER - 4;
const SLOT: usize = 24;

/// One upload.
pub(super) struct Sidecar {
    pub(super) key: ObjectKey,
    /// By number, ascending.
    pub(super) parts: Vec<(u32, Part)>,
}

/// One part that is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) offset: u64,
    pub(super) length: u64,
    pub(super) crc: u32,
}

/// Begins the sidecar of an upload, synced.
pub(super) fn begin(file: &File, key: &ObjectKey, began_micros: i64) -> io::Result<()> {
    let key = key.as_str().as_bytes();
    let mut header = [0; HEADER];
    header[..4].copy_from_slice(MAGIC);
    header[4..12].copy_from_slice(&began_micros.to_be_bytes());
    header[12..14].copy_from_slice(&u16::try_from(key.len()).unwrap_or(u16::MAX).to_be_bytes());
    header[14..14 + key.len()].copy_from_slice(key);
    let sum = crc32c::crc32c(&header[..SUM]);
    header[SUM..].copy_from_slice(&sum.to_be_bytes());
    file.write_all_at(&header, 0)?;
    file.sync_data()
}

/// Notes that part `number` is on disk, or no longer is, synced.
pub(super) fn note(file: &File, number: u32, part: Option<Part>) -> io::Result<()> {
    let mut slot = [0; SLOT];
    if let Some(part) = part {
        slot[..8].copy_from_slice(&part.offset.to_be_bytes());
        slot[8..16].copy_from_slice(&part.length.to_be_bytes());
        slot[16..20].copy_from_slice(&part.crc.to_be_bytes());
        let sum = crc32c::crc32c(&slot[..20]);
        slot[20..].copy_from_slice(&sum.to_be_bytes());
    }
    let place = HEADER + SLOT * (number as usize).saturating_sub(1);
    file.write_all_at(&slot, place as u64)?;
    file.sync_data()
}

/// Reads the key of an upload and when it began (microseconds since the epoch).
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] if the upload was never begun to the end.
pub(super) fn describe(file: &File) -> io::Result<(ObjectKey, i64)> {
    let mut bytes = [0; HEADER];
    fill(file, &mut bytes)?;
    header(&bytes).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Reads a sidecar whole.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] if the upload was never begun to the end.
pub(super) fn read(file: &File) -> io::Result<Sidecar> {
    let mut bytes = vec![0; HEADER + SLOT * limits::EXTENTS];
    let length = fill(file, &mut bytes)?;
    bytes.truncate(length);
    let (key, _) = header(&bytes).ok_or(io::ErrorKind::InvalidData)?;
    let slots = bytes[HEADER..].chunks_exact(SLOT);
    let parts = (1..)
        .zip(slots)
        .filter_map(|(number, slot)| Some((number, part(slot)?)))
        .collect();
    Ok(Sidecar { key, parts })
}

fn header(bytes: &[u8]) -> Option<(ObjectKey, i64)> {
    let header = bytes.get(..HEADER)?;
    if &header[..4] != MAGIC || header[SUM..] != crc32c::crc32c(&header[..SUM]).to_be_bytes() {
        return None;
    }
    let length = u16::from_be_bytes(header[12..14].try_into().ok()?);
    let key = std::str::from_utf8(header[14..SUM].get(..usize::from(length))?).ok()?;
    Some((
        ObjectKey::parse(key).ok()?,
        i64::from_be_bytes(header[4..12].try_into().ok()?),
    ))
}

fn part(slot: &[u8]) -> Option<Part> {
    // The CRC-32C of twenty zeros is not zero, so that an empty slot is never a part.
    if slot[20..] != crc32c::crc32c(&slot[..20]).to_be_bytes() {
        return None;
    }
    Some(Part {
        offset: u64::from_be_bytes(slot[..8].try_into().ok()?),
        length: u64::from_be_bytes(slot[8..16].try_into().ok()?),
        crc: u32::from_be_bytes(slot[16..20].try_into().ok()?),
    })
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &File, bytes: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
