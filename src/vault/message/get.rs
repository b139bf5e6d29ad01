//! A message comes back with its body, alone or among many.

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};

use crate::{
    blob::store::{ByteRange, ObjectKey},
    crypto::{
        context,
        kdf::DekKeys,
        stream::{self as stream_format, ExtentOpener, map_range},
    },
    domain::{
        ids::{RecordId, TenantId},
        judge::Reason,
        limits,
        record::{Kind as RecordKind, Record},
    },
};

use super::super::{
    Error, Kind, Name, Vault,
    record::{Located, may_read},
    streams::Pass,
};

/// Bodies of one call that are read side by side.
const SIDE_BY_SIDE: usize = 8;
/// What a descriptor grows by in an answer, at most: names in place of numbers.
const DESCRIPTOR_GROWTH: u64 = 2;

/// A message that may be read.
struct Readable {
    located: Located,
    record: Record,
    keys: DekKeys,
    pass: Pass,
}

impl Vault {
    /// A message and its body, if its content may be read for this purpose. An artifact is one as well.
    ///
    /// # Errors
    /// [`Kind::NotFound`], [`Kind::WrongState`], [`Kind::Forbidden`] by gate 2; [`Kind::WrongState`] (`NOT_A_MESSAGE`) for a
    /// recording, and for an artifact that is longer than a message; [`Kind::Corrupt`] if anything does not authenticate;
    /// [`Kind::Exhausted`] without room.
    pub async fn message(
        &self,
        tenant: &TenantId,
        record: RecordId,
        reason: impl Into<Reason>,
    ) -> Result<(Record, Bytes), Error> {
        let readable = self.readable(tenant, record, &reason.into()).await?;
        let _room = self.budget.reserve_for(tenant, readable.sealed_length()).await?;
        self.open_body(readable).await
    }

    /// Messages and their bodies, each for itself, in the order of `records`. Bodies and descriptors beyond
    /// [`limits::BATCH_ANSWER_BYTES`] are not read.
    ///
    /// # Errors
    /// [`Kind::Exhausted`] without room. Of each message: as [`Self::message`]; [`Kind::Exhausted`] (`ANSWER_FULL`) if it did
    /// not fit any more.
    pub async fn messages(
        &self,
        tenant: &TenantId,
        records: &[RecordId],
        reason: impl Into<Reason>,
    ) -> Result<Vec<Result<(Record, Bytes), Error>>, Error> {
        let reason = reason.into();
        let mut left = limits::BATCH_ANSWER_BYTES;
        let admitted: Vec<Result<Readable, Error>> = stream::iter(records.iter().copied())
            .map(|record| self.readable(tenant, record, &reason))
            .buffered(SIDE_BY_SIDE)
            .map(|readable| {
                let readable = readable?;
                let size = size_in_answer(&readable.located);
                left = left.checked_sub(size).ok_or_else(answer_full)?;
                Ok(readable)
            })
            .collect()
            .await;
        let bytes = admitted.iter().flatten().map(Readable::sealed_length).sum();
        let _room = self.budget.reserve_for(tenant, bytes).await?;
        let opened = stream::iter(admitted)
            .map(|readable| async { self.open_body(readable?).await })
            .buffered(SIDE_BY_SIDE);
        Ok(opened.collect().await)
    }

    async fn readable(
        &self,
        tenant: &TenantId,
        record: RecordId,
        reason: &Reason,
    ) -> Result<Readable, Error> {
        let _turn = self.turn(tenant).await?;
        let pass = self.enter(tenant, record);
        let located = self.locate(tenant, &Name::Id(record)).await?;
        let located = located.ok_or_else(Error::not_found)?;
        let (record, keys) = self.open_record(&located).await?;
        may_read(&record, reason)?;
        let not_a_message = |message| Err(Error::new(Kind::WrongState, "NOT_A_MESSAGE", message));
        match record.kind {
            RecordKind::Recording => not_a_message("the record is a recording; read it with ReadRecording"),
            _ if record.size > limits::MESSAGE_BYTES => {
                not_a_message("the artifact is longer than a message; read it with ReadRecording")
            }
            _ => Ok(Readable {
                located,
                record,
                keys,
                pass,
            }),
        }
    }

    /// Reads and opens a body in one piece.
    async fn open_body(&self, readable: Readable) -> Result<(Record, Bytes), Error> {
        let Readable {
            located,
            record,
            keys,
            pass,
        } = readable;
        let object = ObjectKey::parse(&located.row.object_key)?;
        let range = ByteRange::Exact {
            offset: located.row.offset,
            length: stream_format::ciphertext_len(record.size),
        };
        let sealed = self.store.get(&object, range).await;
        // Its object may be gone for the same reason.
        pass.check()?;
        Ok((record, open_extent(&located, &keys, sealed?.bytes)?))
    }
}

impl Readable {
    /// Bytes that its content takes while it is read and opened.
    fn sealed_length(&self) -> u64 {
        stream_format::ciphertext_len(self.record.size)
    }
}

/// Opens content of one extent, in place.
fn open_extent(located: &Located, keys: &DekKeys, sealed: Bytes) -> Result<Bytes, Error> {
    let corrupt = || Error::corrupt("content");
    let size = located.row.plaintext_length;
    let piece = map_range(size, 0, size)?.next().ok_or_else(corrupt)?;
    let mut sealed = sealed
        .try_into_mut()
        .unwrap_or_else(|shared| BytesMut::from(&shared[..]));
    if sealed.len() as u64 != stream_format::ciphertext_len(size) {
        return Err(corrupt());
    }
    let header = sealed.split_to(stream_format::HEADER_LEN);
    let header = header[..].try_into().map_err(|_| corrupt())?;
    let (tenant, kind) = (&located.tenant, located.kind.number());
    let aad = context::extent(tenant, &located.id, kind, &located.region, piece.extent);
    let opener = ExtentOpener::new(&keys.content, &aad, header).map_err(|_| corrupt())?;
    let mut segments = piece.open(&opener, sealed)?;
    if segments.len() == 1 {
        // Most messages: no copy.
        return segments.pop().ok_or_else(corrupt);
    }
    Ok(segments.concat().into())
}

fn size_in_answer(located: &Located) -> u64 {
    located.row.plaintext_length + DESCRIPTOR_GROWTH * located.row.sealed_descriptor.len() as u64
}

fn answer_full() -> Error {
    Error::new(
        Kind::Exhausted,
        "ANSWER_FULL",
        format!(
            "the answer has no room for this message; ask for it in another call limit={} bytes",
            limits::BATCH_ANSWER_BYTES
        ),
    )
}
