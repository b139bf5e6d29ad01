//! A server between the store and its bucket that answers by a script: it may refuse, cut, stall, hang up, or lose the
//! bucket's answer.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use aws_smithy_runtime_api::client::dns::{DnsFuture, ResolveDns};
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

use super::{
    super::{S3Store, Settings},
    bucket::{Bucket, Ways},
    open, settings,
};

/// What the server does with a request.
pub(crate) enum Answer {
    /// Hands it to the bucket, and the answer back.
    Forward,
    /// Hands it to the bucket with one bit of its body changed, and the answer back.
    Corrupt,
    /// Hands it to the bucket and hangs up: the answer is lost.
    Lose,
    /// Hands it to the bucket, and back what no store of S3 says.
    Garble,
    /// Answers this, and hangs up.
    Say(Vec<u8>),
    /// Answers this, and says nothing more.
    Stall(Vec<u8>),
    /// Hangs up.
    HangUp,
}

/// A request that came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// Method, target, and headers.
    pub(crate) head: String,
    body: Vec<u8>,
}

impl Request {
    pub(crate) fn is(&self, method: &str) -> bool {
        self.head.starts_with(&format!("{method} "))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(header, _)| header.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }
}

type Rule = dyn Fn(&Request, usize) -> Answer + Send + Sync;

struct Script {
    armed: AtomicBool,
    rule: Box<Rule>,
    seen: Mutex<Vec<Request>>,
    bucket: SocketAddr,
}

/// A store, its bucket, and the script between them.
pub(crate) struct Wire {
    pub(crate) store: S3Store,
    pub(crate) bucket: Bucket,
    pub(crate) keep: TempDir,
    script: Arc<Script>,
}

impl Wire {
    /// Everything is forwarded until the store is open. The rule is told how many requests came before, of those since.
    pub(crate) async fn new(
        ways: Ways,
        rule: impl Fn(&Request, usize) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self::with(ways, |_| {}, rule).await
    }

    pub(crate) async fn with(
        ways: Ways,
        change: impl FnOnce(&mut Settings),
        rule: impl Fn(&Request, usize) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let (bucket, keep) = (Bucket::new(ways), TempDir::new().unwrap());
        let script = Script::new(bucket.serve().await, rule);
        let address = Arc::clone(&script).serve(None).await;
        let mut settings = settings(&format!("http://{address}"), &keep);
        change(&mut settings);
        let store = open(settings).await.unwrap();
        script.armed.store(true, Ordering::SeqCst);
        Self {
            store,
            bucket,
            keep,
            script,
        }
    }

    /// Over TLS, by a certificate that vouches for itself; only `trusted` stores know it.
    pub(crate) async fn over_tls(
        trusted: bool,
        rule: impl Fn(&Request, usize) -> Answer + Send + Sync + 'static,
    ) -> Result<Self, super::OpenError> {
        Self::over_tls_with(trusted, |_| {}, rule).await
    }

    pub(crate) async fn over_tls_with(
        trusted: bool,
        change: impl FnOnce(&mut Settings),
        rule: impl Fn(&Request, usize) -> Answer + Send + Sync + 'static,
    ) -> Result<Self, super::OpenError> {
        let (bucket, keep) = (Bucket::new(Ways::default()), TempDir::new().unwrap());
        let script = Script::new(bucket.serve().await, rule);
        let (acceptor, pem) = certificate();
        let address = Arc::clone(&script).serve(Some(acceptor)).await;
        let mut settings = settings(&format!("https://localhost:{}", address.port()), &keep);
        let ca_file = keep.path().join("ca.pem");
        let (_, other) = certificate();
        std::fs::write(&ca_file, if trusted { pem } else { other }).unwrap();
        settings.ca_file = Some(ca_file);
        change(&mut settings);
        let store = open(settings).await?;
        script.armed.store(true, Ordering::SeqCst);
        Ok(Self {
            store,
            bucket,
            keep,
            script,
        })
    }

    /// Requests since the store was opened.
    pub(crate) fn seen(&self) -> Vec<Request> {
        self.script.seen.lock().unwrap().clone()
    }
}

impl Script {
    fn new(
        bucket: SocketAddr,
        rule: impl Fn(&Request, usize) -> Answer + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            armed: AtomicBool::new(false),
            rule: Box::new(rule),
            seen: Mutex::default(),
            bucket,
        })
    }

    async fn serve(self: Arc<Self>, tls: Option<TlsAcceptor>) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let (script, tls) = (Arc::clone(&self), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => script.answer(socket).await,
                        Some(tls) => match tls.accept(socket).await {
                            Ok(socket) => script.answer(socket).await,
                            Err(_) => None,
                        },
                    }
                });
            }
        });
        address
    }

    /// Answers one request; every connection has one.
    async fn answer(&self, mut socket: impl AsyncRead + AsyncWrite + Unpin) -> Option<()> {
        let request = read(&mut socket).await?;
        let answer = if self.armed.load(Ordering::SeqCst) {
            let mut seen = self.seen.lock().unwrap();
            seen.push(request.clone());
            (self.rule)(&request, seen.len() - 1)
        } else {
            Answer::Forward
        };
        match answer {
            Answer::Forward => socket.write_all(&self.forward(&request).await?).await.ok()?,
            Answer::Corrupt => {
                let mut request = request.clone();
                request.body[0] ^= 1;
                socket.write_all(&self.forward(&request).await?).await.ok()?;
            }
            Answer::Garble => {
                self.forward(&request).await?;
                let garbled = b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\nconnection: close\r\n\r\n<What/>";
                socket.write_all(garbled).await.ok()?;
            }
            Answer::Lose => drop(self.forward(&request).await?),
            Answer::Say(bytes) => socket.write_all(&bytes).await.ok()?,
            Answer::Stall(bytes) => {
                socket.write_all(&bytes).await.ok()?;
                socket.flush().await.ok()?;
                tokio::time::sleep(Duration::from_secs(60)).await;
            }
            Answer::HangUp => {}
        }
        socket.shutdown().await.ok()
    }

    async fn forward(&self, request: &Request) -> Option<Vec<u8>> {
        let mut upstream = TcpStream::connect(self.bucket).await.ok()?;
        let head = request.head.replacen("\r\n", "\r\nconnection: close\r\n", 1);
        upstream.write_all(head.as_bytes()).await.ok()?;
        upstream.write_all(&request.body).await.ok()?;
        let mut answer = Vec::new();
        upstream.read_to_end(&mut answer).await.ok()?;
        Some(answer)
    }
}

async fn read(socket: &mut (impl AsyncRead + Unpin)) -> Option<Request> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
        if socket.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let body = bytes.split_off(end);
    let mut request = Request {
        head: String::from_utf8(bytes).unwrap(),
        body,
    };
    let length = request.header("content-length").map_or(0, |n| n.parse().unwrap());
    while request.body.len() < length {
        if socket.read_buf(&mut request.body).await.ok()? == 0 {
            return None;
        }
    }
    Some(request)
}

/// Every name is this machine's.
#[derive(Clone, Debug)]
pub(crate) struct Loopback;

impl ResolveDns for Loopback {
    fn resolve_dns<'a>(&'a self, _: &'a str) -> DnsFuture<'a> {
        DnsFuture::ready(Ok(vec![Ipv4Addr::LOCALHOST.into()]))
    }
}

/// A certificate for `localhost` and a bucket there, as a server and as an authority.
fn certificate() -> (TlsAcceptor, String) {
    let names = [
        "localhost".to_owned(),
        format!("{}.localhost", super::bucket::NAME),
    ];
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = rustls_pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), made.cert.pem())
}

/// An error as S3 words it.
pub(crate) fn refusal(status: u16, code: &str) -> Answer {
    let body =
        format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>scripted</Message></Error>");
    said(status, "content-type: application/xml\r\n", body.as_bytes())
}

/// A whole answer.
pub(crate) fn said(status: u16, headers: &str, body: &[u8]) -> Answer {
    let head = format!(
        "HTTP/1.1 {status} Scripted\r\ncontent-length: {}\r\n{headers}connection: close\r\n\r\n",
        body.len()
    );
    Answer::Say([head.as_bytes(), body].concat())
}
