//! The API on the wire: what every service shares. The services themselves are one file each.

use std::{ops::Deref, sync::Arc, time::Duration};

use tonic::{Request, Status, service::Routes};

use crate::{
    access::{
        purpose::{self, PURPOSE_KEY},
        session::Session,
    },
    domain::{limits, purpose::Purpose},
    proto::v1::{
        erasure_service_server::ErasureServiceServer, key_service_server::KeyServiceServer,
        record_service_server::RecordServiceServer, tenant_service_server::TenantServiceServer,
    },
    vault::{Error, Kind, Vault},
};

pub mod codec;
mod convert;
mod download;
mod erasure;
mod erasure_service;
#[cfg(any(test, feature = "testing"))]
pub mod fuzz;
mod gate;
mod key_service;
mod message;
mod page;
mod record_service;
mod resumable;
pub mod schema;
pub mod status;
mod tenant_service;
pub mod tenants;
mod upload;
mod whole;

/// Longest message that a service decodes: a chunk of a stream and its framing.
pub const DECODE_BYTES: usize = limits::STREAM_MESSAGE_BYTES + FRAMING_BYTES;
/// Longest request other than a stream's chunks: a descriptor is 32 KiB.
pub const REQUEST_BYTES: usize = 1 << 20;
/// Longest request that brings one message: its body, and a descriptor as it may be spelt.
pub const MESSAGE_REQUEST_BYTES: usize = (1 << 20) + (256 << 10);
/// Tags and lengths around a chunk, generously.
const FRAMING_BYTES: usize = 64;

/// How long streams may take: tonic's own timeouts end at a response's headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamLimits {
    /// Longest wait for an upload's next message.
    pub idle: Duration,
    /// Longest wait for a caller to take content that is ready.
    pub stall: Duration,
    /// Longest stream in all.
    pub total: Duration,
}

impl Default for StreamLimits {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(60),
            stall: Duration::from_secs(60),
            total: Duration::from_secs(24 * 3_600),
        }
    }
}

/// Every service of the API over one vault.
pub fn routes(vault: &Arc<Vault>, limits: StreamLimits) -> Routes {
    let records = record_service::RecordApi::new(Arc::clone(vault), limits);
    let records = RecordServiceServer::new(records).max_decoding_message_size(DECODE_BYTES);
    let tenants = tenant_service::TenantApi::new(Arc::clone(vault));
    let keys = key_service::KeyApi::new(Arc::clone(vault));
    let erasures = erasure_service::ErasureApi::new(Arc::clone(vault));
    Routes::new(whole::Whole(records))
        .add_service(ErasureServiceServer::new(erasures).max_decoding_message_size(REQUEST_BYTES))
        .add_service(KeyServiceServer::new(keys).max_decoding_message_size(REQUEST_BYTES))
        .add_service(TenantServiceServer::new(tenants).max_decoding_message_size(DECODE_BYTES))
}

/// Who makes a call.
#[derive(Clone, Debug)]
pub struct Caller {
    session: Session,
    /// Absent where calls are not counted: in tests of a service alone.
    slot: Option<Arc<tenants::TenantSlot>>,
}

impl Deref for Caller {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.session
    }
}

/// Who makes this call, as the identity layer found out.
///
/// # Errors
/// `INTERNAL` (`NO_PRINCIPAL`) if the service runs without the identity layer: an assembly fault that must not pass
/// for an anonymous caller.
pub fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    match request.extensions().get::<Session>() {
        Some(session) => Ok(Caller {
            session: session.clone(),
            slot: request.extensions().get().cloned(),
        }),
        None => Err(Error::new(Kind::Internal, "NO_PRINCIPAL", "the caller was not identified").into()),
    }
}

/// The purpose that this call declares and must declare.
///
/// # Errors
/// `INVALID_ARGUMENT`: `PURPOSE_REQUIRED` without one; `INVALID_FIELD` for two, or one that is not of the vocabulary.
pub fn required_purpose<T>(request: &Request<T>) -> Result<Purpose, Status> {
    Ok(purpose::required(declared(request)?)?)
}

/// The purpose that this call may declare.
///
/// # Errors
/// `INVALID_ARGUMENT` (`INVALID_FIELD`) for two, or one that is not of the vocabulary.
pub fn optional_purpose<T>(request: &Request<T>) -> Result<Option<Purpose>, Status> {
    Ok(purpose::optional(declared(request)?)?)
}

fn declared<T>(request: &Request<T>) -> Result<Option<&str>, Error> {
    let mut values = request.metadata().get_all(PURPOSE_KEY).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(Error::invalid(PURPOSE_KEY, "a call has one purpose"));
    }
    first
        .map(|value| value.to_str())
        .transpose()
        .map_err(|_| Error::invalid(PURPOSE_KEY, "must be printable ASCII"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declaring(purposes: &[&str]) -> Request<()> {
        let mut request = Request::new(());
        for purpose in purposes {
            request
                .metadata_mut()
                .append(PURPOSE_KEY, purpose.parse().unwrap());
        }
        request
    }

    #[test]
    fn a_call_has_at_most_one_purpose() {
        assert_eq!(
            required_purpose(&declaring(&["CustomerCare"])).unwrap(),
            Purpose::CustomerCare
        );
        assert_eq!(optional_purpose(&declaring(&[])).unwrap(), None);
        for bad in [&[][..], &["CustomerCare", "LegalCompliance"], &["Fun"]] {
            let status = required_purpose(&declaring(bad)).unwrap_err();
            assert_eq!(status.code(), tonic::Code::InvalidArgument, "{bad:?}");
        }
    }

    #[test]
    fn a_call_without_identity_is_a_fault_not_an_anonymous_caller() {
        assert_eq!(
            caller(&Request::new(())).unwrap_err().code(),
            tonic::Code::Internal
        );
    }
}
