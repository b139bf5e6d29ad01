//! Stopping without breaking what runs: stop accepting, let calls finish, then cut.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// The two moments of a stop, shared by all that must know of them.
#[derive(Clone, Debug, Default)]
pub struct Drain {
    begun: CancellationToken,
    cut: CancellationToken,
}

impl Drain {
    /// Nothing has begun.
    pub fn new() -> Self {
        Self::default()
    }

    /// For services: cancelled when the drain begins. Calls that end by themselves may go on until the deadline;
    /// calls that would wait for ever select on it and end with `UNAVAILABLE`.
    pub fn token(&self) -> CancellationToken {
        self.begun.clone()
    }

    /// Begins: no new connection, no new call.
    pub fn begin(&self) {
        self.begun.cancel();
    }

    /// Breaks every connection.
    pub fn cut(&self) {
        self.begun.cancel();
        self.cut.cancel();
    }

    /// Begins at the first SIGTERM or SIGINT, cuts at the second: an operator who repeats it means it.
    ///
    /// # Errors
    /// [`io::Error`] if signals cannot be listened to.
    pub fn on_signals(&self) -> io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let drain = self.clone();
        tokio::spawn(async move {
            for stop in [Self::begin, Self::cut] {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                stop(&drain);
            }
        });
        Ok(())
    }

    pub(super) fn when_begun(&self) -> WaitForCancellationFutureOwned {
        self.begun.clone().cancelled_owned()
    }

    pub(super) fn when_cut(&self) -> WaitForCancellationFutureOwned {
        self.cut.clone().cancelled_owned()
    }
}
