//! Records as callers see them.

use super::{
    bytes, number,
    time::{millis_to_proto, moment_to_proto},
};
use crate::{
    domain::{
        purpose::{AgeFlag, DataCategory, Direction, LegalBasis, PartyRole, Purpose},
        record::{Descriptor, Party, Record, State},
        text::Text,
    },
    proto::v1,
};

/// A record, for the answer to whoever stores it. One that waits for its shred by now, or was corrected since, is not described: a
/// repeated request learns that it was done, and nothing that others have said.
pub(in crate::grpc) fn written_to_proto(record: &Record) -> v1::Record {
    let whole = corrected_to_proto(record);
    v1::Record {
        descriptor: whole.descriptor.filter(|_| record.version == 1),
        ..whole
    }
}

/// A record, for the answer to whoever corrects it.
pub(in crate::grpc) fn corrected_to_proto(record: &Record) -> v1::Record {
    let whole = record_to_proto(record);
    v1::Record {
        descriptor: whole.descriptor.filter(|_| record.state != State::PendingShred),
        ..whole
    }
}

/// A record, for the answer to a caller who may see it.
pub(in crate::grpc) fn record_to_proto(record: &Record) -> v1::Record {
    v1::Record {
        tenant_id: record.tenant.to_string(),
        record_id: record.id.to_string(),
        kind: number(record.kind.number()),
        state: number(record.state.number()),
        descriptor: Some(descriptor_to_proto(&record.descriptor)),
        create_time: Some(moment_to_proto(record.created)),
        update_time: Some(moment_to_proto(record.updated)),
        size_bytes: bytes(record.size),
        etag: record.etag(),
        region: record.region.to_string(),
        incomplete: record.descriptor.incomplete,
    }
}

fn descriptor_to_proto(d: &Descriptor) -> v1::Descriptor {
    v1::Descriptor {
        conversation_id: d.conversation_id.to_string(),
        channel: number(d.channel.number()),
        direction: d.direction.map_or(0, |term| number(Direction::number(term))),
        start_time: Some(moment_to_proto(d.start)),
        duration: d.duration_millis.map(millis_to_proto),
        parties: d.parties.iter().map(party_to_proto).collect(),
        media_type: d.media_type.as_str().to_owned(),
        languages: d.languages.iter().map(|l| l.as_str().to_owned()).collect(),
        labels: d
            .labels
            .iter()
            .map(|(key, value)| (key.as_str().to_owned(), value.clone()))
            .collect(),
        data_categories: numbers(&d.data_categories, DataCategory::number),
        allowed_purposes: numbers(&d.allowed_purposes, Purpose::number),
        legal_basis: d.legal_basis.map_or(0, |term| number(LegalBasis::number(term))),
        notice_version: text(d.notice_version.as_ref()),
        consent_ref: text(d.consent_ref.as_ref()),
        source: text(d.source.as_ref()),
        retention_class: d.retention_class.to_string(),
        age_flag: d.age_flag.map_or(0, |term| number(AgeFlag::number(term))),
        jurisdictions: d.jurisdictions.iter().map(|j| j.as_str().to_owned()).collect(),
        external_id: d
            .external_id
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        derived_from: d.derived_from.map(|id| id.to_string()).unwrap_or_default(),
    }
}

fn party_to_proto(p: &Party) -> v1::Party {
    v1::Party {
        role: p.role.map_or(0, |term| number(PartyRole::number(term))),
        tel: p
            .tel
            .as_ref()
            .map(|tel| tel.as_str().to_owned())
            .unwrap_or_default(),
        mailto: p
            .mailto
            .as_ref()
            .map(|mailto| mailto.as_str().to_owned())
            .unwrap_or_default(),
        name: text(p.name.as_ref()),
        external_subject_id: text(p.external_subject_id.as_ref()),
        agent_id: text(p.agent_id.as_ref()),
        team: text(p.team.as_ref()),
    }
}

pub(super) fn numbers<'a, T: Copy + 'a>(
    terms: impl IntoIterator<Item = &'a T>,
    of: impl Fn(T) -> u32,
) -> Vec<i32> {
    terms.into_iter().map(|term| number(of(*term))).collect()
}

pub(super) fn text(text: Option<&Text>) -> String {
    text.map(|text| text.as_str().to_owned()).unwrap_or_default()
}
