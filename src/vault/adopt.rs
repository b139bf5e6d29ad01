//! Blobs that no log names: adopted after a loss of the index, quarantined as orphans otherwise.

use crate::{
    blob::{
        format::{self, Footer},
        store::{ByteRange, ObjectInfo, ObjectKey, StoreError},
    },
    domain::limits,
    index::Key,
    proto::storage::RequestRow,
};

use super::{Error, Kind, OpenError, Vault, record::BlobName, replay::Replayed};

const BLOBS: &str = "blobs/";
/// Where orphans go; a lifecycle rule of the bucket, or an operator, removes them from there.
const QUARANTINE: &str = "quarantine/";
const PAGE: usize = 1_000;

/// What a run of the orphan task did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Orphans {
    /// Blobs moved to quarantine.
    pub quarantined: u64,
    /// Multipart uploads older than an upload may live, aborted.
    pub aborted: u64,
}

impl Vault {
    /// Indexes and logs every authentic blob that has no row. Runs after a replay, before the orphan task may.
    ///
    /// The newest goes first: of several tries of one call, or under one external id, each but the last was known to have
    /// failed when the next began, so that only the last can have been acknowledged.
    pub(super) async fn adopt_unlogged(&self, replayed: &mut Replayed) -> Result<(), OpenError> {
        let unlogged = self.unlogged(&replayed.broken).await?;
        for object in unlogged.into_iter().rev() {
            match self.adopt(&object).await {
                Ok(records) => replayed.adopted += records,
                Err(error) if matches!(error.kind, Kind::Corrupt | Kind::AlreadyExists | Kind::NotFound) => {
                    tracing::warn!(object = %object.key, reason = error.reason, "a blob without a leaf is not adopted");
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self.settle().await?)
    }

    /// Blobs that have no row, a tenant's in the order in which they were begun: a second's worth, and orphans.
    async fn unlogged(&self, broken: &[String]) -> Result<Vec<ObjectInfo>, Error> {
        let mut unlogged = Vec::new();
        let mut next = None;
        loop {
            let page = self.store.list(BLOBS, false, next.as_deref(), PAGE).await?;
            for object in page.objects {
                if !self.is_known(&object.key).await? && !broken.iter().any(|b| b == object.key.as_str()) {
                    unlogged.push(object);
                }
            }
            match page.next {
                Some(token) => next = Some(token),
                None => return Ok(unlogged),
            }
        }
    }

    async fn adopt(&self, object: &ObjectInfo) -> Result<u64, Error> {
        let (footer, footer_sha256) = self.read_footer(&object.key).await?;
        let blob = BlobName {
            object_key: object.key.to_string(),
            object_version: String::new(),
            footer_sha256,
        };
        let descriptors = self.open_descriptors(&footer, &blob.object_key).await?;
        self.refuse_answered(&footer).await?;
        let actor = crate::ledger::leaf::SYSTEM;
        self.index_put(actor, &footer, &blob, object.length, &descriptors, true)
            .await?;
        Ok(footer.entries.len() as u64)
    }

    /// Refuses a try whose request was answered by another: a request has one record.
    async fn refuse_answered(&self, footer: &Footer) -> Result<(), Error> {
        for (request, entry) in footer
            .entries
            .iter()
            .filter_map(|e| Some((e.request.as_ref()?, e)))
        {
            let key = Key::Request(footer.tenant.clone(), request.mac);
            let Some(value) = self.index.get(&key).await? else {
                continue;
            };
            let row: RequestRow = self.rows.open(&key, &value)?;
            let answered = row.expires_micros - limits::REQUEST_ID_MICROS;
            let apart = footer.created.micros().abs_diff(answered);
            if row.record_id[..] != entry.record.as_bytes()[..]
                && apart < limits::REQUEST_ID_MICROS.unsigned_abs()
            {
                return Err(Error::new(
                    Kind::AlreadyExists,
                    "REQUEST_ANSWERED",
                    "another try of the same request was answered; this one is an orphan",
                ));
            }
        }
        Ok(())
    }

    /// Whether the row of its first record names this very blob: a copy under another name is nobody's.
    pub(super) async fn is_known(&self, object: &ObjectKey) -> Result<bool, Error> {
        let Some((tenant, first)) = format::parse_object_key(object) else {
            return Ok(false);
        };
        let Some(value) = self.index.get(&Key::Record(tenant.clone(), first)).await? else {
            return Ok(false);
        };
        // A row that does not authenticate is for the scrub to report; until then its blob stays where it is.
        let located = self.parse_row(&tenant, &first, value);
        Ok(located.is_err() || located.is_ok_and(|l| l.row.object_key == object.as_str()))
    }

    /// Moves blobs that are older than an upload may live and that nothing names to quarantine, and aborts uploads of that age.
    ///
    /// # Errors
    /// What store or index answered; what was moved stays moved. Idempotent.
    pub async fn collect_orphans(&self) -> Result<Orphans, Error> {
        let mut done = Orphans::default();
        let oldest = self.clock.now().plus_micros(-limits::ORPHAN_MICROS).micros();
        for (key, upload, began) in self.store.uploads(BLOBS).await? {
            let open =
                format::parse_object_key(&key).is_some_and(|(_, record)| self.uploads.is_open(&record));
            if began < oldest && !open {
                self.store.abort(&key, &upload).await?;
                done.aborted += 1;
            }
        }
        let mut next = None;
        loop {
            let page = self.store.list(BLOBS, false, next.as_deref(), PAGE).await?;
            for object in page.objects.iter().filter(|o| o.modified_micros < oldest) {
                if !self.is_known(&object.key).await? {
                    self.quarantine(&object.key).await?;
                    done.quarantined += 1;
                }
            }
            match page.next {
                Some(token) => next = Some(token),
                None => return Ok(done),
            }
        }
    }

    async fn quarantine(&self, object: &ObjectKey) -> Result<(), Error> {
        let away = ObjectKey::parse(&format!("{QUARANTINE}{object}"))?;
        let bytes = self.store.get(object, ByteRange::Full).await?.bytes;
        match self.store.put(&away, bytes).await {
            Ok(_) | Err(StoreError::AlreadyExists) => Ok(self.store.delete(object).await?),
            Err(error) => Err(error.into()),
        }
    }
}
