//! Short words for long calls.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use bytes::{Bytes, BytesMut};
use callvault::{
    domain::{
        clock::Timestamp,
        ids::{RecordId, TenantId},
        purpose::{Channel, Direction, PartyRole, Purpose},
        record::{Descriptor, Party, Query, Record},
        tenant::{RetentionAction, RetentionClass, TenantSettings},
    },
    vault::{Closing, ContentRange, DescriptorChange, Draft, Error, Kind, Order, PutSpec, UpdateSpec, Vault},
};

pub(crate) const HOUR: i64 = 3_600 * 1_000_000;
pub(crate) const ACTOR: &str = "tester";
/// The purpose that sees and, with [`everything`], reads all.
pub(crate) const LAWFUL: Purpose = Purpose::LegalCompliance;

/// A directory for one world: in memory where there is such a place, for nothing here is about the disk.
pub(crate) fn directory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let builder = tempfile::Builder::new();
    match tempfile::Builder::new().prefix("callvault").tempdir_in(memory) {
        Ok(dir) => dir,
        Err(_) => builder.tempdir().unwrap(),
    }
}

pub(crate) fn tenant(text: &str) -> TenantId {
    text.parse().unwrap()
}

pub(crate) fn class(id: &str) -> RetentionClass {
    RetentionClass {
        id: id.parse().unwrap(),
        minimum_days: 1,
        maximum_days: Some(365),
        action: RetentionAction::Shred,
        jurisdiction: None,
        legal_ground: None,
        effective: Timestamp(0),
        created: Timestamp(0),
    }
}

/// A descriptor with one customer and nothing else that need not be there.
pub(crate) fn descriptor(conversation: &str, tel: &str) -> Descriptor {
    Descriptor {
        conversation_id: conversation.parse().unwrap(),
        channel: Channel::Voice,
        direction: Some(Direction::Inbound),
        start: Timestamp(1_767_225_600_000_000),
        duration_millis: Some(1_000),
        parties: vec![party(tel)],
        media_type: "audio/wav".parse().unwrap(),
        languages: Vec::new(),
        labels: BTreeMap::new(),
        data_categories: [].into(),
        allowed_purposes: Purpose::ALL.iter().copied().collect(),
        legal_basis: None,
        notice_version: None,
        consent_ref: None,
        source: None,
        retention_class: "std".parse().unwrap(),
        age_flag: None,
        jurisdictions: Vec::new(),
        external_id: None,
        derived_from: None,
        incomplete: false,
    }
}

pub(crate) fn party(tel: &str) -> Party {
    Party {
        role: Some(PartyRole::Customer),
        tel: Some(tel.parse().unwrap()),
        mailto: None,
        name: None,
        external_subject_id: None,
        agent_id: None,
        team: None,
    }
}

pub(crate) fn spec(of: &TenantId, descriptor: Descriptor) -> PutSpec {
    PutSpec {
        tenant: of.clone(),
        actor: ACTOR.to_owned(),
        draft: Draft {
            descriptor,
            has_media_type: true,
            has_retention_class: true,
        },
        request: None,
        expected_size: None,
        expected_sha256: None,
    }
}

/// `length` bytes that differ by `seed` and nowhere repeat soon.
pub(crate) fn content(seed: u64, length: usize) -> Bytes {
    let mut out = BytesMut::with_capacity(length + 8);
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while out.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(length);
    out.freeze()
}

pub(crate) async fn make_tenant(vault: &Vault, id: &str) -> TenantId {
    let id = tenant(id);
    vault
        .create_tenant(ACTOR, &id, TenantSettings::default(), None)
        .await
        .unwrap();
    vault
        .create_retention_class(ACTOR, &id, class("std"), None)
        .await
        .unwrap();
    id
}

pub(crate) async fn put(vault: &Arc<Vault>, spec: PutSpec, content: &Bytes) -> Result<Record, Error> {
    put_in(vault, spec, content, 1 << 20, Closing::default()).await
}

pub(crate) async fn put_in(
    vault: &Arc<Vault>,
    spec: PutSpec,
    content: &Bytes,
    chunk: usize,
    closing: Closing,
) -> Result<Record, Error> {
    let mut put = vault.begin_put(spec).await?;
    let mut rest = content.clone();
    while !rest.is_empty() {
        put.write(rest.split_to(chunk.max(1).min(rest.len()))).await?;
    }
    put.finish(closing).await
}

pub(crate) async fn read(vault: &Arc<Vault>, of: &TenantId, id: RecordId) -> Result<Vec<u8>, Error> {
    read_range(vault, of, id, 0, None, LAWFUL).await
}

pub(crate) async fn read_range(
    vault: &Arc<Vault>,
    of: &TenantId,
    id: RecordId,
    offset: u64,
    limit: Option<u64>,
    purpose: Purpose,
) -> Result<Vec<u8>, Error> {
    let range = ContentRange { offset, limit };
    let mut reading = vault.read(of, id, range, purpose).await?;
    let mut all = Vec::new();
    while let Some(bytes) = reading.next().await? {
        all.extend_from_slice(&bytes);
    }
    assert_eq!(
        all.len() as u64,
        reading.length(),
        "a short stream never looks whole"
    );
    Ok(all)
}

/// Every page of a listing, each checked to be full but the last.
pub(crate) async fn list_all(
    vault: &Vault,
    of: &TenantId,
    query: &Query,
    order: Order,
    size: usize,
    purpose: Purpose,
) -> Result<Vec<Record>, Error> {
    let mut all = Vec::new();
    let mut token: Option<String> = None;
    loop {
        let page = vault
            .list(of, query, order, size, token.as_deref(), purpose)
            .await?;
        assert!(page.records.len() <= size, "a page is no longer than asked for");
        all.extend(page.records);
        match page.next {
            Some(next) => {
                assert_eq!(all.len() % size, 0, "only the last page is short");
                assert_ne!(Some(&next), token.as_ref(), "paging moves on");
                token = Some(next);
            }
            None => return Ok(all),
        }
    }
}

pub(crate) async fn everything(vault: &Vault, of: &TenantId) -> Vec<Record> {
    list_all(vault, of, &Query::default(), Order::OldestFirst, 7, LAWFUL)
        .await
        .unwrap()
}

/// An update of some fields.
pub(crate) fn update(
    of: &TenantId,
    record: RecordId,
    fields: &[&'static str],
    new: Descriptor,
) -> UpdateSpec {
    UpdateSpec {
        judge: None,
        tenant: of.clone(),
        record,
        actor: ACTOR.to_owned(),
        change: DescriptorChange {
            fields: fields.iter().copied().collect(),
            descriptor: new,
        },
        etag: None,
        request: None,
    }
}

/// What a caller can tell errors apart by.
pub(crate) fn told(error: &Error) -> (Kind, &'static str) {
    (error.kind, error.reason)
}

pub(crate) async fn no_findings(vault: &Arc<Vault>) {
    vault.settle().await.unwrap();
    let report = vault.verify().await.unwrap();
    assert_eq!(
        report.findings,
        [],
        "a scrub of what nobody touched finds nothing"
    );
}
