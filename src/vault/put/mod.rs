//! A recording goes in: sealed in place as it arrives, stored, indexed, acknowledged.
//!
//! ```text
//! spec -> tenant, class, request id, external id -> slot, DEK
//! chunks -> extent (room reserved) -> full: sealed and stored beside the receiving
//! end -> last extent + footer -> complete -> index transaction with the put leaf -> ack
//! ```
//!
//! What is dropped or fails before the end leaves nothing: the multipart upload is aborted, the DEK forgotten.

mod claim;
mod index;
mod received;
mod upload;
mod writer;

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;

use crate::{
    crypto::blind,
    domain::{
        ids::{RequestId, TenantId},
        limits, media,
        purpose::Purpose,
        record::{Descriptor, Kind as RecordKind, Party, Record, State},
        tenant::TenantSettings,
        text::MediaType,
    },
    index::{Change, Key},
};

use super::{
    Error, Kind, Vault, descriptor,
    record::Name,
    requests::{Answered, Asked, request_reused},
    terms,
};

pub(super) use claim::{Claim, UnderWay};
pub(super) use index::{Blob, Fresh, Outcomes, Told, fresh_record, outcome_of};
use received::Received;
pub(super) use upload::Upload;
use writer::Writer;
pub(super) use writer::{FOOTER_ROOM, in_turn, off_the_async_threads};

/// What an uploader says of a recording, before defaults.
#[derive(Clone, Debug)]
pub struct Draft {
    /// All that was said. `media_type`, `retention_class` and `allowed_purposes` hold what stands for "not said" below.
    pub descriptor: Descriptor,
    /// Whether the media type was said; otherwise it is sniffed.
    pub has_media_type: bool,
    /// Whether the retention class was said; otherwise it is the tenant's default.
    pub has_retention_class: bool,
}

/// What begins an upload.
#[derive(Clone, Debug)]
pub struct PutSpec {
    /// Whose.
    pub tenant: TenantId,
    /// Alias of the uploader.
    pub actor: String,
    /// What it is.
    pub draft: Draft,
    /// Makes the call idempotent.
    pub request: Option<RequestId>,
    /// Refuse unless it has exactly this many bytes.
    pub expected_size: Option<u64>,
    /// Refuse unless its SHA-256 is this.
    pub expected_sha256: Option<[u8; 32]>,
}

/// What was known only at the end.
#[derive(Clone, Debug, Default)]
pub struct Closing {
    /// Replaces the duration, milliseconds.
    pub duration_millis: Option<i64>,
    /// Replaces the parties when there are any.
    pub parties: Vec<Party>,
}

/// An upload under way. Dropping it aborts it.
pub struct Put {
    vault: Arc<Vault>,
    spec: PutSpec,
    /// The spec's descriptor before defaults, which may change between two tries of one request.
    said: Vec<u8>,
    received: Received,
    mode: Mode,
    /// Frees the request id and the external id for others.
    _claim: Claim,
}

enum Mode {
    /// A retry of a request that was answered: what arrives is only compared.
    Repeat(Answered),
    Store(Box<Writer>),
}

impl Vault {
    /// Begins an upload: everything that can be refused without content is refused here.
    ///
    /// # Errors
    /// [`Kind::NotFound`] for a tenant that is not; [`Kind::Invalid`] names a field; [`Kind::AlreadyExists`] for an external id
    /// that is taken; [`Kind::Conflict`] if an upload with the same request id or external id is under way;
    /// [`Kind::Unavailable`] while the bucket takes no leaves and [`limits::QUEUED_LEAVES`] wait.
    pub async fn begin_put(self: &Arc<Self>, mut spec: PutSpec) -> Result<Put, Error> {
        let turn = self.turn(&spec.tenant).await?;
        let (row, _) = self.active_tenant(&spec.tenant).await?;
        let keys = self.keys.tenant(&spec.tenant).await?;
        let mac = spec
            .request
            .as_ref()
            .map(|r| blind::request_mac(keys.request_key(), &spec.tenant, r));
        let external = spec
            .draft
            .descriptor
            .external_id
            .as_ref()
            .map(|id| terms::external(keys.index_key(), id));
        let claim = self.under_way.claim([mac, external].into_iter().flatten())?;
        let received = Received::new(&spec);
        let said = descriptor::to_proto(&spec.draft.descriptor).encode_to_vec();
        if let Some(mac) = mac
            && let Some(answered) = self.answered(&spec.tenant, &mac).await?
        {
            return Ok(Put {
                vault: Arc::clone(self),
                spec,
                said,
                received,
                mode: Mode::Repeat(answered),
                _claim: claim,
            });
        }
        self.ledger.keeps_up().await?;
        let settings = self.open_tenant(&spec.tenant, &row).await?.settings;
        resolve_defaults(&mut spec.draft, &settings)?;
        let descriptor = &spec.draft.descriptor;
        self.require_class(
            &spec.tenant,
            &descriptor.retention_class,
            "descriptor.retention_class",
        )
        .await?;
        if let Some(external) = external
            && self
                .index
                .get(&Key::External(spec.tenant.clone(), external))
                .await?
                .is_some()
        {
            return Err(external_id_taken());
        }
        let kind = self.kind_of(&spec).await?;
        drop(turn);
        let writer = self.writer(&spec, kind).await?;
        Ok(Put {
            vault: Arc::clone(self),
            spec,
            said,
            received,
            mode: Mode::Store(Box::new(writer)),
            _claim: claim,
        })
    }

    /// What is derived from another record is an artifact, and its source must be there.
    pub(super) async fn kind_of(&self, spec: &PutSpec) -> Result<RecordKind, Error> {
        let Some(source) = spec.draft.descriptor.derived_from else {
            return Ok(RecordKind::Recording);
        };
        match self.locate(&spec.tenant, &Name::Id(source)).await? {
            Some(source) if source.state != State::PendingShred => Ok(RecordKind::Artifact),
            _ => Err(no_source()),
        }
    }
}

impl Put {
    /// Takes content, in order. Waits for room and for the store: this is where a sender is slowed down.
    ///
    /// Not cancel safe: drop the upload if a call is dropped.
    ///
    /// # Errors
    /// [`Kind::Invalid`] beyond a limit; [`Kind::Exhausted`] without room; what the store answered. The upload is over then.
    pub async fn write(&mut self, mut chunk: Bytes) -> Result<(), Error> {
        self.received.take(&chunk);
        let most = self.spec.expected_size.unwrap_or(limits::RECORDING_BYTES);
        if self.received.bytes > most.min(limits::RECORDING_BYTES) {
            let message = format!("the content is longer than it may be limit={most} bytes");
            return Err(Error {
                field: Some("chunk".into()),
                ..Error::new(Kind::Invalid, "CONTENT_TOO_LONG", message)
            });
        }
        match &mut self.mode {
            Mode::Repeat(_) => Ok(()),
            Mode::Store(writer) => {
                while !chunk.is_empty() {
                    writer.fill(&self.vault, &mut chunk).await?;
                }
                Ok(())
            }
        }
    }

    /// Ends the upload and returns the record when it is durable in store and index.
    ///
    /// Not cancel safe: if the call is dropped the record may or may not exist; a retry with the same request id finds out.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for empty or unexpected content; what store or index answered: nothing is visible then.
    pub async fn finish(mut self, closing: Closing) -> Result<Record, Error> {
        self.received.check(&self.spec)?;
        let keys = self.vault.keys.tenant(&self.spec.tenant).await?;
        let crc = self.received.crc.unwrap_or(0);
        let asked = self.spec.request.as_ref().map(|r| {
            let what = asked_for(&self.said, &closing, self.received.bytes, crc);
            Asked::new(&keys, &self.spec.tenant, r, what)
        });
        match self.mode {
            Mode::Repeat(answered) => {
                let asked = asked.ok_or_else(request_reused)?;
                let record = repeat(&self.vault, &self.spec.tenant, &asked, &answered).await?;
                if record.kind == RecordKind::Message {
                    return Err(request_reused());
                }
                Ok(record)
            }
            Mode::Store(writer) => {
                let mut descriptor = self.spec.draft.descriptor;
                if !self.spec.draft.has_media_type {
                    descriptor.media_type = sniffed(&self.received.start)?;
                }
                let descriptor = closed(descriptor, closing)?;
                self.spec.draft.descriptor = descriptor;
                writer
                    .finish(&self.vault, &self.spec, self.received.bytes, asked)
                    .await
            }
        }
    }
}

/// What was not said, from the tenant's settings.
pub(super) fn resolve_defaults(draft: &mut Draft, settings: &TenantSettings) -> Result<(), Error> {
    if !draft.has_retention_class {
        let class = settings.default_retention_class.clone();
        draft.descriptor.retention_class = class.ok_or_else(|| {
            Error::invalid(
                "descriptor.retention_class",
                "is required: the tenant has no default",
            )
        })?;
    }
    if draft.descriptor.allowed_purposes.is_empty() {
        draft.descriptor.allowed_purposes = if settings.allowed_purposes.is_empty() {
            Purpose::defaults().collect()
        } else {
            settings.allowed_purposes.clone()
        };
    }
    Ok(())
}

/// The record of a request that was answered before, if it asked for the same.
pub(super) async fn repeat(
    vault: &Arc<Vault>,
    tenant: &TenantId,
    asked: &Asked,
    answered: &Answered,
) -> Result<Record, Error> {
    // What was only read may not be durable yet: an empty change waits until it is.
    vault.index.commit(Change::default()).await?;
    vault.answer_again(tenant, asked, answered).await
}

/// What a request asked for, as bytes that are the same for the same request: `length` and CRC-32C of the content, the closing,
/// and the descriptor as it was said.
pub(super) fn asked_for(said: &[u8], closing: &Closing, length: u64, crc: u32) -> Vec<u8> {
    let mut asked = length.to_be_bytes().to_vec();
    asked.extend_from_slice(&crc.to_be_bytes());
    asked.extend_from_slice(&closing.duration_millis.unwrap_or(-1).to_be_bytes());
    let parties = closing.parties.iter().map(descriptor::party_to_proto).collect();
    let closing = crate::proto::storage::Descriptor {
        parties,
        ..Default::default()
    }
    .encode_to_vec();
    asked.extend_from_slice(&(closing.len() as u64).to_be_bytes());
    asked.extend_from_slice(&closing);
    asked.extend_from_slice(said);
    asked
}

pub(super) fn closed(mut descriptor: Descriptor, closing: Closing) -> Result<Descriptor, Error> {
    if closing.duration_millis.is_some() {
        descriptor.duration_millis = closing.duration_millis;
    }
    if !closing.parties.is_empty() {
        descriptor.parties = closing.parties;
    }
    match descriptor.exceeded_limit() {
        None => Ok(descriptor),
        Some((field, rule)) => Err(Error::invalid(format!("closing.{field}"), rule)),
    }
}

pub(super) fn sniffed(start: &[u8]) -> Result<MediaType, Error> {
    media::sniff(start).map_err(|e| Error::new(Kind::Internal, "SNIFF", "media type").because(e))
}

impl std::fmt::Debug for Put {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Put")
            .field("received", &self.received.bytes)
            .finish_non_exhaustive()
    }
}

pub(super) fn empty() -> Error {
    Error {
        field: Some("chunk".into()),
        ..Error::new(
            Kind::Invalid,
            "CONTENT_EMPTY",
            "a recording has at least one byte",
        )
    }
}

pub(super) fn external_id_taken() -> Error {
    Error {
        field: Some("descriptor.external_id".into()),
        ..Error::new(
            Kind::AlreadyExists,
            "EXTERNAL_ID_EXISTS",
            "the tenant has a record with this external_id; read it by that name",
        )
    }
}

pub(super) fn no_source() -> Error {
    Error::invalid("descriptor.derived_from", "must name a record of the tenant")
}
