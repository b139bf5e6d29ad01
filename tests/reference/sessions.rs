//! Resumable uploads in random histories: begun, written, committed and aborted, with whatever happens to the process in between.
//!
//! An upload of the model is its whole content from the beginning, and how much of it the vault has said that it has. What was
//! not said to be durable may be lost with the process, from the end; nothing else may.

use std::sync::Arc;

use callvault::{
    domain::{
        clock::Timestamp,
        ids::{RecordId, TenantId},
        limits,
        record::{Descriptor, Kind as RecordKind},
    },
    vault::{BeginSpec, Closing, CommitSpec, Kind, Name, Vault},
};

use super::{
    kit::{ACTOR, LAWFUL, told},
    model::{Answer, Model, Outcome, Upload},
};

/// All uploads that are not over, and those that were committed.
#[derive(Default)]
pub(crate) struct Sessions {
    open: Vec<Open>,
    committed: Vec<Committed>,
}

struct Open {
    id: RecordId,
    /// With all that is to be sent.
    upload: Upload,
    kind: RecordKind,
    descriptor: Descriptor,
    /// Bytes that the vault had when it was last asked.
    sent: usize,
    durable: usize,
    expires: Timestamp,
}

struct Committed {
    spec: CommitSpec,
    until: Timestamp,
}

impl Sessions {
    pub(crate) async fn begin(&mut self, vault: &Arc<Vault>, model: &Model, upload: Upload) {
        let spec = BeginSpec {
            tenant: upload.spec.tenant.clone(),
            actor: ACTOR.to_owned(),
            draft: upload.spec.draft.clone(),
            request: None,
            keep: false,
        };
        let got = vault.begin_upload(spec).await.map_err(|e| told(&e));
        let closing = Closing::default();
        let probe = Upload {
            closing,
            ..upload.clone()
        };
        match (got, model.put(&probe)) {
            (Ok(begun), Ok(Outcome::New(kind, descriptor))) => {
                assert_eq!((begun.received, begun.durable), (0, 0));
                assert_eq!(begun.created, upload.at);
                self.open.push(Open {
                    id: begun.id,
                    upload,
                    kind,
                    descriptor: *descriptor,
                    sent: 0,
                    durable: 0,
                    expires: begun.expires,
                });
            }
            (got, expected) => assert_eq!(
                got.map(|begun| begun.id),
                expected.map(|new| panic!("no request, yet {new:?}"))
            ),
        }
    }

    /// Sends `length` bytes more, perhaps some that the vault has already; perhaps waits until they are durable.
    pub(crate) async fn write(&mut self, vault: &Arc<Vault>, which: usize, length: usize, settle: bool) {
        let Some(open) = self.some(vault, which).await else {
            return;
        };
        let (tenant, from) = (&open.upload.spec.tenant, open.sent - open.sent.min(length) / 3);
        let to = open.upload.content.len().min(open.sent + length);
        let beyond = vault.write_upload(tenant, &open.id, open.sent as u64 + 1).await;
        assert_eq!(
            beyond.map(drop).map_err(|e| told(&e)),
            Err((Kind::WrongState, "UPLOAD_OFFSET"))
        );
        let mut writer = vault.write_upload(tenant, &open.id, from as u64).await.unwrap();
        let rest = open.upload.content.slice(from..to);
        for chunk in rest.chunks(50_000) {
            writer.write(rest.slice_ref(chunk)).await.unwrap();
        }
        open.sent = to;
        if settle {
            let status = writer.finish().await.unwrap();
            assert_eq!((status.received, status.durable), (to as u64, to as u64));
            open.durable = to;
        }
    }

    /// Makes a record of what was sent, or is refused because it says that there is more.
    pub(crate) async fn commit(
        &mut self,
        vault: &Arc<Vault>,
        model: &mut Model,
        which: usize,
        says_more: bool,
    ) {
        let Some(open) = self.some(vault, which).await else {
            return;
        };
        let mut spec = CommitSpec {
            tenant: open.upload.spec.tenant.clone(),
            id: open.id,
            size: open.sent as u64 + u64::from(says_more),
            closing: open.upload.closing.clone(),
            expected_crc: None,
        };
        let got = vault.commit_upload(spec.clone()).await.map_err(|e| told(&e));
        if says_more {
            assert_eq!(got, Err((Kind::WrongState, "UPLOAD_INCOMPLETE")));
            return;
        }
        if open.sent == 0 {
            assert_eq!(got, Err((Kind::Invalid, "CONTENT_EMPTY")));
            return;
        }
        let open = self.open.remove(which % self.open.len());
        let (tenant, source) = (&open.upload.spec.tenant, open.descriptor.derived_from);
        if source.is_some_and(|source| model.locate(tenant, &Name::Id(source)).is_err()) {
            assert_eq!(
                got.unwrap_err().0,
                Kind::NotFound,
                "its source was erased meanwhile"
            );
            let _ = vault.abort_upload(tenant, &open.id).await;
            return;
        }
        let got = got.unwrap();
        let content = open.upload.content.slice(..open.sent);
        let upload = Upload {
            content,
            ..open.upload
        };
        let descriptor = described(&upload, open.descriptor);
        let new = model.accept(&upload, open.id, open.kind, descriptor, &got.region);
        assert_eq!(got, new);
        let until = model.now.plus_micros(limits::REQUEST_ID_MICROS);
        self.committed.push(Committed {
            spec: spec.clone(),
            until,
        });
        spec.closing.duration_millis = Some(987_654);
        let otherwise = vault.commit_upload(spec).await.map_err(|e| told(&e));
        assert_eq!(otherwise, Err((Kind::WrongState, "UPLOAD_COMMITTED")));
    }

    /// A commit that was answered is answered again.
    pub(crate) async fn commit_again(&mut self, vault: &Arc<Vault>, model: &Model, which: usize) {
        vault.expire_uploads().await;
        self.committed.retain(|committed| committed.until > model.now);
        let Some(Committed { spec, .. }) = self.committed.get(which % self.committed.len().max(1)) else {
            return;
        };
        let got = vault.commit_upload(spec.clone()).await.map_err(|e| told(&e));
        let expected: Answer<_> = model.record(&spec.tenant, &Name::Id(spec.id), LAWFUL);
        assert_eq!(got, expected);
    }

    pub(crate) async fn abort(&mut self, vault: &Arc<Vault>, which: usize) {
        let Some(open) = self.some(vault, which).await else {
            return;
        };
        let (tenant, id) = (open.upload.spec.tenant.clone(), open.id);
        vault.abort_upload(&tenant, &id).await.unwrap();
        self.open.remove(which % self.open.len());
        gone(vault, &tenant, &id).await;
    }

    /// All of them.
    pub(crate) async fn abort_all(&mut self, vault: &Arc<Vault>) {
        while !self.open.is_empty() {
            self.abort(vault, 0).await;
        }
    }

    /// An upload that is not over, as the vault has it now.
    async fn some(&mut self, vault: &Arc<Vault>, which: usize) -> Option<&mut Open> {
        vault.expire_uploads().await;
        let now = vault.clock().now();
        let over = self.open.extract_if(.., |open| open.expires <= now);
        for open in over.collect::<Vec<_>>() {
            gone(vault, &open.upload.spec.tenant, &open.id).await;
        }
        let place = which % self.open.len().max(1);
        let open = self.open.get_mut(place)?;
        let status = vault.upload(&open.upload.spec.tenant, &open.id).await.unwrap();
        let (received, durable) = (status.received as usize, status.durable as usize);
        assert!(
            (open.durable..=open.sent).contains(&received) && (open.durable..=received).contains(&durable),
            "{received} and {durable} of {} and {}",
            open.sent,
            open.durable
        );
        assert!(status.record.is_none());
        (open.sent, open.durable) = (received, durable);
        Some(open)
    }
}

async fn gone(vault: &Arc<Vault>, tenant: &TenantId, id: &RecordId) {
    let asked = vault.upload(tenant, id).await.map(drop).map_err(|e| told(&e));
    assert_eq!(asked.map_err(|(kind, _)| kind), Err(Kind::NotFound));
}

/// The descriptor as the end of the upload leaves it.
fn described(upload: &Upload, begun: Descriptor) -> Descriptor {
    let (closing, draft) = (&upload.closing, &upload.spec.draft);
    let mut descriptor = begun;
    if !draft.has_media_type {
        let start = upload.content.len().min(callvault::domain::media::SNIFF_LEN);
        descriptor.media_type = callvault::domain::media::sniff(&upload.content[..start]).unwrap();
    }
    if closing.duration_millis.is_some() {
        descriptor.duration_millis = closing.duration_millis;
    }
    if !closing.parties.is_empty() {
        descriptor.parties = closing.parties.clone();
    }
    descriptor
}
