//! Long work on keys: asked for, in the log, done by one task, one after the other, and taken up again after a restart.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use tokio::sync::{Mutex, MutexGuard, Notify, watch};

use crate::{
    domain::{
        clock::Timestamp,
        ids::{OperationId, RequestId, TenantId},
        limits,
    },
    index::{Change, Key, Range, Row, Scan, Scope},
    ledger::{
        leaf,
        outbox::{LedgerError, Until},
    },
    proto::storage::{KeyOperationBegun, KeyOperationKind, KeyOperationRow, state_leaf::Body},
};

use super::super::{Error, Kind, Vault, rows::RowCodec};

/// How long to wait before work that failed is tried again; doubled up to [`LONGEST_PAUSE`], for each try takes a slot.
const PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// Pages between two notes of progress, each of which is a durable write.
const NOTE_EVERY: u64 = 1_024;
/// Operations read at once.
const BATCH: usize = 100;
/// Characters of an error's text that a row keeps: rows stay below 1 KiB.
const DETAIL_CHARS: usize = 600;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OperationWork {
    /// A new version of a tenant's key.
    RotateTenantKey(TenantId),
    /// A new root epoch.
    RotateRootEpoch,
    /// All that was shredded becomes final.
    Sweep,
}

impl OperationWork {
    /// Whose keys; `None` for the region's.
    pub fn tenant(&self) -> Option<&TenantId> {
        match self {
            Self::RotateTenantKey(tenant) => Some(tenant),
            Self::RotateRootEpoch | Self::Sweep => None,
        }
    }
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperationState {
    /// Under way, or waiting for its turn.
    Running = 1,
    /// Done.
    Succeeded = 2,
    /// It cannot be done: whose keys they were is gone.
    Failed = 3,
}

/// Long work on keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyOperation {
    /// Minted by the vault.
    pub id: OperationId,
    /// What is to be done.
    pub work: OperationWork,
    /// How far it is.
    pub state: OperationState,
    /// Alias of who asked.
    pub actor: String,
    /// Pages done.
    pub done: u64,
    /// Pages there are.
    pub total: u64,
    /// When it was asked for.
    pub created: Timestamp,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// The version or epoch that it made.
    pub result: Option<u64>,
    /// Why it does not get on, while it does not: an error's reason.
    pub reason: Option<String>,
    /// The error's text, which says what to do.
    pub detail: Option<String>,
    request_mac: Vec<u8>,
}

impl KeyOperation {
    /// One that nobody asked for.
    #[cfg(test)]
    pub(in crate::vault) fn sample(id: OperationId, tenant: &TenantId) -> Self {
        Self {
            id,
            work: OperationWork::RotateTenantKey(tenant.clone()),
            state: OperationState::Running,
            actor: "sweep".to_owned(),
            done: 0,
            total: 0,
            created: Timestamp(0),
            ended: None,
            result: None,
            reason: None,
            detail: None,
            request_mac: Vec::new(),
        }
    }

    /// With all of its pages done.
    pub(super) fn with_all(&self, pages: u64) -> Self {
        Self {
            done: pages,
            total: pages,
            ..self.clone()
        }
    }
}

/// The task that works.
#[derive(Debug, Default)]
pub(in crate::vault) struct Work {
    wake: Notify,
    beginning: Mutex<()>,
    /// What is under way or waits, oldest first; everything that runs, whatever its age.
    running: std::sync::Mutex<Vec<KeyOperation>>,
    /// Which one the task is at.
    at: std::sync::Mutex<Option<OperationId>>,
    /// Held by the task while it does one, and by the scrub, which must not see half of it.
    doing: Mutex<()>,
}

impl Work {
    /// Keeps the task from its next operation, once it has done the one it is at.
    pub(in crate::vault) async fn pause(&self) -> MutexGuard<'_, ()> {
        self.doing.lock().await
    }

    fn running(&self) -> std::sync::MutexGuard<'_, Vec<KeyOperation>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn at(&self) -> std::sync::MutexGuard<'_, Option<OperationId>> {
        self.at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self, id: &OperationId) {
        self.running().retain(|operation| operation.id != *id);
    }
}

impl Vault {
    /// Asks for a new version of a tenant's key; returns when that is in the bucket. One that is under way is returned instead.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if there is no such tenant; [`Kind::AlreadyExists`] if the request asked for something else before.
    pub async fn rotate_tenant_key(
        &self,
        actor: &str,
        tenant: &TenantId,
        request: Option<&RequestId>,
    ) -> Result<KeyOperation, Error> {
        self.tenant_row(tenant).await?.ok_or_else(Error::not_found)?;
        let work = OperationWork::RotateTenantKey(tenant.clone());
        self.begin_operation(actor, work, request).await
    }

    /// Asks for a new root epoch; likewise.
    ///
    /// # Errors
    /// As [`Self::rotate_tenant_key`].
    pub async fn rotate_root_epoch(
        &self,
        actor: &str,
        request: Option<&RequestId>,
    ) -> Result<KeyOperation, Error> {
        self.begin_operation(actor, OperationWork::RotateRootEpoch, request)
            .await
    }

    /// Asks for a sweep; likewise. One that has begun to work does not cover what was shredded since: another one follows it.
    ///
    /// # Errors
    /// As [`Self::rotate_tenant_key`].
    pub async fn run_sweep(&self, actor: &str, request: Option<&RequestId>) -> Result<KeyOperation, Error> {
        self.begin_operation(actor, OperationWork::Sweep, request).await
    }

    /// One operation; what is said of one that is done is in the bucket.
    ///
    /// # Errors
    /// [`Kind::NotFound`], also if the caller may not know of it.
    pub async fn key_operation(
        &self,
        id: &OperationId,
        may_know: impl Fn(&KeyOperation) -> bool,
    ) -> Result<KeyOperation, Error> {
        let operation = self.operation(id).await?;
        if !may_know(&operation) {
            return Err(Error::not_found());
        }
        if operation.state == OperationState::Succeeded {
            self.ship_before_repeating().await?;
        }
        Ok(operation)
    }

    pub(in crate::vault) async fn operation(&self, id: &OperationId) -> Result<KeyOperation, Error> {
        let key = Key::KeyOperation(*id);
        let value = self.index.get(&key).await?.ok_or_else(Error::not_found)?;
        parse(&self.rows, &Row { key, value })
    }

    /// Operations that the caller may know, newest first, after `after`; and whether there are more of them.
    ///
    /// # Errors
    /// What the index answered.
    pub async fn key_operations(
        &self,
        after: Option<&OperationId>,
        limit: usize,
        may_know: impl Fn(&KeyOperation) -> bool,
    ) -> Result<(Vec<KeyOperation>, bool), Error> {
        let mut known = Vec::new();
        let mut after = after.copied();
        loop {
            let page = self.operations_after(after.as_ref()).await?;
            let full = page.len() == BATCH;
            after = page.last().map(|last| last.id);
            known.extend(page.into_iter().filter(&may_know));
            let more = known.len() > limit;
            if more || !full {
                known.truncate(limit);
                return Ok((known, more));
            }
        }
    }

    async fn operations_after(&self, after: Option<&OperationId>) -> Result<Vec<KeyOperation>, Error> {
        let scan = Scan {
            range: Range::KeyOperations,
            reverse: true,
            after: after.copied().map(Key::KeyOperation),
            limit: BATCH,
        };
        let rows = self.index.scan(&scan).await?;
        rows.iter().map(|row| parse(&self.rows, row)).collect()
    }

    async fn begin_operation(
        &self,
        actor: &str,
        work: OperationWork,
        request: Option<&RequestId>,
    ) -> Result<KeyOperation, Error> {
        let _one_at_a_time = self.key_work.beginning.lock().await;
        let mac = request.map(|request| self.rows.request_mac(work.tenant(), request).to_vec());
        let mac = mac.unwrap_or_default();
        if let Some(found) = self.operation_before(&work, &mac).await? {
            self.ship_before_repeating().await?;
            return Ok(found);
        }
        let now = self.clock.now();
        let operation = KeyOperation {
            id: OperationId::mint(now, &*self.rng)?,
            state: OperationState::Running,
            actor: actor.to_owned(),
            done: 0,
            total: 0,
            created: now,
            ended: None,
            result: None,
            reason: None,
            detail: None,
            request_mac: mac,
            work,
        };
        let body = KeyOperationBegun {
            operation_id: operation.id.as_bytes().to_vec().into(),
            kind: kind(&operation.work).into(),
            request_mac: operation.request_mac.clone().into(),
        };
        let scope = match &operation.work {
            OperationWork::RotateTenantKey(tenant) => Scope::Tenant(tenant.clone()),
            OperationWork::RotateRootEpoch | OperationWork::Sweep => Scope::Region,
        };
        let change = Change {
            put: vec![row(&self.rows, &operation)],
            leaves: vec![leaf::draft(scope, actor, now, Body::KeyOperationBegun(body))],
            ..Change::default()
        };
        let begun = self.ledger.commit(change, Until::Shipped).await;
        // It is queued even if the bucket did not take it in time.
        if matches!(begun, Ok(_) | Err(LedgerError::NotShipped)) {
            self.key_work.running().push(operation.clone());
            self.key_work.wake.notify_one();
        }
        begun?;
        Ok(operation)
    }

    /// The same request of the last day, or the same work under way.
    async fn operation_before(
        &self,
        work: &OperationWork,
        mac: &[u8],
    ) -> Result<Option<KeyOperation>, Error> {
        let oldest = self.clock.now().plus_micros(-limits::REQUEST_ID_MICROS);
        let mut after = None;
        while !mac.is_empty() {
            let page = self.operations_after(after.as_ref()).await?;
            let asked = page
                .iter()
                .find(|found| found.request_mac == mac && found.created > oldest);
            match asked {
                Some(found) if found.work == *work => return Ok(Some(found.clone())),
                Some(_) => {
                    return Err(Error::new(
                        Kind::AlreadyExists,
                        "REQUEST_ID_REUSED",
                        "the request_id was used for something else; use a new one for each request",
                    ));
                }
                None => {}
            }
            match page.last() {
                Some(last) if page.len() == BATCH && last.created > oldest => after = Some(last.id),
                _ => break,
            }
        }
        let found = {
            let running = self.key_work.running();
            let at = *self.key_work.at();
            running
                .iter()
                .filter(|found| found.work == *work)
                .find(|found| *work != OperationWork::Sweep || at != Some(found.id))
                .map(|found| found.id)
        };
        let Some(id) = found else { return Ok(None) };
        // It may have come to its end just now.
        let now = self.operation(&id).await?;
        Ok((now.state == OperationState::Running).then_some(now))
    }

    /// Works until `stop` is set: what was begun before the last process ended comes first.
    pub(in crate::vault) async fn work_on_keys(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let mut pause = PAUSE;
        loop {
            let again = tokio::select! {
                left = self.work_once() => left,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            tokio::select! {
                () = self.key_work.wake.notified() => pause = PAUSE,
                () = tokio::time::sleep(pause), if again => pause = (pause * 2).min(LONGEST_PAUSE),
                _ = stop.wait_for(|stop| *stop) => return,
            }
            if !again {
                pause = PAUSE;
            }
        }
    }

    /// Does all that is to be done; returns whether something is left.
    async fn work_once(&self) -> bool {
        let running = self.key_work.running().clone();
        let mut left = false;
        for operation in running {
            let _doing = self.key_work.pause().await;
            *self.key_work.at() = Some(operation.id);
            let outcome = match &operation.work {
                OperationWork::RotateTenantKey(tenant) => {
                    self.turn_tenant_key(&operation, tenant, None).await
                }
                OperationWork::RotateRootEpoch => self.turn_root_epoch(&operation).await,
                OperationWork::Sweep => self.sweep(&operation).await,
            };
            *self.key_work.at() = None;
            match outcome {
                Ok(()) => self.key_work.forget(&operation.id),
                Err(error) => left |= self.not_done(&operation, &error).await,
            }
        }
        left
    }

    /// Says why an operation does not get on; returns whether it will be tried again.
    async fn not_done(&self, operation: &KeyOperation, error: &Error) -> bool {
        tracing::warn!(operation = %operation.id, reason = error.reason, %error, "a key operation does not get on");
        let of_tenant = operation.work.tenant().is_some();
        let gone = of_tenant && matches!(error.kind, Kind::NotFound | Kind::Shredded);
        let said = KeyOperation {
            state: if gone {
                OperationState::Failed
            } else {
                OperationState::Running
            },
            ended: gone.then(|| self.clock.now()),
            reason: Some(error.reason.to_owned()),
            detail: Some(shown(error)),
            ..operation.clone()
        };
        // An operation that was done while its answer was lost must not run again.
        match self.index.get(&Key::KeyOperation(operation.id)).await {
            Ok(Some(value)) => {
                let key = Key::KeyOperation(operation.id);
                let now = parse(&self.rows, &Row { key, value });
                if now.is_ok_and(|now| now.state == OperationState::Succeeded) {
                    self.key_work.forget(&operation.id);
                    return false;
                }
            }
            _ => return true,
        }
        let change = Change {
            put: vec![row(&self.rows, &said)],
            ..Change::default()
        };
        if let Err(error) = self.index.commit(change).await {
            tracing::warn!(%error, "a key operation's state was not written");
            return true;
        }
        if gone {
            self.key_work.forget(&operation.id);
        }
        !gone
    }

    /// Finds what was begun and has not ended; once, at a start.
    pub(in crate::vault) async fn find_key_work(&self) -> Result<(), Error> {
        let running = |operation: &KeyOperation| operation.state == OperationState::Running;
        let (mut found, _) = self.key_operations(None, usize::MAX, running).await?;
        found.reverse();
        *self.key_work.running() = found;
        Ok(())
    }

    /// Remembers how far an operation is, now and then.
    pub(super) async fn note_progress(
        &self,
        operation: &KeyOperation,
        done: u64,
        total: u64,
    ) -> Result<(), Error> {
        if done % NOTE_EVERY >= 32 && done < total {
            return Ok(());
        }
        let noted = KeyOperation {
            done,
            total,
            reason: None,
            detail: None,
            ..operation.clone()
        };
        let change = Change {
            put: vec![row(&self.rows, &noted)],
            ..Change::default()
        };
        self.index.commit(change).await?;
        Ok(())
    }
}

/// The row of an operation that made version or epoch `result`.
pub(in crate::vault) fn done_row(
    rows: &RowCodec,
    operation: &KeyOperation,
    result: u64,
    at: Timestamp,
) -> Row {
    let ended = KeyOperation {
        state: OperationState::Succeeded,
        ended: Some(at),
        result: Some(result),
        reason: None,
        detail: None,
        ..operation.clone()
    };
    row(rows, &ended)
}

/// The row of an operation that came to version or epoch `result`: of a sweep that is a step on its way.
pub(in crate::vault) fn step_row(
    rows: &RowCodec,
    operation: &KeyOperation,
    result: u64,
    at: Timestamp,
) -> Row {
    match operation.work {
        OperationWork::Sweep => row(rows, operation),
        _ => done_row(rows, operation, result, at),
    }
}

/// The row of an operation that a leaf says was asked for.
pub(in crate::vault) fn begun_row(
    rows: &RowCodec,
    body: &KeyOperationBegun,
    scope: &Scope,
    actor: &str,
    at: Timestamp,
) -> Option<Row> {
    let work = match (body.kind(), scope) {
        (KeyOperationKind::RotateTenantKey, Scope::Tenant(tenant)) => {
            OperationWork::RotateTenantKey(tenant.clone())
        }
        (KeyOperationKind::RotateRootEpoch, Scope::Region) => OperationWork::RotateRootEpoch,
        (KeyOperationKind::Sweep, Scope::Region) => OperationWork::Sweep,
        _ => return None,
    };
    let operation = KeyOperation {
        id: OperationId::from_slice(&body.operation_id).ok()?,
        work,
        state: OperationState::Running,
        actor: actor.to_owned(),
        done: 0,
        total: 0,
        created: at,
        ended: None,
        result: None,
        reason: None,
        detail: None,
        request_mac: body.request_mac.to_vec(),
    };
    Some(row(rows, &operation))
}

pub(super) fn parse(rows: &RowCodec, row: &Row) -> Result<KeyOperation, Error> {
    let corrupt = || Error::corrupt("index row");
    let Key::KeyOperation(id) = row.key else {
        return Err(corrupt());
    };
    let message: KeyOperationRow = rows.open(&row.key, &row.value)?;
    let work = match message.kind() {
        KeyOperationKind::RotateTenantKey => {
            OperationWork::RotateTenantKey(message.tenant_id.parse().map_err(|_| corrupt())?)
        }
        KeyOperationKind::RotateRootEpoch => OperationWork::RotateRootEpoch,
        KeyOperationKind::Sweep => OperationWork::Sweep,
        KeyOperationKind::Unspecified => return Err(corrupt()),
    };
    let state = match message.state {
        1 => OperationState::Running,
        2 => OperationState::Succeeded,
        3 => OperationState::Failed,
        _ => return Err(corrupt()),
    };
    Ok(KeyOperation {
        id,
        work,
        state,
        actor: message.actor,
        done: message.done,
        total: message.total,
        created: Timestamp(message.created_micros),
        ended: super::moment(message.ended_micros),
        result: (message.result != 0).then_some(message.result),
        reason: Some(message.reason).filter(|reason| !reason.is_empty()),
        detail: Some(message.detail).filter(|detail| !detail.is_empty()),
        request_mac: message.request_mac.to_vec(),
    })
}

/// The text of an error, short enough for a row.
fn shown(error: &Error) -> String {
    let mut text = error.to_string();
    if let Some((end, _)) = text.char_indices().nth(DETAIL_CHARS) {
        text.truncate(end);
    }
    text
}

fn row(rows: &RowCodec, operation: &KeyOperation) -> Row {
    let tenant_id = match &operation.work {
        OperationWork::RotateTenantKey(tenant) => tenant.to_string(),
        OperationWork::RotateRootEpoch | OperationWork::Sweep => String::new(),
    };
    let message = KeyOperationRow {
        kind: kind(&operation.work).into(),
        tenant_id,
        state: operation.state as u32,
        actor: operation.actor.clone(),
        request_mac: operation.request_mac.clone().into(),
        done: operation.done,
        total: operation.total,
        created_micros: operation.created.micros(),
        ended_micros: operation.ended.map_or(0, Timestamp::micros),
        result: operation.result.unwrap_or(0),
        reason: operation.reason.clone().unwrap_or_default(),
        detail: operation.detail.clone().unwrap_or_default(),
    };
    rows.row(Key::KeyOperation(operation.id), &message)
}

fn kind(work: &OperationWork) -> KeyOperationKind {
    match work {
        OperationWork::RotateTenantKey(_) => KeyOperationKind::RotateTenantKey,
        OperationWork::RotateRootEpoch => KeyOperationKind::RotateRootEpoch,
        OperationWork::Sweep => KeyOperationKind::Sweep,
    }
}
