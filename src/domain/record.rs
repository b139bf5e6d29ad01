//! Records and their descriptors.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    clock::Timestamp,
    ids::{ConversationId, ExternalId, RecordId, RegionName, RetentionClassId, TenantId},
    limits,
    purpose::{AgeFlag, Channel, DataCategory, Direction, LegalBasis, PartyRole, Purpose},
    text::{Jurisdiction, LabelKey, Language, Mailto, MediaType, Tel, Text},
};

/// What kind of thing a record is. The numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Kind {
    /// A media stream.
    Recording = 1,
    /// A message body.
    Message = 2,
    /// Derived from another record; dies with it.
    Artifact = 3,
}

impl Kind {
    /// The stored number.
    pub fn number(self) -> u32 {
        self as u32
    }

    /// The kind with this stored number.
    pub fn from_number(number: u32) -> Option<Self> {
        [Self::Recording, Self::Message, Self::Artifact]
            .into_iter()
            .find(|k| k.number() == number)
    }
}

/// Where a record is in its life. The numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum State {
    /// Readable for its purposes.
    Active = 1,
    /// Kept, unreadable except for named purposes.
    Restricted = 2,
    /// Kept for the limitation period, unreadable except for named purposes.
    Blocked = 3,
    /// In grace before the shred.
    PendingShred = 4,
    /// Its key is gone.
    Shredded = 5,
}

impl State {
    /// The stored number.
    pub fn number(self) -> u32 {
        self as u32
    }

    /// The state with this stored number.
    pub fn from_number(number: u32) -> Option<Self> {
        [
            Self::Active,
            Self::Restricted,
            Self::Blocked,
            Self::PendingShred,
            Self::Shredded,
        ]
        .into_iter()
        .find(|s| s.number() == number)
    }
}

/// A person or a system that took part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Party {
    /// What they are.
    pub role: Option<PartyRole>,
    /// Their telephone number.
    pub tel: Option<Tel>,
    /// Their e-mail address.
    pub mailto: Option<Mailto>,
    /// Their name.
    pub name: Option<Text>,
    /// The platform's own id of the person.
    pub external_subject_id: Option<Text>,
    /// The platform's id of the agent.
    pub agent_id: Option<Text>,
    /// The agent's team.
    pub team: Option<Text>,
}

/// What is known of a record. Personal as a whole: `Debug` tells lengths only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// The platform's conversation.
    pub conversation_id: ConversationId,
    /// How they talked.
    pub channel: Channel,
    /// Who began.
    pub direction: Option<Direction>,
    /// When this part of the conversation began.
    pub start: Timestamp,
    /// How long it took, milliseconds.
    pub duration_millis: Option<i64>,
    /// Who took part; at most [`limits::PARTIES`].
    pub parties: Vec<Party>,
    /// What the content is.
    pub media_type: MediaType,
    /// Languages spoken.
    pub languages: Vec<Language>,
    /// The platform's own labels; at most [`limits::LABELS`].
    pub labels: BTreeMap<LabelKey, String>,
    /// Kinds of personal data inside.
    pub data_categories: BTreeSet<DataCategory>,
    /// What it may be read for; never empty.
    pub allowed_purposes: BTreeSet<Purpose>,
    /// Why keeping it is lawful.
    pub legal_basis: Option<LegalBasis>,
    /// Notice that was given.
    pub notice_version: Option<Text>,
    /// Consent that was given.
    pub consent_ref: Option<Text>,
    /// Where the content came from.
    pub source: Option<Text>,
    /// How long it is kept.
    pub retention_class: RetentionClassId,
    /// What is known of ages.
    pub age_flag: Option<AgeFlag>,
    /// Whose law applies.
    pub jurisdictions: Vec<Jurisdiction>,
    /// The platform's id of this call or message.
    pub external_id: Option<ExternalId>,
    /// What it was derived from.
    pub derived_from: Option<RecordId>,
    /// The end is missing: its upload was abandoned, and what had arrived was kept.
    pub incomplete: bool,
}

impl Descriptor {
    /// The state that a record with this descriptor is in when nothing else was decided:
    /// a child's record is restricted from the first minute (COMPLIANCE section 1, "children").
    pub fn resting_state(&self) -> State {
        match self.age_flag {
            Some(AgeFlag::Child) => State::Restricted,
            _ => State::Active,
        }
    }

    /// First limit that is exceeded, as the field's name and the rule.
    pub fn exceeded_limit(&self) -> Option<(&'static str, String)> {
        let over =
            |field, have: usize, most: usize| (have > most).then(|| (field, format!("at most {most}")));
        over("parties", self.parties.len(), limits::PARTIES)
            .or_else(|| over("labels", self.labels.len(), limits::LABELS))
            .or_else(|| over("languages", self.languages.len(), limits::TERMS))
            .or_else(|| over("jurisdictions", self.jurisdictions.len(), limits::TERMS))
            .or_else(|| {
                let long = self.labels.values().any(|v| v.len() > limits::TEXT_BYTES);
                long.then(|| {
                    (
                        "labels",
                        format!("values of at most {} bytes", limits::TEXT_BYTES),
                    )
                })
            })
            .or_else(|| {
                let negative = self.duration_millis.is_some_and(|d| d < 0);
                negative.then(|| ("duration", "not negative".to_owned()))
            })
    }
}

/// A record as it is known to callers who may know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Whose.
    pub tenant: TenantId,
    /// Its id.
    pub id: RecordId,
    /// What it is.
    pub kind: Kind,
    /// Where in its life.
    pub state: State,
    /// What is known of it.
    pub descriptor: Descriptor,
    /// Version of the descriptor, from 1.
    pub version: u32,
    /// When the vault took it.
    pub created: Timestamp,
    /// When it last changed.
    pub updated: Timestamp,
    /// Bytes of content.
    pub size: u64,
    /// Where it was taken.
    pub region: RegionName,
}

impl Record {
    /// Changes with every update.
    pub fn etag(&self) -> String {
        format!("{}-{}", self.version, self.state.number())
    }
}

/// One way to say which person is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubjectIdentifier {
    /// By telephone number.
    Tel(Tel),
    /// By e-mail address.
    Mailto(Mailto),
    /// By the platform's id.
    External(Text),
}

/// What a listing looks for; all that is set must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// Any of these; all when empty.
    pub kinds: BTreeSet<Kind>,
    /// Start times from this moment on.
    pub from: Option<Timestamp>,
    /// Start times before this moment.
    pub until: Option<Timestamp>,
    /// Of this conversation.
    pub conversation: Option<ConversationId>,
    /// With this person.
    pub subject: Option<SubjectIdentifier>,
    /// With this agent.
    pub agent: Option<Text>,
    /// Derived from this record.
    pub derived_from: Option<RecordId>,
    /// Begun by.
    pub direction: Option<Direction>,
    /// Over.
    pub channel: Option<Channel>,
    /// With all of these labels.
    pub labels: BTreeMap<LabelKey, String>,
    /// In any of these states; all when empty.
    pub states: BTreeSet<State>,
}

impl Query {
    /// Whether a record is what is looked for.
    pub fn matches(&self, record: &Record) -> bool {
        let d = &record.descriptor;
        let party = |f: &dyn Fn(&Party) -> bool| d.parties.iter().any(f);
        (self.kinds.is_empty() || self.kinds.contains(&record.kind))
            && (self.states.is_empty() || self.states.contains(&record.state))
            && self.from.is_none_or(|t| d.start >= t)
            && self.until.is_none_or(|t| d.start < t)
            && self.conversation.as_ref().is_none_or(|c| d.conversation_id == *c)
            && self.derived_from.is_none_or(|of| d.derived_from == Some(of))
            && self.direction.is_none_or(|x| d.direction == Some(x))
            && self.channel.is_none_or(|x| d.channel == x)
            && self.labels.iter().all(|(k, v)| d.labels.get(k) == Some(v))
            && self
                .agent
                .as_ref()
                .is_none_or(|a| party(&|p| p.agent_id.as_ref() == Some(a)))
            && self.subject.as_ref().is_none_or(|s| party(&|p| p.is(s)))
    }
}

impl Party {
    /// Whether this party is the person meant.
    pub fn is(&self, subject: &SubjectIdentifier) -> bool {
        match subject {
            SubjectIdentifier::Tel(tel) => self.tel.as_ref() == Some(tel),
            SubjectIdentifier::Mailto(m) => self
                .mailto
                .as_ref()
                .is_some_and(|have| have.folded() == m.folded()),
            SubjectIdentifier::External(id) => self.external_subject_id.as_ref() == Some(id),
        }
    }
}
