//! What happens on one connection, known to those who must end it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::time;

/// Shared by a connection, its calls and its keeper.
#[derive(Debug)]
pub(super) struct Activity {
    opened: Instant,
    greeted: AtomicBool,
    broken: AtomicBool,
    recognised: AtomicBool,
    /// Calls in a row that nobody was recognised by.
    unrecognised: AtomicU32,
    running: AtomicUsize,
    /// Milliseconds after `opened` at which the last call ended.
    quiet_since: AtomicU64,
}

/// A call that runs; dropped at its end.
#[derive(Debug)]
pub(super) struct Running(Arc<Activity>);

impl Activity {
    /// A connection that was accepted just now.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            opened: Instant::now(),
            greeted: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            recognised: AtomicBool::new(false),
            unrecognised: AtomicU32::new(0),
            running: AtomicUsize::new(0),
            quiet_since: AtomicU64::new(0),
        })
    }

    /// The peer speaks HTTP/2.
    pub(super) fn greet(&self) {
        self.greeted.store(true, Ordering::Relaxed);
    }

    pub(super) fn greeted(&self) -> bool {
        self.greeted.load(Ordering::Relaxed)
    }

    /// The connection must end now: its next read or write fails.
    pub(super) fn break_off(&self) {
        self.broken.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    /// Somebody was recognised by a call.
    pub(super) fn recognise(&self) {
        self.recognised.store(true, Ordering::Relaxed);
        self.unrecognised.store(0, Ordering::Relaxed);
    }

    /// Nobody was; returns how often in a row.
    pub(super) fn fail_to_recognise(&self) -> u32 {
        self.unrecognised.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Whether no call runs but the one that asks.
    pub(super) fn runs_one_call(&self) -> bool {
        self.running.load(Ordering::Acquire) <= 1
    }

    pub(super) fn is_recognised(&self) -> bool {
        self.recognised.load(Ordering::Relaxed)
    }

    /// A call begins.
    pub(super) fn run(self: &Arc<Self>) -> Running {
        self.running.fetch_add(1, Ordering::AcqRel);
        Running(Arc::clone(self))
    }

    /// Returns when no call has run for as long as `idle`.
    pub(super) async fn idle_for(&self, idle: Duration) {
        while let Some(left) = idle.checked_sub(self.quiet()).filter(|left| !left.is_zero()) {
            time::sleep(left).await;
        }
    }

    /// For how long no call has run.
    fn quiet(&self) -> Duration {
        if self.running.load(Ordering::Acquire) > 0 {
            return Duration::ZERO;
        }
        let since = Duration::from_millis(self.quiet_since.load(Ordering::Acquire));
        self.opened.elapsed().saturating_sub(since)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let now = u64::try_from(self.0.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.quiet_since.store(now, Ordering::Release);
        self.0.running.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_is_idle_when_its_last_call_is_long_over() {
        let activity = Activity::new();
        let idle = Duration::from_millis(60);
        let (one, two) = (activity.run(), activity.run());
        drop(one);
        time::timeout(idle * 3, activity.idle_for(idle))
            .await
            .expect_err("a call runs");
        drop(two);
        let ended = Instant::now();
        activity.idle_for(idle).await;
        assert!(ended.elapsed() >= idle - Duration::from_millis(1));
    }
}
