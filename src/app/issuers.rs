//! The keys of issuers, from files and over HTTPS: learned at start, looked at again and again, and when a token names one that
//! is not known.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::{net::TcpStream, time};
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use crate::{
    access::token::{Issuer, Issuers, KeySet, KeySetError, SET_BYTES},
    config::{Config, Issuer as Configured, Stamps},
    domain::clock::{Clock, SystemClock},
    server::tls::provider,
    telemetry,
};

use super::AppError;

/// Longest wait for an issuer's answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(2);
/// Between two looks, whoever asks; after a failure twice as long each time.
const LEAST_PAUSE: Duration = Duration::from_millis(1_500);

/// Issuers whose keys are followed as long as this is there.
#[derive(Debug)]
pub(super) struct Following {
    configured: Vec<Configured>,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

/// Where an issuer's keys are.
enum Source {
    File(PathBuf),
    Url(Box<Remote>),
}

struct Remote {
    url: Uri,
    tls: TlsConnector,
}

/// The issuers of a configuration, with the keys that could be had, and what follows them. Those that were followed before keep what is known of
/// them; nobody waits for an issuer but a start.
///
/// # Errors
/// [`AppError`] for a file of keys, or of authorities, that cannot be used. An issuer that does not answer is asked again: whoever
/// comes with a certificate needs none.
pub(super) async fn follow(
    config: &Config,
    before: Option<(&Issuers, &Following)>,
) -> Result<(Issuers, Following), AppError> {
    let mut begun = Vec::new();
    for (spec, configured) in config.issuer_specs()?.into_iter().zip(&config.issuers) {
        let (issuer, source) = (Arc::new(Issuer::new(spec)), Source::of(configured)?);
        let known = before.and_then(|(issuers, following)| following.known(issuers, configured));
        if let Some(known) = known {
            issuer.take_over(known);
        }
        begun.push((issuer, source, known.is_some(), configured));
    }
    let (mut issuers, mut tasks) = (Vec::new(), Vec::new());
    let learning = begun
        .into_iter()
        .map(|(issuer, source, known, configured)| async move {
            // Looked at before it is read: what changes in between is read once more.
            let seen = source.stamps();
            let waits = !known && (before.is_none() || matches!(source, Source::File(_)));
            let learned = if waits {
                Some(source.learn(&issuer).await)
            } else {
                None
            };
            (issuer, source, seen, learned, configured)
        });
    for (issuer, source, seen, learned, configured) in futures_util::future::join_all(learning).await {
        let known = match (learned, &source) {
            (Some(Err(fault)), Source::File(path)) => return Err(unusable(path, fault)),
            (Some(outcome), _) => report(&issuer, outcome),
            (None, _) => false,
        };
        let following = Followed {
            issuer: Arc::clone(&issuer),
            source,
            seen: seen.filter(|_| known),
            refresh: Duration::from_secs(configured.refresh_seconds),
        };
        tasks.push(AbortOnDropHandle::new(tokio::spawn(following.for_ever(known))));
        issuers.push(issuer);
    }
    let issuers = Issuers::new(issuers, Arc::new(SystemClock));
    let following = Following {
        configured: config.issuers.clone(),
        _tasks: tasks,
    };
    Ok((issuers, following))
}

impl Following {
    /// Whether a configuration lists these issuers and no others, and says the same of them.
    pub(super) fn is_of(&self, config: &Config) -> bool {
        self.configured == config.issuers
    }

    /// An issuer that was followed before, if its keys are where they were.
    fn known<'a>(&self, issuers: &'a Issuers, now: &Configured) -> Option<&'a Arc<Issuer>> {
        let same = |before: &&Configured| {
            before.issuer == now.issuer
                && before.jwks_file == now.jwks_file
                && before.jwks_url == now.jwks_url
                && before.jwks_ca == now.jwks_ca
        };
        self.configured.iter().find(same)?;
        issuers.find(&now.issuer)
    }
}

/// One issuer, followed.
struct Followed {
    issuer: Arc<Issuer>,
    source: Source,
    /// The file that its keys were last read from with success; nothing of what is no file.
    seen: Option<Stamps>,
    refresh: Duration,
}

impl Followed {
    async fn for_ever(mut self, mut known: bool) {
        let mut pause = LEAST_PAUSE;
        loop {
            // However many ask, and however quickly it fails: an issuer is not asked all the time.
            time::sleep(if known { LEAST_PAUSE } else { pause }).await;
            if known {
                let every = self.every().saturating_sub(LEAST_PAUSE);
                tokio::select! {
                    () = time::sleep(every) => {}
                    () = self.issuer.asked_for() => {}
                }
            }
            let now = self.source.stamps();
            if known && now.is_some() && now == self.seen {
                // A file that is as it was is as good as one that was read again.
                self.issuer.confirm(SystemClock.now());
                continue;
            }
            known = report(&self.issuer, self.source.learn(&self.issuer).await);
            self.seen = now.filter(|_| known);
            pause = if known {
                LEAST_PAUSE
            } else {
                (pause * 2).min(self.refresh)
            };
        }
    }

    /// How often it is looked at while nobody asks.
    fn every(&self) -> Duration {
        match self.source {
            Source::File(_) => LOOK,
            Source::Url(_) => self.refresh,
        }
    }
}

/// Tells what became of a look at an issuer's keys; returns whether they are known.
fn report(issuer: &Issuer, outcome: Result<(), Fault>) -> bool {
    let name = &issuer.spec().issuer;
    let known = outcome.is_ok();
    match outcome {
        Ok(()) => tracing::debug!(issuer = name, "the keys of an issuer were read"),
        Err(error) => {
            issuer.looked_in_vain(SystemClock.now());
            tracing::error!(issuer = name, %error, "the keys of an issuer stay as they were");
        }
    }
    let outcome = if known { "ok" } else { "failed" };
    metrics::counter!(telemetry::ISSUER_KEYS_READ, "outcome" => outcome).increment(1);
    known
}

impl Source {
    fn of(configured: &Configured) -> Result<Self, AppError> {
        if let Some(path) = &configured.jwks_file {
            return Ok(Self::File(path.clone()));
        }
        let url: Uri = configured
            .jwks_url
            .as_deref()
            .unwrap_or_default()
            .parse()
            .map_err(|_| unusable(Path::new("jwks_url"), Fault::Url))?;
        let ca = configured.jwks_ca.as_deref();
        let tls =
            trusting(ca).map_err(|fault| unusable(ca.unwrap_or_else(|| Path::new("jwks_ca")), fault))?;
        Ok(Self::Url(Box::new(Remote { url, tls })))
    }

    /// What tells that a file is another one; nothing of what is no file.
    fn stamps(&self) -> Option<Stamps> {
        match self {
            Self::File(path) => Some(Stamps::of([path.as_path()])),
            Self::Url(_) => None,
        }
    }

    async fn learn(&self, issuer: &Issuer) -> Result<(), Fault> {
        let text = match self {
            Self::File(path) => Bytes::from(read(path).await?),
            Self::Url(remote) => match time::timeout(PATIENCE, remote.fetch()).await {
                Ok(fetched) => fetched?,
                Err(_) => return Err(Fault::TooSlow),
            },
        };
        issuer.learn(KeySet::parse(&text)?, SystemClock.now());
        Ok(())
    }
}

/// No more than a set may have.
async fn read(path: &Path) -> io::Result<Vec<u8>> {
    use tokio::io::AsyncReadExt;
    let mut text = Vec::new();
    let file = tokio::fs::File::open(path).await?;
    file.take(SET_BYTES as u64 + 1).read_to_end(&mut text).await?;
    Ok(text)
}

impl Remote {
    /// One request on a connection of its own. Redirects are not followed: the configuration says whom to ask.
    async fn fetch(&self) -> Result<Bytes, Fault> {
        let host = self.url.host().ok_or(Fault::Url)?;
        let authority = self.url.authority().ok_or(Fault::Url)?;
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(bare.to_owned()).map_err(|_| Fault::Url)?;
        let socket = TcpStream::connect((bare, self.url.port_u16().unwrap_or(443))).await?;
        let stream = self.tls.connect(name, socket).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let _driving = AbortOnDropHandle::new(tokio::spawn(connection));
        let path = self.url.path_and_query().map_or("/", |path| path.as_str());
        let request = Request::get(path)
            .header(header::HOST, authority.as_str())
            .header(header::ACCEPT, "application/json")
            .body(Empty::<Bytes>::new())
            .map_err(|_| Fault::Url)?;
        let answer = sender.send_request(request).await?;
        if answer.status() != StatusCode::OK {
            return Err(Fault::Answer(answer.status()));
        }
        let body = Limited::new(answer.into_body(), SET_BYTES);
        let body = body.collect().await.map_err(|_| Fault::Cut)?;
        Ok(body.to_bytes())
    }
}

/// TLS 1.2 and 1.3, with these authorities or the system's.
fn trusting(ca: Option<&Path>) -> Result<TlsConnector, Fault> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(path) => {
            for certificate in CertificateDer::pem_file_iter(path).map_err(|_| Fault::Authorities)? {
                roots.add(certificate.map_err(|_| Fault::Authorities)?)?;
            }
        }
        None => {
            // Some may be of kinds that nobody needs.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err(Fault::Authorities);
    }
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

fn unusable(at: &Path, source: Fault) -> AppError {
    AppError::Issuer {
        at: at.to_owned(),
        source,
    }
}

/// Why an issuer's keys cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The address is none.
    #[error("jwks_url must be https://host/path")]
    Url,
    /// No authority.
    #[error("there is no authority that its server could be checked against; give one as jwks_ca")]
    Authorities,
    /// The system says why.
    #[error("cannot be reached or read: {0}")]
    Io(#[from] io::Error),
    /// TLS says why.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// HTTP says why.
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    /// It answers otherwise.
    #[error("it answered with another status than 200 status={0}")]
    Answer(StatusCode),
    /// The answer broke off, or is too long.
    #[error("its answer broke off, or is longer than 64 KiB")]
    Cut,
    /// Nothing came.
    #[error("it did not answer in time")]
    TooSlow,
    /// What came is no set of keys.
    #[error(transparent)]
    Keys(#[from] KeySetError),
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;
    use crate::{
        access::identity::PeerCertificate,
        config::Config,
        domain::error::Error,
        server::{ServerTls, pki::DevPki},
        testing::issuer::TokenSigner,
    };

    fn config(dir: &Path, keys: &str) -> Config {
        let text = format!(
            r#"
            data = "/d"
            root = "/r"
            region = {{ name = "mx", country = "MX" }}
            store = {{ local = "/s" }}
            tls = {{ certificate = "c", key = "k", client_ca = "ca" }}
            [[issuers]]
            issuer = "https://login"
            audience = "callvault"
            alias_prefix = "idp-"
            {keys}
            [[issuers.grants]]
            claim = "groups"
            value = "agents"
            roles = ["agent"]
            tenants = ["*"]
            "#
        );
        Config::parse(&text.replace("DIR", dir.to_str().unwrap())).unwrap()
    }

    fn judged(issuers: &Issuers, token: &str) -> Result<(), Error> {
        issuers.bearer(token, &PeerCertificate::default()).map(drop)
    }

    fn token(signer: &TokenSigner) -> String {
        let end = SystemClock.now().micros() / 1_000_000 + 600;
        let claims =
            json!({"iss": "https://login", "aud": "callvault", "sub": "a-1", "groups": "agents", "exp": end});
        signer.token("k", &claims)
    }

    async fn until_taken(issuers: &Issuers, token: &str) {
        let taken = async {
            while judged(issuers, token).is_err() {
                time::sleep(Duration::from_millis(20)).await;
            }
        };
        time::timeout(Duration::from_secs(10), taken)
            .await
            .expect("its keys are known soon");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn keys_in_a_file_are_followed_and_a_broken_file_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.json");
        let (one, two) = (TokenSigner::p256(), TokenSigner::ed25519());
        let config = config(dir.path(), "jwks_file = \"DIR/keys.json\"");
        let refused = follow(&config, None).await.unwrap_err().to_string();
        assert!(refused.contains("keys.json"), "{refused}");
        fs::write(&path, one.set("k")).unwrap();
        let (issuers, following) = follow(&config, None).await.unwrap();
        judged(&issuers, &token(&one)).unwrap();
        fs::write(&path, "half of a").unwrap();
        time::sleep(LOOK + Duration::from_millis(500)).await;
        judged(&issuers, &token(&one)).unwrap();
        // A configuration that is read again meanwhile loses nothing.
        let known = follow(&config, Some((&issuers, &following))).await.unwrap();
        judged(&known.0, &token(&one)).unwrap();
        let (issuers, _following) = known;
        fs::write(&path, two.set("k")).unwrap();
        until_taken(&issuers, &token(&two)).await;
        assert!(judged(&issuers, &token(&one)).is_err());
    }

    /// Answers requests one after the other, over TLS, and tells what it was asked.
    async fn provider_of(pki: &DevPki, answers: Vec<String>) -> (u16, tokio::task::JoinHandle<Vec<String>>) {
        let acceptor = ServerTls::load(&crate::config::Tls {
            client_certificates: crate::config::ClientCertificates::Optional,
            ..pki.tls()
        });
        let acceptor = acceptor.unwrap().plain_acceptor();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serving = tokio::spawn(async move {
            let mut asked = Vec::new();
            for answer in answers {
                let (socket, _) = listener.accept().await.unwrap();
                let Ok(mut stream) = acceptor.accept(socket).await else {
                    asked.push("no handshake".to_owned());
                    continue;
                };
                let mut request = vec![0; 4_096];
                let many = stream.read(&mut request).await.unwrap_or_default();
                asked.push(String::from_utf8_lossy(&request[..many]).into_owned());
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
            asked
        });
        (port, serving)
    }

    fn answer(status: &str, body: &str) -> String {
        format!(
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn keys_are_fetched_over_https_and_asked_for_when_a_token_names_another() {
        let dir = tempfile::tempdir().unwrap();
        let pki = DevPki::open(dir.path(), &SystemClock).unwrap();
        let (one, two) = (TokenSigner::p256(), TokenSigner::p256());
        let answers = vec![answer("200 OK", &one.set("old")), answer("200 OK", &two.set("k"))];
        let (port, serving) = provider_of(&pki, answers).await;
        let keys = format!("jwks_url = \"https://localhost:{port}/keys?v=1\"\njwks_ca = \"DIR/pki/ca.pem\"");
        let (issuers, following) = follow(&config(dir.path(), &keys), None).await.unwrap();
        let asked = judged(&issuers, &token(&two)).unwrap_err();
        assert_eq!(asked.reason, "ISSUER_UNAVAILABLE");
        until_taken(&issuers, &token(&two)).await;
        // Its server is gone by now: a configuration that is read again loses no key, and waits for nobody.
        let asked = serving.await.unwrap();
        let config = config(dir.path(), &keys);
        let began = std::time::Instant::now();
        let (again, _following) = follow(&config, Some((&issuers, &following))).await.unwrap();
        assert!(began.elapsed() < PATIENCE);
        judged(&again, &token(&two)).unwrap();
        assert!(asked[0].starts_with("GET /keys?v=1 HTTP/1.1\r\n"), "{asked:?}");
        assert!(asked[0].contains(&format!("host: localhost:{port}")), "{asked:?}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_issuer_that_answers_badly_stops_nobody_and_vouches_for_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let pki = DevPki::open(dir.path(), &SystemClock).unwrap();
        let (signer, stranger) = (TokenSigner::p256(), tempfile::tempdir().unwrap());
        DevPki::open(stranger.path(), &SystemClock).unwrap();
        let good = answer("200 OK", &signer.set("k"));
        let long = answer("200 OK", &" ".repeat(SET_BYTES + 1));
        let moved =
            "HTTP/1.1 302 Found\r\nlocation: https://thief.example/\r\ncontent-length: 0\r\n\r\n".to_owned();
        let cut = good[..good.len() - 10].to_owned();
        for (answer, ca) in [
            (moved, dir.path()),
            (answer("500 Oops", ""), dir.path()),
            (answer("200 OK", "<html>"), dir.path()),
            (long, dir.path()),
            (cut, dir.path()),
            // Not whom the operator trusts.
            (good.clone(), stranger.path()),
        ] {
            let (port, _serving) = provider_of(&pki, vec![answer.clone()]).await;
            let keys = format!("jwks_url = \"https://localhost:{port}/\"\njwks_ca = \"DIR/pki/ca.pem\"");
            let (issuers, _following) = follow(&config(ca, &keys), None).await.unwrap();
            let refused = judged(&issuers, &token(&signer)).unwrap_err();
            assert_eq!(refused.reason, "ISSUER_UNAVAILABLE", "{}", &answer[..20]);
        }
    }
}
