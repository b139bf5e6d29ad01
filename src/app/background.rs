//! What runs beside the calls.

use std::{sync::Arc, time::Duration};

use tokio::{
    task::AbortHandle,
    time::{self, Instant, Interval, MissedTickBehavior},
};

use crate::vault::Vault;

/// After the start's own work.
const FIRST_ORPHANS: Duration = Duration::from_secs(600);
const ORPHANS: Duration = Duration::from_secs(24 * 3_600);
const REQUESTS: Duration = Duration::from_secs(3_600);
const UPLOADS: Duration = Duration::from_secs(60);

/// Tasks that end with their owner. Each may be cut anywhere: it takes up where it was.
#[derive(Debug)]
pub(super) struct Background(Vec<AbortHandle>);

impl Background {
    /// Runs them all.
    pub(super) fn run(vault: &Arc<Vault>) -> Self {
        let orphans = tokio::spawn(collect_orphans(Arc::clone(vault)));
        let requests = tokio::spawn(forget_requests(Arc::clone(vault)));
        let uploads = tokio::spawn(expire_uploads(Arc::clone(vault)));
        Self(vec![
            orphans.abort_handle(),
            requests.abort_handle(),
            uploads.abort_handle(),
        ])
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

async fn collect_orphans(vault: Arc<Vault>) {
    let mut daily = every(FIRST_ORPHANS, ORPHANS);
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

async fn forget_requests(vault: Arc<Vault>) {
    let mut hourly = every(REQUESTS, REQUESTS);
    loop {
        hourly.tick().await;
        match vault.forget_expired_requests().await {
            Ok(forgotten) => tracing::debug!(forgotten, "expired request ids were forgotten"),
            Err(error) => {
                tracing::warn!(%error, "expired request ids were not forgotten; tried again in an hour")
            }
        }
    }
}

async fn expire_uploads(vault: Arc<Vault>) {
    let mut ticks = every(Duration::ZERO, UPLOADS);
    loop {
        ticks.tick().await;
        vault.expire_uploads().await;
    }
}

fn every(period_before_first: Duration, period: Duration) -> Interval {
    let mut ticks = time::interval_at(Instant::now() + period_before_first, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
