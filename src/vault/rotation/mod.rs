//! Keys are rotated: a new key, everything that the old one sealed sealed again, and one pointer that changes.
//!
//! ```text
//! tenant   new version <- every page state of the tenant, its keyring          about records/4,096 small writes
//! region   new epoch   <- every page state of the region, the region's keyring
//! ```
//!
//! New generations are written beside the old, in the index ([`staging`]) and in objects of many states each ([`states`]).
//! The last step holds the owner's gate, stages what changed since it was looked at, and commits the pointer with the leaf that
//! names the objects. Until then nothing has changed; nobody who reads or puts waits. No record is touched, nor its wrapped DEK.
//!
//! The root moves to another provider by turning to an epoch that the other makes ([`migrate`]).
//!
//! What was asked for is an operation, in the log before it is acknowledged: it goes on after a restart, and after a lost index.

mod epoch;
mod migrate;
mod operation;
mod staging;
mod states;
mod sweep;
mod tenant;

use std::collections::BTreeMap;

use crate::{
    domain::{clock::Timestamp, ids::TenantId},
    index::{Key, Range, Row, Scan},
    keys::region::SigningKeyInfo,
    proto::storage::{EpochRow, PageRow, TenantKeyRow},
};

use super::{Error, Vault, apply};

pub use migrate::Moved;
pub use operation::{KeyOperation, OperationState, OperationWork};
pub(super) use operation::{Work, begun_row, done_row, step_row};
pub(super) use states::{if_there, region_states, tenant_states, write_states};

/// Rows read at once.
const BATCH: usize = 128;

/// In which state of its life a key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// Seals and opens.
    Enabled = 1,
    /// Seals nothing any more.
    Retired = 2,
    /// Opens nothing any more either.
    Destroyed = 3,
}

impl KeyState {
    fn from_number(number: u32) -> Option<Self> {
        match number {
            apply::ENABLED => Some(Self::Enabled),
            apply::RETIRED => Some(Self::Retired),
            apply::DESTROYED => Some(Self::Destroyed),
            _ => None,
        }
    }
}

/// A version of a tenant's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyVersion {
    /// From 1.
    pub version: u64,
    /// Where it is in its life.
    pub state: KeyState,
    /// When it was made.
    pub created: Timestamp,
    /// When another took over.
    pub retired: Option<Timestamp>,
    /// When it was destroyed.
    pub destroyed: Option<Timestamp>,
    /// How often it sealed something, at least.
    pub seals: u64,
    /// Pages whose current state is sealed under it.
    pub pages: u64,
}

/// A root epoch of the region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootEpoch {
    /// From 1.
    pub epoch: u64,
    /// Who holds its key.
    pub provider: String,
    /// Where it is in its life.
    pub state: KeyState,
    /// When it was made.
    pub created: Timestamp,
    /// When another took over.
    pub retired: Option<Timestamp>,
    /// When its provider key was destroyed.
    pub destroyed: Option<Timestamp>,
    /// Region pages whose current state is sealed under it.
    pub pages: u64,
}

impl Vault {
    /// Every version of a tenant's key, oldest first.
    ///
    /// # Errors
    /// [`Kind::NotFound`](super::Kind) if there is no such tenant.
    pub async fn key_versions(&self, tenant: &TenantId) -> Result<Vec<KeyVersion>, Error> {
        let (owner, _) = self.tenant_row(tenant).await?.ok_or_else(Error::not_found)?;
        let mut pages = BTreeMap::<u64, u64>::new();
        let range = Range::Pages(tenant.clone());
        self.each_row(range, |row| {
            let page: PageRow = self.rows.open(&row.key, &row.value)?;
            let staged = page.staged.as_ref().map(|staged| staged.key_version);
            let staged = staged.filter(|version| *version == owner.current_key_version);
            *pages.entry(staged.unwrap_or(page.key_version)).or_default() += 1;
            Ok(())
        })
        .await?;
        let mut versions = Vec::new();
        for row in self.all_rows(Range::TenantKeys(tenant.clone())).await? {
            let Key::TenantKey(_, version) = row.key else {
                continue;
            };
            let key: TenantKeyRow = self.rows.open(&row.key, &row.value)?;
            versions.push(KeyVersion {
                version,
                state: KeyState::from_number(key.state).ok_or_else(|| Error::corrupt("index row"))?,
                created: Timestamp(key.created_micros),
                retired: moment(key.retired_micros),
                destroyed: moment(key.destroyed_micros),
                seals: key.seals,
                pages: pages.get(&version).copied().unwrap_or(0),
            });
        }
        Ok(versions)
    }

    /// Every root epoch, oldest first.
    ///
    /// # Errors
    /// What the index answered.
    pub async fn root_epochs(&self) -> Result<Vec<RootEpoch>, Error> {
        let pages = self.count_rows(Range::RegionPages).await?;
        let mut epochs = Vec::new();
        for row in self.all_rows(Range::Epochs).await? {
            let epoch: EpochRow = self.rows.open(&row.key, &row.value)?;
            let state = KeyState::from_number(epoch.state).ok_or_else(|| Error::corrupt("index row"))?;
            epochs.push(RootEpoch {
                epoch: epoch.epoch,
                provider: epoch.provider,
                state,
                created: Timestamp(epoch.created_micros),
                retired: moment(epoch.retired_micros),
                destroyed: moment(epoch.destroyed_micros),
                pages: if state == KeyState::Enabled { pages } else { 0 },
            });
        }
        Ok(epochs)
    }

    /// Every key that has signed logs or certificates, oldest first; of each use the last one does.
    pub fn signing_keys(&self) -> &[SigningKeyInfo] {
        self.keys.region().signing_keys()
    }

    /// All rows of a range whose number is that of keys, not of records.
    pub(super) async fn all_rows(&self, range: Range) -> Result<Vec<Row>, Error> {
        let mut all = Vec::new();
        let keep = |row| {
            all.push(row);
            Ok(())
        };
        self.each_row(range, keep).await?;
        Ok(all)
    }

    async fn count_rows(&self, range: Range) -> Result<u64, Error> {
        let mut many = 0;
        let count = |_| {
            many += 1;
            Ok(())
        };
        self.each_row(range, count).await?;
        Ok(many)
    }

    /// Holds few rows at a time: a page's state may be long.
    pub(super) async fn each_row(
        &self,
        range: Range,
        mut each: impl FnMut(Row) -> Result<(), Error> + Send,
    ) -> Result<(), Error> {
        let mut after = None;
        loop {
            let scan = Scan {
                range: range.clone(),
                reverse: false,
                after,
                limit: BATCH,
            };
            let rows = self.index.scan(&scan).await?;
            let full = rows.len() == BATCH;
            after = rows.last().map(|row| row.key.clone());
            rows.into_iter().try_for_each(&mut each)?;
            if !full {
                return Ok(());
            }
        }
    }
}

fn moment(micros: i64) -> Option<Timestamp> {
    (micros != 0).then_some(Timestamp(micros))
}
