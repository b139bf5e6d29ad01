//! Malformed requests: every field is named, and nothing of them is kept.

use callvault::{client::Content, domain::principal::Role, proto::v1::*};
use prost::Message;
use prost_types::{Duration, Timestamp};
use tonic_types::StatusExt;

use crate::harness::*;

const GET: &str = "/callvault.v1.RecordService/GetRecord";

fn jane() -> Party {
    Party {
        name: "Jane".to_owned(),
        ..Default::default()
    }
}

type Change = fn(&mut Descriptor);

const MALFORMED: &[(Change, &str)] = &[
    (|d| d.conversation_id = String::new(), "conversation_id"),
    (|d| d.conversation_id = "a\u{0}b".to_owned(), "conversation_id"),
    (|d| d.conversation_id = "a".repeat(257), "conversation_id"),
    (|d| d.channel = 0, "channel"),
    (|d| d.start_time = None, "start_time"),
    (
        |d| {
            d.start_time = Some(Timestamp {
                seconds: -62_135_596_801,
                nanos: 0,
            })
        },
        "start_time",
    ),
    (
        |d| {
            d.start_time = Some(Timestamp {
                seconds: 253_402_300_800,
                nanos: 0,
            })
        },
        "start_time",
    ),
    (
        |d| {
            d.start_time = Some(Timestamp {
                seconds: i64::MIN,
                nanos: 0,
            })
        },
        "start_time",
    ),
    (
        |d| {
            d.start_time = Some(Timestamp {
                seconds: 0,
                nanos: -1,
            })
        },
        "start_time",
    ),
    (
        |d| {
            d.start_time = Some(Timestamp {
                seconds: 0,
                nanos: i32::MAX,
            })
        },
        "start_time",
    ),
    (
        |d| {
            d.duration = Some(Duration {
                seconds: -1,
                nanos: 0,
            })
        },
        "duration",
    ),
    (
        |d| {
            d.duration = Some(Duration {
                seconds: 0,
                nanos: -1,
            })
        },
        "duration",
    ),
    (
        |d| {
            d.duration = Some(Duration {
                seconds: i64::MAX,
                nanos: 0,
            })
        },
        "duration",
    ),
    (|d| d.parties = vec![jane(); 65], "parties"),
    (|d| d.parties = vec![jane(), Party::default()], "parties[1]"),
    (
        |d| {
            d.parties = vec![
                jane(),
                Party {
                    tel: "5512345678".to_owned(),
                    ..jane()
                },
            ]
        },
        "parties[1].tel",
    ),
    (
        |d| {
            d.parties = vec![Party {
                mailto: "jane".to_owned(),
                ..jane()
            }]
        },
        "parties[0].mailto",
    ),
    (
        |d| {
            d.parties = vec![Party {
                name: "Jane\r\nX: y".to_owned(),
                ..jane()
            }]
        },
        "parties[0].name",
    ),
    (
        |d| {
            d.parties = vec![Party {
                team: "t".repeat(257),
                ..jane()
            }]
        },
        "parties[0].team",
    ),
    (|d| d.media_type = "audio".to_owned(), "media_type"),
    (
        |d| d.languages = vec!["es-MX".to_owned(), "e".to_owned()],
        "languages[1]",
    ),
    (|d| d.languages = vec!["es".to_owned(); 33], "languages"),
    (
        |d| d.labels = [("Bad".to_owned(), "x".to_owned())].into(),
        "labels",
    ),
    (
        |d| d.labels = [("../../etc".to_owned(), "x".to_owned())].into(),
        "labels",
    ),
    (
        |d| d.labels = [("team".to_owned(), "x\u{1b}[2J".to_owned())].into(),
        "labels.team",
    ),
    (
        |d| d.labels = [("team".to_owned(), "x".repeat(257))].into(),
        "labels.team",
    ),
    (
        |d| d.labels = (0..65).map(|n| (n.to_string(), String::new())).collect(),
        "labels",
    ),
    (|d| d.data_categories = vec![1, 0], "data_categories[1]"),
    (|d| d.allowed_purposes = vec![0], "allowed_purposes[0]"),
    (|d| d.notice_version = " v1".to_owned(), "notice_version"),
    (|d| d.retention_class = "No Such".to_owned(), "retention_class"),
    (|d| d.retention_class = "none".to_owned(), "retention_class"),
    (|d| d.jurisdictions = vec!["mx".to_owned()], "jurisdictions[0]"),
    (|d| d.external_id = "a\n".to_owned(), "external_id"),
    (|d| d.derived_from = "x".to_owned(), "derived_from"),
    (
        |d| d.derived_from = "01890a5d-ac96-774b-bcce-b302099a8057".to_owned(),
        "derived_from",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_malformed_field_of_a_descriptor_is_named() {
    let world = World::start().await;
    let uploader = world.client(Role::Uploader).await;
    for (change, field) in MALFORMED {
        let mut descriptor = descriptor();
        change(&mut descriptor);
        let answer = uploader
            .put_recording(spec(descriptor), Content::bytes("content"), None)
            .await;
        let code = answer.as_ref().unwrap_err().code();
        assert_eq!(code, Some(tonic::Code::InvalidArgument), "{field}");
        assert_eq!(
            why(answer),
            is("INVALID_FIELD", &format!("spec.descriptor.{field}"))
        );
    }
    let mut none = spec(descriptor());
    none.descriptor = None;
    let answer = uploader
        .put_recording(none, Content::bytes("content"), None)
        .await;
    assert_eq!(why(answer), is("INVALID_FIELD", "spec.descriptor"));
    world.expect_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_descriptor_may_be_large_but_not_too_large() {
    let world = World::start().await;
    let uploader = world.client(Role::Uploader).await;
    let mut large = descriptor();
    large.parties = vec![
        Party {
            name: "n".repeat(256),
            team: "t".repeat(256),
            ..jane()
        };
        64
    ];
    let answer = uploader
        .put_recording(spec(large.clone()), Content::bytes("content"), None)
        .await;
    assert_eq!(why(answer).0, "DESCRIPTOR_TOO_LONG");
    large.parties.truncate(40);
    assert!(
        uploader
            .put_recording(spec(large), Content::bytes("content"), None)
            .await
            .is_ok()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_with_anything_unknown_are_refused_by_the_path() {
    let world = World::start().await;
    let reader = world.client(Role::Reader).await;
    let get = GetRecordRequest {
        tenant_id: TENANT.to_owned(),
        name: Some(get_record_request::Name::ExternalId("x".to_owned())),
    };
    let mut unknown = get.encode_to_vec();
    unknown.extend_from_slice(&[0x98, 0x06, 0x01]);
    let status = raw(&reader, GET, unknown, Some(PURPOSE)).await.unwrap_err();
    let details = status.get_error_details();
    assert_eq!(details.error_info().unwrap().reason, "UNKNOWN_FIELD");
    assert_eq!(
        details.bad_request().unwrap().field_violations[0].field,
        "field 99"
    );

    let uploader = world.client(Role::Uploader).await;
    let mut bad = descriptor();
    bad.channel = 99;
    let answer = uploader
        .put_recording(spec(bad), Content::bytes("content"), None)
        .await;
    assert_eq!(why(answer), is("UNKNOWN_ENUM_VALUE", "spec.descriptor.channel"));

    for malformed in [&b"\x0a\x09dev"[..], b"\x0a\x02\xff\xfe", b"\xff\xff\xff\xff\xff"] {
        let status = raw(&reader, GET, malformed, Some(PURPOSE)).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
        assert_eq!(status.get_details_error_info().unwrap().reason, "MALFORMED");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_ranges_are_checked() {
    let world = World::start().await;
    let reader = world.client(Role::Reader).await;
    let read = |record_id: &str, offset, limit| ReadRecordingRequest {
        tenant_id: TENANT.to_owned(),
        record_id: record_id.to_owned(),
        offset,
        limit,
    };
    let id = "01890a5d-ac96-774b-bcce-b302099a8057";
    for (request, field) in [
        (read("", 0, 0), "record_id"),
        (read("../x", 0, 0), "record_id"),
        (read(&id.to_uppercase(), 0, 0), "record_id"),
        (read(id, -1, 0), "offset"),
        (read(id, 0, i64::MIN), "limit"),
    ] {
        let path = "/callvault.v1.RecordService/ReadRecording";
        let status = raw(&reader, path, request.encode_to_vec(), Some(PURPOSE))
            .await
            .unwrap_err();
        assert_eq!(
            status.get_details_bad_request().unwrap().field_violations[0].field,
            field
        );
    }
    let unnamed = GetRecordRequest {
        tenant_id: TENANT.to_owned(),
        name: None,
    };
    let status = raw(&reader, GET, unnamed.encode_to_vec(), Some(PURPOSE))
        .await
        .unwrap_err();
    assert_eq!(
        status.get_details_bad_request().unwrap().field_violations[0].field,
        "record_id"
    );
    let hostile = get_record_request::Name::ExternalId("a\u{0}".to_owned());
    assert_eq!(
        why(reader.get_record(TENANT, hostile).await),
        is("INVALID_FIELD", "external_id")
    );
    for tenant in ["", "Dev", "dev/../other", &"a".repeat(64)] {
        let name = get_record_request::Name::RecordId(id.to_owned());
        assert_eq!(
            why(reader.get_record(tenant, name).await),
            is("INVALID_FIELD", "tenant_id")
        );
    }
}
