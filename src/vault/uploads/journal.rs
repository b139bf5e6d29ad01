//! What a journal says, as messages: the bare head, and the events that are sealed behind it.

use bytes::Bytes;
use prost::Message;
use ring::digest;

use crate::{
    blob::format::Request,
    crypto::{context::SpoolLog, kdf, kdf::DekKeys},
    domain::{
        clock::Timestamp,
        ids::{PageId, RecordId, TenantId, VaultId},
        record::{Descriptor, Kind as RecordKind},
    },
    proto::storage::{
        RecordKind as StoredKind, SpoolBegun, SpoolCommitted, SpoolEvent, SpoolHead, SpoolPartStored,
        SpoolStoreUpload, spool_event::Event,
    },
    spool::{SealedLog, SpoolError},
};

use super::{
    super::{Error, Vault, descriptor, making::Making},
    session::{Part, StoredPart},
};
use crate::blob::{format, store::ObjectKey};
use std::sync::Arc;

/// What an upload was begun with, with the defaults of that moment.
#[derive(Clone, Debug)]
pub(super) struct Begun {
    pub(super) actor: String,
    pub(super) descriptor: Descriptor,
    /// The media type was not said.
    pub(super) sniff: bool,
    /// What arrived is kept when nobody commits it in time.
    pub(super) keep: bool,
    pub(super) request: Option<Request>,
}

/// A journal, read.
#[derive(Debug, Default)]
pub(super) struct Journal {
    pub(super) begun: Option<Begun>,
    pub(super) store_upload: Option<String>,
    pub(super) stored: Vec<StoredPart>,
    /// CRC-32C of the content up to the end of the last stored part.
    pub(super) crc: u32,
    pub(super) start: Vec<u8>,
    pub(super) committed: Option<(Timestamp, Vec<u8>)>,
}

/// The bare head of a journal.
pub(super) fn head(vault: &Vault, making: &Making) -> Vec<u8> {
    SpoolHead {
        vault_id: vault.realm.vault.as_bytes().to_vec().into(),
        region: vault.realm.region.to_string(),
        tenant_id: making.tenant.to_string(),
        upload_id: making.record.as_bytes().to_vec().into(),
        kind: match making.kind {
            RecordKind::Recording => StoredKind::Recording,
            RecordKind::Message => StoredKind::Message,
            RecordKind::Artifact => StoredKind::Artifact,
        }
        .into(),
        created_micros: making.created.micros(),
        page_id: making.page.as_bytes().to_vec().into(),
        slot: u32::from(making.slot),
        wrapped_dek: making.wrapped_dek.clone(),
        commitment: making.commitment.to_vec().into(),
    }
    .encode_to_vec()
}

/// The context of an upload's logs. `log` is 0 for its journal.
pub(super) fn context(vault: &VaultId, making: &Making, log: u32, head: &[u8]) -> SpoolLog {
    let mut digest = [0; 32];
    digest.copy_from_slice(digest::digest(&digest::SHA256, head).as_ref());
    SpoolLog {
        vault: *vault,
        tenant: making.tenant.clone(),
        record: making.record,
        log,
        head: digest,
    }
}

impl Vault {
    /// What a head names, with its keys. Nothing of it is believed before the first record of its journal has opened.
    pub(super) async fn remake(&self, upload: &RecordId, head: &[u8]) -> Result<Making, Error> {
        let bad = || Error::corrupt("spool");
        let head = SpoolHead::decode(head).map_err(|_| bad())?;
        let tenant: TenantId = head.tenant_id.parse().map_err(|_| bad())?;
        let ours = head.vault_id == self.realm.vault.as_bytes()[..]
            && head.region == self.realm.region.as_str()
            && head.upload_id == upload.as_bytes()[..];
        if !ours {
            return Err(bad());
        }
        let page = PageId::from_slice(&head.page_id).map_err(|_| bad())?;
        let slot = u16::try_from(head.slot).map_err(|_| bad())?;
        let kind = u32::try_from(head.kind).ok().and_then(RecordKind::from_number);
        let created = Timestamp(head.created_micros);
        let dek = self
            .open_dek(
                &tenant,
                &page,
                slot,
                upload.as_bytes(),
                &head.wrapped_dek,
                &head.commitment,
            )
            .await?;
        Ok(Making {
            object_key: ObjectKey::parse(&format::object_key(&tenant, created, upload))?,
            tenant,
            record: *upload,
            kind: kind.ok_or_else(bad)?,
            created,
            page,
            slot,
            wrapped_dek: head.wrapped_dek.clone(),
            commitment: head.commitment[..].try_into().map_err(|_| bad())?,
            keys: Arc::new(DekKeys::derive(&dek)),
            spool_key: Arc::new(kdf::spool_key(&dek)),
            fingerprint_key: kdf::fingerprint_key(&dek),
        })
    }
}

impl Journal {
    /// Applies one record of a journal.
    pub(super) fn apply(&mut self, record: &[u8]) -> Result<(), SpoolError> {
        let event = SpoolEvent::decode(record).map_err(|_| SpoolError::Damaged)?;
        match (event.event.ok_or(SpoolError::Damaged)?, &self.begun) {
            (Event::Begun(begun), None) => self.begun = Some(begun_from(begun)?),
            (Event::StoreUpload(upload), Some(_)) => self.store_upload = Some(upload.id),
            (Event::PartStored(part), Some(_)) => self.part(part)?,
            (Event::Committed(committed), Some(_)) => {
                self.committed = Some((Timestamp(committed.at_micros), committed.fingerprint.to_vec()));
            }
            (Event::Begun(_), Some(_)) | (_, None) => return Err(SpoolError::Damaged),
        }
        Ok(())
    }

    fn part(&mut self, part: SpoolPartStored) -> Result<(), SpoolError> {
        if part.extent as usize != self.stored.len() {
            return Err(SpoolError::Damaged);
        }
        if part.extent == 0 {
            self.start = part.start.to_vec();
        }
        self.crc = part.crc32c;
        self.stored.push(StoredPart {
            receipt: crate::blob::store::PartReceipt {
                number: part.extent + 1,
                etag: part.etag,
                length: part.length,
            },
            tags_digest: part.tags_digest[..].try_into().map_err(|_| SpoolError::Damaged)?,
        });
        Ok(())
    }
}

fn begun_from(begun: SpoolBegun) -> Result<Begun, SpoolError> {
    let damaged = |_| SpoolError::Damaged;
    let request = if begun.request_mac.is_empty() {
        None
    } else {
        Some(Request {
            mac: begun.request_mac[..].try_into().map_err(damaged)?,
            fingerprint: begun.request_fingerprint[..].try_into().map_err(damaged)?,
        })
    };
    let descriptor = begun.descriptor.ok_or(SpoolError::Damaged)?;
    Ok(Begun {
        actor: begun.actor,
        descriptor: descriptor::from_proto(descriptor).map_err(|_| SpoolError::Damaged)?,
        sniff: begun.sniff,
        keep: begun.keep_when_abandoned,
        request,
    })
}

/// The first event of a journal.
pub(super) fn begun_event(begun: &Begun) -> Vec<u8> {
    let digest = |pick: fn(&Request) -> [u8; 32]| -> Bytes {
        begun
            .request
            .as_ref()
            .map(|r| pick(r).to_vec())
            .unwrap_or_default()
            .into()
    };
    encode(Event::Begun(SpoolBegun {
        actor: begun.actor.clone(),
        descriptor: Some(descriptor::to_proto(&begun.descriptor)),
        sniff: begun.sniff,
        keep_when_abandoned: begun.keep,
        request_mac: digest(|r| r.mac),
        request_fingerprint: digest(|r| r.fingerprint),
    }))
}

pub(super) fn store_upload_event(id: &str) -> Vec<u8> {
    encode(Event::StoreUpload(SpoolStoreUpload { id: id.to_owned() }))
}

pub(super) fn part_event(part: &Part, stored: &StoredPart, start: &[u8]) -> Vec<u8> {
    let start = if part.extent == 0 { start } else { &[] };
    encode(Event::PartStored(SpoolPartStored {
        extent: part.extent,
        etag: stored.receipt.etag.clone(),
        length: stored.receipt.length,
        tags_digest: stored.tags_digest.to_vec().into(),
        crc32c: part.crc,
        start: start.to_vec().into(),
    }))
}

pub(super) fn committed_event(at: Timestamp, fingerprint: &[u8]) -> Vec<u8> {
    encode(Event::Committed(SpoolCommitted {
        at_micros: at.micros(),
        fingerprint: fingerprint.to_vec().into(),
    }))
}

fn encode(event: Event) -> Vec<u8> {
    SpoolEvent { event: Some(event) }.encode_to_vec()
}

/// Opens a journal and reads it.
pub(super) fn open(
    spool: &crate::spool::Spool,
    vault: &VaultId,
    making: &Making,
    head: &[u8],
) -> Result<(SealedLog, Journal), SpoolError> {
    let mut journal = Journal::default();
    let log = SealedLog::open(
        spool,
        crate::spool::journal_name(&making.record),
        context(vault, making, 0, head),
        Arc::clone(&making.spool_key),
        |record| journal.apply(record),
    )?;
    match journal.begun {
        Some(_) => Ok((log, journal)),
        // Nothing was answered before the first event was durable.
        None => Err(SpoolError::Damaged),
    }
}
