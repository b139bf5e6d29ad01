//! The PKI of dev mode: an authority, a server and one client per role, made once.
//!
//! The authority's key is never written: nobody can add a client later, not even who reads the directory.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use time::{Duration, OffsetDateTime};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use crate::{
    access::identity::{Listed, Repeated},
    config::{ClientCertificates, Tls},
    domain::{
        clock::{Clock, Timestamp},
        principal::{InvalidPrincipal, Principal, Role, Teams, TenantScope},
    },
};

const LIFE: Duration = Duration::days(365);
/// Clocks differ; certificates begin a little earlier.
const SKEW: Duration = Duration::minutes(5);
/// Certificates with less than this left are made anew, so that a day's work is not interrupted.
const MARGIN: Duration = Duration::days(1);
/// Where dev mode is, ISO 3166-1.
pub const COUNTRY: &str = "MX";
/// The agent that dev mode's agent is, as the platform would say.
pub const AGENT: &str = "dev-agent";
const AUTHORITY: &str = "ca";
const SERVER: &str = "server";

/// A directory of certificates and keys, `<name>.pem` and `<name>.key`.
#[derive(Clone, Debug)]
pub struct DevPki {
    dir: PathBuf,
}

impl DevPki {
    /// Uses `<data>/pki`; makes it, or makes it anew if anything is missing or about to expire.
    ///
    /// # Errors
    /// [`PkiError`] if the directory cannot be written.
    pub fn open(data: &Path, clock: &dyn Clock) -> Result<Self, PkiError> {
        let pki = Self {
            dir: data.join("pki"),
        };
        let now = moment(clock.now());
        if !pki.is_usable(now) {
            pki.make(now)?;
        }
        Ok(pki)
    }

    /// The server's files.
    pub fn tls(&self) -> Tls {
        Tls {
            certificate: self.certificate(SERVER),
            key: self.key(SERVER),
            client_ca: self.authority(),
            client_crl: Vec::new(),
            client_certificates: ClientCertificates::Required,
        }
    }

    /// What clients trust.
    pub fn authority(&self) -> PathBuf {
        self.certificate(AUTHORITY)
    }

    /// A client's certificate and key.
    pub fn client(&self, role: Role) -> (PathBuf, PathBuf) {
        (self.certificate(role.name()), self.key(role.name()))
    }

    /// Recognises the clients, each with its one role, for all tenants, in dev mode's own country. The agent is `dev-agent`; the supervisor
    /// sees every team.
    ///
    /// # Errors
    /// [`PkiError`] never in practice: every role's name is an alias.
    pub fn identities() -> Result<Listed, PkiError> {
        let mut listed = Vec::with_capacity(Role::ALL.len());
        for role in Role::ALL {
            let principal = Principal::new(role.name(), [*role], TenantScope::All)?
                .from_country(COUNTRY.parse().ok())
                .at_work_as(AGENT.parse().ok(), Teams::All);
            listed.push((spiffe(*role), principal));
        }
        Ok(Listed::new(listed)?)
    }

    fn certificate(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.pem"))
    }

    fn key(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.key"))
    }

    fn is_usable(&self, now: OffsetDateTime) -> bool {
        let lives = |name: &str| outlives(&self.certificate(name), now + MARGIN);
        let complete = |name: &str| lives(name) && self.key(name).is_file();
        lives(AUTHORITY) && leaves().all(|leaf| complete(leaf.name))
    }

    /// Writes everything beside the old directory and moves it there: never half of one and half of another.
    fn make(&self, now: OffsetDateTime) -> Result<(), PkiError> {
        let new = Self {
            dir: self.dir.with_extension("new"),
        };
        remove(&new.dir)?;
        DirBuilder::new().mode(0o700).recursive(true).create(&new.dir)?;
        new.write_all(now)?;
        remove(&self.dir)?;
        fs::rename(&new.dir, &self.dir)?;
        Ok(())
    }

    fn write_all(&self, now: OffsetDateTime) -> Result<(), PkiError> {
        let key = KeyPair::generate()?;
        let params = authority(now);
        write(&self.authority(), params.self_signed(&key)?.pem().as_bytes())?;
        let issuer = Issuer::new(params, key);
        for leaf in leaves() {
            let key = KeyPair::generate()?;
            let certificate = leaf.params(now)?.signed_by(&key, &issuer)?;
            write(&self.certificate(leaf.name), certificate.pem().as_bytes())?;
            write(&self.key(leaf.name), key.serialize_pem().as_bytes())?;
        }
        Ok(())
    }
}

/// The name in the certificate of dev mode's client with this role.
fn spiffe(role: Role) -> String {
    format!("spiffe://callvault/dev/{role}")
}

/// A certificate that the authority signs.
struct Leaf {
    name: &'static str,
    role: Option<Role>,
}

fn leaves() -> impl Iterator<Item = Leaf> {
    let clients = Role::ALL.iter().map(|role| Leaf {
        name: role.name(),
        role: Some(*role),
    });
    std::iter::once(Leaf {
        name: SERVER,
        role: None,
    })
    .chain(clients)
}

impl Leaf {
    fn params(&self, now: OffsetDateTime) -> Result<CertificateParams, PkiError> {
        let mut params = valid_from(now, self.name);
        let (names, usage) = match self.role {
            Some(role) => (
                vec![SanType::URI(spiffe(role).try_into()?)],
                ExtendedKeyUsagePurpose::ClientAuth,
            ),
            None => (
                vec![
                    SanType::DnsName("localhost".try_into()?),
                    SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)),
                    SanType::IpAddress(IpAddr::V6(Ipv6Addr::LOCALHOST)),
                ],
                ExtendedKeyUsagePurpose::ServerAuth,
            ),
        };
        params.subject_alt_names = names;
        params.extended_key_usages = vec![usage];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        Ok(params)
    }
}

fn authority(now: OffsetDateTime) -> CertificateParams {
    let mut params = valid_from(now, AUTHORITY);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn valid_from(now: OffsetDateTime, name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = now - SKEW;
    params.not_after = now + LIFE;
    params
        .distinguished_name
        .push(DnType::CommonName, format!("callvault dev {name}"));
    params
}

fn moment(now: Timestamp) -> OffsetDateTime {
    let seconds = now.micros().div_euclid(1_000_000);
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

fn outlives(path: &Path, moment: OffsetDateTime) -> bool {
    let Ok(der) = CertificateDer::from_pem_file(path) else {
        return false;
    };
    X509Certificate::from_der(&der)
        .is_ok_and(|(_, certificate)| certificate.validity().not_after.timestamp() > moment.unix_timestamp())
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Why there is no dev PKI.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The directory cannot be written.
    #[error("cannot write the dev certificates below the data directory")]
    Io(#[from] io::Error),
    /// A certificate cannot be made.
    #[error("cannot make a dev certificate")]
    Certificate(#[from] rcgen::Error),
    /// A role is not fit for a principal.
    #[error(transparent)]
    Principal(#[from] InvalidPrincipal),
    /// Two roles have one name.
    #[error(transparent)]
    Repeated(#[from] Repeated),
}

#[cfg(test)]
#[path = "pki_tests.rs"]
mod tests;
