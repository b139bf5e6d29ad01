//! TLS 1.3 with client certificates; certificates can be replaced while the server runs.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    server::{
        NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier, danger::ClientCertVerifier,
    },
};
use rustls_pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime,
    pem::{self, PemObject},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::{MissedTickBehavior, interval},
};
use tokio_rustls::TlsAcceptor;
use x509_parser::prelude::FromDer;

use crate::{
    access::identity::PeerCertificate,
    config::{ClientCertificates, Stamps, Tls},
    telemetry,
};

/// RFC 5280 section 5.2.5.
const ISSUING_DISTRIBUTION_POINT: x509_parser::der_parser::oid::Oid<'static> =
    x509_parser::oid_registry::OID_X509_EXT_ISSUER_DISTRIBUTION_POINT;

/// The configuration that new connections are accepted with, and by which those that are open are judged again.
#[derive(Debug)]
pub struct ServerTls {
    current: ArcSwap<Current>,
    changed: watch::Sender<()>,
}

#[derive(Debug)]
struct Current {
    config: Arc<ServerConfig>,
    /// Judges those who were let in: as newcomers are judged, but by revocation lists that may be out of date.
    clients: Arc<dyn ClientCertVerifier>,
    /// What told of the files before they were read.
    seen: Stamps,
}

impl ServerTls {
    /// From files of PEM.
    ///
    /// # Errors
    /// [`TlsError`], naming the file.
    pub fn load(files: &Tls) -> Result<Self, TlsError> {
        Ok(Self {
            current: ArcSwap::from_pointee(Current::load(files)?),
            changed: watch::Sender::new(()),
        })
    }

    /// Reads the files again. Connections that are open keep the server's certificate that they were accepted with; their own is
    /// judged by the new authorities and revocation lists, and those that it does not hold before are cut.
    ///
    /// # Errors
    /// [`TlsError`]; then the configuration stays as it was.
    pub fn reload(&self, files: &Tls) -> Result<(), TlsError> {
        self.current.store(Arc::new(Current::load(files)?));
        self.changed.send_replace(());
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
        let mut seen = self.current.load().seen.clone();
        let mut before = seen.clone();
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
                let now = stamps(&files);
                // Whoever is writing a file has not finished it; what could not be read is tried again.
                let settled = now == before;
                before = now.clone();
                if (asked || settled && now != seen) && tls.read_again(&files) {
                    seen = now;
                }
            }
        });
        Ok(())
    }

    fn read_again(&self, files: &Tls) -> bool {
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
        outcome == "ok"
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.current.load().config))
    }

    /// The same for what speaks no HTTP/2.
    #[cfg(test)]
    pub(crate) fn plain_acceptor(&self) -> TlsAcceptor {
        let mut config = ServerConfig::clone(&self.current.load().config);
        config.alpn_protocols.clear();
        TlsAcceptor::from(Arc::new(config))
    }

    /// Changes when files were read again.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Whether a peer that was let in would be today: its certificate is none, or valid, and nobody has revoked it. A revocation
    /// list that is out of date keeps newcomers out; it cuts nobody off who was let in when it was not.
    pub(super) fn still_trusts(&self, peer: &PeerCertificate) -> bool {
        let Some((leaf, above)) = peer.chain().split_first() else {
            return true;
        };
        let judge = Arc::clone(&self.current.load().clients);
        judge.verify_client_cert(leaf, above, UnixTime::now()).is_ok()
    }
}

fn stamps(files: &Tls) -> Stamps {
    let all = [&files.certificate, &files.key, &files.client_ca].into_iter();
    Stamps::of(all.chain(&files.client_crl).map(PathBuf::as_path))
}

/// The one cryptography provider, named wherever rustls is configured.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

impl Current {
    fn load(files: &Tls) -> Result<Self, TlsError> {
        let seen = stamps(files);
        Ok(Self {
            config: Arc::new(server_config(files, clients(files, Lists::InDate)?)?),
            clients: clients(files, Lists::OfAnyDate)?,
            seen,
        })
    }
}

/// What client certificates are judged by. Where there are revocation lists, there must be one in force of every authority of a
/// chain: of a certificate that no list speaks for, nobody knows that it is not revoked.
fn clients(files: &Tls, which: Lists) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let authorities = Arc::new(authorities(&files.client_ca)?);
    let mut verifier = WebPkiClientVerifier::builder_with_provider(authorities, provider());
    if !files.client_crl.is_empty() {
        let mut lists = Vec::new();
        for path in &files.client_crl {
            lists.extend(revocations(path)?);
        }
        must_be_one_of_each(&lists)?;
        verifier = verifier.with_crls(lists);
        if which == Lists::InDate {
            verifier = verifier.enforce_revocation_expiration();
        }
    }
    if files.client_certificates == ClientCertificates::Optional {
        verifier = verifier.allow_unauthenticated();
    }
    Ok(verifier.build()?)
}

/// Which revocation lists count.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lists {
    InDate,
    OfAnyDate,
}

/// Of two lists of one authority and one scope only the first would be looked at: a newer one behind it would revoke nobody.
fn must_be_one_of_each(lists: &[CertificateRevocationListDer<'_>]) -> Result<(), TlsError> {
    let mut seen = BTreeSet::new();
    for list in lists {
        let Ok((_, parsed)) = x509_parser::revocation_list::CertificateRevocationList::from_der(list) else {
            return Err(TlsError::Lists("one is not a revocation list"));
        };
        let scope = parsed
            .extensions()
            .iter()
            .find(|extension| extension.oid == ISSUING_DISTRIBUTION_POINT);
        let scope = scope.map(|extension| extension.value.to_vec());
        if !seen.insert((parsed.issuer().as_raw().to_vec(), scope)) {
            return Err(TlsError::Lists("two are of one authority; give the newest alone"));
        }
    }
    Ok(())
}

fn revocations(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let all = CertificateRevocationListDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|source| TlsError::unreadable(path, source))?;
    if all.is_empty() {
        return Err(TlsError::unreadable(path, pem::Error::NoItemsFound));
    }
    Ok(all)
}

fn server_config(files: &Tls, clients: Arc<dyn ClientCertVerifier>) -> Result<ServerConfig, TlsError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(clients)
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
    /// Revocation lists that do not go together.
    #[error("tls.client_crl: {0}")]
    Lists(&'static str),
    /// No authority can be trusted, or a revocation list cannot be used.
    #[error(
        "tls.client_ca has no certificate that can be trusted, or tls.client_crl a list that cannot be used: {0}"
    )]
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
