//! The configuration file: parsed, completed with defaults, checked, and never read again.
//!
//! `callvault.example.toml` is the commented sample; every default is in it.

mod issuers;
mod root;
mod s3;
mod stamps;

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    access::{
        identity::{Listed, Repeated},
        token::IssuerSpec,
    },
    domain::{
        ids::{InvalidId, RegionName, TenantId},
        limits,
        principal::{InvalidPrincipal, Principal, Role, Teams, TenantScope},
        text::{Country, Text},
    },
};

pub use issuers::{Grant as IssuerGrant, Issuer};
pub use root::{Root, RootAwsKms, RootFile, RootKind, RootPkcs11};
pub use s3::{S3, S3Checksum};
pub use stamps::Stamps;

/// As long as one may live.
const UPLOAD_LIFE_SECONDS: u64 = (limits::UPLOAD_MICROS / 1_000_000) as u64;

/// What the server is told by its operator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the API listens.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// Where health and metrics are served in plain HTTP; nowhere in dev mode, unless asked.
    #[serde(default = "default_ops_listen")]
    pub ops_listen: Option<SocketAddr>,
    /// The index, spooled uploads and, in dev mode, the PKI.
    pub data: PathBuf,
    /// Who holds the root keyring and the anchor: never what a backup of `data` holds.
    pub root: Root,
    /// The region that this deployment serves.
    pub region: Region,
    /// The bucket.
    pub store: Store,
    /// Another bucket, for copies of what the keys are made again from.
    #[serde(default)]
    pub recovery_store: Option<Store>,
    /// Absent in dev mode, which makes its own.
    pub tls: Option<Tls>,
    /// Who may call.
    #[serde(default)]
    pub principals: Vec<Listing>,
    /// Whose tokens are taken.
    #[serde(default)]
    pub issuers: Vec<Issuer>,
    /// What they may do.
    #[serde(default)]
    pub policy: Policy,
    /// What the process may use.
    #[serde(default)]
    pub limits: Limits,
    /// What it tells.
    #[serde(default)]
    pub log: Log,
    /// The index.
    #[serde(default)]
    pub index: Index,
    /// The life of keys.
    #[serde(default)]
    pub keys: Keys,
}

/// One deployment serves one region.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Region {
    /// Appears in object names.
    pub name: String,
    /// ISO 3166-1 alpha-2.
    pub country: String,
}

/// Where blobs lie.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum Store {
    /// A directory.
    Local(PathBuf),
    /// A bucket that speaks S3.
    S3(Box<S3>),
}

impl Store {
    fn check(&self, table: &str, root_lies_in: &dyn Fn(&Path) -> bool) -> Result<(), ConfigError> {
        match self {
            Self::Local(dir) if root_lies_in(dir) => Err(ConfigError::value(
                "root",
                format!("must lie outside {table}.local"),
            )),
            Self::Local(_) => Ok(()),
            Self::S3(s3) => s3.check(&format!("{table}.s3")),
        }
    }
}

/// A path without `.` and `..`, and without the links that are there: two spellings of a directory are one.
fn lexical(path: &Path) -> PathBuf {
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    // What is not there yet lies below what is.
    let there = whole.ancestors().find_map(|above| {
        let real = above.canonicalize().ok()?;
        Some((real, whole.strip_prefix(above).ok()?.to_owned()))
    });
    let (mut plain, rest) = there.unwrap_or_else(|| (PathBuf::new(), whole.clone()));
    for part in rest.components() {
        match part {
            std::path::Component::ParentDir => {
                plain.pop();
            }
            std::path::Component::CurDir => {}
            part => plain.push(part),
        }
    }
    plain
}

/// Files of PEM; read at start and again on SIGHUP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The server's chain, leaf first.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities whose clients are let in.
    pub client_ca: PathBuf,
    /// Their revocation lists. None: nothing is ever revoked but by another `client_ca`.
    #[serde(default)]
    pub client_crl: Vec<PathBuf>,
    /// Whether a client may come without a certificate.
    #[serde(default)]
    pub client_certificates: ClientCertificates,
}

/// Whether a client may come without a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientCertificates {
    /// It may not.
    #[default]
    Required,
    /// Those that bring a token may.
    Optional,
}

/// One certificate and what its bearer may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listing {
    /// The certificate's URI or DNS subject alternative name, exactly.
    pub certificate: String,
    /// An opaque name for logs and the ledger.
    pub alias: String,
    /// Names of roles.
    pub roles: Vec<String>,
    /// Tenant ids, or `*` alone for all of them.
    pub tenants: Vec<String>,
    /// Where it calls from, ISO 3166-1; the region's own country when absent.
    #[serde(default)]
    pub country: Option<String>,
    /// The platform's id of the agent that it is, if it is one: an agent sees its own calls.
    #[serde(default)]
    pub agent: Option<String>,
    /// The teams whose calls a supervisor sees, or `*` alone for all of them.
    #[serde(default)]
    pub teams: Vec<String>,
}

/// What callers may do beside, and less than, what their roles say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// A directory of Cedar policies, `*.cedar`; read again when they change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dir: Option<PathBuf>,
}

/// Bounds of the process. Names end with their units.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Bytes of content in memory, whatever the number of callers.
    pub memory_budget_bytes: u64,
    /// Of these, what one tenant may have, hundredths.
    pub tenant_share_percent: u8,
    /// Bytes of requests that are arriving, beyond what each may hold freely.
    pub receive_budget_bytes: u64,
    /// Bytes of unfinished uploads on the disk.
    pub spool_bytes: u64,
    /// How long an unfinished upload may live.
    pub upload_life_seconds: u64,
    /// Connections at a time.
    pub connections: usize,
    /// Connections at a time of one principal.
    pub connections_per_principal: usize,
    /// TLS handshakes at a time; over it, the oldest of whoever has most gives way.
    pub handshakes: usize,
    /// Longest handshake.
    pub handshake_seconds: u64,
    /// Calls at a time on one connection.
    pub streams_per_connection: u32,
    /// Bytes that one call may send ahead.
    pub stream_window_bytes: u32,
    /// Bytes that one connection may send ahead.
    pub connection_window_bytes: u32,
    /// Calls at a time, also those that stream.
    pub calls: usize,
    /// Calls at a time of one principal.
    pub calls_per_principal: usize,
    /// Calls at a time for one tenant.
    pub calls_per_tenant: usize,
    /// Calls of one principal in a second, in the long run.
    pub principal_calls_per_second: u32,
    /// Calls of one principal at once, after it was quiet.
    pub principal_calls_burst: u32,
    /// Longest call that does not stream.
    pub call_seconds: u64,
    /// Longest wait for an upload's next message.
    pub stream_idle_seconds: u64,
    /// Longest wait for a caller to take content that is ready.
    pub stream_stall_seconds: u64,
    /// Longest stream in all.
    pub stream_total_seconds: u64,
    /// A connection without a call is asked to end after this.
    pub connection_idle_seconds: u64,
    /// A connection is asked to end after this; what runs on it may finish.
    pub connection_age_seconds: u64,
    /// Between pings on a quiet connection, and how long an answer may take.
    pub keepalive_seconds: u64,
    /// How long running calls may go on after a stop signal.
    pub drain_seconds: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_budget_bytes: 1 << 30,
            tenant_share_percent: limits::TENANT_SHARE_PERCENT,
            receive_budget_bytes: 256 << 20,
            spool_bytes: limits::SPOOL_BYTES,
            upload_life_seconds: UPLOAD_LIFE_SECONDS,
            connections: 4_096,
            connections_per_principal: 1_024,
            handshakes: 256,
            handshake_seconds: 5,
            streams_per_connection: 256,
            stream_window_bytes: 2 << 20,
            connection_window_bytes: 16 << 20,
            calls: 8_192,
            calls_per_principal: 4_096,
            calls_per_tenant: 4_096,
            principal_calls_per_second: 50_000,
            principal_calls_burst: 100_000,
            call_seconds: 60,
            stream_idle_seconds: 60,
            stream_stall_seconds: 60,
            stream_total_seconds: 24 * 3_600,
            connection_idle_seconds: 600,
            connection_age_seconds: 3_600,
            keepalive_seconds: 30,
            drain_seconds: 30,
        }
    }
}

impl Limits {
    /// Longest wait for an upload's next message.
    pub fn stream_idle(&self) -> Duration {
        Duration::from_secs(self.stream_idle_seconds)
    }

    /// Longest wait for a caller to take content that is ready.
    pub fn stream_stall(&self) -> Duration {
        Duration::from_secs(self.stream_stall_seconds)
    }

    /// Longest stream in all.
    pub fn stream_total(&self) -> Duration {
        Duration::from_secs(self.stream_total_seconds)
    }

    /// How long running calls may go on after a stop signal.
    pub fn drain_deadline(&self) -> Duration {
        Duration::from_secs(self.drain_seconds)
    }
}

/// Structured logs on standard error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// For machines or for people.
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug`, `trace`, or directives such as `info,callvault=debug`.
    pub level: String,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            format: LogFormat::Json,
            level: "info".to_owned(),
        }
    }
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// Text.
    Text,
}

/// When an erasure must be final (GDPR Art. 12(3) gives a month), and its longest grace.
const FINAL_HOURS: u32 = 30 * 24;
const GRACE_HOURS: u32 = 14 * 24;

/// The life of keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Keys {
    /// Age at which a tenant's key is rotated by itself; 0 for never.
    pub rotate_after_days: u32,
    /// Age at which a tenant's key, or a root epoch, wraps nothing new any more; 0 for never. Two years is what NIST SP 800-57
    /// allows. More than `rotate_after_days`.
    pub wrap_for_days: u32,
    /// How often the region is swept when something was shredded: what makes it final. At least 1; with the longest grace (14
    /// days) and what the provider takes to destroy a key it may not exceed the month that the law gives (GDPR Art. 12(3)).
    pub sweep_every_hours: u32,
    /// How long content is read and stored after the root provider's last answer.
    pub serve_without_root_seconds: u64,
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            rotate_after_days: 90,
            wrap_for_days: 730,
            sweep_every_hours: 24,
            serve_without_root_seconds: 24 * 3_600,
        }
    }
}

impl Keys {
    /// How long content is read and stored after the root provider's last answer.
    pub fn serve_without_root(&self) -> Duration {
        Duration::from_secs(self.serve_without_root_seconds)
    }

    /// How long a key wraps others, if there is an end to it.
    pub fn wrap_for(&self) -> Option<Duration> {
        let days = u64::from(self.wrap_for_days);
        (days > 0).then(|| Duration::from_secs(days * 24 * 3_600))
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.wrap_for_days > 0 && self.wrap_for_days <= self.rotate_after_days {
            return Err(ConfigError::value(
                "keys.wrap_for_days",
                format!(
                    "must be 0 or more than keys.rotate_after_days ({}), or keys are refused before they are rotated",
                    self.rotate_after_days
                ),
            ));
        }
        let seconds = self.serve_without_root_seconds;
        // The provider is asked every minute: one lost answer must not stop a vault.
        at_least_in("keys", "serve_without_root_seconds", seconds, 300)?;
        at_most_in("keys", "serve_without_root_seconds", seconds, 7 * 24 * 3_600)
    }
}

/// The embedded index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Index {
    /// Its page cache.
    pub cache_bytes: u64,
}

impl Default for Index {
    fn default() -> Self {
        Self {
            cache_bytes: 256 << 20,
        }
    }
}

fn default_listen() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::UNSPECIFIED, 7443))
}

#[allow(clippy::unnecessary_wraps)] // serde's default for an optional key
fn default_ops_listen() -> Option<SocketAddr> {
    Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 7480)))
}

/// Why a configuration is refused. Every text names the key, and what to write instead.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration; check the path and its permissions path={}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not what it should be; toml's text names line and key.
    #[error("the configuration is not valid; callvault.example.toml shows every key\n{0}")]
    Syntax(#[from] toml::de::Error),
    /// A value that cannot work.
    #[error("{key}: {message}")]
    Value {
        /// The key's path.
        key: String,
        /// What to write instead.
        message: String,
    },
}

impl ConfigError {
    fn value(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Value {
            key: key.into(),
            message: message.into(),
        }
    }
}

impl Config {
    /// Reads, parses and checks a file.
    ///
    /// # Errors
    /// [`ConfigError`], naming the key at fault.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text)
    }

    /// Who may call by certificate, as a file says, whatever is wrong with the rest of it: whoever was taken out is out.
    ///
    /// # Errors
    /// [`ConfigError`] if the file is no configuration at all, or its principals are refused.
    pub fn load_identities(path: &Path) -> Result<Listed, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        toml::from_str::<Self>(&text)?.identities()
    }

    /// Parses and checks the text of a file.
    ///
    /// # Errors
    /// [`ConfigError`], naming the key at fault.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text)?;
        config.validate()?;
        Ok(config)
    }

    /// What `serve --dev` uses: everything below `data` but the root keyring, which lies beside it in `<data>.root`.
    ///
    /// # Errors
    /// [`ConfigError`] unless `listen` is a loopback address: the dev PKI's keys lie in the data directory.
    pub fn dev(data: &Path, listen: SocketAddr) -> Result<Self, ConfigError> {
        if !listen.ip().is_loopback() {
            return Err(ConfigError::value(
                "listen",
                format!("dev mode listens on loopback only, e.g. 127.0.0.1:7443; use --config for {listen}"),
            ));
        }
        let mut root = data.as_os_str().to_owned();
        root.push(".root");
        let config = Self {
            listen,
            ops_listen: None,
            data: data.to_owned(),
            root: Root::directory(root),
            region: Region {
                name: "dev".to_owned(),
                country: "MX".to_owned(),
            },
            store: Store::Local(data.join("bucket")),
            recovery_store: None,
            tls: None,
            principals: Vec::new(),
            issuers: Vec::new(),
            policy: Policy::default(),
            limits: Limits::default(),
            log: Log {
                format: LogFormat::Text,
                ..Log::default()
            },
            index: Index::default(),
            keys: Keys::default(),
        };
        config.checked_apart_from_tls()?;
        Ok(config)
    }

    /// Checks what types cannot say.
    ///
    /// # Errors
    /// [`ConfigError`] for the first key at fault.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.tls()?;
        if self.principals.is_empty() && self.issuers.is_empty() {
            return Err(ConfigError::value(
                "principals",
                "list at least one, or one of [[issuers]], or nobody can call",
            ));
        }
        if self.issuers.is_empty() && self.tls()?.client_certificates == ClientCertificates::Optional {
            return Err(ConfigError::value(
                "tls.client_certificates",
                "must be \"required\" where there are no [[issuers]]: whoever comes without could do nothing",
            ));
        }
        self.checked_apart_from_tls()
    }

    /// The server's files.
    ///
    /// # Errors
    /// [`ConfigError`] if there are none.
    pub fn tls(&self) -> Result<&Tls, ConfigError> {
        self.tls.as_ref().ok_or_else(|| {
            ConfigError::value(
                "tls",
                "set certificate, key and client_ca; only dev mode makes its own",
            )
        })
    }

    fn checked_apart_from_tls(&self) -> Result<(), ConfigError> {
        self.check_places()?;
        self.check_sweeps()?;
        self.region()?;
        self.country()?;
        self.identities()?;
        self.issuer_specs()?;
        self.limits.check()?;
        self.keys.check()?;
        self.log.check()
    }

    /// The region's name.
    ///
    /// # Errors
    /// [`ConfigError`] unless it is a label.
    pub fn region(&self) -> Result<RegionName, ConfigError> {
        self.region
            .name
            .parse()
            .map_err(|err: InvalidId| ConfigError::value("region.name", err.to_string()))
    }

    /// The principals as they are recognised.
    ///
    /// # Errors
    /// [`ConfigError`] for a bad alias, role or tenant id, conflicting roles, or a certificate listed twice.
    pub fn identities(&self) -> Result<Listed, ConfigError> {
        let mut listed = Vec::with_capacity(self.principals.len());
        for (at, listing) in self.principals.iter().enumerate() {
            let principal = listing.principal(&format!("principals[{at}]"), &self.region.country)?;
            listed.push((listing.certificate.clone(), principal));
        }
        Listed::new(listed).map_err(|err: Repeated| ConfigError::value("principals", err.to_string()))
    }

    /// The country of the region.
    ///
    /// # Errors
    /// [`ConfigError`] unless it is one.
    pub fn country(&self) -> Result<Country, ConfigError> {
        parse_country(&self.region.country, "region.country")
    }

    /// What is expected of each issuer's tokens, in the order in which they are listed.
    ///
    /// # Errors
    /// [`ConfigError`] for the first key at fault, and for an issuer that is listed twice.
    pub fn issuer_specs(&self) -> Result<Vec<IssuerSpec>, ConfigError> {
        let mut specs: Vec<IssuerSpec> = Vec::with_capacity(self.issuers.len());
        for (at, issuer) in self.issuers.iter().enumerate() {
            let key = format!("issuers[{at}]");
            if specs.iter().any(|spec| spec.issuer == issuer.issuer) {
                return Err(ConfigError::value(
                    format!("{key}.issuer"),
                    "is listed twice, list it once",
                ));
            }
            let spec = issuer.spec(&key, &self.region.country)?;
            let taken =
                |name: &str| name.starts_with(&spec.alias_prefix) || spec.alias_prefix.starts_with(name);
            let principal = self
                .principals
                .iter()
                .any(|listing| listing.alias.starts_with(&spec.alias_prefix));
            if principal || specs.iter().any(|other| taken(&other.alias_prefix)) {
                return Err(ConfigError::value(
                    format!("{key}.alias_prefix"),
                    "begins the alias of a principal, or overlaps another issuer's prefix: nobody may have another's name",
                ));
            }
            specs.push(spec);
        }
        Ok(specs)
    }

    /// The longest grace, a sweep's interval and what the provider takes to destroy are 30 days at most.
    fn check_sweeps(&self) -> Result<(), ConfigError> {
        // Also of one that is not in use: older epochs may be with it.
        let kms = self.root.aws_kms.as_deref();
        let window_hours = kms.map_or(0, |kms| 24 * u32::from(kms.deletion_days));
        let longest = FINAL_HOURS.saturating_sub(GRACE_HOURS + window_hours);
        if (1..=longest).contains(&self.keys.sweep_every_hours) {
            return Ok(());
        }
        Err(ConfigError::value(
            "keys.sweep_every_hours",
            format!(
                "must be 1 to {longest}: the longest grace (14 days), a sweep's interval and what the provider takes to destroy a \
                 key (root.aws_kms.deletion_days) are 30 days at most"
            ),
        ))
    }

    fn check_places(&self) -> Result<(), ConfigError> {
        if self.ops_listen == Some(self.listen) && self.listen.port() != 0 {
            return Err(ConfigError::value(
                "ops_listen",
                "must differ from listen, e.g. 127.0.0.1:7480",
            ));
        }
        self.root.check()?;
        // Also one that is not in use: it may still hold the keys of what was sealed before.
        let dir = self.root.file.as_ref().map(|file| file.dir.as_path());
        let lies_in = |place: &Path| dir.is_some_and(|dir| dir.starts_with(place));
        if lies_in(&self.data) {
            return Err(ConfigError::value(
                "root",
                "must lie outside data, so that a backup of data never holds the keys that open it",
            ));
        }
        self.store.check("store", &lies_in)?;
        match &self.recovery_store {
            Some(copies) => {
                copies.check("recovery_store", &lies_in)?;
                self.check_apart(copies)
            }
            None => Ok(()),
        }
    }

    /// Who loses the one must not lose the other with it.
    fn check_apart(&self, copies: &Store) -> Result<(), ConfigError> {
        let (key, message) = match (&self.store, copies) {
            (Store::Local(store), Store::Local(copies)) => {
                let (store, copies) = (lexical(store), lexical(copies));
                if !store.starts_with(&copies) && !copies.starts_with(&store) {
                    return Ok(());
                }
                (
                    "local",
                    "must be another directory than store.local, neither in it nor around it",
                )
            }
            (Store::S3(store), Store::S3(copies)) if store.is_same_place(copies) => {
                ("s3.bucket", "must be another bucket than store.s3.bucket")
            }
            _ => return Ok(()),
        };
        Err(ConfigError::value(format!("recovery_store.{key}"), message))
    }
}

impl Listing {
    fn principal(&self, key: &str, home: &str) -> Result<Principal, ConfigError> {
        if self.certificate.is_empty() {
            return Err(ConfigError::value(
                format!("{key}.certificate"),
                "must be a URI or DNS name",
            ));
        }
        let country = parse_country(self.country.as_deref().unwrap_or(home), &format!("{key}.country"))?;
        let (roles, scope) = (parse_roles(&self.roles, key)?, parse_scope(&self.tenants, key)?);
        let principal = Principal::new(&self.alias, roles, scope).map_err(|err| {
            let field = if err == InvalidPrincipal::Alias {
                "alias"
            } else {
                "roles"
            };
            ConfigError::value(format!("{key}.{field}"), err.to_string())
        })?;
        let agent = self
            .agent
            .as_deref()
            .map(|agent| parse_text(agent, &format!("{key}.agent")));
        let teams = match self.teams.as_slice() {
            [all] if all == "*" => Teams::All,
            teams => Teams::Some(
                teams
                    .iter()
                    .map(|team| parse_text(team, &format!("{key}.teams")))
                    .collect::<Result<_, _>>()?,
            ),
        };
        Ok(principal
            .from_country(Some(country))
            .at_work_as(agent.transpose()?, teams))
    }
}

fn parse_text(text: &str, key: &str) -> Result<Text, ConfigError> {
    text.parse()
        .map_err(|err: InvalidId| ConfigError::value(key, err.to_string()))
}

/// Names of roles, as a table has them.
fn parse_roles(names: &[String], key: &str) -> Result<Vec<Role>, ConfigError> {
    let parse = |role: &String| role.parse();
    names
        .iter()
        .map(parse)
        .collect::<Result<_, InvalidId>>()
        .map_err(|err| ConfigError::value(format!("{key}.roles"), err.to_string()))
}

/// Tenants, as a table has them.
fn parse_scope(tenants: &[String], key: &str) -> Result<TenantScope, ConfigError> {
    let refuse = |message: String| ConfigError::value(format!("{key}.tenants"), message);
    match tenants {
        [] => Err(refuse("name tenants, or write [\"*\"] for all".to_owned())),
        [all] if all == "*" => Ok(TenantScope::All),
        ids => ids
            .iter()
            .map(|id| id.parse::<TenantId>().map_err(|err| refuse(err.to_string())))
            .collect::<Result<BTreeSet<_>, _>>()
            .map(TenantScope::Some),
    }
}

fn parse_country(text: &str, key: &str) -> Result<Country, ConfigError> {
    text.parse()
        .map_err(|err: InvalidId| ConfigError::value(key, err.to_string()))
}

impl Limits {
    fn check(&self) -> Result<(), ConfigError> {
        // A part in flight and its successor, for one upload at least.
        at_least("memory_budget_bytes", self.memory_budget_bytes, 64 << 20)?;
        let share = u64::from(self.tenant_share_percent);
        at_least("tenant_share_percent", share, 1)?;
        at_most("tenant_share_percent", share, 100)?;
        // A message of the largest size, for two callers at least.
        at_least("receive_budget_bytes", self.receive_budget_bytes, 16 << 20)?;
        // One part, and what seals it.
        at_least("spool_bytes", self.spool_bytes, 64 << 20)?;
        at_least("upload_life_seconds", self.upload_life_seconds, 60)?;
        at_most(
            "upload_life_seconds",
            self.upload_life_seconds,
            UPLOAD_LIFE_SECONDS,
        )?;
        at_least("connections", self.connections as u64, 1)?;
        let of_one = self.connections_per_principal as u64;
        at_least("connections_per_principal", of_one, 1)?;
        self.check_calls()?;
        at_least("handshakes", self.handshakes as u64, 2)?;
        at_least("handshake_seconds", self.handshake_seconds, 1)?;
        at_least(
            "streams_per_connection",
            u64::from(self.streams_per_connection),
            1,
        )?;
        at_least(
            "stream_window_bytes",
            u64::from(self.stream_window_bytes),
            64 << 10,
        )?;
        // Else one slow stream could stall its connection; the protocol's own limit is 2^31 - 1.
        at_least(
            "connection_window_bytes",
            u64::from(self.connection_window_bytes),
            u64::from(self.stream_window_bytes),
        )?;
        at_most(
            "connection_window_bytes",
            u64::from(self.connection_window_bytes),
            (1 << 31) - 1,
        )?;
        at_least("connection_age_seconds", self.connection_age_seconds, 60)?;
        at_least("connection_idle_seconds", self.connection_idle_seconds, 1)?;
        at_least("keepalive_seconds", self.keepalive_seconds, 1)
    }

    fn check_calls(&self) -> Result<(), ConfigError> {
        for (key, value) in [
            ("calls", self.calls as u64),
            ("calls_per_principal", self.calls_per_principal as u64),
            ("calls_per_tenant", self.calls_per_tenant as u64),
            (
                "principal_calls_per_second",
                u64::from(self.principal_calls_per_second),
            ),
            ("principal_calls_burst", u64::from(self.principal_calls_burst)),
            ("call_seconds", self.call_seconds),
            ("stream_idle_seconds", self.stream_idle_seconds),
            ("stream_stall_seconds", self.stream_stall_seconds),
            ("stream_total_seconds", self.stream_total_seconds),
        ] {
            at_least(key, value, 1)?;
        }
        Ok(())
    }
}

impl Log {
    fn check(&self) -> Result<(), ConfigError> {
        match self.level.parse::<tracing_subscriber::EnvFilter>() {
            Ok(_) => Ok(()),
            Err(_) => Err(ConfigError::value(
                "log.level",
                "must be error, warn, info, debug or trace, or directives",
            )),
        }
    }
}

fn at_least(key: &str, value: u64, least: u64) -> Result<(), ConfigError> {
    at_least_in("limits", key, value, least)
}

fn at_most(key: &str, value: u64, most: u64) -> Result<(), ConfigError> {
    at_most_in("limits", key, value, most)
}

fn at_least_in(table: &str, key: &str, value: u64, least: u64) -> Result<(), ConfigError> {
    if value >= least {
        return Ok(());
    }
    Err(ConfigError::value(
        format!("{table}.{key}"),
        format!("must be at least {least}, is {value}"),
    ))
}

fn at_most_in(table: &str, key: &str, value: u64, most: u64) -> Result<(), ConfigError> {
    if value <= most {
        return Ok(());
    }
    Err(ConfigError::value(
        format!("{table}.{key}"),
        format!("must be at most {most}, is {value}"),
    ))
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
