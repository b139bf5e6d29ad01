//! What each principal may ask for: so many calls a second, and so many at a time.

use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    config::Limits,
    domain::{error::Error, principal::Principal},
};

/// Principals that are remembered before those are forgotten who have no call running and all of their allowance: nothing is lost with
/// them.
const MANY: usize = 16_384;
/// When a caller that has too many calls running may come back.
const SOON: Duration = Duration::from_secs(1);

/// Everybody's.
#[derive(Debug)]
pub(super) struct Quotas {
    begun: Instant,
    all: Counter,
    most_of_one: usize,
    pace: Pace,
    /// By alias. Bearers of tokens come and go: who is quiet is forgotten when there are many.
    by: RwLock<HashMap<String, Arc<Quota>>>,
}

#[derive(Debug)]
struct Quota {
    calls: Counter,
    bucket: Bucket,
}

/// A call's place among those that run; given back when dropped.
#[derive(Debug)]
pub(super) struct Call {
    quotas: Arc<Quotas>,
    quota: Arc<Quota>,
}

impl Quotas {
    /// As the operator says.
    pub(super) fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            begun: Instant::now(),
            all: Counter::new(limits.calls),
            most_of_one: limits.calls_per_principal,
            pace: Pace::new(limits.principal_calls_per_second, limits.principal_calls_burst),
            by: RwLock::default(),
        })
    }

    /// Lets one more call of a principal run.
    ///
    /// # Errors
    /// [`Kind::Exhausted`](crate::domain::error::Kind), naming the limit and saying when to come back.
    pub(super) fn begin(self: &Arc<Self>, principal: &Principal) -> Result<Call, Error> {
        let quota = self.of(principal.alias());
        quota
            .bucket
            .take(self.pace, self.begun.elapsed())
            .map_err(|wait| {
                Error::busy(
                    "CALL_RATE",
                    "this principal calls more often than it may; wait as RetryInfo says \
                     limit=limits.principal_calls_per_second, limits.principal_calls_burst",
                    wait,
                )
            })?;
        if !quota.calls.enter() {
            return Err(Error::busy(
                "PRINCIPAL_CALLS",
                "this principal has as many calls running as it may limit=limits.calls_per_principal",
                SOON,
            ));
        }
        if !self.all.enter() {
            quota.calls.leave();
            return Err(Error::busy(
                "CALLS",
                "the server has as many calls running as it may limit=limits.calls",
                SOON,
            ));
        }
        Ok(Call {
            quotas: Arc::clone(self),
            quota,
        })
    }

    fn of(&self, alias: &str) -> Arc<Quota> {
        let known = self.by.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(quota) = known.get(alias) {
            return Arc::clone(quota);
        }
        drop(known);
        let mut known = self.by.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MANY {
            let now = self.begun.elapsed();
            known.retain(|_, quota| Arc::strong_count(quota) > 1 || !quota.bucket.is_full(now));
        }
        let quota = known.entry(alias.to_owned()).or_insert_with(|| {
            Arc::new(Quota {
                calls: Counter::new(self.most_of_one),
                bucket: Bucket::default(),
            })
        });
        Arc::clone(quota)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.quota.calls.leave();
        self.quotas.all.leave();
    }
}

/// So many at a time.
#[derive(Debug)]
struct Counter {
    now: AtomicUsize,
    most: usize,
}

impl Counter {
    fn new(most: usize) -> Self {
        Self {
            now: AtomicUsize::new(0),
            most,
        }
    }

    fn enter(&self) -> bool {
        if self.now.fetch_add(1, Ordering::AcqRel) < self.most {
            return true;
        }
        self.leave();
        false
    }

    fn leave(&self) {
        self.now.fetch_sub(1, Ordering::AcqRel);
    }
}

/// How often, in nanoseconds.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// Between two calls, in the long run.
    interval: u64,
    /// How far a caller may run ahead of that.
    ahead: u64,
}

impl Pace {
    fn new(per_second: u32, burst: u32) -> Self {
        let interval = 1_000_000_000 / u64::from(per_second.max(1));
        Self {
            interval,
            ahead: interval * u64::from(burst.max(1) - 1),
        }
    }
}

/// A token bucket in one word: when the next call would be due if all came at their interval (the generic cell rate algorithm,
/// ITU-T I.371). No lock, and nothing to fill.
#[derive(Debug, Default)]
struct Bucket(AtomicU64);

impl Bucket {
    /// Whether a caller has all that it may have.
    fn is_full(&self, now: Duration) -> bool {
        u128::from(self.0.load(Ordering::Acquire)) <= now.as_nanos()
    }

    /// Takes a token, or says how long until there is one. `now` is the time since some moment, the same at every call.
    fn take(&self, pace: Pace, now: Duration) -> Result<(), Duration> {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX / 2);
        let next = |due: u64| {
            let due = due.max(now);
            (due - now <= pace.ahead).then(|| due + pace.interval)
        };
        match self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, next) {
            Ok(_) => Ok(()),
            Err(due) => Err(Duration::from_nanos(due - now - pace.ahead)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        error::Kind,
        principal::{Role, TenantScope},
    };

    fn principal(alias: &str) -> Principal {
        Principal::new(alias, [Role::Reader], TenantScope::All).unwrap()
    }

    #[test]
    fn a_bucket_gives_its_burst_then_its_rate_and_says_when() {
        let (pace, bucket) = (Pace::new(100, 3), Bucket::default());
        let at = Duration::from_millis;
        for _ in 0..3 {
            bucket.take(pace, at(0)).unwrap();
        }
        assert_eq!(bucket.take(pace, at(0)).unwrap_err(), at(10));
        assert_eq!(bucket.take(pace, at(4)).unwrap_err(), at(6));
        bucket.take(pace, at(10)).unwrap();
        assert!(bucket.take(pace, at(10)).is_err());
        for _ in 0..3 {
            bucket.take(pace, at(1_000)).unwrap();
        }
        assert!(
            bucket.take(pace, at(1_000)).is_err(),
            "a quiet second saves no more"
        );
    }

    #[test]
    fn one_principals_rate_is_not_anothers() {
        let limits = Limits {
            principal_calls_per_second: 1,
            principal_calls_burst: 2,
            ..Limits::default()
        };
        let quotas = Quotas::new(&limits);
        let (one, two) = (principal("one"), principal("two"));
        drop((quotas.begin(&one).unwrap(), quotas.begin(&one).unwrap()));
        let refused = quotas.begin(&one).unwrap_err();
        assert_eq!((refused.kind, refused.reason), (Kind::Exhausted, "CALL_RATE"));
        let wait = refused.retry_after.unwrap();
        assert!(!wait.is_zero() && wait <= Duration::from_secs(1), "{wait:?}");
        quotas.begin(&two).unwrap();
    }

    #[test]
    fn calls_at_a_time_are_bounded_for_one_and_for_all() {
        let limits = Limits {
            calls: 3,
            calls_per_principal: 2,
            ..Limits::default()
        };
        let quotas = Quotas::new(&limits);
        let (one, two) = (principal("one"), principal("two"));
        let reason = |refused: Result<Call, Error>| refused.unwrap_err().reason;
        let first = quotas.begin(&one).unwrap();
        let _second = quotas.begin(&one).unwrap();
        assert_eq!(reason(quotas.begin(&one)), "PRINCIPAL_CALLS");
        let _third = quotas.begin(&two).unwrap();
        assert_eq!(reason(quotas.begin(&two)), "CALLS");
        drop(first);
        quotas.begin(&two).unwrap();
        quotas.begin(&one).unwrap();
    }

    #[test]
    fn the_default_rate_is_no_obstacle_to_twenty_thousand_messages_a_second() {
        let limits = Limits::default();
        let pace = Pace::new(limits.principal_calls_per_second, limits.principal_calls_burst);
        let bucket = Bucket::default();
        for call in 0..200_000 {
            bucket.take(pace, Duration::from_micros(call * 50)).unwrap();
        }
    }

    #[test]
    fn whoever_is_quiet_is_forgotten_when_there_are_many_and_nobody_else() {
        let limits = Limits {
            principal_calls_per_second: 1,
            principal_calls_burst: 2,
            ..Limits::default()
        };
        let quotas = Quotas::new(&limits);
        let busy = quotas.begin(&principal("busy")).unwrap();
        drop(quotas.begin(&principal("hasty")).unwrap());
        drop(quotas.begin(&principal("hasty")).unwrap());
        for number in 0..MANY {
            let alias = format!("a-{number}");
            let _ = quotas.of(&alias);
        }
        assert!(quotas.by.read().unwrap().len() < 10);
        // Neither its calls nor what it used up is forgotten.
        assert!(quotas.by.read().unwrap().contains_key("busy"));
        quotas.begin(&principal("hasty")).unwrap_err();
        drop(busy);
    }
}
