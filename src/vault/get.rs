//! A recording comes back, whole or a range: only the segments that hold it are read, authenticated and opened.
//!
//! Ranges are read ahead, a bounded number of them, each with its room reserved; they are opened in order, in place.
//!
//! A reading waits for room only when it has none, and then for one segment if need be: so of any number of readings each goes
//! on when any other lets go, and none waits for another that waits for it. What it reads ahead takes room that is to spare.
//!
//! What does not authenticate is read once more, with its extent's header: a bit that flipped on the way is not a damaged
//! object. Nothing is given that did not authenticate.

use std::{collections::VecDeque, sync::Arc};

use bytes::{Bytes, BytesMut};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    blob::store::{ByteRange, ObjectKey},
    crypto::{
        CryptoError, context,
        kdf::DekKeys,
        stream::{self, ExtentOpener, Piece, Pieces},
    },
    domain::{
        ids::{RecordId, TenantId},
        judge::Reason,
        record::Record,
    },
};

use super::{
    Error, Kind, Vault,
    budget::Reservation,
    record::{Located, Name, may_read},
    streams::{Cut, Pass},
};

/// Segments read at once: 1 MiB of ciphertext.
const RUN_SEGMENTS: u32 = 16;
/// Reads that may be under way ahead of the one being opened.
const READ_AHEAD: usize = 3;
/// Quarters of the tenant's share beyond which a reading takes segments one by one, and beyond which it does not read ahead.
const RUNS: u64 = 2;
const RUNS_AHEAD: u64 = 1;

/// Which bytes of the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentRange {
    /// First byte.
    pub offset: u64,
    /// Number of bytes; all that follow when `None`.
    pub limit: Option<u64>,
}

/// Content on its way out.
pub struct Reading {
    vault: Arc<Vault>,
    record: Record,
    offset: u64,
    length: u64,
    delivered: u64,
    located: Located,
    object: ObjectKey,
    keys: DekKeys,
    pieces: Pieces,
    rest: Option<Piece>,
    ahead: VecDeque<Run>,
    opener: Option<(u32, ExtentOpener)>,
    ready: VecDeque<Bytes>,
    /// Room of the run whose plaintext is in `ready`.
    room: Option<Arc<Reservation>>,
    /// Whether it may go on.
    pass: Pass,
}

struct Run {
    piece: Piece,
    room: Reservation,
    bytes: AbortOnDropHandle<Result<Bytes, Error>>,
}

impl Vault {
    /// Begins to read a recording, if its content may be read for this purpose.
    ///
    /// # Errors
    /// [`Kind::NotFound`], [`Kind::WrongState`], [`Kind::Forbidden`] by gate 2; [`Kind::Invalid`] for a range that begins beyond
    /// the content; [`Kind::Corrupt`] if the descriptor does not authenticate.
    pub async fn read(
        self: &Arc<Self>,
        tenant: &TenantId,
        record: RecordId,
        range: ContentRange,
        reason: impl Into<Reason>,
    ) -> Result<Reading, Error> {
        let _turn = self.turn(tenant).await?;
        let pass = self.enter(tenant, record);
        let located = self
            .locate(tenant, &Name::Id(record))
            .await?
            .ok_or_else(Error::not_found)?;
        let (record, keys) = self.open_record(&located).await?;
        may_read(&record, &reason.into())?;
        self.reading(located, record, keys, range, pass)
    }

    /// Begins to read a record that passed gate 2.
    pub(super) fn reading(
        self: &Arc<Self>,
        located: Located,
        record: Record,
        keys: DekKeys,
        range: ContentRange,
        pass: Pass,
    ) -> Result<Reading, Error> {
        if range.offset >= record.size {
            return Err(Error {
                field: Some("offset".into()),
                ..Error::new(
                    Kind::Invalid,
                    "OFFSET_OUT_OF_RANGE",
                    format!("must be below the content's length size_bytes={}", record.size),
                )
            });
        }
        let length = (record.size - range.offset).min(range.limit.unwrap_or(u64::MAX));
        Ok(Reading {
            vault: Arc::clone(self),
            offset: range.offset,
            length,
            delivered: 0,
            object: ObjectKey::parse(&located.row.object_key)?,
            pieces: stream::map_range(record.size, range.offset, length)?,
            located,
            record,
            keys,
            rest: None,
            ahead: VecDeque::new(),
            opener: None,
            ready: VecDeque::new(),
            room: None,
            pass,
        })
    }
}

impl Reading {
    /// The record whose content this is.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// First byte that comes.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Number of bytes that come.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The room that the bytes given last lie in: whoever keeps them keeps it.
    pub fn room(&self) -> Option<Arc<Reservation>> {
        self.room.clone()
    }

    /// Tells when the record is cut off: nothing of it may be passed on from then on, not even what was opened before.
    pub fn cut(&self) -> Cut {
        self.pass.cut()
    }

    /// The next bytes, authenticated; `None` after the last.
    ///
    /// Not cancel safe: drop the reading if a call is dropped.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if the record was cut off meanwhile. [`Kind::Corrupt`] if the content does not authenticate or is not all there; nothing of it was given then. What the
    /// store answered otherwise. [`Kind::Exhausted`] if there was no room for a segment in time. The reading is over.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            self.pass.check()?;
            if let Some(bytes) = self.ready.pop_front() {
                self.delivered += bytes.len() as u64;
                return Ok(Some(bytes));
            }
            self.room = None;
            let run = match self.ahead.pop_front() {
                Some(run) => Some(run),
                None => self.begin_next().await?,
            };
            let Some(run) = run else {
                return if self.delivered == self.length {
                    Ok(None)
                } else {
                    Err(Error::corrupt("content"))
                };
            };
            self.read_ahead();
            self.open(run).await?;
        }
    }

    /// The next run, as long as there is room to spare; else a segment, as soon as there is room for one.
    async fn begin_next(&mut self) -> Result<Option<Run>, Error> {
        if let Some(run) = self.begin_spare(RUNS) {
            return Ok(Some(run));
        }
        let Some(piece) = self.next_piece() else {
            return Ok(None);
        };
        let (segment, rest) = piece.split(1);
        self.rest = rest;
        let (tenant, (_, bytes)) = (&self.located.tenant, to_read(&segment));
        let room = self.vault.budget.reserve_for(tenant, bytes).await?;
        Ok(Some(self.begin(segment, room)))
    }

    fn read_ahead(&mut self) {
        while self.ahead.len() < READ_AHEAD {
            let Some(run) = self.begin_spare(RUNS_AHEAD) else {
                return;
            };
            self.ahead.push_back(run);
        }
    }

    /// The next run, if there is one and room to spare for it.
    fn begin_spare(&mut self, quarters: u64) -> Option<Run> {
        let piece = self.next_piece()?;
        let (run, rest) = piece.split(RUN_SEGMENTS);
        let (tenant, (_, bytes)) = (&self.located.tenant, to_read(&run));
        let Some(room) = self.vault.budget.spare_for(tenant, bytes, quarters) else {
            self.rest = Some(piece);
            return None;
        };
        self.rest = rest;
        Some(self.begin(run, room))
    }

    /// What is left of the piece that was begun, or the next one.
    fn next_piece(&mut self) -> Option<Piece> {
        self.rest.take().or_else(|| self.pieces.next())
    }

    fn begin(&self, piece: Piece, room: Reservation) -> Run {
        let (offset, length) = to_read(&piece);
        let range = self.range(offset, length);
        let (vault, object) = (Arc::clone(&self.vault), self.object.clone());
        let bytes = tokio::spawn(async move { Ok(vault.store.get(&object, range).await?.bytes) });
        let bytes = AbortOnDropHandle::new(bytes);
        Run { piece, room, bytes }
    }

    async fn open(&mut self, run: Run) -> Result<(), Error> {
        let bytes = run
            .bytes
            .await
            .map_err(|e| Error::new(Kind::Internal, "TASK", "a read was interrupted").because(e))??;
        let opened = match self.authenticate(&run.piece, bytes).await {
            Err(error) if error.kind == Kind::Corrupt => self.reopen(&run.piece).await,
            opened => opened,
        };
        self.ready.extend(opened?.into_iter().filter(|b| !b.is_empty()));
        self.room = Some(Arc::new(run.room));
        Ok(())
    }

    /// Opens what was read for a piece, in place.
    async fn authenticate(&mut self, piece: &Piece, bytes: Bytes) -> Result<Vec<Bytes>, Error> {
        let mut bytes = bytes
            .try_into_mut()
            .unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        if piece.first_segment == 0 {
            if bytes.len() < stream::HEADER_LEN {
                return Err(Error::corrupt("content"));
            }
            let header = bytes.split_to(stream::HEADER_LEN);
            self.derive(piece.extent, &header)?;
        } else if self
            .opener
            .as_ref()
            .is_none_or(|(extent, _)| *extent != piece.extent)
        {
            let header = self.read(piece.header_offset, stream::HEADER_LEN as u64).await?;
            self.derive(piece.extent, &header)?;
        }
        let Some((_, opener)) = &self.opener else {
            return Err(Error::corrupt("content"));
        };
        Ok(piece.open(opener, bytes)?)
    }

    /// Reads a piece that did not authenticate once more, in the same room; the header as well, for nobody knows which lied.
    async fn reopen(&mut self, piece: &Piece) -> Result<Vec<Bytes>, Error> {
        tracing::warn!(object = %self.object, "content does not authenticate; it is read once more");
        self.opener = None;
        let (offset, length) = to_read(piece);
        let bytes = self.read(offset, length).await?;
        self.authenticate(piece, bytes).await
    }

    /// Bytes of the entry.
    async fn read(&self, offset: u64, length: u64) -> Result<Bytes, Error> {
        let range = self.range(offset, length);
        Ok(self.vault.store.get(&self.object, range).await?.bytes)
    }

    /// Where bytes of the entry lie in the object.
    fn range(&self, offset: u64, length: u64) -> ByteRange {
        ByteRange::Exact {
            offset: self.located.row.offset + offset,
            length,
        }
    }

    fn derive(&mut self, extent: u32, header: &[u8]) -> Result<(), Error> {
        let header = header.try_into().map_err(|_| Error::corrupt("content"))?;
        let located = &self.located;
        let aad = context::extent(
            &located.tenant,
            &located.id,
            located.kind.number(),
            &located.region,
            extent,
        );
        let opener = ExtentOpener::new(&self.keys.content, &aad, header)
            .map_err(|_: CryptoError| Error::corrupt("content"))?;
        self.opener = Some((extent, opener));
        Ok(())
    }
}

/// Offset within the entry and length of what is read for a piece: with the extent's header, where it lies just before.
fn to_read(piece: &Piece) -> (u64, u64) {
    if piece.first_segment == 0 {
        (piece.header_offset, piece.len + stream::HEADER_LEN as u64)
    } else {
        (piece.offset, piece.len)
    }
}

impl std::fmt::Debug for Reading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reading")
            .field("record", &self.record.id)
            .field("delivered", &self.delivered)
            .finish_non_exhaustive()
    }
}
