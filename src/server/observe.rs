//! The outermost layer: counts and logs every call, with the code that it really ended with.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tonic::{Code, Status, body::Body};
use tonic_types::StatusExt;
use tower::Service;

use super::{admit::Admit, methods::method};
use crate::{domain::principal::Principal, telemetry};

/// Counts and logs the calls of a connection.
#[derive(Clone, Debug)]
pub(super) struct Observe {
    inner: Admit,
}

impl Observe {
    /// Watches what `inner` answers.
    pub(super) fn new(inner: Admit) -> Self {
        Self { inner }
    }
}

/// Where the identity layer, further in, leaves the caller for the log line.
#[derive(Clone, Debug, Default)]
pub(super) struct CallerSlot(Arc<OnceLock<Arc<Principal>>>);

impl CallerSlot {
    pub(super) fn fill(&self, principal: &Arc<Principal>) {
        // Filled once per call; a second caller would be a fault, and the first is the one that was let in.
        let _ = self.0.set(Arc::clone(principal));
    }

    fn alias(&self) -> &str {
        self.0.get().map_or("-", |principal| principal.alias())
    }
}

impl Service<Request<Incoming>> for Observe {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let method = method(request.uri().path());
        let mut call = Call::begin(&method.name);
        let response = self.inner.call(request, method, &call.caller);
        Box::pin(async move {
            let response = response.await?;
            // A refusal has its code in the headers, everything else in the trailers.
            call.ended(response.headers());
            if call.code.is_some() {
                return Ok(response);
            }
            Ok(response.map(|body| Body::new(Observed { body, call })))
        })
    }
}

/// One call that is running. Counted as cancelled if it ends before it has a code.
struct Call {
    method: &'static str,
    caller: CallerSlot,
    code: Option<Code>,
    begun: Instant,
}

impl Call {
    fn begin(method: &'static str) -> Self {
        metrics::gauge!(telemetry::CALLS_RUNNING, "method" => method).increment(1);
        Self {
            method,
            caller: CallerSlot::default(),
            code: None,
            begun: Instant::now(),
        }
    }
}

impl Call {
    /// Reads the code, if it is there, and counts what was refused for load.
    fn ended(&mut self, headers: &HeaderMap) {
        self.code = headers
            .get("grpc-status")
            .map(|value| Code::from_bytes(value.as_bytes()));
        if self.code == Some(Code::ResourceExhausted) {
            let reason = Status::from_header_map(headers)
                .and_then(|status| status.get_details_error_info())
                .map_or_else(|| "other".to_owned(), |info| info.reason);
            metrics::counter!(telemetry::CALLS_REFUSED, "reason" => reason).increment(1);
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let (method, code) = (self.method, name(self.code.unwrap_or(Code::Cancelled)));
        let seconds = self.begun.elapsed().as_secs_f64();
        metrics::gauge!(telemetry::CALLS_RUNNING, "method" => method).decrement(1);
        metrics::counter!(telemetry::CALLS, "method" => method, "code" => code).increment(1);
        metrics::histogram!(telemetry::CALL_SECONDS, "method" => method).record(seconds);
        tracing::info!(target: "callvault::call", method, code, seconds, caller = self.caller.alias(), "call ended");
    }
}

/// A response's body, watched for its trailers.
struct Observed {
    body: Body,
    call: Call,
}

impl http_body::Body for Observed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(trailers) = frame.trailers_ref() {
                    self.call.ended(trailers);
                }
            }
            Poll::Ready(Some(Err(status))) => self.call.code = Some(status.code()),
            _ => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The code as it is written in specifications and dashboards.
fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
