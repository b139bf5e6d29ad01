//! One budget of bytes for the whole process: what is in flight, whoever asked for it.
//!
//! ```text
//! small, a quarter   first bytes of an upload, a segment of a read        waits for others that are small
//! large, the rest    extents, runs of segments, bodies of messages        waits for others that are large
//! ```
//!
//! What is small never waits behind what is large. A holder of something small may ask for something large, never the other way
//! round, and a holder of something large asks for nothing: so there is no circle of holders who wait for each other.
//! Of each part a tenant has at most its share, and tenants who wait take turns.

use std::{sync::Arc, time::Duration};

use super::{Error, Kind};
use crate::domain::{
    fair::{Busy, Fair, Held},
    ids::TenantId,
    limits,
};

/// Longest reservation that is small.
pub const SMALL: u64 = 128 << 10;
/// Longest wait for room before a caller is told to come back.
const PATIENCE: Duration = Duration::from_secs(5);

/// Bytes that may be in flight.
#[derive(Clone, Debug)]
pub struct Budget {
    small: Arc<Fair<Option<TenantId>>>,
    large: Arc<Fair<Option<TenantId>>>,
}

impl Budget {
    /// A budget of this many bytes, of which a tenant has at most half.
    pub fn new(bytes: u64) -> Self {
        Self::shared(bytes, limits::TENANT_SHARE_PERCENT)
    }

    /// A budget of this many bytes, of which a tenant has at most `percent` hundredths.
    pub fn shared(bytes: u64, percent: u8) -> Self {
        let percent = u64::from(percent.clamp(1, 100));
        let part = |bytes: u64| Fair::new(bytes, bytes / 100 * percent + bytes % 100 * percent / 100);
        Self {
            small: part(bytes / 4),
            large: part(bytes - bytes / 4),
        }
    }

    /// Reserves room until the reservation is dropped. Cancel safe.
    ///
    /// # Errors
    /// [`Kind::Exhausted`] if there was none in time.
    pub async fn reserve(&self, bytes: u64) -> Result<Reservation, Error> {
        self.reserve_of(None, bytes).await
    }

    /// The same, counted against a tenant's share.
    ///
    /// # Errors
    /// [`Kind::Exhausted`] if there was none in time.
    pub async fn reserve_for(&self, tenant: &TenantId, bytes: u64) -> Result<Reservation, Error> {
        self.reserve_of(Some(tenant.clone()), bytes).await
    }

    /// Room for a tenant if it is there now, and the tenant has no more than `quarters` of its share then: for what could do with
    /// less, and must leave room for what could not.
    pub fn spare_for(&self, tenant: &TenantId, bytes: u64, quarters: u64) -> Option<Reservation> {
        let taken = self.part(bytes).try_take(Some(tenant.clone()), bytes, quarters);
        taken.ok().map(Reservation)
    }

    async fn reserve_of(&self, holder: Option<TenantId>, bytes: u64) -> Result<Reservation, Error> {
        let taken = self.part(bytes).take(holder, bytes, PATIENCE).await;
        taken.map(Reservation).map_err(|Busy| {
            Error::new(
                Kind::Exhausted,
                "MEMORY_BUDGET",
                "too many bytes in flight; try again limit=limits.memory_budget_bytes, limits.tenant_share_percent",
            )
        })
    }

    fn part(&self, bytes: u64) -> &Arc<Fair<Option<TenantId>>> {
        if bytes <= SMALL { &self.small } else { &self.large }
    }

    /// Bytes that are free now.
    pub fn available(&self) -> u64 {
        self.small.free() + self.large.free()
    }
}

/// Room for bytes in flight.
#[derive(Debug)]
pub struct Reservation(Held<Option<TenantId>>);

impl Reservation {
    /// Whether it is for something small: then its holder may ask for something large in its place.
    pub fn is_small(&self) -> bool {
        self.0.units() <= SMALL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn tenant(id: &str) -> TenantId {
        id.parse().unwrap()
    }

    #[tokio::test]
    async fn a_tenant_with_its_whole_share_leaves_the_rest_to_others_at_once() {
        let budget = Budget::new(64 * MIB);
        let (flood, other) = (tenant("flood"), tenant("other"));
        let mut held = Vec::new();
        while let Ok(room) = tokio::time::timeout(Duration::ZERO, budget.reserve_for(&flood, 8 * MIB)).await {
            held.push(room.unwrap());
        }
        assert_eq!(held.len(), 3, "24 of the 48 MiB that are for what is large");
        let waiting = tokio::spawn({
            let (budget, flood) = (budget.clone(), flood.clone());
            async move { budget.reserve_for(&flood, 8 * MIB).await }
        });
        tokio::task::yield_now().await;
        let at_once = tokio::time::timeout(Duration::ZERO, budget.reserve_for(&other, 8 * MIB)).await;
        drop(at_once.expect("without waiting").unwrap());
        drop(held.pop());
        drop(waiting.await.unwrap().unwrap());
    }

    #[tokio::test]
    async fn what_is_small_does_not_wait_behind_what_is_large() {
        let budget = Budget::shared(64 * MIB, 100);
        let one = tenant("one");
        let _all = budget.reserve_for(&one, 48 * MIB).await.unwrap();
        let large = tokio::spawn({
            let (budget, one) = (budget.clone(), one.clone());
            async move { budget.reserve_for(&one, MIB).await }
        });
        tokio::task::yield_now().await;
        let small = tokio::time::timeout(Duration::ZERO, budget.reserve_for(&one, SMALL)).await;
        small.expect("without waiting").unwrap();
        large.abort();
    }

    #[test]
    fn what_could_do_with_less_leaves_room_for_what_could_not() {
        let budget = Budget::new(64 * MIB);
        let mut held = Vec::new();
        while let Some(room) = budget.spare_for(&tenant("one"), MIB, 2) {
            held.push(room);
        }
        assert_eq!(held.len(), 12, "half of the tenant's 24 MiB");
        assert!(budget.spare_for(&tenant("two"), MIB, 1).is_some());
    }
}
