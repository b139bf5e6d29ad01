//! Uploads that are written in many calls, as callers see them.

use std::time::Duration;

use callvault::{
    client::{ClientError, Content},
    domain::principal::Role,
    proto::v1::{
        AbortUploadRequest, BeginUploadRequest, CommitUploadRequest, GetUploadRequest, OnAbandon,
        PutRecordingClosing, Record, Upload, UploadState, WriteUploadHeader, WriteUploadRequest,
        record_service_client::RecordServiceClient, write_upload_request::Payload,
    },
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, transport::Channel};
use tonic_types::StatusExt;

use crate::harness::*;

/// An uploader's connection, and the calls by hand.
struct Uploader(RecordServiceClient<Channel>);

impl Uploader {
    async fn new(world: &World) -> Self {
        Self(RecordServiceClient::new(
            world.client(Role::Uploader).await.channel(),
        ))
    }

    async fn begin(&mut self, request_id: &str) -> Result<Upload, ClientError> {
        let request = BeginUploadRequest {
            tenant_id: TENANT.to_owned(),
            descriptor: Some(descriptor()),
            request_id: request_id.to_owned(),
            on_abandon: OnAbandon::Discard.into(),
        };
        Ok(self.0.begin_upload(request).await?.into_inner().upload.unwrap())
    }

    async fn write(&mut self, payloads: Vec<Payload>) -> Result<Upload, tonic::Status> {
        let messages = payloads.into_iter().map(|payload| WriteUploadRequest {
            payload: Some(payload),
        });
        let messages: Vec<_> = messages.collect();
        let answer = self.0.write_upload(futures_util::stream::iter(messages)).await?;
        Ok(answer.into_inner().upload.unwrap())
    }

    async fn send(&mut self, upload: &Upload, offset: usize, bytes: &[u8]) -> Upload {
        let chunks = bytes.chunks(300_000).map(chunk);
        let payloads = std::iter::once(header(upload, offset)).chain(chunks);
        self.write(payloads.collect()).await.unwrap()
    }

    async fn get(&mut self, tenant: &str, upload: &str) -> Result<Upload, ClientError> {
        let request = GetUploadRequest {
            tenant_id: tenant.to_owned(),
            upload_id: upload.to_owned(),
        };
        Ok(self.0.get_upload(request).await?.into_inner().upload.unwrap())
    }

    async fn commit(&mut self, request: CommitUploadRequest) -> Result<Record, ClientError> {
        Ok(self.0.commit_upload(request).await?.into_inner().record.unwrap())
    }

    async fn abort(&mut self, tenant: &str, upload: &str) -> Result<(), ClientError> {
        let request = AbortUploadRequest {
            tenant_id: tenant.to_owned(),
            upload_id: upload.to_owned(),
        };
        self.0.abort_upload(request).await?;
        Ok(())
    }
}

fn header(upload: &Upload, offset: usize) -> Payload {
    Payload::Header(WriteUploadHeader {
        tenant_id: upload.tenant_id.clone(),
        upload_id: upload.upload_id.clone(),
        offset: i64::try_from(offset).unwrap(),
    })
}

fn chunk(bytes: &[u8]) -> Payload {
    Payload::Chunk(bytes.to_vec().into())
}

fn committing(upload: &Upload, size: usize) -> CommitUploadRequest {
    CommitUploadRequest {
        tenant_id: upload.tenant_id.clone(),
        upload_id: upload.upload_id.clone(),
        size_bytes: i64::try_from(size).unwrap(),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_is_begun_written_looked_at_and_committed_in_calls_of_its_own() {
    let world = World::start().await;
    let mut uploader = Uploader::new(&world).await;
    let content = content(9 * MIB + 17);
    let upload = uploader.begin("request-1").await.unwrap();
    assert_eq!(upload.state(), UploadState::Open);
    assert_eq!(upload.durable_offset, 0);
    let life = upload.expire_time.unwrap().seconds - upload.create_time.unwrap().seconds;
    assert_eq!(life, 7 * 24 * 3_600);
    let half = uploader.send(&upload, 0, &content[..5 * MIB]).await;
    assert_eq!(half.durable_offset, 5 * MIB as i64);
    let again = uploader.begin("request-1").await.unwrap();
    assert_eq!(again, half);
    uploader.send(&upload, 5 * MIB, &content[5 * MIB..]).await;
    let mut request = committing(&upload, content.len());
    request.expected_crc32c = Some(crc32c::crc32c(&content));
    request.closing = Some(PutRecordingClosing {
        end_time: Some(at(1_700_000_060)),
        ..Default::default()
    });
    let record = uploader.commit(request.clone()).await.unwrap();
    assert_eq!(record.record_id, upload.upload_id);
    assert_eq!(record.descriptor.as_ref().unwrap().duration.unwrap().seconds, 60);
    assert_eq!(uploader.commit(request).await.unwrap(), record);
    let over = uploader.get(TENANT, &upload.upload_id).await.unwrap();
    assert_eq!(over.state(), UploadState::Committed);
    // Whoever looks at an upload need not be who said what it is about; whoever begins it again has said it again.
    let undescribed = Record {
        descriptor: None,
        ..record.clone()
    };
    assert_eq!(over.record, Some(undescribed));
    assert_eq!(
        uploader.begin("request-1").await.unwrap().record.as_ref(),
        Some(&record)
    );

    let reader = world.client(Role::Reader).await;
    let mut download = reader
        .read_recording(TENANT, &record.record_id, 0, 0)
        .await
        .unwrap();
    let mut got = Vec::new();
    while let Some(bytes) = download.next().await.unwrap() {
        got.extend_from_slice(&bytes);
    }
    assert!(got == content);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_caller_may_not_know_of_uploads_is_one_answer() {
    let plan = Plan {
        identities: scoped(Role::Uploader, &[OTHER]),
        ..Plan::default()
    };
    let world = World::start_with(plan).await;
    let id: callvault::domain::ids::TenantId = TENANT.parse().unwrap();
    let spec = callvault::vault::BeginSpec {
        tenant: id,
        actor: "x".into(),
        draft: draft(),
        request: None,
        keep: false,
    };
    let theirs = world.vault.begin_upload(spec).await.unwrap().id.to_string();
    let never = "01890a5d-ac96-774b-bcce-b302099a8057";
    let mut uploader = Uploader::new(&world).await;
    for (tenant, upload) in [
        (TENANT, &*theirs),
        (TENANT, never),
        (OTHER, &*theirs),
        (OTHER, never),
    ] {
        let named = Upload {
            tenant_id: tenant.to_owned(),
            upload_id: upload.to_owned(),
            ..Default::default()
        };
        let mut answers = vec![
            uploader.get(tenant, upload).await.unwrap_err(),
            uploader.abort(tenant, upload).await.unwrap_err(),
            uploader.commit(committing(&named, 5)).await.unwrap_err(),
            uploader.write(vec![header(&named, 0)]).await.unwrap_err().into(),
        ];
        let first = answers.remove(0).to_string();
        assert!(first.contains("reason=NOT_FOUND"), "{first}");
        for answer in answers {
            assert_eq!(answer.to_string(), first, "{tenant} {upload}");
        }
    }
    for role in [Role::Reader, Role::TenantAdmin, Role::Auditor] {
        let mut other = Uploader(RecordServiceClient::new(world.client(role).await.channel()));
        let denied = other.get(TENANT, &theirs).await;
        assert_eq!(why(denied), is("ROLE_DENIED", ""), "{role}");
        assert_eq!(why(other.begin("").await), is("ROLE_DENIED", ""), "{role}");
    }
}

fn draft() -> callvault::vault::Draft {
    let descriptor = callvault::domain::record::Descriptor {
        conversation_id: "c".parse().unwrap(),
        channel: callvault::domain::purpose::Channel::Voice,
        direction: None,
        start: Default::default(),
        duration_millis: None,
        parties: vec![],
        media_type: "audio/wav".parse().unwrap(),
        languages: vec![],
        labels: Default::default(),
        data_categories: Default::default(),
        allowed_purposes: Default::default(),
        legal_basis: None,
        notice_version: None,
        consent_ref: None,
        source: None,
        retention_class: "standard".parse().unwrap(),
        age_flag: None,
        jurisdictions: vec![],
        external_id: None,
        derived_from: None,
        incomplete: false,
    };
    callvault::vault::Draft {
        descriptor,
        has_media_type: true,
        has_retention_class: true,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_calls_of_an_upload_name_their_field_and_leave_it_open() {
    let world = World::start().await;
    let mut uploader = Uploader::new(&world).await;
    let upload = uploader.begin("").await.unwrap();
    uploader.send(&upload, 0, b"hello").await;
    let order = is("UPLOAD_ORDER", "");
    for wrong in [
        vec![],
        vec![chunk(b"a")],
        vec![header(&upload, 5), header(&upload, 5)],
    ] {
        assert_eq!(why(uploader.write(wrong).await.map_err(Into::into)), order);
    }
    let empty = uploader.write(vec![header(&upload, 5), chunk(b"")]).await;
    assert_eq!(why(empty.map_err(Into::into)), is("INVALID_FIELD", "chunk"));
    let Payload::Header(mut negative) = header(&upload, 5) else {
        unreachable!()
    };
    negative.offset = -1;
    let negative = uploader.write(vec![Payload::Header(negative)]).await;
    assert_eq!(
        why(negative.map_err(Into::into)),
        is("INVALID_FIELD", "header.offset")
    );
    let beyond = uploader.write(vec![header(&upload, 6)]).await.unwrap_err();
    assert_eq!(beyond.code(), Code::FailedPrecondition);
    let details = beyond.get_error_details();
    let info = details.error_info().unwrap();
    assert_eq!(info.reason, "UPLOAD_OFFSET");
    assert_eq!(info.metadata["durable_offset"], "5");
    assert_eq!(info.metadata["received_offset"], "5");
    for (size, reason, field) in [
        (0, "INVALID_FIELD", "size_bytes"),
        (6, "UPLOAD_INCOMPLETE", ""),
        (4, "UPLOAD_INCOMPLETE", ""),
    ] {
        let refused = uploader.commit(committing(&upload, size)).await;
        assert_eq!(why(refused), is(reason, field));
    }
    let mut early = committing(&upload, 5);
    early.closing = Some(PutRecordingClosing {
        end_time: Some(at(1)),
        ..Default::default()
    });
    assert_eq!(
        why(uploader.commit(early).await),
        is("INVALID_FIELD", "closing.end_time")
    );
    let bad = uploader.get(TENANT, "x").await;
    assert_eq!(why(bad), is("INVALID_FIELD", "upload_id"));
    uploader.commit(committing(&upload, 5)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_hangs_is_taken_over_from() {
    let world = World::start().await;
    let mut uploader = Uploader::new(&world).await;
    let upload = uploader.begin("").await.unwrap();
    let (messages, sent) = mpsc::channel(4);
    for payload in [header(&upload, 0), chunk(&[1; 1_000])] {
        let message = WriteUploadRequest {
            payload: Some(payload),
        };
        messages.send(message).await.unwrap();
    }
    let mut hanging = Uploader::new(&world).await;
    let hanging = tokio::spawn(async move { hanging.0.write_upload(ReceiverStream::new(sent)).await });
    while uploader
        .get(TENANT, &upload.upload_id)
        .await
        .unwrap()
        .received_offset
        < 1_000
    {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    uploader.send(&upload, 1_000, &[2; 1_000]).await;
    let ended = tokio::time::timeout(Duration::from_secs(10), hanging).await;
    let status = ended.unwrap().unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Aborted);
    assert_eq!(
        status.get_error_details().error_info().unwrap().reason,
        "UPLOAD_TAKEN_OVER"
    );
    drop(messages);
    uploader.commit(committing(&upload, 2_000)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aborted_upload_frees_its_names() {
    let world = World::start().await;
    let mut uploader = Uploader::new(&world).await;
    let upload = uploader.begin("request-1").await.unwrap();
    uploader.send(&upload, 0, &content(9 * MIB)).await;
    let client = world.client(Role::Uploader).await;
    let mut rival = spec(descriptor());
    rival.request_id = "request-1".to_owned();
    let put = client
        .put_recording(rival.clone(), Content::bytes("content"), None)
        .await;
    assert_eq!(why(put), is("UPLOAD_UNDER_WAY", ""));
    uploader.abort(TENANT, &upload.upload_id).await.unwrap();
    let again = uploader.abort(TENANT, &upload.upload_id).await;
    assert_eq!(why(again), is("NOT_FOUND", ""));
    world.expect_nothing_left().await;
    client
        .put_recording(rival, Content::bytes("content"), None)
        .await
        .unwrap();
    assert_eq!(
        why(uploader.begin("request-1").await),
        is("REQUEST_ID_REUSED", "")
    );
}
