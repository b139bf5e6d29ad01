//! What one stream saw.

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;

use crate::client::{ClientError, Refusal};

/// Digits of a time that are kept.
const DIGITS: u8 = 3;
/// Longest time that is told from longer ones, microseconds: an hour.
const LONGEST: u64 = 3_600_000_000;

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
            times: times(),
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

/// A histogram of microseconds up to [`LONGEST`]. One that grows by itself does so for `record` alone: to `saturating_record`
/// its first bound, 2, is its last.
#[allow(clippy::expect_used)] // three digits and these bounds are allowed
fn times() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST, DIGITS).expect("bounds in order, 0 to 5 digits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_kept_as_they_were() {
        let (mut all, mut one) = (Tally::new(), Tally::new());
        for millis in [1, 20, 5_000] {
            one.succeeded(Duration::from_millis(millis), 1, 0);
        }
        one.succeeded(Duration::from_secs(1_000_000), 1, 0);
        all.add(&one);
        let quarter = |n: u32| all.times.value_at_quantile(f64::from(n) / 4.0);
        assert!(quarter(1).abs_diff(1_000) <= 1, "{}", quarter(1));
        assert!(quarter(2).abs_diff(20_000) <= 20, "{}", quarter(2));
        assert!(quarter(3).abs_diff(5_000_000) <= 5_000, "{}", quarter(3));
        assert!(all.times.max() >= LONGEST, "what is longer counts as the longest");
    }
}
