//! One change of a tenant's keys at a time, and one of the region's.
//!
//! Whoever makes a page known, or another generation of one, holds the gate of its owner meanwhile; so does a rotation for its
//! last step, in which the new key becomes the current one. So no page is known under a key that is no longer the current one.
//! Readers, and puts that take slots of pages that are there, hold no gate.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::OwnedMutexGuard;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::domain::ids::TenantId;

use super::KeyError;

/// Gates kept when nobody is at them.
const MOST: usize = 1_024;

/// The right to change somebody's keys; given back when dropped.
pub type Gate = OwnedMutexGuard<()>;

/// A gate for the region, and one for every tenant.
#[derive(Debug, Default)]
pub(crate) struct Gates {
    region: Arc<tokio::sync::Mutex<()>>,
    tenants: Mutex<HashMap<TenantId, Arc<tokio::sync::Mutex<()>>>>,
}

impl Gates {
    pub(crate) async fn region(&self) -> Gate {
        Arc::clone(&self.region).lock_owned().await
    }

    pub(crate) async fn tenant(&self, tenant: &TenantId) -> Gate {
        let gate = {
            let mut gates = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
            if gates.len() >= MOST {
                gates.retain(|_, gate| Arc::strong_count(gate) > 1);
            }
            Arc::clone(gates.entry(tenant.clone()).or_default())
        };
        gate.lock_owned().await
    }
}

/// Changes that need a gate, each in a task of its own: a caller that goes away must not open the gate to somebody who does not
/// see the change yet. They end with the process.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    tasks: TaskTracker,
    halted: CancellationToken,
}

impl Changes {
    /// Makes a change, and gives `held` back when it is made.
    ///
    /// # Errors
    /// [`KeyError::Interrupted`] if the process ends first: it may have been made or not.
    pub async fn run<T: Send + 'static>(
        &self,
        held: impl Send + 'static,
        change: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, KeyError> {
        let halted = self.halted.clone();
        let task = self.tasks.spawn(async move {
            let _held = held;
            halted.run_until_cancelled_owned(change).await
        });
        task.await.ok().flatten().ok_or(KeyError::Interrupted)
    }

    /// Ends what is under way; nothing of it is left when this returns.
    pub async fn halt(&self) {
        self.halted.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{sync::oneshot, time::timeout};

    use super::*;

    #[tokio::test]
    async fn a_gate_stays_closed_until_the_change_is_made_whatever_becomes_of_the_caller() {
        let (gates, changes) = (Gates::default(), Changes::default());
        let (make, made) = oneshot::channel::<()>();
        let gate = gates.region().await;
        let of_caller = changes.clone();
        let caller = tokio::spawn(async move { of_caller.run(gate, made).await });
        tokio::time::sleep(Duration::from_millis(10)).await;
        caller.abort();
        assert!(caller.await.is_err());
        let soon = Duration::from_millis(30);
        assert!(timeout(soon, gates.region()).await.is_err());
        make.send(()).unwrap();
        timeout(Duration::from_secs(5), gates.region()).await.unwrap();
    }

    #[tokio::test]
    async fn the_end_of_a_process_ends_what_is_under_way() {
        let (gates, changes) = (Gates::default(), Changes::default());
        let gate = gates.region().await;
        let of_caller = changes.clone();
        let never = std::future::pending::<()>();
        let caller = tokio::spawn(async move { of_caller.run(gate, never).await });
        tokio::time::sleep(Duration::from_millis(10)).await;
        changes.halt().await;
        assert!(matches!(caller.await.unwrap(), Err(KeyError::Interrupted)));
        timeout(Duration::from_secs(5), gates.region()).await.unwrap();
    }
}
