//! What is done to a vault without a server.

use std::{sync::Arc, time::Duration};

use crate::{
    config::{Config, Root, RootKind},
    vault::{Moved, Report, Vault},
};

use super::{
    AppError,
    vault::{How, OpenVault},
};

/// Who moves a root, in the log: whoever may run commands where the vault runs.
const MOVER: &str = "root-migrate";
/// Between two looks at how far it is.
const LOOK: Duration = Duration::from_millis(200);

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
            move_to: None,
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

    /// Moves the root to another provider, which has a section; nobody else may have the vault open. Tells how many pages are done.
    /// Killed anywhere, it is as it was or as it should be, and another call ends it.
    ///
    /// # Errors
    /// As [`Offline::open`]; [`AppError::Config`] if there is no section; [`AppError::Root`], [`AppError::Moving`] if a provider or the
    /// bucket fails: then the root is where it was, unless only an anchor was left to be set.
    pub async fn migrate_root(
        config: &Config,
        to: RootKind,
        mut tell: impl FnMut(u64, u64) + Send,
    ) -> Result<Moved, AppError> {
        if !config.root.has(to) {
            return Err(Root::missing_section(to).into());
        }
        let how = How {
            move_to: Some(to),
            ..How::default()
        };
        let open = OpenVault::open(config, how).await?;
        let vault = Arc::clone(&open.opened.vault);
        let moved = {
            let moving = vault.migrate_root(MOVER);
            tokio::pin!(moving);
            loop {
                tokio::select! {
                    moved = &mut moving => break moved,
                    () = tokio::time::sleep(LOOK) => {
                        if let Ok((done, all)) = vault.migration_progress().await {
                            tell(done, all);
                        }
                    }
                }
            }
        };
        drop(vault);
        open.close().await;
        moved.map_err(AppError::Moving)
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
