//! The codec of every generated service: prost's, but strict with requests.
//!
//! Responses stay lenient, so that clients are compatible with newer servers.

use std::marker::PhantomData;

use bytes::{Buf, Bytes};
use prost::{Message, Name};
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

use super::{
    DECODE_BYTES, MESSAGE_REQUEST_BYTES, REQUEST_BYTES,
    schema::{Refused, Schema},
};
use crate::{
    proto::v1::{BatchPutMessagesRequest, PutMessageRequest, PutRecordingRequest},
    vault::{Error, Kind},
};

/// Encodes `T`, decodes `U`; refuses unknown fields and enum numbers in `U` if it is a request.
#[derive(Debug)]
pub struct StrictCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for StrictCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for StrictCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Name + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = StrictDecoder<U>;

    fn encoder(&mut self) -> ProstEncoder<T> {
        ProstEncoder(PhantomData)
    }

    fn decoder(&mut self) -> StrictDecoder<U> {
        StrictDecoder {
            rule: Rule::of::<U>(),
            decodes: PhantomData,
        }
    }
}

/// Encodes a message.
#[derive(Debug)]
pub struct ProstEncoder<T>(PhantomData<T>);

impl<T: Message> Encoder for ProstEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, item: T, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.encode(out).map_err(|cause| {
            Error::new(Kind::Internal, "ENCODING", "the answer could not be encoded")
                .because(cause)
                .into()
        })
    }
}

/// Decodes a message, once its bytes are what the schema says. One per call.
#[derive(Debug)]
pub struct StrictDecoder<U> {
    rule: Rule,
    decodes: PhantomData<U>,
}

/// How strict to be; found once per call.
#[derive(Clone, Copy, Debug)]
enum Rule {
    Lenient,
    Strict { message: Option<usize>, limit: usize },
}

impl Rule {
    fn of<U: Name>() -> Self {
        if !U::NAME.ends_with("Request") {
            return Self::Lenient;
        }
        Self::Strict {
            message: Schema::api().index(&U::full_name()),
            limit: longest(U::NAME),
        }
    }

    fn check(self, bytes: &[u8]) -> Result<(), Error> {
        match self {
            Self::Lenient => Ok(()),
            Self::Strict { limit, .. } if bytes.len() > limit => Err(too_long(limit)),
            Self::Strict {
                message: Some(message),
                ..
            } => Schema::api().check(message, bytes).map_err(refusal),
            Self::Strict { message: None, .. } => Err(undescribed()),
        }
    }
}

impl<U: Message + Default> Decoder for StrictDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        Ok(Some(decode(self.rule, buffer)?))
    }
}

/// Takes a message of its type's rule out of `bytes`.
#[cfg(any(test, feature = "testing"))]
pub(super) fn decode_strictly<U: Message + Name + Default>(mut bytes: Bytes) -> Result<U, Error> {
    decode(Rule::of::<U>(), &mut bytes)
}

/// Takes the message out of `buffer` without copying it: `bytes` fields are slices of what arrived.
fn decode<U: Message + Default>(rule: Rule, buffer: &mut impl Buf) -> Result<U, Error> {
    let bytes: Bytes = buffer.copy_to_bytes(buffer.remaining());
    rule.check(&bytes)?;
    // prost's text may quote what it could not read; its own error stays here.
    U::decode(bytes).map_err(|_| malformed())
}

/// Longest request of this name: only those that bring content may be long.
fn longest(name: &str) -> usize {
    match name {
        PutRecordingRequest::NAME | BatchPutMessagesRequest::NAME => DECODE_BYTES,
        PutMessageRequest::NAME => MESSAGE_REQUEST_BYTES,
        _ => REQUEST_BYTES,
    }
}

fn refusal(refused: Refused) -> Error {
    match refused {
        Refused::Malformed => malformed(),
        Refused::UnknownField(path) => Error {
            field: Some(path),
            ..Error::new(
                Kind::Invalid,
                "UNKNOWN_FIELD",
                "the request has a field that this server does not know; remove it, or use a newer server",
            )
        },
        Refused::UnknownEnumValue(path) => Error {
            field: Some(path),
            ..Error::new(
                Kind::Invalid,
                "UNKNOWN_ENUM_VALUE",
                "the request has an enum value that this server does not know; use a known one, or a newer server",
            )
        },
    }
}

fn malformed() -> Error {
    Error::new(
        Kind::Invalid,
        "MALFORMED",
        "the request is not the protobuf message that this call takes",
    )
}

fn too_long(limit: usize) -> Error {
    Error::new(
        Kind::Invalid,
        "REQUEST_TOO_LONG",
        format!("the request is too long limit_bytes={limit}"),
    )
}

fn undescribed() -> Error {
    Error::new(
        Kind::Internal,
        "NO_DESCRIPTOR",
        "the server does not know the type of this call's request",
    )
}

#[cfg(test)]
mod tests {
    use tonic::Code;
    use tonic_types::StatusExt;

    use super::*;
    use crate::proto::v1::{GetRecordRequest, GetRecordResponse, put_recording_request::Payload};

    fn strict<U: Message + Name + Default>(bytes: impl Into<Bytes>) -> Result<U, Error> {
        decode(Rule::of::<U>(), &mut bytes.into())
    }

    #[test]
    fn a_chunk_is_not_copied() {
        let request = PutRecordingRequest {
            payload: Some(Payload::Chunk(Bytes::from(vec![7; 1 << 20]))),
        };
        let sent = Bytes::from(request.encode_to_vec());
        let range = sent.as_ptr_range();
        let Some(Payload::Chunk(chunk)) = strict::<PutRecordingRequest>(sent).unwrap().payload else {
            panic!("not a chunk");
        };
        assert!(range.contains(&chunk.as_ptr()));
        assert_eq!(chunk.len(), 1 << 20);
    }

    #[test]
    fn requests_are_strict_and_responses_are_not() {
        const UNKNOWN: &[u8] = &[0x98, 0x06, 0x01];
        let status = Status::from(strict::<GetRecordRequest>(UNKNOWN).unwrap_err());
        assert_eq!(status.code(), Code::InvalidArgument);
        let details = status.get_error_details();
        assert_eq!(details.error_info().unwrap().reason, "UNKNOWN_FIELD");
        assert_eq!(
            details.bad_request().unwrap().field_violations[0].field,
            "field 99"
        );
        assert!(strict::<GetRecordResponse>(UNKNOWN).is_ok());
    }

    #[test]
    fn malformed_requests_are_refused_without_repeating_them() {
        // A tenant id that is not UTF-8: the walk passes it, prost does not.
        for bad in [&[0x0a, 0x02, 0xff, 0xfe][..], &[0x0a, 0x09]] {
            let error = strict::<GetRecordRequest>(bad).unwrap_err();
            assert_eq!((error.kind, error.reason), (Kind::Invalid, "MALFORMED"));
            assert!(error.source.is_none());
        }
    }

    #[test]
    fn only_a_stream_of_content_may_be_long() {
        let long = "a".repeat(REQUEST_BYTES);
        let request = GetRecordRequest {
            tenant_id: long,
            name: None,
        };
        let error = strict::<GetRecordRequest>(request.encode_to_vec()).unwrap_err();
        assert_eq!(error.reason, "REQUEST_TOO_LONG");
        let chunk = Bytes::from(vec![0; crate::domain::limits::STREAM_MESSAGE_BYTES]);
        let request = PutRecordingRequest {
            payload: Some(Payload::Chunk(chunk)),
        };
        assert!(strict::<PutRecordingRequest>(request.encode_to_vec()).is_ok());
    }

    #[test]
    fn every_request_of_the_api_is_described() {
        let pool = prost_reflect::DescriptorPool::decode(crate::proto::v1::FILE_DESCRIPTOR_SET).unwrap();
        for method in pool.services().flat_map(|s| s.methods().collect::<Vec<_>>()) {
            let input = method.input();
            assert!(input.name().ends_with("Request"), "{}", input.full_name());
            assert!(Schema::api().index(input.full_name()).is_some());
        }
    }
}
