//! What one stream saw.

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;

use crate::client::{ClientError, Refusal};

/// Digits of a time that are kept.
const DIGITS: u8 = 3;

/// Successes with their times, failures by reason.
#[derive(Debug)]
pub(super) struct Tally {
    /// Microseconds of each call that succeeded.
    pub(super) times: Histogram<u64>,
    /// Things done: a batch is many.
    pub(super) done: u64,
    /// Bytes of content that they moved.
    pub(super) bytes: u64,
    /// `CODE REASON` and how often.
    pub(super) errors: BTreeMap<String, u64>,
}

impl Tally {
    pub(super) fn new() -> Self {
        Self {
            times: unbounded(),
            done: 0,
            bytes: 0,
            errors: BTreeMap::new(),
        }
    }

    pub(super) fn succeeded(&mut self, took: Duration, done: u64, bytes: u64) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.times.saturating_record(micros);
        self.done += done;
        self.bytes += bytes;
    }

    pub(super) fn failed(&mut self, error: &ClientError) {
        match error.refusal() {
            Some(refusal) => self.refused(refusal),
            None => self.count("broken".to_owned()),
        }
    }

    pub(super) fn refused(&mut self, refusal: &Refusal) {
        let name = format!("{:?} {}", refusal.code, refusal.reason);
        self.count(name.trim_end().to_owned());
    }

    fn count(&mut self, error: String) {
        *self.errors.entry(error).or_default() += 1;
    }

    pub(super) fn add(&mut self, other: &Self) {
        // Both have the same bounds.
        let _ = self.times.add(&other.times);
        self.done += other.done;
        self.bytes += other.bytes;
        for (name, count) in &other.errors {
            *self.errors.entry(name.clone()).or_default() += count;
        }
    }
}

/// A histogram that grows with what it is told.
#[allow(clippy::expect_used)] // three digits are allowed
fn unbounded() -> Histogram<u64> {
    Histogram::new(DIGITS).expect("0 to 5 digits")
}
