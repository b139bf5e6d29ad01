//! The outermost layer: counts and logs every call, with the code that it really ended with.

use std::{
    collections::HashSet,
    future::Future,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use prost_reflect::DescriptorPool;
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};

use crate::{domain::principal::Principal, proto::v1::FILE_DESCRIPTOR_SET, telemetry};

/// Puts [`Observe`] around a service.
#[derive(Clone, Copy, Debug)]
pub(super) struct ObserveLayer;

impl<S> Layer<S> for ObserveLayer {
    type Service = Observe<S>;

    fn layer(&self, inner: S) -> Observe<S> {
        Observe { inner }
    }
}

/// Counts and logs the calls of a service.
#[derive(Clone, Debug)]
pub(super) struct Observe<S> {
    inner: S,
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

impl<S> Service<Request<Body>> for Observe<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let mut call = Call::begin(method(request.uri().path()));
        request.extensions_mut().insert(call.caller.clone());
        let response = self.inner.call(request);
        Box::pin(async move {
            let response = response.await?;
            // A refusal has its code in the headers, everything else in the trailers.
            call.code = code(response.headers());
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
                    self.call.code = code(trailers);
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

fn code(headers: &HeaderMap) -> Option<Code> {
    headers
        .get("grpc-status")
        .map(|value| Code::from_bytes(value.as_bytes()))
}

/// The path if it is a call of ours: a caller may send any, and each would become a time series.
fn method(path: &str) -> &'static str {
    static KNOWN: OnceLock<HashSet<String>> = OnceLock::new();
    KNOWN.get_or_init(known).get(path).map_or("other", String::as_str)
}

fn known() -> HashSet<String> {
    let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET).unwrap_or_default();
    let ours = pool.services().flat_map(|service| {
        let path =
            |method: prost_reflect::MethodDescriptor| format!("/{}/{}", service.full_name(), method.name());
        service.methods().map(path).collect::<Vec<_>>()
    });
    let standard = [
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/Watch",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    ];
    ours.chain(standard.map(str::to_owned)).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_up_path_is_no_time_series() {
        let ours = "/callvault.v1.RecordService/PutRecording";
        assert_eq!(method(ours), ours);
        assert_eq!(method("/callvault.v1.RecordService/jane@example.com"), "other");
    }
}
