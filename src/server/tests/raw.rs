//! HTTP/2 as no library would speak it: frames by hand, over TLS.

use std::{io, sync::Arc, time::Duration};

use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{Running, client};
use crate::domain::principal::Role;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;
pub(super) const END_HEADERS: u8 = 4;

/// A server that goes on taking a flood fails its test; it never hangs it.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection whose handshake is done.
pub(super) struct Raw(pub(super) TlsStream<TcpStream>);

impl Raw {
    /// TLS, and nothing more.
    pub(super) async fn shake_hands(running: &Running, role: Role) -> Self {
        let socket = TcpStream::connect(running.api).await.unwrap();
        let config = Arc::new(client::config(&running.pki, Some(role)));
        let name = ServerName::try_from("localhost").unwrap();
        Self(TlsConnector::from(config).connect(name, socket).await.unwrap())
    }

    /// TLS, the preface and an empty SETTINGS.
    pub(super) async fn greet(running: &Running, role: Role) -> Self {
        let mut raw = Self::shake_hands(running, role).await;
        raw.0
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .await
            .unwrap();
        raw.send(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
        raw
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes).await
    }

    /// Sends the same bytes again and again, reading what comes, until the server hangs up; how many times it took.
    ///
    /// `None` if it takes them all.
    pub(super) async fn flood(mut self, mut bytes: impl FnMut(u32) -> Vec<u8>, times: u32) -> Option<u32> {
        let (mut read, mut write) = tokio::io::split(&mut self.0);
        let hung_up = async {
            let mut sink = vec![0; 64 << 10];
            while read.read(&mut sink).await.is_ok_and(|len| len > 0) {}
        };
        let mut sent = 0;
        let sending = async {
            // In batches: one frame a write would be a flood of system calls on our own side.
            while sent < times {
                let batch: Vec<u8> = (sent..sent + 50).flat_map(&mut bytes).collect();
                if write.write_all(&batch).await.is_err() || write.flush().await.is_err() {
                    return;
                }
                sent += 50;
            }
        };
        let ended = timeout(PATIENCE, async {
            tokio::select! {
                () = hung_up => true,
                () = sending => false,
            }
        })
        .await
        .expect("neither taken nor refused");
        let refused = ended || self.ends().await;
        refused.then_some(sent)
    }

    /// Whether the server hangs up soon, whatever it says before.
    pub(super) async fn ends(&mut self) -> bool {
        let all = async {
            let mut sink = vec![0; 64 << 10];
            while self.0.read(&mut sink).await.is_ok_and(|len| len > 0) {}
        };
        timeout(Duration::from_secs(15), all).await.is_ok()
    }

    /// All that the server says until it hangs up.
    pub(super) async fn last_words(&mut self) -> String {
        let mut words = Vec::new();
        let _ = timeout(Duration::from_secs(3), self.0.read_to_end(&mut words)).await;
        String::from_utf8_lossy(&words).into_owned()
    }
}

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// The headers of a gRPC call, as HPACK literals (RFC 7541 section 6.2.2).
pub(super) fn headers(path: &str) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    [
        vec![0x83, 0x87], // POST, https
        [vec![0x04], text(path)].concat(),
        [vec![0x01], text("localhost")].concat(),
        [vec![0x0f, 0x10], text("application/grpc")].concat(),
        [vec![0x00], text("te"), text("trailers")].concat(),
    ]
    .concat()
}
