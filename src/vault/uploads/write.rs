//! Content arrives.

use std::{sync::Arc, time::Duration};

use bytes::{Buf, Bytes};
use tokio::{sync::watch, time::timeout};

use crate::domain::ids::{RecordId, TenantId};

use super::{
    super::{Error, Kind, Vault, budget::Reservation, put::off_the_async_threads},
    UploadStatus,
    session::{Part, SMALL_BYTES, Session, Step},
};

/// Longest wait for the store to take a part before a sender is told to come back.
const PATIENCE: Duration = Duration::from_secs(20);

/// The one who writes to an upload, until another does.
pub struct UploadWriter {
    vault: Arc<Vault>,
    session: Arc<Session>,
    generation: u64,
    fenced: watch::Receiver<u64>,
    /// Where the next chunk belongs.
    position: u64,
    _room: Reservation,
}

impl Vault {
    /// Goes on with an upload at `offset`, and takes over from whoever writes to it now.
    ///
    /// # Errors
    /// [`Kind::NotFound`] as [`Vault::upload`]; [`Kind::WrongState`] (`UPLOAD_OFFSET`, with both offsets as details) if bytes
    /// before `offset` are missing, (`UPLOAD_COMMITTED`) if it is a record already; [`Kind::Exhausted`] without room.
    pub async fn write_upload(
        self: &Arc<Self>,
        tenant: &TenantId,
        id: &RecordId,
        offset: u64,
    ) -> Result<UploadWriter, Error> {
        self.active_tenant(tenant).await?;
        // Its key is open already, so nothing else asks.
        self.keys.standing().check()?;
        let session = self.session(tenant, id).await?;
        session.state().must_be_open()?;
        let room = self.budget.reserve_for(tenant, SMALL_BYTES as u64).await?;
        let (generation, fenced) = session.fence();
        {
            let state = session.state();
            state.may_write(generation)?;
            if offset > state.received {
                return Err(missing(state.received, state.durable()));
            }
        }
        Ok(UploadWriter {
            vault: Arc::clone(self),
            session,
            generation,
            fenced,
            position: offset,
            _room: room,
        })
    }
}

/// Bytes before the offset never came, or were lost.
fn missing(received: u64, durable: u64) -> Error {
    let message = format!(
        "bytes before this offset are missing; go on from received_offset={received} durable_offset={durable}"
    );
    Error::new(Kind::WrongState, "UPLOAD_OFFSET", message)
        .with("received_offset", received)
        .with("durable_offset", durable)
}

impl UploadWriter {
    /// Takes content, in order. Waits for the disk and the store: this is where a sender is slowed down.
    ///
    /// What is dropped half-way has taken a part of the chunk, in order.
    ///
    /// # Errors
    /// [`Kind::Conflict`] (`UPLOAD_TAKEN_OVER`) if somebody else goes on; [`Kind::Exhausted`] or [`Kind::Unavailable`] if spool or
    /// store take no more now: the upload stays as it is.
    pub async fn write(&mut self, mut chunk: Bytes) -> Result<(), Error> {
        let have = self.session.state().received.saturating_sub(self.position);
        let known = usize::try_from(have).unwrap_or(usize::MAX).min(chunk.len());
        chunk.advance(known);
        self.position += known as u64;
        while !chunk.is_empty() {
            let before = chunk.len();
            let step = self
                .session
                .take(self.generation, &mut chunk, &self.vault.budget)?;
            self.position += (before - chunk.len()) as u64;
            match step {
                Step::Done => {}
                Step::Spool => self.spool().await?,
                Step::NextPart => self.next_part().await?,
            }
        }
        Ok(())
    }

    /// Returns when somebody else goes on with the upload, or it is over.
    pub async fn superseded(&mut self) -> Error {
        let generation = self.generation;
        // The sender lives as long as the session, which lives as long as this.
        let _ = self.fenced.wait_for(|now| *now != generation).await;
        match self.session.state().may_write(generation) {
            Err(error) => error,
            Ok(()) => Error::not_found(),
        }
    }

    /// Makes what was written durable, as far as that is possible now, and says how far that is.
    ///
    /// # Errors
    /// As the spool says.
    pub async fn finish(self) -> Result<UploadStatus, Error> {
        self.session.state().may_write(self.generation)?;
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let changed = self.session.changed.notified();
            self.vault.settle_upload(&self.session, true).await?;
            let all = {
                let state = self.session.state();
                state.durable() >= state.received
            };
            // A part that is on its way to the store from memory becomes durable there.
            if all || tokio::time::timeout_at(deadline, changed).await.is_err() {
                break;
            }
        }
        self.vault.status(&self.session).await
    }

    async fn spool(&self) -> Result<(), Error> {
        let session = Arc::clone(&self.session);
        off_the_async_threads(move || Ok(session.spool()?)).await
    }

    /// Sends the full part to the store and opens the next.
    async fn next_part(&mut self) -> Result<(), Error> {
        let slot = Arc::clone(&self.session.slots).acquire_owned();
        let slot = tokio::select! {
            error = async { self.fenced.wait_for(|now| *now != self.generation).await } => {
                let _ = error;
                return self.session.state().may_write(self.generation);
            }
            slot = timeout(PATIENCE, slot) => slot,
        };
        let Ok(Ok(slot)) = slot else {
            return Err(Error::new(
                Kind::Unavailable,
                "STORE_BEHIND",
                "the store does not take parts; what was durable stays so, go on later",
            ));
        };
        if self.session.state().whole.is_none() {
            self.vault.settle_upload(&self.session, false).await?;
        }
        let (extent, whole) = {
            let mut state = self.session.state();
            state.may_write(self.generation)?;
            let part = state.open();
            if !part.is_full() || (state.whole.is_none() && part.synced.0 < part.length) {
                // Somebody else was here meanwhile: look again.
                return Ok(());
            }
            let extent = part.extent;
            let next = Part::new(extent + 1, part.start + part.length, part.crc);
            state.parts.push_back(next);
            (extent, state.whole.take())
        };
        self.vault.store_part(&self.session, extent, whole, Some(slot));
        Ok(())
    }
}

impl Vault {
    pub(super) async fn settle_upload(&self, session: &Arc<Session>, spill: bool) -> Result<(), Error> {
        let session = Arc::clone(session);
        off_the_async_threads(move || Ok(session.settle(spill)?)).await
    }
}

impl std::fmt::Debug for UploadWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "UploadWriter({:?} at {})", self.session, self.position)
    }
}
