//! Keeps one connection from its handshake to its end: serves it, asks it to end in time, and cuts it if it does not.
//!
//! ```text
//! no preface in time, flood                         -> cut
//! drain, age, nothing to do for long                -> GOAWAY, running calls finish -> closed
//! no call runs any more and the peer does not close -> cut
//! ```

use std::{convert::Infallible, pin::pin, sync::Arc, time::Duration};

use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http2};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{net::TcpStream, sync::watch, time};
use tokio_rustls::server::TlsStream;
use tonic::{body::Body, service::Routes};
use tower::Service;

use super::{
    activity::Activity,
    admit::{Admit, Gatekeeper},
    connection::Connection,
    drain::Drain,
    observe::Observe,
    places::Place,
    tls::ServerTls,
};
use crate::{
    access::identity::{Callers, PeerCertificate},
    config::Limits,
    domain::limits,
    telemetry,
};

/// Longest frame that a peer may send. The first of a message is held before its room can be asked for (`inflow`), so it is kept
/// for every call at once: of 1 MiB, 1,000 uploads held 1 GiB that no budget knew of. Shorter ones cost the server more calls.
const FRAME_BYTES: u32 = 128 << 10;
/// Streams that a peer may open and reset before it is shown the door (CVE-2023-44487).
const PENDING_RESETS: usize = 20;
/// Streams that the server itself may reset on one connection before that is shown the door.
const OWN_RESETS: usize = 1_024;
/// How long a connection may last without a call that somebody is recognised by.
const UNRECOGNISED: Duration = Duration::from_secs(60);
/// How often it is asked whether a connected peer may be connected.
const TRUST_CHECK: Duration = Duration::from_secs(60);
/// How long a ping may stay unanswered.
const PING_DEADLINE: Duration = Duration::from_secs(10);
/// How long a peer that was asked to end may take to close, once none of its calls runs.
const CLOSE_DEADLINE: Duration = Duration::from_secs(10);

/// What all connections share.
#[derive(Debug)]
pub(super) struct Keeper {
    http2: http2::Builder<TokioExecutor>,
    routes: Routes,
    gate: Arc<Gatekeeper>,
    trust: Trust,
    drain: Drain,
    greeting_deadline: Duration,
    idle: Duration,
    age: Duration,
}

/// Who may be connected.
#[derive(Debug)]
pub(super) struct Trust {
    pub(super) tls: Arc<ServerTls>,
    pub(super) callers: Arc<Callers>,
}

impl Keeper {
    /// Serves `routes` to whom `gate` lets in.
    pub(super) fn new(routes: Routes, gate: Gatekeeper, trust: Trust, drain: Drain, limits: &Limits) -> Self {
        Self {
            http2: http2(limits),
            routes,
            gate: Arc::new(gate),
            trust,
            drain,
            greeting_deadline: Duration::from_secs(limits.handshake_seconds),
            idle: Duration::from_secs(limits.connection_idle_seconds),
            age: Duration::from_secs(limits.connection_age_seconds),
        }
    }

    pub(super) fn drain(&self) -> &Drain {
        &self.drain
    }

    /// Serves a connection to its end.
    pub(super) async fn keep(&self, stream: TlsStream<TcpStream>, peer: Arc<PeerCertificate>, _place: Place) {
        let activity = Activity::new();
        let service = self.service(Arc::clone(&peer), &activity);
        let mut revoked = pin!(self.trust.revoked(&peer));
        let is_known = self.trust.callers.by_certificate(&peer).is_some();
        let io = TokioIo::new(Connection::new(stream, Arc::clone(&activity)));
        let mut serving = pin!(self.http2.serve_connection(io, TowerToHyperService::new(service)));
        let asked = tokio::select! {
            _ = &mut serving => return,
            () = self.drain.when_cut() => false,
            () = &mut revoked => {
                cut("revoked");
                false
            }
            () = self.ungreeted(&activity) => {
                cut("greeting");
                false
            }
            () = unrecognised(&activity), if !is_known => {
                cut("unrecognised");
                false
            }
            () = self.enough(&activity) => true,
        };
        if asked {
            serving.as_mut().graceful_shutdown();
            tokio::select! {
                _ = &mut serving => return,
                () = self.drain.when_cut() => {}
                () = &mut revoked => cut("revoked"),
                () = activity.idle_for(CLOSE_DEADLINE) => cut("lingering"),
            }
        }
        // Broken, not dropped: that is how HTTP/2 learns of it, and with it every call.
        activity.break_off();
        let _ = serving.await;
    }

    fn service(
        &self,
        peer: Arc<PeerCertificate>,
        activity: &Arc<Activity>,
    ) -> impl Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future: Send + 'static>
    + Clone
    + Send
    + 'static {
        Observe::new(Admit::new(
            self.routes.clone(),
            Arc::clone(&self.gate),
            peer,
            Arc::clone(activity),
        ))
    }

    /// Returns if the peer does not say in time that it speaks HTTP/2.
    async fn ungreeted(&self, activity: &Activity) {
        time::sleep(self.greeting_deadline).await;
        if activity.greeted() {
            std::future::pending().await
        }
    }

    /// Returns when the connection has lasted long enough.
    async fn enough(&self, activity: &Activity) {
        tokio::select! {
            () = self.drain.when_begun() => {}
            () = time::sleep(self.age) => {}
            () = activity.idle_for(self.idle) => {}
        }
    }
}

impl Trust {
    /// Returns when the peer is not, or not any more, who may be connected: its certificate was revoked, has expired, or is of an
    /// authority that is gone, or its principal is another one now. Asked whenever something changes, and every minute.
    async fn revoked(&self, peer: &PeerCertificate) {
        let began_as = self.callers.by_certificate(peer);
        let (mut tls, mut callers) = (self.tls.changes(), self.callers.changes());
        let is_another = || began_as.is_some() && self.callers.by_certificate(peer) != began_as;
        // What changed since the handshake, before anybody told of changes here, counts as well.
        while self.tls.still_trusts(peer) {
            tokio::select! {
                () = changed(&mut tls) => {}
                () = another(&mut callers, is_another) => return,
                () = time::sleep(TRUST_CHECK + jitter(peer)) => {}
            }
        }
    }
}

/// Returns when a change made another one of a peer.
async fn another(changes: &mut watch::Receiver<()>, is_another: impl Fn() -> bool) {
    while !is_another() {
        changed(changes).await;
    }
}

/// Connections that a change woke together are not looked at together ever after.
fn jitter(peer: &PeerCertificate) -> Duration {
    Duration::from_millis(u64::from(peer.sha256()[0]) * 64)
}

/// Returns if nobody was recognised on a connection for long: it takes a place.
async fn unrecognised(activity: &Activity) {
    time::sleep(UNRECOGNISED).await;
    if activity.is_recognised() {
        std::future::pending().await
    }
}

/// Whoever would tell of changes is gone: there are none.
async fn changed(changes: &mut watch::Receiver<()>) {
    if changes.changed().await.is_err() {
        std::future::pending().await
    }
}

fn cut(reason: &'static str) {
    metrics::counter!(telemetry::CONNECTIONS_CUT, "reason" => reason).increment(1);
    tracing::debug!(reason, "connection cut");
}

/// What is not set here is unlimited, or as small as in 2015.
fn http2(limits: &Limits) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_frame_size(FRAME_BYTES)
        .initial_stream_window_size(limits.stream_window_bytes)
        .initial_connection_window_size(limits.connection_window_bytes)
        .max_concurrent_streams(limits.streams_per_connection)
        .keep_alive_interval(Duration::from_secs(limits.keepalive_seconds))
        .keep_alive_timeout(PING_DEADLINE)
        .max_header_list_size(limits::HEADER_LIST_BYTES)
        .max_send_buf_size(limits::SEND_BUFFER_BYTES)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(OWN_RESETS)
        .auto_date_header(false);
    builder
}
