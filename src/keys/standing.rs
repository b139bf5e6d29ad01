//! Whether the root provider still stands behind the keys that are open.
//!
//! Opened keys serve on while it is away, but not for ever: who takes a root away means that nothing be read any more.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicI64, Ordering},
};

use crate::domain::clock::Clock;

use super::KeyError;

/// When the provider last gave the current epoch's key, and how long that is good for.
#[derive(Debug)]
pub struct Standing {
    clock: Arc<dyn Clock>,
    answered: AtomicI64,
    failing: AtomicBool,
    good_for: AtomicI64,
}

impl Standing {
    /// It has answered just now, which is good for ever.
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            answered: AtomicI64::new(clock.now().micros()),
            failing: AtomicBool::new(false),
            good_for: AtomicI64::new(i64::MAX),
            clock,
        }
    }

    /// From now on, an answer is good for this long.
    pub fn bound(&self, micros: i64) {
        self.good_for.store(micros, Ordering::Relaxed);
    }

    /// It has given the key that is open.
    pub fn answered(&self) {
        self.answered.store(self.clock.now().micros(), Ordering::Relaxed);
        self.failing.store(false, Ordering::Relaxed);
    }

    /// It has not.
    pub fn failed(&self) {
        self.failing.store(true, Ordering::Relaxed);
    }

    /// Whether it failed when it was last asked.
    pub fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// How long ago it answered. A clock that was set back makes it now.
    pub fn silent_micros(&self) -> i64 {
        let answered = self.answered.load(Ordering::Relaxed);
        self.clock.now().micros().saturating_sub(answered).max(0)
    }

    /// Whether what is open may be used.
    ///
    /// # Errors
    /// [`KeyError::RootSilent`] if the last answer is too long ago.
    pub fn check(&self) -> Result<(), KeyError> {
        match self.silent_micros() <= self.good_for.load(Ordering::Relaxed) {
            true => Ok(()),
            false => Err(KeyError::RootSilent),
        }
    }
}
