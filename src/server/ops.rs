//! What probes and scrapers ask, in plain HTTP on a port of its own: they carry no client certificates.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{Router, routing::get};
use http::StatusCode;
use metrics_exporter_prometheus::PrometheusHandle;
use prost_reflect::DescriptorPool;
use tokio::{net::TcpListener, time};
use tonic::service::Routes;
use tonic_health::{
    ServingStatus,
    pb::health_server::HealthServer,
    server::{HealthReporter, HealthService},
};

use crate::proto::v1::FILE_DESCRIPTOR_SET;

/// How often histograms are folded, scraped or not.
const UPKEEP: Duration = Duration::from_secs(5);

/// Whether the server takes calls, and if not, why.
#[derive(Clone, Debug)]
pub struct Health {
    /// Told on the API's port; forgotten when the drain begins, so that watchers do not hold it up.
    api: HealthReporter,
    /// Told on the plain port to the end.
    ops: HealthReporter,
    state: Arc<Mutex<State>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    serving: bool,
    /// What keeps the vault from taking anything in.
    suspended: Option<&'static str>,
    /// What may soon do so.
    warning: Option<&'static str>,
    /// Nothing makes it serve again once the drain has begun.
    stopped: bool,
}

impl State {
    /// Why it is not ready; `None` when it is.
    fn unready(self) -> Option<&'static str> {
        match self {
            Self { stopped: true, .. } => Some("DRAINING"),
            Self { serving: false, .. } => Some("STARTING"),
            state => state.suspended,
        }
    }
}

impl Health {
    /// Not serving yet.
    pub(super) async fn new() -> Self {
        let this = Self {
            api: HealthReporter::new(),
            ops: HealthReporter::new(),
            state: Arc::default(),
        };
        this.publish().await;
        this
    }

    /// Says that the server serves, from now on.
    pub(super) async fn serve(&self) {
        self.change(|state| state.serving = true).await;
    }

    /// Says that the vault lost what it needs to take anything in, by the reason that its errors give, or that it has it again.
    pub async fn suspend(&self, reason: Option<&'static str>) {
        self.change(|state| state.suspended = reason).await;
    }

    /// Says what may soon keep the vault from taking anything in, or that nothing does: probes still find it ready.
    pub fn warn(&self, warning: Option<&'static str>) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).warning = warning;
    }

    /// Not serving, and watchers on the API's port are let go.
    pub(super) async fn stop(&self) {
        self.change(|state| state.stopped = true).await;
        let mut api = self.api.clone();
        for service in services() {
            api.clear_service_status(&service).await;
        }
    }

    async fn change(&self, change: impl FnOnce(&mut State)) {
        let changed = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let before = state.unready();
            change(&mut state);
            before != state.unready()
        };
        if changed {
            self.publish().await;
        }
    }

    async fn publish(&self) {
        let state = self.state();
        let status = match state.unready() {
            None => ServingStatus::Serving,
            Some(_) => ServingStatus::NotServing,
        };
        for service in services() {
            self.api.set_service_status(&service, status).await;
            self.ops.set_service_status(&service, status).await;
        }
    }

    fn state(&self) -> State {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The health service of the API's port.
    pub(super) fn api_service(&self) -> HealthServer<HealthService> {
        HealthServer::new(HealthService::from_health_reporter(self.api.clone()))
    }

    fn ops_service(&self) -> HealthServer<HealthService> {
        HealthServer::new(HealthService::from_health_reporter(self.ops.clone()))
    }

    /// For a probe: the status, and why, or what it is warned of.
    fn ready(&self) -> (StatusCode, &'static str) {
        let state = self.state();
        match state.unready() {
            None => (StatusCode::OK, state.warning.unwrap_or_default()),
            Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason),
        }
    }
}

/// The names that health is told of: the server as a whole, and each service of the API.
fn services() -> Vec<String> {
    let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET).unwrap_or_default();
    let names = pool.services().map(|service| service.full_name().to_owned());
    std::iter::once(String::new()).chain(names).collect()
}

/// Serves gRPC health (h2c), `/livez`, `/readyz` and `/metrics` until it is dropped.
pub(super) async fn serve(listener: TcpListener, health: Health, metrics: Option<PrometheusHandle>) {
    let router = router(&health, metrics.clone());
    tokio::select! {
        served = async { axum::serve(listener, router).await } => {
            if let Err(error) = served {
                tracing::error!(%error, "health and metrics are no longer served");
            }
        }
        () = keep_up(metrics) => {}
    }
}

fn router(health: &Health, metrics: Option<PrometheusHandle>) -> Router {
    let ready = health.clone();
    Routes::new(health.ops_service())
        .into_axum_router()
        .route("/livez", get(|| async { StatusCode::OK }))
        .route("/readyz", get(move || async move { ready.ready() }))
        .route(
            "/metrics",
            get(move || async move { metrics.map(|handle| handle.render()).unwrap_or_default() }),
        )
}

async fn keep_up(metrics: Option<PrometheusHandle>) {
    loop {
        time::sleep(UPKEEP).await;
        if let Some(handle) = &metrics {
            handle.run_upkeep();
        }
    }
}
