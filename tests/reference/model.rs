//! What is correct: plain data, plain loops, no keys, no store.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use callvault::{
    domain::{
        clock::Timestamp,
        ids::{ExternalId, RecordId, RequestId, RetentionClassId, TenantId},
        limits, media,
        purpose::Purpose,
        record::{Descriptor, Kind as RecordKind, Query, Record, State},
        tenant::{RetentionClass, Tenant, TenantSettings, TenantState},
    },
    vault::{Closing, DescriptorChange, Kind, Name, Order, PutSpec, TenantChange},
};

/// An answer: what was asked for, or what a caller is told.
pub(crate) type Answer<T> = Result<T, (Kind, &'static str)>;

const INVALID: (Kind, &str) = (Kind::Invalid, "INVALID_FIELD");
const NOT_FOUND: (Kind, &str) = (Kind::NotFound, "NOT_FOUND");
const SHREDDED: (Kind, &str) = (Kind::Shredded, "SHREDDED");
const REUSED: (Kind, &str) = (Kind::AlreadyExists, "REQUEST_ID_REUSED");
const ETAG: (Kind, &str) = (Kind::Conflict, "ETAG_MISMATCH");

/// A vault, as it ought to be.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Model {
    pub(crate) now: Timestamp,
    pub(crate) tenants: BTreeMap<TenantId, Holdings>,
}

/// What one tenant has.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Holdings {
    pub(crate) tenant: Tenant,
    pub(crate) classes: BTreeMap<RetentionClassId, RetentionClass>,
    pub(crate) records: BTreeMap<RecordId, (Record, Bytes)>,
    requests: BTreeMap<RequestId, Remembered>,
    /// Puts that failed after their blob may have become durable.
    pub(crate) limbo: Vec<super::drive::Limbo>,
}

#[derive(Clone, Debug, PartialEq)]
struct Remembered {
    asked: Asked,
    record: Option<RecordId>,
    expires: Timestamp,
}

/// What a request id was used for.
#[derive(Clone, Debug, PartialEq)]
enum Asked {
    Tenant(TenantSettings),
    Class(RetentionClass),
    Settings(BTreeSet<&'static str>, TenantSettings, Option<String>),
    Put(Box<Said>),
    Update(RecordId, BTreeSet<&'static str>, Box<Descriptor>, Option<String>),
}

#[derive(Clone, Debug, PartialEq)]
struct Said {
    message: bool,
    descriptor: Descriptor,
    duration: Option<i64>,
    parties: Vec<callvault::domain::record::Party>,
    content: Bytes,
}

/// A put with its content.
#[derive(Clone, Debug)]
pub(crate) struct Upload {
    /// Whether it is put as a message.
    pub(crate) message: bool,
    pub(crate) spec: PutSpec,
    pub(crate) closing: Closing,
    pub(crate) content: Bytes,
    pub(crate) at: Timestamp,
}

impl PartialEq for Upload {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
            && self.message == other.message
            && self.content == other.content
            && self.spec.draft.descriptor == other.spec.draft.descriptor
    }
}

impl Model {
    fn of(&self, id: &TenantId) -> Answer<&Holdings> {
        self.tenants.get(id).ok_or(NOT_FOUND)
    }

    fn of_mut(&mut self, id: &TenantId) -> Answer<&mut Holdings> {
        self.tenants.get_mut(id).ok_or(NOT_FOUND)
    }

    pub(crate) fn create_tenant(
        &mut self,
        id: &TenantId,
        settings: TenantSettings,
        request: Option<&RequestId>,
    ) -> Answer<Tenant> {
        if settings.default_retention_class.is_some() {
            return Err(INVALID);
        }
        let now = self.now;
        let asked = Asked::Tenant(settings.clone());
        if let Some(have) = self.tenants.get(id) {
            return match request.map(|r| have.seen(r, &asked, now)).transpose()? {
                Some(Some(_)) => Ok(have.tenant.clone()),
                _ => Err((Kind::AlreadyExists, "TENANT_EXISTS")),
            };
        }
        let tenant = Tenant {
            id: id.clone(),
            settings,
            state: TenantState::Active,
            version: 1,
            created: now,
            updated: now,
        };
        let mut new = Holdings {
            tenant: tenant.clone(),
            classes: BTreeMap::new(),
            records: BTreeMap::new(),
            requests: BTreeMap::new(),
            limbo: Vec::new(),
        };
        new.remember(request, asked, None, now);
        self.tenants.insert(id.clone(), new);
        Ok(tenant)
    }

    pub(crate) fn tenant(&self, id: &TenantId) -> Answer<Tenant> {
        Ok(self.of(id)?.tenant.clone())
    }

    pub(crate) fn update_tenant(
        &mut self,
        id: &TenantId,
        change: &TenantChange,
        etag: Option<&str>,
        request: Option<&RequestId>,
    ) -> Answer<Tenant> {
        let now = self.now;
        let have = self.of_mut(id)?;
        let asked = Asked::Settings(
            change.fields.clone(),
            change.settings.clone(),
            etag.map(str::to_owned),
        );
        if let Some(request) = request
            && have.seen(request, &asked, now)?.is_some()
        {
            return Ok(have.tenant.clone());
        }
        if etag.is_some_and(|etag| etag != have.tenant.etag()) {
            return Err(ETAG);
        }
        let mut settings = have.tenant.settings.clone();
        let new = &change.settings;
        for field in &change.fields {
            match *field {
                "display_name" => settings.display_name = new.display_name.clone(),
                "controller" => settings.controller = new.controller.clone(),
                "default_retention_class" => {
                    settings.default_retention_class = new.default_retention_class.clone();
                }
                "allowed_purposes" => settings.allowed_purposes = new.allowed_purposes.clone(),
                other => panic!("not drawn: {other}"),
            }
        }
        if let Some(class) = &settings.default_retention_class
            && !have.classes.contains_key(class)
        {
            return Err(INVALID);
        }
        have.tenant.settings = settings;
        have.tenant.version += 1;
        have.tenant.updated = now;
        have.remember(request, asked, None, now);
        Ok(have.tenant.clone())
    }

    pub(crate) fn create_class(
        &mut self,
        id: &TenantId,
        class: RetentionClass,
        request: Option<&RequestId>,
    ) -> Answer<RetentionClass> {
        let now = self.now;
        let have = self.of_mut(id)?;
        if class.maximum_days.is_some_and(|most| most < class.minimum_days) {
            return Err(INVALID);
        }
        let asked = Asked::Class(class.clone());
        if let Some(request) = request
            && have.seen(request, &asked, now)?.is_some()
        {
            return have.classes.get(&class.id).cloned().ok_or(NOT_FOUND);
        }
        if have.classes.contains_key(&class.id) {
            return Err((Kind::AlreadyExists, "RETENTION_CLASS_EXISTS"));
        }
        let effective = if class.effective == Timestamp(0) {
            now
        } else {
            class.effective
        };
        let class = RetentionClass {
            created: now,
            effective,
            ..class
        };
        have.classes.insert(class.id.clone(), class.clone());
        have.remember(request, asked, None, now);
        Ok(class)
    }

    /// What a put leads to: a refusal, an earlier record, or a new one but for its id.
    pub(crate) fn put(&self, upload: &Upload) -> Answer<Outcome> {
        if upload.message {
            upload.check_content()?;
        }
        let have = self.of(&upload.spec.tenant)?;
        let spec = &upload.spec;
        if let Some(seen) = spec.request.as_ref().and_then(|r| have.requests.get(r))
            && seen.expires > self.now
        {
            let Some(record) = seen.record else {
                return Err(REUSED);
            };
            upload.check_content()?;
            if seen.asked != upload.asked() {
                return Err(REUSED);
            }
            let record = have.records.get(&record).ok_or(SHREDDED)?;
            return Ok(Outcome::Repeated(Box::new(record.0.clone())));
        }
        let mut described = spec.draft.descriptor.clone();
        if !spec.draft.has_retention_class {
            let default = &have.tenant.settings.default_retention_class;
            described.retention_class = default.clone().ok_or(INVALID)?;
        }
        if described.allowed_purposes.is_empty() {
            described.allowed_purposes = match &have.tenant.settings.allowed_purposes {
                none if none.is_empty() => Purpose::defaults().collect(),
                some => some.clone(),
            };
        }
        if !have.classes.contains_key(&described.retention_class) {
            return Err(INVALID);
        }
        if let Some(id) = &described.external_id
            && have.by_external(id).is_some()
        {
            return Err((Kind::AlreadyExists, "EXTERNAL_ID_EXISTS"));
        }
        let kind = match described.derived_from {
            None if upload.message => RecordKind::Message,
            None => RecordKind::Recording,
            Some(source) if have.records.contains_key(&source) => RecordKind::Artifact,
            Some(_) => return Err(INVALID),
        };
        upload.check_content()?;
        if !spec.draft.has_media_type {
            let start = &upload.content[..upload.content.len().min(media::SNIFF_LEN)];
            described.media_type = match std::str::from_utf8(&upload.content) {
                Ok(_) if upload.message => "text/plain;charset=utf-8".parse().unwrap(),
                _ => media::sniff(start).unwrap(),
            };
        }
        if upload.closing.duration_millis.is_some() {
            described.duration_millis = upload.closing.duration_millis;
        }
        if !upload.closing.parties.is_empty() {
            described.parties = upload.closing.parties.clone();
        }
        if described.exceeded_limit().is_some() {
            return Err(INVALID);
        }
        Ok(Outcome::New(kind, Box::new(described)))
    }

    /// A record and all that was derived from it are gone; who was there before is returned.
    pub(crate) fn erase(&mut self, tenant: &TenantId, id: RecordId) -> BTreeSet<RecordId> {
        let Some(have) = self.tenants.get_mut(tenant) else {
            return BTreeSet::new();
        };
        let mut gone = BTreeSet::from([id]);
        loop {
            let derived = have.records.values().filter(|(record, _)| {
                record
                    .descriptor
                    .derived_from
                    .is_some_and(|source| gone.contains(&source))
            });
            let before = gone.len();
            gone.extend(derived.map(|(record, _)| record.id).collect::<Vec<_>>());
            if gone.len() == before {
                break;
            }
        }
        have.records.retain(|id, _| !gone.contains(id));
        // What nobody was told of cannot outlive what it was derived from either.
        have.limbo.retain(|limbo| !limbo.is_derived_from(&gone));
        gone
    }

    /// What the messages of one batch lead to: a name that another of them has is under way.
    pub(crate) fn put_batch(&self, uploads: &[Upload]) -> Vec<Answer<Outcome>> {
        let mut under_way: BTreeSet<String> = BTreeSet::new();
        let mut outcomes = Vec::new();
        for upload in uploads {
            let request = upload
                .spec
                .request
                .as_ref()
                .map(|r| format!("request {}", r.as_str()));
            let external = upload.spec.draft.descriptor.external_id.as_ref();
            let external = external.map(|id| format!("external {}", id.as_str()));
            let names: Vec<String> = [request, external].into_iter().flatten().collect();
            let known = self.tenants.contains_key(&upload.spec.tenant);
            let content = upload.check_content();
            outcomes.push(
                if content.is_ok() && known && names.iter().any(|n| under_way.contains(n)) {
                    Err((Kind::Conflict, "UPLOAD_UNDER_WAY"))
                } else {
                    under_way.extend(names.into_iter().filter(|_| content.is_ok()));
                    self.put(upload)
                },
            );
        }
        outcomes
    }

    pub(crate) fn message(
        &self,
        tenant: &TenantId,
        id: RecordId,
        purpose: Purpose,
    ) -> Answer<(Record, Bytes)> {
        let content = match self.read(tenant, id, 0, None, purpose) {
            Err((Kind::Invalid, _)) => panic!("no record is empty"),
            read => read?,
        };
        let (record, _) = self.locate(tenant, &Name::Id(id))?;
        if record.kind == RecordKind::Recording || record.size > limits::MESSAGE_BYTES {
            return Err((Kind::WrongState, "NOT_A_MESSAGE"));
        }
        Ok((record.clone(), content))
    }

    /// Takes a new record under the id that the vault gave it.
    pub(crate) fn accept(
        &mut self,
        upload: &Upload,
        id: RecordId,
        kind: RecordKind,
        descriptor: Descriptor,
        region: &callvault::domain::ids::RegionName,
    ) -> Record {
        let have = self.tenants.get_mut(&upload.spec.tenant).unwrap();
        let record = Record {
            tenant: upload.spec.tenant.clone(),
            id,
            kind,
            state: descriptor.resting_state(),
            descriptor,
            version: 1,
            created: upload.at,
            updated: upload.at,
            size: upload.content.len() as u64,
            region: region.clone(),
        };
        have.remember(upload.spec.request.as_ref(), upload.asked(), Some(id), upload.at);
        have.records.insert(id, (record.clone(), upload.content.clone()));
        record
    }

    pub(crate) fn locate(&self, tenant: &TenantId, name: &Name) -> Answer<&(Record, Bytes)> {
        let have = self.of(tenant)?;
        let found = match name {
            Name::Id(id) => have.records.get(id),
            Name::External(id) => have.by_external(id),
        };
        found.ok_or(NOT_FOUND)
    }

    pub(crate) fn record(&self, tenant: &TenantId, name: &Name, purpose: Purpose) -> Answer<Record> {
        let (record, _) = self.locate(tenant, name)?;
        if may_see(record, purpose) {
            Ok(record.clone())
        } else {
            Err((Kind::Forbidden, "PURPOSE_DENIED"))
        }
    }

    pub(crate) fn read(
        &self,
        tenant: &TenantId,
        id: RecordId,
        offset: u64,
        limit: Option<u64>,
        purpose: Purpose,
    ) -> Answer<Bytes> {
        let (record, content) = self.locate(tenant, &Name::Id(id))?;
        if record.state != State::Active {
            return Err((Kind::WrongState, "RESTRICTED"));
        }
        if !record.descriptor.allowed_purposes.contains(&purpose) {
            return Err((Kind::Forbidden, "PURPOSE_DENIED"));
        }
        if offset >= record.size {
            return Err((Kind::Invalid, "OFFSET_OUT_OF_RANGE"));
        }
        let end = limit.map_or(record.size, |l| offset.saturating_add(l).min(record.size));
        Ok(content.slice(offset as usize..end as usize))
    }

    pub(crate) fn list(
        &self,
        tenant: &TenantId,
        query: &Query,
        order: Order,
        purpose: Purpose,
    ) -> Answer<Vec<Record>> {
        let records = self.of(tenant)?.records.values().map(|(record, _)| record);
        let mut found: Vec<Record> = records
            .filter(|r| may_see(r, purpose) && matches(query, r))
            .cloned()
            .collect();
        found.sort_by_key(|r| (r.descriptor.start, r.id));
        if order == Order::NewestFirst {
            found.reverse();
        }
        Ok(found)
    }

    pub(crate) fn update(
        &mut self,
        tenant: &TenantId,
        id: RecordId,
        change: &DescriptorChange,
        etag: Option<&str>,
        request: Option<&RequestId>,
    ) -> Answer<Record> {
        let now = self.now;
        let have = self.of_mut(tenant)?;
        let before = have.records.get(&id).ok_or(NOT_FOUND)?.0.clone();
        let asked = Asked::Update(
            id,
            change.fields.clone(),
            Box::new(change.descriptor.clone()),
            etag.map(str::to_owned),
        );
        if let Some(request) = request
            && have.seen(request, &asked, now)?.is_some()
        {
            return Ok(before);
        }
        if etag.is_some_and(|etag| etag != before.etag()) {
            return Err(ETAG);
        }
        let mut after = before;
        merge(&mut after.descriptor, change);
        if after.descriptor.exceeded_limit().is_some() {
            return Err(INVALID);
        }
        after.version += 1;
        after.updated = now;
        after.state = after.descriptor.resting_state();
        have.records.get_mut(&id).unwrap().0 = after.clone();
        have.remember(request, asked, Some(id), now);
        Ok(after)
    }
}

/// What becomes of a put that is not refused.
#[derive(Debug)]
pub(crate) enum Outcome {
    Repeated(Box<Record>),
    New(RecordKind, Box<Descriptor>),
}

impl Holdings {
    fn by_external(&self, id: &ExternalId) -> Option<&(Record, Bytes)> {
        self.records
            .values()
            .find(|(r, _)| r.descriptor.external_id.as_ref() == Some(id))
    }

    fn seen(&self, request: &RequestId, asked: &Asked, now: Timestamp) -> Answer<Option<()>> {
        match self.requests.get(request) {
            Some(have) if have.expires > now && have.asked != *asked => Err(REUSED),
            Some(have) if have.expires > now => Ok(Some(())),
            _ => Ok(None),
        }
    }

    fn remember(
        &mut self,
        request: Option<&RequestId>,
        asked: Asked,
        record: Option<RecordId>,
        at: Timestamp,
    ) {
        let expires = at.plus_micros(limits::REQUEST_ID_MICROS);
        let Some(request) = request else { return };
        if self
            .requests
            .get(request)
            .is_some_and(|have| have.expires >= expires)
        {
            return;
        }
        self.requests.insert(
            request.clone(),
            Remembered {
                asked,
                record,
                expires,
            },
        );
    }

    /// Whether another use of this upload's request id, within a day of it, was answered.
    pub(crate) fn answered_otherwise(&self, upload: &Upload) -> bool {
        let have = upload.spec.request.as_ref().and_then(|r| self.requests.get(r));
        have.is_some_and(|have| {
            let at = have.expires.0 - limits::REQUEST_ID_MICROS;
            (at - upload.at.0).abs() < limits::REQUEST_ID_MICROS
        })
    }
}

impl Upload {
    fn asked(&self) -> Asked {
        Asked::Put(Box::new(Said {
            message: self.message,
            descriptor: self.spec.draft.descriptor.clone(),
            duration: self.closing.duration_millis,
            parties: self.closing.parties.clone(),
            content: self.content.clone(),
        }))
    }

    fn check_content(&self) -> Answer<()> {
        let length = self.content.len() as u64;
        if self.message && length > limits::MESSAGE_BYTES {
            return Err((Kind::Invalid, "CONTENT_TOO_LONG"));
        }
        if self.spec.expected_size.is_some_and(|most| length > most) {
            return Err((Kind::Invalid, "CONTENT_TOO_LONG"));
        }
        if length == 0 {
            return Err((Kind::Invalid, "CONTENT_EMPTY"));
        }
        if self.spec.expected_size.is_some_and(|size| length != size) {
            return Err((Kind::Invalid, "SIZE_MISMATCH"));
        }
        let digest = ring::digest::digest(&ring::digest::SHA256, &self.content);
        match self.spec.expected_sha256 {
            Some(expected) if digest.as_ref() != expected => Err((Kind::Invalid, "SHA256_MISMATCH")),
            _ => Ok(()),
        }
    }
}

fn may_see(record: &Record, purpose: Purpose) -> bool {
    purpose == Purpose::LegalCompliance
        || purpose == Purpose::RightsFulfilment
        || record.descriptor.allowed_purposes.contains(&purpose)
}

/// The definition of a query, written down once more, so that the vault's own is not its own judge.
fn matches(query: &Query, record: &Record) -> bool {
    use callvault::domain::record::SubjectIdentifier as S;
    let d = &record.descriptor;
    let folded = |m: &callvault::domain::text::Mailto| m.as_str().to_lowercase();
    let met = |subject: &S| {
        d.parties.iter().any(|p| match subject {
            S::Tel(tel) => p.tel.as_ref() == Some(tel),
            S::Mailto(m) => p.mailto.as_ref().map(folded) == Some(folded(m)),
            S::External(id) => p.external_subject_id.as_ref() == Some(id),
        })
    };
    let all = [
        query.kinds.is_empty() || query.kinds.contains(&record.kind),
        query.states.is_empty() || query.states.contains(&record.state),
        query.from.is_none_or(|t| t <= d.start),
        query.until.is_none_or(|t| t > d.start),
        query.derived_from.is_none() || query.derived_from == d.derived_from,
        query.conversation.is_none() || query.conversation.as_ref() == Some(&d.conversation_id),
        query.subject.as_ref().is_none_or(met),
        query.agent.is_none() || d.parties.iter().any(|p| p.agent_id == query.agent),
        query.direction.is_none() || query.direction == d.direction,
        query.channel.is_none_or(|c| c == d.channel),
        query.labels.iter().all(|(k, v)| d.labels.get(k) == Some(v)),
    ];
    all.into_iter().all(|holds| holds)
}

fn merge(descriptor: &mut Descriptor, change: &DescriptorChange) {
    let new = change.descriptor.clone();
    for field in &change.fields {
        match *field {
            "conversation_id" => descriptor.conversation_id = new.conversation_id.clone(),
            "channel" => descriptor.channel = new.channel,
            "direction" => descriptor.direction = new.direction,
            "start_time" => descriptor.start = new.start,
            "duration" => descriptor.duration_millis = new.duration_millis,
            "parties" => descriptor.parties = new.parties.clone(),
            "labels" => descriptor.labels = new.labels.clone(),
            "allowed_purposes" => descriptor.allowed_purposes = new.allowed_purposes.clone(),
            "age_flag" => descriptor.age_flag = new.age_flag,
            "source" => descriptor.source = new.source.clone(),
            other => panic!("not drawn: {other}"),
        }
    }
}
