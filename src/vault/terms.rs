//! What a record is found by: identifiers, blinded, and the random numbers that stand for them in index rows.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    crypto::{
        blind::{self, IdentifierKind},
        secret::IndexKey,
    },
    domain::{
        clock::{Rng, Timestamp},
        ids::{ConversationId, ExternalId, RecordId, TenantId},
        record::{Descriptor, SubjectIdentifier},
        text::Text,
    },
    index::{
        Expect, Index, Key, Row,
        key::{Blind, Number},
    },
    proto::storage::IdentifierRow,
};

use super::{Error, rows::RowCodec};

/// The blinded identifiers of one descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) conversation: Blind,
    /// People and agents.
    pub(crate) subjects: BTreeSet<Blind>,
    pub(crate) external: Option<Blind>,
    /// What the record was derived from: a vault-minted id, so it needs no blinding.
    pub(crate) source: Option<RecordId>,
    pub(crate) start: Timestamp,
}

impl Terms {
    pub(crate) fn of(key: &IndexKey, descriptor: &Descriptor) -> Self {
        let mut subjects = BTreeSet::new();
        for party in &descriptor.parties {
            let mut add = |kind, value: &str| subjects.insert(blind::blind(key, kind, value));
            if let Some(tel) = &party.tel {
                add(IdentifierKind::Tel, tel.as_str());
            }
            if let Some(mailto) = &party.mailto {
                add(IdentifierKind::Mailto, &mailto.folded());
            }
            if let Some(id) = &party.external_subject_id {
                add(IdentifierKind::ExternalSubject, id.as_str());
            }
            if let Some(agent) = &party.agent_id {
                add(IdentifierKind::Agent, agent.as_str());
            }
        }
        Self {
            conversation: conversation(key, &descriptor.conversation_id),
            subjects,
            external: descriptor.external_id.as_ref().map(|id| external(key, id)),
            source: descriptor.derived_from,
            start: descriptor.start,
        }
    }

    /// Every identifier that has a number.
    pub(crate) fn numbered(&self) -> BTreeSet<Blind> {
        let mut all = self.subjects.clone();
        all.insert(self.conversation);
        all
    }

    /// The keys under which a record is found.
    pub(crate) fn keys(&self, tenant: &TenantId, record: &RecordId, numbers: &Numbers) -> Vec<Key> {
        let mut keys = vec![Key::ByTime(tenant.clone(), self.start, *record)];
        if let Some(number) = numbers.known.get(&self.conversation) {
            keys.push(Key::ByConversation(tenant.clone(), *number, self.start, *record));
        }
        let subjects = self.subjects.iter().filter_map(|blind| numbers.known.get(blind));
        keys.extend(subjects.map(|n| Key::BySubject(tenant.clone(), *n, self.start, *record)));
        let source = self.source.iter();
        keys.extend(source.map(|of| Key::BySource(tenant.clone(), *of, self.start, *record)));
        keys
    }
}

pub(crate) fn conversation(key: &IndexKey, id: &ConversationId) -> Blind {
    blind::blind(key, IdentifierKind::Conversation, id.as_str())
}

pub(crate) fn external(key: &IndexKey, id: &ExternalId) -> Blind {
    blind::blind(key, IdentifierKind::ExternalRecord, id.as_str())
}

pub(crate) fn subject(key: &IndexKey, subject: &SubjectIdentifier) -> Blind {
    match subject {
        SubjectIdentifier::Tel(tel) => blind::blind(key, IdentifierKind::Tel, tel.as_str()),
        SubjectIdentifier::Mailto(mailto) => blind::blind(key, IdentifierKind::Mailto, &mailto.folded()),
        SubjectIdentifier::External(id) => blind::blind(key, IdentifierKind::ExternalSubject, id.as_str()),
    }
}

pub(crate) fn agent(key: &IndexKey, id: &Text) -> Blind {
    blind::blind(key, IdentifierKind::Agent, id.as_str())
}

/// The numbers of some identifiers, and the rows that make new ones known.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    pub(crate) known: BTreeMap<Blind, Number>,
    pub(crate) minted: BTreeMap<Blind, Row>,
}

impl Numbers {
    /// What must hold for the minted rows to be written.
    pub(crate) fn expectations(&self) -> Vec<Expect> {
        self.minted
            .values()
            .map(|row| Expect::Absent(row.key.clone()))
            .collect()
    }
}

/// Looks up the number of one identifier.
pub(crate) async fn number(
    index: &dyn Index,
    rows: &RowCodec,
    tenant: &TenantId,
    blind: &Blind,
) -> Result<Option<Number>, Error> {
    let key = Key::Identifier(tenant.clone(), *blind);
    let Some(value) = index.get(&key).await? else {
        return Ok(None);
    };
    number_of(rows, &key, &value).map(Some)
}

/// Looks up the numbers of identifiers and mints those that are missing.
pub(crate) async fn numbers(
    index: &dyn Index,
    rows: &RowCodec,
    rng: &dyn Rng,
    tenant: &TenantId,
    blinds: &BTreeSet<Blind>,
) -> Result<Numbers, Error> {
    let keys: Vec<Key> = blinds
        .iter()
        .map(|b| Key::Identifier(tenant.clone(), *b))
        .collect();
    let values = index.get_many(&keys).await?;
    let mut numbers = Numbers::default();
    for ((blind, key), value) in blinds.iter().zip(keys).zip(values) {
        let number = match value {
            Some(value) => number_of(rows, &key, &value)?,
            None => {
                let mut number = Number::default();
                rng.fill(&mut number)?;
                let row = IdentifierRow {
                    number: number.to_vec().into(),
                };
                numbers.minted.insert(*blind, rows.row(key, &row));
                number
            }
        };
        numbers.known.insert(*blind, number);
    }
    Ok(numbers)
}

fn number_of(rows: &RowCodec, key: &Key, value: &[u8]) -> Result<Number, Error> {
    let row: IdentifierRow = rows.open(key, value)?;
    row.number[..].try_into().map_err(|_| Error::corrupt("index row"))
}
