use std::collections::HashMap;

use prost::{Message, Name};

use super::*;
use crate::proto::v1::{
    Descriptor, ListRecordsRequest, Party, PutRecordingRequest, PutRecordingSpec, RecordQuery,
    put_recording_request::Payload,
};

fn check<M: Message + Name>(bytes: &[u8]) -> Result<(), Refused> {
    let schema = Schema::api();
    schema.check(schema.index(&M::full_name()).unwrap(), bytes)
}

fn put_with(descriptor: Descriptor) -> Vec<u8> {
    let spec = PutRecordingSpec {
        descriptor: Some(descriptor),
        ..Default::default()
    };
    PutRecordingRequest {
        payload: Some(Payload::Spec(spec)),
    }
    .encode_to_vec()
}

/// A length-delimited field.
fn field(number: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | LENGTH];
    prost::encoding::encode_varint(body.len() as u64, &mut out);
    out.extend_from_slice(body);
    out
}

/// Field 99 as a varint.
const UNKNOWN: &[u8] = &[0x98, 0x06, 0x01];

#[test]
fn all_that_the_api_can_say_passes() {
    let descriptor = Descriptor {
        conversation_id: "c".into(),
        channel: 1,
        start_time: Some(prost_types::Timestamp {
            seconds: -1,
            nanos: 5,
        }),
        duration: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
        parties: vec![Party {
            tel: "+1".into(),
            role: 2,
            ..Default::default()
        }],
        labels: HashMap::from([("a".into(), "b".into()), ("c".into(), String::new())]),
        allowed_purposes: vec![1, 2, 11],
        languages: vec!["en".into(), "es".into()],
        ..Default::default()
    };
    assert_eq!(check::<PutRecordingRequest>(&put_with(descriptor)), Ok(()));
    let query = RecordQuery {
        kinds: vec![1, 3],
        ..Default::default()
    };
    let list = ListRecordsRequest {
        query: Some(query),
        page_size: -1,
        ..Default::default()
    };
    assert_eq!(check::<ListRecordsRequest>(&list.encode_to_vec()), Ok(()));
    assert_eq!(check::<ListRecordsRequest>(&[]), Ok(()));
}

#[test]
fn an_unknown_field_is_named_by_its_path() {
    let refused = |bytes: &[u8]| match check::<PutRecordingRequest>(bytes) {
        Err(Refused::UnknownField(path)) => path,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(UNKNOWN), "field 99");
    assert_eq!(refused(&field(1, &field(2, UNKNOWN))), "spec.descriptor.field 99");
    let parties = [field(6, b""), field(8, b"en"), field(6, b""), field(6, UNKNOWN)].concat();
    assert_eq!(
        refused(&field(1, &field(2, &parties))),
        "spec.descriptor.parties[2].field 99"
    );
    assert_eq!(
        refused(&field(1, &field(2, &field(9, UNKNOWN)))),
        "spec.descriptor.labels.field 99"
    );
    assert_eq!(
        refused(&field(1, &field(2, &field(4, UNKNOWN)))),
        "spec.descriptor.start_time.field 99"
    );
}

#[test]
fn an_unknown_enum_number_is_named_by_its_path() {
    let refused = |descriptor| match check::<PutRecordingRequest>(&put_with(descriptor)) {
        Err(Refused::UnknownEnumValue(path)) => path,
        other => panic!("{other:?}"),
    };
    let channel = |channel| Descriptor {
        channel,
        ..Default::default()
    };
    assert_eq!(refused(channel(99)), "spec.descriptor.channel");
    assert_eq!(refused(channel(-1)), "spec.descriptor.channel");
    let purposes = Descriptor {
        allowed_purposes: vec![1, 77],
        ..Default::default()
    };
    assert_eq!(refused(purposes), "spec.descriptor.allowed_purposes");
    let party = Party {
        role: 9,
        ..Default::default()
    };
    let parties = Descriptor {
        parties: vec![Party::default(), party],
        ..Default::default()
    };
    assert_eq!(refused(parties), "spec.descriptor.parties[1].role");
    let unpacked = [11 << 3, 1, 11 << 3, 78];
    let bytes = field(1, &field(2, &unpacked));
    let path = "spec.descriptor.allowed_purposes".to_owned();
    assert_eq!(
        check::<PutRecordingRequest>(&bytes),
        Err(Refused::UnknownEnumValue(path))
    );
}

#[test]
fn what_is_not_protobuf_is_malformed() {
    for bad in [
        &[0x00][..],         // field 0
        &[0x0a, 0x05, 0x01], // shorter than it says
        &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
        &[0x80],             // half a varint
        &[0x08, 0x01],       // a message as a varint
        &[0x13],             // a group
        &[0x15, 0, 0, 0, 0], // bytes as fixed32
    ] {
        assert_eq!(
            check::<PutRecordingRequest>(bad),
            Err(Refused::Malformed),
            "{bad:02x?}"
        );
    }
}

#[test]
fn nesting_is_bounded_even_if_a_type_were_recursive() {
    let inner = Field {
        number: 1,
        name: "a".into(),
        repeated: false,
        wire: LENGTH,
        value: Value::Message(0),
    };
    let recursive = Schema {
        shapes: vec![Shape { fields: vec![inner] }],
        by_name: HashMap::new(),
    };
    let nested = |depth| (0..depth).fold(Vec::new(), |body: Vec<u8>, _| field(1, &body));
    assert_eq!(recursive.check(0, &nested(DEPTH - 1)), Ok(()));
    assert_eq!(recursive.check(0, &nested(DEPTH)), Err(Refused::Malformed));
}

proptest::proptest! {
    /// Whatever the walk lets pass, prost decodes or refuses; neither ever panics.
    #[test]
    fn any_bytes_are_answered(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        if check::<PutRecordingRequest>(&bytes).is_ok() {
            let _ = PutRecordingRequest::decode(bytes.as_slice());
        }
    }
}
