//! The use cases, one file each.

mod adopt;
mod apply;
mod blinding;
pub mod budget;
mod descriptor;
mod erasure;
pub mod error;
#[cfg(any(test, feature = "testing"))]
pub mod fuzz;
mod get;
mod keystore;
mod list;
mod making;
mod message;
mod open;
mod pace;
mod page_token;
mod payload;
mod put;
mod reblind;
mod record;
mod recovery;
mod replay;
mod requests;
mod retention_class;
mod root;
mod rotation;
mod rows;
mod streams;
mod tenant;
mod terms;
mod turns;
mod update;
mod uploads;
mod verify;

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicI64},
};

use crate::{
    blob::store::BlobStore,
    domain::{
        clock::{Clock, Rng},
        ids::{RegionName, VaultId},
    },
    index::Index,
    keys::{Keys, Realm, providers::Providers},
    ledger::outbox::Ledger,
};

pub use crate::evidence::certificate::Stage as CertificateStage;
pub use crate::keys::region::{SigningKeyInfo, SigningUse};
pub use adopt::Orphans;
pub use budget::Budget;
pub use erasure::{Erasure, ErasureSpec, PendingDeletion, Preview};
pub use error::{Error, Kind};
pub use get::{ContentRange, Reading};
pub use list::{ListPage, Order};
pub use message::MessageSpec;
pub use open::{OpenError, Opened, UploadSettings, VaultSettings};
pub use put::{Closing, Draft, Put, PutSpec};
pub use reblind::Reblinded;
pub use record::Name;
pub use recovery::{Named, Needed};
pub use replay::Replayed;
pub use rotation::{KeyOperation, KeyState, KeyVersion, Moved, OperationState, OperationWork, RootEpoch};
pub use streams::Cut;
pub use tenant::{TenantChange, TenantPage};
pub use update::{DescriptorChange, UpdateSpec};
pub use uploads::{BeginSpec, CommitSpec, UploadStatus, UploadWriter};
pub use verify::{Finding, Report};

/// A vault that is open: one region, one bucket, one index.
#[derive(Debug)]
pub struct Vault {
    realm: Realm,
    node: u32,
    store: Arc<dyn BlobStore>,
    index: Arc<dyn Index>,
    ledger: Arc<Ledger>,
    keys: Arc<Keys>,
    rows: rows::RowCodec,
    clock: Arc<dyn Clock>,
    rng: Arc<dyn Rng>,
    budget: Budget,
    turns: turns::Turns,
    under_way: put::UnderWay,
    uploads: uploads::Uploads,
    lanes: message::Lanes,
    providers: Providers,
    anchoring: Arc<open::Anchoring>,
    /// An epoch lives whose provider is not in the configuration.
    without_provider: AtomicBool,
    /// How long a key may wrap others, in microseconds.
    wraps_for: Arc<AtomicI64>,
    key_work: rotation::Work,
    streams: streams::Streams,
    erasing: erasure::Erasing,
    recovery: recovery::Recovery,
}

impl Vault {
    /// Which vault this is.
    pub fn id(&self) -> &VaultId {
        &self.realm.vault
    }

    /// Where it is.
    pub fn region(&self) -> &RegionName {
        &self.realm.region
    }

    /// What may be in flight.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Bytes of unfinished uploads in the data directory.
    pub fn spooled_bytes(&self) -> u64 {
        self.uploads.spooled_bytes()
    }

    /// The time, as this vault sees it.
    pub fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// Whether the vault can take anything in.
    ///
    /// # Errors
    /// Why not: [`Kind::Exhausted`] (`INDEX_FULL`) after the index's disk was full, until it is opened again;
    /// [`Kind::Unavailable`] (`ROOT_UNAVAILABLE`) while the root provider has been silent for too long.
    pub fn health(&self) -> Result<(), Error> {
        self.index.health()?;
        Ok(self.keys.standing().check()?)
    }

    /// Forgets unwrapped keys that have been in memory for as long as they may; to be called about every minute.
    pub fn forget_stale_keys(&self) {
        self.keys.forget_stale();
    }

    /// Ships every queued leaf now.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] if the bucket does not take them; they stay queued.
    pub async fn settle(&self) -> Result<(), Error> {
        Ok(self.ledger.ship().await?)
    }
}

#[cfg(test)]
mod tests;
