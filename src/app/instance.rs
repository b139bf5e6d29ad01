//! A vault and its server, from start to drain.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};

use crate::{
    access::{
        identity::Callers,
        policy::{self, PolicySet},
    },
    config::{Config, ConfigError, Stamps},
    domain::{clock::SystemClock, limits, text::Country},
    grpc::{self, StreamLimits},
    server::{Addresses, Drain, ServeError, Server, ServerTls, pki::DevPki},
    telemetry,
    vault::Replayed,
};

use super::{
    AppError,
    background::Background,
    dev,
    issuers::{self, Following},
    vault::{How, OpenVault},
};

/// How often certificates on disk are looked at.
const CERTIFICATE_CHECK: Duration = Duration::from_secs(limits::CERTIFICATE_CHECK_SECONDS);

/// Who may call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Whom the configuration lists.
    Configured,
    /// The clients of a PKI that is made in the data directory, for a tenant that is made as well.
    Dev,
}

/// A server that runs.
#[derive(Debug)]
pub struct Instance {
    started: Started,
    replayed: Option<Replayed>,
    vault: OpenVault,
}

impl Instance {
    /// Opens the vault and serves it.
    ///
    /// # Errors
    /// [`AppError`] says what does not fit and what to do; nothing is served then.
    pub async fn start(config: &Config, mode: Mode) -> Result<Self, AppError> {
        if mode == Mode::Configured {
            // Before a vault is made: a wrong path in the configuration must not leave one behind.
            ServerTls::load(config.tls()?)?;
            config.identities()?;
            policies(config)?;
        }
        let metrics = telemetry::collect_metrics()?;
        let how = How {
            may_make: true,
            rebuild: false,
            move_to: None,
        };
        let mut open = OpenVault::open(config, how).await?;
        match Started::over(&open, config, mode, metrics).await {
            Ok(started) => Ok(Self {
                replayed: open.opened.replayed.take(),
                started,
                vault: open,
            }),
            Err(error) => {
                open.close().await;
                Err(error)
            }
        }
    }

    /// Where the API listens.
    pub fn address(&self) -> SocketAddr {
        self.started.address
    }

    /// Where health and metrics are served.
    pub fn ops_address(&self) -> Option<SocketAddr> {
        self.started.ops
    }

    /// The file that clients read, in dev mode.
    pub fn client_file(&self) -> Option<&PathBuf> {
        self.started.client_file.as_ref()
    }

    /// Records that the index lacked at the start and has again.
    pub fn records_caught_up(&self) -> u64 {
        self.replayed.as_ref().map_or(0, |r| r.records + r.adopted)
    }

    /// Drains at SIGTERM or SIGINT, cuts at the second.
    ///
    /// # Errors
    /// [`AppError::System`] if signals cannot be listened to.
    pub fn drain_on_signals(&self) -> Result<(), AppError> {
        Ok(self.started.drain.on_signals()?)
    }

    /// Takes `[[principals]]`, `[[issuers]]` and policies again when the configuration file or a file of policies changes, and at every
    /// SIGHUP; what is refused changes nothing. Everything else in the file counts from the next start.
    ///
    /// # Errors
    /// [`AppError::System`] if signals cannot be listened to.
    pub fn follow_principals(&self, file: &Path) -> Result<(), AppError> {
        let mut hangup = signal(SignalKind::hangup())?;
        let (access, file) = (Arc::downgrade(&self.started.access), file.to_owned());
        // Once in any case: a start takes its time, and the file may be another one by now.
        let (mut seen, mut before) = (None, None);
        tokio::spawn(async move {
            let mut ticks = interval(CERTIFICATE_CHECK);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                let asked = tokio::select! {
                    hung_up = hangup.recv() => hung_up.is_some(),
                    _ = ticks.tick() => false,
                };
                let Some(access) = Weak::upgrade(&access) else {
                    return;
                };
                // Looked at before it is read: what changes in between is read once more.
                let now = Some(access.stamps(&file));
                // Whoever is writing a file has not finished it; what was refused is tried again.
                let settled = now == before;
                before.clone_from(&now);
                if !asked && (!settled || now == seen) {
                    continue;
                }
                let outcome = match access.read_again(&file).await {
                    Ok(()) => {
                        seen = now;
                        tracing::info!("principals, issuers and policies were read again");
                        "ok"
                    }
                    Err(error) => {
                        tracing::error!(%error, "of principals, issuers and policies, what is refused stays as it was");
                        "failed"
                    }
                };
                metrics::counter!(telemetry::CONFIGURATION_READ, "outcome" => outcome).increment(1);
            }
        });
        Ok(())
    }

    /// Drains and closes.
    ///
    /// # Errors
    /// As [`Instance::finish`].
    pub async fn stop(self) -> Result<(), AppError> {
        self.started.drain.begin();
        self.finish().await
    }

    /// Returns when the drain is over, what was queued is shipped, and others may open the vault.
    ///
    /// # Errors
    /// [`AppError::Serve`] if the server ended by itself.
    pub async fn finish(self) -> Result<(), AppError> {
        let served = self.started.serving.await.map_err(std::io::Error::other)?;
        drop(self.started.background);
        self.vault.close().await;
        Ok(served?)
    }
}

/// What runs over an open vault.
#[derive(Debug)]
struct Started {
    address: SocketAddr,
    ops: Option<SocketAddr>,
    client_file: Option<PathBuf>,
    drain: Drain,
    access: Arc<Access>,
    serving: JoinHandle<Result<(), ServeError>>,
    background: Background,
}

impl Started {
    async fn over(
        open: &OpenVault,
        config: &Config,
        mode: Mode,
        metrics: PrometheusHandle,
    ) -> Result<Self, AppError> {
        let vault = &open.opened.vault;
        let drain = Drain::new();
        let access = Access::of(config, mode).await?;
        if mode == Mode::Dev {
            dev::seed(vault).await?;
        }
        let addresses = Addresses {
            api: config.listen,
            ops: config.ops_listen,
        };
        let limits = config.limits.clone();
        let streams = StreamLimits {
            idle: limits.stream_idle(),
            stall: limits.stream_stall(),
            total: limits.stream_total(),
        };
        let server = Server::bind(
            addresses,
            limits,
            Arc::clone(&access.tls),
            Arc::clone(&access.callers),
            drain.clone(),
        )
        .await?
        .with_metrics(metrics);
        let (address, ops) = (server.api_address()?, server.ops_address()?);
        let health = server.health();
        let client_file = match &access.pki {
            Some(pki) => Some(dev::write_client_file(&config.data, pki, address)?),
            None => None,
        };
        Ok(Self {
            address,
            ops,
            client_file,
            serving: tokio::spawn(server.run(grpc::routes(vault, streams))),
            background: Background::run(vault, health, &config.keys),
            access: Arc::new(access),
            drain,
        })
    }
}

/// What tells callers apart.
#[derive(Debug)]
struct Access {
    tls: Arc<ServerTls>,
    callers: Arc<Callers>,
    home: Country,
    following: tokio::sync::Mutex<Following>,
    policies: Mutex<Option<PathBuf>>,
    pki: Option<DevPki>,
}

impl Access {
    async fn of(config: &Config, mode: Mode) -> Result<Self, AppError> {
        let (files, listed, pki) = if mode == Mode::Dev {
            let pki = DevPki::open(&config.data, &SystemClock)?;
            (pki.tls(), DevPki::identities()?, Some(pki))
        } else {
            (config.tls()?.clone(), config.identities()?, None)
        };
        let tls = Arc::new(ServerTls::load(&files)?);
        tls.follow(files, CERTIFICATE_CHECK)?;
        let (issuers, following) = issuers::follow(config, None).await?;
        Ok(Self {
            tls,
            callers: Arc::new(Callers::new(
                listed,
                issuers,
                policies(config)?,
                Arc::new(SystemClock),
            )),
            home: config.country()?,
            following: tokio::sync::Mutex::new(following),
            policies: Mutex::new(config.policy.dir.clone()),
            pki,
        })
    }

    /// What tells that the configuration or a policy is another one.
    fn stamps(&self, file: &Path) -> Stamps {
        let dir = self
            .policies
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        // One that cannot be listed is looked at when it can be.
        let paths = dir.as_deref().and_then(|dir| policy::paths(dir).ok());
        let paths = paths.unwrap_or_default();
        Stamps::of(
            [file]
                .into_iter()
                .chain(dir.as_deref())
                .chain(paths.iter().map(PathBuf::as_path)),
        )
    }

    /// Takes principals, policies and issuers, each by itself: whoever was taken out of the list is out, whatever is wrong with the rest.
    ///
    /// # Errors
    /// The first of them that was refused; it stays as it was.
    async fn read_again(&self, file: &Path) -> Result<(), AppError> {
        self.callers.replace_principals(Config::load_identities(file)?);
        let config = Config::load(file)?;
        if config.country()? != self.home {
            let message = "cannot change while the server runs; restart it".to_owned();
            let key = "region.country".to_owned();
            return Err(AppError::Config(ConfigError::Value { key, message }));
        }
        let judged = policies(&config).map(|policies| {
            // The same decide alike, and remember what they decided.
            if policies.hash() != self.callers.policies().hash() {
                self.callers.judge_by(policies);
            }
            *self.policies.lock().unwrap_or_else(PoisonError::into_inner) = config.policy.dir.clone();
        });
        let mut following = self.following.lock().await;
        if following.is_of(&config) {
            return judged;
        }
        let known = self.callers.issuers();
        let (issuers, now_following) = issuers::follow(&config, Some((&known, &following))).await?;
        self.callers.replace_issuers(issuers);
        *following = now_following;
        judged
    }
}

/// The policies of a configuration.
///
/// # Errors
/// [`AppError::Policy`], naming the file at fault.
pub fn policies(config: &Config) -> Result<PolicySet, AppError> {
    let set = match &config.policy.dir {
        Some(dir) => PolicySet::load(dir, config.country()?)?,
        None => PolicySet::default_set(config.country()?)?,
    };
    tracing::info!(policy_set = %set.hash(), "calls are judged by this set of policies");
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::identity::PeerCertificate;

    #[tokio::test]
    async fn policies_are_taken_again_when_a_file_changes_and_kept_when_it_is_broken() {
        let dir = tempfile::tempdir().unwrap();
        let (file, policies) = (dir.path().join("callvault.toml"), dir.path().join("policies"));
        std::fs::create_dir(&policies).unwrap();
        let own = policies.join("own.cedar");
        let text = format!(
            r#"
            data = "/d"
            root = "/r"
            region = {{ name = "mx", country = "MX" }}
            store = {{ local = "/s" }}
            tls = {{ certificate = "c", key = "k", client_ca = "ca" }}
            policy = {{ dir = {policies:?} }}
            principals = [{{ certificate = "spiffe://x/y", alias = "y", roles = ["reader"], tenants = ["*"] }}]
            "#
        );
        std::fs::write(&file, text).unwrap();
        std::fs::write(
            &own,
            "@id(\"none\") forbid (principal, action, resource) when { false };",
        )
        .unwrap();
        let mut config = Config::dev(&dir.path().join("data"), ([127, 0, 0, 1], 0).into()).unwrap();
        config.policy.dir = Some(policies);
        let access = Access::of(&config, Mode::Dev).await.unwrap();
        let (first, seen) = (access.callers.policies(), access.stamps(&file));
        std::fs::write(&own, "@id(\"mine\") forbid (principal, action, resource);").unwrap();
        assert_ne!(access.stamps(&file), seen);
        access.read_again(&file).await.unwrap();
        let second = access.callers.policies();
        assert_ne!(first.hash(), second.hash());
        std::fs::write(&own, "@id(\"mine\") forbid (principal, action, resourc").unwrap();
        // Whoever is taken out of the list is out, whatever is wrong with the policies.
        let peer = {
            let mut params = rcgen::CertificateParams::default();
            params.subject_alt_names = vec![rcgen::SanType::URI("spiffe://x/y".try_into().unwrap())];
            let certificate = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
            PeerCertificate::from_chain(&[certificate.der().clone()])
        };
        assert!(access.callers.by_certificate(&peer).is_some());
        let without = std::fs::read_to_string(&file)
            .unwrap()
            .replace("spiffe://x/y", "spiffe://x/z");
        std::fs::write(&file, without).unwrap();
        let refused = access.read_again(&file).await.unwrap_err();
        assert!(refused.to_string().contains("own.cedar"), "{refused}");
        assert_eq!(access.callers.policies().hash(), second.hash());
        assert!(access.callers.by_certificate(&peer).is_none());
        // Nor does anything else in the file hold that up.
        let back = std::fs::read_to_string(&file)
            .unwrap()
            .replace("spiffe://x/z", "spiffe://x/y");
        std::fs::write(&file, &back).unwrap();
        access.read_again(&file).await.unwrap_err();
        assert!(access.callers.by_certificate(&peer).is_some());
        let broken = back.replace("spiffe://x/y", "spiffe://x/z") + "\nlimits = { handshakes = 1 }\n";
        std::fs::write(&file, broken).unwrap();
        let refused = access.read_again(&file).await.unwrap_err();
        assert!(refused.to_string().contains("limits.handshakes"), "{refused}");
        assert!(access.callers.by_certificate(&peer).is_none());
        std::fs::write(&file, back).unwrap();
        // Nor may the region move while records lie in it.
        let moved = std::fs::read_to_string(&file)
            .unwrap()
            .replace("\"MX\"", "\"US\"");
        std::fs::write(&file, moved).unwrap();
        let refused = access.read_again(&file).await.unwrap_err();
        assert!(refused.to_string().contains("region.country"), "{refused}");
        // A start refuses it.
        assert!(matches!(super::policies(&config), Err(AppError::Policy(_))));
    }

    #[tokio::test]
    async fn certificates_that_cannot_be_read_leave_no_vault_behind() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::dev(&dir.path().join("data"), ([127, 0, 0, 1], 0).into()).unwrap();
        let nowhere = dir.path().join("nowhere.pem");
        config.tls = Some(crate::config::Tls {
            certificate: nowhere.clone(),
            key: nowhere.clone(),
            client_ca: nowhere,
            client_crl: Vec::new(),
            client_certificates: Default::default(),
        });
        let refused = Instance::start(&config, Mode::Configured).await.unwrap_err();
        assert!(matches!(refused, AppError::Tls(_)), "{refused}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
