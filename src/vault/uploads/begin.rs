//! An upload begins: everything that can be refused without content is refused here.

use std::sync::Arc;

use prost::Message;

use crate::{
    domain::{
        ids::{RequestId, TenantId},
        limits,
    },
    index::Key,
    spool::{SealedLog, journal_name},
};

use super::{
    super::{
        Error, Kind, Vault, descriptor,
        put::{Claim, Draft, PutSpec, external_id_taken, off_the_async_threads, resolve_defaults},
        requests::Asked,
        terms,
    },
    Known, Phase, UploadStatus,
    commit::committed_upload,
    journal,
    journal::Begun,
    session::{Parts, Session},
};

/// What begins an upload.
#[derive(Clone, Debug)]
pub struct BeginSpec {
    /// Whose.
    pub tenant: TenantId,
    /// Alias of the uploader.
    pub actor: String,
    /// What it is.
    pub draft: Draft,
    /// Makes the call idempotent.
    pub request: Option<RequestId>,
    /// Keep what arrived as an incomplete record when nobody commits it in time.
    pub keep: bool,
}

impl Vault {
    /// Begins an upload, or finds the one that the same request began before.
    ///
    /// # Errors
    /// As [`Vault::begin_put`]; [`Kind::AlreadyExists`] (`REQUEST_ID_REUSED`) if the request id stands for another descriptor;
    /// [`Kind::Exhausted`] if there are too many uploads, or no room in the spool.
    pub async fn begin_upload(self: &Arc<Self>, spec: BeginSpec) -> Result<UploadStatus, Error> {
        let (row, _) = self.active_tenant(&spec.tenant).await?;
        let keys = self.keys.tenant(&spec.tenant).await?;
        let asked = spec
            .request
            .as_ref()
            .map(|r| Asked::new(&keys, &spec.tenant, r, asked_for(&spec)));
        if let Some(asked) = &asked
            && let Some(found) = self.begun_before(&spec.tenant, asked).await?
        {
            return Ok(found);
        }
        let descriptor = &spec.draft.descriptor;
        let external = descriptor
            .external_id
            .as_ref()
            .map(|id| terms::external(keys.index_key(), id));
        let names = [asked.as_ref().map(|asked| asked.mac), external];
        let claim = self.under_way.claim(names.into_iter().flatten())?;
        let settings = self.open_tenant(&spec.tenant, &row).await?.settings;
        let mut put = PutSpec {
            tenant: spec.tenant,
            actor: spec.actor,
            draft: spec.draft,
            request: None,
            expected_size: None,
            expected_sha256: None,
        };
        resolve_defaults(&mut put.draft, &settings)?;
        let class = &put.draft.descriptor.retention_class;
        self.require_class(&put.tenant, class, "descriptor.retention_class")
            .await?;
        if let Some(external) = external {
            let key = Key::External(put.tenant.clone(), external);
            if self.index.get(&key).await?.is_some() {
                return Err(external_id_taken());
            }
        }
        self.begin_session(put, spec.keep, asked, claim).await
    }

    /// What the same request did before.
    async fn begun_before(
        self: &Arc<Self>,
        tenant: &TenantId,
        asked: &Asked,
    ) -> Result<Option<UploadStatus>, Error> {
        let same = |session: &Arc<Session>| {
            let request = session.begun.request.as_ref();
            let request = request.is_some_and(|r| r.mac == asked.mac);
            let over = matches!(session.state().phase, Phase::Gone | Phase::Committed { .. });
            request && !over && session.making.tenant == *tenant
        };
        if let Some(session) = self.uploads.sessions().into_iter().find(same) {
            let before = session.begun.request.as_ref().map(|r| r.fingerprint);
            asked.must_be(&session.making.fingerprint_key, &before.unwrap_or_default())?;
            return self.upload(tenant, &session.making.record).await.map(Some);
        }
        let Some(answered) = self.answered(tenant, &asked.mac).await? else {
            return Ok(None);
        };
        let record = self.answer_again(tenant, asked, &answered).await?;
        Ok(Some(committed_upload(record)))
    }

    async fn begin_session(
        self: &Arc<Self>,
        put: PutSpec,
        keep: bool,
        asked: Option<Asked>,
        claim: Claim,
    ) -> Result<UploadStatus, Error> {
        if self.uploads.known().len() >= limits::UPLOADS {
            let message = format!("too many uploads are open; try again limit={}", limits::UPLOADS);
            return Err(Error::new(Kind::Exhausted, "TOO_MANY_UPLOADS", message));
        }
        let kind = self.kind_of(&put).await?;
        // The descriptor's own length is refused now, not at the commit.
        let making = self
            .make(&put.tenant, &put.draft.descriptor.retention_class, kind)
            .await?;
        let request = asked.map(|asked| asked.tag(&making.fingerprint_key));
        self.footer(&making, &put.draft.descriptor, 1, request, [0; 32])?;
        let begun = Begun {
            actor: put.actor,
            descriptor: put.draft.descriptor,
            sniff: !put.draft.has_media_type,
            keep,
            request,
        };
        let head = journal::head(self, &making);
        let context = journal::context(&self.realm.vault, &making, 0, &head);
        let event = journal::begun_event(&begun);
        let (spool, rng) = (Arc::clone(&self.uploads.spool), Arc::clone(&self.rng));
        let (key, name) = (Arc::clone(&making.spool_key), journal_name(&making.record));
        let made = context.clone();
        let journal = off_the_async_threads(move || {
            let mut log = SealedLog::create(&spool, name, made, key, &head, &*rng)?;
            let begun = log
                .append(&spool, &[&event], &*rng)
                .and_then(|()| log.sync(&spool, &*rng));
            match begun {
                Ok(()) => Ok(log),
                Err(error) => {
                    let _ = log.remove(&spool);
                    Err(error.into())
                }
            }
        })
        .await?;
        let session = Arc::new(Session::fresh(Parts {
            expires: making.created.plus_micros(self.uploads.life_micros),
            making,
            begun,
            context,
            spool: Arc::clone(&self.uploads.spool),
            rng: Arc::clone(&self.rng),
            journal,
            claim: Some(claim),
        }));
        let known = Known::Live(Arc::clone(&session));
        self.uploads.known().insert(session.making.record, known);
        self.status(&session).await
    }
}

/// What a request asked for, as bytes that are the same for the same request and never those of a `PutRecording`, which
/// begin with the length of its content.
fn asked_for(spec: &BeginSpec) -> Vec<u8> {
    let mut asked = u64::MAX.to_be_bytes().to_vec();
    asked.push(u8::from(spec.keep));
    asked.extend_from_slice(&descriptor::to_proto(&spec.draft.descriptor).encode_to_vec());
    asked
}
