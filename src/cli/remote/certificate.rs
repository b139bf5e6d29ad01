//! `certificate`: certificates of erasure are fetched, with the keys that they are checked with, and checked.

use std::{
    fs,
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand, ValueEnum};

use super::{Remote, json};
use crate::{
    cli::{CliError, local::VerifyCertificate, terminal},
    evidence::keys::{KeySet, KeyUse, PublishedKey},
    proto::v1::{
        CertificateStage, GetCertificateRequest, ListSigningKeysResponse, SigningKeyUse, SigningPublicKey,
    },
};

const ROLE: &str = "auditor";

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// Fetch the certificate of an erasure
    Show(Show),
    /// Fetch the public keys that certificates and logs are signed with, as a JWK set
    Keys(Keys),
    /// Check a certificate against published keys, without a server
    Verify(VerifyCertificate),
}

/// Options of `certificate show`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Show {
    /// The erasure
    #[arg(value_name = "ERASURE_ID")]
    erasure: String,
    /// Stage; the last one that was reached by default
    #[arg(long, value_name = "STAGE")]
    stage: Option<Stage>,
    /// Write to a file
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    remote: Remote,
}

/// Options of `certificate keys`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Keys {
    /// Write to a file
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Stage {
    Effective,
    Final,
}

impl Command {
    pub(super) async fn run(self) -> Result<(), CliError> {
        match self {
            Self::Show(command) => command.run().await,
            Self::Keys(command) => command.run().await,
            Self::Verify(command) => command.run(),
        }
    }
}

impl Show {
    async fn run(self) -> Result<(), CliError> {
        let session = self.remote.connect(ROLE).await?;
        let stage = match self.stage {
            None => CertificateStage::Unspecified,
            Some(Stage::Effective) => CertificateStage::Effective,
            Some(Stage::Final) => CertificateStage::Final,
        };
        let request = GetCertificateRequest {
            tenant_id: session.tenant()?,
            erasure_id: self.erasure.clone(),
            stage: stage.into(),
        };
        let answer = session.client.get_certificate(request).await?;
        if session.json {
            return Ok(terminal::say(json::to_text(&answer)?)?);
        }
        write(self.output.as_deref(), &answer.certificate)
    }
}

impl Keys {
    async fn run(self) -> Result<(), CliError> {
        let session = self.remote.connect(ROLE).await?;
        let signing_keys = session.client.list_signing_keys().await?;
        if session.json {
            return Ok(terminal::say(json::to_text(&ListSigningKeysResponse {
                signing_keys,
            })?)?);
        }
        let keys = signing_keys.iter().filter_map(published).collect();
        write(self.output.as_deref(), KeySet::new(keys).to_jwks().as_bytes())
    }
}

/// A key as a key set has it; none for one of a use that this release does not know.
fn published(key: &SigningPublicKey) -> Option<PublishedKey> {
    let key_use = match key.r#use() {
        SigningKeyUse::LogCheckpoint => KeyUse::LogCheckpoint,
        SigningKeyUse::Certificate => KeyUse::Certificate,
        SigningKeyUse::Unspecified => return None,
    };
    let public_key = key.public_key[..].try_into().ok()?;
    Some(PublishedKey { key_use, public_key })
}

/// Writes exactly these bytes; a terminal gets a line's end behind them.
fn write(output: Option<&Path>, bytes: &[u8]) -> Result<(), CliError> {
    if let Some(file) = output {
        return fs::write(file, bytes).map_err(|error| CliError::file(file, &error));
    }
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    if out.is_terminal() && !bytes.ends_with(b"\n") {
        out.write_all(b"\n")?;
    }
    Ok(out.flush()?)
}
