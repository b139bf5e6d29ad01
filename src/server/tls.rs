//! TLS 1.3 with client certificates; certificates can be replaced while the server runs.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
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
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval},
};
use tokio_rustls::TlsAcceptor;

use crate::{config::Tls, telemetry};

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

    /// Reads the files again at every SIGHUP, and soon after they change on disk, until this is dropped; a failure is logged and
    /// counted, and what was read before stays in use.
    ///
    /// `every` is how often the files are looked at: their lengths, times and inodes.
    ///
    /// # Errors
    /// [`io::Error`] if signals cannot be listened to.
    pub fn follow(self: &Arc<Self>, files: Tls, every: Duration) -> io::Result<()> {
        let mut hangup = signal(SignalKind::hangup())?;
        let tls = Arc::downgrade(self);
        let mut seen = Stamps::of(&files);
        tokio::spawn(async move {
            let mut ticks = interval(every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                let asked = tokio::select! {
                    hung_up = hangup.recv() => hung_up.is_some(),
                    _ = ticks.tick() => false,
                };
                let Some(tls) = tls.upgrade() else { return };
                // Looked at before they are read: what changes in between is read once more.
                let now = Stamps::of(&files);
                if asked || now != seen {
                    tls.read_again(&files);
                    seen = now;
                }
            }
        });
        Ok(())
    }

    fn read_again(&self, files: &Tls) {
        let outcome = match self.reload(files) {
            Ok(()) => {
                tracing::info!("certificates were read again");
                "ok"
            }
            Err(error) => {
                tracing::error!(%error, "certificates stay as they were");
                "failed"
            }
        };
        metrics::counter!(telemetry::CERTIFICATES_READ, "outcome" => outcome).increment(1);
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.0.load_full())
    }
}

/// What tells that a file is another one: its time, length and inode; `None` for one that is not there.
#[derive(Debug, PartialEq, Eq)]
struct Stamps([Option<(SystemTime, u64, u64)>; 3]);

impl Stamps {
    /// Three calls to the system, which do not wait for a disk.
    fn of(files: &Tls) -> Self {
        let stamp = |path: &Path| {
            let found = fs::metadata(path).ok()?;
            Some((found.modified().ok()?, found.len(), found.ino()))
        };
        Self([&files.certificate, &files.key, &files.client_ca].map(|path| stamp(path)))
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
