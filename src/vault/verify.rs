//! The scrub: every log, leaf, row, footer and segment is read, and all must agree and authenticate.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    blob::{
        format::Footer,
        store::{ByteRange, ObjectKey},
    },
    crypto::{
        context,
        kdf::DekKeys,
        stream::{self, ExtentOpener, TagsDigest},
    },
    domain::{
        ids::{RecordId, TenantId},
        limits,
        record::Record,
    },
    index::{Key, LogId, LogKind, Range, Scan, Scope},
    ledger::{
        leaf,
        log::{LogName, LogReader, logs},
    },
    proto::storage::{PageRow, SealedPayload, StateLeaf, state_leaf::Body},
};

use bytes::{Bytes, BytesMut};

use super::{
    Error, Kind, Vault,
    adopt::Standing,
    apply,
    open::{MANIFEST, manifest_sha256},
    record::{Located, Name},
    rotation::{if_there, region_states, tenant_states},
    terms::{self, Terms},
};

const PAGE: usize = 256;
/// Stands for the region among tenants: no tenant is called so.
const REGION: &str = "";

/// Something that does not agree or authenticate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Where: an object's name, a log's origin, a record's id.
    pub subject: String,
    /// What is wrong with it.
    pub what: String,
}

/// What a scrub saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Logs whose every leaf was read and whose root was computed again.
    pub logs: u64,
    /// Leaves in them.
    pub leaves: u64,
    /// Tenants.
    pub tenants: u64,
    /// Records whose every byte was opened.
    pub records: u64,
    /// Their plaintext bytes.
    pub bytes: u64,
    /// Objects under `blobs/`.
    pub blobs: u64,
    /// What is wrong; empty when all is well.
    pub findings: Vec<Finding>,
}

impl Report {
    fn found(&mut self, subject: impl ToString, what: impl ToString) {
        self.findings.push(Finding {
            subject: subject.to_string(),
            what: what.to_string(),
        });
    }

    /// Keeps what is wrong with something stored; anything else ends the scrub.
    fn check<T>(&mut self, subject: impl ToString, outcome: Result<T, Error>) -> Result<Option<T>, Error> {
        match outcome {
            Ok(value) => Ok(Some(value)),
            Err(error) if matches!(error.kind, Kind::Corrupt | Kind::NotFound | Kind::Shredded) => {
                self.found(subject, &error);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

impl Vault {
    /// Reads everything and reports what does not agree or authenticate. Bounded memory apart from the names in leaves.
    ///
    /// # Errors
    /// What keeps it from looking: store or index unavailable. What it finds wrong is in the report.
    pub async fn verify(self: &Arc<Self>) -> Result<Report, Error> {
        // A rotation that goes on after a restart would change pages between two looks.
        let _paused = self.key_work.pause().await;
        let mut report = Report::default();
        let outcome = self.verify_manifest().await;
        report.check(MANIFEST, outcome)?;
        let mut logged = self.verify_logs(&mut report).await?;
        let outcome = self.verify_missing(std::mem::take(&mut logged.missing)).await;
        report.check("page states", outcome)?;
        let outcome = self.verify_region_pages(&logged).await;
        report.check("region pages", outcome)?;
        let mut after = None;
        loop {
            let scan = Scan {
                range: Range::Tenants,
                reverse: false,
                after,
                limit: PAGE,
            };
            let rows = self.index.scan(&scan).await?;
            let Some(last) = rows.last().map(|row| row.key.clone()) else {
                break;
            };
            for row in rows {
                let Key::Tenant(tenant) = row.key else { continue };
                report.tenants += 1;
                if self.is_tenant_shredded(&tenant).await? {
                    let outcome = self.verify_shredded_tenant(&tenant, &mut logged).await;
                    report.check(&tenant, outcome)?;
                    continue;
                }
                let outcome = self.verify_tombstones(&tenant, &mut logged).await;
                report.check(&tenant, outcome)?;
                let outcome = self.verify_settings(&tenant, &logged).await;
                report.check(&tenant, outcome)?;
                let outcome = self.verify_pages(&tenant, &logged).await;
                report.check(&tenant, outcome)?;
                self.verify_tenant(&tenant, &mut logged, &mut report).await?;
            }
            after = Some(last);
        }
        let unmet: BTreeSet<_> = logged.puts.values().map(|put| put.object_key.clone()).collect();
        for object in unmet {
            report.found(object, "a leaf names a record of this blob, but no row does");
        }
        self.verify_blobs(&mut report).await?;
        Ok(report)
    }

    async fn verify_manifest(&self) -> Result<(), Error> {
        let object = self
            .store
            .get(&ObjectKey::parse(MANIFEST)?, ByteRange::Full)
            .await?;
        if manifest_sha256(&object.bytes) == *self.keys.region().manifest_sha256() {
            Ok(())
        } else {
            Err(Error::corrupt("manifest"))
        }
    }

    /// Verifies every state log and returns what rows must agree with.
    async fn verify_logs(&self, report: &mut Report) -> Result<Logged, Error> {
        let mut logged = Logged::default();
        let mut found = BTreeMap::new();
        for log in logs(&*self.store, LogKind::State).await? {
            found.insert(log, 0);
        }
        for (log, row) in self.known_logs().await? {
            found.insert(log, self.expected_size(log, row.closed).await?);
        }
        for (log, expected) in found {
            report.logs += 1;
            let origin = LogName {
                vault: self.realm.vault,
                log,
            }
            .origin();
            let outcome = self.verify_log(log, expected, &mut logged).await;
            report.leaves += report.check(origin, outcome)?.unwrap_or(0);
        }
        Ok(logged)
    }

    /// Leaves that a log is known to have in the bucket: an older checkpoint is a true statement of its past.
    pub(super) async fn expected_size(&self, log: LogId, closed: bool) -> Result<u64, Error> {
        if log == self.ledger.log() {
            return Ok(self.ledger.shipped());
        }
        let next = self.index.get(&Key::LogNext(log)).await?.filter(|_| closed);
        let next = next.map(|bytes| bytes.try_into().map(u64::from_be_bytes));
        next.transpose()
            .map(Option::unwrap_or_default)
            .map_err(|_| Error::corrupt("index row"))
    }

    async fn verify_log(&self, log: LogId, expected: u64, logged: &mut Logged) -> Result<u64, Error> {
        let name = LogName {
            vault: self.realm.vault,
            log,
        };
        let key = self.keys.region().signing().public_key();
        let reader = LogReader::open(Arc::clone(&self.store), name, Some(key)).await?;
        let Some(reader) = reader else {
            // It never had a leaf, or whoever began it died before its first checkpoint, or the checkpoint was removed.
            return if expected == 0 {
                Ok(0)
            } else {
                Err(Error::corrupt("state log"))
            };
        };
        if reader.head().size < expected {
            return Err(Error::corrupt("state log is older than the index"));
        }
        reader.verify().await?;
        let mut position = 0;
        loop {
            let entries = reader.read(position).await?;
            if entries.is_empty() {
                return Ok(position);
            }
            position += entries.len() as u64;
            for entry in &entries {
                let leaf = leaf::parse(entry).map_err(|e| Error::corrupt("leaf").because(e))?;
                let payload = match &leaf.body {
                    Some(Body::RecordUpdated(body)) => Some(body.descriptor.as_ref()),
                    Some(Body::TenantCreated(body)) => Some(body.settings.as_ref()),
                    Some(Body::TenantUpdated(body)) => Some(body.settings.as_ref()),
                    _ => None,
                };
                if let Some(payload) = payload {
                    self.read_payload(payload.ok_or_else(|| Error::corrupt("leaf"))?)
                        .await?;
                }
                self.read_states(&leaf, logged).await?;
                logged.take(leaf);
            }
        }
    }

    /// Reads the objects of page states that a leaf names, and remembers the newest generation of each page.
    async fn read_states(&self, leaf: &StateLeaf, logged: &mut Logged) -> Result<(), Error> {
        match &leaf.body {
            Some(Body::TenantKeyRotated(body)) => {
                let version = body.key.as_ref().map_or(0, |key| key.version);
                for states in &body.page_states {
                    let read = tenant_states(self, states).await;
                    let read = logged.unless_missing(&leaf.tenant_id, version, read)?;
                    for page in read.into_iter().flatten() {
                        logged.page(&leaf.tenant_id, &page.page_id, page.generation);
                    }
                }
            }
            Some(Body::RootEpochCreated(body)) => {
                for states in &body.page_states {
                    let read = region_states(self, states).await;
                    let read = logged.unless_missing(REGION, body.epoch, read)?;
                    for page in read.into_iter().flatten() {
                        logged.page(REGION, &page.page_id, page.generation);
                    }
                }
            }
            Some(Body::RegionPageSealed(page)) => {
                if let Some(states) = &page.stored {
                    let read = region_states(self, states).await;
                    logged.unless_missing(REGION, page.epoch, read)?;
                }
                logged.page(REGION, &page.page_id, page.generation);
            }
            Some(Body::RecordsShredded(body)) => {
                let version = body.pages.iter().map(|page| page.key_version).max();
                for states in &body.page_states {
                    let read = tenant_states(self, states).await;
                    logged.unless_missing(&leaf.tenant_id, version.unwrap_or(0), read)?;
                }
                for page in &body.pages {
                    logged.page(&leaf.tenant_id, &page.page_id, page.generation);
                }
            }
            Some(Body::TenantPageSealed(page)) => {
                logged.page(&leaf.tenant_id, &page.page_id, page.generation);
            }
            Some(Body::TenantCreated(body)) => {
                if let Some(page) = &body.settings_page {
                    logged.page(&leaf.tenant_id, &page.page_id, page.generation);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// What sealed the states of a missing object is destroyed, or the object is missed.
    async fn verify_missing(&self, missing: Missing) -> Result<(), Error> {
        for (tenant, version, error) in missing {
            let scope = match tenant.as_str() {
                REGION => Scope::Region,
                tenant => Scope::Tenant(tenant.parse().map_err(|_| Error::corrupt("leaf"))?),
            };
            if !self.is_destroyed(&scope, version).await? {
                return Err(error);
            }
        }
        Ok(())
    }

    /// What the log says is shredded has a tombstone and no row, and nothing else has.
    async fn verify_tombstones(&self, tenant: &TenantId, logged: &mut Logged) -> Result<(), Error> {
        let mut dead = logged.shredded.remove(tenant.as_str()).unwrap_or_default();
        let mut strangers = 0;
        let mut buried = Vec::new();
        self.tombstones(tenant, |id, _| {
            strangers += u64::from(!dead.remove(&id.as_bytes()[..]));
            buried.push(id);
        })
        .await?;
        for id in &buried {
            logged.puts.remove(&id.as_bytes()[..]);
        }
        for ids in buried.chunks(PAGE) {
            let keys: Vec<Key> = ids.iter().map(|id| Key::Record(tenant.clone(), *id)).collect();
            if self.index.get_many(&keys).await?.iter().any(Option::is_some) {
                return Err(Error::corrupt("a record that is shredded has a row"));
            }
        }
        if strangers > 0 {
            return Err(Error::corrupt("a tombstone that no leaf names"));
        }
        if dead.is_empty() {
            Ok(())
        } else {
            Err(Error::corrupt(
                "a record that a leaf says is shredded has no tombstone",
            ))
        }
    }

    /// A tenant that is gone: the log says so, and none of its keys opens any more.
    async fn verify_shredded_tenant(&self, tenant: &TenantId, logged: &mut Logged) -> Result<(), Error> {
        let prefix = format!("blobs/{tenant}/");
        logged.puts.retain(|_, put| !put.object_key.starts_with(&prefix));
        if !logged.tenants_shredded.contains(tenant.as_str()) {
            return Err(Error::corrupt("a tenant is shredded and no leaf says so"));
        }
        match self.keys.tenant(tenant).await.map_err(Error::from) {
            Err(error) if error.kind == Kind::Shredded => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Err(Error::corrupt("the key of a shredded tenant opens")),
        }
    }

    /// Every page of the region opens under the newest epoch and is the generation that the log has last.
    async fn verify_region_pages(&self, logged: &Logged) -> Result<(), Error> {
        // A root that is being turned is seen before or after it.
        let _gate = self.keys.region_gate().await;
        let mut newest = logged.pages.get(REGION).cloned().unwrap_or_default();
        for row in self.all_rows(Range::RegionPages).await? {
            let Key::RegionPage(page) = row.key else { continue };
            let message: PageRow = self.rows.open(&row.key, &row.value)?;
            let stored = apply::page_under(&message, self.keys.current_epoch())
                .ok_or_else(|| Error::corrupt("page under another epoch"))?;
            if newest.remove(&page.as_bytes()[..]) != Some(stored.generation) {
                return Err(Error::corrupt("page of another generation than the last leaf's"));
            }
            self.keys.check_region_page(&page, &stored)?;
        }
        if newest.is_empty() {
            Ok(())
        } else {
            Err(Error::corrupt("a page that a leaf names has no row"))
        }
    }

    /// Every page of a tenant opens under its current key and is the generation that the log has last.
    async fn verify_pages(&self, tenant: &TenantId, logged: &Logged) -> Result<(), Error> {
        let (owner, _) = self.tenant_row(tenant).await?.ok_or_else(Error::not_found)?;
        let mut newest = logged.pages.get(tenant.as_str()).cloned().unwrap_or_default();
        let mut after = None;
        loop {
            let scan = Scan {
                range: Range::Pages(tenant.clone()),
                reverse: false,
                after,
                limit: PAGE,
            };
            let rows = self.index.scan(&scan).await?;
            let Some(last) = rows.last().map(|row| row.key.clone()) else {
                break;
            };
            for row in rows {
                let Key::Page(_, page) = row.key else { continue };
                let message: PageRow = self.rows.open(&row.key, &row.value)?;
                let stored = apply::page_under(&message, owner.current_key_version)
                    .ok_or_else(|| Error::corrupt("page under another key"))?;
                if newest.remove(&page.as_bytes()[..]) != Some(stored.generation) {
                    return Err(Error::corrupt("page of another generation than the last leaf's"));
                }
                self.keys.check_page(tenant, &page, &stored).await?;
            }
            after = Some(last);
        }
        if newest.is_empty() {
            Ok(())
        } else {
            Err(Error::corrupt("a page that a leaf names has no row"))
        }
    }

    async fn verify_tenant(
        self: &Arc<Self>,
        tenant: &TenantId,
        logged: &mut Logged,
        report: &mut Report,
    ) -> Result<(), Error> {
        let mut after = None;
        loop {
            let scan = Scan {
                range: Range::Records(tenant.clone()),
                reverse: false,
                after,
                limit: PAGE,
            };
            let rows = self.index.scan(&scan).await?;
            let Some(last) = rows.last().map(|row| row.key.clone()) else {
                return Ok(());
            };
            for row in rows {
                let Key::Record(_, id) = row.key else { continue };
                let outcome = self.verify_record(tenant, &id, row.value, logged).await;
                if let Some(record) = report.check(id, outcome)? {
                    report.records += 1;
                    report.bytes += record.size;
                }
            }
            after = Some(last);
        }
    }

    async fn verify_record(
        &self,
        tenant: &TenantId,
        id: &RecordId,
        value: Vec<u8>,
        logged: &mut Logged,
    ) -> Result<Record, Error> {
        let located = self.parse_row(tenant, id, value)?;
        let (record, keys) = self.open_record(&located).await?;
        let object = ObjectKey::parse(&located.row.object_key)?;
        let leaf = logged
            .puts
            .remove(&id.as_bytes()[..])
            .filter(|leaf| leaf.object_key == object.as_str())
            .ok_or_else(|| Error::corrupt("no leaf names it and its blob"))?;
        let version = logged.versions.get(&id.as_bytes()[..]).copied().unwrap_or(1);
        if located.row.descriptor_version != version {
            return Err(Error::corrupt("row of another version than the last leaf's"));
        }
        self.verify_found_by(&record).await?;
        let read = logged.footer(self, &object).await?;
        let FooterRead { footer, sha256, .. } = &*read;
        if leaf.footer_sha256[..] != *sha256 || located.row.footer_sha256[..] != *sha256 {
            return Err(Error::corrupt("footer differs from leaf or row"));
        }
        let index = located.row.entry_index as usize;
        self.open_entry(footer, index, object.as_str()).await?;
        let entry = footer
            .entries
            .get(index)
            .ok_or_else(|| Error::corrupt("footer"))?;
        if entry.record != *id || footer.entry_offset(index) != located.row.offset {
            return Err(Error::corrupt("footer differs from leaf or row"));
        }
        let digest = self.verify_content(&located, &object, &keys).await?;
        if digest != entry.tags_digest {
            return Err(Error::corrupt("segment tags differ from the footer"));
        }
        Ok(record)
    }

    /// A tenant's settings authenticate and are those of its last leaf.
    async fn verify_settings(&self, tenant: &TenantId, logged: &Logged) -> Result<(), Error> {
        self.tenant(tenant).await?;
        let row = self.tenant_row(tenant).await?.map(|(row, _)| row);
        let last = logged.settings.get(tenant.as_str()).map(|(_, settings)| settings);
        if row.as_ref().and_then(|row| row.settings.as_ref()) != last {
            return Err(Error::corrupt("row of other settings than the last leaf's"));
        }
        Ok(())
    }

    /// Every row that a record is found by is there and leads to it.
    async fn verify_found_by(&self, record: &Record) -> Result<(), Error> {
        let (tenant, id) = (&record.tenant, &record.id);
        let keys = self.keys.tenant(tenant).await?;
        let terms = Terms::current(&keys, &record.descriptor);
        let all = terms.numbered();
        let numbers = terms::known_numbers(&*self.index, &self.rows, tenant, &all).await?;
        let found_by = self.index.get_many(&terms.keys(tenant, id, &numbers)).await?;
        if !numbers.are_of(&all) || found_by.contains(&None) {
            return Err(Error::corrupt("a row that the record is found by is missing"));
        }
        let Some(external) = record.descriptor.external_id.clone() else {
            return Ok(());
        };
        match self.locate_in_any(tenant, &Name::External(external)).await? {
            Some(found) if found.id == *id => Ok(()),
            _ => Err(Error::corrupt("row of the external id")),
        }
    }

    /// Opens every segment and returns the digest of all tags.
    async fn verify_content(
        &self,
        located: &Located,
        object: &ObjectKey,
        keys: &DekKeys,
    ) -> Result<[u8; 32], Error> {
        let mut whole = TagsDigest::new();
        let size = located.row.plaintext_length;
        for piece in stream::map_range(size, 0, size)? {
            let _room = self.budget.reserve(piece.len).await?;
            let offset = located.row.offset + piece.header_offset;
            let length = piece.len + stream::HEADER_LEN as u64;
            let object = self
                .store
                .get(object, ByteRange::Exact { offset, length })
                .await?;
            let mut bytes = object
                .bytes
                .try_into_mut()
                .unwrap_or_else(|shared| BytesMut::from(&shared[..]));
            let header = bytes.split_to(stream::HEADER_LEN);
            whole.update(&tags_of(&bytes));
            let (tenant, kind) = (&located.tenant, located.kind.number());
            let aad = context::extent(tenant, &located.id, kind, &located.region, piece.extent);
            let header = header[..].try_into().map_err(|_| Error::corrupt("content"))?;
            let opener = ExtentOpener::new(&keys.content, &aad, header)?;
            piece.open(&opener, bytes)?;
        }
        Ok(whole.finish())
    }

    /// Every blob in the bucket, and all that is in it, belongs to a record.
    async fn verify_blobs(&self, report: &mut Report) -> Result<(), Error> {
        let orphaned = self.clock.now().plus_micros(-limits::ORPHAN_MICROS).micros();
        let mut next = None;
        loop {
            let page = self.store.list("blobs/", false, next.as_deref(), 1_000).await?;
            for object in page.objects {
                report.blobs += 1;
                match self.standing(&object.key).await? {
                    Standing::Whole | Standing::Dead => {}
                    Standing::Nobodys => report.found(
                        &object.key,
                        "no record names this blob: an orphan, or an upload under way",
                    ),
                    // What was not known after this time was never acknowledged; a shared blob cannot be moved away for it.
                    Standing::Partly if object.modified_micros < orphaned => {}
                    Standing::Partly => report.found(
                        &object.key,
                        "no row names some records of this blob: orphans, or messages under way",
                    ),
                }
            }
            match page.next {
                Some(token) => next = Some(token),
                None => return Ok(()),
            }
        }
    }
}

/// A blob as a put leaf names it.
#[derive(Debug)]
struct LoggedBlob {
    object_key: String,
    footer_sha256: Bytes,
}

/// A footer and where it was read.
#[derive(Debug)]
struct FooterRead {
    object: ObjectKey,
    footer: Footer,
    sha256: [u8; 32],
}

/// What the logs say last; rows must agree with it.
#[derive(Debug, Default)]
struct Logged {
    /// Where the log says that each record lies, until it is met.
    puts: BTreeMap<Bytes, Arc<LoggedBlob>>,
    /// The footer read last: the records of a shared blob are met together.
    footer: Option<Arc<FooterRead>>,
    /// Newest version of each descriptor that was corrected, by record.
    versions: BTreeMap<Bytes, u32>,
    /// Newest generation of each page, by tenant.
    pages: BTreeMap<String, BTreeMap<Bytes, u64>>,
    /// Records that are shredded, by tenant.
    shredded: BTreeMap<String, BTreeSet<Bytes>>,
    /// Tenants that are.
    tenants_shredded: BTreeSet<String>,
    /// Newest settings by tenant, and their leaf's number in its sequence.
    settings: BTreeMap<String, (u64, SealedPayload)>,
    missing: Missing,
}

/// Objects of page states that are not there: whose they were, and the version or epoch that sealed them.
type Missing = Vec<(String, u64, Error)>;

impl Logged {
    /// A blob's footer, read once for records that are met one after the other.
    async fn footer(&mut self, vault: &Vault, object: &ObjectKey) -> Result<Arc<FooterRead>, Error> {
        if let Some(read) = self.footer.as_ref().filter(|read| read.object == *object) {
            return Ok(Arc::clone(read));
        }
        let (footer, sha256) = vault.read_footer(object).await?;
        let read = Arc::new(FooterRead {
            object: object.clone(),
            footer,
            sha256,
        });
        self.footer = Some(Arc::clone(&read));
        Ok(read)
    }

    fn unless_missing<T>(
        &mut self,
        tenant: &str,
        version: u64,
        read: Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        if_there(read).map(|read| match read {
            Ok(there) => Some(there),
            Err(error) => {
                self.missing.push((tenant.to_owned(), version, error));
                None
            }
        })
    }

    fn page(&mut self, tenant: &str, page: &Bytes, generation: u64) {
        let pages = self.pages.entry(tenant.to_owned()).or_default();
        let newest = pages.entry(page.clone()).or_default();
        *newest = generation.max(*newest);
    }

    fn take(&mut self, leaf: StateLeaf) {
        let settings = match leaf.body {
            Some(Body::RecordsPut(put)) => {
                let blob = Arc::new(LoggedBlob {
                    object_key: put.object_key,
                    footer_sha256: put.footer_sha256,
                });
                let ids = put.record_ids.into_iter();
                self.puts.extend(ids.map(|id| (id, Arc::clone(&blob))));
                return;
            }
            Some(Body::RecordUpdated(body)) => {
                let newest = self.versions.entry(body.record_id).or_default();
                *newest = body.descriptor_version.max(*newest);
                return;
            }
            Some(Body::RecordsShredded(body)) => {
                let dead = self.shredded.entry(leaf.tenant_id).or_default();
                dead.extend(body.records.into_iter().map(|record| record.record_id));
                return;
            }
            Some(Body::TenantShredded(_)) => {
                self.tenants_shredded.insert(leaf.tenant_id);
                return;
            }
            Some(Body::TenantCreated(body)) => body.settings,
            Some(Body::TenantUpdated(body)) => body.settings,
            _ => return,
        };
        let newest = self
            .settings
            .get(&leaf.tenant_id)
            .map_or(0, |(number, _)| *number);
        if let Some(settings) = settings
            && leaf.tenant_seq > newest
        {
            self.settings.insert(leaf.tenant_id, (leaf.tenant_seq, settings));
        }
    }
}

/// Digest of the tags of one extent's segments, given without its header.
fn tags_of(segments: &[u8]) -> [u8; 32] {
    let mut digest = TagsDigest::new();
    let first = stream::SEGMENT_LEN - stream::HEADER_LEN;
    let (head, rest) = segments.split_at(first.min(segments.len()));
    for segment in std::iter::once(head).chain(rest.chunks(stream::SEGMENT_LEN)) {
        if segment.len() >= stream::TAG_LEN {
            digest.update(&segment[segment.len() - stream::TAG_LEN..]);
        }
    }
    digest.finish()
}
