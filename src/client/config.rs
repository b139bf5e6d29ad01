//! Where the vault is and who the caller is: in code, or from `client.toml`.
//!
//! ```toml
//! endpoint = "https://127.0.0.1:7443"
//! tenant = "dev"
//! purpose = "ServiceProvision"
//! ca = "pki/ca.pem"                     # relative to this file
//!
//! [roles.uploader]
//! certificate = "pki/uploader.pem"
//! key = "pki/uploader.key"
//!
//! [roles.agent]
//! token_file = "/run/agent.jwt"         # kept fresh by somebody else
//! ```

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// Everything that a connection needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientConfig {
    /// `https://host:port`.
    pub endpoint: String,
    /// The name that the server's certificate must have; the endpoint's host when `None`.
    pub server_name: Option<String>,
    /// Certificates of the authorities that the server's is checked against, PEM.
    pub ca: PathBuf,
    /// Who calls.
    pub identity: Identity,
    /// The purpose that every call declares; a DPV term.
    pub purpose: Option<String>,
}

/// Who calls: a certificate with its key, a token, or a token over a connection with a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// The client's certificate chain, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// Its key, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// A file with a bearer token, which is read again every second: whoever renews it replaces the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
}

impl Identity {
    /// A certificate and its key.
    pub fn with_certificate(certificate: PathBuf, key: PathBuf) -> Self {
        Self {
            certificate: Some(certificate),
            key: Some(key),
            token_file: None,
        }
    }

    /// The certificate and its key, if there are any.
    ///
    /// # Errors
    /// [`ConfigError::Identity`] if there is only one of them, or nothing at all.
    pub(super) fn pair(&self) -> Result<Option<(&Path, &Path)>, ConfigError> {
        match (&self.certificate, &self.key, &self.token_file) {
            (Some(certificate), Some(key), _) => Ok(Some((certificate, key))),
            (None, None, Some(_)) => Ok(None),
            _ => Err(ConfigError::Identity),
        }
    }
}

/// A `client.toml`: one vault, several identities.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientFile {
    /// `https://host:port`.
    pub endpoint: String,
    /// The name that the server's certificate must have; the endpoint's host when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// The tenant when a command names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The purpose when a command names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purpose: Option<String>,
    /// Certificates of the authorities that the server's is checked against, PEM.
    pub ca: PathBuf,
    /// Identities by role.
    #[serde(default)]
    pub roles: BTreeMap<String, Identity>,
}

impl ClientFile {
    /// Reads a file; its relative paths begin where it lies.
    ///
    /// # Errors
    /// [`ConfigError`] if it cannot be read or says anything that is not known.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|source| ConfigError::File {
            path: path.to_owned(),
            source,
        })?;
        let file: Self = toml::from_str(&text).map_err(|source| ConfigError::Syntax {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        Ok(file.below(path.parent().unwrap_or_else(|| Path::new(""))))
    }

    /// What connects under one of the identities.
    ///
    /// # Errors
    /// [`ConfigError::Role`], with the roles that there are.
    pub fn role(&self, role: &str) -> Result<ClientConfig, ConfigError> {
        let identity = self.roles.get(role).ok_or_else(|| ConfigError::Role {
            known: self.roles.keys().cloned().collect::<Vec<_>>().join(" "),
        })?;
        Ok(ClientConfig {
            endpoint: self.endpoint.clone(),
            server_name: self.server_name.clone(),
            ca: self.ca.clone(),
            identity: identity.clone(),
            purpose: self.purpose.clone(),
        })
    }

    fn below(mut self, dir: &Path) -> Self {
        self.ca = dir.join(self.ca);
        for identity in self.roles.values_mut() {
            let files = [
                &mut identity.certificate,
                &mut identity.key,
                &mut identity.token_file,
            ];
            for file in files.into_iter().flatten() {
                *file = dir.join(&*file);
            }
        }
        self
    }
}

/// Why there is nothing to connect with.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("cannot read; check the path and its permissions path={}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A `client.toml` is malformed.
    #[error("not a client file: {source} path={}", path.display())]
    Syntax {
        /// Which.
        path: PathBuf,
        /// Where in it.
        source: Box<toml::de::Error>,
    },
    /// There is no such identity.
    #[error("the client file has no identity for this role; it has: {known}")]
    Role {
        /// The roles that it has.
        known: String,
    },
    /// An identity is half of one.
    #[error("an identity must have certificate and key, or token_file, or all three")]
    Identity,
    /// A file is not PEM of the right kind.
    #[error("cannot read PEM; check the path, its permissions and its content path={}", path.display())]
    Pem {
        /// Which.
        path: PathBuf,
        /// Why.
        source: rustls_pki_types::pem::Error,
    },
    /// Certificate and key are unfit.
    #[error("certificate and key cannot be used; check that they belong together: {0}")]
    Tls(#[from] rustls::Error),
    /// The endpoint is no address.
    #[error("endpoint must be https://host:port")]
    Endpoint,
    /// The purpose is no term.
    #[error("purpose must be a DPV term such as ServiceProvision")]
    Purpose,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded(text: &str) -> Result<ClientFile, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("client.toml");
        fs::write(&path, text).unwrap();
        ClientFile::load(&path)
    }

    const GOOD: &str = "endpoint = 'https://127.0.0.1:7443'\ntenant = 'dev'\npurpose = 'ServiceProvision'\n\
                        ca = 'pki/ca.pem'\n[roles.reader]\ncertificate = 'pki/reader.pem'\nkey = '/etc/reader.key'\n";

    #[test]
    fn relative_paths_begin_where_the_file_lies() {
        let config = loaded(GOOD).unwrap().role("reader").unwrap();
        assert!(config.ca.is_absolute() && config.ca.ends_with("pki/ca.pem"));
        let (certificate, key) = config.identity.pair().unwrap().unwrap();
        assert!(certificate.ends_with("pki/reader.pem"));
        assert_eq!(key, Path::new("/etc/reader.key"));
        assert_eq!(config.purpose.as_deref(), Some("ServiceProvision"));
    }

    #[test]
    fn an_identity_is_a_certificate_a_token_or_both_and_never_half() {
        let with = |lines: &str| {
            let text = format!("endpoint = 'https://127.0.0.1:7443'\nca = 'ca'\n[roles.x]\n{lines}");
            loaded(&text).unwrap().role("x").unwrap().identity
        };
        assert!(with("token_file = 't'").pair().unwrap().is_none());
        let both = with("token_file = 't'\ncertificate = 'c'\nkey = 'k'");
        assert!(both.pair().unwrap().is_some() && both.token_file.unwrap().is_absolute());
        for half in ["", "certificate = 'c'", "key = 'k'\ntoken_file = 't'"] {
            assert!(matches!(with(half).pair(), Err(ConfigError::Identity)), "{half}");
        }
    }

    #[test]
    fn an_unknown_role_is_answered_with_the_known_ones() {
        let error = loaded(GOOD).unwrap().role("admin").unwrap_err();
        assert!(error.to_string().ends_with("it has: reader"), "{error}");
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for bad in ["", "endpoint = 1", &format!("tennant = 'dev'\n{GOOD}")] {
            assert!(matches!(loaded(bad), Err(ConfigError::Syntax { .. })), "{bad}");
        }
        let missing = ClientFile::load(Path::new("/nowhere/client.toml"));
        assert!(matches!(missing, Err(ConfigError::File { .. })));
    }

    #[test]
    fn a_file_is_written_as_it_is_read() {
        let file: ClientFile = toml::from_str(GOOD).unwrap();
        assert_eq!(
            toml::from_str::<ClientFile>(&toml::to_string(&file).unwrap()).unwrap(),
            file
        );
    }
}
