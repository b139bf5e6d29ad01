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
            "panic" => panic!("with somebody's number in it"),
            "panic-later" => {
                let last = stream::once(async { panic!("with somebody's number in it") });
                Ok(Response::new(first.chain(last).boxed()))
            }
            "for-ever" => Ok(Response::new(first.chain(stream::pending()).boxed())),
            _ => Err(Status::permission_denied(caller.alias())),
        }
    }

    async fn put_recording(
        &self,
        request: Request<Streaming<PutRecordingRequest>>,
    ) -> Result<Response<PutRecordingResponse>, Status> {
        let mut messages = request.into_inner();
        while messages.message().await?.is_some() {}
        Ok(Response::new(PutRecordingResponse::default()))
    }

    async fn get_record(&self, _: Request<GetRecordRequest>) -> Result<Response<GetRecordResponse>, Status> {
        // A store that never answers.
        std::future::pending().await
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
}
