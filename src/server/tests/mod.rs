//! A real server on a real socket, with the dev PKI and a tiny service.

mod certificates;
mod client;
mod floods;
mod lasting;
mod limits;
mod raw;
mod revocation;
mod slow;
mod stub;
mod tokens;

use std::{net::Ipv4Addr, time::Duration};

use client::{Client, HEALTH, READ, Reply};
use prost::Message;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use stub::Stub;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
    time::timeout,
};
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::{pki::DevPki, *};
use crate::{
    access::{
        identity::{Callers, Listed},
        policy::PolicySet,
        token::Issuers,
    },
    config::Tls,
    domain::{clock::SystemClock, principal::Role},
    proto::v1::{ReadRecordingRequest, record_service_server::RecordServiceServer},
    telemetry,
};

/// Whoever has a listed certificate, judged by the roles alone.
fn callers(listed: Listed) -> Callers {
    callers_of(listed, Issuers::new([], Arc::new(SystemClock)))
}

fn callers_of(listed: Listed, issuers: Issuers) -> Callers {
    let policies = PolicySet::default_set("MX".parse().unwrap()).unwrap();
    Callers::new(listed, issuers, policies, Arc::new(SystemClock))
}

struct Running {
    api: SocketAddr,
    ops: SocketAddr,
    drain: Drain,
    tls: Arc<ServerTls>,
    callers: Arc<Callers>,
    pki: DevPki,
    health: Health,
    serving: JoinHandle<Result<(), ServeError>>,
    _data: TempDir,
}

impl Running {
    async fn start() -> Self {
        Self::start_with(
            Limits {
                drain_seconds: 1,
                ..Limits::default()
            },
            DevPki::identities().unwrap(),
        )
        .await
    }

    async fn start_with(limits: Limits, identities: Listed) -> Self {
        let data = tempfile::tempdir().unwrap();
        let pki = DevPki::open(data.path(), &SystemClock).unwrap();
        let (files, callers) = (pki.tls(), callers(identities));
        Self::start_among(limits, data, &files, callers).await
    }

    /// With these files, and these callers; its own PKI lies in `data`.
    async fn start_among(limits: Limits, data: TempDir, files: &Tls, callers: Callers) -> Self {
        let pki = DevPki::open(data.path(), &SystemClock).unwrap();
        let tls = Arc::new(ServerTls::load(files).unwrap());
        let callers = Arc::new(callers);
        let drain = Drain::new();
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let server = Server::bind(
            Addresses {
                api: loopback,
                ops: Some(loopback),
            },
            limits,
            Arc::clone(&tls),
            Arc::clone(&callers),
            drain.clone(),
        )
        .await
        .unwrap()
        .with_metrics(telemetry::collect_metrics().unwrap());
        let (api, ops) = (
            server.api_address().unwrap(),
            server.ops_address().unwrap().unwrap(),
        );
        let health = server.health();
        let stub = RecordServiceServer::new(Stub { drain: drain.token() });
        let serving = tokio::spawn(server.run(Routes::new(stub)));
        Self {
            api,
            ops,
            drain,
            tls,
            callers,
            pki,
            health,
            serving,
            _data: data,
        }
    }

    async fn client(&self, role: Role) -> Client {
        Client::connect(self.api, client::config(&self.pki, Some(role)))
            .await
            .unwrap()
    }

    async fn stopped(self) -> Result<(), ServeError> {
        timeout(Duration::from_secs(5), self.serving)
            .await
            .expect("the server must stop")
            .unwrap()
    }
}

fn read(mode: &str) -> Vec<u8> {
    ReadRecordingRequest {
        tenant_id: mode.to_owned(),
        ..Default::default()
    }
    .encode_to_vec()
}

fn serving_status(reply: &Reply) -> i32 {
    HealthCheckResponse::decode(reply.messages[0].as_slice())
        .unwrap()
        .status
}

#[tokio::test]
async fn a_known_certificate_is_served_and_the_service_knows_the_caller() {
    let running = Running::start().await;
    let mut client = running.client(Role::Reader).await;
    let health = client
        .call(HEALTH, &HealthCheckRequest::default().encode_to_vec())
        .await
        .unwrap();
    assert_eq!((health.code, serving_status(&health)), (Code::Ok, 1));
    let read = client.call(READ, &read("who")).await.unwrap();
    assert_eq!(
        (read.code, read.message.as_str()),
        (Code::PermissionDenied, "reader")
    );
}

#[tokio::test]
async fn a_request_with_an_unknown_field_is_refused_by_name() {
    let running = Running::start().await;
    let reply = running
        .client(Role::Reader)
        .await
        .call(READ, &[0x98, 0x06, 0x01])
        .await
        .unwrap();
    assert_eq!(reply.code, Code::InvalidArgument);
    assert_eq!(reply.reason(), "UNKNOWN_FIELD");
}

#[tokio::test]
async fn a_stranger_with_a_valid_certificate_is_unauthenticated() {
    let running = Running::start_with(Limits::default(), Listed::default()).await;
    let reply = running
        .client(Role::Reader)
        .await
        .call(HEALTH, &[])
        .await
        .unwrap();
    assert_eq!(
        (reply.code, reply.reason().as_str()),
        (Code::Unauthenticated, "UNKNOWN_CERTIFICATE")
    );
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused() {
    let running = Running::start().await;
    let config = client::config(&running.pki, None);
    // TLS 1.3 clients finish before the server has looked: the refusal comes with the first read.
    let outcome = match Client::connect(running.api, config).await {
        Ok(mut client) => client.call(HEALTH, &[]).await.map(|reply| reply.code),
        Err(error) => Err(error),
    };
    assert!(outcome.is_err(), "{outcome:?}");
}

#[tokio::test]
async fn a_client_of_another_authority_is_refused() {
    let (running, other) = (Running::start().await, tempfile::tempdir().unwrap());
    let other = DevPki::open(other.path(), &SystemClock).unwrap();
    let config = client::config_of(&running.pki.authority(), Some(other.client(Role::Reader)));
    let outcome = match Client::connect(running.api, config).await {
        Ok(mut client) => client.call(HEALTH, &[]).await.map(|reply| reply.code),
        Err(error) => Err(error),
    };
    assert!(outcome.is_err(), "{outcome:?}");
}

#[tokio::test]
async fn tls_1_2_is_refused() {
    let running = Running::start().await;
    let mut socket = TcpStream::connect(running.api).await.unwrap();
    socket.write_all(&client::hello_of_tls_1_2()).await.unwrap();
    let mut answer = [0; 7];
    socket.read_exact(&mut answer).await.unwrap();
    // An alert, fatal: protocol_version.
    assert_eq!((answer[0], answer[5], answer[6]), (21, 2, 70));
}

#[tokio::test]
async fn a_stalled_handshake_blocks_nobody_and_is_given_up() {
    let limits = Limits {
        handshake_seconds: 1,
        ..Limits::default()
    };
    let running = Running::start_with(limits, DevPki::identities().unwrap()).await;
    let mut stalled = TcpStream::connect(running.api).await.unwrap();
    stalled.write_all(&[22, 3, 1]).await.unwrap();
    let mut client = timeout(Duration::from_millis(900), running.client(Role::Reader))
        .await
        .unwrap();
    assert_eq!(client.call(HEALTH, &[]).await.unwrap().code, Code::Ok);
    let closed = timeout(Duration::from_secs(3), stalled.read(&mut [0; 1]))
        .await
        .unwrap();
    assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
}

#[tokio::test]
async fn garbage_and_vanished_peers_do_not_end_the_loop() {
    let running = Running::start().await;
    for _ in 0..20 {
        drop(TcpStream::connect(running.api).await.unwrap());
        let mut socket = TcpStream::connect(running.api).await.unwrap();
        socket.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    }
    assert_eq!(
        running
            .client(Role::Reader)
            .await
            .call(HEALTH, &[])
            .await
            .unwrap()
            .code,
        Code::Ok
    );
}

#[tokio::test]
async fn connections_are_bounded() {
    let limits = Limits {
        connections: 1,
        ..Limits::default()
    };
    let running = Running::start_with(limits, DevPki::identities().unwrap()).await;
    let mut first = running.client(Role::Reader).await;
    assert_eq!(first.call(HEALTH, &[]).await.unwrap().code, Code::Ok);
    let second = match Client::connect(running.api, client::config(&running.pki, Some(Role::Reader))).await {
        Ok(mut client) => client.call(HEALTH, &[]).await.map(|reply| reply.code),
        Err(error) => Err(error),
    };
    assert!(second.is_err(), "{second:?}");
    assert_eq!(first.call(HEALTH, &[]).await.unwrap().code, Code::Ok);
}

#[tokio::test]
async fn the_plain_port_answers_probes_and_scrapers() {
    let running = Running::start().await;
    let mut client = running.client(Role::Reader).await;
    assert_eq!(
        client.call(READ, &read("who")).await.unwrap().code,
        Code::PermissionDenied
    );
    assert_eq!(client.call(HEALTH, &[]).await.unwrap().code, Code::Ok);

    let mut probe = Client::plain(running.ops).await.unwrap();
    assert_eq!(serving_status(&probe.call(HEALTH, &[]).await.unwrap()), 1);
    assert!(
        client::get(running.ops, "/livez")
            .await
            .starts_with("HTTP/1.1 200")
    );
    assert!(
        client::get(running.ops, "/readyz")
            .await
            .starts_with("HTTP/1.1 200")
    );
    for line in [
        r#"callvault_calls_total{method="/callvault.v1.RecordService/ReadRecording",code="PERMISSION_DENIED"}"#,
        r#"callvault_calls_total{method="/grpc.health.v1.Health/Check",code="OK"}"#,
    ] {
        // A call is counted once its last byte was handed over, so a moment after the client has it.
        let counted = async {
            while !client::get(running.ops, "/metrics").await.contains(line) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(2), counted)
            .await
            .unwrap_or_else(|_| panic!("{line}"));
    }
}

#[tokio::test]
async fn a_drain_lets_a_running_stream_finish_and_health_says_so() {
    let running = Running::start_with(
        Limits {
            drain_seconds: 30,
            ..Limits::default()
        },
        DevPki::identities().unwrap(),
    )
    .await;
    let mut client = running.client(Role::Reader).await;
    let mut stream = client.open(READ, &read("finish")).await.unwrap();
    assert!(stream.message().await.is_some());

    running.drain.begin();
    let mut probe = Client::plain(running.ops).await.unwrap();
    while serving_status(&probe.call(HEALTH, &[]).await.unwrap()) != 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(
        client::get(running.ops, "/readyz")
            .await
            .starts_with("HTTP/1.1 503")
    );
    assert!(
        client::get(running.ops, "/livez")
            .await
            .starts_with("HTTP/1.1 200")
    );
    assert!(
        TcpStream::connect(running.api).await.is_err(),
        "no new connections"
    );

    let reply = stream.finish().await.unwrap();
    assert_eq!((reply.code, reply.messages.len()), (Code::Ok, 1));
    drop(client);
    running.stopped().await.unwrap();
}

#[tokio::test]
async fn a_drain_cuts_what_outlives_its_deadline() {
    let running = Running::start().await;
    let mut client = running.client(Role::Reader).await;
    let mut stream = client.open(READ, &read("for-ever")).await.unwrap();
    assert!(stream.message().await.is_some());
    running.drain.begin();
    let cut = timeout(Duration::from_secs(4), stream.finish())
        .await
        .expect("the stream must be cut");
    let cut = cut.expect_err("a cut stream never looks whole");
    assert!(!cut.is::<tokio::time::error::Elapsed>(), "{cut}");
    running.stopped().await.unwrap();
}

#[tokio::test]
async fn a_watcher_of_health_does_not_hold_up_the_drain() {
    let running = Running::start_with(
        Limits {
            drain_seconds: 30,
            ..Limits::default()
        },
        DevPki::identities().unwrap(),
    )
    .await;
    let mut client = running.client(Role::Support).await;
    let mut watch = client.open("/grpc.health.v1.Health/Watch", &[]).await.unwrap();
    assert!(watch.message().await.is_some());
    running.drain.begin();
    drop(client);
    watch.finish().await.unwrap();
    running.stopped().await.unwrap();
}

#[tokio::test]
async fn replaced_certificates_are_used_for_new_connections() {
    let (running, other) = (Running::start().await, tempfile::tempdir().unwrap());
    let mut old = running.client(Role::Reader).await;
    let first = old.server_certificate.clone();
    let next = DevPki::open(other.path(), &SystemClock).unwrap();
    let both = [running.pki.authority(), next.authority()].map(|path| std::fs::read(path).unwrap());
    let bundle = other.path().join("both.pem");
    std::fs::write(&bundle, both.concat()).unwrap();
    let files = Tls {
        client_ca: bundle,
        ..next.tls()
    };
    running.tls.reload(&files).unwrap();

    let new = Client::connect(running.api, client::config(&next, Some(Role::Reader)))
        .await
        .unwrap();
    assert_ne!(new.server_certificate, first);
    let leaf = CertificateDer::from_pem_file(next.tls().certificate).unwrap();
    assert_eq!(new.server_certificate, leaf);
    assert_eq!(
        old.call(HEALTH, &[]).await.unwrap().code,
        Code::Ok,
        "open connections go on"
    );
}

#[tokio::test]
async fn a_failed_reload_changes_nothing() {
    let running = Running::start().await;
    let mut files = running.pki.tls();
    files.key = running.pki.client(Role::Reader).1;
    assert!(
        running.tls.reload(&files).is_err(),
        "the key of another certificate"
    );
    files.key = "/nowhere".into();
    assert!(
        running
            .tls
            .reload(&files)
            .unwrap_err()
            .to_string()
            .contains("/nowhere")
    );
    assert_eq!(
        running
            .client(Role::Reader)
            .await
            .call(HEALTH, &[])
            .await
            .unwrap()
            .code,
        Code::Ok
    );
}
