//! One upload in memory: what arrived, where it is, and who may add to it.
//!
//! ```text
//! content = parts in the store | parts on their way to it | the open part
//! the open part = spooled | small (at most 64 KiB)        slow: costs what arrives in a second
//!               | whole (room reserved)                   fast: sealed in place, never touches the disk
//! ```
//!
//! The state is behind a lock that is held for moments and never across I/O. The files are behind another, on blocking
//! threads; whoever holds both took that of the files first.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    sync::{Notify, OnceCell, Semaphore, watch},
    task::AbortHandle,
};

use crate::{
    blob::store::{PartReceipt, UploadId},
    crypto::{
        context::SpoolLog,
        stream::{self, ExtentBuffer, TagsDigest},
    },
    domain::{
        clock::{Rng, Timestamp},
        ids::TenantId,
        limits, media,
    },
    spool::{SealedLog, Spool},
};

use super::{
    super::{Budget, Error, Kind, budget::Reservation, making::Making, put::Claim},
    journal::{Begun, Journal},
};

/// Content held before it is spooled.
pub(super) const SMALL_BYTES: usize = 64 << 10;
/// Parts that may be on their way to the store while the next one is filled.
pub(super) const PARTS_IN_FLIGHT: usize = 2;

/// One upload.
pub(super) struct Session {
    pub(super) making: Making,
    pub(super) begun: Begun,
    pub(super) expires: Timestamp,
    /// Of the journal; that of an extent's pieces differs in its number.
    pub(super) context: SpoolLog,
    pub(super) spool: Arc<Spool>,
    pub(super) rng: Arc<dyn Rng>,
    pub(super) files: Mutex<Files>,
    state: Mutex<State>,
    /// Told whenever a part has come to the store, or the upload has ended.
    pub(super) changed: Notify,
    generation: watch::Sender<u64>,
    pub(super) slots: Arc<Semaphore>,
    pub(super) store_upload: OnceCell<UploadId>,
    /// What was spooled before a restart has been read.
    pub(super) awake: OnceCell<()>,
    /// Bytes of files that were not opened yet.
    pub(super) asleep: AtomicU64,
    /// There is something for the next tick.
    pub(super) restless: AtomicBool,
    tasks: Mutex<Vec<AbortHandle>>,
    claim: Mutex<Option<Claim>>,
}

/// The files of an upload.
pub(super) struct Files {
    pub(super) journal: SealedLog,
    pub(super) pieces: BTreeMap<u32, SealedLog>,
    /// A part that was whole in memory, on its way to its file.
    pub(super) spilling: Option<(u32, Whole)>,
    pub(super) store_upload_journalled: bool,
}

/// A part in memory, and the room that it was promised.
pub(super) type Whole = (ExtentBuffer, Reservation);

/// What changes.
pub(super) struct State {
    pub(super) phase: Phase,
    pub(super) generation: u64,
    pub(super) received: u64,
    pub(super) start: Vec<u8>,
    /// Parts whose events are not durable yet, in order; the last takes content.
    pub(super) parts: VecDeque<Part>,
    pub(super) small: BytesMut,
    /// The front of `small` is being written to the spool.
    pub(super) spooling: bool,
    pub(super) whole: Option<Whole>,
    /// Ticks that `whole` has seen.
    pub(super) whole_age: u32,
    pub(super) receipts: Vec<PartReceipt>,
    pub(super) digest: TagsDigest,
}

/// Where an upload is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    Committing,
    Committed {
        at: Timestamp,
        fingerprint: Vec<u8>,
    },
    /// Its files are not what was written.
    Damaged,
    /// Aborted, or given up because the store has lost its parts.
    Gone,
}

/// An extent of the upload that is not known by the journal to be in the store.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) extent: u32,
    /// First byte of the content in it.
    pub(super) start: u64,
    /// Bytes of content in it.
    pub(super) length: u64,
    /// CRC-32C of all content up to its end.
    pub(super) crc: u32,
    /// Bytes of it in the spool, and CRC-32C of all content up to there.
    pub(super) spooled: (u64, u32),
    /// The same, of what is durable there.
    pub(super) synced: (u64, u32),
    pub(super) stored: Option<StoredPart>,
}

/// What is kept of a part that is in the store.
#[derive(Clone, Debug)]
pub(super) struct StoredPart {
    pub(super) receipt: PartReceipt,
    pub(super) tags_digest: [u8; 32],
}

/// What must happen before more can be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Done,
    Spool,
    NextPart,
}

impl Part {
    pub(super) fn new(extent: u32, start: u64, crc: u32) -> Self {
        Self {
            extent,
            start,
            length: 0,
            crc,
            spooled: (0, crc),
            synced: (0, crc),
            stored: None,
        }
    }

    pub(super) fn capacity(&self) -> u64 {
        stream::extent_capacity(self.extent)
    }

    pub(super) fn is_full(&self) -> bool {
        self.length == self.capacity()
    }
}

/// What a session is made of.
pub(super) struct Parts {
    pub(super) making: Making,
    pub(super) begun: Begun,
    pub(super) expires: Timestamp,
    pub(super) context: SpoolLog,
    pub(super) spool: Arc<Spool>,
    pub(super) rng: Arc<dyn Rng>,
    pub(super) journal: SealedLog,
    pub(super) claim: Option<Claim>,
}

impl Session {
    /// An upload of which nothing has arrived.
    pub(super) fn fresh(parts: Parts) -> Self {
        let session = Self::of(parts, &Journal::default());
        let _ = session.awake.set(());
        session
    }

    /// An upload as its journal tells it; what was spooled since is read when somebody asks for it.
    pub(super) fn of(parts: Parts, journal: &Journal) -> Self {
        let extents = u32::try_from(journal.stored.len()).unwrap_or(u32::MAX);
        let received = (0..extents).map(stream::extent_capacity).sum();
        let mut digest = TagsDigest::new();
        for part in &journal.stored {
            digest.update(&part.tags_digest);
        }
        let state = State {
            phase: match &journal.committed {
                None => Phase::Open,
                Some((at, fingerprint)) => Phase::Committed {
                    at: *at,
                    fingerprint: fingerprint.clone(),
                },
            },
            generation: 0,
            received,
            start: journal.start.clone(),
            parts: VecDeque::from([Part::new(extents, received, journal.crc)]),
            small: BytesMut::new(),
            spooling: false,
            whole: None,
            whole_age: 0,
            receipts: journal.stored.iter().map(|part| part.receipt.clone()).collect(),
            digest,
        };
        let upload = journal.store_upload.clone().map(UploadId);
        Self {
            making: parts.making,
            begun: parts.begun,
            expires: parts.expires,
            context: parts.context,
            spool: parts.spool,
            rng: parts.rng,
            files: Mutex::new(Files {
                journal: parts.journal,
                pieces: BTreeMap::new(),
                spilling: None,
                store_upload_journalled: upload.is_some(),
            }),
            state: Mutex::new(state),
            changed: Notify::new(),
            generation: watch::Sender::new(0),
            slots: Arc::new(Semaphore::new(PARTS_IN_FLIGHT)),
            store_upload: OnceCell::new_with(upload),
            awake: OnceCell::new(),
            asleep: AtomicU64::new(0),
            restless: AtomicBool::new(false),
            tasks: Mutex::default(),
            claim: Mutex::new(parts.claim),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over: whoever wrote before writes no more.
    pub(super) fn fence(&self) -> (u64, watch::Receiver<u64>) {
        let generation = {
            let mut state = self.state();
            state.generation += 1;
            state.generation
        };
        self.generation.send_replace(generation);
        (generation, self.generation.subscribe())
    }

    /// Takes content from the front of `chunk` until it is empty, or until something must happen first.
    pub(super) fn take(&self, generation: u64, chunk: &mut Bytes, budget: &Budget) -> Result<Step, Error> {
        let mut state = self.state();
        state.may_write(generation)?;
        if state.received + chunk.len() as u64 > limits::RECORDING_BYTES {
            let most = limits::RECORDING_BYTES;
            let message = format!("the content is longer than it may be limit={most} bytes");
            return Err(Error {
                field: Some("chunk".into()),
                ..Error::new(Kind::Invalid, "CONTENT_TOO_LONG", message)
            });
        }
        self.restless.store(true, Ordering::Release);
        while !chunk.is_empty() {
            if state.open().is_full() {
                return Ok(Step::NextPart);
            }
            if state.whole.is_none()
                && state.small.len() == SMALL_BYTES
                && !state.promote(&self.making.tenant, budget)
            {
                return Ok(Step::Spool);
            }
            state.fill(chunk);
        }
        Ok(Step::Done)
    }

    /// Runs until it ends by itself or the upload does.
    pub(super) fn run(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.retain(|task| !task.is_finished());
        tasks.push(tokio::spawn(task).abort_handle());
    }

    /// Stops what runs for it.
    pub(super) fn halt(&self) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.drain(..).for_each(|task| task.abort());
    }

    /// Ends it: nobody writes any more, nothing runs, its names are free.
    pub(super) fn end(&self, phase: Phase) {
        {
            let mut state = self.state();
            state.phase = phase;
            state.whole = None;
            state.small = BytesMut::new();
        }
        self.fence();
        self.halt();
        self.free_names();
        self.changed.notify_waiters();
    }

    pub(super) fn free_names(&self) {
        drop(self.claim.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

impl State {
    /// Refuses who was taken over, and everybody once the upload is over.
    pub(super) fn may_write(&self, generation: u64) -> Result<(), Error> {
        self.must_be_open()?;
        if self.generation == generation {
            return Ok(());
        }
        Err(Error::new(
            Kind::Conflict,
            "UPLOAD_TAKEN_OVER",
            "another call goes on with this upload; ask GetUpload where it is before writing again",
        ))
    }

    pub(super) fn must_be_open(&self) -> Result<(), Error> {
        match self.phase {
            Phase::Open => Ok(()),
            Phase::Committing => Err(Error::new(
                Kind::Conflict,
                "UPLOAD_COMMITTING",
                "the upload is being committed; ask GetUpload what became of it",
            )),
            Phase::Committed { .. } => Err(super::committed()),
            Phase::Damaged => Err(Error::corrupt("spool")),
            Phase::Gone => Err(Error::not_found()),
        }
    }

    /// The part that takes content.
    pub(super) fn open(&self) -> &Part {
        &self.parts[self.parts.len() - 1] // there is always one
    }

    pub(super) fn open_mut(&mut self) -> &mut Part {
        let last = self.parts.len() - 1;
        &mut self.parts[last]
    }

    /// Bytes that may be forgotten by whoever sent them.
    pub(super) fn durable(&self) -> u64 {
        for part in &self.parts {
            if part.synced.0 < part.length {
                return part.start + part.synced.0;
            }
        }
        let open = self.open();
        open.start + open.length
    }

    /// Gives a part that fills quickly room in memory, if there is some.
    fn promote(&mut self, tenant: &TenantId, budget: &Budget) -> bool {
        let part = self.open();
        if self.spooling || part.spooled.0 > 0 || part.length != self.small.len() as u64 {
            return false;
        }
        let extent = part.extent;
        let Some(room) = budget.spare_for(tenant, whole_bytes(extent), 4) else {
            return false;
        };
        let mut buffer = ExtentBuffer::new(extent, 0);
        buffer.fill(&mut std::mem::take(&mut self.small).freeze());
        self.whole = Some((buffer, room));
        self.whole_age = 0;
        true
    }

    fn fill(&mut self, chunk: &mut Bytes) {
        let part = self.open();
        let room = usize::try_from(part.capacity() - part.length).unwrap_or(usize::MAX);
        let room = match self.whole {
            Some(_) => room,
            None => room.min(SMALL_BYTES - self.small.len()),
        };
        let taken = chunk.split_to(chunk.len().min(room));
        if self.start.len() < media::SNIFF_LEN {
            let missing = (media::SNIFF_LEN - self.start.len()).min(taken.len());
            self.start.extend_from_slice(&taken[..missing]);
        }
        self.received += taken.len() as u64;
        let part = self.open_mut();
        part.length += taken.len() as u64;
        part.crc = crc32c::crc32c_append(part.crc, &taken);
        match &mut self.whole {
            Some((buffer, _)) => buffer.fill(&mut { taken }),
            None => self.small.extend_from_slice(&taken),
        }
    }

    /// What `spooled` bytes from the front of `small` were for.
    pub(super) fn small_was_spooled(&mut self, bytes: &[u8]) {
        self.small.advance(bytes.len());
        if self.small.is_empty() {
            // A call that speaks now and then costs nothing in between.
            self.small = BytesMut::new();
        }
        self.was_spooled(bytes);
    }

    pub(super) fn was_spooled(&mut self, bytes: &[u8]) {
        let (length, crc) = &mut self.open_mut().spooled;
        *length += bytes.len() as u64;
        *crc = crc32c::crc32c_append(*crc, bytes);
    }

    /// Goes back to what is durable, after the disk has lost the rest.
    pub(super) fn lose_unsynced(&mut self) {
        self.small = BytesMut::new();
        self.whole = None;
        let part = self.open_mut();
        part.spooled = part.synced;
        (part.length, part.crc) = part.synced;
        self.received = part.start + part.length;
    }
}

/// Room that a part takes in memory.
pub(super) fn whole_bytes(extent: u32) -> u64 {
    u64::from(stream::extent_segments(extent)) * stream::SEGMENT_LEN as u64
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Session({})", self.making.record)
    }
}
