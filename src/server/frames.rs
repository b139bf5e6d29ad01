//! Watches a peer's HTTP/2 frames on their way to the library, and ends a connection that keeps it busy with nothing.
//!
//! A frame that carries nothing (a PING, a SETTINGS, an empty DATA, a stream opened and reset) costs its sender 9 bytes and
//! the server work. HTTP/2 has no flow control for them, so here is one: a connection has tokens, gets more with time, with calls
//! and with the bytes it reads, and pays for every such frame (CVE-2019-9512, 9515, 9518; CVE-2023-44487; CVE-2024-27316).
//!
//! ```text
//! preface (24 bytes), then frames: length u24 | type u8 | flags u8 | stream u32 | payload     RFC 9113 section 4.1
//! ```

use std::{io, time::Instant};

/// What a client says first: `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n`.
const PREFACE_BYTES: u32 = 24;
const HEADER_BYTES: usize = 9;

/// Tokens of a connection that was quiet.
const BURST: u64 = 20_000;
/// Tokens that come with a second: a client that measures its bandwidth pings thousands of times in one.
const PER_SECOND: u64 = 10_000;
/// Tokens that come with a call.
const PER_CALL: u64 = 10;
/// Bytes to the peer that bring a token: it pays for the WINDOW_UPDATEs that they call for.
const BYTES_PER_TOKEN: u64 = 1 << 10;
/// Payload of a DATA frame below which it carries next to nothing: a gRPC message has 5 bytes of framing alone.
const TINY: u32 = 16;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;

/// One connection's frames.
#[derive(Debug)]
pub(super) struct Frames {
    at: At,
    tokens: u64,
    counted: Instant,
    /// Bytes to the peer that have not brought a token yet.
    unpaid: u64,
}

/// Where in the stream of bytes the next one lies.
#[derive(Debug)]
enum At {
    Preface { left: u32 },
    Header { got: [u8; HEADER_BYTES], len: usize },
    Payload { left: u32 },
}

/// The peer sends more that carries nothing than the server has patience for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many frames that carry nothing")]
pub(super) struct Flood;

impl From<Flood> for io::Error {
    fn from(flood: Flood) -> Self {
        Self::other(flood)
    }
}

impl Frames {
    /// Before the first byte.
    pub(super) fn new() -> Self {
        Self {
            at: At::Preface { left: PREFACE_BYTES },
            tokens: BURST,
            counted: Instant::now(),
            unpaid: 0,
        }
    }

    /// Whether the preface is over: the peer speaks HTTP/2, or pretends well.
    pub(super) fn greeted(&self) -> bool {
        !matches!(self.at, At::Preface { .. })
    }

    /// Counts what has come.
    ///
    /// # Errors
    /// [`Flood`] if it was too much; the connection must end.
    pub(super) fn received(&mut self, mut bytes: &[u8]) -> Result<(), Flood> {
        while !bytes.is_empty() {
            match &mut self.at {
                At::Preface { left } => {
                    skip(&mut bytes, left);
                    if *left == 0 {
                        self.at = At::start();
                    }
                }
                At::Header { got, len } => {
                    let take = (HEADER_BYTES - *len).min(bytes.len());
                    got[*len..*len + take].copy_from_slice(&bytes[..take]);
                    *len += take;
                    bytes = &bytes[take..];
                    if *len == HEADER_BYTES {
                        let header = *got;
                        self.begun(header)?;
                    }
                }
                At::Payload { left } => {
                    skip(&mut bytes, left);
                    if *left == 0 {
                        self.at = At::start();
                    }
                }
            }
        }
        Ok(())
    }

    /// Counts what was sent.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.unpaid += bytes as u64;
        self.earn(self.unpaid / BYTES_PER_TOKEN);
        self.unpaid %= BYTES_PER_TOKEN;
    }

    fn begun(&mut self, header: [u8; HEADER_BYTES]) -> Result<(), Flood> {
        let [a, b, c, kind, flags, ..] = header;
        let length = u32::from_be_bytes([0, a, b, c]);
        self.at = if length == 0 {
            At::start()
        } else {
            At::Payload { left: length }
        };
        if kind == HEADERS {
            self.earn(PER_CALL);
        }
        self.pay(price(kind, flags, length))
    }

    fn earn(&mut self, tokens: u64) {
        self.tokens = (self.tokens + tokens).min(BURST);
    }

    fn pay(&mut self, price: u64) -> Result<(), Flood> {
        if self.tokens < price {
            let since = self.counted.elapsed();
            self.counted = Instant::now();
            let earned = since.as_micros() * u128::from(PER_SECOND) / 1_000_000;
            self.earn(u64::try_from(earned).unwrap_or(BURST));
        }
        self.tokens = self.tokens.checked_sub(price).ok_or(Flood)?;
        Ok(())
    }
}

impl At {
    fn start() -> Self {
        Self::Header {
            got: [0; HEADER_BYTES],
            len: 0,
        }
    }
}

/// Tokens that a frame costs.
fn price(kind: u8, flags: u8, length: u32) -> u64 {
    match kind {
        DATA if flags & END_STREAM != 0 || length >= TINY => 0,
        DATA if length > 0 => 2,
        HEADERS if length > 0 => 0,
        // A client that measures its bandwidth or reads sends many.
        PING | WINDOW_UPDATE => 2,
        SETTINGS => 100,
        // Empty DATA and HEADERS, PRIORITY, RST_STREAM, CONTINUATION, and what nobody has heard of.
        _ => 20,
    }
}

fn skip(bytes: &mut &[u8], left: &mut u32) {
    let take = (*left as usize).min(bytes.len());
    *bytes = &bytes[take..];
    *left -= take as u32; // at most `left`
}

#[cfg(test)]
mod tests {
    use super::*;

    const RST_STREAM: u8 = 3;
    const CONTINUATION: u8 = 9;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let length = u32::try_from(payload).unwrap().to_be_bytes();
        let mut frame = length[1..].to_vec();
        frame.extend_from_slice(&[kind, flags, 0, 0, 0, 1]);
        frame.resize(HEADER_BYTES + payload, 7);
        frame
    }

    fn greeted() -> Frames {
        let mut frames = Frames::new();
        frames.received(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        assert!(frames.greeted());
        frames
    }

    /// How many of these one after another are taken, in chunks of any size.
    fn taken(frame: &[u8], most: usize) -> usize {
        let mut frames = greeted();
        (0..most)
            .take_while(|n| frame.chunks(n % 11 + 1).all(|part| frames.received(part).is_ok()))
            .count()
    }

    #[test]
    fn frames_that_carry_nothing_are_too_many_at_some_point() {
        for (kind, flags, payload) in [
            (DATA, 0, 0),
            (DATA, 0, 1),
            (HEADERS, 0, 0),
            (RST_STREAM, 0, 4),
            (SETTINGS, 0, 0),
            (PING, 0, 8),
            (WINDOW_UPDATE, 0, 4),
            (CONTINUATION, 0, 0),
            (77, 0, 3),
        ] {
            let most = taken(&frame(kind, flags, payload), 2_000_000);
            assert!((100..100_000).contains(&most), "kind={kind} {most}");
        }
    }

    #[test]
    fn frames_that_carry_something_are_never_too_many() {
        for (kind, flags, payload) in [(DATA, 0, 28), (DATA, END_STREAM, 0), (HEADERS, 0, 40)] {
            assert_eq!(taken(&frame(kind, flags, payload), 200_000), 200_000);
        }
    }

    #[test]
    fn a_stream_opened_and_reset_costs_more_than_it_brings() {
        let pair = [frame(HEADERS, 5, 40), frame(RST_STREAM, 0, 4)].concat();
        let most = taken(&pair, 1_000_000);
        assert!((1_000..20_000).contains(&most), "{most}");
    }

    #[test]
    fn who_reads_much_may_say_so_often() {
        let mut frames = greeted();
        let update = frame(WINDOW_UPDATE, 0, 4);
        for _ in 0..200_000 {
            frames.sent(4 << 10);
            frames.received(&update).unwrap();
            frames.received(&update).unwrap();
        }
    }

    #[test]
    fn a_payload_is_never_taken_for_frames() {
        let mut frames = greeted();
        let mut upload = frame(DATA, 0, 60_000);
        upload[HEADER_BYTES..].fill(0);
        for _ in 0..1_000 {
            frames.received(&upload).unwrap();
        }
    }

    #[test]
    fn time_forgives() {
        let mut frames = greeted();
        let ping = frame(PING, 0, 8);
        while frames.received(&ping).is_ok() {}
        frames = Frames {
            counted: Instant::now() - std::time::Duration::from_secs(1),
            ..frames
        };
        assert!(frames.received(&frame(PING, 0, 8)).is_ok());
    }
}
