//! What runs beside the calls.

use std::{sync::Arc, time::Duration};

use tokio::{
    task::AbortHandle,
    time::{self, Instant, MissedTickBehavior},
};

use crate::vault::Vault;

/// After the start's own work.
const FIRST_ORPHANS: Duration = Duration::from_secs(600);
const ORPHANS: Duration = Duration::from_secs(24 * 3_600);

/// Tasks that end with their owner. Each may be cut anywhere: it takes up where it was.
#[derive(Debug)]
pub(super) struct Background(Vec<AbortHandle>);

impl Background {
    /// Runs them all.
    pub(super) fn run(vault: &Arc<Vault>) -> Self {
        let orphans = tokio::spawn(collect_orphans(Arc::clone(vault)));
        Self(vec![orphans.abort_handle()])
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

async fn collect_orphans(vault: Arc<Vault>) {
    let mut daily = time::interval_at(Instant::now() + FIRST_ORPHANS, ORPHANS);
    daily.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        daily.tick().await;
        match vault.collect_orphans().await {
            Ok(done) => {
                tracing::info!(
                    quarantined = done.quarantined,
                    aborted = done.aborted,
                    "orphans were collected"
                );
            }
            Err(error) => tracing::warn!(%error, "orphans were not collected; tried again tomorrow"),
        }
    }
}
