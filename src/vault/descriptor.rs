//! Descriptors as they are stored: encoded, sealed under the record's own key, bound to their blob.

use std::str::FromStr;

use bytes::Bytes;
use prost::Message;

use crate::{
    blob::format::{self, Entry},
    crypto::{
        CryptoError, aead,
        context::{self, BindingFields, DescriptorContext},
        secret::DescriptorKey,
    },
    domain::{
        clock::{Rng, Timestamp},
        ids::{InvalidId, RecordId, RegionName, TenantId, VaultId},
        limits,
        purpose::{AgeFlag, Channel, DataCategory, Direction, LegalBasis, PartyRole, Purpose},
        record::{Descriptor, Kind, Party},
    },
    proto::storage,
};

use super::{Error, error::Kind as ErrorKind};

/// Where a descriptor belongs: everything that its seal authenticates.
#[derive(Clone, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) vault: &'a VaultId,
    pub(crate) tenant: &'a TenantId,
    pub(crate) record: &'a RecordId,
    pub(crate) kind: Kind,
    pub(crate) region: &'a RegionName,
    pub(crate) created: Timestamp,
    pub(crate) object_key: &'a str,
    pub(crate) entry_index: u32,
    pub(crate) entry_count: u32,
    pub(crate) plaintext_length: u64,
    pub(crate) version: u32,
    pub(crate) binding: &'a [u8; 32],
}

impl Place<'_> {
    fn context(&self) -> Vec<u8> {
        let (mut extent_count, mut last_extent_length) = (0, 0);
        for length in format::extent_lengths(self.plaintext_length) {
            extent_count += 1;
            last_extent_length = length;
        }
        context::descriptor(&DescriptorContext {
            vault: self.vault,
            tenant: self.tenant,
            record: self.record,
            kind: self.kind.number(),
            region: self.region,
            created_at: self.created,
            object_key: self.object_key,
            entry_index: self.entry_index,
            entry_count: self.entry_count,
            extent_count,
            last_extent_length,
            plaintext_length: self.plaintext_length,
            descriptor_version: self.version,
            binding: self.binding,
        })
    }

    /// Seals a descriptor for this place.
    pub(crate) fn seal(
        &self,
        key: &DescriptorKey,
        descriptor: &Descriptor,
        rng: &dyn Rng,
    ) -> Result<Bytes, Error> {
        let encoded = zeroize::Zeroizing::new(to_proto(descriptor).encode_to_vec());
        check_length(encoded.len())?;
        aead::wrap(key, &encoded, &self.context(), rng)
            .map(Bytes::from)
            .map_err(crypto_failed)
    }

    /// Opens what was sealed for this place.
    pub(crate) fn open(&self, key: &DescriptorKey, sealed: &[u8]) -> Result<Descriptor, Error> {
        let opened =
            aead::unwrap_to(key, sealed, &self.context()).map_err(|_| Error::corrupt("descriptor"))?;
        let message =
            storage::Descriptor::decode(opened.expose()).map_err(|_| Error::corrupt("descriptor"))?;
        from_proto(message).map_err(|_| Error::corrupt("descriptor"))
    }
}

/// Refuses a descriptor that is too long once it is encoded.
pub(crate) fn check_length(encoded: usize) -> Result<(), Error> {
    if encoded <= limits::DESCRIPTOR_BYTES {
        return Ok(());
    }
    let message = format!(
        "the descriptor is too long limit={} bytes",
        limits::DESCRIPTOR_BYTES
    );
    Err(Error {
        field: Some("descriptor".to_owned()),
        ..Error::new(ErrorKind::Invalid, "DESCRIPTOR_TOO_LONG", message)
    })
}

/// Digest of what an entry holds beside its descriptor and the place's own fields.
pub(crate) fn binding(node: u32, entry: &Entry) -> [u8; 32] {
    let (mac, fingerprint): (&[u8], &[u8]) = entry
        .request
        .as_ref()
        .map_or((&[], &[]), |r| (&r.mac, &r.fingerprint));
    context::binding_digest(&BindingFields {
        node,
        page: &entry.page,
        slot: u32::from(entry.slot),
        wrapped_dek: &entry.wrapped_dek,
        commitment: &entry.commitment,
        request_mac: mac,
        request_fingerprint: fingerprint,
        tags_digest: &entry.tags_digest,
    })
}

fn crypto_failed(error: CryptoError) -> Error {
    Error::new(ErrorKind::Internal, "CRYPTO", "sealing failed").because(error)
}

/// A descriptor as it is encoded before it is sealed. Deterministic.
pub(crate) fn to_proto(d: &Descriptor) -> storage::Descriptor {
    let text =
        |t: &Option<crate::domain::text::Text>| t.as_ref().map(|t| t.as_str().to_owned()).unwrap_or_default();
    storage::Descriptor {
        conversation_id: d.conversation_id.to_string(),
        channel: d.channel.number(),
        direction: d.direction.map_or(0, Direction::number),
        start_micros: d.start.micros(),
        duration_millis: d.duration_millis,
        parties: d.parties.iter().map(party_to_proto).collect(),
        media_type: d.media_type.as_str().to_owned(),
        languages: d.languages.iter().map(|l| l.as_str().to_owned()).collect(),
        labels: d
            .labels
            .iter()
            .map(|(k, v)| (k.as_str().to_owned(), v.clone()))
            .collect(),
        data_categories: d.data_categories.iter().map(|c| c.number()).collect(),
        allowed_purposes: d.allowed_purposes.iter().map(|p| p.number()).collect(),
        legal_basis: d.legal_basis.map_or(0, LegalBasis::number),
        notice_version: text(&d.notice_version),
        consent_ref: text(&d.consent_ref),
        source: text(&d.source),
        retention_class: d.retention_class.to_string(),
        age_flag: d.age_flag.map_or(0, AgeFlag::number),
        jurisdictions: d.jurisdictions.iter().map(|j| j.as_str().to_owned()).collect(),
        external_id: d
            .external_id
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        derived_from: d
            .derived_from
            .map(|r| r.as_bytes().to_vec())
            .unwrap_or_default()
            .into(),
        incomplete: d.incomplete,
    }
}

pub(crate) fn party_to_proto(p: &Party) -> storage::Party {
    let text =
        |t: &Option<crate::domain::text::Text>| t.as_ref().map(|t| t.as_str().to_owned()).unwrap_or_default();
    storage::Party {
        role: p.role.map_or(0, PartyRole::number),
        tel: p.tel.as_ref().map(|t| t.as_str().to_owned()).unwrap_or_default(),
        mailto: p
            .mailto
            .as_ref()
            .map(|m| m.as_str().to_owned())
            .unwrap_or_default(),
        name: text(&p.name),
        external_subject_id: text(&p.external_subject_id),
        agent_id: text(&p.agent_id),
        team: text(&p.team),
    }
}

pub(crate) fn from_proto(m: storage::Descriptor) -> Result<Descriptor, InvalidId> {
    Ok(Descriptor {
        conversation_id: m.conversation_id.parse()?,
        channel: Channel::from_number(m.channel).ok_or_else(unknown)?,
        direction: term(m.direction, Direction::from_number)?,
        start: Timestamp(m.start_micros),
        duration_millis: m.duration_millis,
        parties: m
            .parties
            .into_iter()
            .map(party_from_proto)
            .collect::<Result<_, _>>()?,
        media_type: m.media_type.parse()?,
        languages: all(&m.languages)?,
        labels: m
            .labels
            .into_iter()
            .map(|(k, v)| Ok((k.parse()?, v)))
            .collect::<Result<_, InvalidId>>()?,
        data_categories: terms(&m.data_categories, DataCategory::from_number)?,
        allowed_purposes: terms(&m.allowed_purposes, Purpose::from_number)?,
        legal_basis: term(m.legal_basis, LegalBasis::from_number)?,
        notice_version: optional(&m.notice_version)?,
        consent_ref: optional(&m.consent_ref)?,
        source: optional(&m.source)?,
        retention_class: m.retention_class.parse()?,
        age_flag: term(m.age_flag, AgeFlag::from_number)?,
        jurisdictions: all(&m.jurisdictions)?,
        external_id: optional(&m.external_id)?,
        derived_from: (!m.derived_from.is_empty())
            .then(|| RecordId::from_slice(&m.derived_from))
            .transpose()?,
        incomplete: m.incomplete,
    })
}

fn party_from_proto(m: storage::Party) -> Result<Party, InvalidId> {
    Ok(Party {
        role: term(m.role, PartyRole::from_number)?,
        tel: optional(&m.tel)?,
        mailto: optional(&m.mailto)?,
        name: optional(&m.name)?,
        external_subject_id: optional(&m.external_subject_id)?,
        agent_id: optional(&m.agent_id)?,
        team: optional(&m.team)?,
    })
}

fn unknown() -> InvalidId {
    InvalidId {
        what: "term",
        rule: "a known number",
    }
}

fn term<T>(number: u32, from: impl Fn(u32) -> Option<T>) -> Result<Option<T>, InvalidId> {
    if number == 0 {
        Ok(None)
    } else {
        from(number).map(Some).ok_or_else(unknown)
    }
}

fn terms<T, C: FromIterator<T>>(numbers: &[u32], from: impl Fn(u32) -> Option<T>) -> Result<C, InvalidId> {
    numbers.iter().map(|n| from(*n).ok_or_else(unknown)).collect()
}

pub(crate) fn optional<T: FromStr<Err = InvalidId>>(text: &str) -> Result<Option<T>, InvalidId> {
    if text.is_empty() {
        Ok(None)
    } else {
        text.parse().map(Some)
    }
}

fn all<T: FromStr<Err = InvalidId>>(texts: &[String]) -> Result<Vec<T>, InvalidId> {
    texts.iter().map(|t| t.parse()).collect()
}
