//! Uploads that survive a dropped connection and a restarted server.
//!
//! ```text
//! begin  -> slot, DEK, journal (durable)
//! write  -> memory -> spool, each second durable -> full: a part in the store, known by the journal
//! commit -> last extent + footer -> complete -> index transaction with the put leaf -> ack
//! ```
//!
//! After a restart the journal tells which parts are in the store, and what was spooled of the others is opened and sealed
//! again, under a fresh salt, when its part is full.

mod begin;
mod commit;
mod journal;
mod life;
mod session;
mod spooling;
mod storing;
#[cfg(test)]
mod tests;
mod write;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    domain::{
        clock::Timestamp,
        ids::{RecordId, TenantId},
        record::Record,
    },
    spool::{Spool, SpoolError},
};

use super::{Error, Kind, Vault};

use session::{Phase, Session};

pub use begin::BeginSpec;
pub use commit::CommitSpec;
pub use write::UploadWriter;

/// How far an upload has come.
#[derive(Clone, Debug)]
pub struct UploadStatus {
    /// Whose.
    pub tenant: TenantId,
    /// Its id, and that of the record that it becomes.
    pub id: RecordId,
    /// Bytes that the server has now.
    pub received: u64,
    /// Bytes that survive whatever happens to the server.
    pub durable: u64,
    /// When it was begun.
    pub created: Timestamp,
    /// When it is given up; once it is committed, when this answer ends.
    pub expires: Timestamp,
    /// What it became.
    pub record: Option<Record>,
}

/// Every upload that is not over, and those that were committed lately.
#[derive(Debug)]
pub(super) struct Uploads {
    spool: Arc<Spool>,
    life_micros: i64,
    known: Mutex<HashMap<RecordId, Known>>,
}

/// What there is of an upload.
#[derive(Clone, Debug)]
enum Known {
    Live(Arc<Session>),
    /// Its journal does not open. The tenant is what the bare head says, believed for a refusal only.
    Damaged(Option<TenantId>, Timestamp),
}

impl Uploads {
    pub(super) fn new(spool: Spool, life_micros: i64) -> Self {
        Self {
            spool: Arc::new(spool),
            life_micros,
            known: Mutex::default(),
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<RecordId, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sessions(&self) -> Vec<Arc<Session>> {
        let live = |known: &Known| match known {
            Known::Live(session) => Some(Arc::clone(session)),
            Known::Damaged(..) => None,
        };
        self.known().values().filter_map(live).collect()
    }

    /// Whether the multipart upload of this record belongs to an upload that is not over.
    pub(super) fn is_open(&self, record: &RecordId) -> bool {
        match self.known().get(record) {
            Some(Known::Live(session)) => {
                matches!(session.state().phase, Phase::Open | Phase::Committing)
            }
            _ => false,
        }
    }

    /// Stops all that runs for uploads.
    pub(super) fn halt(&self) {
        self.sessions().iter().for_each(|session| session.halt());
    }
}

impl Vault {
    /// An upload of a tenant, with what was spooled of it.
    async fn session(self: &Arc<Self>, tenant: &TenantId, id: &RecordId) -> Result<Arc<Session>, Error> {
        let known = self.uploads.known().get(id).cloned();
        let session = match known {
            Some(Known::Live(session)) if session.making.tenant == *tenant => session,
            Some(Known::Damaged(Some(whose), _)) if whose == *tenant => return Err(Error::corrupt("spool")),
            _ => return Err(Error::not_found()),
        };
        match session.state().phase {
            Phase::Gone => return Err(Error::not_found()),
            Phase::Damaged => return Err(Error::corrupt("spool")),
            Phase::Open | Phase::Committing | Phase::Committed { .. } => {}
        }
        self.wake(&session).await?;
        Ok(session)
    }

    /// How far an upload has come.
    ///
    /// # Errors
    /// [`Kind::NotFound`] for one that is not, is over, or is another tenant's; [`Kind::Corrupt`] if its files are damaged.
    pub async fn upload(self: &Arc<Self>, tenant: &TenantId, id: &RecordId) -> Result<UploadStatus, Error> {
        self.active_tenant(tenant).await?;
        let session = self.session(tenant, id).await?;
        self.status(&session).await
    }

    /// When the conversation of an upload began, as its descriptor says.
    ///
    /// # Errors
    /// As [`Self::upload`].
    pub async fn upload_start(
        self: &Arc<Self>,
        tenant: &TenantId,
        id: &RecordId,
    ) -> Result<Timestamp, Error> {
        self.active_tenant(tenant).await?;
        Ok(self.session(tenant, id).await?.begun.descriptor.start)
    }

    async fn status(&self, session: &Session) -> Result<UploadStatus, Error> {
        let (phase, received, durable) = {
            let state = session.state();
            (state.phase.clone(), state.received, state.durable())
        };
        let open = UploadStatus {
            tenant: session.making.tenant.clone(),
            id: session.making.record,
            received,
            durable,
            created: session.making.created,
            expires: session.expires,
            record: None,
        };
        let Phase::Committed { at, .. } = phase else {
            return Ok(open);
        };
        let record = self.record_of_upload(session).await?;
        Ok(UploadStatus {
            received: record.size,
            durable: record.size,
            expires: at.plus_micros(crate::domain::limits::REQUEST_ID_MICROS),
            record: Some(record),
            ..open
        })
    }

    async fn record_of_upload(&self, session: &Session) -> Result<Record, Error> {
        let name = super::record::Name::Id(session.making.record);
        let located = self.locate_in_any(&session.making.tenant, &name).await?;
        let located =
            located.ok_or_else(|| Error::new(Kind::Shredded, "SHREDDED", "the record was shredded"))?;
        Ok(self.open_record(&located).await?.0)
    }
}

fn committed() -> Error {
    Error::new(
        Kind::WrongState,
        "UPLOAD_COMMITTED",
        "the upload has become a record already; GetUpload tells which",
    )
}

impl From<SpoolError> for Error {
    fn from(error: SpoolError) -> Self {
        match error {
            SpoolError::Full => Self::new(
                Kind::Exhausted,
                "SPOOL_FULL",
                "the spool of unfinished uploads has no room; try again limit=limits.spool_bytes",
            ),
            SpoolError::Disk(_) => Self::new(
                Kind::Unavailable,
                "SPOOL_UNAVAILABLE",
                "the spool of unfinished uploads failed; ask GetUpload where the upload is, and go on from there",
            )
            .because(error),
            SpoolError::Damaged => Self {
                source: Some(Box::new(error)),
                ..Self::corrupt("spool")
            },
            SpoolError::Crypto(error) => error.into(),
        }
    }
}
