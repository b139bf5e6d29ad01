//! A case as its row has it.

use crate::{
    crypto::blind::{self, IdentifierKind},
    domain::{
        clock::Timestamp,
        erasure::{ErasureState, Ground, Target},
        ids::{ErasureId, RequestId, TenantId},
    },
    index::{Change, Expect, Key, Range, Row, Scan},
    proto::storage::{ErasureFinal, ErasureRequested, ErasureRow, ErasureTarget, UnsweptRow, UnsweptStage},
};

use super::{
    super::{Error, Order, Vault, list::state_query, rows::RowCodec, terms},
    Erasure, ErasureSpec,
    request::target_of,
};

/// A case that is worked on: its row, and the value that it was read from.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) tenant: TenantId,
    pub(super) id: ErasureId,
    pub(super) row: ErasureRow,
    pub(super) value: Vec<u8>,
}

impl Case {
    pub(super) fn key(&self) -> Key {
        Key::Erasure(self.tenant.clone(), self.id)
    }

    pub(super) fn state(&self) -> Result<ErasureState, Error> {
        ErasureState::from_number(self.row.state).ok_or_else(|| Error::corrupt("index row"))
    }

    pub(super) fn ground(&self) -> Result<Ground, Error> {
        u32::try_from(self.row.ground)
            .ok()
            .and_then(Ground::from_number)
            .ok_or_else(|| Error::corrupt("index row"))
    }

    pub(super) fn is_of_tenant(&self) -> bool {
        self.row.target() == ErasureTarget::Tenant
    }

    /// A change of the row alone, and of the row that says when it is looked at next.
    pub(super) fn change(&self, rows: &RowCodec, after: ErasureRow) -> Change {
        let mut change = Change {
            expect: vec![Expect::Equals(self.key(), self.value.clone())],
            ..Change::default()
        };
        let (before, next) = (check_key(self, &self.row), check_key(self, &after));
        if before != next {
            change.delete.extend(before);
            change.put.extend(next.map(|key| Row {
                key,
                value: Vec::new(),
            }));
        }
        change.put.push(rows.row(self.key(), &after));
        change
    }

    pub(super) fn erasure(&self) -> Result<Erasure, Error> {
        let row = &self.row;
        Ok(Erasure {
            tenant: self.tenant.clone(),
            id: self.id,
            state: self.state()?,
            ground: self.ground()?,
            reference: row.reference.clone(),
            actor: row.actor.clone(),
            approvers: row.approvers.clone(),
            created: Timestamp(row.created_micros),
            due: Timestamp(row.due_micros),
            effective: moment(row.effective_micros),
            content_final: moment(row.content_final_micros),
            traces_final: moment(row.traces_final_micros),
            cancelled: moment(row.cancelled_micros),
            whole_tenant: self.is_of_tenant(),
            records: row.records,
            shredded: row.shredded,
            waiting: row.waiting,
            obstacle: Some(row.obstacle.clone()).filter(|obstacle| !obstacle.is_empty()),
            set_sha256: row.set_sha256.to_vec(),
        })
    }
}

/// Where a case that is not over is found by the time at which it is looked at.
fn check_key(case: &Case, row: &ErasureRow) -> Option<Key> {
    let state = ErasureState::from_number(row.state);
    // What was cancelled is over when its records are given back.
    let cancelled = state == Some(ErasureState::Cancelled) && row.check_micros != 0;
    let open = state.is_some_and(ErasureState::is_open);
    (open || cancelled).then(|| Key::DueErasure(Timestamp(row.check_micros), case.tenant.clone(), case.id))
}

/// The row of a case that was asked for.
pub(super) fn requested(body: &ErasureRequested, actor: &str, at: Timestamp) -> ErasureRow {
    ErasureRow {
        target: body.target,
        ground: body.ground,
        state: ErasureState::Approved.number(),
        reference: body.reference.clone(),
        actor: actor.to_owned(),
        approvers: body.approvers.clone(),
        set_sha256: body.set_sha256.clone(),
        record_ids: body.record_ids.clone(),
        set: body.set.clone(),
        records: body.records,
        created_micros: at.micros(),
        due_micros: body.due_micros,
        check_micros: body.due_micros,
        ..ErasureRow::default()
    }
}

/// A row that keeps a case in the mind of sweeps.
pub(in crate::vault) fn unswept_row(rows: &RowCodec, tenant: &TenantId, id: &ErasureId) -> Row {
    let row = UnsweptRow {
        stage: UnsweptStage::Shredded.into(),
        ..UnsweptRow::default()
    };
    rows.row(Key::Unswept(tenant.clone(), *id), &row)
}

fn moment(micros: i64) -> Option<Timestamp> {
    (micros != 0).then_some(Timestamp(micros))
}

impl Vault {
    pub(in crate::vault::erasure) async fn case(
        &self,
        tenant: &TenantId,
        id: &ErasureId,
    ) -> Result<Option<Case>, Error> {
        let key = Key::Erasure(tenant.clone(), *id);
        let Some(value) = self.index.get(&key).await? else {
            return Ok(None);
        };
        self.parse_case(Row { key, value }).map(Some)
    }

    pub(in crate::vault::erasure) fn parse_case(&self, row: Row) -> Result<Case, Error> {
        let message = self.rows.open(&row.key, &row.value)?;
        match row.key {
            Key::Erasure(tenant, id) => Ok(Case {
                tenant,
                id,
                row: message,
                value: row.value,
            }),
            _ => Err(Error::corrupt("index row")),
        }
    }

    /// Where an erasure is, and whether it is a whole tenant's.
    pub(in crate::vault) async fn erasure_found(
        &self,
        tenant: &TenantId,
        id: &ErasureId,
    ) -> Result<Option<(ErasureState, bool)>, Error> {
        let case = self.case(tenant, id).await?;
        case.map(|case| Ok((case.state()?, case.is_of_tenant())))
            .transpose()
    }

    /// The rows of an erasure of which a sweep made something final; `None` if there is no such erasure.
    pub(in crate::vault) async fn final_rows(
        &self,
        tenant: &TenantId,
        id: &ErasureId,
        body: &ErasureFinal,
        at: Timestamp,
    ) -> Result<Option<Change>, Error> {
        let case = self.case(tenant, id).await?;
        Ok(case.map(|case| self.final_change(&case, body, at)))
    }

    /// An erasure; what is said of it is in the bucket.
    ///
    /// # Errors
    /// [`Kind::NotFound`](super::super::Kind).
    pub async fn erasure(&self, tenant: &TenantId, id: &ErasureId) -> Result<Erasure, Error> {
        let case = self.case(tenant, id).await?.ok_or_else(Error::not_found)?;
        self.ship_before_repeating().await?;
        case.erasure()
    }

    /// A tenant's erasures, newest first, after `after`; and whether there are more of them.
    ///
    /// # Errors
    /// What the index answered.
    pub async fn erasures(
        &self,
        tenant: &TenantId,
        after: Option<&ErasureId>,
        limit: usize,
    ) -> Result<(Vec<Erasure>, bool), Error> {
        self.tenant_row(tenant).await?.ok_or_else(Error::not_found)?;
        let limit = limit.clamp(1, 1_000);
        let scan = Scan {
            range: Range::Erasures(tenant.clone()),
            reverse: true,
            after: after.map(|id| Key::Erasure(tenant.clone(), *id)),
            limit,
        };
        let rows = self.index.scan(&scan).await?;
        let full = rows.len() == limit;
        let cases = rows.into_iter().map(|row| self.parse_case(row)?.erasure());
        Ok((cases.collect::<Result<_, _>>()?, full))
    }

    /// How a request of an erasure is known again: a tenant's even when the tenant's own keys are gone.
    ///
    /// Who is to be forgotten must not be told by what stays of the request: it is blinded under the index key, which dies with
    /// the sweep. After that a repetition is taken for another request.
    pub(in crate::vault::erasure) async fn tag_erasure(
        &self,
        spec: &ErasureSpec,
        request: &RequestId,
    ) -> Result<crate::blob::format::Request, Error> {
        let mut asked = format!(
            "{} {} {:?} {} ",
            spec.ground.number(),
            spec.reference.as_str(),
            spec.grace_micros,
            target_of(&spec.target) as i32,
        )
        .into_bytes();
        let blinded = match &spec.target {
            Target::Tenant => Vec::new(),
            Target::Records(ids) => ids.iter().flat_map(|id| *id.as_bytes()).collect(),
            Target::Subject(subject) => {
                terms::subject(self.keys.tenant(&spec.tenant).await?.index_key(), subject).to_vec()
            }
            Target::Conversation(conversation) => {
                terms::conversation(self.keys.tenant(&spec.tenant).await?.index_key(), conversation).to_vec()
            }
            Target::Query(query) => {
                let stated = hex::encode(state_query(&spec.tenant, query, Order::OldestFirst));
                let keys = self.keys.tenant(&spec.tenant).await?;
                blind::blind(keys.index_key(), IdentifierKind::Query, &stated).to_vec()
            }
        };
        asked.extend(blinded);
        Ok(self.rows.request(&spec.tenant, request, &asked))
    }
}
