//! The identity layer: no call reaches a service without a principal.

use std::{
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::Either;
use http::{Request, Response};
use tonic::{Status, body::Body};
use tower::{Layer, Service};

use super::observe::CallerSlot;
use crate::{
    access::identity::{Identify, PeerCertificate},
    domain::{
        error::{Error, Kind},
        principal::Principal,
    },
};

/// Puts [`Admit`] around a service.
#[derive(Clone, Debug)]
pub(super) struct AdmitLayer(pub(super) Arc<dyn Identify>);

impl<S> Layer<S> for AdmitLayer {
    type Service = Admit<S>;

    fn layer(&self, inner: S) -> Admit<S> {
        Admit {
            inner,
            identify: Arc::clone(&self.0),
        }
    }
}

/// Puts the caller's `Arc<Principal>` among the request's extensions, or refuses the call.
#[derive(Clone, Debug)]
pub(super) struct Admit<S> {
    inner: S,
    identify: Arc<dyn Identify>,
}

impl<S> Admit<S> {
    fn principal(&self, request: &Request<Body>) -> Option<Arc<Principal>> {
        let peer = request.extensions().get::<Arc<PeerCertificate>>()?;
        self.identify.principal(peer)
    }
}

impl<S> Service<Request<Body>> for Admit<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<Response<Body>, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let Some(principal) = self.principal(&request) else {
            return Either::Right(ready(Ok(stranger().into_http())));
        };
        if let Some(slot) = request.extensions().get::<CallerSlot>() {
            slot.fill(&principal);
        }
        request.extensions_mut().insert(principal);
        Either::Left(self.inner.call(request))
    }
}

fn stranger() -> Status {
    Error::new(
        Kind::Unauthenticated,
        "UNKNOWN_CERTIFICATE",
        "the client certificate belongs to no principal; have its URI or DNS name listed under [[principals]]",
    )
    .into()
}
