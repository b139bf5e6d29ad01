//! Uploads in as many calls as they take.
//!
//! ```text
//! WriteUpload := header, chunk*, end
//! ```
//!
//! Each of the calls is a part of a `PutRecording`, and asks for the same right. Any principal that may upload for the tenant
//! may go on with an upload that another began: services are replicated.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;
use tonic::{Status, Streaming};

use super::{
    Caller, StreamLimits,
    convert::{self, Path, required},
    gate,
    upload::{checked, explained, too_long, wrong_order},
};
use crate::{
    domain::{
        ids::{RecordId, TenantId},
        principal::Action,
        record::Record,
    },
    proto::v1::{
        AbortUploadRequest, BeginUploadRequest, CommitUploadRequest, GetUploadRequest, WriteUploadHeader,
        WriteUploadRequest, write_upload_request::Payload,
    },
    vault::{CommitSpec, Error, UploadStatus, UploadWriter, Vault},
};

/// The right that every call of a resumable upload needs.
pub(super) const ACTION: Action = Action::PutRecording;
const TENANT: Path<'static> = Path::root("tenant_id");

pub(super) async fn begin(
    vault: &Arc<Vault>,
    caller: &Caller,
    asked: &BeginUploadRequest,
) -> Result<UploadStatus, Error> {
    let tenant = gate::in_scope(caller, ACTION, &asked.tenant_id, &TENANT)?;
    vault
        .begin_upload(convert::begin_spec(asked, tenant, caller)?)
        .await
}

pub(super) async fn get(
    vault: &Arc<Vault>,
    caller: &Caller,
    asked: &GetUploadRequest,
) -> Result<UploadStatus, Error> {
    let (tenant, upload) = named(caller, &asked.tenant_id, &asked.upload_id)?;
    vault.upload(&tenant, &upload).await
}

pub(super) async fn commit(
    vault: &Arc<Vault>,
    caller: &Caller,
    asked: &CommitUploadRequest,
) -> Result<Record, Error> {
    let (tenant, id) = named(caller, &asked.tenant_id, &asked.upload_id)?;
    let start = vault.upload_start(&tenant, &id).await?;
    let closing = match &asked.closing {
        None => crate::vault::Closing::default(),
        Some(closing) => convert::closing(closing, start)?,
    };
    let size = convert::size(asked.size_bytes, &Path::root("size_bytes"))?;
    let spec = CommitSpec {
        tenant,
        id,
        size,
        closing,
        expected_crc: asked.expected_crc32c,
    };
    vault.commit_upload(spec).await
}

pub(super) async fn abort(
    vault: &Arc<Vault>,
    caller: &Caller,
    asked: &AbortUploadRequest,
) -> Result<(), Error> {
    let (tenant, upload) = named(caller, &asked.tenant_id, &asked.upload_id)?;
    vault.abort_upload(&tenant, &upload).await
}

/// Takes content of an upload. Whatever ends this early leaves what arrived.
pub(super) async fn write(
    vault: &Arc<Vault>,
    caller: &Caller,
    messages: Streaming<WriteUploadRequest>,
    limits: StreamLimits,
) -> Result<UploadStatus, Status> {
    timeout(limits.total, write_all(vault, caller, messages, limits.idle))
        .await
        .map_err(|_| too_long("a stream", "UPLOAD_TOO_LONG", limits.total))?
}

async fn write_all(
    vault: &Arc<Vault>,
    caller: &Caller,
    messages: Streaming<WriteUploadRequest>,
    idle: Duration,
) -> Result<UploadStatus, Status> {
    let mut messages = Messages { messages, idle };
    let header = messages.header().await?;
    let at = Path::root("header");
    let tenant = gate::in_scope(caller, ACTION, &header.tenant_id, &at.field("tenant_id"))?;
    let upload: RecordId = required(&header.upload_id, &at.field("upload_id"))?;
    let offset = convert::not_negative(header.offset, &at.field("offset"))?;
    let mut writer = vault.write_upload(&tenant, &upload, offset).await?;
    let ended = messages.content(&mut writer).await;
    match ended {
        Ok(()) => Ok(writer.finish().await?),
        Err(status) => Err(status),
    }
}

fn named(caller: &Caller, tenant: &str, upload: &str) -> Result<(TenantId, RecordId), Error> {
    let tenant = gate::in_scope(caller, ACTION, tenant, &TENANT)?;
    Ok((tenant, required(upload, &Path::root("upload_id"))?))
}

struct Messages {
    messages: Streaming<WriteUploadRequest>,
    idle: Duration,
}

impl Messages {
    async fn header(&mut self) -> Result<WriteUploadHeader, Status> {
        match self.next().await? {
            Some(Payload::Header(header)) => Ok(header),
            Some(Payload::Chunk(_)) | None => Err(wrong_order("the first message must be a header")),
        }
    }

    /// All chunks, until the end or until somebody else goes on with the upload.
    async fn content(&mut self, writer: &mut UploadWriter) -> Result<(), Status> {
        loop {
            let next = tokio::select! {
                biased;
                error = writer.superseded() => return Err(error.into()),
                next = self.next() => next?,
            };
            match next {
                Some(Payload::Chunk(chunk)) => writer.write(checked(chunk)?).await?,
                Some(Payload::Header(_)) => return Err(wrong_order("a stream has one header")),
                None => return Ok(()),
            }
        }
    }

    async fn next(&mut self) -> Result<Option<Payload>, Status> {
        let message = timeout(self.idle, self.messages.message())
            .await
            .map_err(|_| too_long("a message", "UPLOAD_IDLE", self.idle))?
            .map_err(explained)?;
        match message {
            None => Ok(None),
            Some(WriteUploadRequest {
                payload: Some(payload),
            }) => Ok(Some(payload)),
            Some(WriteUploadRequest { payload: None }) => {
                Err(wrong_order("a message must be a header or a chunk"))
            }
        }
    }
}
