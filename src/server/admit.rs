//! The gatekeeper: no call reaches a service without a principal, and none beyond what that principal may ask for.

use std::{convert::Infallible, future::Future, pin::Pin, sync::Arc, time::Duration};

use http::{HeaderMap, Request, Response};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::time;
use tonic::{Status, body::Body, service::Routes};
use tower::Service;

use super::{
    activity::Activity,
    call::{self, Deadline, Holds, Longest},
    inflow::{CallRoom, Inflow},
    methods::Method,
    observe::CallerSlot,
    quota::{self, Quotas},
};
use crate::{
    access::identity::{Callers, Identified, PeerCertificate},
    config::Limits,
    domain::{
        error::{Error, Kind},
        limits,
    },
    grpc::tenants::{TenantPlaces, TenantSlot},
};

/// Whom to let in, and how much of each.
#[derive(Debug)]
pub(super) struct Gatekeeper {
    callers: Arc<Callers>,
    quotas: Arc<Quotas>,
    tenants: Arc<TenantPlaces>,
    inflow: Inflow,
    longest: Longest,
}

impl Gatekeeper {
    /// As the operator says.
    pub(super) fn new(callers: Arc<Callers>, limits: &Limits) -> Self {
        Self {
            callers,
            quotas: Quotas::new(limits),
            tenants: TenantPlaces::new(limits.calls_per_tenant),
            inflow: Inflow::new(limits.receive_budget_bytes),
            longest: Longest {
                call: Duration::from_secs(limits.call_seconds),
                stream: Duration::from_secs(limits.stream_total_seconds),
            },
        }
    }
}

/// The calls of one connection.
#[derive(Clone, Debug)]
pub(super) struct Admit {
    routes: Routes,
    gate: Arc<Gatekeeper>,
    peer: Arc<PeerCertificate>,
    activity: Arc<Activity>,
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

impl Admit {
    /// Lets the calls of this peer through to `routes`.
    pub(super) fn new(
        routes: Routes,
        gate: Arc<Gatekeeper>,
        peer: Arc<PeerCertificate>,
        activity: Arc<Activity>,
    ) -> Self {
        Self {
            routes,
            gate,
            peer,
            activity,
        }
    }

    /// Runs the call, with its caller among the request's extensions, or refuses it.
    pub(super) fn call(&mut self, request: Request<Incoming>, method: &Method, slot: &CallerSlot) -> Answer {
        let running = self.activity.run();
        let admitted = self.admit(request.headers(), slot);
        let (Identified { session, left }, place) = match admitted {
            Ok(admitted) => admitted,
            Err(error) => {
                // What was sent is let go of first: nothing of it is held while the refusal is.
                drop(request);
                return Box::pin(async move {
                    let answer = refuse(error).await;
                    drop(running);
                    Ok(answer)
                });
            }
        };
        let deadline = Deadline::of(method.shape, request.headers(), left, self.gate.longest);
        let (room, tenant) = (CallRoom::default(), TenantSlot::new(&self.gate.tenants));
        let mut request = request.map(|body| {
            if body.is_end_stream() {
                return Body::new(body);
            }
            self.gate
                .inflow
                .watch(Body::new(body), session.principal(), method.shape, room.clone())
        });
        request.extensions_mut().insert(session);
        request.extensions_mut().insert(Arc::clone(&tenant));
        let holds = Holds {
            _place: place,
            _running: running,
            _tenant: tenant,
            _room: room,
        };
        let mut routes = self.routes.clone();
        let call = async move { routes.call(request).await };
        Box::pin(call::run(call, deadline, holds))
    }

    /// Who calls, and a place for the call.
    fn admit(&self, headers: &HeaderMap, slot: &CallerSlot) -> Result<(Identified, quota::Call), Error> {
        check_metadata(headers)?;
        let identified = token(headers).and_then(|token| self.gate.callers.identify(&self.peer, token));
        let caller = match identified {
            Ok(caller) => caller,
            Err(error) => {
                if error.kind == Kind::Unauthenticated {
                    let in_a_row = self.activity.fail_to_recognise();
                    // Whoever shares the connection and is recognised goes on.
                    if in_a_row >= limits::UNRECOGNISED_CALLS && self.activity.runs_one_call() {
                        self.activity.break_off();
                    }
                }
                return Err(error);
            }
        };
        self.activity.recognise();
        slot.fill(caller.session.principal());
        let place = self.gate.quotas.begin(&caller.session)?;
        Ok((caller, place))
    }
}

/// A refusal for load takes its time: whoever asks again at once, whatever it is told, asks less often.
async fn refuse(error: Error) -> Response<Body> {
    if error.kind == Kind::Exhausted {
        time::sleep(Duration::from_millis(limits::REFUSAL_PAUSE_MILLIS)).await;
    }
    Status::from(error).into_http()
}

/// The bearer token of a call (RFC 6750 section 2.1), if it has one.
fn token(headers: &HeaderMap) -> Result<Option<&str>, Error> {
    let mut values = headers.get_all(http::header::AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let said = value.to_str().ok().and_then(|text| text.split_once(' '));
    match said {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") && values.next().is_none() => {
            Ok(Some(token.trim_matches(' ')))
        }
        _ => Err(Error::new(
            Kind::Unauthenticated,
            "TOKEN_MALFORMED",
            "the metadata key authorization must be given once, as Bearer and a token",
        )),
    }
}

fn check_metadata(headers: &HeaderMap) -> Result<(), Error> {
    let size: usize = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 32) // RFC 9113 section 6.5.2
        .sum();
    if size <= limits::METADATA_BYTES {
        return Ok(());
    }
    Err(Error::new(
        Kind::Invalid,
        "METADATA_TOO_LONG",
        format!(
            "the call's metadata is too long; send less of it limit_bytes={}",
            limits::METADATA_BYTES
        ),
    ))
}
