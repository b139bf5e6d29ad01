//! Steps of the story, each with its time.

use std::time::{Duration, Instant};

use crate::cli::{CliError, terminal};

/// Width of what was done.
const WIDTH: usize = 58;

/// Tells steps as they are done.
pub(super) struct Steps {
    began: Instant,
    last: Instant,
}

impl Steps {
    pub(super) fn begin() -> Self {
        let now = Instant::now();
        Self {
            began: now,
            last: now,
        }
    }

    /// A step is done.
    pub(super) fn done(&mut self, what: &str, detail: &str) -> Result<(), CliError> {
        let now = Instant::now();
        let took = terminal::elapsed(now - self.last);
        self.last = now;
        Ok(terminal::say(
            format!("  {what:<WIDTH$} {took:>8}   {detail}").trim_end(),
        )?)
    }

    /// What a step moved, in megabytes per second of its time so far.
    pub(super) fn rate(&self, bytes: usize) -> String {
        let seconds = self.last.elapsed().max(Duration::from_micros(1)).as_secs_f64();
        #[allow(clippy::cast_precision_loss)] // shown without digits
        let rate = bytes as f64 / 1e6 / seconds;
        format!("{rate:.0} MB/s")
    }

    /// The end of the story.
    pub(super) fn end(&self) -> Result<(), CliError> {
        let took = terminal::elapsed(self.began.elapsed());
        Ok(terminal::say(format!("  {:<WIDTH$} {took:>8}", "in all"))?)
    }
}

/// Goes on only if something holds.
pub(super) fn must(holds: bool, otherwise: &str) -> Result<(), CliError> {
    if holds {
        Ok(())
    } else {
        Err(CliError::failed(otherwise))
    }
}
