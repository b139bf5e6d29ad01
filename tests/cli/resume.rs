//! Uploads through a real process that is killed, again and again, by a client that keeps only what is not durable yet; and
//! by clients that are killed themselves.

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use callvault::{
    client::{Client, ClientFile, Retry},
    proto::v1::{
        BeginUploadRequest, Channel, CommitUploadRequest, Descriptor, GetUploadRequest, Upload,
        WriteUploadHeader, WriteUploadRequest, record_service_client::RecordServiceClient,
        write_upload_request::Payload,
    },
};
use tonic::transport::Channel as Connection;

use crate::support::{Place, Server, done, free_port, refused, slow_way_to};

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

/// A `put --resume` that runs.
fn putting(file: &str, client: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_callvault"))
        .args([
            "put",
            file,
            "--conversation",
            "c-1",
            "--resume",
            "--json",
            "--client",
        ])
        .arg(client)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn record_of(put: Child) -> String {
    let output = put.wait_with_output().unwrap();
    let record: serde_json::Value = serde_json::from_str(&done(&output)).unwrap();
    record["record_id"].as_str().unwrap().to_owned()
}

/// Waits until so much of unfinished uploads is on the disk.
fn wait_for_spooled(data: &Path, bytes: u64) {
    let spooled = || {
        let files = fs::read_dir(data.join("spool")).unwrap();
        files
            .map(|file| file.unwrap().metadata().unwrap().len())
            .sum::<u64>()
    };
    for _ in 0..600 {
        if spooled() >= bytes {
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("only {} bytes were spooled", spooled());
}

#[test]
fn what_comes_from_a_pipe_survives_kill_9_of_the_server_again_and_again() {
    let place = Place::new();
    let (_, bytes) = place.file("call.bin", 6 << 20, 5);
    let port = free_port();
    let mut server = Server::start_at(&place.data(), port);
    let mut put = putting("-", &place.data().join("client.toml"));
    let mut pipe = put.stdin.take().unwrap();
    for (round, part) in bytes.chunks(2 << 20).enumerate() {
        pipe.write_all(part).unwrap();
        if round < 2 {
            wait_for_spooled(&place.data(), (round as u64 + 1) << 20);
            server.kill();
            server = Server::start_at(&place.data(), port);
        }
    }
    drop(pipe);
    let record = record_of(put);
    assert!(place.get(&record) == bytes);
    assert_eq!(server.stop(), Some(0));
    assert!(place.local(&["verify"]).status.success());
}

#[test]
fn the_same_command_after_kill_9_of_the_client_goes_on_where_the_server_is() {
    let place = Place::new();
    let (file, bytes) = place.file("call.bin", 8 << 20, 6);
    let server = Server::start_at(&place.data(), free_port());
    let direct = place.data().join("client.toml");
    let slow = slow_client(&place);
    let kill_midway = || {
        let mut put = putting(&file, &slow);
        wait_for_spooled(&place.data(), 2 << 20);
        assert_eq!(put.try_wait().unwrap(), None, "it ended before it was killed");
        put.kill().unwrap();
        put.wait().unwrap();
    };
    kill_midway();
    let record = record_of(putting(&file, &direct));
    assert!(place.get(&record) == bytes);
    assert_eq!(
        record_of(putting(&file, &direct)),
        record,
        "the same command again"
    );

    // Changed, and its time put back: that it went on shows in that the beginning is not sent again, and is noticed.
    let before = set_first_byte(&file, bytes[0], None);
    kill_midway();
    set_first_byte(&file, !bytes[0], Some(before));
    let output = putting(&file, &direct).wait_with_output().unwrap();
    let error = refused(&output, 1);
    assert!(error.contains("the file has changed"), "{error}");
    let changed = record_of(putting(&file, &direct));
    assert_eq!(place.get(&changed), fs::read(&file).unwrap());
    assert_ne!(changed, record);
    assert_eq!(server.stop(), Some(0));
}

/// A client file that leads over a slow way.
fn slow_client(place: &Place) -> std::path::PathBuf {
    let told = fs::read_to_string(place.data().join("client.toml")).unwrap();
    let (_, port) = told.split_once("127.0.0.1:").unwrap();
    let port: u16 = port.split('"').next().unwrap().parse().unwrap();
    let told = told.replace(&format!(":{port}"), &format!(":{}", slow_way_to(port)));
    let path = place.data().join("slow.toml");
    fs::write(&path, told).unwrap();
    path
}

/// Changes a file in place, and says when it was changed or makes it so.
fn set_first_byte(file: &str, byte: u8, time: Option<std::time::SystemTime>) -> std::time::SystemTime {
    let mut file = fs::OpenOptions::new().write(true).open(file).unwrap();
    file.write_all(&[byte]).unwrap();
    if let Some(time) = time {
        file.set_modified(time).unwrap();
    }
    file.metadata().unwrap().modified().unwrap()
}
