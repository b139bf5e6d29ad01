//! The one place that assembles concrete types: for the server, for offline commands and for the demo.
//!
//! ```text
//! <data>/lock         held by whoever has the vault open
//! <data>/index/       sled: a view of the bucket, made again when it is lost or damaged
//! <data>/index-id     which index this is; the bucket's claim names it
//! <data>/spool/       uploads that are not finished: sealed
//! <data>/bucket/      the bucket, in dev mode; elsewhere it is where the configuration says, or behind S3
//! <data>/pki/         certificates, in dev mode
//! <data>/client.toml  where the server is and who may call, in dev mode
//! <data>.root/        the root keyring and the anchor (0700): outside, so that no backup of <data> holds what opens it
//! ```

mod background;
mod dev;
mod doctor;
mod harden;
mod index;
mod instance;
pub mod issuers;
mod late;
mod lock;
mod offline;
mod root;
#[cfg(test)]
mod secrets;
mod store;
mod vault;

use std::{io, path::PathBuf};

use crate::{
    access::policy::PolicyError,
    blob::store::StoreError,
    config::ConfigError,
    domain::{clock::RngFailed, ids::InvalidId},
    index::IndexError,
    keys::provider::ProviderError,
    server::{ServeError, pki::PkiError, tls::TlsError},
    telemetry::TelemetryError,
    vault::{Error, OpenError},
};

pub use dev::{CLIENT_FILE, TENANT as DEV_TENANT};
pub use doctor::{Finding, Weight, examine};
pub use harden::harden;
pub use instance::{Instance, Mode, policies};
pub use offline::{Offline, Rebuilt};
pub use root::check_root;
pub use store::check_store;

/// Why nothing could be started. Every text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The configuration is refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Policies are refused.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// An issuer's keys cannot be had.
    #[error("an issuer of tokens cannot be used: {source} at={}", at.display())]
    Issuer {
        /// Which file, or key of the configuration.
        at: PathBuf,
        /// Why.
        source: issuers::Fault,
    },
    /// Another process has the vault open.
    #[error(
        "another process has this vault open{holder}; stop it first, or ask it through the remote commands data={}",
        data.display()
    )]
    InUse {
        /// The data directory.
        data: PathBuf,
        /// ` (pid 42)`, if it left its number.
        holder: String,
    },
    /// There is nothing to open.
    #[error("there is no vault here; `callvault serve` makes one data={}", data.display())]
    NoVault {
        /// The data directory.
        data: PathBuf,
    },
    /// The bucket holds a vault, and the keys that open it are not there.
    #[error(
        "the bucket holds a vault, but the root directory that opens it is missing or empty; nothing was made. Restore it from \
         its own backup, or correct `root` (after `callvault root migrate`, set root.provider to where the root is now): without \
         it no byte of this vault can ever be read root={}",
        root.display()
    )]
    NoRoot {
        /// Where the root should be.
        root: PathBuf,
    },
    /// `index-id` is not one.
    #[error("the index's id is malformed; remove the file and run `callvault rebuild-index` path={}", path.display())]
    IndexId {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: InvalidId,
    },
    /// A file or directory cannot be used.
    #[error("cannot use a file; check the path and its permissions path={}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The vault does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The vault is open and something in it failed.
    #[error(transparent)]
    Vault(#[from] Error),
    /// The root did not move, or an anchor was left to be set.
    #[error("moving the root was cut short; see to this and run it again: {}", causes(.0))]
    Moving(Error),
    /// The store does not open.
    #[error("the store does not open: {}", causes(.0))]
    Store(#[from] StoreError),
    /// The bucket cannot be reached, or cannot hold a vault.
    #[error(transparent)]
    S3(#[from] crate::blob::s3::OpenError),
    /// The index does not open.
    #[error("the index does not open: {0}")]
    Index(#[from] IndexError),
    /// The root does not open.
    #[error("the root does not open: {}", causes(.0))]
    Root(#[from] ProviderError),
    /// No randomness.
    #[error(transparent)]
    Rng(#[from] RngFailed),
    /// The dev PKI cannot be made.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// TLS cannot be configured.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The server cannot run.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// Logs or metrics cannot be set up.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// What dev mode says of its own tenant is refused; a fault of this program.
    #[error("dev mode's own settings are refused: {0}")]
    Dev(#[from] InvalidId),
    /// A signal handler, a socket or a task failed.
    #[error("the system failed: {0}")]
    System(#[from] io::Error),
}

impl AppError {
    fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }
}

/// An error and everything below it, for operators.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(this) = cause {
        text = format!("{text}: {this}");
        cause = this.source();
    }
    text
}
