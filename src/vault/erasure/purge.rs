//! Objects that nothing needs any more are deleted, every version of them: at once where the store answers, otherwise again and
//! again. What they hold is dead already; until they are gone, their names are there to be looked at.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

use crate::{
    blob::{
        format::{self, Footer},
        store::{ObjectKey, StoreError},
    },
    domain::{
        clock::Timestamp,
        ids::{ErasureId, TenantId},
        limits,
    },
    index::{Change, Expect, Key, Range, Row, Scan},
    proto::storage::{PurgeRow, TombstoneRow},
};

use super::super::{Error, Kind, Vault, record::Located, rows::RowCodec};

/// Objects looked at in one go.
const BATCH: usize = 100;
/// Rows of a tenant that are removed in one transaction.
const ROWS: usize = 200;
/// How long what the store did not delete is left alone.
const PAUSE: Duration = Duration::from_secs(30);

/// An object of an erasure that the store has not deleted yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingDeletion {
    /// Its name; one that ends with `/` stands for all objects that begin so.
    pub object: String,
    /// How often it was tried.
    pub tries: u32,
    /// Why the last try failed.
    pub reason: Option<String>,
}

/// The row that has a shredded record's object deleted.
pub(super) fn wanted(rows: &RowCodec, erasure: &ErasureId, located: &Located) -> Row {
    let mut asked = [0; 8];
    asked.copy_from_slice(&located.id.as_bytes()[8..]);
    let row = PurgeRow {
        erasure_id: erasure.as_bytes().to_vec().into(),
        asked: u64::from_be_bytes(asked),
        shared: located.row.entry_count > 1,
        ..PurgeRow::default()
    };
    let key = Key::Purge(located.tenant.clone(), located.row.object_key.clone());
    rows.row(key, &row)
}

/// The row that has everything of a tenant deleted.
pub(super) fn wanted_of_tenant(rows: &RowCodec, erasure: &ErasureId, tenant: &TenantId) -> Row {
    let row = PurgeRow {
        erasure_id: erasure.as_bytes().to_vec().into(),
        ..PurgeRow::default()
    };
    rows.row(Key::Purge(tenant.clone(), format!("blobs/{tenant}/")), &row)
}

/// What an object still is.
enum Needed {
    ByNobody,
    BySomebody,
    /// Some of its records are not known, or not yet.
    Perhaps,
}

impl Vault {
    /// Objects of an erasure that the store has not deleted yet, the first thousand of them.
    ///
    /// # Errors
    /// What the index answered.
    pub async fn pending_deletions(
        &self,
        tenant: &TenantId,
        erasure: &ErasureId,
    ) -> Result<Vec<PendingDeletion>, Error> {
        let mut pending = Vec::new();
        let mut after = None;
        while pending.len() < limits::ERASURE_NAMED {
            let scan = Scan {
                range: Range::TenantPurges(tenant.clone()),
                reverse: false,
                after,
                limit: BATCH,
            };
            let rows = self.index.scan(&scan).await?;
            let full = rows.len() == BATCH;
            after = rows.last().map(|row| row.key.clone());
            for Row { key, value } in rows {
                let row: PurgeRow = self.rows.open(&key, &value)?;
                let Key::Purge(_, object) = key else { continue };
                if row.erasure_id[..] == erasure.as_bytes()[..] {
                    pending.push(PendingDeletion {
                        object,
                        tries: row.tries,
                        reason: Some(row.reason).filter(|reason| !reason.is_empty()),
                    });
                }
            }
            if !full {
                break;
            }
        }
        pending.truncate(limits::ERASURE_NAMED);
        Ok(pending)
    }

    /// Has a blob deleted whose records are all shredded, and that nobody remembers to delete. Idempotent.
    pub(in crate::vault) async fn purge_again(&self, object: &ObjectKey) -> Result<(), Error> {
        let Some((tenant, first)) = format::parse_object_key(object) else {
            return Ok(());
        };
        let key = Key::Purge(tenant.clone(), object.to_string());
        let whole = Key::Purge(tenant.clone(), format!("blobs/{tenant}/"));
        if self
            .index
            .get_many(&[key.clone(), whole])
            .await?
            .iter()
            .any(Option::is_some)
        {
            return Ok(());
        }
        let key_of_erasure = Key::Tombstone(tenant, first);
        let erasure = match self.index.get(&key_of_erasure).await? {
            Some(value) => {
                self.rows
                    .open::<TombstoneRow>(&key_of_erasure, &value)?
                    .erasure_id
            }
            None => Default::default(),
        };
        let row = PurgeRow {
            erasure_id: erasure,
            shared: true,
            ..PurgeRow::default()
        };
        let change = Change {
            expect: vec![Expect::Absent(key.clone())],
            put: vec![self.rows.row(key, &row)],
            ..Change::default()
        };
        match self.index.commit(change).await.map_err(Error::from) {
            Err(error) if error.kind != Kind::Conflict => return Err(error),
            _ => self.erasing.purge.notify_one(),
        }
        Ok(())
    }

    /// Deletes what waits for it, until `stop` is set.
    pub(in crate::vault) async fn purge_on(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        loop {
            let left = tokio::select! {
                left = self.purge() => left,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            let left = left.unwrap_or_else(|error| {
                tracing::warn!(%error, "objects of erased records were not deleted; tried again");
                1
            });
            tokio::select! {
                () = self.erasing.purge.notified() => {}
                () = tokio::time::sleep(PAUSE), if left > 0 => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
    }

    /// Deletes what waits for it, and returns how much is left. Idempotent.
    ///
    /// # Errors
    /// What index or bucket answered; what the store did not delete is left, and says why.
    pub async fn purge(&self) -> Result<u64, Error> {
        let mut left = 0;
        let mut after = None;
        loop {
            let scan = Scan {
                range: Range::Purges,
                reverse: false,
                after,
                limit: BATCH,
            };
            let rows = self.index.scan(&scan).await?;
            if rows.is_empty() {
                return Ok(left);
            }
            // What a rebuild would look for is deleted only when the bucket knows why it is gone.
            self.ledger.settled().await?;
            after = rows.last().map(|row| row.key.clone());
            for row in rows {
                left += u64::from(!self.purge_one(row).await?);
            }
        }
    }

    /// Whether nothing of it is left to do.
    async fn purge_one(&self, Row { key, value }: Row) -> Result<bool, Error> {
        let row: PurgeRow = self.rows.open(&key, &value)?;
        let Key::Purge(tenant, object) = &key else {
            return Ok(true);
        };
        let done = if object.ends_with('/') {
            self.purge_tenant(tenant, object).await.map(|()| true)
        } else {
            self.purge_object(tenant, object, row.shared).await
        };
        let (expect, gone) = (vec![Expect::Equals(key.clone(), value)], key.clone());
        let reason = match done {
            Ok(true) => {
                let done = Change {
                    expect,
                    delete: vec![key],
                    ..Change::default()
                };
                // Somebody asked once more: it is looked at again.
                return match self.index.commit(done).await.map_err(Error::from) {
                    Ok(_) => Ok(true),
                    Err(error) if error.kind == Kind::Conflict => Ok(self.index.get(&gone).await?.is_none()),
                    Err(error) => Err(error),
                };
            }
            Ok(false) => "ENTRY_UNKNOWN",
            Err(error) => {
                tracing::warn!(object, reason = error.reason, %error, "an object of erased records was not deleted; tried again");
                error.reason
            }
        };
        let failed = PurgeRow {
            tries: row.tries + 1,
            reason: reason.to_owned(),
            ..row
        };
        let change = Change {
            expect,
            put: vec![self.rows.row(key, &failed)],
            ..Change::default()
        };
        match self.index.commit(change).await.map_err(Error::from) {
            Ok(_) => Ok(false),
            Err(error) if error.kind == Kind::Conflict => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// `false` if nobody can say yet whether it is still needed.
    async fn purge_object(&self, tenant: &TenantId, object: &str, shared: bool) -> Result<bool, Error> {
        let object = ObjectKey::parse(object)?;
        if shared {
            match self.needed(tenant, &object).await? {
                Needed::ByNobody => {}
                Needed::BySomebody => return Ok(true),
                Needed::Perhaps => return Ok(false),
            }
        }
        self.store.delete(&object).await?;
        Ok(true)
    }

    async fn needed(&self, tenant: &TenantId, object: &ObjectKey) -> Result<Needed, Error> {
        match self.store.head(object).await {
            Err(StoreError::NotFound) => return Ok(Needed::ByNobody),
            found => found?,
        };
        let (footer, _) = self.read_footer(object).await?;
        let key = |make: fn(TenantId, crate::domain::ids::RecordId) -> Key| {
            let keys = footer
                .entries
                .iter()
                .map(|entry| make(tenant.clone(), entry.record));
            keys.collect::<Vec<_>>()
        };
        if self.is_tenant_shredded(tenant).await? {
            return Ok(Needed::ByNobody);
        }
        let alive = self.index.get_many(&key(Key::Record)).await?;
        if alive.iter().any(Option::is_some) {
            return Ok(Needed::BySomebody);
        }
        let dead = self.index.get_many(&key(Key::Tombstone)).await?;
        if dead.iter().all(Option::is_some) || self.is_orphan(&footer) {
            Ok(Needed::ByNobody)
        } else {
            Ok(Needed::Perhaps)
        }
    }

    /// Whether what nobody knows of a blob was never acknowledged.
    fn is_orphan(&self, footer: &Footer) -> bool {
        footer.created < self.clock.now().plus_micros(-limits::ORPHAN_MICROS)
    }

    /// Deletes every blob of a tenant, and every row but those that say that it is gone.
    async fn purge_tenant(&self, tenant: &TenantId, prefix: &str) -> Result<(), Error> {
        for (key, upload, _) in self.store.uploads(prefix).await? {
            self.store.abort(&key, &upload).await?;
        }
        let mut next = None;
        loop {
            let page = self.store.list(prefix, false, next.as_deref(), 1_000).await?;
            for object in page.objects {
                self.store.delete(&object.key).await?;
            }
            match page.next {
                Some(token) => next = Some(token),
                None => break,
            }
        }
        let all_time = (Timestamp(i64::MIN), Timestamp(i64::MAX));
        let tables = [
            Range::ByTime(tenant.clone(), all_time.0, all_time.1),
            Range::Conversations(tenant.clone()),
            Range::Subjects(tenant.clone()),
            Range::Sources(tenant.clone()),
            Range::Identifiers(tenant.clone()),
            Range::Externals(tenant.clone()),
            Range::Renumbers(tenant.clone()),
            Range::Records(tenant.clone()),
            Range::RetentionClasses(tenant.clone()),
            Range::TenantOpenPages(tenant.clone()),
            Range::Pages(tenant.clone()),
        ];
        for range in tables {
            self.remove_rows(range).await?;
        }
        Ok(())
    }

    async fn remove_rows(&self, range: Range) -> Result<(), Error> {
        loop {
            let scan = Scan {
                range: range.clone(),
                reverse: false,
                after: None,
                limit: ROWS,
            };
            let rows = self.index.scan(&scan).await?;
            if rows.is_empty() {
                return Ok(());
            }
            let change = Change {
                delete: rows.into_iter().map(|row| row.key).collect(),
                ..Change::default()
            };
            self.index.commit(change).await?;
            tokio::task::yield_now().await;
        }
    }
}
