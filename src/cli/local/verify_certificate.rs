//! `certificate verify`: a certificate is checked offline, from its file and published keys alone.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use clap::Args;

use crate::{
    cli::{CliError, terminal},
    evidence::{keys::KeySet, verify::verify},
};

/// Longest file that is read: a certificate of ten thousand records is below 16 MiB.
const LONGEST: u64 = 256 << 20;

/// Options of `certificate verify`.
#[derive(Debug, Args)]
pub(in crate::cli) struct VerifyCertificate {
    /// The certificate, as `certificate show` wrote it
    #[arg(value_name = "FILE")]
    certificate: PathBuf,
    /// The vault's published keys, as `certificate keys` wrote them, from a source that you trust
    #[arg(long, value_name = "FILE")]
    keys: PathBuf,
    /// Print the document instead of what is proven
    #[arg(long)]
    json: bool,
}

impl VerifyCertificate {
    pub(in crate::cli) fn run(self) -> Result<(), CliError> {
        let keys = KeySet::from_jwks(&read(&self.keys)?);
        let keys = keys.map_err(|error| CliError::failed(format!("{error} path={}", self.keys.display())))?;
        let proven = verify(&read(&self.certificate)?, &keys).map_err(|refused| {
            CliError::failed(format!(
                "the certificate does not hold: {refused} path={}",
                self.certificate.display()
            ))
        })?;
        if self.json {
            let document = serde_json::to_string_pretty(&proven.certificate);
            let document = document.map_err(|error| CliError::failed(error.to_string()))?;
            return Ok(terminal::say(document)?);
        }
        for line in &proven.lines {
            terminal::say(line)?;
        }
        Ok(terminal::say(format!(
            "the certificate holds: {} {}",
            proven.certificate.identity.erasure, proven.certificate.identity.stage
        ))?)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CliError> {
    let failed = |error: &io::Error| CliError::file(path, error);
    let length = fs::metadata(path).map_err(|error| failed(&error))?.len();
    if length > LONGEST {
        return Err(CliError::failed(format!(
            "longer than 256 MiB path={}",
            path.display()
        )));
    }
    fs::read(path).map_err(|error| failed(&error))
}
