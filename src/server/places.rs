//! Places among the connections: so many in all, and so many for each certificate's owner.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{config::Limits, domain::limits::STRANGERS, domain::principal::Principal, telemetry};

/// Who has a connection: a principal by its alias; all that are recognised by tokens, call by call, together; and all certificates
/// that belong to nobody.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Owner {
    Principal(String),
    Bearers,
    Strangers,
}

/// Whom a connection is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Whom<'a> {
    /// Whose certificate it was opened with.
    Principal(&'a Principal),
    /// Whoever brings a token.
    Bearer,
    /// Nobody, who is told so.
    Stranger,
}

/// All places.
#[derive(Debug)]
pub(super) struct Places {
    most: usize,
    most_of_one: usize,
    most_of_bearers: usize,
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
            // Whoever has a certificate is never kept out by those who have none.
            most_of_bearers: (limits.connections / 2).max(1),
            taken: Mutex::default(),
        })
    }

    /// Takes a place.
    pub(super) fn take(self: &Arc<Self>, whom: Whom<'_>) -> Result<Place, Full> {
        let owner = match whom {
            Whom::Principal(principal) => Owner::Principal(principal.alias().to_owned()),
            Whom::Bearer => Owner::Bearers,
            Whom::Stranger => Owner::Strangers,
        };
        let mut taken = self.lock();
        let mine = taken.by.get(&owner).copied().unwrap_or(0);
        match &owner {
            _ if taken.all >= self.most => Err(Full {
                reason: "full",
                message: "the server has as many connections as it may limit=limits.connections",
            }),
            Owner::Principal(_) if mine >= self.most_of_one => Err(Full {
                reason: "principal",
                message: "this principal has as many connections as it may limit=limits.connections_per_principal",
            }),
            Owner::Bearers if mine >= self.most_of_bearers => Err(Full {
                reason: "bearers",
                message: "as many connections without a listed certificate are open as may be: half of limits.connections",
            }),
            Owner::Strangers if mine >= STRANGERS.min(self.most_of_one) => Err(Full {
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
        let mut held: Vec<_> = (0..3)
            .map(|_| places.take(Whom::Principal(&one)).unwrap())
            .collect();
        assert_eq!(
            places.take(Whom::Principal(&one)).unwrap_err().reason,
            "principal"
        );
        held.push(places.take(Whom::Principal(&two)).unwrap());
        held.push(places.take(Whom::Stranger).unwrap());
        assert_eq!(places.take(Whom::Principal(&two)).unwrap_err().reason, "full");
        held.clear();
        assert!(places.lock().by.is_empty() && places.lock().all == 0);
        // Whoever brings a token leaves half to those with certificates.
        let bearers: Vec<_> = (0..2).map(|_| places.take(Whom::Bearer).unwrap()).collect();
        assert_eq!(places.take(Whom::Bearer).unwrap_err().reason, "bearers");
        places.take(Whom::Principal(&one)).unwrap();
        drop(bearers);
        places.take(Whom::Bearer).unwrap();
    }
}
