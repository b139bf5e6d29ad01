//! A bucket in memory that speaks as much S3 as a vault asks, over TLS and HTTP/1.1 as AWS does. It keeps the pieces of a body as
//! they came, copies and checks nothing, and looks at no signature: what it costs is not to be measured.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    response::Response,
};
use bytes::Bytes;
use callvault::{domain::clock::SystemClock, server::pki::DevPki};
use futures_util::{StreamExt, stream};
use http::{Method, StatusCode, header};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{Failure, process::Process};

/// PUTs so far, of objects and of parts.
pub(crate) async fn puts(bucket: &Process) -> Result<u64, Failure> {
    let address = bucket.said.strip_prefix("counts=").ok_or("no counts")?;
    let mut text = String::new();
    let mut stream = TcpStream::connect(address).await?;
    tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut text).await?;
    Ok(text.trim().parse()?)
}

/// Serves until the process is killed.
pub(crate) async fn serve(home: &Path, pause: Duration) -> Result<(), Failure> {
    let bucket = Arc::new(Bucket {
        pause,
        ..Bucket::default()
    });
    let listener = TlsListener::bind(home).await?;
    let counts = TcpListener::bind("127.0.0.1:0").await?;
    println!(
        "ready listening=localhost:{} counts={}",
        listener.address.port(),
        counts.local_addr()?
    );
    tokio::spawn(tell(counts, Arc::clone(&bucket)));
    axum::serve(listener, Router::new().fallback(answer).with_state(bucket)).await?;
    Ok(())
}

async fn tell(counts: TcpListener, bucket: Arc<Bucket>) {
    while let Ok((mut stream, _)) = counts.accept().await {
        let text = bucket.puts.load(Ordering::Relaxed).to_string();
        let _ = stream.write_all(text.as_bytes()).await;
    }
}

/// Connections whose handshake is over.
struct TlsListener {
    ready: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    address: SocketAddr,
}

impl TlsListener {
    async fn bind(home: &Path) -> Result<Self, Failure> {
        let files = DevPki::open(home, &SystemClock)?.tls();
        let chain = CertificateDer::pem_file_iter(&files.certificate)?.collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_file(&files.key)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (sender, ready) = mpsc::channel(64);
        tokio::spawn(async move {
            while let Ok((stream, peer)) = listener.accept().await {
                let (acceptor, sender) = (acceptor.clone(), sender.clone());
                tokio::spawn(async move {
                    let _ = stream.set_nodelay(true);
                    if let Ok(stream) = acceptor.accept(stream).await {
                        let _ = sender.send((stream, peer)).await;
                    }
                });
            }
        });
        Ok(Self { ready, address })
    }
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(ready) => ready,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        Ok(self.address)
    }
}

#[derive(Default)]
struct Bucket {
    /// Before a PUT is answered.
    pause: Duration,
    puts: AtomicU64,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    objects: BTreeMap<String, Object>,
    uploads: BTreeMap<String, BTreeMap<u32, Object>>,
    ids: u64,
}

#[derive(Clone, Default)]
struct Object {
    pieces: Vec<Bytes>,
    length: usize,
}

impl Object {
    fn push(&mut self, piece: Bytes) {
        self.length += piece.len();
        self.pieces.push(piece);
    }

    /// The pieces of `length` bytes from `from` on, uncopied.
    fn slice(&self, mut from: usize, mut length: usize) -> Vec<Bytes> {
        let mut slices = Vec::new();
        for piece in &self.pieces {
            if from >= piece.len() {
                from -= piece.len();
                continue;
            }
            let take = length.min(piece.len() - from);
            slices.push(piece.slice(from..from + take));
            (from, length) = (0, length - take);
            if length == 0 {
                break;
            }
        }
        slices
    }
}

impl Bucket {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn answer(State(bucket): State<Arc<Bucket>>, request: Request) -> Response {
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let path = request.uri().path().trim_start_matches('/');
    let key = path.split_once('/').map_or("", |(_, key)| key).to_owned();
    match (request.method().clone(), key.is_empty()) {
        (Method::PUT, false) => put(&bucket, key, &query, request.into_body()).await,
        (Method::POST, false) => post(&bucket, key, &query),
        (Method::GET, true) if query.has("list-type") => list(&bucket, &query),
        (Method::GET, true) if query.has("uploads") => xml("<ListMultipartUploadsResult/>".to_owned()),
        (Method::GET, true) if query.has("versions") => xml("<ListVersionsResult/>".to_owned()),
        (Method::GET, false) if query.0.keys().all(|k| k == "x-id") => get(&bucket, &key, &request),
        (Method::HEAD, false) => head(&bucket, &key),
        (Method::DELETE, false) => delete(&bucket, &key, &query),
        _ => refuse(StatusCode::NOT_IMPLEMENTED, "NotImplemented"),
    }
}

async fn put(bucket: &Bucket, key: String, query: &Query, body: Body) -> Response {
    bucket.puts.fetch_add(1, Ordering::Relaxed);
    let mut object = Object::default();
    let mut pieces = body.into_data_stream();
    while let Some(piece) = pieces.next().await {
        match piece {
            Ok(piece) => object.push(piece),
            Err(_) => return refuse(StatusCode::BAD_REQUEST, "IncompleteBody"),
        }
    }
    tokio::time::sleep(bucket.pause).await;
    let mut held = bucket.held();
    match (query.get("uploadId"), query.get("partNumber")) {
        (Some(id), Some(number)) => {
            let Some(upload) = held.uploads.get_mut(id) else {
                return refuse(StatusCode::NOT_FOUND, "NoSuchUpload");
            };
            upload.insert(number.parse().unwrap_or(0), object);
        }
        _ => {
            held.objects.insert(key, object);
        }
    }
    respond(
        StatusCode::OK,
        Body::empty(),
        &[(header::ETAG, "\"tag\"".to_owned())],
    )
}

fn post(bucket: &Bucket, key: String, query: &Query) -> Response {
    let mut held = bucket.held();
    let Some(id) = query.get("uploadId") else {
        held.ids += 1;
        let id = format!("upload-{}", held.ids);
        held.uploads.insert(id.clone(), BTreeMap::new());
        return xml(format!(
            "<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
        ));
    };
    let Some(parts) = held.uploads.remove(id) else {
        return refuse(StatusCode::NOT_FOUND, "NoSuchUpload");
    };
    let mut whole = Object::default();
    for piece in parts.into_values().flat_map(|part| part.pieces) {
        whole.push(piece);
    }
    held.objects.insert(key, whole);
    xml("<CompleteMultipartUploadResult><ETag>\"tag\"</ETag></CompleteMultipartUploadResult>".to_owned())
}

fn get(bucket: &Bucket, key: &str, request: &Request) -> Response {
    let Some(object) = bucket.held().objects.get(key).cloned() else {
        return refuse(StatusCode::NOT_FOUND, "NoSuchKey");
    };
    let range = request
        .headers()
        .get(header::RANGE)
        .and_then(|range| range.to_str().ok());
    let Some((from, length)) = range.map_or(Some((0, object.length)), |range| within(range, object.length))
    else {
        return refuse(StatusCode::RANGE_NOT_SATISFIABLE, "InvalidRange");
    };
    let said = format!(
        "bytes {from}-{}/{}",
        (from + length).saturating_sub(1),
        object.length
    );
    let pieces = object
        .slice(from, length)
        .into_iter()
        .map(Ok::<_, std::io::Error>);
    let mut headers = vec![(header::CONTENT_LENGTH, length.to_string())];
    let status = if range.is_some() {
        headers.push((header::CONTENT_RANGE, said));
        StatusCode::PARTIAL_CONTENT
    } else {
        StatusCode::OK
    };
    respond(status, Body::from_stream(stream::iter(pieces)), &headers)
}

/// First byte and length of `bytes=a-b`, `bytes=a-` or `bytes=-n`.
fn within(range: &str, length: usize) -> Option<(usize, usize)> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    if first.is_empty() {
        let suffix = last.parse::<usize>().ok()?.min(length);
        return (suffix > 0).then_some((length - suffix, suffix));
    }
    let first: usize = first.parse().ok()?;
    let last = last.parse().unwrap_or(usize::MAX).min(length.checked_sub(1)?);
    (first <= last).then(|| (first, last - first + 1))
}

fn head(bucket: &Bucket, key: &str) -> Response {
    match bucket.held().objects.get(key) {
        Some(object) => {
            let length = (header::CONTENT_LENGTH, object.length.to_string());
            respond(StatusCode::OK, Body::empty(), &[length])
        }
        None => respond(StatusCode::NOT_FOUND, Body::empty(), &[]),
    }
}

fn delete(bucket: &Bucket, key: &str, query: &Query) -> Response {
    let mut held = bucket.held();
    match query.get("uploadId") {
        Some(id) => drop(held.uploads.remove(id)),
        None => drop(held.objects.remove(key)),
    }
    respond(StatusCode::NO_CONTENT, Body::empty(), &[])
}

/// Names under a prefix, folded at a delimiter; the token is the last name that was told.
fn list(bucket: &Bucket, query: &Query) -> Response {
    let held = bucket.held();
    let prefix = query.get("prefix").unwrap_or_default();
    let after = query.get("continuation-token").unwrap_or_default();
    let limit = query
        .get("max-keys")
        .and_then(|n| n.parse().ok())
        .unwrap_or(1_000);
    let fold = |name: &str| {
        let delimiter = query.get("delimiter")?;
        let end = name[prefix.len()..].find(delimiter)? + prefix.len() + delimiter.len();
        Some(name[..end].to_owned())
    };
    let (mut told, mut last, mut truncated) = (String::new(), None, false);
    let mut count = 0;
    let named = held.objects.range(prefix.to_owned()..);
    for (name, object) in named.take_while(|(name, _)| name.starts_with(prefix)) {
        let folded = fold(name);
        let entry = folded.as_deref().unwrap_or(name);
        if entry <= after || last.as_deref() == Some(entry) {
            continue;
        }
        if count == limit {
            truncated = true;
            break;
        }
        count += 1;
        told += &match &folded {
            Some(prefix) => format!("<CommonPrefixes><Prefix>{prefix}</Prefix></CommonPrefixes>"),
            None => format!(
                "<Contents><Key>{name}</Key><Size>{}</Size>\
                 <LastModified>2026-11-24T00:00:00.000Z</LastModified></Contents>",
                object.length
            ),
        };
        last = Some(entry.to_owned());
    }
    let next = last
        .filter(|_| truncated)
        .map(|last| format!("<NextContinuationToken>{last}</NextContinuationToken>"));
    xml(format!(
        "<ListBucketResult><IsTruncated>{truncated}</IsTruncated>{}{told}</ListBucketResult>",
        next.unwrap_or_default()
    ))
}

fn xml(text: String) -> Response {
    let kind = (header::CONTENT_TYPE, "application/xml".to_owned());
    respond(StatusCode::OK, Body::from(text), &[kind])
}

fn refuse(status: StatusCode, code: &str) -> Response {
    let text = format!("<Error><Code>{code}</Code><Message>{code}</Message></Error>");
    respond(status, Body::from(text), &[])
}

fn respond(status: StatusCode, body: Body, headers: &[(http::HeaderName, String)]) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    for (name, value) in headers {
        if let Ok(value) = value.parse() {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// What stands behind the question mark.
struct Query(BTreeMap<String, String>);

impl Query {
    fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs
                .map(|pair| {
                    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (key.to_owned(), decode(value))
                })
                .collect(),
        )
    }

    fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }
}

/// Percent-encoding; what is malformed stays as it is.
fn decode(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((&first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) if first == b'%' => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
