//! Messages over the wire: put_message, batch_put_messages, get_message, batch_get_messages.

use callvault::{
    client::{ClientError, Content, Refusal},
    domain::principal::Role,
    proto::v1::{
        BatchGetMessagesRequest, BatchPutMessagesRequest, BatchPutMessagesResponse, Descriptor,
        GetMessageRequest, PutMessageRequest, RecordKind, get_message_result, put_message_result,
        record_service_client::RecordServiceClient,
    },
};
use prost::Message as _;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::harness::*;

const PUT: &str = "/callvault.v1.RecordService/PutMessage";
const BATCH_PUT: &str = "/callvault.v1.RecordService/BatchPutMessages";
const GET: &str = "/callvault.v1.RecordService/GetMessage";
const BATCH_GET: &str = "/callvault.v1.RecordService/BatchGetMessages";
const NOBODY: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

fn message(text: &str) -> PutMessageRequest {
    PutMessageRequest {
        tenant_id: TENANT.to_owned(),
        descriptor: Some(descriptor()),
        request_id: String::new(),
        body: text.as_bytes().to_vec().into(),
    }
}

fn refused(status: Status) -> (Code, String, String) {
    let details = status.get_error_details();
    let info = details.error_info().unwrap();
    let field = info.metadata.get("field").cloned().unwrap_or_default();
    (status.code(), info.reason.clone(), field)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_comes_back_with_its_body() {
    let plan = Plan {
        sled: true,
        ..Plan::default()
    };
    let world = World::start_with(plan).await;
    let (uploader, reader) = (
        world.client(Role::Uploader).await,
        world.client(Role::Reader).await,
    );
    for (body, media_type) in [
        ("¿Quedó resuelto?".as_bytes(), "text/plain;charset=utf-8"),
        (b"\xff\xfb\x90\x64", "audio/mpeg"),
        (b"\x00\xff", "application/octet-stream"),
    ] {
        let mut request = message("");
        request.body = body.into();
        let record = uploader.put_message(request).await.unwrap();
        assert_eq!(record.kind(), RecordKind::Message);
        assert_eq!(record.size_bytes, i64::try_from(body.len()).unwrap());
        assert_eq!(record.descriptor.as_ref().unwrap().media_type, media_type);
        let got = reader.get_message(TENANT, &record.record_id).await.unwrap();
        assert_eq!(got.body, body);
        assert_eq!(got.record.as_ref(), Some(&record));
        // A message is a record like any other.
        let mut download = reader
            .read_recording(TENANT, &record.record_id, 0, 0)
            .await
            .unwrap();
        let mut streamed = Vec::new();
        download.copy_to(&mut streamed).await.unwrap();
        assert_eq!(streamed, body);
    }
    let mut said = message("id,name");
    said.descriptor.as_mut().unwrap().media_type = "text/csv".to_owned();
    let record = uploader.put_message(said).await.unwrap();
    assert_eq!(record.descriptor.unwrap().media_type, "text/csv");
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_messages_are_refused_by_the_field() {
    let world = World::start().await;
    let uploader = world.client(Role::Uploader).await;
    type Case<'a> = (&'a dyn Fn(&mut PutMessageRequest), &'a str, &'a str);
    let cases: [Case<'_>; 8] = [
        (&|m| m.tenant_id = String::new(), "INVALID_FIELD", "tenant_id"),
        (&|m| m.descriptor = None, "INVALID_FIELD", "descriptor"),
        (
            &|m| m.descriptor.as_mut().unwrap().channel = 0,
            "INVALID_FIELD",
            "descriptor.channel",
        ),
        (
            &|m| m.descriptor.as_mut().unwrap().retention_class = "none".to_owned(),
            "INVALID_FIELD",
            "descriptor.retention_class",
        ),
        (
            &|m| m.descriptor.as_mut().unwrap().derived_from = NOBODY.to_owned(),
            "INVALID_FIELD",
            "descriptor.derived_from",
        ),
        (
            &|m| m.request_id = "a\u{0}".to_owned(),
            "INVALID_FIELD",
            "request_id",
        ),
        (&|m| m.body = Default::default(), "CONTENT_EMPTY", "body"),
        (&|m| m.body = vec![7; MIB + 1].into(), "CONTENT_TOO_LONG", "body"),
    ];
    for (change, reason, field) in cases {
        let mut bad = message("text");
        change(&mut bad);
        let status = raw(&uploader, PUT, bad.encode_to_vec(), None).await.unwrap_err();
        assert_eq!(
            refused(status),
            (Code::InvalidArgument, reason.to_owned(), field.to_owned())
        );
    }
    let mut largest = message("");
    largest.body = content(MIB).into();
    assert!(uploader.put_message(largest).await.is_ok());
    let mut hopeless = message("");
    hopeless.body = vec![7; MIB + (300 << 10)].into();
    assert_eq!(
        why(uploader.put_message(hopeless).await),
        is("REQUEST_TOO_LONG", "")
    );
    let mut unknown = message("text").encode_to_vec();
    unknown.extend_from_slice(&[0x98, 0x06, 0x01]);
    let status = raw(&uploader, PUT, unknown, None).await.unwrap_err();
    assert_eq!(refused(status).1, "UNKNOWN_FIELD");
    assert_eq!(world.leftovers().await, (1, 0), "nothing of the others was kept");
}

async fn batch(
    world: &World,
    requests: Vec<PutMessageRequest>,
) -> Result<BatchPutMessagesResponse, ClientError> {
    let client = world.client(Role::Uploader).await;
    let mut service = RecordServiceClient::new(client.channel());
    let request = BatchPutMessagesRequest {
        tenant_id: TENANT.to_owned(),
        requests,
    };
    Ok(service.batch_put_messages(request).await?.into_inner())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_message_of_a_batch_is_answered_for_itself_and_as_it_would_be_alone() {
    let world = World::start().await;
    let mut requests = vec![
        message("one"),
        message("two"),
        message(""),
        message("four"),
        message("five"),
    ];
    requests[0].tenant_id = String::new();
    requests[1].tenant_id = OTHER.to_owned();
    requests[3].descriptor.as_mut().unwrap().parties = vec![Default::default()];
    let results = batch(&world, requests.clone()).await.unwrap().results;
    let uploader = world.client(Role::Uploader).await;
    let mut stored = Vec::new();
    for (n, result) in results.into_iter().enumerate() {
        match result.result.unwrap() {
            put_message_result::Result::Record(record) => {
                assert!([0, 4].contains(&n), "{n}");
                stored.push(record.record_id);
            }
            put_message_result::Result::Error(error) if n == 1 => {
                let status =
                    Status::with_details(Code::from_i32(error.code), "", error.encode_to_vec().into());
                assert_eq!(
                    refused(status),
                    (Code::InvalidArgument, "INVALID_FIELD".into(), "tenant_id".into())
                );
            }
            put_message_result::Result::Error(error) => {
                let mut alone = requests[n].clone();
                alone.tenant_id = TENANT.to_owned();
                let status = raw(&uploader, PUT, alone.encode_to_vec(), None)
                    .await
                    .unwrap_err();
                assert_eq!(error.encode_to_vec(), status.details(), "{n}");
            }
        }
    }
    assert_eq!(
        world.leftovers().await,
        (1, 0),
        "those that were stored share a blob"
    );

    let ids = [&stored[1], "nonsense", NOBODY, &stored[0]].map(str::to_owned);
    let request = BatchGetMessagesRequest {
        tenant_id: TENANT.to_owned(),
        record_ids: ids.to_vec(),
    };
    let reader = world.client(Role::Reader).await;
    let answer = raw(&reader, BATCH_GET, request.encode_to_vec(), Some(PURPOSE))
        .await
        .unwrap();
    let answer = callvault::proto::v1::BatchGetMessagesResponse::decode(answer).unwrap();
    let got: Vec<Result<Vec<u8>, i32>> = answer
        .results
        .into_iter()
        .map(|result| match result.result.unwrap() {
            get_message_result::Result::Message(message) => Ok(message.body.to_vec()),
            get_message_result::Result::Error(error) => Err(error.code),
        })
        .collect();
    let (invalid, not_found) = (Code::InvalidArgument as i32, Code::NotFound as i32);
    assert_eq!(
        got,
        [
            Ok(b"five".to_vec()),
            Err(invalid),
            Err(not_found),
            Ok(b"one".to_vec())
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_has_its_limits() {
    let world = World::start().await;
    let items = is("INVALID_FIELD", "requests");
    assert_eq!(why(batch(&world, vec![]).await), items);
    assert_eq!(why(batch(&world, vec![message("x"); 1_001]).await), items);
    let mut wordy = message("x");
    wordy.descriptor.as_mut().unwrap().labels = (0..60).map(|n| (format!("k{n}"), "v".repeat(250))).collect();
    assert_eq!(
        why(batch(&world, vec![wordy; 140]).await),
        is("BATCH_TOO_LONG", "requests")
    );
    assert_eq!(world.leftovers().await, (0, 0));
    let full = batch(&world, vec![message("x"); 1_000]).await.unwrap();
    assert_eq!(full.results.len(), 1_000);
    let reader = world.client(Role::Reader).await;
    for count in [0, 1_001] {
        let request = BatchGetMessagesRequest {
            tenant_id: TENANT.to_owned(),
            record_ids: vec![NOBODY.to_owned(); count],
        };
        let status = raw(&reader, BATCH_GET, request.encode_to_vec(), Some(PURPOSE))
            .await
            .unwrap_err();
        assert_eq!(refused(status).2, "record_ids");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_for_those_who_may_and_for_a_purpose() {
    let plan = Plan {
        identities: scoped(Role::Reader, &[OTHER]),
        ..Plan::default()
    };
    let world = World::start_with(plan).await;
    let uploader = world.client(Role::Uploader).await;
    let record = uploader.put_message(message("secret")).await.unwrap();
    let get = |tenant: &str, id: &str| GetMessageRequest {
        tenant_id: tenant.to_owned(),
        record_id: id.to_owned(),
    };
    let one = get(TENANT, &record.record_id).encode_to_vec();
    let many = BatchGetMessagesRequest {
        tenant_id: TENANT.to_owned(),
        record_ids: vec![record.record_id.clone()],
    }
    .encode_to_vec();
    let put = message("x").encode_to_vec();
    let batch = BatchPutMessagesRequest {
        tenant_id: TENANT.to_owned(),
        requests: vec![message("x")],
    }
    .encode_to_vec();
    for (role, path, bytes) in [
        (Role::Uploader, GET, &one),
        (Role::Uploader, BATCH_GET, &many),
        (Role::Supervisor, PUT, &put),
        (Role::TenantAdmin, BATCH_PUT, &batch),
    ] {
        let client = world.client(role).await;
        let status = raw(&client, path, bytes.clone(), Some(PURPOSE))
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied, "{role} {path}");
    }
    // Another tenant's message is answered as one that never was.
    let reader = world.client(Role::Reader).await;
    let mut answers = Vec::new();
    for (tenant, id) in [
        (TENANT, record.record_id.as_str()),
        (OTHER, &record.record_id),
        (OTHER, NOBODY),
    ] {
        let status = raw(&reader, GET, get(tenant, id).encode_to_vec(), Some(PURPOSE))
            .await
            .unwrap_err();
        answers.push((
            status.code(),
            status.message().to_owned(),
            status.details().to_vec(),
        ));
    }
    assert_eq!(answers[0].0, Code::NotFound);
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    let supervisor = world.client(Role::Supervisor).await;
    for path in [GET, BATCH_GET] {
        let bytes = if path == GET { &one } else { &many };
        let status = raw(&supervisor, path, bytes.clone(), None).await.unwrap_err();
        assert_eq!(refused(status).1, "PURPOSE_REQUIRED");
    }
    let other = supervisor.for_purpose("DirectMarketing").unwrap();
    assert_eq!(
        why(other.get_message(TENANT, &record.record_id).await).0,
        "PURPOSE_DENIED"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn recordings_are_read_as_recordings() {
    let world = World::start().await;
    let recording = world.put(descriptor(), "RIFF\0\0\0\0WAVEfmt ").await;
    let uploader = world.client(Role::Uploader).await;
    let mut transcript = message("Hola, buenas tardes.");
    transcript.descriptor.as_mut().unwrap().derived_from = recording.record_id.clone();
    let transcript = uploader.put_message(transcript).await.unwrap();
    assert_eq!(transcript.kind(), RecordKind::Artifact);
    let summary = Descriptor {
        derived_from: recording.record_id.clone(),
        ..descriptor()
    };
    let summary = uploader
        .put_recording(spec(summary), Content::bytes("long"), None)
        .await
        .unwrap();
    let reader = world.client(Role::Reader).await;
    let refused = reader.get_message(TENANT, &recording.record_id).await;
    assert_eq!(
        refused.as_ref().unwrap_err().code(),
        Some(Code::FailedPrecondition)
    );
    assert_eq!(why(refused), is("NOT_A_MESSAGE", ""));
    assert_eq!(
        reader.get_message(TENANT, &summary.record_id).await.unwrap().body,
        "long"
    );
    let query = callvault::proto::v1::RecordQuery {
        derived_from: recording.record_id,
        ..Default::default()
    };
    let request = callvault::proto::v1::ListRecordsRequest {
        tenant_id: TENANT.to_owned(),
        query: Some(query),
        ..Default::default()
    };
    let listed = reader.list_records(request).await.unwrap().records;
    assert_eq!(listed.len(), 2);
    assert!(listed.contains(&transcript) && listed.contains(&summary));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_puts_and_gets_any_number_of_messages() {
    let world = World::start().await;
    let (uploader, reader) = (
        world.client(Role::Uploader).await,
        world.client(Role::Reader).await,
    );
    let mut sent: Vec<_> = (0..1_200).map(|n| message(&format!("message {n}"))).collect();
    for large in sent.iter_mut().take(9) {
        large.body = content(MIB).into();
    }
    sent[700].body = Default::default();
    let put = uploader.put_messages(TENANT, sent.clone()).await.unwrap();
    let again = uploader.put_messages(TENANT, sent[..20].to_vec()).await.unwrap();
    assert!(
        again.iter().all(Result::is_ok),
        "each call has request ids of its own"
    );
    let empty: &Refusal = put[700].as_ref().unwrap_err();
    assert_eq!(
        (empty.code, empty.reason.as_str()),
        (Code::InvalidArgument, "CONTENT_EMPTY")
    );
    let ids: Vec<String> = put
        .iter()
        .map(|r| r.as_ref().map(|r| r.record_id.clone()).unwrap_or_default())
        .collect();
    let got = reader.get_messages(TENANT, &ids).await.unwrap();
    assert_eq!(got.len(), 1_200);
    for (n, got) in got.iter().enumerate() {
        match got {
            Ok(got) => assert!(got.body == sent[n].body, "{n}"),
            Err(_) => assert_eq!(n, 700),
        }
    }
}
