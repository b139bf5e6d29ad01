//! Which objects the leaves name, and which of them nothing opens any more.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use bytes::Bytes;

use crate::{
    ledger::leaf,
    proto::storage::{PageStates, RecordSet, SealedPayload, StateLeaf, state_leaf::Body},
};

/// What the leaves name.
#[derive(Clone, Debug, Default)]
pub struct Named {
    /// By tenant; the region is nobody's.
    owners: BTreeMap<String, Owner>,
    /// Settings, and sets of erasures: small, and read by whoever reads the leaf.
    lasting: BTreeMap<Bytes, u64>,
    /// Page states under versions and epochs that are destroyed.
    noise: HashSet<Bytes>,
    malformed: bool,
}

/// Objects of page states, and the versions or epochs that sealed them.
#[derive(Clone, Debug, Default)]
struct Owner {
    objects: BTreeMap<Bytes, (u64, u64)>,
    destroyed: BTreeSet<u64>,
}

impl Owner {
    fn take(&mut self, body: Body) {
        match body {
            Body::RootEpochCreated(body) => self.name(body.epoch, &body.page_states),
            Body::RegionPageSealed(page) => self.name(page.epoch, page.stored.as_slice()),
            Body::RootEpochDestroyed(body) if body.scheduled_micros == 0 => {
                self.destroyed.insert(body.epoch);
            }
            Body::TenantKeyRotated(body) => {
                self.name(body.key.map_or(0, |key| key.version), &body.page_states);
            }
            Body::RecordsShredded(body) => {
                let version = body.pages.iter().map(|page| page.key_version).max();
                self.name(version.unwrap_or(0), &body.page_states);
            }
            Body::TenantKeyDestroyed(body) => {
                self.destroyed.insert(body.version);
            }
            Body::TenantShredded(body) => self.destroyed.extend(body.key_versions),
            _ => {}
        }
    }

    fn name(&mut self, version: u64, objects: &[PageStates]) {
        for object in objects {
            let length = u64::from(object.length);
            self.objects.insert(object.sha256.clone(), (version, length));
        }
    }
}

impl Named {
    /// Takes in what an entry of a state log names. Twice is as good as once.
    pub fn take(&mut self, entry: &Bytes) {
        let Ok(leaf) = leaf::parse(entry) else {
            self.malformed = true;
            return;
        };
        self.leaf(leaf);
    }

    fn leaf(&mut self, leaf: StateLeaf) {
        let Some(body) = leaf.body else { return };
        match body {
            Body::TenantCreated(body) => self.settings(body.settings),
            Body::TenantUpdated(body) => self.settings(body.settings),
            Body::ErasureRequested(body) => self.set(body.set),
            Body::RecordsPut(_) => {}
            body => self.owners.entry(leaf.tenant_id).or_default().take(body),
        }
    }

    fn settings(&mut self, payload: Option<SealedPayload>) {
        if let Some(payload) = payload {
            self.lasting.insert(payload.sha256, u64::from(payload.length));
        }
    }

    fn set(&mut self, set: Option<RecordSet>) {
        if let Some(set) = set {
            self.lasting.insert(set.sha256, u64::from(set.records) * 16);
        }
    }

    /// Whether an entry was no leaf.
    pub(super) fn is_malformed(&self) -> bool {
        self.malformed
    }

    /// Tells what is noise from what is needed, when all leaves are taken in.
    pub fn sort_out(&mut self) {
        for owner in self.owners.values_mut() {
            let destroyed = &owner.destroyed;
            owner.objects.retain(|sha256, (version, _)| {
                let lives = !destroyed.contains(version);
                if !lives {
                    self.noise.insert(sha256.clone());
                }
                lives
            });
        }
    }

    /// What a destroyed version or epoch sealed, and nothing else names.
    pub(super) fn noise(&self) -> HashSet<Bytes> {
        let needed = self.needed();
        let noise = self.noise.iter().filter(|sha256| !needed.contains_key(*sha256));
        noise.cloned().collect()
    }

    /// Of noise, only this is remembered.
    pub(super) fn keep_noise(&mut self, left: HashSet<Bytes>) {
        self.noise = left;
    }

    /// What is needed, by its digest: whose it is, and how long.
    pub fn needed(&self) -> BTreeMap<Bytes, (&str, u64)> {
        let states = self.owners.iter().flat_map(|(id, owner)| {
            let of =
                move |(sha256, (_, length)): (&Bytes, &(u64, u64))| (sha256.clone(), (id.as_str(), *length));
            owner.objects.iter().map(of)
        });
        let lasting = self
            .lasting
            .iter()
            .map(|(sha256, length)| (sha256.clone(), ("", *length)));
        states.chain(lasting).collect()
    }
}
