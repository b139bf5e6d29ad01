//! Requests as anybody may send them, as a fuzz target.

use bytes::Bytes;
use prost::{Message, Name};

use super::{codec, convert};
use crate::{
    domain::{
        clock::Timestamp,
        ids::TenantId,
        principal::{Principal, Role, TenantScope},
    },
    proto::v1,
};

/// Decodes one request of the API, its type chosen by the first byte, and turns it into what the vault is asked.
///
/// # Panics
/// If a request that was taken is written as something else than was sent: that is the finding, like any other panic.
pub fn request(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else {
        return;
    };
    let bytes = Bytes::copy_from_slice(rest);
    match kind % 12 {
        0 => put_recording(bytes),
        1 => taken(bytes, |_: v1::ReadRecordingRequest| {}),
        2 => taken(bytes, |_: v1::GetRecordRequest| {}),
        3 => taken(bytes, |asked: v1::ListRecordsRequest| {
            let _ = convert::query(asked.query.as_ref());
            let _ = convert::page_size(asked.page_size);
        }),
        4 => taken(bytes, |asked: v1::UpdateRecordRequest| {
            let _ = convert::change(asked.descriptor.as_ref(), asked.update_mask.as_ref());
        }),
        5 => taken(bytes, |asked: v1::CreateTenantRequest| {
            let _ = asked.tenant.as_ref().map(convert::settings);
        }),
        6 => taken(bytes, |asked: v1::UpdateTenantRequest| {
            let _ = asked
                .tenant
                .as_ref()
                .map(|tenant| convert::settings_change(tenant, asked.update_mask.as_ref()));
        }),
        7 => taken(bytes, |asked: v1::CreateRetentionClassRequest| {
            let _ = asked.retention_class.as_ref().map(convert::class_from_proto);
        }),
        8 => taken(bytes, |asked: v1::ListTenantsRequest| {
            let _ = super::page::after::<TenantId>(&asked.page_token);
        }),
        9 => taken(bytes, |_: v1::GetTenantRequest| {}),
        10 => taken(bytes, put_message),
        _ => taken(bytes, |asked: v1::BatchPutMessagesRequest| {
            asked.requests.into_iter().for_each(put_message);
        }),
    }
}

fn put_recording(bytes: Bytes) {
    use v1::put_recording_request::Payload;
    taken(bytes, |message: v1::PutRecordingRequest| match message.payload {
        Some(Payload::Spec(spec)) => {
            let (Ok(tenant), Some(caller)) = (spec.tenant_id.parse(), uploader()) else {
                return;
            };
            let _ = convert::put_spec(&spec, tenant, &caller);
        }
        Some(Payload::Closing(closing)) => {
            let _ = convert::closing(&closing, Timestamp(0));
        }
        Some(Payload::Chunk(_)) | None => {}
    });
}

fn put_message(message: v1::PutMessageRequest) {
    if let Some(caller) = uploader() {
        let _ = convert::message_spec(message, &caller);
    }
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
