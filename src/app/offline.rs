//! What is done to a vault without a server.

use std::sync::Arc;

use crate::{
    config::Config,
    vault::{Report, Vault},
};

use super::{
    AppError,
    vault::{How, OpenVault},
};

/// A vault that was opened without a server.
#[derive(Debug)]
pub struct Offline(OpenVault);

/// What a rebuild of the index found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rebuilt {
    /// Leaves read.
    pub leaves: u64,
    /// Records indexed from their leaves.
    pub records: u64,
    /// Records indexed from blobs that no leaf names.
    pub adopted: u64,
    /// Objects that are missing, or not as their leaf says.
    pub broken: Vec<String>,
}

impl Offline {
    /// Opens the vault of a configuration.
    ///
    /// # Errors
    /// [`AppError::InUse`] while a server has it open; [`AppError::NoVault`] where there is none.
    pub async fn open(config: &Config) -> Result<Self, AppError> {
        Ok(Self(OpenVault::open(config, How::default()).await?))
    }

    /// Moves the index aside and makes it again from the bucket; takes the vault from an index that is gone.
    ///
    /// # Errors
    /// As [`Offline::open`].
    pub async fn rebuild(config: &Config) -> Result<(Self, Rebuilt), AppError> {
        let how = How {
            may_make: false,
            rebuild: true,
        };
        let vault = OpenVault::open(config, how).await?;
        let rebuilt = match &vault.opened.replayed {
            None => Rebuilt::default(),
            Some(replayed) => Rebuilt {
                leaves: replayed.leaves,
                records: replayed.records,
                adopted: replayed.adopted,
                broken: replayed.broken.clone(),
            },
        };
        Ok((Self(vault), rebuilt))
    }

    /// Reads everything and reports what does not agree or authenticate.
    ///
    /// # Errors
    /// What keeps it from looking.
    pub async fn verify(&self) -> Result<Report, AppError> {
        let vault: &Arc<Vault> = &self.0.opened.vault;
        Ok(vault.verify().await?)
    }

    /// Ships what is queued and closes.
    pub async fn close(self) {
        self.0.close().await;
    }
}
