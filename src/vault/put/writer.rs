//! Content becomes sealed extents, extents become a blob.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use tokio::task::JoinHandle;

use crate::{
    blob::store::PartReceipt,
    crypto::stream::{self, ExtentBuffer, TagsDigest},
    domain::{
        ids::TenantId,
        record::{Kind as RecordKind, Record},
    },
};

use super::{
    super::{
        Error, Kind, Vault,
        budget::{self, Reservation},
        making::Making,
        record::BlobName,
        requests::Asked,
    },
    PutSpec, empty,
    index::{Blob, Fresh, Told, fresh_record, outcome_of},
    upload::Upload,
};

/// Parts that may be on their way to the store while the next one is filled.
const PARTS_IN_FLIGHT: usize = 2;
/// Content of an extent up to which it has only small room: with what is sealed around it, and the footer.
const BEGINNING: u64 = budget::SMALL - FOOTER_ROOM as u64 - (4 << 10);
/// Room kept behind the last extent for the footer; a longer one costs a copy.
pub(in crate::vault) const FOOTER_ROOM: usize = 64 << 10;

pub(super) struct Writer {
    making: Making,
    extent: u32,
    filling: Option<(ExtentBuffer, Reservation)>,
    upload: Upload,
    in_flight: InFlight,
    digest: TagsDigest,
    receipts: Vec<PartReceipt>,
    offset: u64,
}

/// Parts on their way to the store, in order. Given up together when the upload is.
#[derive(Default)]
struct InFlight(VecDeque<JoinHandle<Result<StoredPart, Error>>>);

impl Drop for InFlight {
    fn drop(&mut self) {
        for part in &self.0 {
            part.abort();
        }
    }
}

struct StoredPart {
    receipt: PartReceipt,
    tags_digest: [u8; 32],
}

impl Vault {
    /// Begins to store a recording.
    pub(super) async fn writer(&self, spec: &PutSpec, kind: RecordKind) -> Result<Writer, Error> {
        let class = &spec.draft.descriptor.retention_class;
        let making = self.make(&spec.tenant, class, kind).await?;
        Ok(Writer {
            upload: Upload::new(Arc::clone(&self.store), making.object_key.clone()),
            making,
            extent: 0,
            filling: None,
            in_flight: InFlight::default(),
            digest: TagsDigest::new(),
            receipts: Vec::new(),
            offset: 0,
        })
    }
}

impl Writer {
    pub(super) async fn fill(&mut self, vault: &Arc<Vault>, chunk: &mut Bytes) -> Result<(), Error> {
        // A full extent is stored only when more arrives: the footer rides with the last one.
        if self.filling.as_ref().is_some_and(|(buffer, _)| buffer.is_full()) {
            self.store_full_extent(vault).await?;
        }
        let filled = self
            .filling
            .as_ref()
            .map_or(0, |(buffer, _)| buffer.plaintext_len());
        // Nobody knows yet whether a caller that has sent little will ever send more.
        let needed = if filled + chunk.len() as u64 <= BEGINNING {
            budget::SMALL
        } else {
            extent_room(self.extent)
        };
        let (buffer, room) = match self.filling.take() {
            Some((buffer, room)) if room.is_small() && needed > budget::SMALL => {
                // Given back once the larger one is there: until then it holds what has come.
                let larger = vault.budget.reserve_for(&self.making.tenant, needed).await?;
                drop(room);
                (buffer, larger)
            }
            Some(filling) => filling,
            None => {
                let room = vault.budget.reserve_for(&self.making.tenant, needed).await?;
                (ExtentBuffer::new(self.extent, FOOTER_ROOM), room)
            }
        };
        let (buffer, _) = self.filling.insert((buffer, room));
        buffer.fill(chunk);
        Ok(())
    }

    async fn store_full_extent(&mut self, vault: &Arc<Vault>) -> Result<(), Error> {
        let Some((buffer, room)) = self.filling.take() else {
            return Ok(());
        };
        let upload = self.upload.begin().await?;
        if self.in_flight.0.len() >= PARTS_IN_FLIGHT {
            self.collect_oldest().await?;
        }
        let number = self.extent + 1;
        let offset = self.offset;
        self.offset += stream::ciphertext_len(buffer.plaintext_len());
        let seal = vault.sealer(&self.making, self.extent, buffer);
        let tenant = self.making.tenant.clone();
        let (vault, key) = (Arc::clone(vault), self.making.object_key.clone());
        self.in_flight.0.push_back(tokio::spawn(async move {
            let sealed = in_turn(&vault, &tenant, seal).await?;
            let receipt = vault
                .store
                .put_part(&key, &upload, number, offset, sealed.bytes.freeze())
                .await?;
            // Not when it is collected: the upload may be waiting for this very room to fill its next part.
            drop(room);
            Ok(StoredPart {
                receipt,
                tags_digest: sealed.tags_digest,
            })
        }));
        self.extent += 1;
        Ok(())
    }

    async fn collect_oldest(&mut self) -> Result<(), Error> {
        let Some(oldest) = self.in_flight.0.pop_front() else {
            return Ok(());
        };
        let part = oldest
            .await
            .map_err(|e| Error::new(Kind::Internal, "TASK", "a part was lost").because(e))??;
        self.digest.update(&part.tags_digest);
        self.receipts.push(part.receipt);
        Ok(())
    }

    pub(super) async fn finish(
        mut self,
        vault: &Arc<Vault>,
        spec: &PutSpec,
        plaintext_length: u64,
        asked: Option<Asked>,
    ) -> Result<Record, Error> {
        let Some((buffer, room)) = self.filling.take() else {
            return Err(empty());
        };
        let seal = vault.sealer(&self.making, self.extent, buffer);
        let last = in_turn(vault, &self.making.tenant, seal).await?;
        while !self.in_flight.0.is_empty() {
            self.collect_oldest().await?;
        }
        self.digest.update(&last.tags_digest);
        let descriptor = &spec.draft.descriptor;
        let footer = vault.footer(
            &self.making,
            descriptor,
            plaintext_length,
            asked.map(|asked| asked.tag(&self.making.fingerprint_key)),
            self.digest.finish(),
        )?;
        let encoded = footer.encode()?;
        let mut body = last.bytes;
        body.extend_from_slice(&encoded.bytes);
        let object_length = self.offset + body.len() as u64;
        let version = self
            .upload
            .finish(self.extent + 1, self.offset, body.freeze(), self.receipts)
            .await?;
        drop(room);
        let blob = BlobName {
            object_key: self.making.object_key.to_string(),
            object_version: version.0,
            footer_sha256: encoded.sha256,
        };
        let descriptor = &spec.draft.descriptor;
        let entry = Fresh {
            index: 0,
            descriptor,
            actor: &spec.actor,
        };
        let indexed = Blob {
            footer: &footer,
            name: &blob,
            length: object_length,
        };
        let mut outcomes = vault.index_entries(&indexed, Told::ByPut, vec![entry]).await;
        match outcome_of(&mut outcomes, 0) {
            Ok(()) => Ok(fresh_record(&footer, 0, descriptor.clone())),
            Err(error) => {
                // Nothing points at the blob and nothing may: a rebuild would adopt it.
                if error.kind == Kind::AlreadyExists {
                    let _ = vault.store.delete(&self.making.object_key).await;
                }
                Err(error)
            }
        }
    }
}

/// Bytes that an extent takes when it is full, and the footer behind it.
fn extent_room(extent: u32) -> u64 {
    u64::from(stream::extent_segments(extent)) * stream::SEGMENT_LEN as u64 + FOOTER_ROOM as u64
}

/// Runs CPU-bound work of a tenant, when it is its turn, where it holds up nobody's I/O.
pub(in crate::vault) async fn in_turn<T: Send + 'static>(
    vault: &Vault,
    tenant: &TenantId,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let _turn = vault.turn(tenant).await?;
    off_the_async_threads(work).await
}

/// Runs work that blocks where it holds up nobody's I/O.
pub(in crate::vault) async fn off_the_async_threads<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::new(Kind::Internal, "TASK", "the work was interrupted").because(e))?
}
