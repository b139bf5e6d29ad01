//! From a start to an end: what a restart finds, what a second brings, what happens to what nobody ends.

use std::{sync::Arc, sync::atomic::Ordering, time::Duration};

use futures_util::{StreamExt, stream};
use tokio::{sync::watch, time::MissedTickBehavior};

use crate::{
    domain::{
        clock::Timestamp,
        ids::{RecordId, TenantId},
        limits,
    },
    proto::storage::SpoolHead,
    spool::{self, Named, SealedLog},
};

use super::{
    super::{Error, Kind, Vault, put::off_the_async_threads, terms},
    Known, Phase, Uploads, committed, journal,
    session::{Parts, Session},
};

/// Every second of these, all that arrived is made durable; at each, what a sender who is not fast has in memory.
const HALF_SECOND: Duration = Duration::from_millis(500);
/// Files that are synced side by side: the file system commits them together.
const SYNCS_AT_ONCE: usize = 16;

/// What is made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::vault) enum Sync {
    /// Parts that are in memory for half a second.
    HalfSecond,
    /// What arrived slowly as well.
    Second,
    /// Everything.
    All,
}

impl Vault {
    /// Forgets an upload and all that arrived.
    ///
    /// # Errors
    /// [`Kind::NotFound`] as [`Vault::upload`]; [`Kind::WrongState`] (`UPLOAD_COMMITTED`) if it is a record already.
    pub async fn abort_upload(self: &Arc<Self>, tenant: &TenantId, id: &RecordId) -> Result<(), Error> {
        self.active_tenant(tenant).await?;
        let known = self.uploads.known().get(id).cloned();
        match known {
            Some(Known::Live(session)) if session.making.tenant == *tenant => {
                {
                    let mut state = session.state();
                    match state.phase {
                        Phase::Gone => return Err(Error::not_found()),
                        Phase::Committed { .. } => return Err(committed()),
                        Phase::Committing => state.must_be_open()?,
                        Phase::Open | Phase::Damaged => state.phase = Phase::Gone,
                    }
                }
                self.forget(&session).await;
                Ok(())
            }
            Some(Known::Damaged(Some(whose), _)) if whose == *tenant => {
                self.forget_damaged(id).await;
                Ok(())
            }
            _ => Err(Error::not_found()),
        }
    }

    /// Removes all that there is of an upload that is no record. What the store does not forget now, it forgets in 7 days.
    pub(super) async fn forget(&self, session: &Arc<Session>) {
        session.end(Phase::Gone);
        self.uploads.known().remove(&session.making.record);
        let its = Arc::clone(session);
        let _ = off_the_async_threads(move || {
            its.remove_files(false);
            Ok(())
        })
        .await;
        if let Some(upload) = session.store_upload.get()
            && let Err(error) = self.store.abort(&session.making.object_key, upload).await
        {
            tracing::warn!(%error, "upload not aborted; the orphan task does it later");
        }
    }

    /// Forgets the uploads of records that are shredded, or of a whole tenant: their sessions hold keys.
    pub(in crate::vault) async fn forget_uploads_of(&self, tenant: &TenantId, records: Option<&[RecordId]>) {
        for session in self.uploads.sessions() {
            let making = &session.making;
            let is_of_them = records.is_none_or(|records| records.contains(&making.record));
            if making.tenant == *tenant && is_of_them {
                self.forget(&session).await;
            }
        }
    }

    async fn forget_damaged(&self, id: &RecordId) {
        self.uploads.known().remove(id);
        let (spool, id) = (Arc::clone(&self.uploads.spool), *id);
        let removed = off_the_async_threads(move || {
            let mine = |name: &String| matches!(spool::parse_name(name), Some(Named::Journal(of) | Named::Pieces(of, _)) if of == id);
            for name in spool.names()?.iter().filter(|name| mine(name)) {
                spool.remove(name)?;
            }
            Ok(spool.sync_names()?)
        });
        if let Err(error) = removed.await {
            tracing::warn!(%error, "a damaged upload stays in the spool until the next start");
        }
    }

    /// Reads what was spooled of an upload before a restart, once.
    pub(super) async fn wake(self: &Arc<Self>, session: &Arc<Session>) -> Result<(), Error> {
        let woken = session.awake.get_or_try_init(|| async {
            if session.state().phase != Phase::Open {
                return Ok(());
            }
            let its = Arc::clone(session);
            let woken = off_the_async_threads(move || Ok(its.wake()?)).await;
            if woken.as_ref().is_err_and(|error| error.kind == Kind::Corrupt) {
                session.end(Phase::Damaged);
            }
            woken?;
            let full: Vec<u32> = {
                let state = session.state();
                let last = state.parts.len() - 1;
                state.parts.iter().take(last).map(|part| part.extent).collect()
            };
            for extent in full {
                self.store_part(session, extent, None, None);
            }
            session.restless.store(true, Ordering::Release);
            Ok(())
        });
        woken.await.map(|_| ())
    }

    /// Finds the uploads that an earlier process left, and their names. Nothing is lost by one that does not open: it is
    /// refused until somebody aborts it or its time is over.
    pub(in crate::vault) async fn find_uploads(self: &Arc<Self>) -> Result<(), Error> {
        let spool = Arc::clone(&self.uploads.spool);
        let names = off_the_async_threads(move || Ok(spool.names()?)).await?;
        let (mut journals, mut pieces) = (Vec::new(), Vec::new());
        for name in names {
            match spool::parse_name(&name) {
                Some(Named::Journal(id)) => journals.push(id),
                Some(Named::Pieces(id, extent)) => pieces.push((id, extent, name)),
                None => tracing::warn!(name, "a file that is not the vault's lies in the spool"),
            }
        }
        for id in journals {
            if self.forget_unborn(&id).await? {
                continue;
            }
            let known = match self.find_upload(&id).await {
                Ok(session) => Known::Live(session),
                Err(error) if matches!(error.kind, Kind::Corrupt | Kind::Shredded | Kind::NotFound) => {
                    tracing::error!(upload = %id, reason = error.reason, "an unfinished upload does not open");
                    let spool = Arc::clone(&self.uploads.spool);
                    let whose = off_the_async_threads(move || Ok(bare_tenant(&spool, &id))).await?;
                    let begun = Timestamp(minted_micros(&id));
                    Known::Damaged(whose, begun.plus_micros(self.uploads.life_micros))
                }
                Err(error) => return Err(error),
            };
            self.uploads.known().insert(id, known);
        }
        self.count_pieces(pieces).await
    }

    /// Removes the journal of an upload whose beginning was cut short: nobody was told of it.
    async fn forget_unborn(&self, id: &RecordId) -> Result<bool, Error> {
        let (spool, name) = (Arc::clone(&self.uploads.spool), spool::journal_name(id));
        off_the_async_threads(move || {
            let unborn = SealedLog::was_torn_at_birth(&spool, &name)?;
            if unborn {
                spool.remove(&name)?;
            }
            Ok(unborn)
        })
        .await
    }

    async fn find_upload(self: &Arc<Self>, id: &RecordId) -> Result<Arc<Session>, Error> {
        let (spool, name) = (Arc::clone(&self.uploads.spool), spool::journal_name(id));
        let head = off_the_async_threads(move || Ok(SealedLog::read_head(&spool, &name)?)).await?;
        let making = Arc::new(self.remake(id, &head).await?);
        let (spool, vault, its) = (
            Arc::clone(&self.uploads.spool),
            self.realm.vault,
            Arc::clone(&making),
        );
        let context = journal::context(&vault, &making, 0, &head);
        let opened = off_the_async_threads(move || Ok(journal::open(&spool, &vault, &its, &head)?));
        let (log, mut found) = opened.await?;
        let making = Arc::into_inner(making).ok_or_else(|| Error::corrupt("spool"))?;
        let begun = found.begun.take().ok_or_else(|| Error::corrupt("spool"))?;
        if found.committed.is_none() && self.is_indexed(&making.tenant, id).await? {
            found.committed = Some((self.clock.now(), Vec::new()));
        }
        let claim = match found.committed {
            Some(_) => None,
            None => {
                let keys = self.keys.tenant(&making.tenant).await?;
                let external = begun.descriptor.external_id.as_ref();
                let external = external.map(|id| terms::external(keys.index_key(), id));
                let names = [begun.request.as_ref().map(|r| r.mac), external];
                Some(self.under_way.claim(names.into_iter().flatten())?)
            }
        };
        let parts = Parts {
            expires: making.created.plus_micros(self.uploads.life_micros),
            making,
            begun,
            context,
            spool: Arc::clone(&self.uploads.spool),
            rng: Arc::clone(&self.rng),
            journal: log,
            claim,
        };
        Ok(Arc::new(Session::of(parts, &found)))
    }

    async fn is_indexed(&self, tenant: &TenantId, id: &RecordId) -> Result<bool, Error> {
        let key = crate::index::Key::Record(tenant.clone(), *id);
        Ok(self.index.get(&key).await?.is_some())
    }

    /// Counts the content of uploads that are open, and removes what belongs to none.
    async fn count_pieces(&self, pieces: Vec<(RecordId, u32, String)>) -> Result<(), Error> {
        let known = self.uploads.known().clone();
        let spool = Arc::clone(&self.uploads.spool);
        off_the_async_threads(move || {
            for (id, extent, name) in pieces {
                match known.get(&id) {
                    Some(Known::Live(session)) if session.wants(extent) => {
                        session
                            .asleep
                            .fetch_add(spool.count_file(&name)?, Ordering::AcqRel);
                    }
                    Some(Known::Damaged(..)) => {}
                    _ => spool.remove(&name)?,
                }
            }
            Ok(())
        })
        .await
    }

    /// Makes what arrived durable, within a second, until told to stop; then once more.
    pub(in crate::vault) async fn sync_uploads(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let (mut ticks, mut seconds) = (tokio::time::interval(HALF_SECOND), true);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stopped(&mut stop) => break,
            }
            self.sync_uploads_now(if seconds { Sync::Second } else { Sync::HalfSecond })
                .await;
            seconds = !seconds;
        }
        self.sync_uploads_now(Sync::All).await;
        self.uploads.halt();
    }

    /// Makes what arrived durable.
    pub(in crate::vault) async fn sync_uploads_now(self: &Arc<Self>, what: Sync) {
        let due = |session: Arc<Session>| {
            let restless = session.restless.load(Ordering::Acquire);
            let old = restless && session.grow_older();
            let due = match what {
                Sync::HalfSecond => old,
                Sync::Second => restless,
                Sync::All => true,
            };
            due.then_some((session, old || what == Sync::All))
        };
        stream::iter(self.uploads.sessions().into_iter().filter_map(due))
            .for_each_concurrent(SYNCS_AT_ONCE, |(session, spill)| async move {
                let synced = off_the_async_threads(move || Ok(session.tick(spill)?));
                if let Err(error) = synced.await {
                    tracing::warn!(%error, reason = error.reason, "an upload is not durable as far as it could be");
                }
            })
            .await;
    }

    /// Ends the uploads whose time is over: keeps what arrived, or forgets it, as was said when they began. Idempotent.
    pub async fn expire_uploads(self: &Arc<Self>) {
        let now = self.clock.now();
        let known: Vec<_> = self
            .uploads
            .known()
            .iter()
            .map(|(id, k)| (*id, k.clone()))
            .collect();
        for (id, known) in known {
            match known {
                Known::Damaged(_, expires) if expires <= now => self.forget_damaged(&id).await,
                Known::Damaged(..) => {}
                Known::Live(session) => self.expire(&session, now).await,
            }
        }
    }

    async fn expire(self: &Arc<Self>, session: &Arc<Session>, now: Timestamp) {
        let phase = session.state().phase.clone();
        let over = match phase {
            Phase::Committed { at, .. } => at.plus_micros(limits::REQUEST_ID_MICROS) <= now,
            _ => session.expires <= now,
        };
        if !over {
            return;
        }
        match phase {
            Phase::Committing => {}
            Phase::Committed { .. } => {
                self.uploads.known().remove(&session.making.record);
                let its = Arc::clone(session);
                let _ = off_the_async_threads(move || {
                    its.remove_files(false);
                    Ok(())
                })
                .await;
            }
            Phase::Open if session.begun.keep => self.keep_or_wait(session).await,
            Phase::Open | Phase::Damaged | Phase::Gone => self.forget(session).await,
        }
    }

    async fn keep_or_wait(self: &Arc<Self>, session: &Arc<Session>) {
        if let Err(error) = self.wake(session).await {
            tracing::warn!(%error, "an abandoned upload is not kept yet");
            return;
        }
        if session.state().received == 0 {
            return self.forget(session).await;
        }
        match self.keep_abandoned(session).await {
            Ok(record) => tracing::info!(record = %record.id, "an abandoned upload was kept as incomplete"),
            Err(error) => tracing::warn!(%error, "an abandoned upload is not kept yet"),
        }
    }
}

impl Session {
    /// Whether an extent's content may still be needed.
    fn wants(&self, extent: u32) -> bool {
        let state = self.state();
        state.phase == Phase::Open && extent >= state.open().extent
    }
}

impl Uploads {
    /// Bytes of unfinished uploads on the disk.
    pub(in crate::vault) fn spooled_bytes(&self) -> u64 {
        self.spool.used()
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An owner that is gone has stopped.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// The tenant that a head names, which nothing vouches for.
fn bare_tenant(spool: &spool::Spool, id: &RecordId) -> Option<TenantId> {
    let head = SealedLog::read_head(spool, &spool::journal_name(id)).ok()?;
    let head = <SpoolHead as prost::Message>::decode(&head[..]).ok()?;
    head.tenant_id.parse().ok()
}

/// When a UUIDv7 was minted, to the millisecond.
fn minted_micros(id: &RecordId) -> i64 {
    let mut millis = [0; 8];
    millis[2..].copy_from_slice(&id.as_bytes()[..6]);
    i64::from_be_bytes(millis).saturating_mul(1_000)
}
