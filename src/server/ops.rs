//! What probes and scrapers ask, in plain HTTP on a port of its own: they carry no client certificates.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
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

/// Whether the server takes calls.
#[derive(Clone, Debug)]
pub struct Health {
    /// Told on the API's port; forgotten when the drain begins, so that watchers do not hold it up.
    api: HealthReporter,
    /// Told on the plain port to the end.
    ops: HealthReporter,
    ready: Arc<AtomicBool>,
    /// Nothing makes it serve again once the drain has begun.
    stopped: Arc<AtomicBool>,
}

impl Health {
    /// Not serving yet.
    pub(super) async fn new() -> Self {
        let this = Self {
            api: HealthReporter::new(),
            ops: HealthReporter::new(),
            ready: Arc::default(),
            stopped: Arc::default(),
        };
        this.tell(false).await;
        this
    }

    /// Says, from now on, whether the server takes calls: for the vault to report what it needs and lost.
    pub async fn tell(&self, serving: bool) {
        let serving = serving && !self.stopped.load(Ordering::Acquire);
        self.ready.store(serving, Ordering::Release);
        let status = if serving {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        for service in services() {
            self.api.set_service_status(&service, status).await;
            self.ops.set_service_status(&service, status).await;
        }
    }

    /// Not serving, and watchers on the API's port are let go.
    pub(super) async fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.tell(false).await;
        let mut api = self.api.clone();
        for service in services() {
            api.clear_service_status(&service).await;
        }
    }

    /// The health service of the API's port.
    pub(super) fn api_service(&self) -> HealthServer<HealthService> {
        HealthServer::new(HealthService::from_health_reporter(self.api.clone()))
    }

    fn ops_service(&self) -> HealthServer<HealthService> {
        HealthServer::new(HealthService::from_health_reporter(self.ops.clone()))
    }

    fn ready(&self) -> StatusCode {
        if self.ready.load(Ordering::Acquire) {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
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
