//! A sweep: what was shredded becomes final. Old copies of bucket and index, with every key that exists from then on, open none
//! of it.
//!
//! ```text
//! plan     which erasures are effective now, and whose they are
//! tenants  each has its key rotated: its pages are sealed again without the shredded slots; and its index key, so that
//!          searchable identifiers are blinded under one that no old copy knows
//! region   every slot of a region page that wraps no key still needed is punctured: retired versions, attempts cut short
//! root     the root turns to a new epoch: the region's pages are sealed again without those slots
//! read     all that was written is read back from the bucket and opened, or the sweep stops here
//! secure   all that everything is made again from is whole in the bucket and lies in the recovery store, or it stops here
//! destroy  the provider destroys every older epoch, and is seen to refuse them
//! final    the erasures of the plan
//! ```
//!
//! Old page states lie under a tenant key that is wrapped by a slot that is gone from every state that a living epoch seals. A
//! sweep that is cut short begins anew: what it had done is done again, under other keys.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use bytes::Bytes;

use crate::{
    domain::{
        clock::Timestamp,
        erasure::ErasureState,
        ids::{ErasureId, PageId, TenantId},
        limits,
        tenant::TenantState,
    },
    index::{Change, Expect, IndexError, Key, LogId, Range, Row, Scan, Scope},
    keys::{
        provider::{Destruction, EpochGrant, ProviderError},
        region::{EpochKeys, RegionKeys},
        store::StoredPage,
    },
    ledger::{
        leaf,
        log::{LogName, LogReader},
        outbox::{LedgerError, Until},
    },
    proto::storage::{
        EpochRow, ErasureFinal, KeyOperationEnded, OpenPageRow, PageRow, RegionPageSealed, RootEpochCreated,
        RootEpochDestroyed, RootEpochDestroying, TenantKeyDestroyed, TenantKeyRotated, TenantKeyRow,
        TenantPageSealed, TenantRow, UnsweptRow, UnsweptStage, state_leaf::Body,
    },
};

use super::{
    super::{Error, Kind, Vault, apply},
    KeyOperation, KeyState, OperationState, done_row,
    epoch::provider_failed,
    states::{region_states, tenant_states},
};

const NOT_READ_BACK: &str = "NOT_READ_BACK";
/// How often rows may change while they are about to be.
const RACES: usize = 32;
/// Records whose identifiers are blinded again before the content of others is final: seconds.
const BLINDED_AT_ONCE: usize = 20_000;
/// Versions destroyed, or erasures made final, in one transaction: two rows and a leaf each.
const BATCH: usize = 60;

/// Whose leaves those are that name no tenant.
const REGION: &str = "region";
/// Pages whose first state is in the log: whose, under which version or epoch.
pub(super) type Begun = HashSet<(String, u64, Bytes)>;

/// An erasure that this sweep makes final.
#[derive(Clone, Debug)]
struct Swept {
    tenant: TenantId,
    erasure: ErasureId,
    whole_tenant: bool,
    /// Its content is final already.
    only_traces: bool,
    /// Its tenant's identifiers are blinded again, or are gone with it.
    blinded: bool,
    /// The row that keeps it in the mind of sweeps, as it was planned with.
    value: Vec<u8>,
    /// The tenant's versions that were there then, and are destroyed with the sweep.
    key_versions: Vec<u64>,
}

/// A version of a tenant's key that nothing needs.
struct Unneeded {
    tenant: TenantId,
    version: u64,
    row: TenantKeyRow,
    value: Vec<u8>,
    slot: u16,
}

impl Vault {
    /// Sweeps the region.
    pub(super) async fn sweep(&self, operation: &KeyOperation) -> Result<(), Error> {
        // Before anything is rotated in vain, again and again.
        self.refuse_unreachable_epochs().await?;
        // Also before any slot of a region page goes: a retired version may be the last that opens something.
        self.secure_key_state().await?;
        let from = self.ledger.shipped();
        let mut plan = self.plan().await?;
        let mut blinded = BTreeMap::new();
        for swept in plan.iter().filter(|swept| !swept.whole_tenant) {
            let now = blinded.entry(swept.tenant.clone()).or_insert(false);
            *now |= swept.only_traces;
        }
        for (tenant, blind) in &mut blinded {
            // A large tenant's content does not wait for its identifiers: the next sweep blinds them.
            *blind |= !self.is_large(tenant).await?;
            match self.renew(operation, tenant, *blind).await {
                // It was shredded meanwhile: there is nothing left to rotate.
                Err(error) if error.kind == Kind::Shredded && self.is_tenant_shredded(tenant).await? => {}
                done => done?,
            }
        }
        self.destroy_unneeded(operation).await?;
        for swept in &mut plan {
            swept.key_versions = self.destroyed_versions(&swept.tenant).await?;
            swept.blinded = blinded.get(&swept.tenant).copied().unwrap_or(swept.whole_tenant);
        }
        self.turn_root_epoch(operation).await?;
        self.read_back(operation, from).await.map_err(unreadable)?;
        self.secure_key_state().await?;
        let epochs = self.destroy_epochs(operation).await?;
        self.await_destruction(operation, &plan).await?;
        self.finish_destroyed(&epochs).await?;
        if let Err(error) = self.prune_recovery().await {
            // All is destroyed and final: what is left there is noise, and the next sweep removes it.
            tracing::warn!(%error, "the recovery store still has copies of key states that nothing opens any more");
        }
        self.end_sweep(operation).await?;
        self.sweep_traces().await
    }

    /// A tenant's next key, and its next index key if its identifiers are blinded again.
    async fn renew(&self, operation: &KeyOperation, tenant: &TenantId, blind: bool) -> Result<(), Error> {
        if !blind {
            return self.turn_tenant_key(operation, tenant, None).await;
        }
        let blinded = self.stage_and_reblind(operation, tenant).await?;
        self.turn_tenant_key(operation, tenant, Some(blinded)).await?;
        self.forget_old_blinds(tenant).await
    }

    /// Whether blinding a tenant's identifiers again takes longer than its content should wait.
    async fn is_large(&self, tenant: &TenantId) -> Result<bool, Error> {
        let mut records = 0;
        let mut after = None;
        loop {
            let scan = Scan {
                range: Range::Records(tenant.clone()),
                reverse: false,
                after,
                limit: 1_000,
            };
            let rows = self.index.scan(&scan).await?;
            records += rows.len();
            if records > BLINDED_AT_ONCE || rows.len() < scan.limit {
                return Ok(records > BLINDED_AT_ONCE);
            }
            after = rows.last().map(|row| row.key.clone());
        }
    }

    /// Sweeps once more if erasures are left whose content alone is final.
    async fn sweep_traces(&self) -> Result<(), Error> {
        for row in self.all_rows(Range::Unswept).await? {
            let unswept: UnsweptRow = self.rows.open(&row.key, &row.value)?;
            if unswept.stage() == UnsweptStage::Traces {
                self.run_sweep(leaf::SYSTEM, None).await?;
                return Ok(());
            }
        }
        Ok(())
    }

    /// The erasures that are effective now.
    async fn plan(&self) -> Result<Vec<Swept>, Error> {
        let mut plan = Vec::new();
        for row in self.all_rows(Range::Unswept).await? {
            let Key::Unswept(tenant, erasure) = &row.key else {
                continue;
            };
            let unswept: UnsweptRow = self.rows.open(&row.key, &row.value)?;
            if unswept.stage() == UnsweptStage::Destroying {
                // An earlier sweep has done all but wait for the provider; another one would make it wait for more.
                continue;
            }
            let only_traces = unswept.stage() == UnsweptStage::Traces;
            let found = self.erasure_found(tenant, erasure).await?;
            if let Some((ErasureState::Effective, whole_tenant)) = found {
                plan.push(Swept {
                    tenant: tenant.clone(),
                    erasure: *erasure,
                    whole_tenant,
                    only_traces,
                    blinded: false,
                    value: row.value.clone(),
                    key_versions: Vec::new(),
                });
            }
        }
        Ok(plan)
    }

    /// Destroys every version of every tenant that nothing needs, and punctures every other slot that wraps nothing.
    async fn destroy_unneeded(&self, operation: &KeyOperation) -> Result<(), Error> {
        let _gate = self.keys.region_gate().await;
        // Wraps that are on their way: first who has one in hand, then whatever was handed to the index before.
        let pending = self.keys.pending_slots();
        self.index.commit(Change::default()).await?;
        let (needed, mut unneeded) = self.sort_versions().await?;
        let unused = self.first_unused().await?;
        for row in self.all_rows(Range::RegionPages).await? {
            let Key::RegionPage(page) = row.key else { continue };
            let spared = |slot: u16| {
                let here = (page, slot);
                needed.contains(&here)
                    || pending.contains(&here)
                    || unused.is_some_and(|(open, next)| open == page && slot >= next)
            };
            let mut doomed = unneeded.remove(&page).unwrap_or_default();
            loop {
                let some: Vec<Unneeded> = doomed.drain(..doomed.len().min(BATCH)).collect();
                let last = doomed.is_empty();
                self.puncture_unneeded(operation, page, &some, last, &spared)
                    .await?;
                if last {
                    break;
                }
            }
        }
        self.keys.forget_region_pages();
        Ok(())
    }

    /// The slots that wrap what is needed, and the versions that nothing needs, by region page.
    #[allow(clippy::type_complexity)] // one place, two collections
    async fn sort_versions(
        &self,
    ) -> Result<(HashSet<(PageId, u16)>, BTreeMap<PageId, Vec<Unneeded>>), Error> {
        let corrupt = || Error::corrupt("key material");
        let mut needed = HashSet::new();
        let mut unneeded: BTreeMap<PageId, Vec<Unneeded>> = BTreeMap::new();
        for row in self.all_rows(Range::Tenants).await? {
            let owner: TenantRow = self.rows.open(&row.key, &row.value)?;
            let Key::Tenant(tenant) = row.key else { continue };
            let gone = owner.state == TenantState::Shredded as u32;
            for row in self.all_rows(Range::TenantKeys(tenant.clone())).await? {
                let key: TenantKeyRow = self.rows.open(&row.key, &row.value)?;
                let Key::TenantKey(_, version) = row.key else {
                    continue;
                };
                let wrapped = key.key.as_ref().ok_or_else(corrupt)?;
                let stored = apply::stored_tenant_key(wrapped).ok_or_else(corrupt)?;
                match KeyState::from_number(key.state).ok_or_else(corrupt)? {
                    KeyState::Destroyed => {}
                    KeyState::Enabled if !gone => {
                        needed.insert((stored.region_page, stored.slot));
                    }
                    KeyState::Enabled | KeyState::Retired => {
                        let of_page = unneeded.entry(stored.region_page).or_default();
                        of_page.push(Unneeded {
                            tenant: tenant.clone(),
                            version,
                            row: key,
                            value: row.value,
                            slot: stored.slot,
                        });
                    }
                }
            }
        }
        Ok((needed, unneeded))
    }

    /// The region page that is being filled, and its first slot that nobody was given.
    pub(in crate::vault) async fn first_unused(&self) -> Result<Option<(PageId, u16)>, Error> {
        let key = Key::Meta(apply::OPEN_REGION_PAGE);
        let Some(value) = self.index.get(&key).await? else {
            return Ok(None);
        };
        let corrupt = || Error::corrupt("index row");
        let open: OpenPageRow = self.rows.open(&key, &value)?;
        let page = PageId::from_slice(&open.page_id).map_err(|_| corrupt())?;
        let next = u16::try_from(open.next_slot).map_err(|_| corrupt())?;
        Ok(Some((page, next)))
    }

    /// Punctures the slots of some versions, and with the last of them whatever else is not spared.
    async fn puncture_unneeded(
        &self,
        operation: &KeyOperation,
        page: PageId,
        versions: &[Unneeded],
        last: bool,
        spared: &(dyn Fn(u16) -> bool + Sync),
    ) -> Result<(), Error> {
        let corrupt = || Error::corrupt("key material");
        let row_key = Key::RegionPage(page);
        for _ in 0..RACES {
            let value = self.index.get(&row_key).await?.ok_or_else(corrupt)?;
            let row: PageRow = self.rows.open(&row_key, &value)?;
            let stored = apply::page_under(&row, self.keys.current_epoch()).ok_or_else(corrupt)?;
            let mut slots: BTreeSet<u16> = versions.iter().map(|version| version.slot).collect();
            if last {
                let live = self.keys.live_region_slots(&page, &stored)?;
                slots.extend(live.into_iter().filter(|slot| !spared(*slot)));
            }
            if slots.is_empty() {
                return Ok(());
            }
            let next = self.keys.puncture_region_page(&page, &stored, slots)?;
            let change = self.without_versions(operation, page, &next, versions).await?;
            let expect = [vec![Expect::Equals(row_key.clone(), value)], change.expect].concat();
            match self
                .ledger
                .commit(Change { expect, ..change }, Until::Queued)
                .await
            {
                Err(LedgerError::Index(IndexError::Expectation(_))) => {}
                done => {
                    done?;
                    versions
                        .iter()
                        .for_each(|version| self.keys.forget_tenant(&version.tenant));
                    return Ok(());
                }
            }
        }
        Err(IndexError::Expectation(0).into())
    }

    async fn without_versions(
        &self,
        operation: &KeyOperation,
        page: PageId,
        next: &StoredPage,
        versions: &[Unneeded],
    ) -> Result<Change, Error> {
        let corrupt = || Error::corrupt("key material");
        let now = self.clock.now();
        let sealed = apply::region_page_leaf(&page, next);
        let mut change = Change {
            put: vec![apply::region_page(&self.rows, &sealed).ok_or_else(corrupt)?],
            ..Change::default()
        };
        let in_leaf = self.in_leaf(sealed).await?;
        let draft = |scope, body| leaf::draft(scope, &operation.actor, now, body);
        change
            .leaves
            .push(draft(Scope::Region, Body::RegionPageSealed(in_leaf)));
        for version in versions {
            let (tenant, number) = (&version.tenant, version.version);
            let key = Key::TenantKey(tenant.clone(), number);
            change.expect.push(Expect::Equals(key, version.value.clone()));
            change.put.push(apply::tenant_key_destroyed(
                &self.rows,
                tenant,
                number,
                version.row.clone(),
                now,
            ));
            let destroyed = TenantKeyDestroyed { version: number };
            let scope = Scope::Tenant(tenant.clone());
            change
                .leaves
                .push(draft(scope, Body::TenantKeyDestroyed(destroyed)));
        }
        Ok(change)
    }

    /// The versions of a tenant's key that are destroyed.
    async fn destroyed_versions(&self, tenant: &TenantId) -> Result<Vec<u64>, Error> {
        let mut destroyed = Vec::new();
        for row in self.all_rows(Range::TenantKeys(tenant.clone())).await? {
            let key: TenantKeyRow = self.rows.open(&row.key, &row.value)?;
            if let Key::TenantKey(_, version) = row.key
                && key.state == apply::DESTROYED
            {
                destroyed.push(version);
            }
        }
        Ok(destroyed)
    }

    /// Reads all that this sweep wrote from the bucket, and opens it with what the provider and the bucket give. What is needed
    /// to open anything from now on must be there before what opened it until now is destroyed.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] (`NOT_READ_BACK`) names what does not open. Nothing has been destroyed.
    async fn read_back(&self, operation: &KeyOperation, from: u64) -> Result<(), Error> {
        let mut created = None;
        let mut rotated = Vec::new();
        // Pages that were begun meanwhile, and perhaps punctured since: their leaves say so, in the bucket.
        let mut begun = Begun::new();
        self.own_leaves(from, |tenant, body| match body {
            Body::TenantPageSealed(page) => {
                begun.insert((tenant.to_string(), page.key_version, page.page_id));
            }
            Body::RegionPageSealed(page) if page.generation == 1 => {
                begun.insert((tenant.to_string(), page.epoch, page.page_id));
            }
            Body::RootEpochCreated(body) if body.operation_id[..] == operation.id.as_bytes()[..] => {
                created = Some(body);
            }
            Body::TenantKeyRotated(body) if body.operation_id[..] == operation.id.as_bytes()[..] => {
                rotated.push((tenant, body));
            }
            _ => {}
        })
        .await?;
        let created = created.ok_or_else(|| not_read_back("the leaf of the new epoch"))?;
        self.read_back_epoch(&created, &begun).await?;
        for (tenant, body) in rotated {
            match self.read_back_tenant(&tenant, &body, &begun).await {
                // Shredded since: nothing of it is needed.
                Err(error) if error.kind == Kind::Shredded && self.is_tenant_shredded(&tenant).await? => {}
                done => done?,
            }
        }
        Ok(())
    }

    /// Gives every sequenced leaf of this process's log from a position on to `each`.
    async fn own_leaves(&self, from: u64, mut each: impl FnMut(TenantId, Body)) -> Result<(), Error> {
        self.ledger.settled().await?;
        let name = LogName {
            vault: self.realm.vault,
            log: self.ledger.log(),
        };
        let key = self.keys.region().signing().public_key();
        let reader = LogReader::open(Arc::clone(&self.store), name, Some(key)).await?;
        let reader = reader.ok_or_else(|| not_read_back("the state log"))?;
        let mut position = from;
        loop {
            let entries = reader.read(position).await?;
            if entries.is_empty() {
                return Ok(());
            }
            position += entries.len() as u64;
            for entry in &entries {
                let leaf = leaf::parse(entry).map_err(|e| Error::corrupt("leaf").because(e))?;
                let Some(body) = leaf.body else { continue };
                // The region's leaves name no tenant.
                let tenant = leaf.tenant_id.parse().or_else(|_| REGION.parse());
                each(tenant.map_err(|_| Error::corrupt("leaf"))?, body);
            }
        }
    }

    /// Opens what a new epoch seals, as the bucket has it: every region page there is, but those that were begun since, and the
    /// keyring.
    pub(super) async fn read_back_epoch(
        &self,
        created: &RootEpochCreated,
        begun: &Begun,
    ) -> Result<(), Error> {
        let failed =
            |what: &'static str| move |error: crate::keys::KeyError| not_read_back(what).because(error);
        let label = self.label(created.epoch);
        let grant = EpochGrant {
            handle: created.handle.clone(),
            wrapped: created.wrapped_epoch_key.to_vec(),
        };
        let provider = self.holder(&created.provider, created.epoch).await?;
        let key = provider.unwrap(label, &grant).await;
        let key = key.map_err(|error| failed("the new epoch's key")(error.into()))?;
        let keyring = RegionKeys::open(&self.realm, created.epoch, &key, &created.sealed_keyring);
        keyring.map_err(failed("the region's keyring"))?;
        let epoch = EpochKeys::new(created.epoch, &key);
        let mut read = BTreeSet::new();
        for states in &created.page_states {
            for page in region_states(self, states).await? {
                let (id, stored) = region_page(&page)?;
                epoch
                    .check_page(&self.realm, &id, &stored)
                    .map_err(failed("a region page"))?;
                read.insert(id);
            }
        }
        for row in self.all_rows(Range::RegionPages).await? {
            let Key::RegionPage(page) = row.key else { continue };
            let message: PageRow = self.rows.open(&row.key, &row.value)?;
            // A page that was begun since has a leaf of its own, under the new epoch.
            let leaf = (
                REGION.to_owned(),
                created.epoch,
                Bytes::copy_from_slice(page.as_bytes()),
            );
            let begun_since = message.key_version == created.epoch && begun.contains(&leaf);
            if !read.contains(&page) && !begun_since {
                return Err(not_read_back("a region page"));
            }
        }
        Ok(())
    }

    async fn read_back_tenant(
        &self,
        tenant: &TenantId,
        rotated: &TenantKeyRotated,
        begun: &Begun,
    ) -> Result<(), Error> {
        let version = rotated.key.as_ref().map_or(0, |key| key.version);
        let (owner, _) = self.tenant_row(tenant).await?.ok_or_else(Error::not_found)?;
        if owner.current_key_version != version || owner.sealed_keyring != rotated.sealed_keyring {
            return Err(not_read_back("a tenant's key"));
        }
        let stored = rotated.key.as_ref().and_then(apply::stored_tenant_key);
        let stored = stored.ok_or_else(|| not_read_back("a tenant's key"))?;
        self.keys.open_version(tenant, &stored).await?;
        let mut read = BTreeSet::new();
        for states in &rotated.page_states {
            for page in tenant_states(self, states).await? {
                let (id, stored) = tenant_page(&page)?;
                self.keys.check_page(tenant, &id, &stored).await?;
                read.insert(id);
            }
        }
        for row in self.all_rows(Range::Pages(tenant.clone())).await? {
            let Key::Page(_, page) = row.key else { continue };
            let message: PageRow = self.rows.open(&row.key, &row.value)?;
            let leaf = (
                tenant.to_string(),
                version,
                Bytes::copy_from_slice(page.as_bytes()),
            );
            let begun_since = message.key_version == version && begun.contains(&leaf);
            if !read.contains(&page) && !begun_since {
                return Err(not_read_back("a tenant's page"));
            }
        }
        Ok(())
    }

    /// Has the provider destroy every epoch but the current one, and sees it refuse them. Returns those that are gone.
    async fn destroy_epochs(&self, operation: &KeyOperation) -> Result<Vec<u64>, Error> {
        self.refuse_unknown_logs().await?;
        self.refuse_unreachable_epochs().await?;
        let current = self.keys.current_epoch();
        for row in self.all_rows(Range::Epochs).await? {
            let epoch: EpochRow = self.rows.open(&row.key, &row.value)?;
            if epoch.epoch < current && epoch.state != apply::DESTROYED {
                self.destroy_epoch(operation, epoch, row.value, current).await?;
            }
        }
        self.destroyed_epochs().await
    }

    async fn destroyed_epochs(&self) -> Result<Vec<u64>, Error> {
        let mut gone = Vec::new();
        for row in self.all_rows(Range::Epochs).await? {
            let epoch: EpochRow = self.rows.open(&row.key, &row.value)?;
            if epoch.state == apply::DESTROYED {
                gone.push(epoch.epoch);
            }
        }
        Ok(gone)
    }

    /// A log that this index does not know may hold what only the old keys open.
    async fn refuse_unknown_logs(&self) -> Result<(), Error> {
        let known: HashSet<LogId> = self.known_logs().await?.into_iter().map(|(log, _)| log).collect();
        for log in crate::ledger::log::logs(&*self.store, crate::index::LogKind::State).await? {
            if !known.contains(&log) {
                return Err(Error::new(
                    Kind::WrongState,
                    "UNKNOWN_LOG",
                    "the bucket holds a log of another process; nothing is destroyed until this index has read it: restart the vault",
                ));
            }
        }
        Ok(())
    }

    async fn destroy_epoch(
        &self,
        operation: &KeyOperation,
        epoch: EpochRow,
        value: Vec<u8>,
        current: u64,
    ) -> Result<(), Error> {
        let (number, handle) = (epoch.epoch, epoch.handle.clone());
        let grant = EpochGrant {
            handle: handle.clone(),
            wrapped: epoch.wrapped_epoch_key.to_vec(),
        };
        let provider = self.holder(&epoch.provider, number).await?;
        if epoch.destroying_micros == 0 {
            self.must_be_there(&epoch).await?;
            self.prove_unreferenced(operation, epoch, value, current).await?;
        }
        let destroyed = provider
            .destroy(self.label(number), &handle)
            .await
            .map_err(provider_failed)?;
        match provider.unwrap(self.label(number), &grant).await {
            Err(ProviderError::NoSuchKey) => {}
            Err(error) => return Err(provider_failed(error)),
            Ok(_) => {
                return Err(Error::new(
                    Kind::Corrupt,
                    "EPOCH_STILL_OPENS",
                    "the root provider says that it destroyed an epoch's key, and still opens it; nothing is final",
                ));
            }
        }
        let scheduled = match destroyed {
            Destruction::Destroyed => 0,
            Destruction::Scheduled { at } => at.micros(),
        };
        let (before, value) = self
            .epoch_row(number)
            .await?
            .ok_or_else(|| Error::corrupt("key material"))?;
        if scheduled != 0 && before.scheduled_micros == scheduled {
            return Ok(());
        }
        let now = self.clock.now();
        let body = RootEpochDestroyed {
            epoch: number,
            scheduled_micros: scheduled,
            operation_id: operation.id.as_bytes().to_vec().into(),
        };
        let change = Change {
            expect: vec![Expect::Equals(Key::Epoch(number), value)],
            put: vec![apply::epoch_destroyed(&self.rows, before, scheduled, now)],
            leaves: vec![leaf::draft(
                Scope::Region,
                &operation.actor,
                now,
                Body::RootEpochDestroyed(body),
            )],
            ..Change::default()
        };
        self.ledger.commit(change, Until::Shipped).await?;
        Ok(())
    }

    /// One transaction says that an epoch is about to be destroyed, and holds only if the current one still is that. The gate
    /// keeps pages from changing while each of them is seen to lie under the current one.
    async fn prove_unreferenced(
        &self,
        operation: &KeyOperation,
        epoch: EpochRow,
        value: Vec<u8>,
        current: u64,
    ) -> Result<(), Error> {
        let _gate = self.keys.region_gate().await;
        for row in self.all_rows(Range::RegionPages).await? {
            let page: PageRow = self.rows.open(&row.key, &row.value)?;
            if apply::page_under(&page, current).is_none() {
                return Err(not_read_back("a region page under the current epoch"));
            }
        }
        let (newest, newest_value) = self.newest_epoch().await?;
        let number = epoch.epoch;
        let body = RootEpochDestroying {
            epoch: number,
            current_epoch: newest.epoch,
            operation_id: operation.id.as_bytes().to_vec().into(),
        };
        let now = self.clock.now();
        let change = Change {
            expect: vec![
                Expect::Equals(Key::Epoch(newest.epoch), newest_value),
                Expect::Absent(Key::Epoch(newest.epoch + 1)),
                Expect::Equals(Key::Epoch(number), value),
            ],
            put: vec![apply::epoch_destroying(&self.rows, epoch, now)],
            leaves: vec![leaf::draft(
                Scope::Region,
                &operation.actor,
                now,
                Body::RootEpochDestroying(body),
            )],
            ..Change::default()
        };
        self.ledger.commit(change, Until::Shipped).await?;
        Ok(())
    }

    /// Remembers what the erasures of the plan wait for.
    async fn await_destruction(&self, operation: &KeyOperation, plan: &[Swept]) -> Result<(), Error> {
        let epoch = self.keys.current_epoch().saturating_sub(1);
        for some in plan.chunks(BATCH) {
            let mut change = Change::default();
            for swept in some {
                let key = Key::Unswept(swept.tenant.clone(), swept.erasure);
                let row = UnsweptRow {
                    stage: UnsweptStage::Destroying.into(),
                    epoch,
                    key_versions: swept.key_versions.clone(),
                    operation_id: operation.id.as_bytes().to_vec().into(),
                    blinded: swept.blinded,
                };
                change
                    .expect
                    .push(Expect::Equals(key.clone(), swept.value.clone()));
                change.put.push(self.rows.row(key, &row));
            }
            self.index.commit(change).await?;
        }
        Ok(())
    }

    /// Makes every erasure final whose epochs are gone.
    async fn finish_destroyed(&self, gone: &[u64]) -> Result<(), Error> {
        let mut last = Vec::new();
        for row in self.all_rows(Range::Epochs).await? {
            let epoch: EpochRow = self.rows.open(&row.key, &row.value)?;
            if epoch.state != apply::DESTROYED && epoch.epoch != self.keys.current_epoch() {
                last.push(epoch.epoch);
            }
        }
        for row in self.all_rows(Range::Unswept).await? {
            let unswept: UnsweptRow = self.rows.open(&row.key, &row.value)?;
            let waits = last.iter().any(|epoch| *epoch <= unswept.epoch);
            if unswept.stage() == UnsweptStage::Destroying && !waits {
                self.make_final(row, &unswept, gone).await?;
            }
        }
        self.ledger.settled().await?;
        Ok(())
    }

    async fn make_final(&self, row: Row, unswept: &UnsweptRow, gone: &[u64]) -> Result<(), Error> {
        let Key::Unswept(tenant, erasure) = &row.key else {
            return Ok(());
        };
        let body = ErasureFinal {
            erasure_id: erasure.as_bytes().to_vec().into(),
            content: true,
            // With a tenant's last key goes the one that its identifiers were blinded under.
            search_traces: unswept.blinded,
            operation_id: unswept.operation_id.clone(),
            key_versions: unswept.key_versions.clone(),
            epochs: gone.to_vec(),
        };
        let now = self.clock.now();
        let Some(mut change) = self.final_rows(tenant, erasure, &body, now).await? else {
            return Ok(());
        };
        change.expect.push(Expect::Equals(row.key.clone(), row.value));
        change.leaves.push(leaf::draft(
            Scope::Tenant(tenant.clone()),
            leaf::SYSTEM,
            now,
            Body::ErasureFinal(body),
        ));
        self.ledger.commit(change, Until::Queued).await?;
        Ok(())
    }

    async fn end_sweep(&self, operation: &KeyOperation) -> Result<(), Error> {
        let now = self.clock.now();
        let result = self.keys.current_epoch();
        let ended = self.operation(&operation.id).await?;
        if ended.state != OperationState::Running {
            return Ok(());
        }
        let body = KeyOperationEnded {
            operation_id: operation.id.as_bytes().to_vec().into(),
            result,
        };
        let change = Change {
            put: vec![done_row(&self.rows, &ended, result, now)],
            leaves: vec![leaf::draft(
                Scope::Region,
                &operation.actor,
                now,
                Body::KeyOperationEnded(body),
            )],
            ..Change::default()
        };
        self.ledger.commit(change, Until::Shipped).await?;
        Ok(())
    }

    /// Begins a sweep if there is anything for it to do, and finishes what waited for a provider whose time has come.
    ///
    /// # Errors
    /// What index, bucket or provider answered.
    pub async fn sweep_if_due(&self) -> Result<bool, Error> {
        let rows = self.all_rows(Range::Unswept).await?;
        let mut due = false;
        for row in rows {
            let unswept: UnsweptRow = self.rows.open(&row.key, &row.value)?;
            due |= unswept.stage() != UnsweptStage::Destroying;
        }
        if due {
            self.run_sweep(leaf::SYSTEM, None).await?;
        }
        Ok(due)
    }

    /// Epochs whose destruction the provider has scheduled, and when the last of them comes true.
    ///
    /// # Errors
    /// What the index answered.
    pub async fn scheduled_epochs(&self) -> Result<(Vec<u64>, Option<Timestamp>), Error> {
        let mut scheduled = Vec::new();
        let mut last = None;
        for row in self.all_rows(Range::Epochs).await? {
            let epoch: EpochRow = self.rows.open(&row.key, &row.value)?;
            if epoch.state != apply::DESTROYED && epoch.scheduled_micros != 0 {
                scheduled.push(epoch.epoch);
                last = last.max(Some(Timestamp(epoch.scheduled_micros)));
            }
        }
        Ok((scheduled, last))
    }

    /// Asks the provider for epochs whose time has come, and makes final what waited for them. Idempotent.
    ///
    /// # Errors
    /// What index, bucket or provider answered.
    pub async fn finish_scheduled(&self) -> Result<(), Error> {
        let now = self.clock.now().micros();
        let _doing = self.key_work.pause().await;
        for row in self.all_rows(Range::Epochs).await? {
            let epoch: EpochRow = self.rows.open(&row.key, &row.value)?;
            let due = epoch.scheduled_micros != 0 && epoch.scheduled_micros <= now;
            if !due || epoch.state == apply::DESTROYED || self.providers.of(&epoch.provider).is_none() {
                continue;
            }
            let scheduled = match self.destruction(&epoch).await? {
                Destruction::Destroyed => 0,
                Destruction::Scheduled { at } if at.micros() == epoch.scheduled_micros => continue,
                Destruction::Scheduled { at } => at.micros(),
            };
            let now = self.clock.now();
            let body = RootEpochDestroyed {
                epoch: epoch.epoch,
                scheduled_micros: scheduled,
                operation_id: Default::default(),
            };
            let change = Change {
                expect: vec![Expect::Equals(row.key, row.value)],
                put: vec![apply::epoch_destroyed(&self.rows, epoch, scheduled, now)],
                leaves: vec![leaf::draft(
                    Scope::Region,
                    leaf::SYSTEM,
                    now,
                    Body::RootEpochDestroyed(body),
                )],
                ..Change::default()
            };
            self.ledger.commit(change, Until::Shipped).await?;
        }
        let gone = self.destroyed_epochs().await?;
        self.finish_destroyed(&gone).await
    }
}

impl Vault {
    /// What has become of an epoch's key whose destruction was scheduled. One that was called back is destroyed once more.
    async fn destruction(&self, epoch: &EpochRow) -> Result<Destruction, Error> {
        let label = self.label(epoch.epoch);
        let provider = self.holder(&epoch.provider, epoch.epoch).await?;
        let now = provider.destruction(label, &epoch.handle).await;
        match now.map_err(provider_failed)? {
            Some(answer) => Ok(answer),
            None => {
                tracing::error!(
                    epoch = epoch.epoch,
                    "somebody called the destruction of an epoch's key back; it is asked for again"
                );
                provider
                    .destroy(label, &epoch.handle)
                    .await
                    .map_err(provider_failed)
            }
        }
    }
}

fn not_read_back(what: &str) -> Error {
    Error::new(
        Kind::Corrupt,
        NOT_READ_BACK,
        format!(
            "what the sweep wrote does not open when it is read back, so nothing was destroyed; check the bucket what={what}"
        ),
    )
}

/// What is damaged in the bucket is what this is about.
fn unreadable(error: Error) -> Error {
    match error.kind {
        Kind::Corrupt if error.reason != NOT_READ_BACK => {
            let what = format!("what was sealed again: {}", error.message);
            not_read_back(&what).because(error)
        }
        _ => error,
    }
}

fn region_page(page: &RegionPageSealed) -> Result<(PageId, StoredPage), Error> {
    let id = PageId::from_slice(&page.page_id).map_err(|_| not_read_back("a region page"))?;
    Ok((
        id,
        StoredPage {
            generation: page.generation,
            key_version: page.epoch,
            sealed_state: page.sealed_state.to_vec(),
            retention_class: String::new(),
            month: 0,
        },
    ))
}

fn tenant_page(page: &TenantPageSealed) -> Result<(PageId, StoredPage), Error> {
    let id = PageId::from_slice(&page.page_id).map_err(|_| not_read_back("a tenant's page"))?;
    Ok((
        id,
        StoredPage {
            generation: page.generation,
            key_version: page.key_version,
            sealed_state: page.sealed_state.to_vec(),
            retention_class: page.retention_class.clone(),
            month: page.month,
        },
    ))
}

const _: () = assert!(3 * BATCH + 8 <= limits::TRANSACTION_ROWS);
