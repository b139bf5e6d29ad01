//! Calls for each tenant: so many at a time. A call says in its request for whom it is made, so its service finds out.

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::BuildHasher,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{domain::ids::TenantId, vault::Error};

/// Locks, so that calls for different tenants seldom meet at one.
const SHARDS: usize = 16;
/// When a caller that has too many calls running may come back.
const SOON: Duration = Duration::from_secs(1);

/// All tenants with a call that runs.
#[derive(Debug)]
pub struct TenantPlaces {
    most: usize,
    hasher: RandomState,
    shards: [Mutex<HashMap<TenantId, usize>>; SHARDS],
}

/// Where a call leaves its place once it is known for whom it is made.
#[derive(Debug)]
pub struct TenantSlot {
    places: Arc<TenantPlaces>,
    place: Mutex<Option<TenantPlace>>,
}

/// A place; given back when dropped.
#[derive(Debug)]
struct TenantPlace {
    places: Arc<TenantPlaces>,
    tenant: TenantId,
}

impl TenantPlaces {
    /// At most so many calls for each tenant.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            hasher: RandomState::new(),
            shards: Default::default(),
        })
    }

    fn take(self: &Arc<Self>, tenant: &TenantId) -> Result<TenantPlace, Error> {
        let mut running = self.shard(tenant);
        let calls = running.entry(tenant.clone()).or_default();
        if *calls >= self.most {
            return Err(Error::busy(
                "TENANT_CALLS",
                "the tenant has as many calls running as it may limit=limits.calls_per_tenant",
                SOON,
            ));
        }
        *calls += 1;
        Ok(TenantPlace {
            places: Arc::clone(self),
            tenant: tenant.clone(),
        })
    }

    fn shard(&self, tenant: &TenantId) -> MutexGuard<'_, HashMap<TenantId, usize>> {
        let shard = self.hasher.hash_one(tenant) as usize % SHARDS;
        self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TenantSlot {
    /// An empty one.
    pub fn new(places: &Arc<TenantPlaces>) -> Arc<Self> {
        Arc::new(Self {
            places: Arc::clone(places),
            place: Mutex::default(),
        })
    }

    /// Takes a place for the call, until the call ends.
    ///
    /// # Errors
    /// [`Kind::Exhausted`](crate::vault::Kind) if the tenant has none left.
    pub(super) fn claim(&self, tenant: &TenantId) -> Result<(), Error> {
        let mut place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        if place.as_ref().is_none_or(|place| place.tenant != *tenant) {
            *place = Some(self.places.take(tenant)?);
        }
        Ok(())
    }
}

impl Drop for TenantPlace {
    fn drop(&mut self) {
        let mut running = self.places.shard(&self.tenant);
        if let Some(calls) = running.get_mut(&self.tenant) {
            *calls -= 1;
            if *calls == 0 {
                running.remove(&self.tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tenants_calls_leave_places_to_others_and_are_given_back() {
        let places = TenantPlaces::new(2);
        let (one, two) = ("one".parse().unwrap(), "two".parse().unwrap());
        let slots: Vec<_> = (0..4).map(|_| TenantSlot::new(&places)).collect();
        slots[0].claim(&one).unwrap();
        slots[0].claim(&one).unwrap();
        slots[1].claim(&one).unwrap();
        let refused = slots[2].claim(&one).unwrap_err();
        assert_eq!(refused.reason, "TENANT_CALLS");
        assert_eq!(refused.retry_after, Some(SOON));
        slots[2].claim(&two).unwrap();
        drop(slots);
        assert!(places.shards.iter().all(|shard| shard.lock().unwrap().is_empty()));
    }
}
