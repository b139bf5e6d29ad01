//! A service that does what the tenant's name says.

use std::pin::Pin;

use futures_util::{Stream, StreamExt, stream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    grpc,
    proto::v1::{record_service_server::RecordService, *},
};

pub(super) struct Stub {
    pub(super) drain: CancellationToken,
}

type Reading = Pin<Box<dyn Stream<Item = Result<ReadRecordingResponse, Status>> + Send>>;

#[tonic::async_trait]
impl RecordService for Stub {
    type ReadRecordingStream = Reading;

    async fn read_recording(
        &self,
        request: Request<ReadRecordingRequest>,
    ) -> Result<Response<Reading>, Status> {
        let caller = grpc::caller(&request)?;
        let first = stream::iter([Ok(ReadRecordingResponse::default())]);
        let drain = self.drain.clone();
        match request.into_inner().tenant_id.as_str() {
            "finish" => {
                let last = stream::once(async move {
                    drain.cancelled_owned().await;
                    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                    Ok(ReadRecordingResponse::default())
                });
                Ok(Response::new(first.chain(last).boxed()))
            }
            "for-ever" => Ok(Response::new(first.chain(stream::pending()).boxed())),
            _ => Err(Status::permission_denied(caller.alias())),
        }
    }

    async fn put_recording(
        &self,
        _: Request<Streaming<PutRecordingRequest>>,
    ) -> Result<Response<PutRecordingResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn put_message(
        &self,
        _: Request<PutMessageRequest>,
    ) -> Result<Response<PutMessageResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn batch_put_messages(
        &self,
        _: Request<BatchPutMessagesRequest>,
    ) -> Result<Response<BatchPutMessagesResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn get_message(
        &self,
        _: Request<GetMessageRequest>,
    ) -> Result<Response<GetMessageResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn batch_get_messages(
        &self,
        _: Request<BatchGetMessagesRequest>,
    ) -> Result<Response<BatchGetMessagesResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn get_record(&self, _: Request<GetRecordRequest>) -> Result<Response<GetRecordResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn list_records(
        &self,
        _: Request<ListRecordsRequest>,
    ) -> Result<Response<ListRecordsResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn update_record(
        &self,
        _: Request<UpdateRecordRequest>,
    ) -> Result<Response<UpdateRecordResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn begin_upload(
        &self,
        _: Request<BeginUploadRequest>,
    ) -> Result<Response<BeginUploadResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn get_upload(&self, _: Request<GetUploadRequest>) -> Result<Response<GetUploadResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn commit_upload(
        &self,
        _: Request<CommitUploadRequest>,
    ) -> Result<Response<CommitUploadResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn abort_upload(
        &self,
        _: Request<AbortUploadRequest>,
    ) -> Result<Response<AbortUploadResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn write_upload(
        &self,
        _: Request<Streaming<WriteUploadRequest>>,
    ) -> Result<Response<WriteUploadResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}
