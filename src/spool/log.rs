//! A file of sealed records that is only ever appended to.
//!
//! ```text
//! log    := "CVS1" | head length u32be | head | mark | mark | record*
//! mark   := seal of (length u64be | records u64be), 44 bytes | 20 zero bytes      everything before `length` is durable
//! record := length u32be | seal of the record's bytes                             1 to 64 KiB of them
//! ```
//!
//! A crash may tear the end off: what does not authenticate beyond the mark is cut. What does not authenticate before it is
//! damage. The two marks are written in turn, so that a torn one leaves the other.
//!
//! Every seal draws a random nonce under a key of the upload's own: nothing that is put back, repeated or written over after
//! a crash can use one twice.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::{Spool, SpoolError};
use crate::{
    crypto::{
        context::{self, SpoolLog},
        secret::SpoolKey,
        spool as aead,
    },
    domain::clock::Rng,
};

/// Most bytes of one record.
pub const RECORD_BYTES: usize = 64 << 10;
const MAGIC: &[u8; 4] = b"CVS1";
const MARK_LEN: usize = 64;
const SEALED_MARK_LEN: usize = 16 + aead::OVERHEAD;
/// Longest head: ids, a region's and a tenant's name, a wrapped key.
const HEAD_BYTES: usize = 4 << 10;

/// A log that is open for appending. Every call blocks; none may run beside another.
#[derive(Debug)]
pub struct SealedLog {
    name: String,
    context: SpoolLog,
    key: Arc<SpoolKey>,
    /// Offset of the first mark.
    marks: u64,
    /// Bytes of whole records and all before them.
    length: u64,
    records: u64,
    synced: u64,
    synced_records: u64,
    marked: u64,
    mark_slot: u64,
    /// Bytes that the spool counts for it.
    charged: u64,
    /// Its name is not durable yet.
    fresh: bool,
    /// A failed write may have left something behind the last record.
    torn: bool,
}

impl SealedLog {
    /// Makes a log. Neither name nor content is durable before [`Self::sync`].
    ///
    /// # Errors
    /// [`SpoolError::Full`]; as the disk says.
    pub fn create(
        spool: &Spool,
        name: String,
        context: SpoolLog,
        key: Arc<SpoolKey>,
        head: &[u8],
        rng: &dyn Rng,
    ) -> Result<Self, SpoolError> {
        let marks = (MAGIC.len() + 4 + head.len()) as u64;
        let length = marks + 2 * MARK_LEN as u64;
        let mut log = Self {
            name,
            context,
            key,
            marks,
            length,
            records: 0,
            synced: length,
            synced_records: 0,
            marked: length,
            mark_slot: 0,
            charged: 0,
            fresh: true,
            torn: false,
        };
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&u32::try_from(head.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend_from_slice(head);
        for _ in 0..2 {
            bytes.extend_from_slice(&log.seal_mark(rng)?);
        }
        spool.charge(length)?;
        log.charged = length;
        if let Err(error) = spool.disk.create(&log.name, &bytes) {
            spool.release(length);
            let _ = spool.remove(&log.name);
            return Err(error.into());
        }
        Ok(log)
    }

    /// The bare head of a log, which tells whose key opens the rest.
    ///
    /// # Errors
    /// [`SpoolError::Damaged`] if it is none.
    pub fn read_head(spool: &Spool, name: &str) -> Result<Vec<u8>, SpoolError> {
        let mut start = [0; 8];
        if spool.disk.read(name, 0, &mut start)? < start.len() || start[..4] != MAGIC[..] {
            return Err(SpoolError::Damaged);
        }
        let length = u32::from_be_bytes([start[4], start[5], start[6], start[7]]) as usize;
        if length > HEAD_BYTES {
            return Err(SpoolError::Damaged);
        }
        let mut head = vec![0; length];
        match spool.disk.read(name, 8, &mut head)? == length {
            true => Ok(head),
            false => Err(SpoolError::Damaged),
        }
    }

    /// Whether a log is shorter than any can be: whoever made it died between its name and its content, and nothing in it was ever
    /// durable.
    ///
    /// # Errors
    /// As the disk says.
    pub fn was_torn_at_birth(spool: &Spool, name: &str) -> Result<bool, SpoolError> {
        let shortest = (MAGIC.len() + 4 + 2 * MARK_LEN) as u64;
        Ok(spool.disk.length(name)? < shortest)
    }

    /// Opens a log, gives every record to `each` in order, and cuts off what a crash tore. What is left is durable.
    ///
    /// # Errors
    /// [`SpoolError::Damaged`] if anything before the mark is not what was written; what `each` answers.
    pub fn open(
        spool: &Spool,
        name: String,
        context: SpoolLog,
        key: Arc<SpoolKey>,
        mut each: impl FnMut(&[u8]) -> Result<(), SpoolError>,
    ) -> Result<Self, SpoolError> {
        let head = Self::read_head(spool, &name)?;
        let on_disk = spool.disk.length(&name)?;
        let marks = (MAGIC.len() + 4 + head.len()) as u64;
        let mut log = Self {
            name,
            context,
            key,
            marks,
            length: marks + 2 * MARK_LEN as u64,
            records: 0,
            synced: 0,
            synced_records: 0,
            marked: 0,
            mark_slot: 0,
            charged: 0,
            fresh: false,
            torn: true,
        };
        let (marked, marked_records) = log.read_marks(spool)?;
        let mut buffer = Zeroizing::new(Vec::with_capacity(RECORD_BYTES + aead::OVERHEAD));
        while let Some(record) = log.read_record(spool, log.length, log.records, &mut buffer)? {
            each(record)?;
            log.length += (4 + aead::OVERHEAD + record.len()) as u64;
            log.records += 1;
        }
        if log.length < marked || log.records < marked_records {
            return Err(SpoolError::Damaged);
        }
        log.marked = marked;
        spool.count(on_disk.min(log.length));
        log.charged = on_disk.min(log.length);
        log.mend(spool)?;
        // What can be read need not be on the disk yet.
        spool.disk.write(&log.name, &[], true)?;
        log.synced = log.length;
        log.synced_records = log.records;
        Ok(log)
    }

    /// Reads every record of a log that is open, in order.
    ///
    /// # Errors
    /// [`SpoolError::Damaged`] if any is not what was written.
    pub fn read_all(
        &self,
        spool: &Spool,
        mut each: impl FnMut(&[u8]) -> Result<(), SpoolError>,
    ) -> Result<(), SpoolError> {
        let mut at = self.marks + 2 * MARK_LEN as u64;
        let mut buffer = Zeroizing::new(Vec::with_capacity(RECORD_BYTES + aead::OVERHEAD));
        for number in 0..self.records {
            let record = self.read_record(spool, at, number, &mut buffer)?;
            let record = record.ok_or(SpoolError::Damaged)?;
            each(record)?;
            at += (4 + aead::OVERHEAD + record.len()) as u64;
        }
        Ok(())
    }

    /// Appends records, all or none as far as a reader can see; durable after [`Self::sync`].
    ///
    /// # Errors
    /// [`SpoolError::Full`]; as the disk says. The log is as it was.
    pub fn append(&mut self, spool: &Spool, records: &[&[u8]], rng: &dyn Rng) -> Result<(), SpoolError> {
        self.mend(spool)?;
        let sealed = |record: &&[u8]| 4 + aead::OVERHEAD + record.len();
        let mut bytes = Vec::with_capacity(records.iter().map(sealed).sum());
        for (record, number) in records.iter().zip(self.records..) {
            debug_assert!(record.len() <= RECORD_BYTES, "callers cut records");
            let aad = context::spool_record(&self.context, number);
            let length = u32::try_from(record.len() + aead::OVERHEAD).unwrap_or(u32::MAX);
            bytes.extend_from_slice(&length.to_be_bytes());
            aead::seal(&self.key, record, &aad, rng, &mut bytes)?;
        }
        let added = bytes.len() as u64;
        spool.charge(added)?;
        if let Err(error) = spool.disk.write(&self.name, &[(self.length, &bytes)], false) {
            spool.release(added);
            self.torn = true;
            return Err(error.into());
        }
        self.charged += added;
        self.length += added;
        self.records += records.len() as u64;
        Ok(())
    }

    /// Makes all that was appended durable.
    ///
    /// # Errors
    /// As the disk says. What was appended since the last success may be gone then: see [`Self::forget_unsynced`].
    pub fn sync(&mut self, spool: &Spool, rng: &dyn Rng) -> Result<(), SpoolError> {
        if !self.is_synced() {
            spool.disk.write(&self.name, &[], true)?;
            if self.fresh {
                spool.disk.sync_names()?;
                self.fresh = false;
            }
            self.synced = self.length;
            self.synced_records = self.records;
        }
        self.mark(spool, rng)
    }

    /// Writes the mark, which vouches for nothing that is not durable already. That it becomes durable itself is not waited
    /// for, and that a full disk does not take it harms nobody: it only tells damage from a torn end.
    fn mark(&mut self, spool: &Spool, rng: &dyn Rng) -> Result<(), SpoolError> {
        if self.marked == self.synced {
            return Ok(());
        }
        let mark = self.seal_mark(rng)?;
        let at = self.marks + self.mark_slot * MARK_LEN as u64;
        if spool.disk.write(&self.name, &[(at, &mark)], false).is_ok() {
            self.marked = self.synced;
            self.mark_slot = 1 - self.mark_slot;
        }
        Ok(())
    }

    /// Whether all is durable.
    pub fn is_synced(&self) -> bool {
        self.synced == self.length && !self.fresh
    }

    /// Cuts off what is not known to be durable, after a sync failed: the system may have dropped it, and would not say so twice.
    ///
    /// # Errors
    /// As the disk says.
    pub fn forget_unsynced(&mut self, spool: &Spool) -> Result<(), SpoolError> {
        spool.release(self.length - self.synced);
        self.charged -= self.length - self.synced;
        self.length = self.synced;
        self.records = self.synced_records;
        self.torn = true;
        self.mend(spool)
    }

    /// Removes the file.
    ///
    /// # Errors
    /// As the disk says; the file is removed with the upload, or at the next start, then.
    pub fn remove(self, spool: &Spool) -> Result<(), SpoolError> {
        spool.release(self.charged);
        spool.remove(&self.name)
    }

    /// Removes the file of a log that others still hold. Nothing may be appended to it any more.
    ///
    /// # Errors
    /// As the disk says.
    pub fn discard(&mut self, spool: &Spool) -> Result<(), SpoolError> {
        spool.release(std::mem::take(&mut self.charged));
        spool.remove(&self.name)
    }

    /// Lets go of the log; the file stays.
    pub fn close(self, spool: &Spool) {
        spool.release(self.charged);
    }

    fn mend(&mut self, spool: &Spool) -> Result<(), SpoolError> {
        if self.torn {
            spool.disk.truncate(&self.name, self.length)?;
            self.torn = false;
        }
        Ok(())
    }

    fn seal_mark(&self, rng: &dyn Rng) -> Result<[u8; MARK_LEN], SpoolError> {
        let mut text = [0; 16];
        text[..8].copy_from_slice(&self.synced.to_be_bytes());
        text[8..].copy_from_slice(&self.synced_records.to_be_bytes());
        let mut sealed = Vec::with_capacity(SEALED_MARK_LEN);
        aead::seal(
            &self.key,
            &text,
            &context::spool_mark(&self.context),
            rng,
            &mut sealed,
        )?;
        let mut mark = [0; MARK_LEN];
        mark[..SEALED_MARK_LEN].copy_from_slice(&sealed);
        Ok(mark)
    }

    /// The better of the two marks: bytes and records that were durable. The other is written next.
    fn read_marks(&mut self, spool: &Spool) -> Result<(u64, u64), SpoolError> {
        let mut best = None;
        for slot in 0..2 {
            let mut mark = [0; SEALED_MARK_LEN];
            let at = self.marks + slot * MARK_LEN as u64;
            if spool.disk.read(&self.name, at, &mut mark)? < mark.len() {
                continue;
            }
            let aad = context::spool_mark(&self.context);
            let Ok(text) = aead::open(&self.key, &mut mark, &aad) else {
                continue;
            };
            let Some((length, records)) = text.split_first_chunk::<8>() else {
                continue;
            };
            let Ok(records) = records.try_into().map(u64::from_be_bytes) else {
                continue;
            };
            let found = (u64::from_be_bytes(*length), records);
            if best.is_none_or(|best| found > best) {
                best = Some(found);
                self.mark_slot = 1 - slot;
            }
        }
        best.ok_or(SpoolError::Damaged)
    }

    /// The record at an offset, read into `buffer`; `None` if there is no authentic one.
    fn read_record<'a>(
        &self,
        spool: &Spool,
        at: u64,
        number: u64,
        buffer: &'a mut Vec<u8>,
    ) -> Result<Option<&'a [u8]>, SpoolError> {
        let mut length = [0; 4];
        if spool.disk.read(&self.name, at, &mut length)? < length.len() {
            return Ok(None);
        }
        let length = u32::from_be_bytes(length) as usize;
        if !(aead::OVERHEAD..=RECORD_BYTES + aead::OVERHEAD).contains(&length) {
            return Ok(None);
        }
        buffer.resize(length, 0);
        if spool.disk.read(&self.name, at + 4, buffer)? < length {
            return Ok(None);
        }
        let aad = context::spool_record(&self.context, number);
        match aead::open(&self.key, buffer, &aad) {
            Ok(record) => Ok(Some(record)),
            Err(_) => Ok(None),
        }
    }
}
