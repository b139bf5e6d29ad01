//! Decisions that were made before: a service asks the same thousands of times a second, and a decision depends on nothing but what is asked.
//!
//! What is asked of a record is what policies may read of it (`entities`), so that records that are alike share a decision; its id is a part of it only
//! where a policy names a record.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Decision, Resource};
use crate::domain::{
    ids::{RecordId, RetentionClassId, TenantId},
    principal::{Action, Principal},
    purpose::{AgeFlag, DataCategory, LegalBasis, Purpose},
    record::{Kind, Record, State},
    text::{Jurisdiction, Text},
};

/// Decisions of a generation; there are two. Some hundred bytes each, and what a record says of agents and teams.
const DECISIONS: usize = 16_384;
const FACTS_BYTES: usize = 512;

/// What was asked.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Question {
    /// Where the principal lies in memory: it is kept with the decision, so nobody else lies there.
    principal: usize,
    action: Action,
    tenant: Option<TenantId>,
    purpose: Option<Purpose>,
    record: Option<Facts>,
}

/// What policies may read of a record.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Facts {
    id: Option<RecordId>,
    kind: Kind,
    state: State,
    purposes: BTreeSet<Purpose>,
    agents: Vec<Text>,
    teams: Vec<Text>,
    retention_class: RetentionClassId,
    legal_basis: Option<LegalBasis>,
    has_consent: bool,
    has_notice: bool,
    age: Option<AgeFlag>,
    jurisdictions: Vec<Jurisdiction>,
    data_categories: BTreeSet<DataCategory>,
    incomplete: bool,
}

impl Question {
    /// What a principal asks; `by_id` if a policy names records.
    pub(super) fn of(
        principal: &Arc<Principal>,
        action: Action,
        resource: Resource<'_>,
        purpose: Option<Purpose>,
        by_id: bool,
    ) -> Self {
        let (tenant, record) = match resource {
            Resource::Region => (None, None),
            Resource::Tenant(tenant) => (Some(tenant.clone()), None),
            Resource::Record(record) => (Some(record.tenant.clone()), Some(Facts::of(record, by_id))),
        };
        Self {
            principal: Arc::as_ptr(principal) as usize,
            action,
            tenant,
            purpose,
            record,
        }
    }
}

impl Question {
    /// What names many people is asked seldom, and would take much room.
    fn is_short(&self) -> bool {
        let texts = self
            .record
            .iter()
            .flat_map(|facts| facts.agents.iter().chain(&facts.teams));
        texts.map(|text| text.as_str().len() + 24).sum::<usize>() <= FACTS_BYTES
    }
}

impl Facts {
    fn of(record: &Record, by_id: bool) -> Self {
        let about = &record.descriptor;
        Self {
            id: by_id.then_some(record.id),
            kind: record.kind,
            state: record.state,
            purposes: about.allowed_purposes.clone(),
            agents: about
                .parties
                .iter()
                .filter_map(|party| party.agent_id.clone())
                .collect(),
            teams: about
                .parties
                .iter()
                .filter_map(|party| party.team.clone())
                .collect(),
            retention_class: about.retention_class.clone(),
            legal_basis: about.legal_basis,
            has_consent: about.consent_ref.is_some(),
            has_notice: about.notice_version.is_some(),
            age: about.age_flag,
            jurisdictions: about.jurisdictions.clone(),
            data_categories: about.data_categories.clone(),
            incomplete: about.incomplete,
        }
    }
}

/// A decision, and the principal that it is about.
type Known = (Arc<Principal>, Decision);

/// Two generations of them: what was not asked for during a whole one is forgotten.
#[derive(Default)]
pub(super) struct Memo(Mutex<Generations>);

#[derive(Default)]
struct Generations {
    young: HashMap<Question, Known>,
    old: HashMap<Question, Known>,
}

impl Memo {
    pub(super) fn get(&self, question: &Question) -> Option<Decision> {
        let mut decisions = self.lock();
        if let Some((_, decision)) = decisions.young.get(question) {
            return Some(decision.clone());
        }
        let (question, known) = decisions.old.remove_entry(question)?;
        let decision = known.1.clone();
        let forgotten = decisions.insert(question, known);
        drop(decisions);
        drop(forgotten);
        Some(decision)
    }

    pub(super) fn put(&self, question: Question, principal: &Arc<Principal>, decision: &Decision) {
        if !question.is_short() {
            return;
        }
        let known = (Arc::clone(principal), decision.clone());
        let forgotten = self.lock().insert(question, known);
        // Thousands of them, and nobody waits for it.
        drop(forgotten);
    }

    fn lock(&self) -> MutexGuard<'_, Generations> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Generations {
    /// Returns a generation that is over.
    fn insert(&mut self, question: Question, known: Known) -> Option<HashMap<Question, Known>> {
        let over = (self.young.len() >= DECISIONS).then(|| {
            let young = std::mem::take(&mut self.young);
            std::mem::replace(&mut self.old, young)
        });
        self.young.insert(question, known);
        over
    }
}

impl fmt::Debug for Memo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decisions = self.lock();
        write!(
            f,
            "Memo({} decisions)",
            decisions.young.len() + decisions.old.len()
        )
    }
}
