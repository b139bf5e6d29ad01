//! Certificates of erasure: made once a stage from what the log says, checked as a stranger would, kept in the bucket.
//!
//! ```text
//! rows -> where to look in the logs -> leaves -> document -> checked against the leaves -> signed -> certificates/<tenant>/...
//! ```
//!
//! What the document says of the erasure is read from the leaves that it cites, never from rows: those only tell where to look.

mod document;
mod search;
mod standing;

use std::{fs::File, io::Read, sync::OnceLock};

use bytes::Bytes;
use ring::digest;
use tokio::sync::Mutex;

use crate::{
    blob::store::{ByteRange, ObjectKey, StoreError},
    crypto::sign::SigningKey,
    domain::ids::{ErasureId, TenantId},
    evidence::{
        canonical,
        certificate::{Certificate, Stage},
        jws,
        keys::{KeySet, KeyUse, PublishedKey},
        verify::{Refused, verify},
    },
    index::Key,
    keys::region::SigningUse,
    ledger::log::Signer,
    proto::storage::ErasureRow,
};

use super::super::{Error, Kind, Vault};

/// One certificate is made at a time: one of ten thousand records takes tens of megabytes while it is.
static MAKING: Mutex<()> = Mutex::const_new(());

impl Vault {
    /// The certificate of a stage of an erasure, the last one that was reached if none is named. A stage has one certificate: it
    /// is made when it is first asked for, and never changes.
    ///
    /// Cancel safe: a certificate may have been made that the next call returns.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if the tenant has no such erasure; [`Kind::WrongState`] (`STAGE_NOT_REACHED`, `PATHS_OPEN`) if it is not
    /// there yet; [`Kind::Unavailable`] if store or root provider cannot be asked; [`Kind::Corrupt`] if the stored certificate
    /// is not one of this vault.
    pub async fn certificate(
        &self,
        tenant: &TenantId,
        erasure: &ErasureId,
        stage: Option<Stage>,
    ) -> Result<(Stage, Bytes), Error> {
        let key = Key::Erasure(tenant.clone(), *erasure);
        let value = self.index.get(&key).await?.ok_or_else(Error::not_found)?;
        let row: ErasureRow = self.rows.open(&key, &value)?;
        let stage = stage_of(&row, stage)?;
        let name = object_of(tenant, erasure, stage)?;
        let _alone = MAKING.lock().await;
        let of = |certificate: &Certificate| {
            let said = &certificate.identity;
            said.tenant == tenant.as_str() && said.erasure == erasure.to_string() && said.stage == stage
        };
        if let Some(issued) = self.issued(&name, of).await? {
            return Ok((stage, issued));
        }
        // Leaves that are still queued are part of it.
        self.ledger.settled().await?;
        let certificate = self.certify(tenant, erasure, stage, &row).await?;
        let file = self.sign_certificate(certificate).await?;
        match self.store.put(&name, file.clone()).await {
            Ok(_) => Ok((stage, file)),
            Err(StoreError::AlreadyExists) => {
                let issued = self.issued(&name, of).await?;
                issued
                    .map(|issued| (stage, issued))
                    .ok_or_else(|| Error::corrupt("certificate"))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Every key of this vault that certificates are checked with.
    fn published_keys(&self) -> KeySet {
        let keys = self.keys.region().signing_keys().iter();
        let published = keys.map(|key| PublishedKey {
            key_use: match key.signing_use {
                SigningUse::LogCheckpoint => KeyUse::LogCheckpoint,
                SigningUse::Certificate => KeyUse::Certificate,
            },
            public_key: key.public_key,
        });
        KeySet::new(published.collect())
    }

    /// A certificate that was issued before, if it still holds and is the one that it should be.
    async fn issued(
        &self,
        name: &ObjectKey,
        of: impl Fn(&Certificate) -> bool,
    ) -> Result<Option<Bytes>, Error> {
        let file = match self.store.get(name, ByteRange::Full).await {
            Err(StoreError::NotFound) => return Ok(None),
            other => other?.bytes,
        };
        let corrupt = || Error::corrupt("certificate");
        let (held, keys) = (file.clone(), self.published_keys());
        let proven = blocking(move || verify(&held, &keys)).await?;
        match proven {
            Ok(proven) if of(&proven.certificate) => Ok(Some(file)),
            Ok(_) => Err(corrupt()),
            Err(refused) => Err(corrupt().because(refused)),
        }
    }

    /// Signs, and opens it as a stranger would: what leaves the vault holds.
    async fn sign_certificate(&self, certificate: Certificate) -> Result<Bytes, Error> {
        let region = self.keys.region();
        let payload = blocking(move || {
            let document = serde_json::to_value(&certificate);
            drop(certificate);
            let spelt = document
                .ok()
                .and_then(|document| canonical::to_bytes(&document).ok());
            spelt.ok_or_else(|| {
                Error::new(
                    Kind::Internal,
                    "CERTIFICATE",
                    "a certificate cannot be written; report it",
                )
            })
        })
        .await??;
        let signer = CertificateSigner(region.certificate_signing());
        let kid = KeyUse::Certificate.kid(&signer.public_key());
        let file = Bytes::from(jws::sign(&payload, &kid, &signer));
        drop(payload);
        let (held, keys) = (file.clone(), self.published_keys());
        let proven = blocking(move || verify(&held, &keys)).await?;
        proven.map(|_| file).map_err(disagrees)
    }
}

/// The log and the index tell different stories.
fn disagrees(refused: Refused) -> Error {
    Error::new(
        Kind::Internal,
        "CERTIFICATE",
        "the log does not bear out what the index says of this erasure; run `callvault verify` and report what it finds",
    )
    .because(refused)
}

/// The stage that is asked for, if it is reached; the last one that is, if none is asked for.
fn stage_of(row: &ErasureRow, asked: Option<Stage>) -> Result<Stage, Error> {
    let reached = if row.content_final_micros != 0 && row.traces_final_micros != 0 {
        Some(Stage::Final)
    } else {
        (row.effective_micros != 0).then_some(Stage::Effective)
    };
    match (asked, reached) {
        (None, Some(reached)) => Ok(reached),
        (Some(asked), Some(reached)) if asked <= reached => Ok(asked),
        (_, reached) => Err(not_reached(row, reached)),
    }
}

fn not_reached(row: &ErasureRow, reached: Option<Stage>) -> Error {
    let why = match reached {
        _ if row.cancelled_micros != 0 => "it was cancelled",
        None => "it is not EFFECTIVE yet: its records are unreadable and wait for their shredding",
        Some(_) if row.content_final_micros != 0 => {
            "it is EFFECTIVE, and its content is FINAL; its search traces are not yet, a sweep is under way"
        }
        Some(_) => "it is EFFECTIVE; it becomes FINAL with the next sweep, run one or wait for it",
    };
    Error::new(
        Kind::WrongState,
        "STAGE_NOT_REACHED",
        format!("there is no certificate of that stage: {why}"),
    )
}

/// Where a certificate lies.
fn object_of(tenant: &TenantId, erasure: &ErasureId, stage: Stage) -> Result<ObjectKey, Error> {
    let stage = stage.name().to_lowercase();
    Ok(ObjectKey::parse(&format!(
        "certificates/{tenant}/{erasure}-{stage}.json"
    ))?)
}

/// Does what takes processor time on a thread of its own.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| {
        Error::new(
            Kind::Internal,
            "CERTIFICATE",
            "a certificate could not be made; report it",
        )
    })
}

/// SHA-256 of the running executable.
fn build_sha256() -> &'static str {
    static BUILD: OnceLock<String> = OnceLock::new();
    BUILD.get_or_init(|| executable_sha256().unwrap_or_else(|_| "unknown".to_owned()))
}

fn executable_sha256() -> std::io::Result<String> {
    let mut file = File::open(std::env::current_exe()?)?;
    let (mut context, mut buffer) = (digest::Context::new(&digest::SHA256), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(context.finish())),
            read => context.update(&buffer[..read]),
        }
    }
}

/// Signs with the region's certificate key.
#[derive(Debug)]
struct CertificateSigner<'a>(&'a SigningKey);

impl Signer for CertificateSigner<'_> {
    fn public_key(&self) -> [u8; 32] {
        self.0.public_key()
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message)
    }
}
