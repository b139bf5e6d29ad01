//! The accept loop: nothing that a peer does, and no shortage of the machine's, ends it or lets one peer stall others.

use std::{io, sync::Arc, time::Duration};

use rustix::net::sockopt;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time,
};

use super::{connection::Connection, drain::Drain, tls::ServerTls};
use crate::{config::Limits, telemetry};

/// First pause after the machine refused a connection (too many open files, say); doubles up to the longest.
const PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Accepts for one listener until the drain begins.
#[derive(Debug)]
pub(super) struct Acceptor {
    tls: Arc<ServerTls>,
    drain: Drain,
    handshakes: Arc<Semaphore>,
    connections: Arc<Semaphore>,
    handshake_deadline: Duration,
    keepalive: Duration,
    out: mpsc::Sender<io::Result<Connection>>,
}

impl Acceptor {
    /// An acceptor that hands its connections to `out`.
    pub(super) fn new(
        tls: Arc<ServerTls>,
        drain: Drain,
        limits: &Limits,
        out: mpsc::Sender<io::Result<Connection>>,
    ) -> Self {
        Self {
            tls,
            drain,
            handshakes: Arc::new(Semaphore::new(limits.handshakes)),
            connections: Arc::new(Semaphore::new(limits.connections)),
            handshake_deadline: Duration::from_secs(limits.handshake_seconds),
            keepalive: Duration::from_secs(limits.keepalive_seconds),
            out,
        }
    }

    /// Runs until the drain begins; the listener closes with it.
    pub(super) async fn run(self, listener: TcpListener) {
        let begun = self.drain.when_begun();
        tokio::select! {
            () = begun => {}
            () = self.accept_for_ever(&listener) => {}
        }
    }

    async fn accept_for_ever(&self, listener: &TcpListener) {
        let mut pause = PAUSE;
        // The permit comes first: what cannot be shaken hands with waits in the kernel's queue, not in this process.
        while let Ok(permit) = Arc::clone(&self.handshakes).acquire_owned().await {
            match listener.accept().await {
                Ok((socket, _)) => {
                    pause = PAUSE;
                    self.shake_hands(socket, permit);
                }
                Err(fault) if is_the_peers(&fault) => {}
                Err(fault) => {
                    metrics::counter!(telemetry::CONNECTIONS_REFUSED, "reason" => "accept").increment(1);
                    tracing::warn!(error = %fault, "cannot accept connections; pausing");
                    time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// In a task of its own, so that a slow peer keeps nobody waiting.
    fn shake_hands(&self, socket: TcpStream, permit: OwnedSemaphorePermit) {
        let handshake = time::timeout(
            self.handshake_deadline,
            self.tls.acceptor().accept(tuned(socket, self.keepalive)),
        );
        let (drain, connections, out) = (
            self.drain.clone(),
            Arc::clone(&self.connections),
            self.out.clone(),
        );
        tokio::spawn(async move {
            let done = tokio::select! {
                () = drain.when_begun() => return,
                done = handshake => done,
            };
            drop(permit);
            let stream = match done {
                Ok(Ok(stream)) => stream,
                Ok(Err(fault)) => return count_failure(reason(&fault)),
                Err(_) => return count_failure("timeout"),
            };
            let Ok(place) = connections.try_acquire_owned() else {
                metrics::counter!(telemetry::CONNECTIONS_REFUSED, "reason" => "full").increment(1);
                return;
            };
            // Fails only if the server has stopped taking connections; the peer then sees this one close.
            let _ = out.send(Ok(Connection::new(stream, place, &drain))).await;
        });
    }
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

fn count_failure(reason: &'static str) {
    metrics::counter!(telemetry::HANDSHAKES_FAILED, "reason" => reason).increment(1);
    tracing::debug!(reason, "handshake failed");
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
