//! `RecordService`: upload, fetch, find and correct records.

use std::{pin::Pin, sync::Arc};

use futures_util::Stream;
use tonic::{Request, Response, Status, Streaming};

use super::{
    StreamLimits, convert,
    convert::{Path, optional, required},
    download, gate, message, required_purpose, resumable, upload,
};
use crate::{
    domain::principal::Action,
    proto::v1::{
        AbortUploadRequest, AbortUploadResponse, BatchGetMessagesRequest, BatchGetMessagesResponse,
        BatchPutMessagesRequest, BatchPutMessagesResponse, BeginUploadRequest, BeginUploadResponse,
        CommitUploadRequest, CommitUploadResponse, GetMessageRequest, GetMessageResponse, GetRecordRequest,
        GetRecordResponse, GetUploadRequest, GetUploadResponse, ListRecordsRequest, ListRecordsResponse,
        PutMessageRequest, PutMessageResponse, PutRecordingRequest, PutRecordingResponse,
        ReadRecordingRequest, ReadRecordingResponse, UpdateRecordRequest, UpdateRecordResponse,
        WriteUploadRequest, WriteUploadResponse, get_record_request, record_service_server::RecordService,
    },
    vault::{ContentRange, Error, Name, UpdateSpec, Vault},
};

const TENANT: Path<'static> = Path::root("tenant_id");

/// The service over one vault.
#[derive(Clone, Debug)]
pub(super) struct RecordApi {
    vault: Arc<Vault>,
    limits: StreamLimits,
}

impl RecordApi {
    /// Serves this vault.
    pub(super) fn new(vault: Arc<Vault>, limits: StreamLimits) -> Self {
        Self { vault, limits }
    }
}

#[tonic::async_trait]
impl RecordService for RecordApi {
    type ReadRecordingStream = Pin<Box<dyn Stream<Item = Result<ReadRecordingResponse, Status>> + Send>>;

    async fn put_recording(
        &self,
        request: Request<Streaming<PutRecordingRequest>>,
    ) -> Result<Response<PutRecordingResponse>, Status> {
        let caller = gate::may_call(&request, Action::PutRecording)?;
        let record = upload::receive(&self.vault, &caller, request.into_inner(), self.limits).await?;
        Ok(Response::new(PutRecordingResponse {
            record: Some(convert::written_to_proto(&record)),
        }))
    }

    async fn begin_upload(
        &self,
        request: Request<BeginUploadRequest>,
    ) -> Result<Response<BeginUploadResponse>, Status> {
        let caller = gate::may_call(&request, resumable::ACTION)?;
        let status = resumable::begin(&self.vault, &caller, request.get_ref()).await?;
        let upload = Some(convert::upload_to_proto(&status));
        Ok(Response::new(BeginUploadResponse { upload }))
    }

    async fn write_upload(
        &self,
        request: Request<Streaming<WriteUploadRequest>>,
    ) -> Result<Response<WriteUploadResponse>, Status> {
        let caller = gate::may_call(&request, resumable::ACTION)?;
        let status = resumable::write(&self.vault, &caller, request.into_inner(), self.limits).await?;
        let upload = Some(convert::upload_to_proto(&status));
        Ok(Response::new(WriteUploadResponse { upload }))
    }

    async fn get_upload(
        &self,
        request: Request<GetUploadRequest>,
    ) -> Result<Response<GetUploadResponse>, Status> {
        let caller = gate::may_call(&request, resumable::ACTION)?;
        let status = resumable::get(&self.vault, &caller, request.get_ref()).await?;
        // Whoever looks need not be who has said what it is about.
        let mut upload = convert::upload_to_proto(&status);
        if let Some(record) = &mut upload.record {
            record.descriptor = None;
        }
        let upload = Some(upload);
        Ok(Response::new(GetUploadResponse { upload }))
    }

    async fn commit_upload(
        &self,
        request: Request<CommitUploadRequest>,
    ) -> Result<Response<CommitUploadResponse>, Status> {
        let caller = gate::may_call(&request, resumable::ACTION)?;
        let record = resumable::commit(&self.vault, &caller, request.get_ref()).await?;
        let record = Some(convert::written_to_proto(&record));
        Ok(Response::new(CommitUploadResponse { record }))
    }

    async fn abort_upload(
        &self,
        request: Request<AbortUploadRequest>,
    ) -> Result<Response<AbortUploadResponse>, Status> {
        let caller = gate::may_call(&request, resumable::ACTION)?;
        resumable::abort(&self.vault, &caller, request.get_ref()).await?;
        Ok(Response::new(AbortUploadResponse {}))
    }

    async fn read_recording(
        &self,
        request: Request<ReadRecordingRequest>,
    ) -> Result<Response<Self::ReadRecordingStream>, Status> {
        let caller = gate::may_call(&request, Action::ReadRecording)?;
        let purpose = required_purpose(&request)?;
        let tenant = gate::in_scope_for(
            &caller,
            Action::ReadRecording,
            &request.get_ref().tenant_id,
            &TENANT,
            Some(purpose),
        )?;
        let reason = gate::reason(&caller, Action::ReadRecording, &tenant, purpose);
        let asked = request.get_ref();
        let record = required(&asked.record_id, &Path::root("record_id"))?;
        let reading = self.vault.read(&tenant, record, range(asked)?, reason).await?;
        Ok(Response::new(Box::pin(download::send(reading, self.limits))))
    }

    async fn put_message(
        &self,
        request: Request<PutMessageRequest>,
    ) -> Result<Response<PutMessageResponse>, Status> {
        let caller = gate::may_call(&request, Action::PutMessage)?;
        let asked = request.into_inner();
        let tenant = gate::in_scope(&caller, Action::PutMessage, &asked.tenant_id, &TENANT)?;
        let record = message::put(&self.vault, &caller, &tenant, asked).await?;
        Ok(Response::new(PutMessageResponse {
            record: Some(convert::written_to_proto(&record)),
        }))
    }

    async fn batch_put_messages(
        &self,
        request: Request<BatchPutMessagesRequest>,
    ) -> Result<Response<BatchPutMessagesResponse>, Status> {
        let caller = gate::may_call(&request, Action::BatchPutMessages)?;
        let asked = request.into_inner();
        let tenant = gate::in_scope(&caller, Action::BatchPutMessages, &asked.tenant_id, &TENANT)?;
        let results = message::put_many(&self.vault, &caller, &tenant, asked).await?;
        Ok(Response::new(BatchPutMessagesResponse { results }))
    }

    async fn get_message(
        &self,
        request: Request<GetMessageRequest>,
    ) -> Result<Response<GetMessageResponse>, Status> {
        let caller = gate::may_call(&request, Action::GetMessage)?;
        let purpose = required_purpose(&request)?;
        let tenant = gate::in_scope_for(
            &caller,
            Action::GetMessage,
            &request.get_ref().tenant_id,
            &TENANT,
            Some(purpose),
        )?;
        let reason = gate::reason(&caller, Action::GetMessage, &tenant, purpose);
        let id = required(&request.get_ref().record_id, &Path::root("record_id"))?;
        let (record, body) = self.vault.message(&tenant, id, reason).await?;
        Ok(Response::new(GetMessageResponse {
            record: Some(convert::record_to_proto(&record)),
            body,
        }))
    }

    async fn batch_get_messages(
        &self,
        request: Request<BatchGetMessagesRequest>,
    ) -> Result<Response<BatchGetMessagesResponse>, Status> {
        let caller = gate::may_call(&request, Action::BatchGetMessages)?;
        let purpose = required_purpose(&request)?;
        let tenant = gate::in_scope_for(
            &caller,
            Action::BatchGetMessages,
            &request.get_ref().tenant_id,
            &TENANT,
            Some(purpose),
        )?;
        let reason = gate::reason(&caller, Action::BatchGetMessages, &tenant, purpose);
        let results = message::get_many(&self.vault, &tenant, request.get_ref(), reason).await?;
        Ok(Response::new(BatchGetMessagesResponse { results }))
    }

    async fn get_record(
        &self,
        request: Request<GetRecordRequest>,
    ) -> Result<Response<GetRecordResponse>, Status> {
        let caller = gate::may_call(&request, Action::GetRecord)?;
        let purpose = required_purpose(&request)?;
        let tenant = gate::in_scope_for(
            &caller,
            Action::GetRecord,
            &request.get_ref().tenant_id,
            &TENANT,
            Some(purpose),
        )?;
        let reason = gate::reason(&caller, Action::GetRecord, &tenant, purpose);
        let name = name(request.get_ref())?;
        let record = self.vault.record(&tenant, &name, reason).await?;
        Ok(Response::new(GetRecordResponse {
            record: Some(convert::record_to_proto(&record)),
        }))
    }

    async fn list_records(
        &self,
        request: Request<ListRecordsRequest>,
    ) -> Result<Response<ListRecordsResponse>, Status> {
        let caller = gate::may_call(&request, Action::ListRecords)?;
        let purpose = required_purpose(&request)?;
        let tenant = gate::in_scope_for(
            &caller,
            Action::ListRecords,
            &request.get_ref().tenant_id,
            &TENANT,
            Some(purpose),
        )?;
        let reason = gate::reason(&caller, Action::ListRecords, &tenant, purpose);
        let asked = request.get_ref();
        let query = convert::query(asked.query.as_ref())?;
        let size = convert::page_size(asked.page_size)?;
        let token = Some(asked.page_token.as_str()).filter(|token| !token.is_empty());
        let order = convert::order(asked.order());
        let page = self
            .vault
            .list(&tenant, &query, order, size, token, reason)
            .await?;
        Ok(Response::new(ListRecordsResponse {
            records: page.records.iter().map(convert::record_to_proto).collect(),
            next_page_token: page.next.unwrap_or_default(),
        }))
    }

    async fn update_record(
        &self,
        request: Request<UpdateRecordRequest>,
    ) -> Result<Response<UpdateRecordResponse>, Status> {
        let caller = gate::may_call(&request, Action::UpdateRecord)?;
        let asked = request.into_inner();
        let spec = UpdateSpec {
            tenant: gate::in_scope(&caller, Action::UpdateRecord, &asked.tenant_id, &TENANT)?,
            record: required(&asked.record_id, &Path::root("record_id"))?,
            actor: caller.alias().to_owned(),
            change: convert::change(asked.descriptor.as_ref(), asked.update_mask.as_ref())?,
            request: optional(&asked.request_id, &Path::root("request_id"))?,
            etag: Some(asked.etag).filter(|etag| !etag.is_empty()),
            judge: Some(gate::judge(&caller, Action::UpdateRecord)),
        };
        let record = self.vault.update(spec).await?;
        Ok(Response::new(UpdateRecordResponse {
            record: Some(convert::corrected_to_proto(&record)),
        }))
    }
}

pub(super) fn name(request: &GetRecordRequest) -> Result<Name, Error> {
    match &request.name {
        Some(get_record_request::Name::RecordId(id)) => required(id, &Path::root("record_id")).map(Name::Id),
        Some(get_record_request::Name::ExternalId(id)) => {
            required(id, &Path::root("external_id")).map(Name::External)
        }
        None => Err(Path::root("record_id").refuse("is required, or external_id")),
    }
}

pub(super) fn range(request: &ReadRecordingRequest) -> Result<ContentRange, Error> {
    let not_negative = |number: i64, field| {
        u64::try_from(number).map_err(|_| Path::root(field).refuse("must not be negative"))
    };
    let limit = not_negative(request.limit, "limit")?;
    Ok(ContentRange {
        offset: not_negative(request.offset, "offset")?,
        limit: (limit > 0).then_some(limit),
    })
}
