//! What cited leaves say of one erasure, gathered: no more, and nothing of another.

use std::collections::{BTreeMap, BTreeSet};

use super::verify::Refused;
use crate::proto::storage::{
    ErasureRequested, ShreddedRecord, StateLeaf, TenantShredded, WrappedTenantKey, state_leaf::Body,
};

/// An erasure as the log tells it. Times are microseconds since 1970.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Story {
    /// When, by whom and for what it was asked for.
    pub requested: Option<(i64, String, ErasureRequested)>,
    /// Records whose slots were punctured.
    pub shredded: Vec<ShreddedRecord>,
    /// The tenant, if it was all of it.
    pub tenant: Option<TenantShredded>,
    /// When it was effective, and how many records that were.
    pub effective: Option<(i64, u64)>,
    /// When content was final.
    pub content_final: Option<i64>,
    /// When search traces were.
    pub traces_final: Option<i64>,
    /// Key versions and epochs that it is final because of.
    pub because: (BTreeSet<u64>, BTreeSet<u64>),
    /// The tenant's key versions, as they were wrapped.
    pub keys: BTreeMap<u64, WrappedTenantKey>,
    /// Those that are punctured.
    pub keys_destroyed: BTreeSet<u64>,
    /// Epochs that nothing referred to any more.
    pub destroying: BTreeSet<u64>,
    /// Epochs that are destroyed, and when they were.
    pub destroyed: BTreeMap<u64, i64>,
}

impl Story {
    /// Reads leaves that must all be of this erasure of this tenant.
    ///
    /// # Errors
    /// [`Refused::Leaves`] if one is of something else, or contradicts another.
    pub fn read<'a>(
        leaves: impl IntoIterator<Item = &'a StateLeaf>,
        tenant: &str,
        erasure: &[u8],
    ) -> Result<Self, Refused> {
        let mut story = Self::default();
        for leaf in leaves {
            story.add(leaf, tenant, erasure)?;
        }
        Ok(story)
    }

    fn add(&mut self, leaf: &StateLeaf, tenant: &str, erasure: &[u8]) -> Result<(), Refused> {
        let of_tenant = |id: &[u8]| {
            let ours = leaf.tenant_id == tenant && (id.is_empty() || id == erasure);
            need(ours, "a leaf of another erasure or tenant is cited")
        };
        let at = leaf.time_micros;
        match leaf.body.as_ref() {
            Some(Body::ErasureRequested(body)) => {
                of_tenant(&body.erasure_id)?;
                once(&mut self.requested, (at, leaf.actor.clone(), body.clone()))
            }
            Some(Body::RecordsShredded(body)) => {
                of_tenant(&body.erasure_id)?;
                self.shredded.extend(body.records.iter().cloned());
                Ok(())
            }
            Some(Body::TenantShredded(body)) => {
                of_tenant(&body.erasure_id)?;
                self.keys_destroyed.extend(&body.key_versions);
                once(&mut self.tenant, body.clone())
            }
            Some(Body::ErasureEffective(body)) => {
                of_tenant(&body.erasure_id)?;
                once(&mut self.effective, (at, body.records))
            }
            Some(Body::ErasureFinal(body)) => {
                of_tenant(&body.erasure_id)?;
                self.because.0.extend(&body.key_versions);
                self.because.1.extend(&body.epochs);
                if body.content {
                    self.content_final.get_or_insert(at);
                }
                if body.search_traces {
                    self.traces_final.get_or_insert(at);
                }
                Ok(())
            }
            Some(Body::TenantCreated(body)) => {
                of_tenant(&[])?;
                self.key(body.key.as_ref())
            }
            Some(Body::TenantKeyRotated(body)) => {
                of_tenant(&[])?;
                self.key(body.key.as_ref())
            }
            Some(Body::TenantKeyDestroyed(body)) => {
                of_tenant(&[])?;
                self.keys_destroyed.insert(body.version);
                Ok(())
            }
            Some(Body::RootEpochDestroying(body)) => {
                self.destroying.insert(body.epoch);
                Ok(())
            }
            Some(Body::RootEpochDestroyed(body)) => {
                // A scheduled destruction may be called back: only the leaf that it came true counts.
                if body.scheduled_micros == 0 {
                    self.destroyed.entry(body.epoch).or_insert(at);
                }
                Ok(())
            }
            _ => Err(Refused::Leaves(
                "a leaf that has nothing to do with an erasure is cited",
            )),
        }
    }

    fn key(&mut self, key: Option<&WrappedTenantKey>) -> Result<(), Refused> {
        let key = key.ok_or(Refused::Leaves("a leaf of a key has none"))?;
        let before = self.keys.insert(key.version, key.clone());
        need(before.is_none(), "a key version was made twice")
    }
}

fn once<T>(place: &mut Option<T>, said: T) -> Result<(), Refused> {
    need(
        place.replace(said).is_none(),
        "a step of the erasure is cited twice",
    )
}

fn need(holds: bool, what: &'static str) -> Result<(), Refused> {
    if holds { Ok(()) } else { Err(Refused::Leaves(what)) }
}
