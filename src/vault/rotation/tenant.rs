//! A tenant's key is rotated, and a version that nothing needs any more is destroyed.

use std::sync::Arc;

use prost::Message;

use crate::{
    domain::{ids::TenantId, tenant::TenantState},
    index::{Change, Expect, IndexError, Key, Range, Row, Scope},
    keys::tenant::{NextIndexKey, NextVersion},
    ledger::{
        leaf,
        outbox::{LedgerError, Until},
    },
    proto::storage::{
        PageRow, PageStates, RegionPageSealed, RegionPageStates, TenantKeyDestroyed, TenantKeyRotated,
        TenantKeyRow, TenantRow, state_leaf::Body,
    },
};

use super::{
    super::{Error, Kind, Reblinded, Vault, apply, pace::Pace, recovery},
    KeyOperation, KeyState, KeyVersion,
    staging::{Owner, Staging},
    states::write_states,
    step_row,
};

/// How often a tenant's settings may change while its pointer is about to.
const RACES: usize = 32;
/// Longest state that goes into a leaf: a leaf has 60 KiB, and other fields.
const STATE_IN_LEAF: usize = 32 << 10;

impl Vault {
    /// Rotates a tenant's key. Nothing has changed until the last step, in which all has.
    ///
    /// An index key that was staged takes over with it if all is blinded under that, and is given up otherwise.
    pub(in crate::vault) async fn turn_tenant_key(
        &self,
        operation: &KeyOperation,
        tenant: &TenantId,
        reblinded: Option<Reblinded>,
    ) -> Result<(), Error> {
        let index_key = reblinded.map_or(NextIndexKey::Kept, |reblinded| reblinded.takes_over());
        let next = self.keys.next_version(tenant, index_key).await?;
        let mut staging = Staging::of(Owner::Tenant {
            tenant,
            current: next.key.version - 1,
            next: &next.keys,
        });
        let pages = self.count_rows(Range::Pages(tenant.clone())).await?;
        staging.stage(self, operation, pages, Some(Pace::begin())).await?;
        let _gate = self.keys.tenant_gate(tenant).await;
        staging.stage(self, operation, pages, None).await?;
        let states = staging.finish(self).await?;
        self.point_to(&operation.with_all(pages), tenant, &next, states)
            .await
    }

    /// The pointer change; the caller holds the tenant's gate.
    async fn point_to(
        &self,
        operation: &KeyOperation,
        tenant: &TenantId,
        next: &NextVersion,
        page_states: Vec<PageStates>,
    ) -> Result<(), Error> {
        let corrupt = || Error::corrupt("key material");
        let body = TenantKeyRotated {
            operation_id: operation.id.as_bytes().to_vec().into(),
            key: Some(apply::wrapped_tenant_key(&next.key)),
            sealed_keyring: next.sealed_keyring.clone().into(),
            page_states,
            index_key_generation: next.index_key_generation,
        };
        let now = self.clock.now();
        for _ in 0..RACES {
            let (before, value) = self.tenant_row(tenant).await?.ok_or_else(Error::not_found)?;
            if before.state == TenantState::Shredded as u32 {
                // It was shredded while this waited for the gate: another key would open it again.
                return Err(crate::keys::KeyError::Punctured.into());
            }
            if before.current_key_version + 1 != next.key.version {
                return Err(corrupt());
            }
            if before.sealed_keyring[..] != next.made_from[..] {
                // An index key was staged meanwhile.
                return Err(IndexError::Expectation(0).into());
            }
            let (retired, _) = self.key_row(tenant, before.current_key_version).await?;
            let mut put = apply::tenant_key_rotated(&self.rows, tenant, before, retired, &body, now)
                .ok_or_else(corrupt)?;
            put.extend(self.blinding_rotated(tenant, &body).await?);
            put.push(step_row(&self.rows, operation, next.key.version, now));
            let change = Change {
                expect: vec![Expect::Equals(Key::Tenant(tenant.clone()), value)],
                put,
                leaves: vec![leaf::draft(
                    Scope::Tenant(tenant.clone()),
                    &operation.actor,
                    now,
                    Body::TenantKeyRotated(body.clone()),
                )],
                ..Change::default()
            };
            match self.ledger.commit(change, Until::Shipped).await {
                // The tenant's settings changed meanwhile.
                Err(LedgerError::Index(IndexError::Expectation(_))) => {}
                done => return Ok(done.map(|_| ())?),
            }
        }
        Err(IndexError::Expectation(0).into())
    }

    /// The row of a version, and its value.
    pub(in crate::vault) async fn key_row(
        &self,
        tenant: &TenantId,
        version: u64,
    ) -> Result<(TenantKeyRow, Vec<u8>), Error> {
        let key = Key::TenantKey(tenant.clone(), version);
        let value = self.index.get(&key).await?.ok_or_else(Error::not_found)?;
        Ok((self.rows.open(&key, &value)?, value))
    }

    /// Destroys a retired version of a tenant's key: its slot is gone from the current state of its region page. Copies of
    /// older states have it until the epoch that seals them is destroyed. Once is as good as twice.
    ///
    /// # Errors
    /// [`Kind::WrongState`] (`KEY_IN_USE`) while it seals pages or is the current one; [`Kind::NotFound`]; and as
    /// [`Vault::secure_key_state`].
    pub async fn destroy_key_version(
        self: &Arc<Self>,
        actor: &str,
        tenant: &TenantId,
        version: u64,
    ) -> Result<KeyVersion, Error> {
        let (vault, actor, tenant) = (Arc::clone(self), actor.to_owned(), tenant.clone());
        let destroy = async move { vault.destroy_version(&actor, &tenant, version).await };
        self.keys.changes().run((), destroy).await?
    }

    async fn destroy_version(
        &self,
        actor: &str,
        tenant: &TenantId,
        version: u64,
    ) -> Result<KeyVersion, Error> {
        let (key, _) = self.key_row(tenant, version).await?;
        if key.state != apply::DESTROYED {
            self.refuse_in_use(tenant, version).await?;
            if self.recovery.is_configured() {
                // What took over from it lies there before it goes.
                let secured = self.secure_key_state().await;
                secured.map_err(|error| recovery::without_names(error, tenant, version))?;
            }
        }
        let _tenant_gate = self.keys.tenant_gate(tenant).await;
        let (key, value) = self.key_row(tenant, version).await?;
        if key.state != apply::DESTROYED {
            self.refuse_in_use(tenant, version).await?;
            let _region_gate = self.keys.region_gate().await;
            self.puncture_version(actor, tenant, version, key, value).await?;
        }
        self.ship_before_repeating().await?;
        let versions = self.key_versions(tenant).await?;
        let found = versions.into_iter().find(|have| have.version == version);
        found.ok_or_else(Error::not_found)
    }

    async fn refuse_in_use(&self, tenant: &TenantId, version: u64) -> Result<(), Error> {
        let versions = self.key_versions(tenant).await?;
        let found = versions.iter().find(|have| have.version == version);
        match found {
            Some(key) if key.state == KeyState::Retired && key.pages == 0 => Ok(()),
            Some(key) => Err(Error {
                field: Some("version".to_owned()),
                ..Error::new(
                    Kind::WrongState,
                    "KEY_IN_USE",
                    format!(
                        "the version is the current one or seals pages; rotate the tenant's key first pages={}",
                        key.pages
                    ),
                )
            }),
            None => Err(Error::not_found()),
        }
    }

    /// Takes the slot of a version out of its region page; the caller holds both gates.
    pub(in crate::vault) async fn puncture_version(
        &self,
        actor: &str,
        tenant: &TenantId,
        version: u64,
        key: TenantKeyRow,
        value: Vec<u8>,
    ) -> Result<(), Error> {
        let corrupt = || Error::corrupt("key material");
        let stored = apply::stored_tenant_key(key.key.as_ref().ok_or_else(corrupt)?).ok_or_else(corrupt)?;
        let row_key = Key::RegionPage(stored.region_page);
        let row_value = self.index.get(&row_key).await?.ok_or_else(corrupt)?;
        let row: PageRow = self.rows.open(&row_key, &row_value)?;
        let page = apply::page_under(&row, self.keys.current_epoch()).ok_or_else(corrupt)?;
        let next = self
            .keys
            .puncture_region_page(&stored.region_page, &page, [stored.slot])?;
        let sealed = apply::region_page_leaf(&stored.region_page, &next);
        let now = self.clock.now();
        let in_leaf = self.in_leaf(sealed.clone()).await?;
        let change = Change {
            expect: vec![
                Expect::Equals(row_key, row_value),
                Expect::Equals(Key::TenantKey(tenant.clone(), version), value),
            ],
            put: vec![
                apply::region_page(&self.rows, &sealed).ok_or_else(corrupt)?,
                apply::tenant_key_destroyed(&self.rows, tenant, version, key, now),
            ],
            leaves: vec![
                leaf::draft(Scope::Region, actor, now, Body::RegionPageSealed(in_leaf)),
                leaf::draft(
                    Scope::Tenant(tenant.clone()),
                    actor,
                    now,
                    Body::TenantKeyDestroyed(TenantKeyDestroyed { version }),
                ),
            ],
            ..Change::default()
        };
        self.ledger.commit(change, Until::Shipped).await?;
        self.keys.forget_region_pages();
        self.keys.forget_tenant(tenant);
        Ok(())
    }

    /// A state as a leaf has it: itself, or the object that holds it.
    pub(in crate::vault) async fn in_leaf(
        &self,
        sealed: RegionPageSealed,
    ) -> Result<RegionPageSealed, Error> {
        if sealed.sealed_state.len() <= STATE_IN_LEAF {
            return Ok(sealed);
        }
        let object = RegionPageStates {
            pages: vec![sealed.clone()],
        };
        let stored = write_states(self, object.encode_to_vec().into(), 1).await?;
        Ok(RegionPageSealed {
            sealed_state: Default::default(),
            stored: Some(stored),
            ..sealed
        })
    }

    /// Begins to rotate the key of every tenant whose current version is older than `age_micros`. Returns how many.
    ///
    /// # Errors
    /// What index or bucket answered; what was begun stays begun.
    pub async fn rotate_due_keys(&self, age_micros: i64) -> Result<u64, Error> {
        let due = self.clock.now().plus_micros(-age_micros).micros();
        let mut begun = 0;
        for Row { key, value } in self.all_rows(Range::Tenants).await? {
            let Key::Tenant(tenant) = &key else { continue };
            match self.rotate_if_due(tenant, &key, &value, due).await {
                Ok(due) => begun += u64::from(due),
                // What is wrong with one tenant keeps no other's key from its age.
                Err(error) => tracing::warn!(%tenant, %error, "an old key is not rotated"),
            }
        }
        Ok(begun)
    }

    /// Begins to turn the root epoch if it is older than `age_micros`. Returns whether it was.
    ///
    /// # Errors
    /// What index or bucket answered.
    pub async fn turn_due_epoch(&self, age_micros: i64) -> Result<bool, Error> {
        let (newest, _) = self.newest_epoch().await?;
        let due = newest.created_micros <= self.clock.now().plus_micros(-age_micros).micros();
        if due {
            self.rotate_root_epoch(leaf::SYSTEM, None).await?;
        }
        Ok(due)
    }

    async fn rotate_if_due(
        &self,
        tenant: &TenantId,
        key: &Key,
        value: &[u8],
        due: i64,
    ) -> Result<bool, Error> {
        let owner: TenantRow = self.rows.open(key, value)?;
        if owner.state == TenantState::Shredded as u32 {
            return Ok(false);
        }
        let (version, _) = self.key_row(tenant, owner.current_key_version).await?;
        if version.created_micros > due {
            return Ok(false);
        }
        self.rotate_tenant_key(leaf::SYSTEM, tenant, None).await?;
        Ok(true)
    }
}
