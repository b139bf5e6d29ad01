//! The root moves to another provider: the next epoch is made by that one, and takes over as any other does.
//!
//! ```text
//! give up   what an attempt before this one may have left, with whichever provider it was
//! anchors   both providers are told how far the vault has come: from here on neither lets an older bucket pass
//! epoch     intent, key, pages and keyring sealed again, one pointer change: as `epoch` does it
//! anchors   once more, with the pointer change in the bucket
//! ```
//!
//! Until the pointer changes the old provider opens the vault, after it the new one, and no start takes one for the other. The
//! older epochs stay where they are: the next sweep has them destroyed there.

use crate::{index::Range, proto::storage::EpochRow};

use super::{
    super::{Error, Kind, Vault, apply},
    epoch::provider_failed,
};

/// Where the root is, and what is left elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Whether it was moved just now, and was not there before.
    pub moved: bool,
    /// The provider that holds it.
    pub to: String,
    /// Its newest epoch.
    pub epoch: u64,
    /// Older epochs that live with other providers, and who those are.
    pub left: Vec<(u64, String)>,
}

impl Vault {
    /// Moves the root to the provider that the vault was opened to move it to. Does nothing but set anchors if it is there already.
    ///
    /// What fails, or is cut short, changes nothing that a reader meets, and is begun again by the next call.
    ///
    /// # Errors
    /// [`Kind::WrongState`] if the vault was not opened for this, or an attempt before this one was with a provider that cannot be
    /// asked to give it up; [`Kind::Unavailable`] if a provider or the bucket fails.
    pub async fn migrate_root(&self, actor: &str) -> Result<Moved, Error> {
        if !self.providers.is_moving() {
            return Err(Error::new(
                Kind::WrongState,
                "NOT_MOVING",
                "the vault was not opened to move its root; stop it, and run `callvault root migrate`",
            ));
        }
        let _doing = self.key_work.pause().await;
        let to = self.providers.maker().kind();
        let (before, _) = self.newest_epoch().await?;
        let moved = before.provider != to;
        if moved {
            let operation = self.rotate_root_epoch(actor, None).await?;
            self.turn_root_epoch(&operation).await?;
        }
        // What was shipped has told them, unless one of them did not listen.
        self.ledger.settled().await?;
        self.anchoring.secure().await.map_err(provider_failed)?;
        let (newest, _) = self.newest_epoch().await?;
        Ok(Moved {
            moved,
            to: newest.provider,
            epoch: newest.epoch,
            left: self.epochs_elsewhere(to).await?,
        })
    }

    /// How far a migration is: pages done, and all of them.
    ///
    /// # Errors
    /// What the index answered.
    pub async fn migration_progress(&self) -> Result<(u64, u64), Error> {
        let (running, _) = self
            .key_operations(None, 1, |operation| {
                operation.work == super::OperationWork::RotateRootEpoch
            })
            .await?;
        Ok(running
            .first()
            .map_or((0, 0), |operation| (operation.done, operation.total)))
    }

    async fn epochs_elsewhere(&self, here: &str) -> Result<Vec<(u64, String)>, Error> {
        let mut left = Vec::new();
        for row in self.all_rows(Range::Epochs).await? {
            let epoch: EpochRow = self.rows.open(&row.key, &row.value)?;
            if epoch.state != apply::DESTROYED && epoch.provider != here {
                left.push((epoch.epoch, epoch.provider));
            }
        }
        Ok(left)
    }
}
