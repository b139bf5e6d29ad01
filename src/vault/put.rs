//! A recording goes in: sealed in place as it arrives, stored, indexed, acknowledged.
//!
//! ```text
//! spec -> tenant, class, request id, external id -> slot, DEK
//! chunks -> extent (room reserved) -> full: sealed and stored beside the receiving
//! end -> last extent + footer -> complete -> index transaction with the put leaf -> ack
//! ```
//!
//! What is dropped or fails before the end leaves nothing: the multipart upload is aborted, the DEK forgotten.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use prost::Message;
use ring::digest;
use tokio::task::JoinHandle;

use crate::{
    blob::{
        format::{self, Entry, Footer, Request},
        store::{BlobStore, ObjectKey, ObjectVersion, PartReceipt, StoreError, UploadId},
    },
    crypto::{
        aead, context,
        kdf::DekKeys,
        secret::Dek,
        stream::{self, ExtentBuffer, SealedExtent, TagsDigest},
    },
    domain::{
        clock::{Rng, Timestamp},
        ids::{PageId, RecordId, RequestId, RetentionClassId, TenantId},
        limits, media,
        purpose::Purpose,
        record::{Descriptor, Kind as RecordKind, Party, Record},
        text::MediaType,
    },
    index::{Change, Expect, IndexError, Key, Scope},
    ledger::{
        leaf,
        outbox::{LedgerError, Until},
    },
    proto::storage::{ExternalRow, RecordsPut, state_leaf::Body},
};

use super::{
    Error, Kind, Vault,
    budget::Reservation,
    descriptor,
    record::{BlobName, Name, entry_place, record_row},
    tenant::tag_request,
    terms::{self, Terms},
};

/// Parts that may be on their way to the store while the next one is filled.
const PARTS_IN_FLIGHT: usize = 2;
/// Room kept behind the last extent for the footer; a longer one costs a copy.
const FOOTER_ROOM: usize = 64 << 10;

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
    Repeat(RecordId),
    Store(Box<Writer>),
}

/// What arrived, in numbers.
struct Received {
    bytes: u64,
    /// CRC-32C of the content, for the fingerprint of a request that has an id.
    crc: Option<u32>,
    sha256: Option<digest::Context>,
    start: Vec<u8>,
}

struct Writer {
    record: RecordId,
    kind: RecordKind,
    created: Timestamp,
    page: PageId,
    slot: u16,
    wrapped_dek: Bytes,
    commitment: [u8; 32],
    keys: Arc<DekKeys>,
    object_key: ObjectKey,
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
    /// Begins an upload: everything that can be refused without content is refused here.
    ///
    /// # Errors
    /// [`Kind::NotFound`] for a tenant that is not; [`Kind::Invalid`] names a field; [`Kind::AlreadyExists`] for an external id
    /// that is taken; [`Kind::Conflict`] if an upload with the same request id or external id is under way.
    pub async fn begin_put(self: &Arc<Self>, mut spec: PutSpec) -> Result<Put, Error> {
        let (row, _) = self.active_tenant(&spec.tenant).await?;
        let keys = self.keys.tenant(&spec.tenant).await?;
        let tag = spec
            .request
            .as_ref()
            .map(|r| tag_request(&keys, &spec.tenant, r, &[]).mac);
        let external = spec
            .draft
            .descriptor
            .external_id
            .as_ref()
            .map(|id| terms::external(keys.index_key(), id));
        let claim = self.under_way.claim([tag, external].into_iter().flatten())?;
        let received = Received::new(&spec);
        let said = descriptor::to_proto(&spec.draft.descriptor).encode_to_vec();
        if let Some(mac) = tag
            && let Some(record) = self.record_of_request(&spec.tenant, mac).await?
        {
            return Ok(Put {
                vault: Arc::clone(self),
                spec,
                said,
                received,
                mode: Mode::Repeat(record),
                _claim: claim,
            });
        }
        let settings = self.open_tenant(&spec.tenant, &row).await?.settings;
        self.resolve_defaults(
            &mut spec,
            settings.default_retention_class,
            &settings.allowed_purposes,
        )?;
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

    /// The record that a request id has made, if it has not expired.
    async fn record_of_request(&self, tenant: &TenantId, mac: [u8; 32]) -> Result<Option<RecordId>, Error> {
        let key = Key::Request(tenant.clone(), mac);
        let Some(value) = self.index.get(&key).await? else {
            return Ok(None);
        };
        let row: crate::proto::storage::RequestRow = self.rows.open(&key, &value)?;
        if row.expires_micros <= self.clock.now().micros() {
            return Ok(None);
        }
        if row.record_id.is_empty() {
            return Err(request_reused());
        }
        RecordId::from_slice(&row.record_id)
            .map(Some)
            .map_err(|_| Error::corrupt("index row"))
    }

    fn resolve_defaults(
        &self,
        spec: &mut PutSpec,
        class: Option<RetentionClassId>,
        purposes: &std::collections::BTreeSet<Purpose>,
    ) -> Result<(), Error> {
        if !spec.draft.has_retention_class {
            spec.draft.descriptor.retention_class = class.ok_or_else(|| {
                Error::invalid(
                    "descriptor.retention_class",
                    "is required: the tenant has no default",
                )
            })?;
        }
        if spec.draft.descriptor.allowed_purposes.is_empty() {
            spec.draft.descriptor.allowed_purposes = if purposes.is_empty() {
                Purpose::defaults().collect()
            } else {
                purposes.clone()
            };
        }
        Ok(())
    }

    /// What is derived from another record is an artifact, and its source must be there.
    async fn kind_of(&self, spec: &PutSpec) -> Result<RecordKind, Error> {
        let Some(source) = spec.draft.descriptor.derived_from else {
            return Ok(RecordKind::Recording);
        };
        match self.locate(&spec.tenant, &Name::Id(source)).await? {
            Some(_) => Ok(RecordKind::Artifact),
            None => Err(Error::invalid(
                "descriptor.derived_from",
                "must name a record of the tenant",
            )),
        }
    }

    async fn writer(&self, spec: &PutSpec, kind: RecordKind) -> Result<Writer, Error> {
        let created = self.clock.now();
        let record = RecordId::mint(created, &*self.rng)?;
        let class = &spec.draft.descriptor.retention_class;
        let slot = self
            .keys
            .fresh_slot(&spec.tenant, Some(class), created.year_month())
            .await?;
        let dek = Dek::generate(&*self.rng)?;
        let aad = context::wrapped_dek(
            &self.realm.vault,
            &spec.tenant,
            &slot.page,
            slot.slot,
            record.as_bytes(),
        );
        let object_key = ObjectKey::parse(&format::object_key(&spec.tenant, created, &record))?;
        Ok(Writer {
            record,
            kind,
            created,
            page: slot.page,
            slot: slot.slot,
            wrapped_dek: aead::wrap(&slot.key, dek.expose(), &aad, &*self.rng)?.into(),
            commitment: dek.commitment(),
            keys: Arc::new(DekKeys::derive(&dek)),
            upload: Upload {
                store: Arc::clone(&self.store),
                key: object_key.clone(),
                id: None,
            },
            object_key,
            extent: 0,
            filling: None,
            in_flight: InFlight::default(),
            digest: TagsDigest::new(),
            receipts: Vec::new(),
            offset: 0,
        })
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
                    writer.fill(&self.vault, &self.spec.tenant, &mut chunk).await?;
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
        let asked = asked_for(&self.said, &closing, &self.received);
        let tag = self
            .spec
            .request
            .as_ref()
            .map(|r| tag_request(&keys, &self.spec.tenant, r, &asked));
        match self.mode {
            Mode::Repeat(record) => repeat(&self.vault, &self.spec.tenant, tag, record).await,
            Mode::Store(writer) => {
                let mut descriptor = self.spec.draft.descriptor;
                if !self.spec.draft.has_media_type {
                    descriptor.media_type = sniffed(&self.received.start)?;
                }
                let descriptor = closed(descriptor, closing)?;
                self.spec.draft.descriptor = descriptor;
                writer
                    .finish(&self.vault, &self.spec, self.received.bytes, tag)
                    .await
            }
        }
    }
}

impl Writer {
    async fn fill(&mut self, vault: &Arc<Vault>, tenant: &TenantId, chunk: &mut Bytes) -> Result<(), Error> {
        // A full extent is stored only when more arrives: the footer rides with the last one.
        if self.filling.as_ref().is_some_and(|(buffer, _)| buffer.is_full()) {
            self.store_full_extent(vault, tenant).await?;
        }
        if self.filling.is_none() {
            let room = u64::from(stream::extent_segments(self.extent)) * stream::SEGMENT_LEN as u64;
            let reservation = vault.budget.reserve(room + FOOTER_ROOM as u64).await?;
            self.filling = Some((ExtentBuffer::new(self.extent, FOOTER_ROOM), reservation));
        }
        if let Some((buffer, _)) = &mut self.filling {
            buffer.fill(chunk);
        }
        Ok(())
    }

    async fn store_full_extent(&mut self, vault: &Arc<Vault>, tenant: &TenantId) -> Result<(), Error> {
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
        let seal = self.sealer(vault, tenant, buffer);
        let (store, key) = (Arc::clone(&vault.store), self.object_key.clone());
        self.in_flight.0.push_back(tokio::spawn(async move {
            let sealed = off_the_async_threads(seal).await?;
            let receipt = store
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

    /// Seals the extent being filled, as work for another thread.
    fn sealer(
        &self,
        vault: &Arc<Vault>,
        tenant: &TenantId,
        buffer: ExtentBuffer,
    ) -> impl FnOnce() -> Result<SealedExtent, Error> + Send + 'static {
        let aad = context::extent(
            tenant,
            &self.record,
            self.kind.number(),
            &vault.realm.region,
            self.extent,
        );
        let (keys, rng): (_, Arc<dyn Rng>) = (Arc::clone(&self.keys), Arc::clone(&vault.rng));
        move || Ok(buffer.seal(&keys.content, &aad, &*rng)?)
    }

    async fn finish(
        mut self,
        vault: &Arc<Vault>,
        spec: &PutSpec,
        plaintext_length: u64,
        tag: Option<Request>,
    ) -> Result<Record, Error> {
        let Some((buffer, room)) = self.filling.take() else {
            return Err(empty());
        };
        let last = off_the_async_threads(self.sealer(vault, &spec.tenant, buffer)).await?;
        while !self.in_flight.0.is_empty() {
            self.collect_oldest().await?;
        }
        self.digest.update(&last.tags_digest);
        let footer = self.footer(vault, spec, plaintext_length, tag)?;
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
            object_key: self.object_key.to_string(),
            object_version: version.0,
            footer_sha256: encoded.sha256,
        };
        let descriptor = &spec.draft.descriptor;
        match vault
            .index_put(
                &spec.actor,
                &footer,
                &blob,
                object_length,
                std::slice::from_ref(descriptor),
                false,
            )
            .await
        {
            Ok(()) => Ok(vault.parse_fresh(&footer, &blob, descriptor.clone())),
            Err(error) => {
                // Nothing points at the blob and nothing may: a rebuild would adopt it.
                if error.kind == Kind::AlreadyExists {
                    let _ = vault.store.delete(&self.object_key).await;
                }
                Err(error)
            }
        }
    }

    fn footer(
        &self,
        vault: &Vault,
        spec: &PutSpec,
        plaintext_length: u64,
        request: Option<Request>,
    ) -> Result<Footer, Error> {
        let entry = Entry {
            record: self.record,
            kind: self.kind,
            plaintext_length,
            page: self.page,
            slot: self.slot,
            wrapped_dek: self.wrapped_dek.clone(),
            commitment: self.commitment,
            request,
            sealed_descriptor: Bytes::new(),
            tags_digest: self.digest.clone().finish(),
        };
        let mut footer = Footer {
            vault: vault.realm.vault,
            region: vault.realm.region.clone(),
            tenant: spec.tenant.clone(),
            node: vault.node,
            created: self.created,
            entries: vec![entry],
        };
        let binding = descriptor::binding(footer.node, &footer.entries[0]);
        let sealed = entry_place(&footer, &footer.entries[0], 0, self.object_key.as_str(), &binding).seal(
            &self.keys.descriptor,
            &spec.draft.descriptor,
            &*vault.rng,
        )?;
        footer.entries[0].sealed_descriptor = sealed;
        Ok(footer)
    }
}

impl Vault {
    /// Makes the records of a blob known: rows and put leaf in one transaction (rows beyond its limit go before it, and mean
    /// nothing until it).
    pub(super) async fn index_put(
        &self,
        actor: &str,
        footer: &Footer,
        blob: &BlobName,
        object_length: u64,
        descriptors: &[Descriptor],
        adopted: bool,
    ) -> Result<(), Error> {
        let put = RecordsPut {
            record_ids: footer
                .entries
                .iter()
                .map(|e| e.record.as_bytes().to_vec().into())
                .collect(),
            object_key: blob.object_key.clone(),
            object_version: blob.object_version.clone(),
            footer_sha256: blob.footer_sha256.to_vec().into(),
            object_length,
            adopted,
        };
        let leaf = leaf::draft(Scope::Fact, actor, self.clock.now(), Body::RecordsPut(put));
        // Another upload may mint a number for the same identifier meanwhile: look again.
        for _ in 0..16 {
            let mut change = self.put_rows(footer, blob, descriptors).await?;
            change.leaves.push(leaf.clone());
            match self.commit_long(change, Until::Queued).await {
                Err(LedgerError::Index(IndexError::Expectation(_))) => {
                    self.refuse_taken(footer, descriptors).await?;
                }
                other => return Ok(other.map(|_| ())?),
            }
        }
        Err(IndexError::Expectation(0).into())
    }

    /// The rows of a blob's records, and what must hold for them.
    pub(super) async fn put_rows(
        &self,
        footer: &Footer,
        blob: &BlobName,
        descriptors: &[Descriptor],
    ) -> Result<Change, Error> {
        let keys = self.keys.tenant(&footer.tenant).await?;
        let tenant = &footer.tenant;
        let mut change = Change::default();
        for (index, (entry, descriptor)) in footer.entries.iter().zip(descriptors).enumerate() {
            let terms = Terms::of(keys.index_key(), descriptor);
            let numbers =
                terms::numbers(&*self.index, &self.rows, &*self.rng, tenant, &terms.numbered()).await?;
            change.expect.extend(numbers.expectations());
            let found_by = terms.keys(tenant, &entry.record, &numbers);
            change.put.extend(numbers.minted);
            change
                .put
                .extend(found_by.into_iter().map(|key| crate::index::Row {
                    key,
                    value: Vec::new(),
                }));
            if let Some(external) = terms.external {
                let key = Key::External(tenant.clone(), external);
                change.expect.push(Expect::Absent(key.clone()));
                let row = ExternalRow {
                    record_id: entry.record.as_bytes().to_vec().into(),
                };
                change.put.push(self.rows.row(key, &row));
            }
            if let Some(request) = &entry.request {
                self.remember_request(&mut change, tenant, request, Some(&entry.record), footer.created)
                    .await?;
            }
            let key = Key::Record(tenant.clone(), entry.record);
            change.expect.push(Expect::Absent(key.clone()));
            change
                .put
                .push(self.rows.row(key, &record_row(footer, index, blob, descriptor)));
        }
        Ok(change)
    }

    /// Commits a change of any length: the rows that fit into no transaction go before it.
    pub(super) async fn commit_long(
        &self,
        mut change: Change,
        until: Until,
    ) -> Result<Vec<crate::index::LeafReceipt>, LedgerError> {
        let most = limits::TRANSACTION_ROWS / 2;
        while change.put.len() + change.delete.len() > most {
            let mut before = Change::default();
            // Only rows that lead nowhere until the rest is there: the record's own rows stay.
            let (early, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut change.put)
                .into_iter()
                .partition(|row| matches!(row.key, Key::BySubject(..) | Key::Identifier(..)));
            change.put = rest;
            let mut early = early.into_iter();
            before.put = early.by_ref().take(most).collect();
            change.put.extend(early);
            if before.put.is_empty() {
                break;
            }
            let (now, later): (Vec<_>, Vec<_>) = std::mem::take(&mut change.expect).into_iter().partition(
                |e| matches!(e, Expect::Absent(key) if before.put.iter().any(|row| row.key == *key)),
            );
            before.expect = now;
            change.expect = later;
            self.index.commit(before).await?;
        }
        self.ledger.commit(change, until).await
    }

    /// Tells an external id or record that is taken from a race that is worth another try.
    async fn refuse_taken(&self, footer: &Footer, descriptors: &[Descriptor]) -> Result<(), Error> {
        let keys = self.keys.tenant(&footer.tenant).await?;
        for (entry, descriptor) in footer.entries.iter().zip(descriptors) {
            if let Some(id) = &descriptor.external_id {
                let key = Key::External(footer.tenant.clone(), terms::external(keys.index_key(), id));
                if self.index.get(&key).await?.is_some() {
                    return Err(external_id_taken());
                }
            }
            let key = Key::Record(footer.tenant.clone(), entry.record);
            if self.index.get(&key).await?.is_some() {
                return Err(Error::new(
                    Kind::AlreadyExists,
                    "RECORD_EXISTS",
                    "the record is indexed already",
                ));
            }
        }
        Ok(())
    }

    fn parse_fresh(&self, footer: &Footer, blob: &BlobName, descriptor: Descriptor) -> Record {
        let row = record_row(footer, 0, blob, &descriptor);
        let entry = &footer.entries[0];
        Record {
            tenant: footer.tenant.clone(),
            id: entry.record,
            kind: entry.kind,
            state: descriptor.resting_state(),
            descriptor,
            version: 1,
            created: footer.created,
            updated: Timestamp(row.updated_micros),
            size: entry.plaintext_length,
            region: footer.region.clone(),
        }
    }
}

async fn repeat(
    vault: &Arc<Vault>,
    tenant: &TenantId,
    tag: Option<Request>,
    record: RecordId,
) -> Result<Record, Error> {
    let tag = tag.ok_or_else(request_reused)?;
    vault.seen(tenant, &tag).await?;
    // What was only read may not be durable yet: an empty change waits until it is.
    vault.index.commit(Change::default()).await?;
    let located = vault.locate(tenant, &Name::Id(record)).await?;
    let located = located.ok_or_else(|| Error::new(Kind::Shredded, "SHREDDED", "the record was shredded"))?;
    Ok(vault.open_record(&located).await?.0)
}

/// What a request asked for, as bytes that are the same for the same request.
fn asked_for(said: &[u8], closing: &Closing, received: &Received) -> Vec<u8> {
    let mut asked = received.bytes.to_be_bytes().to_vec();
    asked.extend_from_slice(&received.crc.unwrap_or(0).to_be_bytes());
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

fn closed(mut descriptor: Descriptor, closing: Closing) -> Result<Descriptor, Error> {
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

fn sniffed(start: &[u8]) -> Result<MediaType, Error> {
    media::sniff(start).map_err(|e| Error::new(Kind::Internal, "SNIFF", "media type").because(e))
}

impl Received {
    fn new(spec: &PutSpec) -> Self {
        Self {
            bytes: 0,
            crc: spec.request.as_ref().map(|_| 0),
            sha256: spec
                .expected_sha256
                .map(|_| digest::Context::new(&digest::SHA256)),
            start: Vec::new(),
        }
    }

    fn take(&mut self, chunk: &[u8]) {
        self.bytes += chunk.len() as u64;
        self.crc = self.crc.map(|crc| crc32c::crc32c_append(crc, chunk));
        if let Some(sha256) = &mut self.sha256 {
            sha256.update(chunk);
        }
        if self.start.len() < media::SNIFF_LEN {
            let missing = (media::SNIFF_LEN - self.start.len()).min(chunk.len());
            self.start.extend_from_slice(&chunk[..missing]);
        }
    }

    fn check(&mut self, spec: &PutSpec) -> Result<(), Error> {
        if self.bytes == 0 {
            return Err(empty());
        }
        if spec.expected_size.is_some_and(|size| size != self.bytes) {
            return Err(Error {
                field: Some("spec.expected_size_bytes".into()),
                ..Error::new(
                    Kind::Invalid,
                    "SIZE_MISMATCH",
                    "the content has another length; nothing was kept",
                )
            });
        }
        if let (Some(expected), Some(sha256)) = (spec.expected_sha256, self.sha256.take())
            && sha256.finish().as_ref() != expected
        {
            return Err(Error {
                field: Some("spec.expected_sha256".into()),
                ..Error::new(
                    Kind::Invalid,
                    "SHA256_MISMATCH",
                    "the content has another SHA-256; nothing was kept",
                )
            });
        }
        Ok(())
    }
}

/// A multipart upload that is aborted unless it is finished.
struct Upload {
    store: Arc<dyn BlobStore>,
    key: ObjectKey,
    id: Option<UploadId>,
}

impl Upload {
    async fn begin(&mut self) -> Result<UploadId, Error> {
        match &self.id {
            Some(id) => Ok(id.clone()),
            None => Ok(self.id.insert(self.store.begin(&self.key).await?).clone()),
        }
    }

    /// Stores the last part, or the only one, and makes the object visible.
    async fn finish(
        &mut self,
        number: u32,
        offset: u64,
        body: Bytes,
        mut receipts: Vec<PartReceipt>,
    ) -> Result<ObjectVersion, Error> {
        let length = offset + body.len() as u64;
        let done = match &self.id {
            None => self.store.put(&self.key, body).await,
            Some(id) => {
                receipts.push(self.store.put_part(&self.key, id, number, offset, body).await?);
                self.store.complete(&self.key, id, &receipts).await
            }
        };
        match done {
            Ok(version) => {
                self.id = None;
                Ok(version)
            }
            Err(error) => self.settle(error, length).await,
        }
    }

    /// The answer may have been lost on the way: the key is ours alone, so an object of the right length is what was written.
    async fn settle(&mut self, error: StoreError, length: u64) -> Result<ObjectVersion, Error> {
        match self.store.head(&self.key).await {
            Ok(info) if info.length == length => {
                self.id = None;
                Ok(ObjectVersion::default())
            }
            _ => Err(error.into()),
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let Some(id) = self.id.take() else { return };
        let (store, key) = (Arc::clone(&self.store), self.key.clone());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = store.abort(&key, &id).await {
                    tracing::warn!(%error, "upload not aborted; the store's lifecycle rule removes it");
                }
            });
        }
    }
}

/// Request ids and external ids of uploads under way: the second of two at once is told to wait.
#[derive(Clone, Debug, Default)]
pub(super) struct UnderWay(Arc<Mutex<HashSet<[u8; 32]>>>);

impl UnderWay {
    fn claim(&self, ids: impl Iterator<Item = [u8; 32]>) -> Result<Claim, Error> {
        let mut claim = Claim {
            under_way: self.clone(),
            ids: Vec::new(),
        };
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for id in ids {
            if !taken.insert(id) {
                drop(taken);
                return Err(Error::new(
                    Kind::Conflict,
                    "UPLOAD_UNDER_WAY",
                    "an upload with this request_id or external_id is under way; try again when it has ended",
                ));
            }
            claim.ids.push(id);
        }
        Ok(claim)
    }
}

struct Claim {
    under_way: UnderWay,
    ids: Vec<[u8; 32]>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut taken = self.under_way.0.lock().unwrap_or_else(PoisonError::into_inner);
        for id in &self.ids {
            taken.remove(id);
        }
    }
}

impl std::fmt::Debug for Put {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Put")
            .field("received", &self.received.bytes)
            .finish_non_exhaustive()
    }
}

/// Runs CPU-bound work where it holds up nobody's I/O.
async fn off_the_async_threads<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::new(Kind::Internal, "TASK", "sealing was interrupted").because(e))?
}

fn empty() -> Error {
    Error {
        field: Some("chunk".into()),
        ..Error::new(
            Kind::Invalid,
            "CONTENT_EMPTY",
            "a recording has at least one byte",
        )
    }
}

fn external_id_taken() -> Error {
    Error {
        field: Some("descriptor.external_id".into()),
        ..Error::new(
            Kind::AlreadyExists,
            "EXTERNAL_ID_EXISTS",
            "the tenant has a record with this external_id; read it by that name",
        )
    }
}

fn request_reused() -> Error {
    Error::new(
        Kind::AlreadyExists,
        "REQUEST_ID_REUSED",
        "the request_id was used for something else; use a new one for each request",
    )
}
