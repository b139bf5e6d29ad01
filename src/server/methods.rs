//! The calls that the server knows, by path.

use std::{collections::HashMap, sync::OnceLock};

use prost_reflect::DescriptorPool;

use crate::proto::v1::FILE_DESCRIPTOR_SET;

/// How requests and answers of a call go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// One message each way.
    Unary,
    /// One message in, many out.
    ServerStreaming,
    /// Many messages in.
    Streaming,
}

/// A call.
#[derive(Debug)]
pub(super) struct Method {
    /// Its path.
    pub(super) name: String,
    /// How its messages go.
    pub(super) shape: Shape,
}

/// The call of this path: a caller may send any, and what it sends must not become a time series.
pub(super) fn method(path: &str) -> &'static Method {
    static OTHER: OnceLock<Method> = OnceLock::new();
    known().get(path).unwrap_or_else(|| {
        OTHER.get_or_init(|| Method {
            name: "other".to_owned(),
            shape: Shape::Unary,
        })
    })
}

fn known() -> &'static HashMap<String, Method> {
    static KNOWN: OnceLock<HashMap<String, Method>> = OnceLock::new();
    KNOWN.get_or_init(|| {
        let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET).unwrap_or_default();
        let services = pool.services().collect::<Vec<_>>();
        let ours = services.iter().flat_map(|service| {
            service.methods().map(|method| {
                let name = format!("/{}/{}", service.full_name(), method.name());
                let shape = shape(method.is_client_streaming(), method.is_server_streaming());
                (name, shape)
            })
        });
        let standard = [
            ("/grpc.health.v1.Health/Check", Shape::Unary),
            ("/grpc.health.v1.Health/Watch", Shape::ServerStreaming),
            (
                "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
                Shape::Streaming,
            ),
        ];
        ours.chain(standard.map(|(name, shape)| (name.to_owned(), shape)))
            .map(|(name, shape)| (name.clone(), Method { name, shape }))
            .collect()
    })
}

fn shape(requests: bool, answers: bool) -> Shape {
    match (requests, answers) {
        (true, _) => Shape::Streaming,
        (false, true) => Shape::ServerStreaming,
        (false, false) => Shape::Unary,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_up_path_is_no_time_series() {
        let ours = "/callvault.v1.RecordService/PutRecording";
        assert_eq!(method(ours).name, ours);
        assert_eq!(
            method("/callvault.v1.RecordService/jane@example.com").name,
            "other"
        );
    }

    #[test]
    fn every_call_has_its_shape() {
        for (path, shape) in [
            ("/callvault.v1.RecordService/PutRecording", Shape::Streaming),
            (
                "/callvault.v1.RecordService/ReadRecording",
                Shape::ServerStreaming,
            ),
            ("/callvault.v1.RecordService/GetRecord", Shape::Unary),
            ("/grpc.health.v1.Health/Watch", Shape::ServerStreaming),
        ] {
            assert_eq!(method(path).shape, shape, "{path}");
        }
    }
}
