//! The accept loop: nothing that a peer does, and no shortage of the machine's, ends it or lets one peer stall others.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use rustix::net::sockopt;
use tokio::{
    net::{TcpListener, TcpStream},
    time,
};
use tokio_rustls::server::TlsStream;
use tokio_util::task::TaskTracker;

use super::{
    handshakes::{Handshake, Handshakes},
    keep::Keeper,
    places::{Places, Whom},
    refusal,
    tls::ServerTls,
};
use crate::{
    access::identity::{Callers, PeerCertificate},
    config::Limits,
    telemetry,
};

/// First pause after the machine refused a connection (too many open files, say); doubles up to the longest.
const PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Accepts for one listener until the drain begins.
#[derive(Debug)]
pub(super) struct Acceptor {
    tls: Arc<ServerTls>,
    callers: Arc<Callers>,
    handshakes: Arc<Handshakes>,
    places: Arc<Places>,
    handshake_deadline: Duration,
    keepalive: Duration,
    keeper: Arc<Keeper>,
    connections: TaskTracker,
}

impl Acceptor {
    /// An acceptor that hands its connections to `keeper`, in tasks that `connections` counts.
    pub(super) fn new(
        tls: Arc<ServerTls>,
        callers: Arc<Callers>,
        limits: &Limits,
        keeper: Arc<Keeper>,
        connections: TaskTracker,
    ) -> Self {
        Self {
            tls,
            callers,
            handshakes: Handshakes::new(limits.handshakes),
            places: Places::new(limits),
            handshake_deadline: Duration::from_secs(limits.handshake_seconds),
            keepalive: Duration::from_secs(limits.keepalive_seconds),
            keeper,
            connections,
        }
    }

    /// Runs until the drain begins; the listener closes with it.
    pub(super) async fn run(self, listener: TcpListener) {
        let begun = self.keeper.drain().when_begun();
        tokio::select! {
            () = begun => {}
            () = Arc::new(self).accept_for_ever(&listener) => {}
        }
    }

    async fn accept_for_ever(self: Arc<Self>, listener: &TcpListener) {
        let mut pause = PAUSE;
        loop {
            match listener.accept().await {
                Ok((socket, address)) => {
                    pause = PAUSE;
                    // In a task of its own, so that a slow peer keeps nobody waiting.
                    let connection = Arc::clone(&self).welcome(socket, address);
                    self.connections.spawn(connection);
                }
                Err(fault) if is_the_peers(&fault) => {}
                Err(fault) => {
                    refused("accept");
                    tracing::warn!(error = %fault, "cannot accept connections; pausing");
                    time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// From the first byte to the last.
    async fn welcome(self: Arc<Self>, socket: TcpStream, address: SocketAddr) {
        let mut handshake = self.handshakes.begin(address.ip());
        let Some(stream) = self.shake_hands(socket, &mut handshake).await else {
            return;
        };
        let peer = certificate(&stream);
        let principal = self.callers.by_certificate(&peer);
        let whom = match &principal {
            Some(principal) => Whom::Principal(principal),
            None if self.callers.take_tokens() => Whom::Bearer,
            None => Whom::Stranger,
        };
        match self.places.take(whom) {
            Ok(place) => {
                drop(handshake);
                let keeper = Arc::clone(&self.keeper);
                drop(self);
                keeper.keep(stream, peer, place).await;
            }
            Err(full) => {
                refused(full.reason);
                // Still among the handshakes: whoever is turned away takes no more room than whoever knocks.
                tokio::select! {
                    () = refusal::refuse(stream, full.message) => {}
                    () = handshake.pushed_out() => {}
                }
            }
        }
    }

    async fn shake_hands(
        &self,
        socket: TcpStream,
        handshake: &mut Handshake,
    ) -> Option<TlsStream<TcpStream>> {
        let shaking = self.tls.acceptor().accept(tuned(socket, self.keepalive));
        let done = tokio::select! {
            () = self.keeper.drain().when_begun() => return None,
            () = handshake.pushed_out() => return failed("crowded"),
            done = time::timeout(self.handshake_deadline, shaking) => done,
        };
        match done {
            Ok(Ok(stream)) => Some(stream),
            Ok(Err(fault)) => failed(reason(&fault)),
            Err(_) => failed("timeout"),
        }
    }
}

fn certificate(stream: &TlsStream<TcpStream>) -> Arc<PeerCertificate> {
    let chain = stream.get_ref().1.peer_certificates();
    Arc::new(chain.map(PeerCertificate::from_chain).unwrap_or_default())
}

/// Whether the peer gave up between the kernel's accept and ours: no reason to pause.
fn is_the_peers(fault: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(
        fault.kind(),
        K::ConnectionAborted | K::ConnectionReset | K::Interrupted | K::TimedOut
    )
}

/// Small messages leave at once; a vanished peer is noticed. Both are best effort: HTTP/2 pings notice it as well.
fn tuned(socket: TcpStream, keepalive: Duration) -> TcpStream {
    let _ = socket.set_nodelay(true);
    let _ = sockopt::set_socket_keepalive(&socket, true);
    let _ = sockopt::set_tcp_keepidle(&socket, keepalive);
    socket
}

fn refused(reason: &'static str) {
    metrics::counter!(telemetry::CONNECTIONS_REFUSED, "reason" => reason).increment(1);
    tracing::debug!(reason, "connection refused");
}

fn failed<T>(reason: &'static str) -> Option<T> {
    metrics::counter!(telemetry::HANDSHAKES_FAILED, "reason" => reason).increment(1);
    tracing::debug!(reason, "handshake failed");
    None
}

fn reason(fault: &io::Error) -> &'static str {
    match fault
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
    {
        Some(rustls::Error::NoCertificatesPresented | rustls::Error::InvalidCertificate(_)) => "certificate",
        Some(_) => "protocol",
        None => "io",
    }
}
