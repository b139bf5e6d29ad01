//! Requests on their way in: how much of them may wait in memory for the rest of them.
//!
//! A message of a request is kept until its last byte has come, so a caller that begins many long messages and ends none would hold
//! as much memory as it likes. Here its framing is read along (5 bytes: flag, length u32), and nothing more of a long message is
//! taken off the wire before there is room for all of it. Until then HTTP/2's window holds the caller back.
//!
//! Of a stream, a message's room is free again when its handler asks for the next one; else when the call ends.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use http_body::{Frame, SizeHint};
use tonic::{Status, body::Body};

use super::methods::Shape;
use crate::{
    domain::{
        error::{Error, Kind},
        fair::{Busy, Fair, Held},
        limits,
        principal::Principal,
    },
    grpc::DECODE_BYTES,
};

/// Longest wait for room before a caller is told to come back.
const PATIENCE: Duration = Duration::from_secs(5);
const PREFIX_BYTES: usize = 5;

type Room = Held<Arc<str>>;
type Taking = Pin<Box<dyn Future<Output = Result<Room, Error>> + Send>>;

/// Room for requests that are arriving; of one principal at most half.
#[derive(Clone, Debug)]
pub(super) struct Inflow(Arc<Fair<Arc<str>>>);

/// The room of one call's message: it is the call's, not the body's, which a unary call drops before it begins.
#[derive(Clone, Debug, Default)]
pub(super) struct CallRoom(Arc<Mutex<Option<Room>>>);

impl Inflow {
    /// So many bytes.
    pub(super) fn new(bytes: u64) -> Self {
        Self(Fair::new(bytes, bytes / 2))
    }

    /// Watches the body of a principal's request.
    pub(super) fn watch(&self, body: Body, caller: &Principal, shape: Shape, room: CallRoom) -> Body {
        Body::new(Watched {
            body,
            inflow: self.clone(),
            caller: caller.alias().into(),
            shape,
            framing: Framing::default(),
            room,
            waiting: None,
        })
    }

    async fn take(self, caller: Arc<str>, bytes: u64) -> Result<Room, Error> {
        self.0.take(caller, bytes, PATIENCE).await.map_err(|Busy| {
            Error::new(
                Kind::Exhausted,
                "RECEIVE_BUDGET",
                "too many long messages are arriving; try again limit=limits.receive_budget_bytes",
            )
        })
    }
}

impl CallRoom {
    fn set(&self, room: Option<Room>) {
        // Dropped outside the lock, as letting go of room serves those who wait for it.
        let before = std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), room);
        drop(before);
    }

    fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }
}

struct Watched {
    body: Body,
    inflow: Inflow,
    caller: Arc<str>,
    shape: Shape,
    framing: Framing,
    room: CallRoom,
    waiting: Option<Taking>,
}

impl Watched {
    /// What must be waited for before more is taken off the wire.
    fn needed(&self) -> Option<u64> {
        let message = self.framing.message()?;
        let kept = self.framing.is_within() || self.shape == Shape::Unary;
        (kept && message > limits::FREE_REQUEST_BYTES && self.room.is_empty()).then_some(message)
    }

    fn check(&self) -> Result<(), Error> {
        let most = DECODE_BYTES as u64;
        if self.shape == Shape::Unary && self.framing.message().is_some_and(|length| length > most) {
            return Err(Error::new(
                Kind::Invalid,
                "REQUEST_TOO_LONG",
                format!("the request is too long limit_bytes={most}"),
            ));
        }
        Ok(())
    }
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(waiting) = &mut self.waiting {
            let room = ready!(waiting.as_mut().poll(cx));
            self.waiting = None;
            match room {
                Ok(room) => self.room.set(Some(room)),
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
            }
        } else if self.shape != Shape::Unary && !self.framing.is_within() {
            // Whoever asks for more has done with what it was given.
            self.room.set(None);
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.framing.read(data);
            self.check()?;
            if let Some(bytes) = self.needed() {
                let (inflow, caller) = (self.inflow.clone(), Arc::clone(&self.caller));
                self.waiting = Some(Box::pin(inflow.take(caller, bytes)));
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Where in a stream of messages the next byte lies.
#[derive(Debug, Default)]
struct Framing {
    prefix: [u8; PREFIX_BYTES],
    prefixed: usize,
    /// Of the message that began last.
    length: u64,
    left: u64,
}

impl Framing {
    fn read(&mut self, data: &Bytes) {
        let mut data = &data[..];
        while !data.is_empty() {
            if self.left > 0 {
                let take = data.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
                data = &data[take..];
                self.left -= take as u64;
                continue;
            }
            let take = (PREFIX_BYTES - self.prefixed).min(data.len());
            self.prefix[self.prefixed..self.prefixed + take].copy_from_slice(&data[..take]);
            self.prefixed += take;
            data = &data[take..];
            if self.prefixed == PREFIX_BYTES {
                self.length = u64::from((&self.prefix[1..]).get_u32());
                self.left = self.length;
                self.prefixed = 0;
            }
        }
    }

    /// The length of the message that began last.
    fn message(&self) -> Option<u64> {
        (self.length > 0).then_some(self.length)
    }

    /// Whether it has not come to its end.
    fn is_within(&self) -> bool {
        self.left > 0 || self.prefixed > 0
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use http_body::Body as _;

    use super::*;
    use crate::domain::principal::{Role, TenantScope};

    const MIB: usize = 1 << 20;

    /// A body of frames that are all there already.
    struct Frames(Vec<Bytes>);

    impl http_body::Body for Frames {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            Poll::Ready(self.0.pop().map(|data| Ok(Frame::data(data))))
        }
    }

    fn message(len: usize) -> Vec<u8> {
        let mut framed = vec![0];
        framed.extend_from_slice(&u32::try_from(len).unwrap().to_be_bytes());
        framed.resize(PREFIX_BYTES + len, 7);
        framed
    }

    fn watched(inflow: &Inflow, who: &str, shape: Shape, stream: &[u8], frame: usize) -> (Body, CallRoom) {
        let mut frames: Vec<_> = stream.chunks(frame).map(Bytes::copy_from_slice).collect();
        frames.reverse();
        let caller = Principal::new(who, [Role::Uploader], TenantScope::All).unwrap();
        let room = CallRoom::default();
        let body = inflow.watch(Body::new(Frames(frames)), &caller, shape, room.clone());
        (body, room)
    }

    /// Polls once: `None` while it waits.
    fn next(body: &mut Body) -> Option<Option<Result<Frame<Bytes>, Status>>> {
        match Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(frame) => Some(frame),
            Poll::Pending => None,
        }
    }

    #[tokio::test]
    async fn a_long_message_waits_for_room_and_a_stream_gives_it_back() {
        let inflow = Inflow::new(4 * MIB as u64);
        let stream = [message(MIB), message(10), message(MIB)].concat();
        let (mut body, _room) = watched(&inflow, "one", Shape::Streaming, &stream, MIB / 4);
        assert!(next(&mut body).unwrap().is_some());
        assert!(next(&mut body).unwrap().is_some());
        assert_eq!(inflow.0.free(), 3 * MIB as u64);
        while next(&mut body).unwrap().is_some() {}
        assert_eq!(inflow.0.free(), 4 * MIB as u64, "the last message was taken");
    }

    #[tokio::test]
    async fn a_unary_call_keeps_its_room_until_it_ends() {
        let inflow = Inflow::new(4 * MIB as u64);
        let (mut body, room) = watched(&inflow, "one", Shape::Unary, &message(MIB), 2 * MIB);
        while next(&mut body).unwrap().is_some() {}
        drop(body);
        assert_eq!(inflow.0.free(), 3 * MIB as u64);
        drop(room);
        assert_eq!(inflow.0.free(), 4 * MIB as u64);
    }

    #[tokio::test]
    async fn one_principals_unfinished_messages_leave_room_for_another() {
        let inflow = Inflow::new(4 * MIB as u64);
        let begun = &message(MIB)[..MIB / 2];
        let mut held = Vec::new();
        for _ in 0..2 {
            let (mut body, room) = watched(&inflow, "flood", Shape::Streaming, begun, MIB / 4);
            while next(&mut body).unwrap().is_some() {}
            held.push((body, room));
        }
        let (mut third, _room) = watched(&inflow, "flood", Shape::Streaming, begun, MIB / 4);
        assert!(next(&mut third).unwrap().is_some(), "what has come has come");
        assert!(next(&mut third).is_none(), "beyond its share");
        let (mut other, _room) = watched(&inflow, "other", Shape::Streaming, begun, MIB / 4);
        while next(&mut other).expect("without waiting").is_some() {}
        held.clear();
        assert!(next(&mut third).unwrap().is_some());
    }

    #[tokio::test]
    async fn short_messages_are_free() {
        let inflow = Inflow::new(1);
        let stream = message(60_000).repeat(100);
        let (mut body, _room) = watched(&inflow, "one", Shape::Streaming, &stream, 7_777);
        while next(&mut body).unwrap().is_some() {}
        assert_eq!(inflow.0.free(), 1);
    }

    #[tokio::test]
    async fn a_unary_request_that_is_too_long_is_refused_at_its_first_byte() {
        let inflow = Inflow::new(4 * MIB as u64);
        let start = &message(DECODE_BYTES + 1)[..10];
        let (mut body, _room) = watched(&inflow, "one", Shape::Unary, start, 10);
        let refused = next(&mut body).unwrap().unwrap().unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    }
}
