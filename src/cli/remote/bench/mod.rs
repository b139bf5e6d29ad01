//! `bench`: load on a running server, and what it answered.
//!
//! Closed loops: every stream does one thing after the other, so that a slow server is asked less, never more. What it writes
//! stays there, in the conversation `callvault-bench`.

mod load;
mod place;
mod report;
mod tally;

use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::Remote;
use crate::cli::{CliError, terminal};

/// Options of `bench`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Bench {
    /// What to do
    #[arg(value_enum, value_name = "WORK", default_value_t = Work::Mixed)]
    work: Work,
    /// Things done at a time
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    streams: u32,
    /// Bytes of a recording, e.g. 64KiB, 8MiB
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = size)]
    size: u64,
    /// Bytes of a message
    #[arg(long, value_name = "SIZE", default_value = "1KiB", value_parser = size)]
    message_size: u64,
    /// Messages of one call; more than one go as a batch
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    batch: u32,
    /// Tenants to spread over: 1 is --tenant, more are bench-1, bench-2, ..., made where they are missing
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    tenants: u32,
    /// Connections to spread over
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    connections: u32,
    /// How long to measure
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// How long to run before measuring
    #[arg(long, value_name = "SECONDS", default_value_t = 1)]
    warm_up: u64,
    #[command(flatten)]
    remote: Remote,
}

/// What a stream does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Work {
    /// Upload recordings
    Uploads,
    /// Read recordings that it uploaded first
    Reads,
    /// Put messages
    Messages,
    /// Of twenty things: one upload, four reads, fifteen messages
    Mixed,
}

impl Bench {
    pub(super) async fn run(self) -> Result<(), CliError> {
        if self.message_size > load::MESSAGE_BYTES {
            return Err(CliError::usage("--message-size: a message has at most 1 MiB"));
        }
        if u64::from(self.batch) * self.message_size > load::BATCH_BYTES {
            return Err(CliError::usage(
                "--batch and --message-size: a call takes at most 3.5 MiB of bodies",
            ));
        }
        let place = place::Place::prepare(&self).await?;
        let tallies = load::run(&self, &place).await?;
        let report = report::Report::of(&self, tallies);
        if self.remote.json {
            let text = serde_json::to_string_pretty(&report).map_err(|e| CliError::failed(e.to_string()))?;
            terminal::say(text)?;
        } else {
            terminal::say(&report)?;
        }
        if report.did_nothing() {
            return Err(CliError::failed("nothing succeeded; see the errors above"));
        }
        Ok(())
    }

    fn measured(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

/// `512`, `64KiB`, `8MiB`, `1GiB`.
fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match &text[digits.len()..] {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err("must be a number of B, KiB, MiB or GiB, e.g. 8MiB".to_owned()),
    };
    let number: u64 = digits
        .parse()
        .map_err(|_| "must begin with a number".to_owned())?;
    match number.checked_mul(unit) {
        Some(bytes) if (1..=64 << 30).contains(&bytes) => Ok(bytes),
        _ => Err("must be 1 B to 64 GiB".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_or_are_refused() {
        assert_eq!(size("512"), Ok(512));
        assert_eq!(size("8MiB"), Ok(8 << 20));
        for bad in ["", "0", "8MB", "MiB", "65GiB", "99999999999999999999"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }
}
