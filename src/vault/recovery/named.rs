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
    /// What took over last: every page was sealed again under it.
    newest: u64,
}

/// An object that is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needed<'a> {
    /// Whose it is; empty if it is nobody's.
    pub owner: &'a str,
    /// Its length in bytes.
    pub length: u64,
    /// Whether anything is lost with it: what a retired version sealed was sealed again.
    pub counts: bool,
}

impl Owner {
    fn take(&mut self, body: Body) {
        match body {
            Body::RootEpochCreated(body) => {
                self.newest = self.newest.max(body.epoch);
                self.name(body.epoch, &body.page_states);
            }
            Body::RegionPageSealed(page) => self.name(page.epoch, page.stored.as_slice()),
            Body::RootEpochDestroyed(body) if body.scheduled_micros == 0 => {
                self.destroyed.insert(body.epoch);
            }
            Body::TenantKeyRotated(body) => {
                let version = body.key.map_or(0, |key| key.version);
                self.newest = self.newest.max(version);
                self.name(version, &body.page_states);
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

    fn counts(&self, version: u64) -> bool {
        version >= self.newest && !self.destroyed.contains(&version)
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

    /// Whether page states that a version of an owner sealed are the ones that count: a rebuild cannot do without them.
    pub(in crate::vault) fn counts(&self, owner: &str, version: u64) -> bool {
        self.owners.get(owner).is_none_or(|owner| owner.counts(version))
    }

    /// What is needed, by its digest.
    pub fn needed(&self) -> BTreeMap<Bytes, Needed<'_>> {
        let states = self.owners.iter().flat_map(|(id, owner)| {
            let of = move |(sha256, (version, length)): (&Bytes, &(u64, u64))| {
                let needed = Needed {
                    owner: id.as_str(),
                    length: *length,
                    counts: owner.counts(*version),
                };
                (sha256.clone(), needed)
            };
            owner.objects.iter().map(of)
        });
        let lasting = self.lasting.iter().map(|(sha256, length)| {
            let needed = Needed {
                owner: "",
                length: *length,
                counts: true,
            };
            (sha256.clone(), needed)
        });
        states.chain(lasting).collect()
    }
}
