//! What a caller may not know it cannot tell from what is not there.

use callvault::{client::Content, domain::principal::Role, proto::v1::*};
use futures_util::StreamExt;
use prost::Message;
use tonic::Status;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use crate::harness::*;

const NOBODY: &str = "nobody";

/// Everything that a caller sees of a refusal.
fn seen(status: &Status) -> (tonic::Code, String, Vec<u8>, String) {
    let mut metadata = status.metadata().clone();
    metadata.remove("date");
    (
        status.code(),
        status.message().to_owned(),
        status.details().to_vec(),
        format!("{metadata:?}"),
    )
}

fn requests(tenant: &str, record_id: &str) -> Vec<(&'static str, Vec<u8>)> {
    let (tenant_id, record_id) = (tenant.to_owned(), record_id.to_owned());
    let name = get_record_request::Name::RecordId(record_id.clone());
    let get = GetRecordRequest {
        tenant_id: tenant_id.clone(),
        name: Some(name),
    };
    let read = ReadRecordingRequest {
        tenant_id: tenant_id.clone(),
        record_id: record_id.clone(),
        ..Default::default()
    };
    let list = ListRecordsRequest {
        tenant_id: tenant_id.clone(),
        ..Default::default()
    };
    let update = UpdateRecordRequest {
        tenant_id,
        record_id,
        descriptor: Some(Descriptor::default()),
        update_mask: Some(prost_types::FieldMask {
            paths: vec!["source".to_owned()],
        }),
        ..Default::default()
    };
    vec![
        ("/callvault.v1.RecordService/GetRecord", get.encode_to_vec()),
        ("/callvault.v1.RecordService/ReadRecording", read.encode_to_vec()),
        ("/callvault.v1.RecordService/ListRecords", list.encode_to_vec()),
        ("/callvault.v1.RecordService/UpdateRecord", update.encode_to_vec()),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn another_tenants_record_is_answered_as_one_that_never_was() {
    let plan = Plan {
        identities: scoped(Role::Supervisor, &[TENANT, NOBODY]),
        ..Plan::default()
    };
    let world = World::start_with(plan).await;
    let uploader = world.client(Role::Uploader).await;
    let mut theirs = spec(descriptor());
    theirs.tenant_id = OTHER.to_owned();
    let theirs = uploader
        .put_recording(theirs, Content::bytes("content"), None)
        .await
        .unwrap();
    let supervisor = world.client(Role::Supervisor).await;
    let absent = "01890a5d-ac96-774b-bcce-b302099a8057";
    // Theirs in their tenant; nothing in their tenant; a tenant that is not, in scope and out of it; theirs in ours.
    let places = [
        (OTHER, theirs.record_id.as_str()),
        (OTHER, absent),
        (NOBODY, absent),
        ("never-was", absent),
    ];
    for call in 0..4 {
        let mut answers = Vec::new();
        for (tenant, record) in places {
            let (path, message) = requests(tenant, record).swap_remove(call);
            answers.push(seen(
                &raw(&supervisor, path, message, Some(PURPOSE)).await.unwrap_err(),
            ));
        }
        if call != 2 {
            for record in [theirs.record_id.as_str(), absent] {
                let (path, message) = requests(TENANT, record).swap_remove(call);
                answers.push(seen(
                    &raw(&supervisor, path, message, Some(PURPOSE)).await.unwrap_err(),
                ));
            }
        }
        assert_eq!(answers[0].0, tonic::Code::NotFound);
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_to_another_tenant_is_answered_as_one_to_nobody() {
    let plan = Plan {
        identities: scoped(Role::Uploader, &[TENANT, NOBODY]),
        ..Plan::default()
    };
    let world = World::start_with(plan).await;
    let uploader = world.client(Role::Uploader).await;
    for tenant in [OTHER, NOBODY, "never-was"] {
        let mut spec = spec(descriptor());
        spec.tenant_id = tenant.to_owned();
        let answer = uploader
            .put_recording(spec, Content::bytes("content"), None)
            .await;
        assert_eq!(why(answer), is("NOT_FOUND", ""), "{tenant}");
    }
    world.expect_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_role_is_refused_alike_whatever_there_is() {
    let world = World::start().await;
    let record = world.put(descriptor(), "content").await;
    let uploader = world.client(Role::Uploader).await;
    for (tenant, record) in [
        (TENANT, record.record_id.as_str()),
        (TENANT, "x"),
        (NOBODY, "x"),
        ("!", ""),
    ] {
        for (path, message) in requests(tenant, record) {
            let status = raw(&uploader, path, message, None).await.unwrap_err();
            assert_eq!(status.code(), tonic::Code::PermissionDenied);
            assert_eq!(status.message(), "none of the caller's roles may make this call");
        }
    }
    let reader = world.client(Role::Reader).await;
    let put = reader
        .put_recording(spec(descriptor()), Content::bytes("content"), None)
        .await;
    assert_eq!(why(put), is("ROLE_DENIED", ""));
    assert_eq!(why(reader.get_tenant(TENANT).await), is("ROLE_DENIED", ""));
    assert_eq!(
        why(uploader.list_tenants(Default::default()).await),
        is("ROLE_DENIED", "")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_role_is_refused_before_any_content_is_sent() {
    let world = World::start().await;
    let reader = world.client(Role::Reader).await;
    let upload = reader.put_recording(
        spec(descriptor()),
        Content::stream(futures_util::stream::pending()),
        None,
    );
    let answer = tokio::time::timeout(std::time::Duration::from_secs(1), upload).await;
    assert_eq!(why(answer.unwrap()), is("ROLE_DENIED", ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_tells_of_the_api_and_of_nothing_else() {
    let world = World::start().await;
    let client = world.client(Role::Reader).await;
    let mut reflection = ServerReflectionClient::new(client.channel());
    let ask = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let asked = futures_util::stream::iter([ask]);
    let mut answers = reflection
        .server_reflection_info(asked)
        .await
        .unwrap()
        .into_inner();
    let answer = answers.next().await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(list) = answer else {
        panic!("{answer:?}");
    };
    let mut names: Vec<_> = list.service.into_iter().map(|s| s.name).collect();
    names.retain(|name| !name.starts_with("grpc.reflection.") && !name.starts_with("grpc.health."));
    names.sort();
    assert_eq!(
        names,
        [
            "callvault.v1.ErasureService",
            "callvault.v1.KeyService",
            "callvault.v1.RecordService",
            "callvault.v1.TenantService"
        ]
    );
    for hidden in [
        "callvault.storage.v1.BlobFooter",
        "callvault.storage.v1.RecordRow",
    ] {
        let ask = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::FileContainingSymbol(hidden.to_owned())),
        };
        let answer = reflection
            .server_reflection_info(futures_util::stream::iter([ask]))
            .await;
        let first = answer.unwrap().into_inner().next().await.unwrap();
        assert_eq!(first.unwrap_err().code(), tonic::Code::NotFound, "{hidden}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_told() {
    let world = World::start().await;
    let client = world.client(Role::Support).await;
    let mut health = HealthClient::new(client.channel());
    let answer = health
        .check(HealthCheckRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.status, 1);
}
