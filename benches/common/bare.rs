//! A service that takes and gives the vault's messages over the same TLS, frames, windows and chunks, and is no vault.

use std::{path::Path, pin::Pin, sync::Arc};

use bytes::Bytes;
use callvault::{
    access::{identity::Callers, policy::PolicySet, token::Issuers},
    config::Config,
    crypto::stream::{SEGMENT_LEN, TAG_LEN},
    domain::clock::SystemClock,
    proto::v1::{
        self, PutRecordingRequest, PutRecordingResponse, ReadRecordingHeader, ReadRecordingRequest,
        ReadRecordingResponse, Record, put_recording_request, read_recording_response,
        record_service_server::{RecordService, RecordServiceServer},
    },
    server::{
        Addresses, Drain, Server, ServerTls,
        pki::{COUNTRY, DevPki},
    },
};
use futures_util::{Stream, StreamExt, stream};
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::Failure;

/// Content bytes of one message of a read: a segment, as the vault sends it.
pub(crate) const READ_CHUNK: usize = SEGMENT_LEN - TAG_LEN;

pub(crate) type Chunks = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;

/// What becomes of content.
#[async_trait]
pub(crate) trait Mirror: Send + Sync + 'static {
    /// Takes it, and says under which name it is given back.
    async fn take(&self, content: Chunks) -> Result<String, Status>;

    /// Gives so much of it.
    fn give(&self, name: String, length: usize) -> Chunks;
}

/// Nothing.
pub(crate) struct Discard;

#[async_trait]
impl Mirror for Discard {
    async fn take(&self, mut content: Chunks) -> Result<String, Status> {
        while content.next().await.transpose()?.is_some() {}
        Ok(String::new())
    }

    fn give(&self, _: String, length: usize) -> Chunks {
        let chunk = Bytes::from(vec![7; READ_CHUNK]);
        let chunks = (0..length).step_by(READ_CHUNK);
        Box::pin(stream::iter(
            chunks.map(move |at| Ok(chunk.slice(..READ_CHUNK.min(length - at)))),
        ))
    }
}

/// Serves with the certificates below `home`, and the limits of a vault in dev mode, until the process is killed.
pub(crate) async fn serve(home: &Path, mirror: impl Mirror) -> Result<(), Failure> {
    let pki = DevPki::open(home, &SystemClock)?;
    let config = Config::dev(home, "127.0.0.1:0".parse()?)?;
    let tls = Arc::new(ServerTls::load(&pki.tls())?);
    let addresses = Addresses {
        api: config.listen,
        ops: None,
    };
    let server = Server::bind(addresses, config.limits, tls, Arc::new(callers()?), Drain::new()).await?;
    println!("ready listening={}", server.api_address()?);
    let service =
        RecordServiceServer::new(Bare(mirror)).max_decoding_message_size(callvault::grpc::DECODE_BYTES);
    server.run(tonic::service::Routes::new(service)).await?;
    Ok(())
}

/// Dev mode's, judged by their roles.
fn callers() -> Result<Callers, Failure> {
    let clock = Arc::new(SystemClock);
    let issuers = Issuers::new([], Arc::clone(&clock) as _);
    let policies = PolicySet::default_set(COUNTRY.parse()?)?;
    Ok(Callers::new(DevPki::identities()?, issuers, policies, clock))
}

struct Bare<M>(M);

#[async_trait]
impl<M: Mirror> RecordService for Bare<M> {
    async fn put_recording(
        &self,
        request: Request<Streaming<PutRecordingRequest>>,
    ) -> Result<Response<PutRecordingResponse>, Status> {
        let content = request.into_inner().filter_map(|message| async {
            match message.map(|message| message.payload) {
                Ok(Some(put_recording_request::Payload::Chunk(chunk))) => Some(Ok(chunk)),
                Ok(_) => None,
                Err(status) => Some(Err(status)),
            }
        });
        let record = Record {
            record_id: self.0.take(Box::pin(content)).await?,
            ..Record::default()
        };
        Ok(Response::new(PutRecordingResponse { record: Some(record) }))
    }

    type ReadRecordingStream = Pin<Box<dyn Stream<Item = Result<ReadRecordingResponse, Status>> + Send>>;

    async fn read_recording(
        &self,
        request: Request<ReadRecordingRequest>,
    ) -> Result<Response<Self::ReadRecordingStream>, Status> {
        let ReadRecordingRequest { record_id, limit, .. } = request.into_inner();
        let message = |payload| ReadRecordingResponse {
            payload: Some(payload),
        };
        let header = ReadRecordingHeader {
            record: None,
            offset: 0,
            length: limit,
        };
        let first = Ok(message(read_recording_response::Payload::Header(header)));
        let length = usize::try_from(limit).unwrap_or(0);
        let chunks = self.0.give(record_id, length);
        let chunks = chunks.map(move |chunk| Ok(message(read_recording_response::Payload::Chunk(chunk?))));
        Ok(Response::new(Box::pin(
            stream::iter(std::iter::once(first)).chain(chunks),
        )))
    }

    async fn get_record(
        &self,
        _: Request<v1::GetRecordRequest>,
    ) -> Result<Response<v1::GetRecordResponse>, Status> {
        Err(Status::unimplemented("bare"))
    }

    async fn list_records(
        &self,
        _: Request<v1::ListRecordsRequest>,
    ) -> Result<Response<v1::ListRecordsResponse>, Status> {
        Err(Status::unimplemented("bare"))
    }

    async fn update_record(
        &self,
        _: Request<v1::UpdateRecordRequest>,
    ) -> Result<Response<v1::UpdateRecordResponse>, Status> {
        Err(Status::unimplemented("bare"))
    }

    async fn put_message(
        &self,
        _: Request<v1::PutMessageRequest>,
    ) -> Result<Response<v1::PutMessageResponse>, Status> {
        Ok(Response::new(v1::PutMessageResponse {
            record: Some(Record::default()),
        }))
    }

    async fn batch_put_messages(
        &self,
        _: Request<v1::BatchPutMessagesRequest>,
    ) -> Result<Response<v1::BatchPutMessagesResponse>, Status> {
        Err(Status::unimplemented("bare"))
    }

    async fn get_message(
        &self,
        _: Request<v1::GetMessageRequest>,
    ) -> Result<Response<v1::GetMessageResponse>, Status> {
        Err(Status::unimplemented("bare"))
    }

    async fn batch_get_messages(
        &self,
        _: Request<v1::BatchGetMessagesRequest>,
    ) -> Result<Response<v1::BatchGetMessagesResponse>, Status> {
        Err(Status::unimplemented("bare"))
    }

    async fn begin_upload(
        &self,
        _: Request<v1::BeginUploadRequest>,
    ) -> Result<Response<v1::BeginUploadResponse>, Status> {
        Err(Status::unimplemented("bare"))
    }

    async fn write_upload(
        &self,
        _: Request<Streaming<v1::WriteUploadRequest>>,
    ) -> Result<Response<v1::WriteUploadResponse>, Status> {
        Err(Status::unimplemented("bare"))
    }

    async fn get_upload(
        &self,
        _: Request<v1::GetUploadRequest>,
    ) -> Result<Response<v1::GetUploadResponse>, Status> {
        Err(Status::unimplemented("bare"))
    }

    async fn commit_upload(
        &self,
        _: Request<v1::CommitUploadRequest>,
    ) -> Result<Response<v1::CommitUploadResponse>, Status> {
        Err(Status::unimplemented("bare"))
    }

    async fn abort_upload(
        &self,
        _: Request<v1::AbortUploadRequest>,
    ) -> Result<Response<v1::AbortUploadResponse>, Status> {
        Err(Status::unimplemented("bare"))
    }
}
