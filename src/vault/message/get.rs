//! A message comes back with its body, alone or among many.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};

use crate::domain::{
    ids::{RecordId, TenantId},
    limits,
    purpose::Purpose,
    record::{Kind as RecordKind, Record},
};

use super::super::{
    ContentRange, Error, Kind, Name, Vault,
    record::{Located, may_read},
};

/// Bodies of one call that are read side by side.
const SIDE_BY_SIDE: usize = 8;
/// What a descriptor grows by in an answer, at most: names in place of numbers.
const DESCRIPTOR_GROWTH: u64 = 2;

/// A message that may be read.
struct Readable {
    located: Located,
    record: Record,
    keys: crate::crypto::kdf::DekKeys,
}

impl Vault {
    /// A message and its body, if its content may be read for this purpose. An artifact is one as well.
    ///
    /// # Errors
    /// [`Kind::NotFound`], [`Kind::WrongState`], [`Kind::Forbidden`] by gate 2; [`Kind::WrongState`] (`NOT_A_MESSAGE`) for a
    /// recording, and for an artifact that is longer than a message; [`Kind::Corrupt`] if anything does not authenticate.
    pub async fn message(
        self: &Arc<Self>,
        tenant: &TenantId,
        record: RecordId,
        purpose: Purpose,
    ) -> Result<(Record, Bytes), Error> {
        let readable = self.readable(tenant, record, purpose).await?;
        self.open_body(readable).await
    }

    /// Messages and their bodies, each for itself, in the order of `records`. Bodies and descriptors beyond
    /// [`limits::BATCH_ANSWER_BYTES`] are not read.
    ///
    /// # Errors
    /// Of each message: as [`Self::message`]; [`Kind::Exhausted`] (`ANSWER_FULL`) if it did not fit any more.
    pub async fn messages(
        self: &Arc<Self>,
        tenant: &TenantId,
        records: &[RecordId],
        purpose: Purpose,
    ) -> Vec<Result<(Record, Bytes), Error>> {
        let mut left = limits::BATCH_ANSWER_BYTES;
        let admitted = stream::iter(records.iter().copied())
            .map(|record| self.readable(tenant, record, purpose))
            .buffered(SIDE_BY_SIDE)
            .map(|readable| {
                let readable = readable?;
                let size = size_in_answer(&readable.located);
                left = left.checked_sub(size).ok_or_else(answer_full)?;
                Ok::<_, Error>(readable)
            });
        admitted
            .map(|readable| async { self.open_body(readable?).await })
            .buffered(SIDE_BY_SIDE)
            .collect()
            .await
    }

    async fn readable(
        &self,
        tenant: &TenantId,
        record: RecordId,
        purpose: Purpose,
    ) -> Result<Readable, Error> {
        let located = self.locate(tenant, &Name::Id(record)).await?;
        let located = located.ok_or_else(Error::not_found)?;
        let (record, keys) = self.open_record(&located).await?;
        may_read(&record, purpose)?;
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
            }),
        }
    }

    async fn open_body(self: &Arc<Self>, readable: Readable) -> Result<(Record, Bytes), Error> {
        let Readable {
            located,
            record,
            keys,
        } = readable;
        let whole = ContentRange {
            offset: 0,
            limit: None,
        };
        let mut reading = self.reading(located, record.clone(), keys, whole)?;
        let mut body = BytesMut::with_capacity(usize::try_from(record.size).unwrap_or(0));
        while let Some(bytes) = reading.next().await? {
            body.extend_from_slice(&bytes);
        }
        Ok((record, body.freeze()))
    }
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
