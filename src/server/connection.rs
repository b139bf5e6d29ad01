//! One accepted connection: counted, attributed to a certificate, and breakable from outside.

use std::{
    fmt,
    future::Future,
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::OwnedSemaphorePermit,
};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::transport::server::Connected;

use super::drain::Drain;
use crate::{access::identity::PeerCertificate, telemetry};

/// What tonic reads from and writes to.
pub(super) struct Connection {
    stream: TlsStream<TcpStream>,
    peer: Arc<PeerCertificate>,
    cut: Cut,
    _counted: Counted,
}

impl Connection {
    /// Takes over a stream whose handshake is done.
    pub(super) fn new(stream: TlsStream<TcpStream>, permit: OwnedSemaphorePermit, drain: &Drain) -> Self {
        let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let peer = leaf.map_or_else(PeerCertificate::default, |leaf| PeerCertificate::from_der(leaf));
        Self {
            stream,
            peer: Arc::new(peer),
            cut: Cut::new(drain),
            _counted: Counted::new(permit),
        }
    }
}

impl Connected for Connection {
    /// What the identity layer finds among a request's extensions.
    type ConnectInfo = Arc<PeerCertificate>;

    fn connect_info(&self) -> Arc<PeerCertificate> {
        Arc::clone(&self.peer)
    }
}

/// tonic runs connections in tasks of their own that nobody else can end: so the connection ends itself.
struct Cut {
    drain: Drain,
    signal: Pin<Box<WaitForCancellationFutureOwned>>,
    registered: Option<Waker>,
}

impl Cut {
    fn new(drain: &Drain) -> Self {
        Self {
            drain: drain.clone(),
            signal: Box::pin(drain.when_cut()),
            registered: None,
        }
    }

    /// Fails once the connection is cut. Registers each task once, as polling the signal takes a lock.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let known = self
            .registered
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()));
        if !known && self.signal.as_mut().poll(cx).is_pending() {
            self.registered = Some(cx.waker().clone());
        }
        if self.drain.is_cut() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(())
    }
}

/// Holds a place among the connections.
struct Counted {
    _permit: OwnedSemaphorePermit,
}

impl Counted {
    fn new(permit: OwnedSemaphorePermit) -> Self {
        metrics::gauge!(telemetry::CONNECTIONS).increment(1);
        Self { _permit: permit }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        metrics::gauge!(telemetry::CONNECTIONS).decrement(1);
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.cut.check(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.cut.check(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.cut.check(cx)?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.cut.check(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.cut.check(cx)?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}
