//! Blobs that no log names: adopted after a loss of the index, quarantined as orphans otherwise.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::{
    blob::{
        format::{self, Footer},
        store::{ByteRange, ObjectInfo, ObjectKey, StoreError},
    },
    domain::{
        ids::{RecordId, TenantId},
        limits,
    },
    index::{Key, Range, Row, Scan},
    proto::storage::{RecordRow, RequestRow, TombstoneRow},
};

use super::{
    Error, Kind, OpenError, Vault,
    put::Told,
    record::BlobName,
    replay::{Replayed, SIDE_BY_SIDE},
};

const BLOBS: &str = "blobs/";
/// Where orphans go; a lifecycle rule of the bucket, or an operator, removes them from there.
const QUARANTINE: &str = "quarantine/";
const PAGE: usize = 1_000;
/// Rows that are looked through at once for another try of a request.
const TWINS: usize = 1_000;

/// What a run of the orphan task did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Orphans {
    /// Blobs moved to quarantine.
    pub quarantined: u64,
    /// Multipart uploads older than an upload may live, aborted.
    pub aborted: u64,
}

/// Whose a blob is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// No row names it.
    Nobodys,
    /// Rows name some of its records.
    Partly,
    /// Rows name all of them.
    Whole,
    /// Every one of them is shredded: it waits for its deletion.
    Dead,
}

/// A blob that a row names, or a tombstone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Named {
    entries: u32,
    alive: bool,
}

impl Vault {
    /// Indexes and logs every authentic entry of a blob that has no row. Runs after a replay, before the orphan task may.
    ///
    /// The newest blob goes first: of several tries of one call, or under one external id, each but the last was known to have
    /// failed when the next began, so that only the last can have been acknowledged.
    pub(super) async fn adopt_unlogged(&self, replayed: &mut Replayed) -> Result<(), OpenError> {
        let unlogged = self.unlogged(&replayed.broken).await?;
        for object in unlogged.into_iter().rev() {
            match self.adopt(&object).await {
                Ok(records) => replayed.adopted += records,
                Err(error) if is_no_reason_to_stop(&error) => not_adopted(&object, &error),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self.settle().await?)
    }

    /// Blobs with an entry that has no row, a tenant's in the order in which they were begun: a second's worth, and orphans.
    async fn unlogged(&self, broken: &[String]) -> Result<Vec<ObjectInfo>, Error> {
        let mut unlogged = Vec::new();
        let mut next = None;
        loop {
            let page = self.store.list(BLOBS, false, next.as_deref(), PAGE).await?;
            let whole = page.objects.into_iter().map(|object| async move {
                let sound = !broken.iter().any(|b| b == object.key.as_str());
                let standing = self.standing(&object.key).await?;
                if standing == Standing::Dead {
                    // The index that knew that it was to be deleted is gone.
                    self.purge_again(&object.key).await?;
                }
                let unlogged = sound && !matches!(standing, Standing::Whole | Standing::Dead);
                Ok::<_, Error>(unlogged.then_some(object))
            });
            let mut found = stream::iter(whole).buffered(SIDE_BY_SIDE);
            while let Some(object) = found.try_next().await? {
                unlogged.extend(object);
            }
            match page.next {
                Some(token) => next = Some(token),
                None => return Ok(unlogged),
            }
        }
    }

    /// Adopts those of a blob's entries that have no row, each for itself, and returns how many.
    async fn adopt(&self, object: &ObjectInfo) -> Result<u64, Error> {
        let (footer, footer_sha256) = self.read_footer(&object.key).await?;
        let name = BlobName {
            object_key: object.key.to_string(),
            // A listing does not tell it.
            object_version: self.store.head(&object.key).await?.version.0,
            footer_sha256,
        };
        let mut wanted = Vec::new();
        let missing = self.missing(&footer, 0..footer.entries.len()).await?;
        let twins = self.with_twins(&footer, &missing).await?;
        for index in missing {
            match self.refuse_answered(&footer, index, &twins).await {
                Ok(()) => wanted.push(index),
                Err(error) if is_no_reason_to_stop(&error) => not_adopted(object, &error),
                Err(error) => return Err(error),
            }
        }
        let outcomes = self
            .index_found(&footer, &name, object.length, Told::ByAdoption, &wanted)
            .await?;
        let mut adopted = 0;
        for outcome in outcomes.into_values() {
            match outcome {
                Ok(()) => adopted += 1,
                Err(error) if is_no_reason_to_stop(&error) => not_adopted(object, &error),
                Err(error) => return Err(error),
            }
        }
        Ok(adopted)
    }

    /// Refuses a try whose request was answered by another: a request has one record.
    async fn refuse_answered(
        &self,
        footer: &Footer,
        index: usize,
        twins: &HashSet<[u8; 32]>,
    ) -> Result<(), Error> {
        let entry = &footer.entries[index];
        let Some(request) = &entry.request else {
            return Ok(());
        };
        let key = Key::Request(footer.tenant.clone(), request.mac);
        if let Some(value) = self.index.get(&key).await? {
            let row: RequestRow = self.rows.open(&key, &value)?;
            let answered = row.expires_micros - limits::REQUEST_ID_MICROS;
            let apart = footer.created.micros().abs_diff(answered);
            if row.record_id[..] == entry.record.as_bytes()[..] {
                return Ok(());
            }
            if apart < limits::REQUEST_ID_MICROS.unsigned_abs() {
                return Err(answered_by_another());
            }
        }
        if twins.contains(&request.mac) {
            return Err(answered_by_another());
        }
        Ok(())
    }

    /// The requests of some entries by which another record was stored as well: one that is there, or was and is shredded. What a
    /// request's own row told is forgotten after a day; a shredded record must not come back as the try before it.
    async fn with_twins(&self, footer: &Footer, entries: &[usize]) -> Result<HashSet<[u8; 32]>, Error> {
        let mut of_request = HashMap::new();
        for index in entries {
            let entry = &footer.entries[*index];
            if let Some(request) = &entry.request {
                of_request.insert(request.mac, entry.record);
            }
        }
        let mut twins = HashSet::new();
        if of_request.is_empty() {
            return Ok(twins);
        }
        let (tenant, created) = (&footer.tenant, footer.created);
        let earliest = RecordId::earliest(created.plus_micros(-limits::REQUEST_ID_MICROS));
        let latest = RecordId::earliest(created.plus_micros(limits::REQUEST_ID_MICROS));
        let tables = [
            (
                Range::Records(tenant.clone()),
                Key::Record(tenant.clone(), earliest),
            ),
            (
                Range::Tombstones(tenant.clone()),
                Key::Tombstone(tenant.clone(), earliest),
            ),
        ];
        for (range, from) in tables {
            let mut after = Some(from);
            loop {
                let scan = Scan {
                    range: range.clone(),
                    reverse: false,
                    after,
                    limit: TWINS,
                };
                let rows = self.index.scan(&scan).await?;
                let full = rows.len() == TWINS;
                after = rows.last().map(|row| row.key.clone());
                let mut past = false;
                for row in rows {
                    let (id, stored_by) = self.stored_by(&row)?;
                    past |= id > latest;
                    let mac = <[u8; 32]>::try_from(&stored_by[..]).unwrap_or_default();
                    let of = of_request.get(&mac);
                    if id <= latest && of.is_some_and(|record| *record != id) {
                        twins.insert(mac);
                    }
                }
                if past || !full {
                    break;
                }
            }
        }
        Ok(twins)
    }

    /// A record of a row, or of a tombstone, and the keyed digest of the request that stored it.
    fn stored_by(&self, row: &Row) -> Result<(RecordId, Bytes), Error> {
        match &row.key {
            Key::Record(_, id) => {
                let record: RecordRow = self.rows.open(&row.key, &row.value)?;
                Ok((*id, record.request_mac))
            }
            Key::Tombstone(_, id) => {
                let dead: TombstoneRow = self.rows.open(&row.key, &row.value)?;
                Ok((
                    *id,
                    dead.record.map(|record| record.request_mac).unwrap_or_default(),
                ))
            }
            _ => Err(Error::corrupt("index row")),
        }
    }

    /// Whose a blob is. The row of a record counts if it names this very blob: a copy under another name is nobody's.
    pub(super) async fn standing(&self, object: &ObjectKey) -> Result<Standing, Error> {
        let Some((tenant, first)) = format::parse_object_key(object) else {
            return Ok(Standing::Nobodys);
        };
        if self.is_tenant_shredded(&tenant).await? {
            return Ok(Standing::Dead);
        }
        let first = self.names(object, &tenant, &first).await?;
        match first {
            Some(Named {
                entries: 0..=1,
                alive: true,
            }) => return Ok(Standing::Whole),
            Some(Named {
                entries: 0..=1,
                alive: false,
            }) => return Ok(Standing::Dead),
            _ => {}
        }
        let footer = match self.read_footer(object).await {
            Ok((footer, _)) => footer,
            // Nothing more is to be had of it; the scrub reports it.
            Err(error) if error.kind == Kind::Corrupt && first.is_some() => return Ok(Standing::Whole),
            Err(error) if error.kind == Kind::Corrupt => return Ok(Standing::Nobodys),
            Err(error) => return Err(error),
        };
        let (mut known, mut alive) = (0, 0);
        for entry in &footer.entries {
            let named = self.names(object, &tenant, &entry.record).await?;
            known += usize::from(named.is_some());
            alive += usize::from(named.is_some_and(|named| named.alive));
        }
        Ok(match known {
            0 => Standing::Nobodys,
            n if n == footer.entries.len() && alive == 0 => Standing::Dead,
            n if n == footer.entries.len() => Standing::Whole,
            _ => Standing::Partly,
        })
    }

    /// How many entries a blob has, if a record's row names it, or what stays of one.
    async fn names(
        &self,
        object: &ObjectKey,
        tenant: &TenantId,
        record: &RecordId,
    ) -> Result<Option<Named>, Error> {
        let Some(value) = self.index.get(&Key::Record(tenant.clone(), *record)).await? else {
            let dead = self.tombstone(tenant, record).await?;
            let dead = dead.filter(|dead| dead.object_key == object.as_str());
            return Ok(dead.map(|dead| Named {
                entries: dead.entry_count,
                alive: false,
            }));
        };
        let alive = |entries| Named { entries, alive: true };
        // A row that does not authenticate is for the scrub to report; until then its blob stays where it is.
        match self.parse_row(tenant, record, value) {
            Ok(located) if located.row.object_key == object.as_str() => {
                Ok(Some(alive(located.row.entry_count)))
            }
            Ok(_) => Ok(None),
            Err(_) => Ok(Some(alive(1))),
        }
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
                match self.standing(&object.key).await? {
                    Standing::Nobodys => {
                        self.quarantine(&object.key).await?;
                        done.quarantined += 1;
                    }
                    Standing::Dead => self.purge_again(&object.key).await?,
                    Standing::Partly | Standing::Whole => {}
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

/// What is wrong with one blob keeps no other from being adopted.
fn is_no_reason_to_stop(error: &Error) -> bool {
    matches!(error.kind, Kind::Corrupt | Kind::AlreadyExists | Kind::NotFound)
}

fn not_adopted(object: &ObjectInfo, error: &Error) {
    tracing::warn!(object = %object.key, reason = error.reason, "a record without a leaf is not adopted");
}

fn answered_by_another() -> Error {
    Error::new(
        Kind::AlreadyExists,
        "REQUEST_ANSWERED",
        "another try of the same request was answered; this one is an orphan",
    )
}
