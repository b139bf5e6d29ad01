//! The public client's upload in many calls, over a network that is not to be relied on.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use callvault::{
    client::{Client, Content, Resumable, Retry},
    domain::principal::Role,
    proto::v1::{BeginUploadRequest, PutRecordingClosing, UploadState},
};
use tokio::{
    io::AsyncReadExt,
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
};

use crate::harness::*;

/// Carries connections, and cuts the first ones after some bytes each.
struct Cutter {
    address: SocketAddr,
    cut: Arc<AtomicUsize>,
}

impl Cutter {
    async fn before(server: SocketAddr, cuts: Vec<usize>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let cut = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&cut);
        tokio::spawn(async move {
            for most in cuts.into_iter().map(Some).chain(std::iter::repeat(None)) {
                let (client, _) = listener.accept().await.unwrap();
                let server = TcpStream::connect(server).await.unwrap();
                let count = Arc::clone(&count);
                tokio::spawn(async move {
                    let was_cut = carry(client, server, most).await;
                    count.fetch_add(usize::from(was_cut), Ordering::Relaxed);
                });
            }
        });
        Self { address, cut }
    }

    fn count(&self) -> usize {
        self.cut.load(Ordering::Relaxed)
    }
}

/// Both ways, until one ends or the client has sent so much.
async fn carry(client: TcpStream, server: TcpStream, most: Option<usize>) -> bool {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let upwards = async {
        let (mut buffer, mut passed) = (vec![0; 16 << 10], 0);
        while most.is_none_or(|most| passed < most) {
            match from_client.read(&mut buffer).await {
                Ok(0) | Err(_) => return false,
                Ok(read) if to_server.write_all(&buffer[..read]).await.is_err() => return read == 0,
                Ok(read) => passed += read,
            }
        }
        true
    };
    tokio::select! {
        was_cut = upwards => was_cut,
        _ = tokio::io::copy(&mut from_server, &mut to_client) => false,
    }
}

async fn uploader_over(world: &World, cutter: &Cutter) -> Client {
    let mut config = world.config(Role::Uploader);
    config.endpoint = format!("https://{}", cutter.address);
    Client::connect(&config).await.unwrap()
}

fn begin(request_id: &str) -> BeginUploadRequest {
    BeginUploadRequest {
        tenant_id: TENANT.to_owned(),
        descriptor: Some(descriptor()),
        request_id: request_id.to_owned(),
        ..Default::default()
    }
}

async fn read(world: &World, record: &str) -> Vec<u8> {
    let reader = world.client(Role::Reader).await;
    let mut download = reader.read_recording(TENANT, record, 0, 0).await.unwrap();
    let mut got = Vec::new();
    while let Some(bytes) = download.next().await.unwrap() {
        got.extend_from_slice(&bytes);
    }
    got
}

async fn write_all(upload: &mut Resumable, content: &[u8]) {
    for chunk in content.chunks(100_000) {
        upload.write(Bytes::copy_from_slice(chunk)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_goes_on_by_itself_over_connections_that_are_cut_again_and_again() {
    const KEPT: usize = MIB;
    let world = World::start().await;
    // From within the handshake to several messages on, then for good.
    let cuts: Vec<usize> = (1..14).map(|n| 20_000 * n * n % 700_000 + 9_000).collect();
    let cutter = Cutter::before(world.address(), [vec![1 << 20], cuts].concat()).await;
    let client = uploader_over(&world, &cutter).await;
    let content = content(6 * MIB + 321);
    let mut upload = client.begin_resumable(begin("")).await.unwrap();
    upload.keep_at_most(KEPT);
    let mut most_kept = 0;
    for chunk in content.chunks(70_001) {
        upload.write(Bytes::copy_from_slice(chunk)).await.unwrap();
        most_kept = most_kept.max(upload.kept());
        assert!(upload.kept() <= KEPT);
    }
    assert!(most_kept > KEPT / 2, "the bound was never near: {most_kept}");
    let closing = PutRecordingClosing {
        end_time: Some(at(1_700_000_060)),
        ..Default::default()
    };
    let record = upload.commit(Some(closing)).await.unwrap();
    assert_eq!(upload.kept(), 0);
    assert_eq!(record.record_id, upload.upload_id());
    assert_eq!(record.descriptor.as_ref().unwrap().duration.unwrap().seconds, 60);
    assert!(cutter.count() >= 8, "{} connections were cut", cutter.count());
    assert!(read(&world, &record.record_id).await == content);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_call_goes_out_by_itself_and_costs_its_client_little() {
    let world = World::start().await;
    let client = world.client(Role::Uploader).await;
    let mut upload = client.begin_resumable(begin("")).await.unwrap();
    let content = content(160 * 150);
    for packet in content.chunks(160) {
        upload.write(Bytes::copy_from_slice(packet)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(upload.kept() <= content.len());
    // Nobody flushes, and nothing more is written: it is on its way all the same.
    for _ in 0..500 {
        let now = client.get_upload(TENANT, upload.upload_id()).await.unwrap();
        if now.durable_offset == content.len() as i64 {
            let record = upload.commit(None).await.unwrap();
            assert!(read(&world, &record.record_id).await == content);
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it never came");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_is_gone_on_with_by_name_and_other_content_is_noticed() {
    let world = World::start().await;
    let client = world.client(Role::Uploader).await;
    let content = content(3 * MIB);
    let mut first = client.begin_resumable(begin("request-1")).await.unwrap();
    write_all(&mut first, &content[..MIB]).await;
    first.flush().await.unwrap();
    assert_eq!((first.durable(), first.kept()), (MIB as u64, 0));
    let id = first.upload_id().to_owned();
    drop(first);

    let elsewhere = world.client(Role::Uploader).await;
    let mut other = content.clone();
    other[7] ^= 1;
    let mut wrong = elsewhere.resume_upload(TENANT, &id).await.unwrap();
    write_all(&mut wrong, &other).await;
    assert_eq!(
        why(wrong.commit(None).await),
        is("CRC32C_MISMATCH", "expected_crc32c")
    );
    let mut short = elsewhere.resume_upload(TENANT, &id).await.unwrap();
    write_all(&mut short, &content[..MIB]).await;
    assert_eq!(why(short.commit(None).await), is("UPLOAD_INCOMPLETE", ""));

    let mut again = elsewhere.begin_resumable(begin("request-1")).await.unwrap();
    assert_eq!(again.upload_id(), id);
    write_all(&mut again, &content).await;
    let record = again.commit(None).await.unwrap();
    assert_eq!(again.commit(None).await.unwrap(), record);
    assert!(read(&world, &record.record_id).await == content);
    let after = elsewhere.begin_resumable(begin("request-1")).await.unwrap();
    assert_eq!(after.record(), Some(&record));
    let put = elsewhere.put_resumable(begin("request-1"), Content::bytes(content), None);
    assert_eq!(put.await.unwrap(), record);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_taken_over_from_is_told_and_does_not_fight() {
    let world = World::start().await;
    let client = world.client(Role::Uploader).await.with_retry(Retry::PATIENT);
    let mut first = client.begin_resumable(begin("")).await.unwrap();
    let content = content(MIB);
    first
        .write(Bytes::copy_from_slice(&content[..200_000]))
        .await
        .unwrap();
    while client
        .get_upload(TENANT, first.upload_id())
        .await
        .unwrap()
        .received_offset
        == 0
    {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut second = client.resume_upload(TENANT, first.upload_id()).await.unwrap();
    write_all(&mut second, &content).await;
    second.flush().await.unwrap();
    let told = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            if let Err(error) = first.write(Bytes::from_static(b"late")).await {
                return error;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let told = told.await.unwrap();
    assert_eq!(told.reason(), Some("UPLOAD_TAKEN_OVER"));
    assert_eq!(why(first.flush().await), is("UPLOAD_TAKEN_OVER", ""));
    let record = second.commit(None).await.unwrap();
    assert!(read(&world, &record.record_id).await == content);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aborted_upload_is_gone_and_its_request_is_free() {
    let world = World::start().await;
    let client = world.client(Role::Uploader).await;
    let mut upload = client.begin_resumable(begin("request-1")).await.unwrap();
    upload.write(Bytes::from_static(b"half a call")).await.unwrap();
    let id = upload.upload_id().to_owned();
    upload.abort().await.unwrap();
    assert_eq!(why(client.get_upload(TENANT, &id).await), is("NOT_FOUND", ""));
    let again = client.begin_resumable(begin("request-1")).await.unwrap();
    assert_ne!(again.upload_id(), id);
    let now = client.get_upload(TENANT, again.upload_id()).await.unwrap();
    assert_eq!((now.state(), now.received_offset), (UploadState::Open, 0));
}
