//! What an erasure would cover and meet, without any change.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    domain::{
        clock::Timestamp,
        erasure::{Claim, Ground, Obstacle, Situation, Target, Verdict, verdict},
        ids::{RecordId, TenantId},
        record::{Kind as RecordKind, Party, State, SubjectIdentifier},
    },
    index::{Key, Range, Scan},
};

use super::{
    super::{Error, Kind, Vault},
    set::sha256_of,
};

/// Records looked at at once.
const BATCH: usize = 256;
const DAY_MICROS: i64 = 24 * 3_600 * 1_000_000;

/// What an erasure would cover, and what stands in its way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preview {
    /// Records, artifacts included.
    pub records: u64,
    /// Of these, derived ones.
    pub artifacts: u64,
    /// Their plaintext bytes.
    pub bytes: u64,
    /// Under a hold.
    pub held: u64,
    /// Under a minimum retention.
    pub minimum_retention: u64,
    /// Blocked.
    pub blocked: u64,
    /// Covered by another erasure already.
    pub pending: u64,
    /// Records that are about other people as well.
    pub shared: u64,
    /// How many other people those are about.
    pub other_subjects: u64,
    /// When the last minimum retention ends.
    pub minimum_until: Option<Timestamp>,
    /// SHA-256 of the set; empty for a tenant.
    pub set_sha256: Vec<u8>,
}

impl Vault {
    /// Says what an erasure would cover.
    ///
    /// # Errors
    /// As [`Vault::request_erasure`], but an empty set is one.
    pub async fn preview_erasure(
        &self,
        tenant: &TenantId,
        target: &Target,
        ground: Ground,
    ) -> Result<Preview, Error> {
        self.erasable_tenant(tenant, ground).await?;
        let mut preview = Preview::default();
        let mut people = BTreeSet::new();
        if *target == Target::Tenant {
            let mut after = None;
            loop {
                let scan = Scan {
                    range: Range::Records(tenant.clone()),
                    reverse: false,
                    after,
                    limit: BATCH,
                };
                let rows = self.index.scan(&scan).await?;
                let full = rows.len() == BATCH;
                after = rows.last().map(|row| row.key.clone());
                for row in rows {
                    let Key::Record(_, id) = row.key else { continue };
                    let located = self.parse_row(tenant, &id, row.value)?;
                    preview.count(located.kind, located.row.plaintext_length, located.state);
                }
                if !full {
                    return Ok(preview);
                }
            }
        }
        let set = self.set_of(tenant, target).await?;
        preview.set_sha256 = sha256_of(&set).to_vec();
        let mut classes = BTreeMap::new();
        let ids: Vec<RecordId> = set.into_iter().collect();
        for some in ids.chunks(BATCH) {
            let keys: Vec<Key> = some.iter().map(|id| Key::Record(tenant.clone(), *id)).collect();
            let values = self.index.get_many(&keys).await?;
            for (id, value) in some.iter().zip(values) {
                let Some(value) = value else { continue };
                let located = self.parse_row(tenant, id, value)?;
                let record = match self.open_record(&located).await {
                    Ok((record, _)) => record,
                    // It was shredded since its row was read.
                    Err(error) if error.kind == Kind::Shredded => continue,
                    Err(error) => return Err(error),
                };
                preview.count(located.kind, located.row.plaintext_length, located.state);
                let class = &record.descriptor.retention_class;
                if !classes.contains_key(class) {
                    classes.insert(class.clone(), self.minimum_days(tenant, class).await?);
                }
                let days = i64::from(classes[class]);
                let keep_until = record.created.plus_micros(days * DAY_MICROS);
                preview.weigh(ground, self.clock.now(), Some(keep_until).filter(|_| days > 0));
                let others: BTreeSet<String> = record
                    .descriptor
                    .parties
                    .iter()
                    .filter(|party| is_another(party, target))
                    .filter_map(person)
                    .collect();
                preview.shared += u64::from(!others.is_empty());
                people.extend(others);
            }
        }
        preview.other_subjects = people.len() as u64;
        Ok(preview)
    }
}

impl Preview {
    fn count(&mut self, kind: RecordKind, bytes: u64, state: State) {
        self.records += 1;
        self.artifacts += u64::from(kind == RecordKind::Artifact);
        self.bytes += bytes;
        self.pending += u64::from(state == State::PendingShred);
    }

    fn weigh(&mut self, ground: Ground, now: Timestamp, keep_until: Option<Timestamp>) {
        let situation = Situation {
            now,
            claim: Some(Claim {
                ground,
                approved: true,
                due: now,
            }),
            held: false,
            keep_until,
            block_until: None,
            expires: None,
        };
        match verdict(&situation) {
            Verdict::Wait(Obstacle::Held) => self.held += 1,
            Verdict::Wait(Obstacle::MinimumRetention) => {
                self.minimum_retention += 1;
                self.minimum_until = self.minimum_until.max(keep_until);
            }
            Verdict::Wait(Obstacle::Blocked) => self.blocked += 1,
            _ => {}
        }
    }
}

/// A customer who is not the one the erasure is about; who works for the tenant is no other person.
fn is_another(party: &Party, target: &Target) -> bool {
    if party.agent_id.is_some() {
        return false;
    }
    match target {
        Target::Subject(SubjectIdentifier::Tel(tel)) => party.tel.as_ref() != Some(tel),
        Target::Subject(SubjectIdentifier::Mailto(mailto)) => {
            party.mailto.as_ref().map(|have| have.folded()) != Some(mailto.folded())
        }
        Target::Subject(SubjectIdentifier::External(id)) => party.external_subject_id.as_ref() != Some(id),
        _ => false,
    }
}

/// What a party is told apart by; never leaves this call.
fn person(party: &Party) -> Option<String> {
    let tel = party.tel.as_ref().map(|tel| tel.as_str().to_owned());
    let mailto = || party.mailto.as_ref().map(|mailto| mailto.folded().to_string());
    let external = || {
        party
            .external_subject_id
            .as_ref()
            .map(|id| id.as_str().to_owned())
    };
    tel.or_else(mailto).or_else(external)
}
