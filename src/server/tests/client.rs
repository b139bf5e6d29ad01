//! A gRPC client of a few lines, on h2 alone, so that the server's own library does not test itself.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use bytes::{Buf, Bytes, BytesMut};
use h2::{RecvStream, client::SendRequest};
use http::{HeaderMap, Request};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::{Duration, timeout},
};
use tokio_rustls::TlsConnector;
use tonic::Code;
use tonic_types::StatusExt;

use crate::{
    domain::principal::Role,
    server::{pki::DevPki, tls},
};

pub(super) const HEALTH: &str = "/grpc.health.v1.Health/Check";
pub(super) const READ: &str = "/callvault.v1.RecordService/ReadRecording";
pub(super) const GET: &str = "/callvault.v1.RecordService/GetRecord";
pub(super) const PUT: &str = "/callvault.v1.RecordService/PutRecording";

/// A server that breaks fails its tests; it never hangs them.
const PATIENCE: Duration = Duration::from_secs(8);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

pub(super) struct Client {
    requests: SendRequest<Bytes>,
    pub(super) server_certificate: CertificateDer<'static>,
}

pub(super) struct Call {
    head: HeaderMap,
    body: RecvStream,
    buffer: BytesMut,
}

#[derive(Debug)]
pub(super) struct Reply {
    pub(super) code: Code,
    pub(super) message: String,
    pub(super) messages: Vec<Vec<u8>>,
    details: Vec<u8>,
}

pub(super) fn config(pki: &DevPki, role: Option<Role>) -> ClientConfig {
    config_of(&pki.authority(), role.map(|role| pki.client(role)))
}

pub(super) fn config_of(authority: &Path, client: Option<(PathBuf, PathBuf)>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(authority).unwrap())
        .unwrap();
    let builder = ClientConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match client {
        Some((certificate, key)) => {
            let chain = vec![CertificateDer::from_pem_file(certificate).unwrap()];
            builder
                .with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(key).unwrap())
                .unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

impl Client {
    pub(super) async fn connect(address: SocketAddr, config: ClientConfig) -> Result<Self, BoxError> {
        let socket = TcpStream::connect(address).await?;
        let name = ServerName::try_from("localhost")?;
        let stream = TlsConnector::from(Arc::new(config)).connect(name, socket).await?;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let server_certificate = stream.get_ref().1.peer_certificates().unwrap()[0]
            .clone()
            .into_owned();
        Ok(Self {
            requests: handshake(stream).await?,
            server_certificate,
        })
    }

    pub(super) async fn plain(address: SocketAddr) -> Result<Self, BoxError> {
        let requests = handshake(TcpStream::connect(address).await?).await?;
        Ok(Self {
            requests,
            server_certificate: CertificateDer::from(Vec::new()),
        })
    }

    pub(super) async fn call(&mut self, path: &str, message: &[u8]) -> Result<Reply, BoxError> {
        self.open(path, message).await?.finish().await
    }

    pub(super) async fn open(&mut self, path: &str, message: &[u8]) -> Result<Call, BoxError> {
        self.open_with(path, message, &[]).await
    }

    /// Sends the beginning of a request.
    pub(super) async fn begin(&mut self, path: &str, bytes: &[u8]) -> Result<Begun, BoxError> {
        let request = Request::post(format!("https://localhost{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())?;
        let mut requests = self.requests.clone().ready().await?;
        let (response, mut sending) = requests.send_request(request, false)?;
        sending.send_data(bytes.to_vec().into(), false)?;
        Ok(Begun {
            response,
            _request: sending,
        })
    }

    pub(super) async fn call_with(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Reply, BoxError> {
        self.open_with(path, &[], headers).await?.finish().await
    }

    pub(super) async fn open_with(
        &mut self,
        path: &str,
        message: &[u8],
        headers: &[(&str, &str)],
    ) -> Result<Call, BoxError> {
        let mut request = Request::post(format!("https://localhost{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(())?;
        let mut requests = self.requests.clone().ready().await?;
        let (response, mut body) = requests.send_request(request, false)?;
        let mut framed = vec![0];
        framed.extend_from_slice(&u32::try_from(message.len())?.to_be_bytes());
        framed.extend_from_slice(message);
        // Who is refused may be so before it has said all.
        let _ = body.send_data(framed.into(), true);
        let (head, body) = timeout(PATIENCE, response).await??.into_parts();
        if head.status != http::StatusCode::OK {
            return Err(head.status.to_string().into());
        }
        Ok(Call {
            head: head.headers,
            body,
            buffer: BytesMut::new(),
        })
    }
}

/// A request whose end has not been sent.
pub(super) struct Begun {
    response: h2::client::ResponseFuture,
    _request: h2::SendStream<Bytes>,
}

impl Begun {
    pub(super) async fn finish(self) -> Result<Reply, BoxError> {
        let (head, body) = timeout(PATIENCE, self.response).await??.into_parts();
        let call = Call {
            head: head.headers,
            body,
            buffer: BytesMut::new(),
        };
        call.finish().await
    }
}

impl Call {
    /// The next message; `None` at the end.
    pub(super) async fn message(&mut self) -> Option<Vec<u8>> {
        self.next().await.unwrap()
    }

    pub(super) async fn finish(mut self) -> Result<Reply, BoxError> {
        let mut messages = Vec::new();
        while let Some(message) = self.next().await? {
            messages.push(message);
        }
        let trailers = self.body.trailers().await?.unwrap_or(self.head);
        let text = |key: &str| trailers.get(key).map(|v| v.to_str().unwrap().to_owned());
        let code = text("grpc-status").ok_or("no status")?;
        let details = text("grpc-status-details-bin").unwrap_or_default();
        Ok(Reply {
            code: Code::from_bytes(code.as_bytes()),
            message: text("grpc-message").unwrap_or_default(),
            messages,
            details: STANDARD_NO_PAD.decode(details.trim_end_matches('='))?,
        })
    }

    async fn next(&mut self) -> Result<Option<Vec<u8>>, BoxError> {
        loop {
            if self.buffer.len() >= 5 {
                let len = (&self.buffer[1..5]).get_u32() as usize;
                if self.buffer.len() >= 5 + len {
                    return Ok(Some(self.buffer.split_to(5 + len)[5..].to_vec()));
                }
            }
            let Some(data) = timeout(PATIENCE, self.body.data()).await?.transpose()? else {
                return Ok(None);
            };
            self.body.flow_control().release_capacity(data.len())?;
            self.buffer.extend_from_slice(&data);
        }
    }
}

impl Reply {
    /// The reason in the status's ErrorInfo.
    pub(super) fn reason(&self) -> String {
        let info = self.status().get_details_error_info();
        info.map(|info| info.reason).unwrap_or_default()
    }

    /// When the status's RetryInfo says to come back.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        self.status().get_details_retry_info()?.retry_delay
    }

    fn status(&self) -> tonic::Status {
        tonic::Status::with_details(self.code, "", self.details.clone().into())
    }
}

async fn handshake(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<SendRequest<Bytes>, BoxError> {
    let (requests, connection) = h2::client::handshake(io).await?;
    tokio::spawn(connection);
    Ok(requests)
}

/// A plain HTTP/1.1 request's whole answer.
pub(super) async fn get(address: SocketAddr, path: &str) -> String {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer
}

/// A ClientHello that offers TLS 1.2 at most (RFC 5246 section 7.4.1.2).
pub(super) fn hello_of_tls_1_2() -> Vec<u8> {
    let extensions: Vec<u8> = [
        &[0x00, 0x0a, 0, 4, 0, 2, 0x00, 0x17][..], // supported_groups: secp256r1
        &[0x00, 0x0d, 0, 4, 0, 2, 0x04, 0x03],     // signature_algorithms: ecdsa_secp256r1_sha256
        &[0x00, 0x0b, 0, 2, 1, 0],                 // ec_point_formats: uncompressed
    ]
    .concat();
    let mut body = vec![3, 3];
    body.extend_from_slice(&[7; 32]); // random
    body.extend_from_slice(&[0, 0, 2, 0xc0, 0x2b, 1, 0]); // no session, ECDHE-ECDSA-AES128-GCM-SHA256, no compression
    body.extend_from_slice(&u16::try_from(extensions.len()).unwrap().to_be_bytes());
    body.extend_from_slice(&extensions);
    let mut hello = vec![1, 0];
    hello.extend_from_slice(&u16::try_from(body.len()).unwrap().to_be_bytes());
    hello.extend_from_slice(&body);
    let mut record = vec![22, 3, 1];
    record.extend_from_slice(&u16::try_from(hello.len()).unwrap().to_be_bytes());
    record.extend_from_slice(&hello);
    record
}
