//! What came out: a table for people, JSON for programs.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

use super::{Bench, Work, load::Tallies, tally::Tally};
use crate::cli::terminal;

/// One run.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    work: Work,
    streams: u32,
    tenants: u32,
    connections: u32,
    seconds: u64,
    size_bytes: u64,
    message_bytes: u64,
    batch: u32,
    results: BTreeMap<&'static str, Line>,
}

/// One kind of deed.
#[derive(Debug, Serialize)]
struct Line {
    done: u64,
    per_second: f64,
    bytes_per_second: f64,
    latency_micros: Latency,
    errors: BTreeMap<String, u64>,
}

/// Of calls that succeeded.
#[derive(Debug, Serialize)]
struct Latency {
    p50: u64,
    p90: u64,
    p99: u64,
    p999: u64,
    max: u64,
}

impl Report {
    pub(super) fn of(bench: &Bench, tallies: Tallies) -> Self {
        let results = tallies
            .iter()
            .map(|(deed, tally)| (deed.name(), Line::of(tally, bench.seconds)));
        Self {
            work: bench.work,
            streams: bench.streams,
            tenants: bench.tenants,
            connections: bench.connections,
            seconds: bench.seconds,
            size_bytes: bench.size,
            message_bytes: bench.message_size,
            batch: bench.batch,
            results: results.collect(),
        }
    }

    pub(super) fn did_nothing(&self) -> bool {
        self.results.values().all(|line| line.done == 0)
    }
}

impl Line {
    #[allow(clippy::cast_precision_loss)] // rates are shown with three digits
    fn of(tally: &Tally, seconds: u64) -> Self {
        let times = &tally.times;
        Self {
            done: tally.done,
            per_second: tally.done as f64 / seconds as f64,
            bytes_per_second: tally.bytes as f64 / seconds as f64,
            latency_micros: Latency {
                p50: times.value_at_quantile(0.5),
                p90: times.value_at_quantile(0.9),
                p99: times.value_at_quantile(0.99),
                p999: times.value_at_quantile(0.999),
                max: times.max(),
            },
            errors: tally.errors.clone(),
        }
    }

    fn row(&self, name: &str) -> Vec<String> {
        let millis = |micros: u64| format!("{}.{:02}", micros / 1_000, micros % 1_000 / 10);
        let latency = &self.latency_micros;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a rate, shown with one digit
        let rate = terminal::bytes(self.bytes_per_second as u64);
        vec![
            name.to_owned(),
            format!("{:.1}/s", self.per_second),
            format!("{rate}/s"),
            millis(latency.p50),
            millis(latency.p90),
            millis(latency.p99),
            millis(latency.p999),
            millis(latency.max),
            self.errors.values().sum::<u64>().to_string(),
        ]
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = [
            "", "done", "content", "p50 ms", "p90", "p99", "p99.9", "max", "errors",
        ];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        rows.extend(self.results.iter().map(|(name, line)| line.row(name)));
        f.write_str(&terminal::columns(&rows))?;
        for (name, line) in &self.results {
            for (error, count) in &line.errors {
                write!(f, "\n{name}: {count} x {error}")?;
            }
        }
        Ok(())
    }
}
