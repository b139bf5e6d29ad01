//! Every page of an owner, sealed again beside its current generation.

use std::collections::HashMap;

use crate::{
    domain::ids::{PageId, TenantId},
    index::{Change, Expect, IndexError, Key, Range, Row, Scan},
    keys::{region::EpochKeys, store::StoredPage, tenant::TenantKeys},
    proto::storage::{PageRow, PageStates},
};

use super::{
    super::{Error, Kind, Vault, apply, pace::Pace},
    KeyOperation,
    states::{Sealed, States},
};

/// Pages looked at at once, and of one transaction at most.
const PAGES: usize = 8;
/// Bytes of one transaction, about: a state of many punctures is 70 KiB, and there are two of each page.
const BYTES: usize = 256 << 10;
/// How often pages that change under the hand are staged again before the gate is held.
const RACES: usize = 8;

/// Whose pages, and what seals them next.
#[derive(Debug)]
pub(super) enum Owner<'a> {
    Tenant {
        tenant: &'a TenantId,
        current: u64,
        next: &'a TenantKeys,
    },
    Region {
        current: u64,
        next: &'a EpochKeys,
    },
}

/// Pages that are staged.
#[derive(Debug)]
pub(super) struct Staging<'a> {
    owner: Owner<'a>,
    /// The generation that was staged of each page, in this attempt: what an earlier one staged is under a key that is lost.
    staged: HashMap<PageId, u64>,
    states: States,
}

impl<'a> Staging<'a> {
    pub(super) fn of(owner: Owner<'a>) -> Self {
        Self {
            owner,
            staged: HashMap::new(),
            states: States::default(),
        }
    }

    /// Stages every page that is not, or has changed since it was; notes how many of `pages` are. At leisure, unless others wait.
    pub(super) async fn stage(
        &mut self,
        vault: &Vault,
        operation: &KeyOperation,
        pages: u64,
        mut pace: Option<Pace>,
    ) -> Result<(), Error> {
        let mut after = None;
        loop {
            let scan = Scan {
                range: self.owner.range(),
                reverse: false,
                after,
                limit: PAGES,
            };
            let rows = vault.index.scan(&scan).await?;
            let Some(last) = rows.last().map(|row| row.key.clone()) else {
                return Ok(());
            };
            let mut changed = 0;
            for some in by_bytes(rows) {
                changed += self.stage_rows(vault, some).await?;
            }
            if changed > 0 {
                vault
                    .note_progress(operation, self.staged.len() as u64, pages)
                    .await?;
            }
            after = Some(last);
            if let Some(pace) = &mut pace {
                pace.rest().await;
            }
        }
    }

    /// The objects that hold all that is staged.
    pub(super) async fn finish(mut self, vault: &Vault) -> Result<Vec<PageStates>, Error> {
        self.states.finish(vault).await
    }

    /// Returns how many of the rows it staged.
    async fn stage_rows(&mut self, vault: &Vault, mut rows: Vec<Row>) -> Result<usize, Error> {
        for _ in 0..RACES {
            match self.try_rows(vault, &rows).await {
                Err(Error {
                    reason: "CONFLICT", ..
                }) => {
                    let keys: Vec<Key> = rows.iter().map(|row| row.key.clone()).collect();
                    let values = vault.index.get_many(&keys).await?;
                    let found = keys.into_iter().zip(values);
                    rows = found
                        .filter_map(|(key, value)| Some(Row { key, value: value? }))
                        .collect();
                }
                done => return done,
            }
        }
        Err(IndexError::Expectation(0).into())
    }

    async fn try_rows(&mut self, vault: &Vault, rows: &[Row]) -> Result<usize, Error> {
        let mut change = Change::default();
        let mut staged = Vec::new();
        for row in rows {
            let Some(page) = self.owner.page(&row.key) else {
                continue;
            };
            let message = vault.rows.open::<PageRow>(&row.key, &row.value);
            let message = message.map_err(|error| self.owner.damaged(&page, error))?;
            let stored = apply::page_under(&message, self.owner.current())
                .ok_or_else(|| self.owner.damaged(&page, Error::corrupt("key material")))?;
            if self.staged.get(&page) == Some(&(stored.generation + 1)) {
                continue;
            }
            let next = self.owner.reseal(vault, &page, &stored).await;
            let next = next.map_err(|error| self.owner.damaged(&page, error))?;
            change
                .expect
                .push(Expect::Equals(row.key.clone(), row.value.clone()));
            change.put.push(
                vault
                    .rows
                    .row(row.key.clone(), &apply::page_staging(&stored, &next)),
            );
            staged.push((page, next));
        }
        if staged.is_empty() {
            return Ok(0);
        }
        vault.index.commit(change).await?;
        let many = staged.len();
        for (page, next) in staged {
            self.staged.insert(page, next.generation);
            self.states.add(vault, self.owner.sealed(&page, &next)).await?;
        }
        Ok(many)
    }
}

/// Rows in runs whose states are written together.
fn by_bytes(rows: Vec<Row>) -> Vec<Vec<Row>> {
    let mut runs: Vec<Vec<Row>> = vec![Vec::new()];
    let mut bytes = 0;
    for row in rows {
        let cost = 2 * row.value.len();
        if bytes + cost > BYTES && bytes > 0 {
            runs.push(Vec::new());
            bytes = 0;
        }
        bytes += cost;
        if let Some(run) = runs.last_mut() {
            run.push(row);
        }
    }
    runs
}

impl Owner<'_> {
    fn range(&self) -> Range {
        match self {
            Self::Tenant { tenant, .. } => Range::Pages((*tenant).clone()),
            Self::Region { .. } => Range::RegionPages,
        }
    }

    fn page(&self, key: &Key) -> Option<PageId> {
        match key {
            Key::Page(_, page) | Key::RegionPage(page) => Some(*page),
            _ => None,
        }
    }

    fn current(&self) -> u64 {
        match self {
            Self::Tenant { current, .. } | Self::Region { current, .. } => *current,
        }
    }

    /// A page that does not open: whose it is, and how it is mended.
    fn damaged(&self, page: &PageId, error: Error) -> Error {
        if error.kind != Kind::Corrupt {
            return error;
        }
        let (whose, cure) = match self {
            Self::Tenant { tenant, .. } => (
                tenant.as_str(),
                ", or erase the tenant, which needs none of its pages then",
            ),
            Self::Region { .. } => ("none: the region's", ""),
        };
        Error::new(
            Kind::Corrupt,
            "PAGE_DAMAGED",
            format!(
                "the state of a page does not open, so nothing was destroyed; put its object back if `callvault verify` misses one, make the index again \
                 (`callvault rebuild-index`){cure} tenant={whose} page={page}"
            ),
        )
        .because(error)
    }

    async fn reseal(&self, vault: &Vault, page: &PageId, stored: &StoredPage) -> Result<StoredPage, Error> {
        Ok(match self {
            Self::Tenant { tenant, next, .. } => vault.keys.reseal_page(tenant, page, stored, next).await?,
            Self::Region { next, .. } => vault.keys.reseal_region_page(page, stored, next)?,
        })
    }

    fn sealed(&self, page: &PageId, next: &StoredPage) -> Sealed {
        match self {
            Self::Tenant { .. } => Sealed::Tenant(apply::tenant_page_leaf(page, next)),
            Self::Region { .. } => Sealed::Region(apply::region_page_leaf(page, next)),
        }
    }
}
