//! A clock that goes where it is told.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use crate::domain::clock::{Clock, Timestamp};

/// Stands still until it is moved. Clones are hands of the same clock.
#[derive(Clone, Debug)]
pub struct TestClock(Arc<AtomicI64>);

impl TestClock {
    /// A clock at `now`.
    pub fn new(now: Timestamp) -> Self {
        Self(Arc::new(AtomicI64::new(now.micros())))
    }

    /// Moves it to `now`, forwards or backwards.
    pub fn set(&self, now: Timestamp) {
        self.0.store(now.micros(), Ordering::SeqCst);
    }

    /// Moves it by `micros` and returns the new time.
    pub fn advance(&self, micros: i64) -> Timestamp {
        Timestamp(self.0.fetch_add(micros, Ordering::SeqCst) + micros)
    }
}

impl Default for TestClock {
    /// 2026-01-01T00:00:00Z.
    fn default() -> Self {
        Self::new(Timestamp(1_767_225_600_000_000))
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moves_only_when_told() {
        let clock = TestClock::default();
        let hand = clock.clone();
        assert_eq!(clock.now().to_string(), "2026-01-01T00:00:00.000000Z");
        assert_eq!(clock.advance(5), clock.now().plus_micros(0));
        assert_eq!(hand.now(), TestClock::default().now().plus_micros(5));
        hand.set(Timestamp(-1));
        assert_eq!(clock.now(), Timestamp(-1));
    }
}
