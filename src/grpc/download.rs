//! A recording's way out: a header, then content as fast as the caller takes it, and never a silent end.
//!
//! One segment of at most 64 KiB is one message: the slices come out of the opened buffer as they are, and are copied once,
//! into tonic's own. Joining them first would be a second copy.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, stream};
use tokio::{sync::mpsc, time::timeout};
use tonic::Status;

use super::{StreamLimits, convert};
use crate::{
    domain::limits,
    proto::v1::{ReadRecordingHeader, ReadRecordingResponse, read_recording_response::Payload},
    vault::{Cut, Error, Kind, Reading, budget::Reservation},
};

/// Messages that may wait for a caller; each keeps at most a run of segments (1 MiB) alive.
const AHEAD: usize = 4;

/// What comes out of the vault; a channel that closes before the end was given up.
enum Outgoing {
    /// With the room it lies in, which is given back when tonic has taken its copy.
    Content(Bytes, Option<Arc<Reservation>>),
    Failed(Error),
    End,
}

/// Begins to send a reading.
///
/// A caller that takes nothing for `limits.stall` loses the call, so that what it holds is bounded in time as well.
pub(super) fn send(
    reading: Reading,
    limits: StreamLimits,
) -> impl Stream<Item = Result<ReadRecordingResponse, Status>> + Send + 'static {
    let header = message(Payload::Header(header(&reading)));
    let (out, content) = mpsc::channel(AHEAD);
    let content = Incoming {
        content,
        cut: reading.cut(),
    };
    tokio::spawn(async move {
        // Either way the channel closes, and the stream tells the caller what it has to.
        let _ = timeout(limits.total, pump(reading, &out, limits.stall)).await;
    });
    stream::unfold(Sending::Header(Box::new(header), content), Sending::next)
}

fn header(reading: &Reading) -> ReadRecordingHeader {
    ReadRecordingHeader {
        record: Some(convert::record_to_proto(reading.record())),
        offset: convert::bytes(reading.offset()),
        length: convert::bytes(reading.length()),
    }
}

/// Moves content into the channel until the end, a failure, or nobody takes it.
async fn pump(mut reading: Reading, out: &mpsc::Sender<Outgoing>, stall: Duration) {
    loop {
        let next = tokio::select! {
            next = reading.next() => next,
            () = out.closed() => return,
        };
        let last = !matches!(next, Ok(Some(_)));
        let delivered = match next {
            Ok(Some(bytes)) => {
                let (room, cut) = (reading.room(), reading.cut());
                tokio::select! {
                    delivered = deliver(bytes, room, out, stall) => delivered,
                    // A caller that takes nothing keeps no key in memory. It is told when it comes to take something.
                    _ = cut.happened() => return,
                }
            }
            Ok(None) => put(Outgoing::End, out, stall).await,
            Err(error) => put(Outgoing::Failed(error), out, stall).await,
        };
        if last || delivered.is_none() || taken(&reading, out, stall).await.is_none() {
            return;
        }
    }
}

/// Where room is scarce, waits until the caller has taken what it was given: of many who take nothing, none holds more than a
/// segment. `None` if the caller is gone or stalls.
async fn taken(reading: &Reading, out: &mpsc::Sender<Outgoing>, stall: Duration) -> Option<()> {
    if !reading.room().is_some_and(|room| room.is_small()) {
        return Some(());
    }
    let all = timeout(stall, out.reserve_many(AHEAD)).await.ok()?;
    all.ok().map(drop)
}

async fn deliver(
    mut bytes: Bytes,
    room: Option<Arc<Reservation>>,
    out: &mpsc::Sender<Outgoing>,
    stall: Duration,
) -> Option<()> {
    while !bytes.is_empty() {
        let chunk = bytes.split_to(bytes.len().min(limits::CHUNK_BYTES));
        put(Outgoing::Content(chunk, room.clone()), out, stall).await?;
    }
    Some(())
}

/// `None` if the caller is gone or stalls.
async fn put(outgoing: Outgoing, out: &mpsc::Sender<Outgoing>, stall: Duration) -> Option<()> {
    timeout(stall, out.send(outgoing)).await.ok()?.ok()
}

/// Where the stream to the caller is.
#[allow(clippy::large_enum_variant)] // one a stream
enum Sending {
    Header(Box<ReadRecordingResponse>, Incoming),
    Content(Incoming),
    Over,
}

/// What waits for the caller, unless the record was cut off.
struct Incoming {
    content: mpsc::Receiver<Outgoing>,
    cut: Cut,
}

impl Incoming {
    async fn next(&mut self) -> Option<Outgoing> {
        let next = self.content.recv().await;
        self.cut.reason().map(Outgoing::Failed).or(next)
    }
}

impl Sending {
    async fn next(self) -> Option<(Result<ReadRecordingResponse, Status>, Self)> {
        match self {
            Self::Header(header, content) => Some((Ok(*header), Self::Content(content))),
            Self::Content(mut content) => match content.next().await {
                Some(Outgoing::Content(chunk, _room)) => {
                    Some((Ok(message(Payload::Chunk(chunk))), Self::Content(content)))
                }
                Some(Outgoing::End) => None,
                Some(Outgoing::Failed(error)) => Some((Err(error.into()), Self::Over)),
                None => Some((Err(stalled().into()), Self::Over)),
            },
            Self::Over => None,
        }
    }
}

fn message(payload: Payload) -> ReadRecordingResponse {
    ReadRecordingResponse {
        payload: Some(payload),
    }
}

fn stalled() -> Error {
    Error::new(
        Kind::TimedOut,
        "READ_STALLED",
        "the content was not taken in time; read on from where it ended",
    )
}
