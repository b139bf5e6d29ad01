//! The connection: TCP, TLS with the caller's certificate, HTTP/2 with the server's own settings.

use std::{
    future::Future,
    io,
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::{RootCertStore, crypto::ring};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Channel, Endpoint};

use super::{ClientConfig, ClientError, ConfigError};

/// As the server's: large frames halve the work per byte.
const FRAME_BYTES: u32 = 1 << 20;
/// What one download may be ahead of its reader.
const STREAM_WINDOW_BYTES: u32 = 8 << 20;
/// Many times the window of a stream, so that a slow reader does not stall the others.
const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// Between pings while calls run: a server that vanished is noticed.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_DEADLINE: Duration = Duration::from_secs(10);
const DEFAULT_PORT: u16 = 443;

/// A channel that is connected.
pub(super) async fn channel(config: &ClientConfig) -> Result<Channel, ClientError> {
    let uri: Uri = config.endpoint.parse().map_err(|_| ConfigError::Endpoint)?;
    let connector = Connector::new(config, &uri)?;
    let endpoint = Endpoint::from(uri)
        .connect_timeout(CONNECT_DEADLINE)
        .max_frame_size(FRAME_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_DEADLINE);
    Ok(endpoint.connect_with_connector(connector).await?)
}

/// Opens TLS connections to one server, under one identity.
#[derive(Clone)]
struct Connector {
    tls: TlsConnector,
    server: ServerName<'static>,
    host: Arc<str>,
    port: u16,
}

impl Connector {
    fn new(config: &ClientConfig, uri: &Uri) -> Result<Self, ConfigError> {
        let host = uri.host().filter(|_| uri.scheme_str() == Some("https"));
        let host = host.ok_or(ConfigError::Endpoint)?.trim_matches(['[', ']']);
        let name = config.server_name.as_deref().unwrap_or(host).to_owned();
        Ok(Self {
            tls: TlsConnector::from(Arc::new(tls(config)?)),
            server: ServerName::try_from(name).map_err(|_| ConfigError::Endpoint)?,
            host: host.into(),
            port: uri.port_u16().unwrap_or(DEFAULT_PORT),
        })
    }

    async fn open(self) -> io::Result<TokioIo<TlsStream<TcpStream>>> {
        let socket = TcpStream::connect((&*self.host, self.port)).await?;
        socket.set_nodelay(true)?;
        Ok(TokioIo::new(self.tls.connect(self.server, socket).await?))
    }
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        Box::pin(self.clone().open())
    }
}

fn tls(config: &ClientConfig) -> Result<rustls::ClientConfig, ConfigError> {
    let mut roots = RootCertStore::empty();
    for authority in certificates(&config.ca)? {
        roots.add(authority)?;
    }
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots);
    let mut tls = match config.identity.pair()? {
        Some((certificate, key_path)) => {
            let key =
                PrivateKeyDer::from_pem_file(key_path).map_err(|source| unreadable(key_path, source))?;
            builder.with_client_auth_cert(certificates(certificate)?, key)?
        }
        None => builder.with_no_client_auth(),
    };
    tls.alpn_protocols = vec![b"h2".to_vec()];
    Ok(tls)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|source| unreadable(path, source))
}

fn unreadable(path: &Path, source: rustls_pki_types::pem::Error) -> ConfigError {
    ConfigError::Pem {
        path: path.to_owned(),
        source,
    }
}
