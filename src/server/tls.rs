//! TLS 1.3 with client certificates; certificates can be replaced while the server runs.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier},
};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{self, PemObject},
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_rustls::TlsAcceptor;

use crate::config::Tls;

/// The configuration that new connections are accepted with.
#[derive(Debug)]
pub struct ServerTls(ArcSwap<ServerConfig>);

impl ServerTls {
    /// From files of PEM.
    ///
    /// # Errors
    /// [`TlsError`], naming the file.
    pub fn load(files: &Tls) -> Result<Self, TlsError> {
        Ok(Self(ArcSwap::from_pointee(server_config(files)?)))
    }

    /// Reads the files again; connections that are open keep what they were accepted with until their age ends them.
    ///
    /// # Errors
    /// [`TlsError`]; then the configuration stays as it was.
    pub fn reload(&self, files: &Tls) -> Result<(), TlsError> {
        self.0.store(Arc::new(server_config(files)?));
        Ok(())
    }

    /// Reads the files again at every SIGHUP; a failure is logged, and what was read before stays in use.
    ///
    /// # Errors
    /// [`io::Error`] if signals cannot be listened to.
    pub fn reload_on_hangup(self: Arc<Self>, files: Tls) -> io::Result<()> {
        let mut hangup = signal(SignalKind::hangup())?;
        tokio::spawn(async move {
            while hangup.recv().await.is_some() {
                match self.reload(&files) {
                    Ok(()) => tracing::info!("certificates were read again"),
                    Err(error) => tracing::error!(%error, "certificates stay as they were"),
                }
            }
        });
        Ok(())
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.0.load_full())
    }
}

/// The one cryptography provider, named wherever rustls is configured.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn server_config(files: &Tls) -> Result<ServerConfig, TlsError> {
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(authorities(&files.client_ca)?), provider())
            .build()?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(&files.certificate)?, private_key(&files.key)?)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session would skip the verification of the client's certificate against today's authorities and clock;
    // connections are long-lived, so whole handshakes cost nothing that matters.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn authorities(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(path)? {
        store.add(certificate)?;
    }
    Ok(store)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|source| TlsError::unreadable(path, source))?;
    if all.is_empty() {
        return Err(TlsError::unreadable(path, pem::Error::NoItemsFound));
    }
    Ok(all)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|source| TlsError::unreadable(path, source))
}

/// Why TLS cannot be configured.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is missing, unreadable or not PEM of the right kind.
    #[error("cannot read PEM; check the path, its permissions and its content path={}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// The certificate, the key or both are unfit.
    #[error("certificate and key cannot be used; check that they belong together: {0}")]
    Unfit(#[from] rustls::Error),
    /// No authority can be trusted.
    #[error("tls.client_ca has no certificate that can be trusted: {0}")]
    Authorities(#[from] VerifierBuilderError),
}

impl TlsError {
    fn unreadable(path: &Path, source: pem::Error) -> Self {
        Self::Unreadable {
            path: path.to_owned(),
            source,
        }
    }
}
