//! A second call: its server is killed in the middle, and the upload goes on.

use std::path::Path;

use bytes::Bytes;
use futures_util::stream;

use super::{
    process::Process,
    steps::{Steps, must},
    story::{Callers, read},
};
use crate::{
    app::DEV_TENANT,
    cli::{CliError, terminal},
    client::ClientError,
    proto::v1::{
        BeginUploadRequest, CommitUploadRequest, Descriptor, GetUploadRequest, Record, Upload,
        WriteUploadHeader, WriteUploadRequest, record_service_client::RecordServiceClient,
        write_upload_request::Payload,
    },
};

/// Content of one message.
const CHUNK: usize = 64 << 10;

/// Sends half of `call`, kills the server, starts it again and sends what it does not have.
pub(super) async fn tell(
    data: &Path,
    call: &Bytes,
    descriptor: Descriptor,
    steps: &mut Steps,
) -> Result<Record, CliError> {
    let server = Process::start(data).await?;
    let callers = Callers::at(data).await?;
    let mut calls = RecordServiceClient::new(callers.uploader.channel());
    let begin = BeginUploadRequest {
        tenant_id: DEV_TENANT.to_owned(),
        descriptor: Some(descriptor),
        ..BeginUploadRequest::default()
    };
    let begun = calls.begin_upload(begin).await.map_err(ClientError::from)?;
    let upload = known(begun.into_inner().upload)?;
    let half = call.len() / 2;
    let written = calls
        .write_upload(stream::iter(messages(&upload, &call.slice(..half))))
        .await
        .map_err(ClientError::from)?;
    let promised = known(written.into_inner().upload)?.durable_offset;
    server.kill()?;
    let detail = format!(
        "{} were durable",
        terminal::bytes(u64::try_from(promised).unwrap_or(0))
    );
    steps.done("half of a second call is sent, and the server killed", &detail)?;

    let server = Process::start(data).await?;
    let callers = Callers::at(data).await?;
    let mut calls = RecordServiceClient::new(callers.uploader.channel());
    let ask = GetUploadRequest {
        tenant_id: DEV_TENANT.to_owned(),
        upload_id: upload.upload_id,
    };
    let found = calls.get_upload(ask).await.map_err(ClientError::from)?;
    let upload = known(found.into_inner().upload)?;
    must(upload.durable_offset >= promised, "what was durable is gone")?;
    let from = usize::try_from(upload.received_offset).unwrap_or(usize::MAX);
    must(from <= call.len(), "the server has more than was sent")?;
    calls
        .write_upload(stream::iter(messages(&upload, &call.slice(from..))))
        .await
        .map_err(ClientError::from)?;
    let commit = CommitUploadRequest {
        tenant_id: DEV_TENANT.to_owned(),
        upload_id: upload.upload_id,
        size_bytes: i64::try_from(call.len()).unwrap_or(i64::MAX),
        expected_crc32c: Some(crc32c::crc32c(call)),
        ..CommitUploadRequest::default()
    };
    let committed = calls.commit_upload(commit).await.map_err(ClientError::from)?;
    let record = committed.into_inner().record;
    let record = record.ok_or_else(|| CliError::failed("a commit without a record"))?;
    must(
        read(&callers.reader, &record, 0, 0).await? == *call,
        "the second call came back changed",
    )?;
    let detail = format!("from byte {from}");
    steps.done("a new server goes on with it: equal, byte for byte", &detail)?;
    drop(callers);
    server.stop().await?;
    Ok(record)
}

fn known(upload: Option<Upload>) -> Result<Upload, CliError> {
    upload.ok_or_else(|| CliError::failed("an answer without an upload"))
}

/// A header, then content from where the server is.
fn messages(upload: &Upload, content: &Bytes) -> Vec<WriteUploadRequest> {
    let header = Payload::Header(WriteUploadHeader {
        tenant_id: DEV_TENANT.to_owned(),
        upload_id: upload.upload_id.clone(),
        offset: upload.received_offset,
    });
    let chunks = (0..content.len()).step_by(CHUNK);
    let chunks = chunks.map(|at| Payload::Chunk(content.slice(at..content.len().min(at + CHUNK))));
    std::iter::once(header)
        .chain(chunks)
        .map(|payload| WriteUploadRequest {
            payload: Some(payload),
        })
        .collect()
}
