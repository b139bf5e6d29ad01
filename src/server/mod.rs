//! Everything between the socket and the services: TLS, identity, limits, health, drain.
//!
//! ```text
//! TcpListener -> accept (bounded handshakes, places) -> keep (HTTP/2, frames watched) -> observe -> admit -> call -> service
//! ```

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::{net::TcpListener, task::AbortHandle, time};
use tokio_util::task::TaskTracker;
use tonic::service::Routes;

use crate::{access::identity::Callers, config::Limits, proto::v1::FILE_DESCRIPTOR_SET};

mod accept;
mod activity;
mod admit;
mod call;
mod connection;
pub mod drain;
mod frames;
mod handshakes;
mod inflow;
mod keep;
mod methods;
mod observe;
pub mod ops;
pub mod pki;
mod places;
mod quota;
mod refusal;
pub mod tls;

pub use drain::Drain;
pub use ops::Health;
pub use tls::ServerTls;

/// How long connections may take to notice that they were cut.
const CUT_GRACE: Duration = Duration::from_secs(1);

/// A server that is bound and not yet serving.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    ops: Option<TcpListener>,
    limits: Limits,
    tls: Arc<ServerTls>,
    callers: Arc<Callers>,
    drain: Drain,
    health: Health,
    metrics: Option<PrometheusHandle>,
}

/// Where to listen.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// The API.
    pub api: SocketAddr,
    /// Health and metrics, in plain HTTP.
    pub ops: Option<SocketAddr>,
}

impl Server {
    /// Binds the ports, so that the addresses are known before anything is served.
    ///
    /// # Errors
    /// [`ServeError::Bind`], naming the address.
    pub async fn bind(
        addresses: Addresses,
        limits: Limits,
        tls: Arc<ServerTls>,
        callers: Arc<Callers>,
        drain: Drain,
    ) -> Result<Self, ServeError> {
        let ops = match addresses.ops {
            Some(address) => Some(bind(address).await?),
            None => None,
        };
        let listener = bind(addresses.api).await?;
        let health = Health::new().await;
        Ok(Self {
            listener,
            ops,
            limits,
            tls,
            callers,
            drain,
            health,
            metrics: None,
        })
    }

    /// Shows what this process collects at `/metrics`.
    #[must_use]
    pub fn with_metrics(mut self, metrics: PrometheusHandle) -> Self {
        self.metrics = Some(metrics);
        self
    }

    /// Where the API listens; the port that was chosen if 0 was asked for.
    ///
    /// # Errors
    /// [`io::Error`] if the system does not know.
    pub fn api_address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Where health and metrics are served.
    ///
    /// # Errors
    /// [`io::Error`] if the system does not know.
    pub fn ops_address(&self) -> io::Result<Option<SocketAddr>> {
        self.ops.as_ref().map(TcpListener::local_addr).transpose()
    }

    /// For whoever must tell that the vault cannot take calls.
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Serves until the drain is over: at the latest its deadline and a second after it began.
    ///
    /// # Errors
    /// [`ServeError`] if the server cannot run at all; nothing that a caller does ends it.
    pub async fn run(self, services: Routes) -> Result<(), ServeError> {
        let Self {
            listener,
            ops,
            limits,
            tls,
            callers,
            drain,
            health,
            metrics,
        } = self;
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .build_v1()?;
        let routes = services
            .add_service(health.api_service())
            .add_service(reflection)
            .prepare();
        let _ops = ops.map(|ops| Background::run(ops::serve(ops, health.clone(), metrics)));
        let _stop = Background::run(stop_health(health.clone(), drain.clone()));
        let gate = admit::Gatekeeper::new(Arc::clone(&callers), &limits);
        let trust = keep::Trust {
            tls: Arc::clone(&tls),
            callers: Arc::clone(&callers),
        };
        let keeper = Arc::new(keep::Keeper::new(routes, gate, trust, drain.clone(), &limits));
        let connections = TaskTracker::new();
        let acceptor = accept::Acceptor::new(tls, callers, &limits, keeper, connections.clone());

        health.serve().await;
        acceptor.run(listener).await;
        connections.close();
        tokio::select! {
            () = connections.wait() => return Ok(()),
            () = overdue(&drain, limits.drain_deadline()) => {}
        }
        tracing::warn!("the drain is over; calls that still run are cut");
        drain.cut();
        // A connection that does not notice in time dies with the process.
        let _ = time::timeout(CUT_GRACE, connections.wait()).await;
        Ok(())
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| ServeError::Bind { address, source })
}

async fn stop_health(health: Health, drain: Drain) {
    drain.when_begun().await;
    health.stop().await;
}

/// Returns when the drain has taken too long, or was cut short.
async fn overdue(drain: &Drain, deadline: Duration) {
    drain.when_begun().await;
    tokio::select! {
        () = time::sleep(deadline) => {}
        () = drain.when_cut() => {}
    }
}

/// A task that ends with its owner.
struct Background(AbortHandle);

impl Background {
    fn run(task: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(task).abort_handle())
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Why the server cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The port is taken or may not be used.
    #[error("cannot listen; is something else listening there? address={address}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The descriptors that were compiled in are broken.
    #[error("reflection cannot be served")]
    Reflection(#[from] tonic_reflection::server::Error),
}

#[cfg(test)]
mod tests;
