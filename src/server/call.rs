//! One call that was let in: it ends in time, it ends alone, and what it held is given back at its end.

use std::{
    any::Any,
    convert::Infallible,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, Response, header::CONTENT_TYPE};
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use tonic::{Status, body::Body};

use super::{activity, inflow::CallRoom, methods::Shape, quota};
use crate::{
    domain::error::{Error, Kind},
    grpc::tenants::TenantSlot,
    telemetry,
};

/// What a call holds until its last byte is handed over.
#[derive(Debug)]
pub(super) struct Holds {
    pub(super) _place: quota::Call,
    pub(super) _running: activity::Running,
    pub(super) _tenant: Arc<TenantSlot>,
    pub(super) _room: CallRoom,
}

/// When a call must have ended, and who says so.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline {
    /// For the answer to begin.
    answer: Option<(Instant, Says)>,
    /// For its last byte.
    end: Option<(Instant, Says)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Says {
    Caller,
    Token,
    Call,
    Stream,
}

/// Longest calls.
#[derive(Clone, Copy, Debug)]
pub(super) struct Longest {
    /// That do not stream; also, until a stream of answers begins.
    pub(super) call: Duration,
    /// That stream.
    pub(super) stream: Duration,
}

/// A service bounds its own streams and says more: this is for those that do not.
const STREAM_GRACE: Duration = Duration::from_secs(60);

impl Deadline {
    /// Whatever comes first: what the caller gives the call, for how long it is `known` who calls, and what any call of its shape
    /// has.
    pub(super) fn of(shape: Shape, headers: &HeaderMap, known: Option<Duration>, longest: Longest) -> Self {
        let now = Instant::now();
        let after = |time: Option<Duration>, says| Some((now.checked_add(time?)?, says));
        let given = headers.get("grpc-timeout").and_then(|value| value.to_str().ok());
        let given = after(given.and_then(timeout), Says::Caller);
        let known = after(known, Says::Token);
        let call = after(Some(longest.call), Says::Call).filter(|_| shape != Shape::Streaming);
        let stream =
            after(longest.stream.checked_add(STREAM_GRACE), Says::Stream).filter(|_| shape != Shape::Unary);
        Self {
            answer: [given, known, call, stream].into_iter().flatten().min(),
            end: [given, known, stream].into_iter().flatten().min(),
        }
    }
}

impl Says {
    fn passed(self) -> Error {
        let (reason, message) = match self {
            Self::Token => {
                return Error::new(
                    Kind::Unauthenticated,
                    "TOKEN_EXPIRED",
                    "the token that the call began with has expired; get a new one, and repeat the call or go on with the upload",
                );
            }
            Self::Caller => (
                "DEADLINE",
                "the call did not end within the time that the caller gave it",
            ),
            Self::Call => (
                "CALL_TOO_LONG",
                "the call took longer than any may; it may or may not have been done: repeat it with the same request_id \
                 limit=limits.call_seconds",
            ),
            Self::Stream => (
                "STREAM_TOO_LONG",
                "the stream took longer than any may limit=limits.stream_total_seconds",
            ),
        };
        Error::new(Kind::TimedOut, reason, message)
    }
}

/// What `grpc-timeout` says: at most 8 digits and a unit (gRPC over HTTP/2, "Requests").
fn timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3_600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

/// Runs a call to its end. Dropped early, it ends where it is: the caller has gone.
pub(super) async fn run<F>(call: F, deadline: Deadline, holds: Holds) -> Result<Response<Body>, Infallible>
where
    F: Future<Output = Result<Response<Body>, Infallible>> + Send,
{
    let call = AssertUnwindSafe(call).catch_unwind();
    let ended = match deadline.answer {
        None => Ok(call.await),
        Some((at, says)) => timeout_at(at, call).await.map_err(|_| says),
    };
    let status = match ended {
        Ok(Ok(Ok(answer))) => {
            return Ok(answer.map(|body| Body::new(Answer::new(body, deadline.end, holds))));
        }
        Ok(Ok(Err(never))) => match never {},
        Ok(Err(panic)) => panicked(&*panic),
        Err(says) => says.passed().into(),
    };
    Ok(status.into_http())
}

/// An answer on its way, with what its call holds.
struct Answer {
    body: Body,
    end: Option<(Pin<Box<Sleep>>, Says)>,
    /// Given back with the last frame, not when the peer has acknowledged it.
    holds: Option<Holds>,
}

impl Answer {
    fn new(body: Body, end: Option<(Instant, Says)>, holds: Holds) -> Self {
        Self {
            end: end.map(|(at, says)| (Box::pin(sleep_until(at)), says)),
            body,
            holds: Some(holds),
        }
    }

    /// Ends the answer as if the service had: nobody takes what was cut for all of it.
    fn end_with(&mut self, status: Status) -> Frame<Bytes> {
        self.holds = None;
        self.body = Body::empty();
        let mut trailers = status.into_http::<()>().into_parts().0.headers;
        trailers.remove(CONTENT_TYPE);
        Frame::trailers(trailers)
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.holds.is_none() {
            return Poll::Ready(None);
        }
        // Asked first: a reader that takes little at a time always finds something ready.
        if let Some((end, says)) = &mut self.end
            && end.as_mut().poll(cx).is_ready()
        {
            let status = says.passed().into();
            return Poll::Ready(Some(Ok(self.end_with(status))));
        }
        let body = Pin::new(&mut self.body);
        let polled = match catch_unwind(AssertUnwindSafe(|| body.poll_frame(cx))) {
            Ok(polled) => polled,
            Err(panic) => {
                let status = panicked(&*panic);
                return Poll::Ready(Some(Ok(self.end_with(status))));
            }
        };
        match &polled {
            Poll::Pending => {}
            Poll::Ready(Some(Ok(frame))) if frame.is_trailers() => self.holds = None,
            Poll::Ready(None | Some(Err(_))) => self.holds = None,
            Poll::Ready(Some(Ok(_))) => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.holds.is_none() || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A fault of this program: reported, and the end of this call alone. What was said may hold anything, so it is not repeated.
fn panicked(_panic: &(dyn Any + Send)) -> Status {
    metrics::counter!(telemetry::PANICS).increment(1);
    tracing::error!("a call panicked");
    Error::new(
        Kind::Internal,
        "PANIC",
        "the server failed on this call; report it, and do not repeat the call as it is",
    )
    .into()
}

#[cfg(test)]
mod tests {
    use http_body::Body as _;

    use super::*;
    use crate::{
        config::Limits,
        domain::principal::{Principal, Role, TenantScope},
        grpc::tenants::TenantPlaces,
    };

    #[test]
    fn a_callers_timeout_is_read_as_the_protocol_says() {
        for (text, expected) in [
            ("5S", Some(Duration::from_secs(5))),
            ("2H", Some(Duration::from_secs(7_200))),
            ("99999999m", Some(Duration::from_millis(99_999_999))),
            ("1u", Some(Duration::from_micros(1))),
            ("7n", Some(Duration::from_nanos(7))),
            ("", None),
            ("S", None),
            ("5", None),
            ("-1S", None),
            ("100000000m", None),
            ("5\u{e9}", None),
        ] {
            assert_eq!(timeout(text), expected, "{text}");
        }
    }

    #[test]
    fn a_call_has_what_its_caller_gives_it_and_never_more_than_any() {
        let longest = Longest {
            call: Duration::from_secs(60),
            stream: Duration::from_secs(3_600),
        };
        let says_of = |shape, timeout: Option<&'static str>, known: Option<u64>| {
            let header = timeout.map(|text| ("grpc-timeout".parse().unwrap(), text.parse().unwrap()));
            let deadline = Deadline::of(
                shape,
                &HeaderMap::from_iter(header),
                known.map(Duration::from_secs),
                longest,
            );
            (
                deadline.answer.map(|(_, says)| says),
                deadline.end.map(|(_, says)| says),
            )
        };
        let says = |shape, timeout| says_of(shape, timeout, None);
        let (caller, call, stream) = (Some(Says::Caller), Some(Says::Call), Some(Says::Stream));
        assert_eq!(says(Shape::Unary, Some("1S")), (caller, caller));
        assert_eq!(says(Shape::Unary, Some("1H")), (call, caller));
        assert_eq!(says(Shape::Unary, None), (call, None));
        assert_eq!(says(Shape::ServerStreaming, None), (call, stream));
        assert_eq!(says(Shape::Streaming, None), (stream, stream));
        assert_eq!(says(Shape::Streaming, Some("99H")), (stream, stream));
        // Nobody calls for longer than it is known who calls.
        let token = Some(Says::Token);
        assert_eq!(says_of(Shape::Streaming, None, Some(600)), (token, token));
        assert_eq!(says_of(Shape::Unary, None, Some(600)), (call, token));
        assert_eq!(says_of(Shape::Unary, None, Some(10)), (token, token));
    }

    fn holds(quotas: &Arc<quota::Quotas>, activity: &Arc<activity::Activity>) -> Holds {
        let caller = Principal::new("one", [Role::Reader], TenantScope::All).unwrap();
        Holds {
            _place: quotas.begin(&caller).unwrap(),
            _running: activity.run(),
            _tenant: TenantSlot::new(&TenantPlaces::new(1)),
            _room: CallRoom::default(),
        }
    }

    /// A service bounds its own streams; this is what happens to those of one that does not.
    #[tokio::test]
    async fn a_stream_that_outlasts_any_is_ended_and_gives_back_what_it_held() {
        let limits = Limits {
            calls_per_principal: 1,
            ..Limits::default()
        };
        let (quotas, activity) = (quota::Quotas::new(&limits), activity::Activity::new());
        let soon = || Some((Instant::now() + Duration::from_millis(50), Says::Stream));
        let for_ever = async { Ok(Response::new(Body::new(Silence))) };
        let deadline = Deadline {
            answer: None,
            end: soon(),
        };
        let answer = run(for_ever, deadline, holds(&quotas, &activity)).await.unwrap();
        let mut body = std::pin::pin!(answer.into_body());
        let last = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx));
        let last = tokio::time::timeout(Duration::from_secs(20), last).await;
        let trailers = last
            .expect("it must end")
            .unwrap()
            .unwrap()
            .into_trailers()
            .unwrap();
        let status = Status::from_header_map(&trailers).unwrap();
        assert_eq!(status.code(), tonic::Code::DeadlineExceeded);
        assert!(status.message().contains("limit=limits.stream_total_seconds"));
        assert!(
            std::future::poll_fn(|cx| body.as_mut().poll_frame(cx))
                .await
                .is_none()
        );
        // The same of one that never begins to answer; its place is there, as the first gave it back.
        let deadline = Deadline {
            answer: soon(),
            end: None,
        };
        let answer = run(std::future::pending(), deadline, holds(&quotas, &activity)).await;
        let status = Status::from_header_map(answer.unwrap().headers()).unwrap();
        assert_eq!(status.code(), tonic::Code::DeadlineExceeded);
        drop(holds(&quotas, &activity));
    }

    /// A reader that takes a little now and then finds something ready whenever it comes.
    #[tokio::test]
    async fn a_stream_that_always_has_something_ready_ends_in_time_as_well() {
        let limits = Limits::default();
        let (quotas, activity) = (quota::Quotas::new(&limits), activity::Activity::new());
        let deadline = Deadline {
            answer: None,
            end: Some((Instant::now() + Duration::from_millis(50), Says::Token)),
        };
        let endless = async { Ok(Response::new(Body::new(Endless))) };
        let answer = run(endless, deadline, holds(&quotas, &activity)).await.unwrap();
        let mut body = std::pin::pin!(answer.into_body());
        let ended = async {
            loop {
                let frame = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await;
                match frame.unwrap().unwrap().into_trailers() {
                    Ok(trailers) => return trailers,
                    Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        };
        let trailers = tokio::time::timeout(Duration::from_secs(20), ended)
            .await
            .expect("it must end");
        let status = Status::from_header_map(&trailers).unwrap();
        assert_eq!(status.code(), tonic::Code::Unauthenticated);
    }

    struct Endless;

    impl http_body::Body for Endless {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"content")))))
        }
    }

    struct Silence;

    impl http_body::Body for Silence {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            Poll::Pending
        }
    }
}
