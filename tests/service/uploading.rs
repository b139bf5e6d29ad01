//! Uploads that are whole, and uploads that are not.

use callvault::{
    client::Content,
    domain::principal::Role,
    proto::v1::{
        Party, PutRecordingClosing, PutRecordingRequest, PutRecordingResponse, PutRecordingSpec,
        put_recording_request::Payload, record_service_client::RecordServiceClient,
    },
};
use prost_types::Duration;
use ring::digest::{SHA256, digest};
use tonic::Code;

use crate::harness::*;

/// A change of a spec, the reason that it is refused for, and the field at fault.
type Case<'a> = (&'a dyn Fn(&mut PutRecordingSpec), &'a str, &'a str);

/// Sends these payloads as they are.
async fn send(
    world: &World,
    payloads: Vec<Payload>,
) -> Result<PutRecordingResponse, callvault::client::ClientError> {
    let client = world.client(Role::Uploader).await;
    let requests = payloads.into_iter().map(|payload| PutRecordingRequest {
        payload: Some(payload),
    });
    let requests: Vec<_> = requests.collect();
    let mut service = RecordServiceClient::new(client.channel());
    let answer = service
        .put_recording(futures_util::stream::iter(requests))
        .await?;
    Ok(answer.into_inner())
}

fn chunk(text: &'static str) -> Payload {
    Payload::Chunk(text.as_bytes().into())
}

fn begin() -> Payload {
    Payload::Spec(spec(descriptor()))
}

fn closing() -> Payload {
    Payload::Closing(PutRecordingClosing::default())
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_in_another_order_are_refused_and_leave_nothing() {
    let world = World::start().await;
    let order = is("UPLOAD_ORDER", "");
    for wrong in [
        vec![],
        vec![chunk("a"), begin()],
        vec![closing()],
        vec![begin(), begin()],
        vec![begin(), chunk("a"), begin()],
        vec![begin(), chunk("a"), closing(), closing()],
        vec![begin(), chunk("a"), closing(), chunk("b")],
    ] {
        let label = format!("{wrong:?}");
        assert_eq!(why(send(&world, wrong).await), order, "{label}");
    }
    let client = world.client(Role::Uploader).await;
    let mut service = RecordServiceClient::new(client.channel());
    let nothing = futures_util::stream::iter([PutRecordingRequest { payload: None }]);
    let answer = service.put_recording(nothing).await.map_err(Into::into);
    assert_eq!(why(answer), order);
    world.expect_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_content_and_empty_chunks_are_refused() {
    let world = World::start().await;
    for empty in [vec![begin()], vec![begin(), closing()]] {
        assert_eq!(why(send(&world, empty).await), is("CONTENT_EMPTY", "chunk"));
    }
    let answer = send(&world, vec![begin(), chunk("a"), chunk("")]).await;
    assert_eq!(why(answer), is("INVALID_FIELD", "chunk"));
    world.expect_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_is_at_most_four_mebibytes() {
    let world = World::start().await;
    let largest = Payload::Chunk(content(4 * MIB).into());
    assert!(send(&world, vec![begin(), largest]).await.is_ok());
    for more in [4 * MIB + 1, 4 * MIB + 1000] {
        let answer = send(&world, vec![begin(), Payload::Chunk(content(more).into())]).await;
        assert_eq!(answer.as_ref().unwrap_err().code(), Some(Code::InvalidArgument));
        assert_eq!(why(answer), is("CHUNK_TOO_LONG", "chunk"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_expected_is_checked() {
    let world = World::start().await;
    let put = |change: &dyn Fn(&mut PutRecordingSpec)| {
        let mut spec = spec(descriptor());
        change(&mut spec);
        send(&world, vec![Payload::Spec(spec), chunk("con"), chunk("tent")])
    };
    let sha256 = digest(&SHA256, b"content");
    let right = put(&|spec| {
        spec.expected_size_bytes = Some(7);
        spec.expected_sha256 = sha256.as_ref().to_vec().into();
    });
    assert!(right.await.is_ok());
    let cases: [Case<'_>; 7] = [
        (
            &|s| s.expected_size_bytes = Some(8),
            "SIZE_MISMATCH",
            "spec.expected_size_bytes",
        ),
        (&|s| s.expected_size_bytes = Some(6), "CONTENT_TOO_LONG", "chunk"),
        (
            &|s| s.expected_size_bytes = Some(0),
            "INVALID_FIELD",
            "spec.expected_size_bytes",
        ),
        (
            &|s| s.expected_size_bytes = Some(-1),
            "INVALID_FIELD",
            "spec.expected_size_bytes",
        ),
        (
            &|s| s.expected_size_bytes = Some(i64::MAX),
            "INVALID_FIELD",
            "spec.expected_size_bytes",
        ),
        (
            &|s| s.expected_sha256 = vec![7; 32].into(),
            "SHA256_MISMATCH",
            "spec.expected_sha256",
        ),
        (
            &|s| s.expected_sha256 = vec![7; 31].into(),
            "INVALID_FIELD",
            "spec.expected_sha256",
        ),
    ];
    for (change, reason, field) in cases {
        assert_eq!(why(put(change).await), is(reason, field));
    }
    assert_eq!(world.leftovers().await, (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closing_says_what_was_known_only_at_the_end() {
    let world = World::start().await;
    let uploader = world.client(Role::Uploader).await;
    let put = |closing: PutRecordingClosing| {
        let mut descriptor = descriptor();
        descriptor.duration = Some(Duration { seconds: 1, nanos: 0 });
        uploader.put_recording(spec(descriptor), Content::bytes("content"), Some(closing))
    };
    let end = put(PutRecordingClosing {
        end_time: Some(prost_types::Timestamp {
            seconds: 1_700_000_060,
            nanos: 500_000_000,
        }),
        parties: vec![Party {
            tel: "+52 55 1234 5678".to_owned(),
            ..Default::default()
        }],
        ..Default::default()
    });
    let descriptor = end.await.unwrap().descriptor.unwrap();
    assert_eq!(
        descriptor.duration,
        Some(Duration {
            seconds: 60,
            nanos: 500_000_000
        })
    );
    assert_eq!(descriptor.parties[0].tel, "+525512345678");
    let kept = put(PutRecordingClosing::default())
        .await
        .unwrap()
        .descriptor
        .unwrap();
    assert_eq!(kept.duration, Some(Duration { seconds: 1, nanos: 0 }));

    let both = PutRecordingClosing {
        duration: Some(Duration { seconds: 1, nanos: 0 }),
        end_time: Some(at(1_700_000_060)),
        ..Default::default()
    };
    let before = PutRecordingClosing {
        end_time: Some(at(1)),
        ..Default::default()
    };
    let negative = PutRecordingClosing {
        duration: Some(Duration {
            seconds: 0,
            nanos: -1,
        }),
        ..Default::default()
    };
    let party = PutRecordingClosing {
        parties: vec![Party {
            tel: "1".to_owned(),
            ..Default::default()
        }],
        ..Default::default()
    };
    for (closing, field) in [
        (both, "closing.end_time"),
        (before, "closing.end_time"),
        (negative, "closing.duration"),
        (party, "closing.parties[0].tel"),
    ] {
        assert_eq!(why(put(closing).await), is("INVALID_FIELD", field));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_request_finds_its_record_and_other_content_is_refused() {
    let world = World::start().await;
    let uploader = world.client(Role::Uploader).await;
    let mut first = spec(descriptor());
    first.request_id = "request-1".to_owned();
    let put =
        |spec: PutRecordingSpec, text: &'static str| uploader.put_recording(spec, Content::bytes(text), None);
    let record = put(first.clone(), "content").await.unwrap();
    assert_eq!(put(first.clone(), "content").await.unwrap(), record);
    let reused = is("REQUEST_ID_REUSED", "");
    assert_eq!(why(put(first.clone(), "other").await), reused);
    let mut other = first.clone();
    other.descriptor.as_mut().unwrap().source = "elsewhere".to_owned();
    assert_eq!(why(put(other, "content").await), reused);
    assert_eq!(world.leftovers().await, (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_external_id_is_taken_once() {
    let world = World::start().await;
    let mut descriptor = descriptor();
    descriptor.external_id = "call-1".to_owned();
    world.put(descriptor.clone(), "content").await;
    let uploader = world.client(Role::Uploader).await;
    let again = uploader
        .put_recording(spec(descriptor), Content::bytes("content"), None)
        .await;
    assert_eq!(again.as_ref().unwrap_err().code(), Some(Code::AlreadyExists));
    assert_eq!(
        why(again),
        is("EXTERNAL_ID_EXISTS", "spec.descriptor.external_id")
    );
}
