//! A request that was broken off never looks whole.
//!
//! hyper and tonic both take a caller's cancellation for the end of its stream (`RST_STREAM` with `CANCEL` becomes
//! `Ok(None)`): half an upload would be acknowledged as a recording, to nobody. Only HTTP/2's `END_STREAM` ends a request.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::Request;
use http_body::{Frame, SizeHint};
use tonic::{Code, Status, body::Body, server::NamedService};
use tower::Service;

/// Puts a [`WholeBody`] around the requests of a service.
#[derive(Clone, Debug)]
pub(super) struct Whole<S>(pub(super) S);

impl<S: NamedService> NamedService for Whole<S> {
    const NAME: &'static str = S::NAME;
}

impl<S: Service<Request<Body>>> Service<Request<Body>> for Whole<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> S::Future {
        self.0
            .call(request.map(|body| Body::new(WholeBody { body, over: false })))
    }
}

/// A body that ends without an error only if its sender has ended it.
struct WholeBody {
    body: Body,
    over: bool,
}

impl http_body::Body for WholeBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.over {
            return Poll::Ready(None);
        }
        match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => return Poll::Ready(Some(Ok(frame))),
            None if self.body.is_end_stream() => {
                self.over = true;
                return Poll::Ready(None);
            }
            // A refusal of the server's own, which the caller is still there to read.
            Some(Err(refusal)) if refusal.code() != Code::Cancelled => {
                self.over = true;
                return Poll::Ready(Some(Err(refusal)));
            }
            None | Some(Err(_)) => self.over = true,
        }
        Poll::Ready(Some(Err(broken_off())))
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Any code but `CANCELLED`, which tonic would swallow. Nobody is left to read it.
fn broken_off() -> Status {
    Status::aborted("the request was broken off")
}
