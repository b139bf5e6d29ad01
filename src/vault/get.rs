//! A recording comes back, whole or a range: only the segments that hold it are read, authenticated and opened.
//!
//! Ranges are read ahead, a bounded number of them, each with its room reserved; they are opened in order, in place.

use std::{collections::VecDeque, sync::Arc};

use bytes::{Bytes, BytesMut};
use tokio::task::JoinHandle;

use crate::{
    blob::store::{ByteRange, ObjectKey},
    crypto::{
        CryptoError, context,
        kdf::DekKeys,
        stream::{self, ExtentOpener, Piece, Pieces},
    },
    domain::{
        ids::{RecordId, TenantId},
        purpose::Purpose,
        record::Record,
    },
};

use super::{
    Error, Kind, Vault,
    budget::Reservation,
    record::{Located, Name, may_read},
};

/// Segments read at once: 1 MiB of ciphertext.
const RUN_SEGMENTS: u32 = 16;
/// Reads that may be under way ahead of the one being opened.
const READ_AHEAD: usize = 3;

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
    room: Option<Reservation>,
}

struct Run {
    piece: Piece,
    with_header: bool,
    bytes: JoinHandle<Result<(Bytes, Reservation), Error>>,
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
        purpose: Purpose,
    ) -> Result<Reading, Error> {
        let located = self
            .locate(tenant, &Name::Id(record))
            .await?
            .ok_or_else(Error::not_found)?;
        let (record, keys) = self.open_record(&located).await?;
        may_read(&record, purpose)?;
        self.reading(located, record, keys, range)
    }

    /// Begins to read a record that passed gate 2.
    pub(super) fn reading(
        self: &Arc<Self>,
        located: Located,
        record: Record,
        keys: DekKeys,
        range: ContentRange,
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

    /// The next bytes, authenticated; `None` after the last.
    ///
    /// Not cancel safe: drop the reading if a call is dropped.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] if the content does not authenticate or is not all there; nothing of it was given then. What the
    /// store answered otherwise. The reading is over.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                self.delivered += bytes.len() as u64;
                return Ok(Some(bytes));
            }
            self.room = None;
            self.read_ahead();
            let Some(run) = self.ahead.pop_front() else {
                return if self.delivered == self.length {
                    Ok(None)
                } else {
                    Err(Error::corrupt("content"))
                };
            };
            self.open(run).await?;
        }
    }

    fn read_ahead(&mut self) {
        while self.ahead.len() <= READ_AHEAD {
            let Some(piece) = self.next_run() else { return };
            self.ahead.push_back(self.begin(piece));
        }
    }

    /// The next piece of at most [`RUN_SEGMENTS`] segments.
    fn next_run(&mut self) -> Option<Piece> {
        let piece = self.rest.take().or_else(|| self.pieces.next())?;
        let (run, rest) = piece.split(RUN_SEGMENTS);
        self.rest = rest;
        Some(run)
    }

    fn begin(&self, piece: Piece) -> Run {
        let with_header = piece.first_segment == 0;
        let (start, extra) = if with_header {
            (piece.header_offset, stream::HEADER_LEN as u64)
        } else {
            (piece.offset, 0)
        };
        let range = ByteRange::Exact {
            offset: self.located.row.offset + start,
            length: piece.len + extra,
        };
        let (vault, object) = (Arc::clone(&self.vault), self.object.clone());
        let bytes = tokio::spawn(async move {
            let room = vault.budget.reserve(piece.len + extra).await?;
            let object = vault.store.get(&object, range).await?;
            Ok((object.bytes, room))
        });
        Run {
            piece,
            with_header,
            bytes,
        }
    }

    async fn open(&mut self, run: Run) -> Result<(), Error> {
        let (bytes, room) = run
            .bytes
            .await
            .map_err(|e| Error::new(Kind::Internal, "TASK", "a read was interrupted").because(e))??;
        let mut bytes = bytes
            .try_into_mut()
            .unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        if run.with_header {
            if bytes.len() < stream::HEADER_LEN {
                return Err(Error::corrupt("content"));
            }
            let header = bytes.split_to(stream::HEADER_LEN);
            self.derive(run.piece.extent, &header)?;
        } else if self
            .opener
            .as_ref()
            .is_none_or(|(extent, _)| *extent != run.piece.extent)
        {
            let header = self.read_header(run.piece.header_offset).await?;
            self.derive(run.piece.extent, &header)?;
        }
        let Some((_, opener)) = &self.opener else {
            return Err(Error::corrupt("content"));
        };
        self.ready.extend(
            run.piece
                .open(opener, bytes)?
                .into_iter()
                .filter(|b| !b.is_empty()),
        );
        self.room = Some(room);
        Ok(())
    }

    async fn read_header(&self, offset: u64) -> Result<Bytes, Error> {
        let offset = self.located.row.offset + offset;
        let range = ByteRange::Exact {
            offset,
            length: stream::HEADER_LEN as u64,
        };
        Ok(self.vault.store.get(&self.object, range).await?.bytes)
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

impl Drop for Reading {
    fn drop(&mut self) {
        for run in &self.ahead {
            run.bytes.abort();
        }
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
