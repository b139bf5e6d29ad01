//! Work that nobody waits for leaves the machine to others half of the time: a sweep must not be felt (docs/performance.md).

use std::time::Duration;

use tokio::time::{self, Instant};

/// Shorter rests are added up: a timer is no finer.
const SHORTEST: Duration = Duration::from_millis(2);
/// However long a piece of work waited for disk or bucket, nobody gains by a longer rest.
const LONGEST: Duration = Duration::from_millis(50);

/// How long a piece of work has gone on without a rest.
#[derive(Debug)]
pub(super) struct Pace {
    owed: Duration,
    since: Instant,
}

impl Pace {
    /// Begins to work.
    pub(super) fn begin() -> Self {
        Self {
            owed: Duration::ZERO,
            since: Instant::now(),
        }
    }

    /// Rests for as long as it worked since the last rest. Cancel safe.
    pub(super) async fn rest(&mut self) {
        match self.due(self.since.elapsed()) {
            Some(rest) => time::sleep(rest).await,
            None => tokio::task::yield_now().await,
        }
        self.since = Instant::now();
    }

    /// What is due after some more work, if it is worth a rest.
    fn due(&mut self, worked: Duration) -> Option<Duration> {
        self.owed += worked;
        let rest = (self.owed >= SHORTEST).then(|| self.owed.min(LONGEST));
        if rest.is_some() {
            self.owed = Duration::ZERO;
        }
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rests_as_long_as_it_works_and_never_for_long() {
        let mut pace = Pace::begin();
        let millis = Duration::from_millis;
        for (worked, rested) in [
            (1, None),
            (1, Some(2)),
            (5, Some(5)),
            (0, None),
            (1_000, Some(50)),
            (1, None),
        ] {
            assert_eq!(pace.due(millis(worked)), rested.map(millis), "{worked}");
        }
    }
}
