//! Places among the connections: so many in all, and so many for each certificate's owner.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{config::Limits, domain::limits::STRANGERS, domain::principal::Principal, telemetry};

/// Who has a connection: a principal by its alias; all certificates that belong to nobody together.
type Owner = Option<String>;

/// All places.
#[derive(Debug)]
pub(super) struct Places {
    most: usize,
    most_of_one: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by: HashMap<Owner, usize>,
}

/// A place; given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    owner: Owner,
}

/// No place, and which limit says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full {
    /// For metrics.
    pub(super) reason: &'static str,
    /// For the peer.
    pub(super) message: &'static str,
}

impl Places {
    /// As the operator says.
    pub(super) fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            most: limits.connections,
            most_of_one: limits.connections_per_principal,
            taken: Mutex::default(),
        })
    }

    /// Takes a place for a principal, or for a stranger.
    pub(super) fn take(self: &Arc<Self>, principal: Option<&Principal>) -> Result<Place, Full> {
        let owner = principal.map(|principal| principal.alias().to_owned());
        let mut taken = self.lock();
        let mine = taken.by.get(&owner).copied().unwrap_or(0);
        match &owner {
            _ if taken.all >= self.most => Err(Full {
                reason: "full",
                message: "the server has as many connections as it may limit=limits.connections",
            }),
            Some(_) if mine >= self.most_of_one => Err(Full {
                reason: "principal",
                message: "this principal has as many connections as it may limit=limits.connections_per_principal",
            }),
            None if mine >= STRANGERS.min(self.most_of_one) => Err(Full {
                reason: "strangers",
                message: "this certificate belongs to no principal; have it listed under [[principals]]",
            }),
            _ => {
                taken.all += 1;
                *taken.by.entry(owner.clone()).or_default() += 1;
                metrics::gauge!(telemetry::CONNECTIONS).increment(1);
                Ok(Place {
                    places: Arc::clone(self),
                    owner,
                })
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        metrics::gauge!(telemetry::CONNECTIONS).decrement(1);
        let mut taken = self.places.lock();
        taken.all -= 1;
        if let Some(mine) = taken.by.get_mut(&self.owner) {
            *mine -= 1;
            if *mine == 0 {
                taken.by.remove(&self.owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::principal::{Role, TenantScope};

    #[test]
    fn one_owner_leaves_places_to_others_and_gives_its_own_back() {
        let limits = Limits {
            connections: 5,
            connections_per_principal: 3,
            ..Limits::default()
        };
        let places = Places::new(&limits);
        let principal = |alias| Principal::new(alias, [Role::Reader], TenantScope::All).unwrap();
        let (one, two) = (principal("one"), principal("two"));
        let mut held: Vec<_> = (0..3).map(|_| places.take(Some(&one)).unwrap()).collect();
        assert_eq!(places.take(Some(&one)).unwrap_err().reason, "principal");
        held.push(places.take(Some(&two)).unwrap());
        held.push(places.take(None).unwrap());
        assert_eq!(places.take(Some(&two)).unwrap_err().reason, "full");
        held.clear();
        assert!(places.lock().by.is_empty() && places.lock().all == 0);
    }
}
