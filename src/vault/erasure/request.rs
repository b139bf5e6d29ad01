//! An erasure is asked for, carried out as far as it may be, or taken back.

use std::sync::Arc;

use crate::{
    domain::{
        clock::Timestamp,
        erasure::{
            DEFAULT_GRACE_MICROS, ErasureState, Event, Ground, LONGEST_GRACE_MICROS, Target, Verdict, verdict,
        },
        ids::{ErasureId, TenantId},
    },
    index::{Change, Expect, Key, Range, Row, Scan, Scope},
    ledger::{leaf, outbox::Until},
    proto::storage::{ErasureCancelled, ErasureRequested, ErasureRow, ErasureTarget, state_leaf::Body},
};

use super::{
    super::{Error, Kind, Vault, apply},
    Erasure, ErasureSpec,
    case::{Case, requested},
    set::sha256_of,
    shred::situation,
};

/// Cases that are looked at in one go.
const DUE: usize = 100;

impl Vault {
    /// Asks for an erasure: what it covers is cut off when this returns, and shredded if there is no grace, but for what an
    /// obstacle keeps. It goes on if the caller goes away.
    ///
    /// # Errors
    /// [`Kind::NotFound`]; [`Kind::Invalid`]; [`Kind::WrongState`] (`NOTHING_TO_ERASE`) if nothing is covered;
    /// [`Kind::Conflict`] (`SET_CHANGED`) if the set is not the one expected; [`Kind::AlreadyExists`] if the request was used
    /// for something else.
    pub async fn request_erasure(self: &Arc<Self>, spec: ErasureSpec) -> Result<Erasure, Error> {
        let vault = Arc::clone(self);
        let work = async move { vault.request(spec).await };
        self.keys.changes().run((), work).await?
    }

    async fn request(self: &Arc<Self>, spec: ErasureSpec) -> Result<Erasure, Error> {
        let _one_at_a_time = self.erasing.gates.tenant(&spec.tenant).await;
        let tag = match &spec.request {
            Some(request) => Some(self.tag_erasure(&spec, request).await?),
            None => None,
        };
        if let Some(tag) = &tag
            && let Some(found) = self.seen(&spec.tenant, tag).await?
        {
            let id = ErasureId::from_slice(&found.record_id).map_err(|_| Error::corrupt("index row"))?;
            return self.carried_out(&spec.tenant, &id).await;
        }
        let grace = grace_of(&spec)?;
        let (owner, owner_value) = self.erasable_tenant(&spec.tenant, spec.ground).await?;
        let set = self.set_of(&spec.tenant, &spec.target).await?;
        let whole = spec.target == Target::Tenant;
        if set.is_empty() && !whole {
            return Err(Error::new(
                Kind::WrongState,
                "NOTHING_TO_ERASE",
                "the target names no record",
            ));
        }
        if spec
            .expected_set
            .is_some_and(|expected| whole || expected != sha256_of(&set))
        {
            return Err(Error::new(
                Kind::Conflict,
                "SET_CHANGED",
                "the target covers other records than those that were previewed; preview it again",
            ));
        }
        let now = self.clock.now();
        let id = ErasureId::mint(now, &*self.rng)?;
        let mut body = ErasureRequested {
            erasure_id: id.as_bytes().to_vec().into(),
            target: target_of(&spec.target).into(),
            ground: i32::try_from(spec.ground.number()).unwrap_or_default(),
            reference: spec.reference.as_str().to_owned(),
            due_micros: now.plus_micros(grace).micros(),
            records: set.len() as u64,
            ..ErasureRequested::default()
        };
        if !whole {
            let stored = self.store_set(&set).await?;
            body.set_sha256 = stored.sha256.into();
            body.record_ids = stored.record_ids;
            body.set = stored.set;
        }
        let row = requested(&body, &spec.actor, now);
        let mut change = new_case(&self.rows, &spec.tenant, id, row);
        if whole {
            let cut = apply::tenant_cut_off(&self.rows, &spec.tenant, owner);
            change.expect.push(Expect::Equals(cut.key.clone(), owner_value));
            change.put.push(cut);
        }
        if let Some(tag) = &tag {
            let id = crate::domain::ids::RecordId::from_slice(id.as_bytes());
            let id = id.map_err(|_| Error::corrupt("erasure id"))?;
            change
                .put
                .push(self.request_row(&spec.tenant, tag, Some(&id), now));
        }
        change.leaves.push(leaf::draft_for_request(
            Scope::Tenant(spec.tenant.clone()),
            &spec.actor,
            now,
            tag.as_ref(),
            Body::ErasureRequested(body),
        ));
        self.ledger.commit(change, Until::Queued).await?;
        if whole {
            self.streams.cut_all(&spec.tenant);
        }
        self.carried_out(&spec.tenant, &id).await
    }

    /// Does what is to be done for a case now, and waits until all of it is in the bucket.
    async fn carried_out(self: &Arc<Self>, tenant: &TenantId, id: &ErasureId) -> Result<Erasure, Error> {
        self.carry_out(tenant, id).await?;
        self.erasure(tenant, id).await
    }

    /// The caller holds the tenant's gate of erasures.
    async fn carry_out(self: &Arc<Self>, tenant: &TenantId, id: &ErasureId) -> Result<(), Error> {
        let mut case = self.case(tenant, id).await?.ok_or_else(Error::not_found)?;
        if case.state()? == ErasureState::Cancelled {
            return self.restore(&case).await;
        }
        if !case.is_of_tenant() && case.state()?.is_open() && self.is_tenant_shredded(tenant).await? {
            // Its records went with the tenant.
            return self.is_effective(&case).await;
        }
        if case.state()? == ErasureState::Approved {
            if !case.is_of_tenant() {
                self.cut_off(&case).await?;
            }
            case = self.move_on(case, Event::CutOff).await?;
        }
        let mandatory = case.ground()? == Ground::MandatoryDestruction;
        let due = mandatory || case.row.due_micros <= self.clock.now().micros();
        if case.state()? != ErasureState::PendingShred || !due {
            return Ok(());
        }
        if !case.is_of_tenant() {
            return self.shred_set(case).await;
        }
        let keep_until = self.tenant_keep_until(tenant).await?;
        match verdict(&situation(&case, self.clock.now(), keep_until)?) {
            Verdict::Wait(obstacle) => self.tenant_waits(&case, obstacle, keep_until).await,
            Verdict::Shred | Verdict::Keep => self.shred_tenant(case).await,
        }
    }

    /// A case in its next state, by its row alone: the logs say so by what they hold of it.
    async fn move_on(&self, case: Case, event: Event) -> Result<Case, Error> {
        let next = case
            .state()?
            .after(event)
            .ok_or_else(|| Error::corrupt("index row"))?;
        let row = ErasureRow {
            state: next.number(),
            ..case.row.clone()
        };
        self.index.commit(case.change(&self.rows, row)).await?;
        self.case(&case.tenant, &case.id)
            .await?
            .ok_or_else(Error::not_found)
    }

    /// Takes an erasure back within its grace: what it covers is what it was.
    ///
    /// # Errors
    /// [`Kind::NotFound`]; [`Kind::WrongState`] (`NOT_CANCELLABLE`) if its grace has passed, or something of it is shredded.
    pub async fn cancel_erasure(
        self: &Arc<Self>,
        actor: &str,
        tenant: &TenantId,
        id: &ErasureId,
    ) -> Result<Erasure, Error> {
        let (vault, actor, tenant, id) = (Arc::clone(self), actor.to_owned(), tenant.clone(), *id);
        let work = async move { vault.cancel(&actor, &tenant, &id).await };
        self.keys.changes().run((), work).await?
    }

    async fn cancel(
        self: &Arc<Self>,
        actor: &str,
        tenant: &TenantId,
        id: &ErasureId,
    ) -> Result<Erasure, Error> {
        let _one_at_a_time = self.erasing.gates.tenant(tenant).await;
        let case = self.case(tenant, id).await?.ok_or_else(Error::not_found)?;
        let now = self.clock.now();
        if case.state()? == ErasureState::Cancelled {
            self.restore(&case).await?;
            return self.erasure(tenant, id).await;
        }
        let over = case.row.due_micros <= now.micros()
            || case.row.shredded > 0
            || self.is_tenant_shredded(tenant).await?;
        let next = case.state()?.after(Event::Cancelled).filter(|_| !over);
        let Some(next) = next else {
            return Err(Error::new(
                Kind::WrongState,
                "NOT_CANCELLABLE",
                "the grace of the erasure has passed; there is no way back",
            ));
        };
        let row = ErasureRow {
            state: next.number(),
            cancelled_micros: now.micros(),
            ..case.row.clone()
        };
        let mut change = case.change(&self.rows, row);
        if let Some((back, value)) = self.tenant_back(&case).await? {
            change.expect.push(Expect::Equals(back.key.clone(), value));
            change.put.push(back);
        }
        let body = ErasureCancelled {
            erasure_id: id.as_bytes().to_vec().into(),
        };
        change.leaves.push(leaf::draft(
            Scope::Tenant(tenant.clone()),
            actor,
            now,
            Body::ErasureCancelled(body),
        ));
        self.ledger.commit(change, Until::Shipped).await?;
        self.restore(&case).await?;
        self.erasure(tenant, id).await
    }

    /// Gives records back that a cancelled case cut off, unless another case covers them: those are that one's from here on, and
    /// at no moment can be read.
    async fn restore(&self, case: &Case) -> Result<(), Error> {
        if !case.is_of_tenant() {
            self.hand_over_to_others(case).await?;
            self.give_back(case).await?;
        }
        let case = self
            .case(&case.tenant, &case.id)
            .await?
            .ok_or_else(Error::not_found)?;
        let over = ErasureRow {
            check_micros: 0,
            ..case.row.clone()
        };
        self.index.commit(case.change(&self.rows, over)).await?;
        Ok(())
    }

    pub(super) async fn hand_over_to_others(&self, case: &Case) -> Result<(), Error> {
        for other in self.other_open_cases(case).await? {
            if !other.is_of_tenant() {
                self.hand_over(case, &other).await?;
            }
        }
        Ok(())
    }

    /// The row of a tenant whose erasure is taken back, and its value before; `None` if the case is no tenant's, or another one
    /// wants the tenant gone as well.
    pub(super) async fn tenant_back(&self, case: &Case) -> Result<Option<(Row, Vec<u8>)>, Error> {
        let others = match case.is_of_tenant() {
            true => self.other_open_cases(case).await?,
            false => return Ok(None),
        };
        if others.iter().any(Case::is_of_tenant) {
            return Ok(None);
        }
        let (owner, value) = self
            .tenant_row(&case.tenant)
            .await?
            .ok_or_else(Error::not_found)?;
        Ok(Some((
            apply::tenant_restored(&self.rows, &case.tenant, owner),
            value,
        )))
    }

    async fn other_open_cases(&self, case: &Case) -> Result<Vec<Case>, Error> {
        let mut others = Vec::new();
        let mut after = None;
        loop {
            let scan = Scan {
                range: Range::Erasures(case.tenant.clone()),
                reverse: false,
                after,
                limit: DUE,
            };
            let rows = self.index.scan(&scan).await?;
            let full = rows.len() == DUE;
            after = rows.last().map(|row| row.key.clone());
            for row in rows {
                let other = self.parse_case(row)?;
                if other.id != case.id && other.state()?.is_open() {
                    others.push(other);
                }
            }
            if !full {
                return Ok(others);
            }
        }
    }

    /// Carries out every case that is due, or was begun before the last process ended, and returns how many it looked at.
    /// Idempotent.
    ///
    /// # Errors
    /// What the index answered. What keeps one case is logged, and keeps no other.
    pub async fn carry_out_due(self: &Arc<Self>) -> Result<u64, Error> {
        let now = self.clock.now();
        let mut looked = 0;
        let mut after = None;
        loop {
            let scan = Scan {
                range: Range::DueErasures(Timestamp(now.micros().saturating_add(1))),
                reverse: false,
                after,
                limit: DUE,
            };
            let rows = self.index.scan(&scan).await?;
            let full = rows.len() == DUE;
            after = rows.last().map(|row| row.key.clone());
            for row in rows {
                let Key::DueErasure(_, tenant, id) = row.key else {
                    continue;
                };
                looked += 1;
                let vault = Arc::clone(self);
                let (of, case) = (tenant.clone(), id);
                let work = async move {
                    let _one_at_a_time = vault.erasing.gates.tenant(&of).await;
                    vault.carry_out(&of, &case).await
                };
                if let Err(error) = self
                    .keys
                    .changes()
                    .run((), work)
                    .await
                    .map_err(Error::from)
                    .flatten()
                {
                    tracing::warn!(%tenant, erasure = %id, reason = error.reason, %error, "an erasure does not get on; tried again");
                }
            }
            if !full {
                return Ok(looked);
            }
        }
    }

    /// Cuts off what cases that were begun before the last process ended have not cut off yet; once, at a start.
    pub(in crate::vault) async fn finish_cuts(self: &Arc<Self>) -> Result<(), Error> {
        let all = Scan {
            range: Range::DueErasures(Timestamp(i64::MAX)),
            reverse: false,
            after: None,
            limit: DUE,
        };
        let mut after = None;
        loop {
            let rows = self.index.scan(&Scan { after, ..all.clone() }).await?;
            let full = rows.len() == DUE;
            after = rows.last().map(|row| row.key.clone());
            for row in rows {
                let Key::DueErasure(_, tenant, id) = row.key else {
                    continue;
                };
                let Some(case) = self.case(&tenant, &id).await? else {
                    continue;
                };
                if case.state()? == ErasureState::Cancelled {
                    self.restore(&case).await?;
                } else if case.state()? == ErasureState::Approved {
                    if !case.is_of_tenant() {
                        self.cut_off(&case).await?;
                    }
                    self.move_on(case, Event::CutOff).await?;
                }
            }
            if !full {
                return Ok(());
            }
        }
    }
}

/// The rows of a new case.
pub(super) fn new_case(
    rows: &super::super::rows::RowCodec,
    tenant: &TenantId,
    id: ErasureId,
    row: ErasureRow,
) -> Change {
    let key = Key::Erasure(tenant.clone(), id);
    let check = Key::DueErasure(Timestamp(row.check_micros), tenant.clone(), id);
    Change {
        expect: vec![Expect::Absent(key.clone())],
        put: vec![
            rows.row(key, &row),
            Row {
                key: check,
                value: Vec::new(),
            },
        ],
        ..Change::default()
    }
}

/// How long it may be taken back.
fn grace_of(spec: &ErasureSpec) -> Result<i64, Error> {
    let mandatory = spec.ground == Ground::MandatoryDestruction;
    match spec.grace_micros {
        None if mandatory => Ok(0),
        None => Ok(DEFAULT_GRACE_MICROS),
        Some(grace) if mandatory && grace != 0 => Err(Error::invalid(
            "grace",
            "must be 0: mandatory destruction has none",
        )),
        Some(grace) if (0..=LONGEST_GRACE_MICROS).contains(&grace) => Ok(grace),
        Some(_) => Err(Error::invalid("grace", "must be 0 to 14 days")),
    }
}

pub(super) fn target_of(target: &Target) -> ErasureTarget {
    match target {
        Target::Records(_) => ErasureTarget::Records,
        Target::Query(_) => ErasureTarget::Query,
        Target::Subject(_) => ErasureTarget::Subject,
        Target::Conversation(_) => ErasureTarget::Conversation,
        Target::Tenant => ErasureTarget::Tenant,
    }
}
