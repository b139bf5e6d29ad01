//! Slots of region pages that wrap a key which no row names yet: a sweep, which punctures what nothing needs, must spare them.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::domain::ids::PageId;

#[derive(Clone, Debug, Default)]
pub(super) struct Pending(Arc<Mutex<HashSet<(PageId, u16)>>>);

/// A slot that is spared until this is dropped.
#[derive(Debug)]
pub struct Reservation {
    pending: Pending,
    slot: (PageId, u16),
}

impl Pending {
    pub(super) fn reserve(&self, page: PageId, slot: u16) -> Reservation {
        let slot = (page, slot);
        self.lock().insert(slot);
        Reservation {
            pending: self.clone(),
            slot,
        }
    }

    pub(super) fn slots(&self) -> HashSet<(PageId, u16)> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<(PageId, u16)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.pending.lock().remove(&self.slot);
    }
}
