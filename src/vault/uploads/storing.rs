//! A full part goes to the store, from memory or from the spool, however long that takes.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    blob::store::{StoreError, UploadId},
    crypto::stream,
};

use super::{
    super::{Error, Kind, Vault, budget::Reservation, put::off_the_async_threads},
    Phase,
    session::{Session, StoredPart, Whole, whole_bytes},
};

/// Between tries while the store takes nothing; doubled after each.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// A part, sealed.
struct Sealed {
    bytes: Bytes,
    tags_digest: [u8; 32],
    room: Reservation,
}

impl Vault {
    /// Stores a full part beside the receiving of the next. `slot` is one of the few that an upload has for this.
    pub(super) fn store_part(
        self: &Arc<Self>,
        session: &Arc<Session>,
        extent: u32,
        whole: Option<Whole>,
        slot: Option<OwnedSemaphorePermit>,
    ) {
        let (vault, its) = (Arc::clone(self), Arc::clone(session));
        session.run(async move {
            let slot = match slot {
                Some(slot) => Ok(slot),
                None => Arc::clone(&its.slots).acquire_owned().await,
            };
            if slot.is_ok() {
                vault.store_until_done(&its, extent, whole).await;
            }
        });
    }

    async fn store_until_done(
        self: &Arc<Self>,
        session: &Arc<Session>,
        extent: u32,
        mut whole: Option<Whole>,
    ) {
        let mut wait = FIRST_WAIT;
        // What was sealed from memory is the only copy: it is kept until the store has it. What the spool has is let go of, so
        // that a store that is away does not hold the memory of all.
        let mut kept = None;
        loop {
            let from_memory = whole.is_some() || kept.is_some();
            let tried = match kept.take() {
                Some(sealed) => Ok(sealed),
                None => self.sealed_part(session, extent, whole.take()).await,
            };
            let done = match tried {
                Err(error) => Err(error),
                Ok(sealed) => {
                    let done = self.put_part(session, extent, &sealed).await;
                    kept = from_memory.then_some(sealed);
                    done
                }
            };
            let error = match done {
                Ok(stored) => return part_is_stored(session, extent, stored),
                Err(error) => error,
            };
            match error.kind {
                Kind::Conflict => return self.give_up(session),
                Kind::Corrupt => {
                    tracing::error!(reason = error.reason, "an upload's spool is damaged");
                    return session.end(Phase::Damaged);
                }
                _ => tracing::warn!(%error, "a part of an upload waits for the store"),
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    async fn sealed_part(
        &self,
        session: &Arc<Session>,
        extent: u32,
        whole: Option<Whole>,
    ) -> Result<Sealed, Error> {
        let (buffer, room) = match whole {
            Some(whole) => whole,
            None => {
                let tenant = &session.making.tenant;
                let room = self.budget.reserve_for(tenant, whole_bytes(extent)).await?;
                let from = Arc::clone(session);
                let buffer = off_the_async_threads(move || Ok(from.read_back(extent, 0)?)).await?;
                if !buffer.is_full() {
                    return Err(Error::corrupt("spool"));
                }
                (buffer, room)
            }
        };
        let sealed = off_the_async_threads(self.sealer(&session.making, extent, buffer)).await?;
        Ok(Sealed {
            bytes: sealed.bytes.freeze(),
            tags_digest: sealed.tags_digest,
            room,
        })
    }

    async fn put_part(&self, session: &Session, extent: u32, sealed: &Sealed) -> Result<StoredPart, Error> {
        let upload = self.store_upload(session).await?;
        // All parts before it are full.
        let offset = (0..extent)
            .map(|before| stream::ciphertext_len(stream::extent_capacity(before)))
            .sum();
        let key = &session.making.object_key;
        let body = sealed.bytes.clone();
        let receipt = self
            .store
            .put_part(key, &upload, extent + 1, offset, body)
            .await?;
        let _ = &sealed.room;
        Ok(StoredPart {
            receipt,
            tags_digest: sealed.tags_digest,
        })
    }

    /// The multipart upload, begun when the first part needs it.
    pub(super) async fn store_upload(&self, session: &Session) -> Result<UploadId, StoreError> {
        let begin = || self.store.begin(&session.making.object_key);
        Ok(session.store_upload.get_or_try_init(begin).await?.clone())
    }

    /// The store has lost what it had: nothing can be made of the rest.
    fn give_up(self: &Arc<Self>, session: &Arc<Session>) {
        tracing::error!("the store has lost the parts of an upload; it is given up");
        // Not from within one of the tasks that this ends.
        let (vault, session) = (Arc::clone(self), Arc::clone(session));
        tokio::spawn(async move { vault.forget(&session).await });
    }
}

fn part_is_stored(session: &Session, extent: u32, stored: StoredPart) {
    {
        let mut state = session.state();
        if let Some(part) = state.parts.iter_mut().find(|part| part.extent == extent) {
            part.stored = Some(stored);
        }
    }
    session.restless.store(true, std::sync::atomic::Ordering::Release);
    session.changed.notify_waiters();
}
