//! Resumable uploads as callers begin and see them.

use super::{bytes, time::moment_to_proto, written_to_proto};
use crate::{proto::v1, vault::UploadStatus};

/// How far an upload has come, for the answer to a caller who may upload.
pub(in crate::grpc) fn upload_to_proto(status: &UploadStatus) -> v1::Upload {
    let state = match status.record {
        None => v1::UploadState::Open,
        Some(_) => v1::UploadState::Committed,
    };
    v1::Upload {
        tenant_id: status.tenant.to_string(),
        upload_id: status.id.to_string(),
        state: state.into(),
        durable_offset: bytes(status.durable),
        received_offset: bytes(status.received),
        create_time: Some(moment_to_proto(status.created)),
        expire_time: Some(moment_to_proto(status.expires)),
        record: status.record.as_ref().map(written_to_proto),
    }
}
