//! One budget of bytes for the whole process: what is in flight, whoever asked for it.

use std::{sync::Arc, time::Duration};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Error, Kind};

/// Reserved in steps of this many bytes: the semaphore counts steps in 32 bits.
const STEP: u64 = 4_096;
/// Longest wait for room before a caller is told to come back.
const PATIENCE: Duration = Duration::from_secs(5);

/// Bytes that may be in flight.
#[derive(Clone, Debug)]
pub struct Budget {
    steps: Arc<Semaphore>,
    total: u32,
}

impl Budget {
    /// A budget of this many bytes.
    pub fn new(bytes: u64) -> Self {
        let total = u32::try_from(bytes / STEP)
            .unwrap_or(u32::MAX >> 3)
            .clamp(1, u32::MAX >> 3);
        Self {
            steps: Arc::new(Semaphore::new(total as usize)),
            total,
        }
    }

    /// Reserves room until the reservation is dropped. Cancel safe.
    ///
    /// # Errors
    /// [`Kind::Exhausted`] if there was none in time.
    pub async fn reserve(&self, bytes: u64) -> Result<Reservation, Error> {
        // What is larger than the whole budget takes all of it: alone, but it gets through.
        let steps = u32::try_from(bytes.div_ceil(STEP))
            .unwrap_or(u32::MAX)
            .clamp(1, self.total);
        let waiting = Arc::clone(&self.steps).acquire_many_owned(steps);
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(Ok(permit)) => Ok(Reservation { _permit: permit }),
            _ => Err(Error::new(
                Kind::Exhausted,
                "MEMORY_BUDGET",
                "too many bytes in flight; try again limit=limits.memory_budget_bytes",
            )),
        }
    }

    /// Reserves room if there is some now and nobody waits for it.
    pub fn try_reserve(&self, bytes: u64) -> Option<Reservation> {
        let steps = u32::try_from(bytes.div_ceil(STEP)).ok()?;
        let permit = Arc::clone(&self.steps).try_acquire_many_owned(steps.max(1));
        permit.ok().map(|permit| Reservation { _permit: permit })
    }

    /// Bytes that are free now.
    pub fn available(&self) -> u64 {
        self.steps.available_permits() as u64 * STEP
    }
}

/// Room for bytes in flight.
#[derive(Debug)]
pub struct Reservation {
    _permit: OwnedSemaphorePermit,
}
