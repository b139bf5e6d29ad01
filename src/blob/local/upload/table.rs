//! Which parts an upload has, and which are being written.

use std::{
    collections::BTreeMap,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

use super::{
    super::{
        super::store::{PartReceipt, StoreError},
        sidecar,
    },
    etag,
};

/// The parts of an upload by number.
#[derive(Default)]
pub(super) struct Table {
    entries: Mutex<BTreeMap<u32, Entry>>,
    written: Condvar,
}

struct Entry {
    ticket: u64,
    offset: u64,
    length: u64,
    /// `None` while it is being written.
    crc: Option<u32>,
}

/// Whether a part may be written.
pub(super) enum Reservation<'a> {
    /// A later call for the same part came first.
    Superseded,
    /// By the holder of `writing`, and nobody else.
    Mine {
        /// Withdraws the part when dropped, unless it is done.
        writing: Writing<'a>,
        /// Whether bytes of an earlier try are overwritten.
        replaces: bool,
    },
}

/// A part that is being written.
pub(super) struct Writing<'a> {
    table: &'a Table,
    number: u32,
}

impl Table {
    /// A table of parts that are on disk.
    pub(super) fn of(parts: Vec<(u32, sidecar::Part)>) -> Self {
        let entry = |p: sidecar::Part| Entry {
            ticket: 0,
            offset: p.offset,
            length: p.length,
            crc: Some(p.crc),
        };
        let entries = parts
            .into_iter()
            .map(|(number, part)| (number, entry(part)))
            .collect();
        Self {
            entries: Mutex::new(entries),
            written: Condvar::new(),
        }
    }

    /// Waits until nobody writes part `number` and reserves it.
    ///
    /// # Errors
    /// [`StoreError::Protocol`] if it would lie over, or on the wrong side of, a part of another number.
    pub(super) fn reserve(
        &self,
        number: u32,
        ticket: u64,
        offset: u64,
        length: u64,
    ) -> Result<Reservation<'_>, StoreError> {
        let mut entries = self.entries();
        let replaces = loop {
            match entries.get(&number) {
                Some(entry) if entry.ticket > ticket => return Ok(Reservation::Superseded),
                Some(entry) if entry.crc.is_none() => {
                    entries = self.written.wait(entries).unwrap_or_else(PoisonError::into_inner);
                }
                entry => break entry.is_some(),
            }
        };
        let end = offset
            .checked_add(length)
            .ok_or(StoreError::Protocol("part offset out of range"))?;
        let before = entries.range(..number).next_back();
        let after = entries.range(number + 1..).next();
        if before.is_some_and(|(_, e)| e.offset + e.length > offset)
            || after.is_some_and(|(_, e)| e.offset < end)
        {
            return Err(StoreError::Protocol("parts overlap"));
        }
        entries.insert(
            number,
            Entry {
                ticket,
                offset,
                length,
                crc: None,
            },
        );
        Ok(Reservation::Mine {
            writing: Writing { table: self, number },
            replaces,
        })
    }

    /// The length of the object that these parts make.
    ///
    /// # Errors
    /// [`StoreError::Protocol`] unless all were written as their receipts say and adjoin from offset 0.
    pub(super) fn adjoining(&self, receipts: &[PartReceipt]) -> Result<u64, StoreError> {
        if receipts.is_empty() {
            return Err(StoreError::Protocol("no parts"));
        }
        if !receipts.is_sorted_by(|a, b| a.number < b.number) {
            return Err(StoreError::Protocol("part numbers do not ascend"));
        }
        let entries = self.entries();
        let mut end = 0;
        for receipt in receipts {
            let entry = entries
                .get(&receipt.number)
                .ok_or(StoreError::Protocol("part missing"))?;
            if entry.length != receipt.length || entry.crc.map(etag).as_ref() != Some(&receipt.etag) {
                return Err(StoreError::Protocol("part differs from its receipt"));
            }
            if entry.offset != end {
                return Err(StoreError::Protocol("parts do not adjoin"));
            }
            end += entry.length;
        }
        Ok(end)
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<u32, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writing<'_> {
    /// The part is on disk.
    pub(super) fn done(self, crc: u32) {
        if let Some(entry) = self.table.entries().get_mut(&self.number) {
            entry.crc = Some(crc);
        }
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        let mut entries = self.table.entries();
        if entries.get(&self.number).is_some_and(|entry| entry.crc.is_none()) {
            entries.remove(&self.number);
        }
        drop(entries);
        self.table.written.notify_all();
    }
}
