//! An upload becomes a record.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use prost::Message;

use crate::{
    blob::{
        format::Footer,
        store::{ObjectVersion, PartReceipt, StoreError},
    },
    crypto::{blind, stream, stream::TagsDigest},
    domain::{
        ids::{RecordId, TenantId},
        limits,
        record::{Descriptor, Record},
    },
    proto::storage,
};

use super::{
    super::{
        Error, Kind, Vault, descriptor,
        put::{
            Blob, Closing, FOOTER_ROOM, Fresh, Told, closed, empty, fresh_record, in_turn,
            off_the_async_threads, outcome_of, sniffed,
        },
        record::BlobName,
        requests::shredded,
    },
    Phase, UploadStatus, committed, journal,
    session::Session,
};

/// Longest wait for parts that are on their way to the store.
const PATIENCE: Duration = Duration::from_secs(20);

/// What makes a record of an upload.
#[derive(Clone, Debug)]
pub struct CommitSpec {
    /// Whose.
    pub tenant: TenantId,
    /// Which.
    pub id: RecordId,
    /// Bytes of the whole content: the server may have lost some since the caller last heard of it.
    pub size: u64,
    /// What was known only at the end.
    pub closing: Closing,
    /// Refuse unless the content has this CRC-32C.
    pub expected_crc: Option<u32>,
}

/// Everything that a blob ends with.
struct Last {
    descriptor: Descriptor,
    footer: Footer,
    footer_sha256: [u8; 32],
    body: Bytes,
    receipts: Vec<PartReceipt>,
    number: u32,
    offset: u64,
}

impl Vault {
    /// Makes a record of an upload and returns it when it is durable in store and index. A repetition returns it again, for
    /// 24 hours.
    ///
    /// A dropped call may or may not take effect; a repetition finds out.
    ///
    /// # Errors
    /// [`Kind::NotFound`] as [`Vault::upload`]; [`Kind::WrongState`] (`UPLOAD_INCOMPLETE`, with both offsets as details) if the
    /// size is another, (`UPLOAD_COMMITTED`) if it was committed with another closing; [`Kind::Invalid`] (`CRC32C_MISMATCH`);
    /// what store or index answered: the upload stays open then.
    pub async fn commit_upload(self: &Arc<Self>, spec: CommitSpec) -> Result<Record, Error> {
        self.active_tenant(&spec.tenant).await?;
        let session = match self.session(&spec.tenant, &spec.id).await {
            // With its record went what was known of the upload.
            Err(error)
                if error.kind == Kind::NotFound && self.is_shredded(&spec.tenant, &spec.id).await? =>
            {
                return Err(shredded());
            }
            found => found?,
        };
        let fingerprint = blind::record_fingerprint(&session.making.fingerprint_key, &[&asked_for(&spec)]);
        let phase = session.state().phase.clone();
        if let Phase::Committed {
            fingerprint: before, ..
        } = phase
        {
            if !before.is_empty() && !blind::is_fingerprint(&fingerprint, &before) {
                return Err(committed());
            }
            return self.record_of_upload(&session).await;
        }
        begin_commit(&session, &spec)?;
        let vault = Arc::clone(self);
        // Whoever asked may go away: what was begun is brought to its end.
        let task = tokio::spawn(async move {
            vault
                .commit_session(&session, spec.closing, false, &fingerprint)
                .await
        });
        task.await
            .map_err(|e| Error::new(Kind::Internal, "TASK", "the commit was interrupted").because(e))?
    }

    /// Keeps what arrived of an upload that nobody committed.
    pub(super) async fn keep_abandoned(self: &Arc<Self>, session: &Arc<Session>) -> Result<Record, Error> {
        {
            let mut state = session.state();
            state.must_be_open()?;
            state.phase = Phase::Committing;
        }
        session.fence();
        self.commit_session(session, Closing::default(), true, &[]).await
    }

    async fn commit_session(
        self: &Arc<Self>,
        session: &Arc<Session>,
        closing: Closing,
        incomplete: bool,
        fingerprint: &[u8],
    ) -> Result<Record, Error> {
        let made = self.make_record_of(session, closing, incomplete).await;
        match made {
            Ok(record) => {
                self.is_committed(session, fingerprint).await;
                Ok(record)
            }
            Err(error) if error.kind == Kind::AlreadyExists => {
                self.forget(session).await;
                Err(error)
            }
            Err(error) => {
                let mut state = session.state();
                if state.phase == Phase::Committing {
                    state.phase = Phase::Open;
                }
                Err(error)
            }
        }
    }

    async fn make_record_of(
        self: &Arc<Self>,
        session: &Arc<Session>,
        closing: Closing,
        incomplete: bool,
    ) -> Result<Record, Error> {
        self.await_parts(session).await?;
        let last = self.last_part(session, closing, incomplete).await?;
        let stored = self.complete(session, &last).await;
        let (blob, footer, described, length) = match stored {
            Ok(version) => {
                let blob = BlobName {
                    object_key: session.making.object_key.to_string(),
                    object_version: version.0,
                    footer_sha256: last.footer_sha256,
                };
                let length = last.offset + last.body.len() as u64;
                (blob, last.footer, last.descriptor, length)
            }
            // The answer may have been lost on the way, this time or before a restart: the name is this upload's alone.
            Err(error) => match self.stored_before(session).await {
                Some((blob, footer, described, length)) if described == last.descriptor => {
                    (blob, footer, described, length)
                }
                Some(_) => return Err(committed()),
                None => return Err(error.into()),
            },
        };
        let entry = Fresh {
            index: 0,
            descriptor: &described,
            actor: &session.begun.actor,
        };
        let indexed = Blob {
            footer: &footer,
            name: &blob,
            length,
        };
        let mut outcomes = self.index_entries(&indexed, Told::ByPut, vec![entry]).await;
        match outcome_of(&mut outcomes, 0) {
            Ok(()) => Ok(fresh_record(&footer, 0, described)),
            Err(error) if error.kind == Kind::AlreadyExists => {
                // An adoption may have been faster.
                match self.record_of_upload(session).await {
                    Ok(record) => Ok(record),
                    // What no row names is nobody's.
                    Err(gone) if matches!(gone.kind, Kind::Shredded | Kind::NotFound) => {
                        let _ = self.store.delete(&session.making.object_key).await;
                        Err(error)
                    }
                    Err(_) => Err(error),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// Waits until every full part is in the store and known.
    async fn await_parts(&self, session: &Arc<Session>) -> Result<(), Error> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let changed = session.changed.notified();
            self.settle_upload(session, true).await?;
            if session.state().parts.len() == 1 {
                return Ok(());
            }
            if tokio::time::timeout_at(deadline, changed).await.is_err() {
                return Err(Error::new(
                    Kind::Unavailable,
                    "STORE_BEHIND",
                    "the store does not take parts; commit again later",
                ));
            }
        }
    }

    /// Seals what is left and the footer behind it. What the spool has stays there until all is done.
    async fn last_part(
        &self,
        session: &Arc<Session>,
        closing: Closing,
        incomplete: bool,
    ) -> Result<Last, Error> {
        let (extent, left, received, start, receipts, mut digest) = {
            let state = session.state();
            let part = state.open();
            (
                part.extent,
                part.length,
                state.received,
                state.start.clone(),
                state.receipts.clone(),
                state.digest.clone(),
            )
        };
        if received == 0 {
            return Err(empty());
        }
        let descriptor = described(session, closing, incomplete, &start)?;
        let room = stream::ciphertext_len(left) + FOOTER_ROOM as u64;
        let room = self.budget.reserve_for(&session.making.tenant, room).await?;
        let mut body = self.last_extent(session, extent, left, &mut digest).await?;
        let making = &session.making;
        let footer = self.footer(
            making,
            &descriptor,
            received,
            session.begun.request,
            digest.finish(),
        )?;
        let encoded = footer.encode()?;
        body.extend_from_slice(&encoded.bytes);
        drop(room);
        Ok(Last {
            descriptor,
            footer,
            footer_sha256: encoded.sha256,
            body: body.freeze(),
            number: extent + 1,
            offset: receipts.iter().map(|receipt| receipt.length).sum(),
            receipts,
        })
    }

    async fn last_extent(
        &self,
        session: &Arc<Session>,
        extent: u32,
        left: u64,
        digest: &mut TagsDigest,
    ) -> Result<bytes::BytesMut, Error> {
        if left == 0 {
            // The content ended with its extent: the footer is a part by itself.
            return Ok(bytes::BytesMut::new());
        }
        let from = Arc::clone(session);
        let buffer = off_the_async_threads(move || Ok(from.read_back(extent, FOOTER_ROOM)?)).await?;
        if buffer.plaintext_len() != left {
            return Err(Error::corrupt("spool"));
        }
        let sealed = in_turn(
            self,
            &session.making.tenant,
            self.sealer(&session.making, extent, buffer),
        )
        .await?;
        digest.update(&sealed.tags_digest);
        Ok(sealed.bytes)
    }

    async fn complete(&self, session: &Session, last: &Last) -> Result<ObjectVersion, StoreError> {
        let key = &session.making.object_key;
        if last.receipts.is_empty() {
            return self.store.put(key, last.body.clone()).await;
        }
        let upload = self.store_upload(session).await?;
        let body = last.body.clone();
        let receipt = self
            .store
            .put_part(key, &upload, last.number, last.offset, body)
            .await?;
        let receipts = [&last.receipts[..], &[receipt]].concat();
        self.store.complete(key, &upload, &receipts).await
    }

    /// The blob that an earlier try of this commit has made, if it has.
    async fn stored_before(&self, session: &Session) -> Option<(BlobName, Footer, Descriptor, u64)> {
        let key = &session.making.object_key;
        let info = self.store.head(key).await.ok()?;
        let (footer, footer_sha256) = self.read_footer(key).await.ok()?;
        if footer.entries.first()?.record != session.making.record {
            return None;
        }
        let (described, _) = self.open_entry(&footer, 0, key.as_str()).await.ok()?;
        let blob = BlobName {
            object_key: key.to_string(),
            object_version: info.version.0,
            footer_sha256,
        };
        Some((blob, footer, described, info.length))
    }

    /// The record is there for good: lets go of everything but the answer to a repetition.
    async fn is_committed(&self, session: &Arc<Session>, fingerprint: &[u8]) {
        let at = self.clock.now();
        session.end(Phase::Committed {
            at,
            fingerprint: fingerprint.to_vec(),
        });
        let (session, event) = (Arc::clone(session), journal::committed_event(at, fingerprint));
        let told = off_the_async_threads(move || {
            session.tell(&event)?;
            session.remove_files(true);
            Ok(())
        });
        if let Err(error) = told.await {
            // The next start finds the record in the index.
            tracing::warn!(%error, "a committed upload stays in the spool until the next start");
        }
    }
}

/// A committed upload whose request is known by the index alone.
pub(super) fn committed_upload(record: Record) -> UploadStatus {
    UploadStatus {
        tenant: record.tenant.clone(),
        id: record.id,
        received: record.size,
        durable: record.size,
        created: record.created,
        expires: record.created.plus_micros(limits::REQUEST_ID_MICROS),
        record: Some(record),
    }
}

/// Closes the upload to writers, if it is what the caller thinks it is.
fn begin_commit(session: &Session, spec: &CommitSpec) -> Result<(), Error> {
    {
        let mut state = session.state();
        state.must_be_open()?;
        if state.received != spec.size {
            let (received, durable) = (state.received, state.durable());
            let message = format!(
                "the upload has another length; send what is missing, or abort it received_offset={received}"
            );
            return Err(Error::new(Kind::WrongState, "UPLOAD_INCOMPLETE", message)
                .with("received_offset", received)
                .with("durable_offset", durable));
        }
        if spec.expected_crc.is_some_and(|crc| crc != state.open().crc) {
            return Err(Error {
                field: Some("expected_crc32c".into()),
                ..Error::new(
                    Kind::Invalid,
                    "CRC32C_MISMATCH",
                    "the content has another CRC-32C; abort the upload and begin again",
                )
            });
        }
        // What the closing has against it must not close the upload.
        closed(session.begun.descriptor.clone(), spec.closing.clone())?;
        state.phase = Phase::Committing;
    }
    session.fence();
    Ok(())
}

fn described(
    session: &Session,
    closing: Closing,
    incomplete: bool,
    start: &[u8],
) -> Result<Descriptor, Error> {
    let mut descriptor = session.begun.descriptor.clone();
    if session.begun.sniff {
        descriptor.media_type = sniffed(start)?;
    }
    descriptor.incomplete = incomplete;
    closed(descriptor, closing)
}

/// What a commit asked for, as bytes that are the same for the same commit.
fn asked_for(spec: &CommitSpec) -> Vec<u8> {
    let parties = spec
        .closing
        .parties
        .iter()
        .map(descriptor::party_to_proto)
        .collect();
    let closing = storage::Descriptor {
        parties,
        duration_millis: spec.closing.duration_millis,
        ..storage::Descriptor::default()
    };
    let mut asked = b"commit".to_vec();
    asked.extend_from_slice(&spec.size.to_be_bytes());
    asked.extend_from_slice(&closing.encode_to_vec());
    asked
}
