//! Between an upload's memory and its files. Everything here blocks.

use std::{
    collections::BTreeMap,
    sync::{Arc, MutexGuard, PoisonError, atomic::Ordering},
};

use bytes::Bytes;

use crate::{
    crypto::{context::SpoolLog, stream::ExtentBuffer},
    domain::media,
    spool::{self, SealedLog, SpoolError},
};

use super::{
    journal,
    session::{Files, PARTS_IN_FLIGHT, Part, Phase, Session, Whole},
};

/// Pieces of a part in memory that are sealed and written together.
const PIECES_AT_ONCE: usize = 16;

impl Session {
    pub(super) fn files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what is in memory to the spool, without waiting for the disk.
    pub(super) fn spool(&self) -> Result<(), SpoolError> {
        self.spool_into(&mut self.files())
    }

    /// The same, a whole part too; then makes all of it durable, and what the store has taken known.
    ///
    /// # Errors
    /// As the spool says. What a failed sync left in doubt is forgotten, and has to be sent again.
    pub(super) fn settle(&self, spill: bool) -> Result<(), SpoolError> {
        let mut files = self.files();
        if matches!(self.state().phase, Phase::Gone | Phase::Damaged) {
            return Ok(());
        }
        if spill {
            self.begin_spill(&mut files);
        }
        let spooled = self.spool_into(&mut files);
        self.sync_pieces(&mut files)?;
        self.journal(&mut files)?;
        spooled
    }

    /// Whether a part has been in memory for so long that it is not filling fast. Asked twice a second.
    pub(super) fn grow_older(&self) -> bool {
        let mut state = self.state();
        state.whole_age += 1;
        state.whole.is_some() && state.whole_age > 1
    }

    /// Makes durable what arrived; a part that is filling fast may stay in memory.
    pub(super) fn tick(&self, spill: bool) -> Result<(), SpoolError> {
        self.restless.store(false, Ordering::Release);
        let settled = self.settle(spill);
        if settled.is_err() || !self.is_at_rest() {
            self.restless.store(true, Ordering::Release);
        }
        settled
    }

    fn is_at_rest(&self) -> bool {
        let files = self.files();
        let told = files.journal.is_synced();
        let state = self.state();
        let part = state.open();
        told && state.parts.len() == 1 && part.synced.0 == part.length
    }

    fn begin_spill(&self, files: &mut Files) {
        let mut state = self.state();
        if files.spilling.is_none()
            && let Some(whole) = state.whole.take()
        {
            files.spilling = Some((state.open().extent, whole));
        }
    }

    fn spool_into(&self, files: &mut Files) -> Result<(), SpoolError> {
        if let Some((extent, whole)) = files.spilling.take()
            && let Err(error) = self.spill(files, extent, &whole)
        {
            files.spilling = Some((extent, whole));
            return Err(error);
        }
        while let Some((extent, piece)) = self.next_piece() {
            let written = self
                .pieces(files, extent)
                .and_then(|log| log.append(&self.spool, &[&piece], &*self.rng));
            let mut state = self.state();
            state.spooling = false;
            written?;
            state.small_was_spooled(&piece);
        }
        Ok(())
    }

    fn spill(&self, files: &mut Files, extent: u32, (buffer, _room): &Whole) -> Result<(), SpoolError> {
        let from = self.state().open().spooled.0;
        let pieces: Vec<&[u8]> = buffer.pieces(from).collect();
        for group in pieces.chunks(PIECES_AT_ONCE) {
            self.pieces(files, extent)?
                .append(&self.spool, group, &*self.rng)?;
            let mut state = self.state();
            group.iter().for_each(|piece| state.was_spooled(piece));
        }
        Ok(())
    }

    /// A copy of what waits to be spooled; the original stays until the copy is written.
    fn next_piece(&self) -> Option<(u32, Vec<u8>)> {
        let mut state = self.state();
        if state.whole.is_some() || state.small.is_empty() {
            return None;
        }
        state.spooling = true;
        Some((state.open().extent, state.small.to_vec()))
    }

    /// The file of an extent's content.
    fn pieces<'a>(&self, files: &'a mut Files, extent: u32) -> Result<&'a mut SealedLog, SpoolError> {
        use std::collections::btree_map::Entry;
        match files.pieces.entry(extent) {
            Entry::Occupied(found) => Ok(found.into_mut()),
            Entry::Vacant(place) => {
                let name = spool::pieces_name(&self.making.record, extent);
                // What a part that was in memory left of an earlier try is nobody's.
                self.spool.remove(&name)?;
                let key = Arc::clone(&self.making.spool_key);
                let log = SealedLog::create(
                    &self.spool,
                    name,
                    self.pieces_context(extent),
                    key,
                    &[],
                    &*self.rng,
                )?;
                Ok(place.insert(log))
            }
        }
    }

    fn pieces_context(&self, extent: u32) -> SpoolLog {
        SpoolLog {
            log: extent + 1,
            ..self.context.clone()
        }
    }

    fn sync_pieces(&self, files: &mut Files) -> Result<(), SpoolError> {
        // Nothing else writes to these files meanwhile, and a part is not closed before all of it is synced.
        let (extent, spooled) = {
            let state = self.state();
            (state.open().extent, state.open().spooled)
        };
        let Some(log) = files.pieces.get_mut(&extent) else {
            return Ok(());
        };
        if let Err(error) = log.sync(&self.spool, &*self.rng) {
            let cut = log.forget_unsynced(&self.spool);
            files.spilling = None;
            self.state().lose_unsynced();
            self.fence();
            cut?;
            return Err(error);
        }
        self.state().open_mut().synced = spooled;
        Ok(())
    }

    /// Makes known, durably, which parts are in the store, and lets go of their files.
    fn journal(&self, files: &mut Files) -> Result<(), SpoolError> {
        let upload = self.store_upload.get().filter(|_| !files.store_upload_journalled);
        let mut events: Vec<_> = upload
            .map(|upload| journal::store_upload_event(&upload.0))
            .into_iter()
            .collect();
        let told = {
            let state = self.state();
            let stored = state
                .parts
                .iter()
                .map_while(|part| Some((part, part.stored.as_ref()?)));
            let before = events.len();
            events.extend(stored.map(|(part, stored)| journal::part_event(part, stored, &state.start)));
            events.len() - before
        };
        let records: Vec<&[u8]> = events.iter().map(Vec::as_slice).collect();
        if !records.is_empty() {
            files.journal.append(&self.spool, &records, &*self.rng)?;
        }
        if let Err(error) = files.journal.sync(&self.spool, &*self.rng) {
            files.journal.forget_unsynced(&self.spool)?;
            return Err(error);
        }
        files.store_upload_journalled |= upload.is_some();
        let known = self.state().parts_are_known(told);
        for part in known {
            if let Some(log) = files.pieces.remove(&part.extent)
                && let Err(error) = log.remove(&self.spool)
            {
                tracing::warn!(%error, "a spool file stays until the next start");
            }
        }
        if told > 0 {
            self.changed.notify_waiters();
        }
        Ok(())
    }

    /// Appends an event to the journal, durably.
    pub(super) fn tell(&self, event: &[u8]) -> Result<(), SpoolError> {
        let mut files = self.files();
        files.journal.append(&self.spool, &[event], &*self.rng)?;
        if let Err(error) = files.journal.sync(&self.spool, &*self.rng) {
            files.journal.forget_unsynced(&self.spool)?;
            return Err(error);
        }
        Ok(())
    }

    /// Reads an extent's content back from the spool.
    ///
    /// # Errors
    /// [`SpoolError::Damaged`] if it is not what was written.
    pub(super) fn read_back(&self, extent: u32, spare: usize) -> Result<ExtentBuffer, SpoolError> {
        let mut buffer = ExtentBuffer::new(extent, spare);
        let files = self.files();
        if let Some(log) = files.pieces.get(&extent) {
            log.read_all(&self.spool, |piece| {
                let mut piece = Bytes::copy_from_slice(piece);
                buffer.fill(&mut piece);
                piece.is_empty().then_some(()).ok_or(SpoolError::Damaged)
            })?;
        }
        Ok(buffer)
    }

    /// Reads what was spooled before a restart.
    pub(super) fn wake(&self) -> Result<(), SpoolError> {
        let mut files = self.files();
        // Opening counts what it finds.
        self.spool.forget(self.asleep.swap(0, Ordering::AcqRel));
        let mut found = Vec::new();
        let mut part = {
            let mut state = self.state();
            let open = state.open_mut();
            Part::new(open.extent, open.start, open.crc)
        };
        let mut start = self.state().start.clone();
        while let Some(log) = self.wake_part(&mut part, &mut start)? {
            files.pieces.insert(part.extent, log);
            if !part.is_full() {
                break;
            }
            let next = Part::new(part.extent + 1, part.start + part.length, part.crc);
            found.push(std::mem::replace(&mut part, next));
        }
        self.remove_beyond(part.extent, &files.pieces)?;
        let mut state = self.state();
        state.received = part.start + part.length;
        state.start = start;
        found.push(part);
        state.parts = found.into();
        Ok(())
    }

    fn wake_part(&self, part: &mut Part, start: &mut Vec<u8>) -> Result<Option<SealedLog>, SpoolError> {
        let name = spool::pieces_name(&self.making.record, part.extent);
        // Its name is known before its content is: one that was being made is removed with what lies beyond.
        if !self.spool.has(&name)? || SealedLog::was_torn_at_birth(&self.spool, &name)? {
            return Ok(None);
        }
        let key = Arc::clone(&self.making.spool_key);
        let log = SealedLog::open(
            &self.spool,
            name,
            self.pieces_context(part.extent),
            key,
            |piece| {
                if part.length + piece.len() as u64 > part.capacity() {
                    return Err(SpoolError::Damaged);
                }
                let missing = media::SNIFF_LEN.saturating_sub(start.len()).min(piece.len());
                start.extend_from_slice(&piece[..missing]);
                part.length += piece.len() as u64;
                part.crc = crc32c::crc32c_append(part.crc, piece);
                Ok(())
            },
        )?;
        part.spooled = (part.length, part.crc);
        part.synced = part.spooled;
        Ok(Some(log))
    }

    /// Content behind a part that was lost with the memory it was in is of no use.
    fn remove_beyond(&self, first: u32, known: &BTreeMap<u32, SealedLog>) -> Result<(), SpoolError> {
        for extent in (first..=first + PARTS_IN_FLIGHT as u32).filter(|extent| !known.contains_key(extent)) {
            self.spool
                .remove(&spool::pieces_name(&self.making.record, extent))?;
        }
        Ok(())
    }

    /// Removes every file of content; the journal too unless it is kept.
    pub(super) fn remove_files(&self, keep_journal: bool) {
        let mut files = self.files();
        files.spilling = None;
        self.spool.forget(self.asleep.swap(0, Ordering::AcqRel));
        let first = self.state().parts.front().map_or(0, |part| part.extent);
        let removed = std::mem::take(&mut files.pieces)
            .into_values()
            .map(|log| log.remove(&self.spool))
            .chain([self.remove_beyond(first, &BTreeMap::new())])
            .chain((!keep_journal).then(|| files.journal.discard(&self.spool)))
            .chain([self.spool.sync_names()]);
        for error in removed.filter_map(Result::err) {
            tracing::warn!(%error, "a spool file stays until the next start");
        }
    }
}

impl super::session::State {
    /// Parts whose events are durable leave; there is always one that takes content.
    fn parts_are_known(&mut self, count: usize) -> Vec<Part> {
        let known: Vec<Part> = self.parts.drain(..count).collect();
        for stored in known.iter().filter_map(|part| part.stored.as_ref()) {
            self.digest.update(&stored.tags_digest);
            self.receipts.push(stored.receipt.clone());
        }
        known
    }
}
