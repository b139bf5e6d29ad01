//! A descriptor is corrected: a new version beside the old, sealed under the record's own key.

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    crypto::kdf,
    domain::{
        clock::Timestamp,
        ids::{RecordId, RequestId, TenantId},
        judge::Judge,
        record::{Descriptor, Record, State},
    },
    index::{Change, Expect, IndexError, Key, Row, Scope},
    ledger::{
        leaf,
        outbox::{LedgerError, Until},
    },
    proto::storage::{RecordRow, RecordUpdated, state_leaf::Body},
};

use prost::Message;

use super::{
    Error, Vault,
    blinding::fence,
    descriptor,
    payload::name_payload,
    record::{Located, Name},
    requests::{Asked, request_reused},
    tenant::etag_conflict,
    terms::{self, Terms},
};

/// How often a race for what a record is found by is run again.
const RACES: usize = 32;

/// Descriptor fields that replace a record's, and which of them do.
#[derive(Clone, Debug)]
pub struct DescriptorChange {
    /// Fields to take: the API's names.
    pub fields: BTreeSet<&'static str>,
    /// Where they are taken from.
    pub descriptor: Descriptor,
}

/// A correction.
#[derive(Clone, Debug)]
pub struct UpdateSpec {
    /// Whose.
    pub tenant: TenantId,
    /// Which.
    pub record: RecordId,
    /// Alias of who asks.
    pub actor: String,
    /// What changes.
    pub change: DescriptorChange,
    /// Refuse unless the record still has this etag.
    pub etag: Option<String>,
    /// Makes the call idempotent.
    pub request: Option<RequestId>,
    /// Who says whether this record may be corrected by whoever asks.
    pub judge: Option<Arc<dyn Judge>>,
}

impl UpdateSpec {
    fn must_be_permitted(&self, record: &Record) -> Result<(), Error> {
        self.judge.as_ref().map_or(Ok(()), |judge| judge.judge(record))
    }
}

impl Vault {
    /// Corrects a record's descriptor; returns when the new version is in the bucket.
    ///
    /// # Errors
    /// [`Kind::NotFound`](super::Kind); [`Kind::Conflict`](super::Kind) if the record changed since the etag, or meanwhile;
    /// [`Kind::Invalid`](super::Kind) beyond a limit.
    pub async fn update(&self, spec: UpdateSpec) -> Result<Record, Error> {
        let turn = self.turn(&spec.tenant).await?;
        let name = Name::Id(spec.record);
        let located = self
            .locate(&spec.tenant, &name)
            .await?
            .ok_or_else(Error::not_found)?;
        let keys = self.keys.tenant(&spec.tenant).await?;
        let asked = spec
            .request
            .as_ref()
            .map(|r| Asked::new(&keys, &spec.tenant, r, asked_for(&spec)));
        if let Some(asked) = &asked
            && let Some(answered) = self.answered(&spec.tenant, &asked.mac).await?
        {
            drop(turn);
            if answered.record != spec.record {
                return Err(request_reused());
            }
            let record = self.answer_again(&spec.tenant, asked, &answered).await?;
            spec.must_be_permitted(&record)?;
            self.ship_before_repeating().await?;
            return Ok(record);
        }
        if located.state == State::PendingShred {
            return Err(Error::not_found());
        }
        let dek = self.record_dek(&located).await?;
        let tag = asked.map(|asked| asked.tag(&kdf::fingerprint_key(&dek)));
        let (before, dek_keys) = self.open_with(&located, &dek)?;
        drop(dek);
        spec.must_be_permitted(&before)?;
        if spec.etag.as_ref().is_some_and(|etag| *etag != before.etag()) {
            return Err(etag_conflict());
        }
        let after = merged(before.descriptor.clone(), &spec.change);
        if let Some(judge) = &spec.judge {
            judge.judge_change(&before, &after)?;
        }
        if let Some((field, rule)) = after.exceeded_limit() {
            return Err(Error::invalid(format!("descriptor.{field}"), rule));
        }
        let now = self.clock.now();
        let version = located.row.descriptor_version + 1;
        let sealed = located
            .place_of_version(version)
            .seal(&dek_keys.descriptor, &after, &*self.rng)?;
        drop(turn);
        let payload = name_payload(&sealed);
        self.put_payload(&payload, sealed.clone()).await?;
        let body = RecordUpdated {
            record_id: spec.record.as_bytes().to_vec().into(),
            descriptor_version: version,
            descriptor: Some(payload),
        };
        let mut races = 0;
        loop {
            let mut change = self
                .update_rows(&located, &before.descriptor, &after, version, sealed.clone(), now)
                .await?;
            change.put.extend(
                tag.as_ref()
                    .map(|tag| self.request_row(&spec.tenant, tag, Some(&spec.record), now)),
            );
            change.leaves.push(leaf::draft_for_request(
                Scope::Tenant(spec.tenant.clone()),
                &spec.actor,
                now,
                tag.as_ref(),
                Body::RecordUpdated(body.clone()),
            ));
            match self.commit_long(change, Until::Shipped).await {
                // Not the record has changed, but what it is found by.
                Err(LedgerError::Index(IndexError::Expectation(_)))
                    if races < RACES && self.is_still(&located).await? =>
                {
                    races += 1;
                }
                done => {
                    done?;
                    break;
                }
            }
        }
        let located = self
            .locate(&spec.tenant, &name)
            .await?
            .ok_or_else(Error::not_found)?;
        Ok(self.open_record(&located).await?.0)
    }

    /// Whether a record's row is what it was.
    async fn is_still(&self, located: &Located) -> Result<bool, Error> {
        let key = Key::Record(located.tenant.clone(), located.id);
        Ok(self.index.get(&key).await?.as_ref() == Some(&located.value))
    }

    /// The rows of a record whose descriptor changed, and what must hold for them.
    pub(super) async fn update_rows(
        &self,
        located: &Located,
        before: &Descriptor,
        after: &Descriptor,
        version: u32,
        sealed: bytes::Bytes,
        now: Timestamp,
    ) -> Result<Change, Error> {
        let (tenant, id) = (&located.tenant, &located.id);
        let keys = self.keys.tenant(tenant).await?;
        let (old, new) = (Terms::of(&keys, before), Terms::of(&keys, after));
        let all = old.numbered().union(&new.numbered()).copied().collect();
        let numbers = terms::numbers(&*self.index, &self.rows, &*self.rng, tenant, &keys, &all).await?;
        let (old, new) = (old.keys(tenant, id, &numbers), new.keys(tenant, id, &numbers));
        let record = Key::Record(tenant.clone(), *id);
        let row = RecordRow {
            state: after.resting_state().number(),
            start_micros: after.start.micros(),
            descriptor_version: version,
            sealed_descriptor: sealed,
            updated_micros: now.micros(),
            ..located.row.clone()
        };
        let mut change = Change {
            expect: vec![Expect::Equals(record.clone(), located.value.clone())],
            delete: old.iter().filter(|key| !new.contains(key)).cloned().collect(),
            ..Change::default()
        };
        change.expect.extend(numbers.expectations());
        change.expect.push(fence(&self.rows, tenant, &keys));
        change.put.extend(numbers.into_minted());
        let found_by = new.into_iter().filter(|key| !old.contains(key));
        change.put.extend(found_by.map(|key| Row {
            key,
            value: Vec::new(),
        }));
        change.put.push(self.rows.row(record, &row));
        Ok(change)
    }
}

fn asked_for(spec: &UpdateSpec) -> Vec<u8> {
    let mut asked = spec.record.as_bytes().to_vec();
    asked.extend_from_slice(format!("{:?}", spec.change.fields).as_bytes());
    asked.extend_from_slice(spec.etag.as_deref().unwrap_or("").as_bytes());
    asked.extend_from_slice(&descriptor::to_proto(&spec.change.descriptor).encode_to_vec());
    asked
}

fn merged(mut descriptor: Descriptor, change: &DescriptorChange) -> Descriptor {
    let new = change.descriptor.clone();
    for field in &change.fields {
        match *field {
            "conversation_id" => descriptor.conversation_id.clone_from(&new.conversation_id),
            "channel" => descriptor.channel = new.channel,
            "direction" => descriptor.direction = new.direction,
            "start_time" => descriptor.start = new.start,
            "duration" => descriptor.duration_millis = new.duration_millis,
            "parties" => descriptor.parties.clone_from(&new.parties),
            "media_type" => descriptor.media_type.clone_from(&new.media_type),
            "languages" => descriptor.languages.clone_from(&new.languages),
            "labels" => descriptor.labels.clone_from(&new.labels),
            "data_categories" => descriptor.data_categories.clone_from(&new.data_categories),
            "allowed_purposes" => descriptor.allowed_purposes.clone_from(&new.allowed_purposes),
            "legal_basis" => descriptor.legal_basis = new.legal_basis,
            "notice_version" => descriptor.notice_version.clone_from(&new.notice_version),
            "consent_ref" => descriptor.consent_ref.clone_from(&new.consent_ref),
            "source" => descriptor.source.clone_from(&new.source),
            "age_flag" => descriptor.age_flag = new.age_flag,
            "jurisdictions" => descriptor.jurisdictions.clone_from(&new.jurisdictions),
            _ => {}
        }
    }
    descriptor
}
