//! Turning away a peer that has shaken hands, in words that its library shows: a GOAWAY with the limit's name.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time,
};
use tokio_rustls::server::TlsStream;

/// For telling it, and for the peer to hang up.
const FAREWELL: Duration = Duration::from_secs(1);
/// An empty SETTINGS, which HTTP/2 has a server say first (RFC 9113 section 3.4).
const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
/// RFC 9113 section 7.
const ENHANCE_YOUR_CALM: u32 = 0xb;

/// Says why and closes. Cancel safe: the peer then sees no reason.
pub(super) async fn refuse(mut stream: TlsStream<TcpStream>, message: &str) {
    let _ = time::timeout(FAREWELL, async {
        stream.write_all(&farewell(message)).await?;
        stream.shutdown().await?;
        // What the peer has sent must be read: a socket closed over unread bytes is reset, and takes the reason with it.
        let mut unread = [0; 1024];
        while stream.read(&mut unread).await? > 0 {}
        Ok::<(), std::io::Error>(())
    })
    .await;
}

fn farewell(message: &str) -> Vec<u8> {
    let length = u32::try_from(message.len() + 8).unwrap_or(8);
    let mut frames = SETTINGS.to_vec();
    frames.extend_from_slice(&length.to_be_bytes()[1..]);
    frames.extend_from_slice(&[7, 0, 0, 0, 0, 0]); // GOAWAY, on the connection
    frames.extend_from_slice(&[0; 4]); // no stream was looked at: all may be tried elsewhere
    frames.extend_from_slice(&ENHANCE_YOUR_CALM.to_be_bytes());
    frames.extend_from_slice(message.as_bytes());
    frames
}
