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
    keys::tenant::TenantKeys,
    proto::storage::{ExternalRow, IdentifierRow},
};

use super::{Error, rows::RowCodec};

/// An identifier, blinded: under the index key, and under the next one while there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Term {
    pub(crate) now: Blind,
    pub(crate) next: Option<Blind>,
}

/// The keys that blind.
#[derive(Clone, Copy)]
struct Blinder<'a> {
    now: &'a IndexKey,
    next: Option<&'a IndexKey>,
}

impl Blinder<'_> {
    fn term(self, of: impl Fn(&IndexKey) -> Blind) -> Term {
        Term {
            now: of(self.now),
            next: self.next.map(of),
        }
    }
}

/// The blinded identifiers of one descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    conversation: Term,
    /// People and agents.
    subjects: BTreeSet<Term>,
    external: Option<Term>,
    /// What the record was derived from: a vault-minted id, so it needs no blinding.
    source: Option<RecordId>,
    start: Timestamp,
}

impl Terms {
    /// As they are written: whoever writes them expects the [`super::blinding`] of the same keys.
    pub(crate) fn of(keys: &TenantKeys, descriptor: &Descriptor) -> Self {
        let blinder = Blinder {
            now: keys.index_key(),
            next: keys.next_index_key(),
        };
        Self::blinded(blinder, descriptor)
    }

    /// As they are looked up.
    pub(crate) fn current(keys: &TenantKeys, descriptor: &Descriptor) -> Self {
        let blinder = Blinder {
            now: keys.index_key(),
            next: None,
        };
        Self::blinded(blinder, descriptor)
    }

    fn blinded(blinder: Blinder<'_>, descriptor: &Descriptor) -> Self {
        let mut subjects = BTreeSet::new();
        for party in &descriptor.parties {
            let mut add =
                |kind, value: &str| subjects.insert(blinder.term(|key| blind::blind(key, kind, value)));
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
        let external_id = descriptor.external_id.as_ref();
        Self {
            conversation: blinder.term(|key| conversation(key, &descriptor.conversation_id)),
            subjects,
            external: external_id.map(|id| blinder.term(|key| external(key, id))),
            source: descriptor.derived_from,
            start: descriptor.start,
        }
    }

    /// Every identifier that has a number.
    pub(crate) fn numbered(&self) -> BTreeSet<Term> {
        let mut all = self.subjects.clone();
        all.insert(self.conversation);
        all
    }

    /// The keys under which a record is found, now and after the next index key took over.
    pub(crate) fn keys(&self, tenant: &TenantId, record: &RecordId, numbers: &Numbers) -> Vec<Key> {
        let mut keys = vec![Key::ByTime(tenant.clone(), self.start, *record)];
        keys.extend(self.numbered_keys(tenant, record, |term| numbers.all(term)));
        let source = self.source.iter();
        keys.extend(source.map(|of| Key::BySource(tenant.clone(), *of, self.start, *record)));
        keys
    }

    /// Those of them that lead nowhere before.
    pub(crate) fn renumbered_keys(
        &self,
        tenant: &TenantId,
        record: &RecordId,
        numbers: &Numbers,
    ) -> Vec<Key> {
        self.numbered_keys(tenant, record, |term| numbers.other(term).into_iter().collect())
    }

    fn numbered_keys(
        &self,
        tenant: &TenantId,
        record: &RecordId,
        numbers: impl Fn(&Term) -> Vec<Number>,
    ) -> Vec<Key> {
        let conversation = numbers(&self.conversation).into_iter();
        let by_conversation = |n| Key::ByConversation(tenant.clone(), n, self.start, *record);
        let subjects = self.subjects.iter().flat_map(numbers);
        let by_subject = |n| Key::BySubject(tenant.clone(), n, self.start, *record);
        let keys = conversation.map(by_conversation);
        keys.chain(subjects.map(by_subject)).collect()
    }

    /// The keys of the external id: under the current index key, then under the next.
    pub(crate) fn external_keys(&self, tenant: &TenantId) -> Vec<Key> {
        let blinds = self.external.iter().flat_map(Term::blinds);
        blinds.map(|blind| Key::External(tenant.clone(), blind)).collect()
    }

    /// The rows of the external id, in the same order.
    pub(crate) fn external_rows(
        &self,
        rows: &RowCodec,
        tenant: &TenantId,
        keys: &TenantKeys,
        record: &RecordId,
    ) -> Vec<Row> {
        let (now, next) = keys.blinding();
        let row = |(key, generation)| {
            let record_id = record.as_bytes().to_vec().into();
            rows.row(
                key,
                &ExternalRow {
                    record_id,
                    generation,
                },
            )
        };
        let external = self.external_keys(tenant).into_iter();
        external.zip([now, next]).map(row).collect()
    }
}

impl Term {
    fn blinds(&self) -> impl Iterator<Item = Blind> {
        [Some(self.now), self.next].into_iter().flatten()
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

/// The numbers of some identifiers, and the rows that make new ones known. By what the current index key blinds.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    known: BTreeMap<Blind, Numbered>,
    minted: BTreeMap<Blind, Vec<Row>>,
    /// What nobody may have made known before what was looked up here is changed.
    absent: Vec<Key>,
}

/// What stands for one identifier.
#[derive(Clone, Copy, Debug)]
struct Numbered {
    now: Number,
    /// After the next index key took over, if it is another one.
    next: Option<Number>,
}

impl Numbers {
    /// The rows that make a new number known: none if it is.
    pub(crate) fn minted(&self, term: &Term) -> &[Row] {
        self.minted.get(&term.now).map_or(&[], Vec::as_slice)
    }

    /// All of these rows.
    pub(crate) fn into_minted(self) -> impl Iterator<Item = Row> {
        self.minted.into_values().flatten()
    }

    /// Whether all of these identifiers have one.
    pub(crate) fn are_of(&self, terms: &BTreeSet<Term>) -> bool {
        terms.iter().all(|term| self.known.contains_key(&term.now))
    }

    /// What must hold for the minted rows to be written.
    pub(crate) fn expectations(&self) -> Vec<Expect> {
        let minted = self.minted.values().flatten().map(|row| &row.key);
        minted
            .chain(&self.absent)
            .map(|key| Expect::Absent(key.clone()))
            .collect()
    }

    fn all(&self, term: &Term) -> Vec<Number> {
        let numbered = self.known.get(&term.now);
        let both = numbered.map(|of| [Some(of.now), of.next]);
        both.into_iter().flatten().flatten().collect()
    }

    fn other(&self, term: &Term) -> Option<Number> {
        self.known.get(&term.now).and_then(|of| of.next)
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
///
/// Under the next index key an identifier has the number that it has, unless a shredded record was found by that: then it gets
/// a new one, which nobody finds in what was stored before. Once it has one it keeps it, whatever is shredded meanwhile.
pub(crate) async fn numbers(
    index: &dyn Index,
    rows: &RowCodec,
    rng: &dyn Rng,
    tenant: &TenantId,
    keys: &TenantKeys,
    terms: &BTreeSet<Term>,
) -> Result<Numbers, Error> {
    let found = look_up(index, rows, tenant, terms).await?;
    let (now, next) = keys.blinding();
    let replaced = match keys.next_index_key() {
        Some(_) => to_be_replaced(index, tenant, &found).await?,
        None => BTreeSet::new(),
    };
    let mut numbers = Numbers::default();
    for (term, stored) in terms.iter().zip(found) {
        let mut mint = |blind, number: Number, generation| {
            let row = IdentifierRow {
                number: number.to_vec().into(),
                generation,
            };
            let row = rows.row(Key::Identifier(tenant.clone(), blind), &row);
            numbers.minted.entry(term.now).or_default().push(row);
        };
        let current = match stored.now {
            Some(number) => number,
            None => {
                let number = fresh(rng)?;
                mint(term.now, number, now);
                number
            }
        };
        let after = match (term.next, stored.next) {
            (None, _) => current,
            (Some(_), Some(number)) => number,
            (Some(blind), None) => {
                let number = if replaced.contains(&current) {
                    fresh(rng)?
                } else {
                    current
                };
                mint(blind, number, next);
                number
            }
        };
        let numbered = Numbered {
            now: current,
            next: (after != current).then_some(after),
        };
        numbers.known.insert(term.now, numbered);
    }
    Ok(numbers)
}

/// Looks up the numbers of identifiers, for whoever deletes what they lead to. None is minted; that one is by somebody else is
/// part of the expectations.
pub(crate) async fn known_numbers(
    index: &dyn Index,
    rows: &RowCodec,
    tenant: &TenantId,
    terms: &BTreeSet<Term>,
) -> Result<Numbers, Error> {
    let found = look_up(index, rows, tenant, terms).await?;
    let mut numbers = Numbers::default();
    for (term, stored) in terms.iter().zip(found) {
        if let (Some(blind), None) = (term.next, stored.next) {
            numbers.absent.push(Key::Identifier(tenant.clone(), blind));
        }
        if let Some(now) = stored.now.or(stored.next) {
            let next = stored.next.filter(|next| *next != now);
            numbers.known.insert(term.now, Numbered { now, next });
        }
    }
    Ok(numbers)
}

/// What is stored of an identifier.
#[derive(Clone, Copy, Default)]
struct Stored {
    now: Option<Number>,
    next: Option<Number>,
}

async fn look_up(
    index: &dyn Index,
    rows: &RowCodec,
    tenant: &TenantId,
    terms: &BTreeSet<Term>,
) -> Result<Vec<Stored>, Error> {
    let blinds = terms.iter().flat_map(Term::blinds);
    let keys: Vec<Key> = blinds.map(|b| Key::Identifier(tenant.clone(), b)).collect();
    let values = index.get_many(&keys).await?;
    let mut found = keys.iter().zip(values).map(|(key, value)| {
        let value = value.as_deref();
        value.map(|value| number_of(rows, key, value)).transpose()
    });
    let mut one = || found.next().transpose().map(Option::flatten);
    let mut stored = Vec::with_capacity(terms.len());
    for term in terms {
        stored.push(Stored {
            now: one()?,
            next: if term.next.is_some() { one()? } else { None },
        });
    }
    Ok(stored)
}

/// Which of the numbers that the next index key has none for are not to be found under it.
async fn to_be_replaced(
    index: &dyn Index,
    tenant: &TenantId,
    found: &[Stored],
) -> Result<BTreeSet<Number>, Error> {
    let open = found.iter().filter(|stored| stored.next.is_none());
    let numbers: Vec<Number> = open.filter_map(|stored| stored.now).collect();
    let renumber = |number: &Number| Key::Renumber(tenant.clone(), *number);
    let keys: Vec<Key> = numbers.iter().map(renumber).collect();
    let values = index.get_many(&keys).await?;
    let replaced = numbers.into_iter().zip(values);
    Ok(replaced
        .filter(|(_, value)| value.is_some())
        .map(|(n, _)| n)
        .collect())
}

fn fresh(rng: &dyn Rng) -> Result<Number, Error> {
    let mut number = Number::default();
    rng.fill(&mut number)?;
    Ok(number)
}

fn number_of(rows: &RowCodec, key: &Key, value: &[u8]) -> Result<Number, Error> {
    let row: IdentifierRow = rows.open(key, value)?;
    row.number[..].try_into().map_err(|_| Error::corrupt("index row"))
}
