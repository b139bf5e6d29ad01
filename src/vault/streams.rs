//! Content on its way out, by record: whoever cuts a record off finds all that still runs.
//!
//! A reading enters before it looks at the record's row, and whoever changes the row cuts after that change is visible. So a
//! reading sees the change or is cut.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio_util::sync::CancellationToken;

use crate::domain::ids::{RecordId, TenantId};

use super::{Error, Vault};

/// All that runs.
#[derive(Clone, Debug, Default)]
pub(super) struct Streams(Arc<Mutex<Open>>);

type Open = HashMap<TenantId, HashMap<RecordId, Running>>;

#[derive(Debug, Default)]
struct Running {
    cut: CancellationToken,
    passes: usize,
}

/// One reading, until it is dropped.
#[derive(Debug)]
pub(super) struct Pass {
    streams: Streams,
    tenant: TenantId,
    record: RecordId,
    cut: CancellationToken,
}

impl Streams {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, tenant: &TenantId, record: RecordId) -> Pass {
        let mut open = self.open();
        let running = open.entry(tenant.clone()).or_default().entry(record).or_default();
        if running.cut.is_cancelled() {
            // Others are on their way out; this one will see what they were cut for.
            running.cut = CancellationToken::new();
        }
        running.passes += 1;
        Pass {
            streams: self.clone(),
            tenant: tenant.clone(),
            record,
            cut: running.cut.clone(),
        }
    }

    /// Cuts what reads these records.
    pub(super) fn cut(&self, tenant: &TenantId, records: &[RecordId]) {
        let open = self.open();
        let Some(of_tenant) = open.get(tenant) else { return };
        records
            .iter()
            .filter_map(|record| of_tenant.get(record))
            .for_each(|running| running.cut.cancel());
    }

    /// Cuts what reads anything of a tenant.
    pub(super) fn cut_all(&self, tenant: &TenantId) {
        let open = self.open();
        let of_tenant = open.get(tenant).into_iter().flat_map(HashMap::values);
        of_tenant.for_each(|running| running.cut.cancel());
    }
}

impl Pass {
    /// Refuses to go on if the record was cut off.
    ///
    /// # Errors
    /// As for a record that is gone.
    pub(super) fn check(&self) -> Result<(), Error> {
        if self.cut.is_cancelled() {
            Err(cut_off())
        } else {
            Ok(())
        }
    }

    /// For whoever passes on what was read.
    pub(super) fn cut(&self) -> Cut {
        Cut(self.cut.clone())
    }
}

/// Tells whoever passes content on when to stop.
#[derive(Clone, Debug)]
pub struct Cut(CancellationToken);

impl Cut {
    /// Why nothing more may be passed on, if the record was cut off.
    pub fn reason(&self) -> Option<Error> {
        self.0.is_cancelled().then(cut_off)
    }

    /// Ends when the record is cut off, with what to say. Cancel safe.
    pub async fn happened(&self) -> Error {
        self.0.cancelled().await;
        cut_off()
    }
}

/// What a reading of a record that was cut off ends with: there is no such record any more.
fn cut_off() -> Error {
    Error {
        message: "the record was erased, or its tenant suspended, while it was read; discard what came of it"
            .to_owned(),
        ..Error::not_found()
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut open = self.streams.open();
        let Some(of_tenant) = open.get_mut(&self.tenant) else {
            return;
        };
        if let Some(running) = of_tenant.get_mut(&self.record) {
            running.passes -= 1;
            if running.passes == 0 {
                of_tenant.remove(&self.record);
            }
        }
        if of_tenant.is_empty() {
            open.remove(&self.tenant);
        }
    }
}

impl Vault {
    /// Announces a reading; to be called before the record's row is looked at.
    pub(super) fn enter(&self, tenant: &TenantId, record: RecordId) -> Pass {
        self.streams.enter(tenant, record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids() -> (TenantId, RecordId, RecordId) {
        let id =
            |n: u8| RecordId::from_slice(&[1, 2, 3, 4, 5, 6, 0x70, 8, 0x80, n, 0, 0, 0, 0, 0, 0]).unwrap();
        ("t".parse().unwrap(), id(1), id(2))
    }

    #[test]
    fn a_cut_reaches_those_who_read_that_record_and_nobody_else() {
        let (tenant, one, two) = ids();
        let streams = Streams::default();
        let reading = [streams.enter(&tenant, one), streams.enter(&tenant, one)];
        let other = streams.enter(&tenant, two);
        let elsewhere = streams.enter(&"u".parse().unwrap(), one);
        streams.cut(&tenant, &[one]);
        assert!(reading.iter().all(|pass| pass.check().is_err()));
        assert!(other.check().is_ok() && elsewhere.check().is_ok());
        // Who comes later looks at the row.
        assert!(streams.enter(&tenant, one).check().is_ok());
        streams.cut_all(&tenant);
        assert!(other.check().is_err() && elsewhere.check().is_ok());
    }

    #[test]
    fn nothing_is_kept_of_what_has_ended() {
        let (tenant, one, _) = ids();
        let streams = Streams::default();
        let first = streams.enter(&tenant, one);
        let second = streams.enter(&tenant, one);
        drop(first);
        streams.cut(&tenant, &[one]);
        assert!(second.check().is_err());
        drop(second);
        assert!(streams.open().is_empty());
    }
}
