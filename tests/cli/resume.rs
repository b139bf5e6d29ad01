//! Uploads through a real process that is killed, again and again, by a client that keeps only what is not durable yet.

use std::{path::Path, thread, time::Duration};

use callvault::{
    client::{Client, ClientFile, Retry},
    proto::v1::{
        BeginUploadRequest, Channel, CommitUploadRequest, Descriptor, GetUploadRequest, Upload,
        WriteUploadHeader, WriteUploadRequest, record_service_client::RecordServiceClient,
        write_upload_request::Payload,
    },
};
use tonic::transport::Channel as Connection;

use crate::support::{Place, Server};

const SIZE: usize = 20 << 20;
const KILLS: u64 = 6;

async fn connect(data: &Path) -> RecordServiceClient<Connection> {
    let file = ClientFile::load(&data.join("client.toml")).unwrap();
    let client = Client::connect(&file.role("uploader").unwrap()).await.unwrap();
    RecordServiceClient::new(client.with_retry(Retry::NEVER).channel())
}

async fn get(service: &mut RecordServiceClient<Connection>, upload: &Upload) -> Upload {
    let request = GetUploadRequest {
        tenant_id: upload.tenant_id.clone(),
        upload_id: upload.upload_id.clone(),
    };
    service
        .get_upload(request)
        .await
        .unwrap()
        .into_inner()
        .upload
        .unwrap()
}

/// Sends from an offset on, a chunk each 60 ms, until the connection breaks or all is sent.
async fn send(mut service: RecordServiceClient<Connection>, upload: Upload, bytes: Vec<u8>, offset: usize) {
    let header = WriteUploadHeader {
        tenant_id: upload.tenant_id,
        upload_id: upload.upload_id,
        offset: i64::try_from(offset).unwrap(),
    };
    let chunks: Vec<_> = bytes[offset..].chunks(200_000).map(<[u8]>::to_vec).collect();
    let messages = async_stream(header, chunks);
    let _ = service.write_upload(messages).await;
}

fn async_stream(
    header: WriteUploadHeader,
    chunks: Vec<Vec<u8>>,
) -> impl futures_util::Stream<Item = WriteUploadRequest> + Send {
    let payloads = std::iter::once(Payload::Header(header))
        .chain(chunks.into_iter().map(|chunk| Payload::Chunk(chunk.into())));
    futures_util::stream::unfold(payloads, |mut payloads| async move {
        tokio::time::sleep(Duration::from_millis(60)).await;
        let message = WriteUploadRequest {
            payload: Some(payloads.next()?),
        };
        Some((message, payloads))
    })
}

#[test]
fn an_upload_goes_on_after_kill_9_from_what_was_durable() {
    let place = Place::new();
    let (_, bytes) = place.file("call.bin", SIZE, 11);
    let mut server = Server::start(&place.data());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut service = runtime.block_on(connect(&place.data()));
    let begun = service.begin_upload(BeginUploadRequest {
        tenant_id: "dev".to_owned(),
        descriptor: Some(Descriptor {
            conversation_id: "c-1".to_owned(),
            channel: Channel::Voice.into(),
            start_time: Some(prost_types::Timestamp::default()),
            ..Descriptor::default()
        }),
        request_id: "call-1".to_owned(),
        ..BeginUploadRequest::default()
    });
    let upload = runtime.block_on(begun).unwrap().into_inner().upload.unwrap();
    let mut durable = 0;
    let mut went_on = 0;
    for round in 0..KILLS {
        let offset = usize::try_from(durable).unwrap();
        let sending = runtime.spawn(send(service.clone(), upload.clone(), bytes.clone(), offset));
        let mut told = durable;
        // Spread over a range of moments; a client asks now and then what it may forget.
        for _ in 0..(3 + round * 7 % 11) {
            thread::sleep(Duration::from_millis(110));
            told = runtime.block_on(get(&mut service, &upload)).durable_offset;
        }
        server.kill();
        let _ = runtime.block_on(sending);
        server = Server::start(&place.data());
        service = runtime.block_on(connect(&place.data()));
        let now = runtime.block_on(get(&mut service, &upload));
        assert!(now.durable_offset >= told, "{} was promised, {now:?}", told);
        assert_eq!(now.received_offset, now.durable_offset);
        went_on += u64::from(now.durable_offset > durable);
        durable = now.durable_offset;
    }
    assert!(
        went_on >= KILLS / 2,
        "only {went_on} of {KILLS} rounds made progress"
    );
    let offset = usize::try_from(durable).unwrap();
    runtime.block_on(send(service.clone(), upload.clone(), bytes.clone(), offset));
    let commit = CommitUploadRequest {
        tenant_id: upload.tenant_id.clone(),
        upload_id: upload.upload_id.clone(),
        size_bytes: i64::try_from(SIZE).unwrap(),
        closing: None,
        expected_crc32c: Some(crc32c::crc32c(&bytes)),
    };
    let record = runtime.block_on(service.commit_upload(commit.clone())).unwrap();
    let record = record.into_inner().record.unwrap();
    assert!(place.get(&record.record_id) == bytes);
    // The answer to a lost ack outlives the process, too.
    server.kill();
    server = Server::start(&place.data());
    service = runtime.block_on(connect(&place.data()));
    let again = runtime.block_on(service.commit_upload(commit)).unwrap();
    assert_eq!(again.into_inner().record.unwrap(), record);
    assert_eq!(server.stop(), Some(0));
    let report = place.local(&["verify"]);
    assert!(report.status.success(), "{report:?}");
}
