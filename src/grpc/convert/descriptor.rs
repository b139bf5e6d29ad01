//! Descriptors as uploaders and correctors write them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{
    Path, bounded, masked, optional, optional_term, required, required_term, terms, texts,
    time::{moment, optional_millis, optional_moment},
};
use crate::{
    domain::{
        clock::Timestamp,
        ids::{InvalidId, TenantId},
        limits,
        principal::Principal,
        purpose::{AgeFlag, Channel, DataCategory, Direction, LegalBasis, PartyRole, Purpose},
        record::{Descriptor, Party},
        text::LabelKey,
    },
    proto::v1,
    vault::{BeginSpec, Closing, DescriptorChange, Draft, Error, Kind, MessageSpec, PutSpec},
};

/// What may be corrected: the API's names.
const CHANGEABLE: &[&str] = &[
    "conversation_id",
    "channel",
    "direction",
    "start_time",
    "duration",
    "parties",
    "media_type",
    "languages",
    "labels",
    "data_categories",
    "allowed_purposes",
    "legal_basis",
    "notice_version",
    "consent_ref",
    "source",
    "age_flag",
    "jurisdictions",
];
/// What stands for ever.
const FIXED: &[&str] = &["retention_class", "external_id", "derived_from"];

/// The spec of an upload to a tenant that the caller acts for.
pub(in crate::grpc) fn put_spec(
    spec: &v1::PutRecordingSpec,
    tenant: TenantId,
    caller: &Principal,
) -> Result<PutSpec, Error> {
    let at = Path::root("spec");
    let said = spec.descriptor.as_ref();
    let said = said.ok_or_else(|| at.field("descriptor").refuse("is required"))?;
    Ok(PutSpec {
        tenant,
        actor: caller.alias().to_owned(),
        draft: draft(said, &at.field("descriptor"))?,
        request: optional(&spec.request_id, &at.field("request_id"))?,
        expected_size: spec
            .expected_size_bytes
            .map(|said| size(said, &at.field("expected_size_bytes")))
            .transpose()?,
        expected_sha256: expected_sha256(&spec.expected_sha256)?,
    })
}

/// A message of a caller for a tenant that it acts for.
pub(in crate::grpc) fn message_spec(
    said: v1::PutMessageRequest,
    caller: &Principal,
) -> Result<MessageSpec, Error> {
    let at = Path::root("descriptor");
    let descriptor = said.descriptor.as_ref().ok_or_else(|| at.refuse("is required"))?;
    Ok(MessageSpec {
        actor: caller.alias().to_owned(),
        draft: draft(descriptor, &at)?,
        request: optional(&said.request_id, &Path::root("request_id"))?,
        body: said.body,
    })
}

/// What begins a resumable upload to a tenant that the caller acts for.
pub(in crate::grpc) fn begin_spec(
    asked: &v1::BeginUploadRequest,
    tenant: TenantId,
    caller: &Principal,
) -> Result<BeginSpec, Error> {
    let at = Path::root("descriptor");
    let said = asked.descriptor.as_ref();
    Ok(BeginSpec {
        tenant,
        actor: caller.alias().to_owned(),
        draft: draft(said.ok_or_else(|| at.refuse("is required"))?, &at)?,
        request: optional(&asked.request_id, &Path::root("request_id"))?,
        keep: asked.on_abandon() == v1::OnAbandon::Keep,
    })
}

/// Bytes of a recording.
pub(in crate::grpc) fn size(said: i64, at: &Path<'_>) -> Result<u64, Error> {
    match u64::try_from(said) {
        Ok(size) if (1..=limits::RECORDING_BYTES).contains(&size) => Ok(size),
        _ => Err(at.refuse(format!("must be 1 to {}", limits::RECORDING_BYTES))),
    }
}

fn expected_sha256(digest: &[u8]) -> Result<Option<[u8; 32]>, Error> {
    if digest.is_empty() {
        return Ok(None);
    }
    let digest = digest.try_into();
    digest.map(Some).map_err(|_| {
        Path::root("spec")
            .field("expected_sha256")
            .refuse("must be 32 bytes")
    })
}

fn draft(said: &v1::Descriptor, at: &Path<'_>) -> Result<Draft, Error> {
    let mut descriptor = blank()?;
    for field in CHANGEABLE.iter().chain(FIXED) {
        take(field, said, &mut descriptor, at)?;
    }
    Ok(Draft {
        descriptor,
        has_media_type: !said.media_type.is_empty(),
        has_retention_class: !said.retention_class.is_empty(),
    })
}

/// The fields of `mask`, and nothing else of `said`.
pub(in crate::grpc) fn change(
    said: Option<&v1::Descriptor>,
    mask: Option<&prost_types::FieldMask>,
) -> Result<DescriptorChange, Error> {
    let fields = masked(mask, CHANGEABLE, FIXED)?;
    let at = Path::root("descriptor");
    let said = said.ok_or_else(|| at.refuse("is required"))?;
    let mut descriptor = blank()?;
    for field in &fields {
        take(field, said, &mut descriptor, &at)?;
    }
    // What an upload may leave to be found out has no default later.
    let emptied = |field: &str, empty| fields.contains(field) && empty;
    if emptied("media_type", said.media_type.is_empty()) {
        return Err(at.field("media_type").refuse("cannot be removed"));
    }
    if emptied("allowed_purposes", said.allowed_purposes.is_empty()) {
        return Err(at
            .field("allowed_purposes")
            .refuse("must name at least one purpose"));
    }
    Ok(DescriptorChange { fields, descriptor })
}

/// What an upload's last message says; `start` is its spec's.
pub(in crate::grpc) fn closing(said: &v1::PutRecordingClosing, start: Timestamp) -> Result<Closing, Error> {
    let at = Path::root("closing");
    let duration = optional_millis(said.duration.as_ref(), &at.field("duration"))?;
    let end_path = at.field("end_time");
    let duration_millis = match optional_moment(said.end_time.as_ref(), &end_path)? {
        None => duration,
        Some(_) if duration.is_some() => {
            return Err(end_path.refuse("cannot be set together with closing.duration"));
        }
        Some(end) if end < start => {
            return Err(end_path.refuse("must not be before spec.descriptor.start_time"));
        }
        Some(end) => Some((end.micros() - start.micros()) / 1_000),
    };
    Ok(Closing {
        duration_millis,
        parties: parties(&said.parties, &at.field("parties"))?,
    })
}

/// Takes one field over, by its name in the API.
fn take(field: &str, said: &v1::Descriptor, into: &mut Descriptor, at: &Path<'_>) -> Result<(), Error> {
    let at = at.field(field);
    match field {
        "conversation_id" => into.conversation_id = required(&said.conversation_id, &at)?,
        "channel" => into.channel = required_term(said.channel, Channel::from_number, &at)?,
        "direction" => into.direction = optional_term(said.direction, Direction::from_number, &at)?,
        "start_time" => into.start = moment(said.start_time.as_ref(), &at)?,
        "duration" => into.duration_millis = optional_millis(said.duration.as_ref(), &at)?,
        "parties" => into.parties = parties(&said.parties, &at)?,
        "media_type" => {
            if let Some(media_type) = optional(&said.media_type, &at)? {
                into.media_type = media_type;
            }
        }
        "languages" => into.languages = texts(&said.languages, &at)?,
        "labels" => into.labels = labels(&said.labels, &at)?,
        "data_categories" => {
            into.data_categories = terms(&said.data_categories, DataCategory::from_number, &at)?;
        }
        "allowed_purposes" => {
            into.allowed_purposes = terms(&said.allowed_purposes, Purpose::from_number, &at)?;
        }
        "legal_basis" => into.legal_basis = optional_term(said.legal_basis, LegalBasis::from_number, &at)?,
        "notice_version" => into.notice_version = optional(&said.notice_version, &at)?,
        "consent_ref" => into.consent_ref = optional(&said.consent_ref, &at)?,
        "source" => into.source = optional(&said.source, &at)?,
        "retention_class" => {
            if let Some(class) = optional(&said.retention_class, &at)? {
                into.retention_class = class;
            }
        }
        "age_flag" => into.age_flag = optional_term(said.age_flag, AgeFlag::from_number, &at)?,
        "jurisdictions" => into.jurisdictions = texts(&said.jurisdictions, &at)?,
        "external_id" => into.external_id = optional(&said.external_id, &at)?,
        "derived_from" => into.derived_from = optional(&said.derived_from, &at)?,
        _ => return Err(Error::new(Kind::Internal, "NO_FIELD", "a field is not converted")),
    }
    Ok(())
}

fn parties(said: &[v1::Party], at: &Path<'_>) -> Result<Vec<Party>, Error> {
    bounded(said.len(), limits::PARTIES, at)?;
    let parsed = said
        .iter()
        .enumerate()
        .map(|(index, said)| party(said, &at.item(index)));
    parsed.collect()
}

fn party(said: &v1::Party, at: &Path<'_>) -> Result<Party, Error> {
    if *said == v1::Party::default() {
        return Err(at.refuse("must say something of the party"));
    }
    let external = at.field("external_subject_id");
    Ok(Party {
        role: optional_term(said.role, PartyRole::from_number, &at.field("role"))?,
        tel: optional(&said.tel, &at.field("tel"))?,
        mailto: optional(&said.mailto, &at.field("mailto"))?,
        name: optional(&said.name, &at.field("name"))?,
        external_subject_id: optional(&said.external_subject_id, &external)?,
        agent_id: optional(&said.agent_id, &at.field("agent_id"))?,
        team: optional(&said.team, &at.field("team"))?,
    })
}

/// Labels, whose keys are repeated in a path only once they are known to be keys.
pub(super) fn labels(
    said: &HashMap<String, String>,
    at: &Path<'_>,
) -> Result<BTreeMap<LabelKey, String>, Error> {
    bounded(said.len(), limits::LABELS, at)?;
    let label = |(key, value): (&String, &String)| {
        let parsed: LabelKey = required(key, at)?;
        if value.len() > limits::TEXT_BYTES || value.chars().any(char::is_control) {
            let rule = format!(
                "must be at most {} bytes without control characters",
                limits::TEXT_BYTES
            );
            return Err(at.field(key).refuse(rule));
        }
        Ok((parsed, value.clone()))
    };
    said.iter().map(label).collect()
}

/// A descriptor that says nothing yet.
fn blank() -> Result<Descriptor, Error> {
    let built = || {
        Ok(Descriptor {
            conversation_id: "unsaid".parse()?,
            channel: Channel::Other,
            direction: None,
            start: Timestamp(0),
            duration_millis: None,
            parties: Vec::new(),
            media_type: "application/octet-stream".parse()?,
            languages: Vec::new(),
            labels: BTreeMap::new(),
            data_categories: BTreeSet::new(),
            allowed_purposes: BTreeSet::new(),
            legal_basis: None,
            notice_version: None,
            consent_ref: None,
            source: None,
            retention_class: "unsaid".parse()?,
            age_flag: None,
            jurisdictions: Vec::new(),
            external_id: None,
            derived_from: None,
            incomplete: false,
        })
    };
    built().map_err(|invalid: InvalidId| {
        Error::new(Kind::Internal, "NO_DESCRIPTOR", "a descriptor cannot begin").because(invalid)
    })
}
