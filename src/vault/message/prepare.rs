//! What each message of a group is: refused, answered before, or to be stored. All rows that decide it are read at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use futures_util::future::join_all;
use prost::Message as _;

use crate::{
    domain::{
        ids::{RequestId, TenantId},
        media,
        record::{Descriptor, Kind as RecordKind, State},
        tenant::TenantSettings,
    },
    index::{Key, key::Blind},
    keys::tenant::TenantKeys,
};

use super::{
    super::{
        Error, Vault, descriptor,
        put::{Closing, asked_for, external_id_taken, no_source, repeat, resolve_defaults, sniffed},
        requests::{Answered, Asked, request_reused},
        retention_class::no_class,
        terms,
        turns::{Turn, let_others_in},
    },
    Answer, MessageSpec, Waiting,
};

/// The media type of UTF-8 when none was said.
const TEXT: &str = "text/plain;charset=utf-8";
const CLASS: &str = "descriptor.retention_class";

/// A message that is going to be stored.
pub(super) struct Ready {
    pub(super) descriptor: Descriptor,
    pub(super) kind: RecordKind,
    pub(super) asked: Option<Asked>,
    pub(super) body: Bytes,
    pub(super) actor: String,
    pub(super) answer: Answer,
}

/// A message whose names are claimed.
struct Candidate {
    spec: MessageSpec,
    asked: Option<Asked>,
    external: Option<Blind>,
    /// Whether what was not said has a default.
    defaults: Result<(), Error>,
    answer: Answer,
}

/// What is known of a tenant before any of its messages is looked at.
struct Ground {
    keys: Arc<TenantKeys>,
    settings: TenantSettings,
}

type Found = BTreeMap<Key, Vec<u8>>;

impl Vault {
    /// Answers the messages of a group that are refused or were answered before, and returns the others.
    pub(super) async fn prepare(self: &Arc<Self>, tenant: &TenantId, group: Vec<Waiting>) -> Vec<Ready> {
        let (ground, turn) = match self.ground(tenant).await {
            Ok(ground) => ground,
            Err(error) => {
                let answers = group.into_iter().map(|waiting| waiting.answer);
                refuse_all(answers, error);
                return Vec::new();
            }
        };
        let mut candidates = Vec::with_capacity(group.len());
        for (done, waiting) in group.into_iter().enumerate() {
            let_others_in(done).await;
            candidates.extend(self.candidate(tenant, &ground, waiting));
        }
        let found = match self.look_up(tenant, &candidates).await {
            Ok(found) => found,
            Err(error) => {
                let answers = candidates.into_iter().map(|candidate| candidate.answer);
                refuse_all(answers, error);
                return Vec::new();
            }
        };
        let mut ready = Vec::with_capacity(candidates.len());
        let mut repeats = Vec::new();
        for (done, candidate) in candidates.into_iter().enumerate() {
            let_others_in(done).await;
            match self.answered_before(tenant, &candidate, &found) {
                Ok(None) => ready.extend(self.ready(tenant, candidate, &found)),
                Ok(Some((asked, answered))) => {
                    repeats.push(self.repeat_message(tenant, candidate.answer, asked, answered));
                }
                Err(error) => candidate.answer.give(Err(error)),
            }
        }
        drop(turn);
        join_all(repeats).await;
        if ready.is_empty() {
            return ready;
        }
        match self.ledger.keeps_up().await {
            Ok(()) => ready,
            Err(error) => {
                refuse_all(ready.into_iter().map(|ready| ready.answer), error.into());
                Vec::new()
            }
        }
    }

    /// What a group stands on, when it is the tenant's turn.
    async fn ground(&self, tenant: &TenantId) -> Result<(Ground, Turn), Error> {
        let turn = self.turn(tenant).await?;
        let (row, _) = self.active_tenant(tenant).await?;
        let ground = Ground {
            keys: self.keys.tenant(tenant).await?,
            settings: self.open_tenant(tenant, &row).await?.settings,
        };
        Ok((ground, turn))
    }

    /// Claims a message's names; answers it if they are claimed already.
    fn candidate(&self, tenant: &TenantId, ground: &Ground, waiting: Waiting) -> Option<Candidate> {
        let Waiting {
            mut spec,
            said,
            mut answer,
            ..
        } = waiting;
        let asked = |id: &RequestId| {
            let crc = crc32c::crc32c(&spec.body);
            let what = asked_for(&said, &Closing::default(), spec.body.len() as u64, crc);
            Asked::new(&ground.keys, tenant, id, what)
        };
        let asked = spec.request.as_ref().map(asked);
        let external = spec.draft.descriptor.external_id.as_ref();
        let external = external.map(|id| terms::external(ground.keys.index_key(), id));
        let names = [asked.as_ref().map(|asked| asked.mac), external];
        match self.under_way.claim(names.into_iter().flatten()) {
            Ok(claim) => {
                answer.claim = Some(claim);
                Some(Candidate {
                    asked,
                    external,
                    defaults: resolve_defaults(&mut spec.draft, &ground.settings),
                    spec,
                    answer,
                })
            }
            Err(error) => {
                answer.give(Err(error));
                None
            }
        }
    }

    /// The rows that decide over all candidates, read at once.
    async fn look_up(&self, tenant: &TenantId, candidates: &[Candidate]) -> Result<Found, Error> {
        let keys: BTreeSet<Key> = candidates
            .iter()
            .flat_map(|candidate| {
                let descriptor = &candidate.spec.draft.descriptor;
                let class = Key::RetentionClass(tenant.clone(), descriptor.retention_class.clone());
                let request = candidate.asked.as_ref();
                let request = request.map(|asked| Key::Request(tenant.clone(), asked.mac));
                let external = candidate.external.map(|id| Key::External(tenant.clone(), id));
                let source = descriptor.derived_from.map(|id| Key::Record(tenant.clone(), id));
                [Some(class), request, external, source].into_iter().flatten()
            })
            .collect();
        let keys: Vec<Key> = keys.into_iter().collect();
        let values = self.index.get_many(&keys).await?;
        let found = keys.into_iter().zip(values);
        Ok(found.filter_map(|(key, value)| Some((key, value?))).collect())
    }

    /// What a message's request was about before.
    fn answered_before(
        &self,
        tenant: &TenantId,
        candidate: &Candidate,
        found: &Found,
    ) -> Result<Option<(Asked, Answered)>, Error> {
        let Some(asked) = &candidate.asked else {
            return Ok(None);
        };
        let key = Key::Request(tenant.clone(), asked.mac);
        let Some(value) = found.get(&key) else {
            return Ok(None);
        };
        let answered = self.answered_in(&key, value)?;
        Ok(answered.map(|answered| (asked.clone(), answered)))
    }

    async fn repeat_message(
        self: &Arc<Self>,
        tenant: &TenantId,
        answer: Answer,
        asked: Asked,
        answered: Answered,
    ) {
        answer.give(match repeat(self, tenant, &asked, &answered).await {
            Ok(record) if record.kind == RecordKind::Recording => Err(request_reused()),
            repeated => repeated,
        });
    }

    /// A candidate that may be stored; answers it if it may not.
    fn ready(&self, tenant: &TenantId, candidate: Candidate, found: &Found) -> Option<Ready> {
        let Candidate {
            spec,
            asked,
            external,
            defaults,
            answer,
        } = candidate;
        let judged = defaults.and_then(|()| self.judge(tenant, &spec, external, found));
        match judged {
            Ok((descriptor, kind)) => Some(Ready {
                descriptor,
                kind,
                asked,
                body: spec.body,
                actor: spec.actor,
                answer,
            }),
            Err(error) => {
                answer.give(Err(error));
                None
            }
        }
    }

    /// A message's kind and its descriptor as it is going to be sealed.
    fn judge(
        &self,
        tenant: &TenantId,
        spec: &MessageSpec,
        external: Option<Blind>,
        found: &Found,
    ) -> Result<(Descriptor, RecordKind), Error> {
        let mut descriptor = spec.draft.descriptor.clone();
        let class = Key::RetentionClass(tenant.clone(), descriptor.retention_class.clone());
        let row = found.get(&class).ok_or_else(|| no_class(CLASS))?;
        self.rows
            .open::<crate::proto::storage::RetentionClass>(&class, row)?;
        if external.is_some_and(|id| found.contains_key(&Key::External(tenant.clone(), id))) {
            return Err(external_id_taken());
        }
        let kind = match descriptor.derived_from {
            None => RecordKind::Message,
            Some(source) => {
                let row = found
                    .get(&Key::Record(tenant.clone(), source))
                    .ok_or_else(no_source)?;
                if self.parse_row(tenant, &source, row.clone())?.state == State::PendingShred {
                    return Err(no_source());
                }
                RecordKind::Artifact
            }
        };
        if let Some((field, rule)) = descriptor.exceeded_limit() {
            return Err(Error::invalid(format!("descriptor.{field}"), rule));
        }
        if !spec.draft.has_media_type {
            descriptor.media_type = match std::str::from_utf8(&spec.body) {
                Ok(_) => TEXT
                    .parse()
                    .map_err(|_| Error::invalid("descriptor.media_type", "is required"))?,
                Err(_) => sniffed(&spec.body[..spec.body.len().min(media::SNIFF_LEN)])?,
            };
        }
        descriptor::check_length(descriptor::to_proto(&descriptor).encoded_len())?;
        Ok((descriptor, kind))
    }
}

/// One failure for several messages: each gets the answer, the first its cause as well.
pub(super) fn refuse_all(answers: impl Iterator<Item = Answer>, error: Error) {
    let copy = error.again();
    let mut whole = Some(error);
    for answer in answers {
        answer.give(Err(whole.take().unwrap_or_else(|| copy.again())));
    }
}
