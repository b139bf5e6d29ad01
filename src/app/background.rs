//! What runs beside the calls.

use std::{sync::Arc, time::Duration};

use tokio::{
    task::AbortHandle,
    time::{self, Instant, Interval, MissedTickBehavior},
};

use crate::{config, server::Health, telemetry, vault::Vault};

use super::causes;

/// After the start's own work.
const FIRST_ORPHANS: Duration = Duration::from_secs(600);
const ORPHANS: Duration = Duration::from_secs(24 * 3_600);
const REQUESTS: Duration = Duration::from_secs(3_600);
const KEYS: Duration = Duration::from_secs(3_600);
/// Erasures whose grace has passed, and epochs whose destruction was scheduled.
const ERASURES: Duration = Duration::from_secs(60);
/// After the start's own work; a server that is restarted every day must still sweep.
const FIRST_SWEEP: Duration = Duration::from_secs(900);
const DAY_MICROS: i64 = 24 * 3_600 * 1_000_000;
const ROOT: Duration = Duration::from_secs(60);
const UPLOADS: Duration = Duration::from_secs(60);
const HEALTH: Duration = Duration::from_secs(1);

/// Tasks that end with their owner. Each may be cut anywhere: it takes up where it was.
#[derive(Debug)]
pub(super) struct Background(Vec<AbortHandle>);

impl Background {
    /// Runs them all.
    pub(super) fn run(vault: &Arc<Vault>, health: Health, keys: &config::Keys) -> Self {
        let orphans = tokio::spawn(collect_orphans(Arc::clone(vault)));
        let requests = tokio::spawn(forget_requests(Arc::clone(vault)));
        let uploads = tokio::spawn(expire_uploads(Arc::clone(vault)));
        let sweeps = tokio::spawn(sweep(Arc::clone(vault), keys.sweep_every_hours));
        let keys = tokio::spawn(rotate_keys(Arc::clone(vault), keys.rotate_after_days));
        let erasures = tokio::spawn(carry_out_erasures(Arc::clone(vault)));
        let root = tokio::spawn(watch_root(Arc::clone(vault)));
        let health = tokio::spawn(watch_health(Arc::clone(vault), health));
        Self(vec![
            orphans.abort_handle(),
            requests.abort_handle(),
            uploads.abort_handle(),
            keys.abort_handle(),
            erasures.abort_handle(),
            sweeps.abort_handle(),
            root.abort_handle(),
            health.abort_handle(),
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
        vault.forget_stale_keys();
        vault.expire_uploads().await;
    }
}

/// Rotates keys that have reached their age.
async fn rotate_keys(vault: Arc<Vault>, after_days: u32) {
    if after_days == 0 {
        return;
    }
    let mut hourly = every(KEYS, KEYS);
    loop {
        hourly.tick().await;
        let age = i64::from(after_days) * DAY_MICROS;
        if let Err(error) = vault.turn_due_epoch(age).await {
            tracing::warn!(%error, "an old root epoch is not turned; tried again in an hour");
        }
        match vault.rotate_due_keys(age).await {
            Ok(begun) => tracing::debug!(begun, "keys that have reached their age are rotated"),
            Err(error) => tracing::warn!(%error, "old keys were not looked for; tried again in an hour"),
        }
    }
}

/// Shreds what is due, and finishes what waited for a provider's time to come.
async fn carry_out_erasures(vault: Arc<Vault>) {
    let mut ticks = every(Duration::ZERO, ERASURES);
    loop {
        ticks.tick().await;
        if let Err(error) = vault.carry_out_due().await {
            tracing::warn!(%error, "due erasures were not looked for; tried again in a minute");
        }
        if let Err(error) = vault.finish_scheduled().await {
            tracing::warn!(%error, "scheduled destructions were not looked at; tried again in a minute");
        }
    }
}

/// Makes final what was shredded, if anything was; and secures what has come since the last time.
async fn sweep(vault: Arc<Vault>, every_hours: u32) {
    let period = Duration::from_secs(3_600 * u64::from(every_hours));
    let mut ticks = every(FIRST_SWEEP.min(period), period);
    loop {
        ticks.tick().await;
        look_for_sweeps(&vault).await;
    }
}

async fn look_for_sweeps(vault: &Arc<Vault>) {
    match vault.sweep_if_due().await {
        Ok(true) => tracing::debug!("the region is swept"),
        Ok(false) => {}
        Err(error) => tracing::warn!(%error, "the region was not swept; tried again when it is due"),
    }
    // A sweep copies before it destroys, and may not come so far for long.
    if let Err(error) = vault.back_up_key_state().await {
        tracing::error!(%error, cause = error.source.as_deref().map(|cause| causes(cause)), "the recovery store is not as new as the bucket");
    }
}

/// Asks the root's provider whether it is still there.
async fn watch_root(vault: Arc<Vault>) {
    let mut each_minute = every(Duration::ZERO, ROOT);
    let mut before = None;
    loop {
        each_minute.tick().await;
        let was_away = before == Some("ROOT_UNAVAILABLE");
        match vault.check_root().await {
            Ok(()) if was_away => tracing::info!("the root provider answers again"),
            Ok(()) => {}
            Err(error) => {
                let silent_seconds = vault.root_silence().as_secs();
                tracing::error!(
                    %error,
                    cause = error.source.as_deref().map(|cause| causes(cause)),
                    silent_seconds,
                    "the root provider does not give the key that is open; content is served until keys.serve_without_root_seconds"
                );
            }
        }
        let now = vault.warning();
        if now == Some("ROOT_NOT_CONFIGURED") && now != before {
            tracing::error!(
                "older root epochs are with a provider that the configuration has no section for: no sweep can end; put it back"
            );
        }
        before = now;
        metrics::gauge!(telemetry::ROOT_SILENCE).set(vault.root_silence().as_secs_f64());
    }
}

/// Tells probes when the vault takes nothing in any more.
async fn watch_health(vault: Arc<Vault>, health: Health) {
    let mut each_second = every(HEALTH, HEALTH);
    loop {
        each_second.tick().await;
        let lost = vault.health().err().map(|error| error.reason);
        health.suspend(lost).await;
        health.warn(vault.warning());
    }
}

fn every(period_before_first: Duration, period: Duration) -> Interval {
    let mut ticks = time::interval_at(Instant::now() + period_before_first, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{
        domain::{
            erasure::{Ground, Target},
            tenant::TenantSettings,
        },
        keys::providers::Providers,
        testing::{
            root::{FaultyRoot, Manner},
            world::{Engine, World},
        },
        vault::{ErasureSpec, OperationState},
    };

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_new_is_backed_up_while_a_sweep_that_is_due_does_not_get_on() {
        let dir = tempfile::tempdir().unwrap();
        let mut world = World::new(dir.path(), Engine::Memory, 91).unwrap();
        world.has_recovery = true;
        let root = FaultyRoot::over(Arc::new(world.root_provider().unwrap()));
        world.roots = Some(Providers::one(Arc::new(root.clone())));
        world.open().await.unwrap();
        let vault = world.vault();
        let tenant = "acme".parse().unwrap();
        let made = vault.create_tenant("admin", &tenant, TenantSettings::default(), None);
        made.await.unwrap();
        let spec = ErasureSpec {
            tenant,
            actor: "compliance".into(),
            target: Target::Tenant,
            ground: Ground::A17,
            reference: "CASE-1".parse().unwrap(),
            grace_micros: Some(0),
            expected_set: None,
            request: None,
        };
        vault.request_erasure(spec).await.unwrap();
        root.behave(Manner::Lying);
        look_for_sweeps(vault).await;
        // It says why it does not get on, and rests for seconds.
        loop {
            let operations = vault.key_operations(None, 9, |_| true).await.unwrap().0;
            assert_eq!(operations[0].state, OperationState::Running);
            if operations[0].reason.is_some() {
                break;
            }
            time::sleep(Duration::from_millis(2)).await;
        }
        let copied = world.recovery_path().join("objects/vault");
        fs::remove_dir_all(&copied).unwrap();
        look_for_sweeps(vault).await;
        assert!(copied.join("manifest").exists());
        world.crash().await;
    }
}
