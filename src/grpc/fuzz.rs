//! Requests as anybody may send them, as a fuzz target.

use bytes::Bytes;
use prost::{Message, Name};

use super::{
    codec,
    convert::{self, Path, optional, required},
    key_service, page, record_service,
};
use crate::{
    domain::{
        clock::Timestamp,
        ids::{ErasureId, OperationId, RecordId, RequestId, RetentionClassId, TenantId},
        principal::{Principal, Role, TenantScope},
    },
    proto::v1,
};

type Kind = (&'static str, fn(Bytes));

/// Every request of the API, by its type's name. Seeds name them by place: what is new goes to the end.
const KINDS: &[Kind] = &[
    kind::<v1::PutRecordingRequest>(|bytes| taken(bytes, put_recording)),
    kind::<v1::ReadRecordingRequest>(|bytes| {
        taken(bytes, |asked| drop(record_service::range(&asked)));
    }),
    kind::<v1::GetRecordRequest>(|bytes| taken(bytes, |asked| drop(record_service::name(&asked)))),
    kind::<v1::ListRecordsRequest>(|bytes| taken(bytes, list_records)),
    kind::<v1::UpdateRecordRequest>(|bytes| {
        taken(bytes, |asked: v1::UpdateRecordRequest| {
            let _ = convert::change(asked.descriptor.as_ref(), asked.update_mask.as_ref());
        });
    }),
    kind::<v1::CreateTenantRequest>(|bytes| {
        taken(bytes, |asked: v1::CreateTenantRequest| {
            let _ = asked.tenant.as_ref().map(convert::settings);
        });
    }),
    kind::<v1::UpdateTenantRequest>(|bytes| taken(bytes, update_tenant)),
    kind::<v1::CreateRetentionClassRequest>(|bytes| {
        taken(bytes, |asked: v1::CreateRetentionClassRequest| {
            let _ = asked.retention_class.as_ref().map(convert::class_from_proto);
        });
    }),
    kind::<v1::ListTenantsRequest>(|bytes| {
        taken(bytes, |asked: v1::ListTenantsRequest| {
            let _ = page::after::<TenantId>(&asked.page_token);
        });
    }),
    kind::<v1::GetTenantRequest>(|bytes| {
        taken(bytes, |asked: v1::GetTenantRequest| named(&asked.tenant_id));
    }),
    kind::<v1::PutMessageRequest>(|bytes| taken(bytes, put_message)),
    kind::<v1::BatchPutMessagesRequest>(|bytes| {
        taken(bytes, |asked: v1::BatchPutMessagesRequest| {
            asked.requests.into_iter().for_each(put_message);
        });
    }),
    kind::<v1::GetMessageRequest>(|bytes| {
        taken(bytes, |asked: v1::GetMessageRequest| recorded(&asked.record_id));
    }),
    kind::<v1::BatchGetMessagesRequest>(|bytes| {
        taken(bytes, |asked: v1::BatchGetMessagesRequest| {
            asked.record_ids.iter().for_each(|id| recorded(id));
        });
    }),
    kind::<v1::BeginUploadRequest>(|bytes| taken(bytes, begin_upload)),
    kind::<v1::WriteUploadRequest>(|bytes| taken(bytes, write_upload)),
    kind::<v1::GetUploadRequest>(|bytes| {
        taken(bytes, |asked: v1::GetUploadRequest| recorded(&asked.upload_id));
    }),
    kind::<v1::CommitUploadRequest>(|bytes| taken(bytes, commit_upload)),
    kind::<v1::AbortUploadRequest>(|bytes| {
        taken(bytes, |asked: v1::AbortUploadRequest| recorded(&asked.upload_id));
    }),
    kind::<v1::ListRetentionClassesRequest>(|bytes| {
        taken(bytes, |asked: v1::ListRetentionClassesRequest| {
            let _ = convert::page_size(asked.page_size);
            let _ = page::after::<RetentionClassId>(&asked.page_token);
        });
    }),
    kind::<v1::ListKeyVersionsRequest>(|bytes| {
        taken(bytes, |asked: v1::ListKeyVersionsRequest| named(&asked.tenant_id));
    }),
    kind::<v1::RotateTenantKeyRequest>(|bytes| {
        taken(bytes, |asked: v1::RotateTenantKeyRequest| {
            named(&asked.tenant_id);
            requested(&asked.request_id);
        });
    }),
    kind::<v1::DestroyKeyVersionRequest>(|bytes| {
        taken(bytes, |asked: v1::DestroyKeyVersionRequest| {
            let _ = key_service::version(&asked);
        });
    }),
    kind::<v1::RotateRootEpochRequest>(|bytes| {
        taken(bytes, |asked: v1::RotateRootEpochRequest| {
            requested(&asked.request_id)
        });
    }),
    kind::<v1::ListRootEpochsRequest>(|bytes| taken(bytes, |_: v1::ListRootEpochsRequest| ())),
    kind::<v1::ListSigningKeysRequest>(|bytes| taken(bytes, |_: v1::ListSigningKeysRequest| ())),
    kind::<v1::GetKeyOperationRequest>(|bytes| {
        taken(bytes, |asked: v1::GetKeyOperationRequest| {
            let _ = required::<OperationId>(&asked.operation_id, &Path::root("operation_id"));
        });
    }),
    kind::<v1::ListKeyOperationsRequest>(|bytes| {
        taken(bytes, |asked: v1::ListKeyOperationsRequest| {
            let _ = convert::page_size(asked.page_size);
            let _ = page::after::<OperationId>(&asked.page_token);
        });
    }),
    kind::<v1::PreviewErasureRequest>(|bytes| {
        taken(bytes, |asked: v1::PreviewErasureRequest| {
            let _ = convert::target(asked.target.as_ref());
            let _ = convert::ground(asked.ground);
        });
    }),
    kind::<v1::RequestErasureRequest>(|bytes| taken(bytes, request_erasure)),
    kind::<v1::CancelErasureRequest>(|bytes| {
        taken(bytes, |asked: v1::CancelErasureRequest| erased(&asked.erasure_id));
    }),
    kind::<v1::GetErasureRequest>(|bytes| {
        taken(bytes, |asked: v1::GetErasureRequest| erased(&asked.erasure_id));
    }),
    kind::<v1::ListErasuresRequest>(|bytes| {
        taken(bytes, |asked: v1::ListErasuresRequest| {
            let _ = convert::page_size(asked.page_size);
            let _ = page::after::<ErasureId>(&asked.page_token);
        });
    }),
    kind::<v1::GetCertificateRequest>(|bytes| {
        taken(bytes, |asked: v1::GetCertificateRequest| {
            erased(&asked.erasure_id)
        });
    }),
    kind::<v1::RunSweepRequest>(|bytes| {
        taken(bytes, |asked: v1::RunSweepRequest| requested(&asked.request_id));
    }),
    kind::<v1::GetSweepRequest>(|bytes| {
        taken(bytes, |asked: v1::GetSweepRequest| {
            let _ = required::<OperationId>(&asked.sweep_id, &Path::root("sweep_id"));
        });
    }),
    kind::<v1::SuspendTenantRequest>(|bytes| {
        taken(bytes, |asked: v1::SuspendTenantRequest| named(&asked.tenant_id));
    }),
    kind::<v1::ResumeTenantRequest>(|bytes| {
        taken(bytes, |asked: v1::ResumeTenantRequest| named(&asked.tenant_id));
    }),
];

const fn kind<U: Name>(target: fn(Bytes)) -> Kind {
    (U::NAME, target)
}

/// Decodes one request of the API, its type chosen by the first byte, and turns it into what the vault is asked.
///
/// # Panics
/// If a request that was taken is written as something else than was sent: that is the finding, like any other panic.
pub fn request(data: &[u8]) {
    if let Some((kind, rest)) = data.split_first() {
        let (_, target) = KINDS[usize::from(*kind) % KINDS.len()];
        target(Bytes::copy_from_slice(rest));
    }
}

fn put_recording(message: v1::PutRecordingRequest) {
    use v1::put_recording_request::Payload;
    match message.payload {
        Some(Payload::Spec(spec)) => {
            if let (Ok(tenant), Some(caller)) = (spec.tenant_id.parse(), uploader()) {
                let _ = convert::put_spec(&spec, tenant, &caller);
            }
        }
        Some(Payload::Closing(closing)) => drop(convert::closing(&closing, Timestamp(0))),
        Some(Payload::Chunk(_)) | None => {}
    }
}

fn list_records(asked: v1::ListRecordsRequest) {
    let _ = convert::query(asked.query.as_ref());
    let _ = convert::order(asked.order());
    let _ = convert::page_size(asked.page_size);
}

fn update_tenant(asked: v1::UpdateTenantRequest) {
    if let Some(tenant) = &asked.tenant {
        let _ = convert::settings_change(tenant, asked.update_mask.as_ref());
    }
}

fn put_message(message: v1::PutMessageRequest) {
    if let Some(caller) = uploader() {
        let _ = convert::message_spec(message, &caller);
    }
}

fn begin_upload(asked: v1::BeginUploadRequest) {
    if let (Ok(tenant), Some(caller)) = (asked.tenant_id.parse(), uploader()) {
        let _ = convert::begin_spec(&asked, tenant, &caller);
    }
}

fn write_upload(message: v1::WriteUploadRequest) {
    use v1::write_upload_request::Payload;
    if let Some(Payload::Header(header)) = message.payload {
        recorded(&header.upload_id);
        let _ = convert::not_negative(header.offset, &Path::root("offset"));
    }
}

fn commit_upload(asked: v1::CommitUploadRequest) {
    recorded(&asked.upload_id);
    let _ = convert::size(asked.size_bytes, &Path::root("size_bytes"));
    if let Some(closing) = &asked.closing {
        let _ = convert::closing(closing, Timestamp(i64::MAX));
    }
}

fn request_erasure(asked: v1::RequestErasureRequest) {
    if let Ok(tenant) = asked.tenant_id.parse() {
        let _ = convert::erasure_spec(&tenant, "compliance", &asked);
    }
}

fn erased(erasure: &str) {
    let _ = required::<ErasureId>(erasure, &Path::root("erasure_id"));
}

fn named(tenant: &str) {
    let _ = required::<TenantId>(tenant, &Path::root("tenant_id"));
}

fn requested(id: &str) {
    let _ = optional::<RequestId>(id, &Path::root("request_id"));
}

fn recorded(record: &str) {
    let _ = required::<RecordId>(record, &Path::root("record_id"));
}

fn uploader() -> Option<Principal> {
    Principal::new("uploader", [Role::Uploader], TenantScope::All).ok()
}

/// Hands over a request that the codec takes. It holds nothing that this server does not know: so its type's own encoding,
/// decoded, is the same message.
fn taken<U: Message + Name + Default + PartialEq>(bytes: Bytes, use_it: impl FnOnce(U)) {
    if let Ok(message) = codec::decode_strictly::<U>(bytes) {
        let again = codec::decode_strictly::<U>(message.encode_to_vec().into());
        assert!(again.is_ok_and(|again| again == message), "a request changed");
        use_it(message);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost_reflect::DescriptorPool;

    use super::*;

    #[test]
    fn every_request_of_the_api_is_a_kind() {
        let pool = DescriptorPool::decode(v1::FILE_DESCRIPTOR_SET).unwrap();
        let requests: BTreeSet<_> = pool
            .services()
            .flat_map(|service| service.methods().map(|method| method.input()).collect::<Vec<_>>())
            .map(|request| request.name().to_owned())
            .collect();
        let kinds: BTreeSet<_> = KINDS.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(kinds, requests);
    }
}
