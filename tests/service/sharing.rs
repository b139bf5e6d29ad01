//! Many at once: what some callers hold, or leave undone, is not missing to others.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use callvault::{client::Content, domain::principal::Role, proto::v1::*};
use h2::{RecvStream, SendStream, client::SendRequest};
use http::Request;
use prost::Message;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

use crate::harness::*;

const READ: &str = "/callvault.v1.RecordService/ReadRecording";
const PUT: &str = "/callvault.v1.RecordService/PutRecording";
/// For what must come at all, on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection with the smallest windows that HTTP/2 knows: whoever takes nothing here holds nothing on its own side.
async fn narrow(world: &World, role: Role) -> SendRequest<Bytes> {
    let config = world.config(role);
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(config.ca).unwrap())
        .unwrap();
    let chain = vec![CertificateDer::from_pem_file(config.identity.certificate.unwrap()).unwrap()];
    let key = PrivateKeyDer::from_pem_file(config.identity.key.unwrap()).unwrap();
    let mut tls =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .unwrap();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let address = config.endpoint.strip_prefix("https://").unwrap();
    let socket = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TlsConnector::from(Arc::new(tls))
        .connect(name, socket)
        .await
        .unwrap();
    let (requests, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    requests
}

fn framed(message: &impl Message) -> Bytes {
    let mut framed = BytesMut::from(&[0][..]);
    framed.extend_from_slice(&u32::try_from(message.encoded_len()).unwrap().to_be_bytes());
    message.encode(&mut framed).unwrap();
    framed.freeze()
}

async fn begin(requests: &SendRequest<Bytes>, path: &str) -> (h2::client::ResponseFuture, SendStream<Bytes>) {
    let request = Request::post(format!("https://localhost{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("callvault-purpose", PURPOSE)
        .body(())
        .unwrap();
    let mut requests = requests.clone().ready().await.unwrap();
    requests.send_request(request, false).unwrap()
}

/// Begins to read, and takes nothing.
async fn slow_reader(requests: &SendRequest<Bytes>, record: &Record) -> RecvStream {
    let (answer, mut request) = begin(requests, READ).await;
    let message = ReadRecordingRequest {
        tenant_id: TENANT.to_owned(),
        record_id: record.record_id.clone(),
        ..Default::default()
    };
    request.send_data(framed(&message), true).unwrap();
    timeout(PATIENCE, answer).await.unwrap().unwrap().into_body()
}

/// Begins to upload, and goes no further.
async fn slow_writer(requests: &SendRequest<Bytes>) -> (h2::client::ResponseFuture, SendStream<Bytes>) {
    let (answer, mut request) = begin(requests, PUT).await;
    let message = |payload| PutRecordingRequest {
        payload: Some(payload),
    };
    let begun = put_recording_request::Payload::Spec(spec(descriptor()));
    request.send_data(framed(&message(begun)), false).unwrap();
    let chunk = put_recording_request::Payload::Chunk(vec![7; 300].into());
    request.send_data(framed(&message(chunk)), false).unwrap();
    (answer, request)
}

/// A whole upload and a whole read, by somebody in no way special.
async fn works(world: &World, tenant: &str) {
    let uploader = world.client(Role::Uploader).await;
    let asked = PutRecordingSpec {
        tenant_id: tenant.to_owned(),
        ..spec(descriptor())
    };
    let bytes = content(20 * MIB);
    let put = uploader.put_recording(asked, Content::bytes(bytes.clone()), None);
    let record = timeout(PATIENCE, put).await.unwrap().unwrap();
    let reader = world.client(Role::Reader).await;
    let mut reading = reader
        .read_recording(tenant, &record.record_id, 0, 0)
        .await
        .unwrap();
    let mut read = Vec::new();
    timeout(PATIENCE, reading.copy_to(&mut read))
        .await
        .unwrap()
        .unwrap();
    assert!(read == bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_slow_readers_hold_up_nobody() {
    let world = World::start().await;
    let record = world.put(descriptor(), content(20 * MIB)).await;
    let full = world.vault.budget().available();
    let mut slow = Vec::new();
    for _ in 0..4 {
        let connection = narrow(&world, Role::Reader).await;
        for _ in 0..50 {
            slow.push(slow_reader(&connection, &record).await);
        }
    }
    let held = full - world.vault.budget().available();
    assert!(held > 0, "they do hold something");
    // Of the same tenant, and of another.
    works(&world, TENANT).await;
    works(&world, OTHER).await;
    let held = full - world.vault.budget().available();
    assert!(
        held < 100 << 20,
        "{held} bytes are held for readers that read nothing"
    );
    drop(slow);
    let given_back = async {
        while world.vault.budget().available() < full {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, given_back).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_slow_writers_hold_up_nobody() {
    let world = World::start().await;
    let full = world.vault.budget().available();
    let mut slow = Vec::new();
    for _ in 0..4 {
        let connection = narrow(&world, Role::Uploader).await;
        for _ in 0..50 {
            slow.push(slow_writer(&connection).await);
        }
    }
    let all_begun = async {
        while full - world.vault.budget().available() < 200 * (128 << 10) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, all_begun).await.unwrap();
    works(&world, TENANT).await;
    works(&world, OTHER).await;
    drop(slow);
    let given_back = async {
        while world.vault.budget().available() < full {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, given_back).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_calls_leave_places_to_others() {
    let mut plan = Plan::default();
    plan.server.calls_per_tenant = 1;
    let world = World::start_with(plan).await;
    let uploader = world.client(Role::Uploader).await;
    let mut first = uploader.begin_upload(spec(descriptor())).await.unwrap();
    first.write(vec![7; 300].into()).await.unwrap();
    let reader = world.client(Role::Reader).await;
    let refused = async {
        loop {
            match reader.list_records(list_of(TENANT)).await {
                Ok(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                refused => return why(refused),
            }
        }
    };
    let refused = timeout(PATIENCE, refused).await.unwrap();
    assert_eq!(refused, is("TENANT_CALLS", ""));
    reader.list_records(list_of(OTHER)).await.unwrap();
    first.finish(None).await.unwrap();
    let served = async { while reader.list_records(list_of(TENANT)).await.is_err() {} };
    timeout(PATIENCE, served).await.unwrap();
}

fn list_of(tenant: &str) -> ListRecordsRequest {
    ListRecordsRequest {
        tenant_id: tenant.to_owned(),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_fills_its_share_leaves_the_rest_to_others() {
    let world = World::start_with(Plan {
        memory_budget: 64 << 20,
        ..Plan::default()
    })
    .await;
    // More uploads of whole extents than the tenant's share has room for, none of which comes to its end.
    let connection = narrow(&world, Role::Uploader).await;
    let mut held = Vec::new();
    for _ in 0..8 {
        let (answer, mut request) = slow_writer(&connection).await;
        let chunk = put_recording_request::Payload::Chunk(vec![7; MIB].into());
        let message = PutRecordingRequest { payload: Some(chunk) };
        request.send_data(framed(&message), false).unwrap();
        held.push((answer, request));
    }
    works(&world, OTHER).await;
    // Those beyond the share are told, and which limit it was.
    let refused = timeout(PATIENCE, async {
        loop {
            let uploader = world.client(Role::Uploader).await;
            let put = uploader.put_recording(spec(descriptor()), Content::bytes(content(MIB)), None);
            if let Err(error) = put.await {
                return (error.reason().map(str::to_owned), error.to_string());
            }
        }
    })
    .await
    .unwrap();
    assert_eq!(refused.0.as_deref(), Some("MEMORY_BUDGET"));
    assert!(refused.1.contains("limits.tenant_share_percent"), "{}", refused.1);
}
