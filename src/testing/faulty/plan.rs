//! Rules: which calls, how often, and what happens to them.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{Fate, Faults, Operation};
use crate::blob::store::StoreError;

/// An error that is injected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// [`StoreError::Unavailable`].
    Unavailable,
    /// [`StoreError::Full`].
    Full,
    /// [`StoreError::Denied`].
    Denied,
    /// [`StoreError::NotFound`].
    NotFound,
    /// [`StoreError::UploadNotFound`].
    UploadNotFound,
    /// [`StoreError::AlreadyExists`].
    AlreadyExists,
    /// [`StoreError::Protocol`].
    Protocol,
}

/// A rule being made. The verbs at its end put it in force.
#[derive(Clone, Debug)]
#[must_use = "a rule is in force once it says what happens"]
pub struct Rule {
    faults: Faults,
    operation: Option<Operation>,
    prefix: String,
    skip: u64,
    every: u64,
    times: u64,
}

/// A rule in force. Dropping it changes nothing.
#[derive(Clone, Debug)]
pub struct Injected {
    fired: Arc<AtomicU64>,
}

/// A rule in force and its progress.
#[derive(Debug)]
pub(super) struct Entry {
    operation: Option<Operation>,
    prefix: String,
    /// Matching calls to let pass.
    skip: u64,
    /// Of the calls after that, strike one in so many.
    every: u64,
    /// Calls to strike after that.
    times: u64,
    effect: Effect,
    fired: Arc<AtomicU64>,
}

/// What happens to a call that is struck.
#[derive(Clone, Debug)]
pub(super) enum Effect {
    Before(Failure),
    After(Failure),
    Delay(Duration),
    Hang(Hang),
    Twice,
    Flip(usize),
    Truncate(usize),
    Lengthen(usize),
    Misstate(u64),
    Endless,
}

/// A call that never answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hang {
    /// Without having begun.
    Before,
    /// With its effect.
    After,
}

impl Rule {
    pub(super) fn new(faults: Faults, operation: Option<Operation>) -> Self {
        Self {
            faults,
            operation,
            prefix: String::new(),
            skip: 0,
            every: 1,
            times: 1,
        }
    }

    /// Only calls whose key (or prefix, for listings) begins with `prefix`.
    pub fn below(mut self, prefix: &str) -> Self {
        prefix.clone_into(&mut self.prefix);
        self
    }

    /// From the `n`-th matching call on, counted from 1 and from now. Without this, the next one.
    pub fn nth(mut self, n: u64) -> Self {
        self.skip = n.saturating_sub(1);
        self
    }

    /// From there on one call in `n`, the first of each: what is slowed down lets some through.
    pub fn every(mut self, n: u64) -> Self {
        self.every = n.max(1);
        self
    }

    /// So many calls. Without this, one.
    pub fn times(mut self, times: u64) -> Self {
        self.times = times;
        self
    }

    /// Every call from there on.
    pub fn always(self) -> Self {
        self.times(u64::MAX)
    }

    /// The call fails without having taken effect.
    pub fn fail_before(self, failure: Failure) -> Injected {
        self.inject(Effect::Before(failure))
    }

    /// The call takes effect and fails all the same: its acknowledgement is lost.
    pub fn fail_after(self, failure: Failure) -> Injected {
        self.inject(Effect::After(failure))
    }

    /// The call waits before it begins, on tokio's clock.
    pub fn delay(self, duration: Duration) -> Injected {
        self.inject(Effect::Delay(duration))
    }

    /// The call never begins and never answers: it ends when its caller drops it.
    pub fn hang(self) -> Injected {
        self.inject(Effect::Hang(Hang::Before))
    }

    /// The call takes effect and never answers: it ends when its caller drops it.
    pub fn hang_after(self) -> Injected {
        self.inject(Effect::Hang(Hang::After))
    }

    /// The call takes effect, and is made again at once, as a client does that lost the first answer: the second one's is given.
    pub fn twice(self) -> Injected {
        self.inject(Effect::Twice)
    }

    /// A read comes back with the lowest bit of byte `at` flipped; one that is shorter is left alone and not counted as fired.
    pub fn flip(self, at: usize) -> Injected {
        self.inject(Effect::Flip(at))
    }

    /// A read comes back with its first `length` bytes only; one that is no longer is left alone and not counted as fired.
    pub fn truncate(self, length: usize) -> Injected {
        self.inject(Effect::Truncate(length))
    }

    /// A read comes back with `more` bytes behind those asked for.
    pub fn lengthen(self, more: usize) -> Injected {
        self.inject(Effect::Lengthen(more))
    }

    /// A read, or a look, says that the whole object has `length` bytes.
    pub fn misstate(self, length: u64) -> Injected {
        self.inject(Effect::Misstate(length))
    }

    /// A listing says that it goes on, and begins again.
    pub fn endless(self) -> Injected {
        self.inject(Effect::Endless)
    }

    fn inject(self, effect: Effect) -> Injected {
        let fired = Arc::new(AtomicU64::new(0));
        let injected = Injected {
            fired: Arc::clone(&fired),
        };
        let Self {
            faults,
            operation,
            prefix,
            skip,
            every,
            times,
        } = self;
        faults.plan().entries.push(Entry {
            operation,
            prefix,
            skip,
            every,
            times,
            effect,
            fired,
        });
        injected
    }
}

impl Injected {
    /// How often it has fired.
    pub fn fired(&self) -> u64 {
        self.fired.load(Ordering::SeqCst)
    }
}

impl Entry {
    pub(super) fn fired(&self) -> u64 {
        self.fired.load(Ordering::SeqCst)
    }

    /// Whether a call is struck; counts it.
    pub(super) fn strikes(&mut self, operation: Operation, name: &str) -> bool {
        if self.operation.is_some_and(|only| only != operation) || !name.starts_with(&self.prefix) {
            return false;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        let struck = self.times > 0;
        self.times = self.times.saturating_sub(1);
        self.skip = self.every - 1;
        struck
    }

    /// Adds the effect to a call's fate. Of several failures the first counts.
    pub(super) fn apply(&self, fate: &mut Fate) {
        match &self.effect {
            Effect::Before(failure) => fate.before = fate.before.take().or(Some(failure.error())),
            Effect::After(failure) => fate.after = fate.after.take().or(Some(failure.error())),
            Effect::Delay(duration) => fate.delays.push(*duration),
            Effect::Hang(hang) => fate.hang = fate.hang.or(Some(*hang)),
            Effect::Twice => fate.twice = true,
            edit => return fate.edits.push((edit.clone(), Arc::clone(&self.fired))),
        }
        self.fired.fetch_add(1, Ordering::SeqCst);
    }
}

impl Failure {
    pub(super) fn error(self) -> StoreError {
        let source = || Box::new(io::Error::other("injected"));
        match self {
            Self::Unavailable => StoreError::Unavailable(source()),
            Self::Full => StoreError::Full,
            Self::Denied => StoreError::Denied(source()),
            Self::NotFound => StoreError::NotFound,
            Self::UploadNotFound => StoreError::UploadNotFound,
            Self::AlreadyExists => StoreError::AlreadyExists,
            Self::Protocol => StoreError::Protocol("injected"),
        }
    }
}
