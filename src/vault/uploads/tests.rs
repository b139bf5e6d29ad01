//! Uploads through restarts, crashes, full disks and stores that are away.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{life::Sync, *};
use crate::{
    domain::{
        limits,
        purpose::{Channel, Purpose},
        record::Descriptor,
        tenant::{RetentionAction, RetentionClass, TenantSettings},
    },
    testing::{
        faulty::{Failure, Operation},
        world::{Engine, World},
    },
    vault::{Closing, ContentRange, Draft},
};

const EXTENT: usize = 8_386_520;

struct Bench {
    world: World,
    tenant: TenantId,
    _dir: tempfile::TempDir,
}

impl Bench {
    async fn new() -> Self {
        Self::with_budget(256 << 20).await
    }

    async fn with_budget(budget: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut world = World::new(dir.path(), Engine::Memory, 7).unwrap();
        world.settings.memory_budget = budget;
        world.open().await.unwrap();
        let bench = Self {
            world,
            tenant: "dev".parse().unwrap(),
            _dir: dir,
        };
        bench.make_tenant("dev").await;
        bench
    }

    async fn make_tenant(&self, name: &str) {
        let id: TenantId = name.parse().unwrap();
        let vault = self.vault();
        vault
            .create_tenant("admin", &id, TenantSettings::default(), None)
            .await
            .unwrap();
        let class = RetentionClass {
            id: "standard".parse().unwrap(),
            minimum_days: 0,
            maximum_days: None,
            action: RetentionAction::Shred,
            jurisdiction: None,
            legal_ground: None,
            effective: Timestamp(0),
            created: Timestamp(0),
        };
        vault
            .create_retention_class("admin", &id, class, None)
            .await
            .unwrap();
    }

    fn vault(&self) -> Arc<Vault> {
        Arc::clone(self.world.vault())
    }

    fn spec(&self) -> BeginSpec {
        BeginSpec {
            tenant: self.tenant.clone(),
            actor: "uploader".into(),
            draft: draft(),
            request: None,
            keep: false,
        }
    }

    async fn begin(&self) -> RecordId {
        self.vault().begin_upload(self.spec()).await.unwrap().id
    }

    async fn writer(&self, id: RecordId, offset: usize) -> UploadWriter {
        self.vault()
            .write_upload(&self.tenant, &id, offset as u64)
            .await
            .unwrap()
    }

    /// Sends content in chunks, and waits until it is durable.
    async fn send(&self, id: RecordId, offset: usize, content: &[u8]) -> UploadStatus {
        let mut writer = self.writer(id, offset).await;
        for chunk in content.chunks(100_000) {
            writer.write(Bytes::copy_from_slice(chunk)).await.unwrap();
        }
        writer.finish().await.unwrap()
    }

    async fn status(&self, id: RecordId) -> UploadStatus {
        self.vault().upload(&self.tenant, &id).await.unwrap()
    }

    async fn commit(&self, id: RecordId, size: usize) -> Result<Record, Error> {
        self.vault().commit_upload(self.commit_spec(id, size)).await
    }

    fn commit_spec(&self, id: RecordId, size: usize) -> CommitSpec {
        CommitSpec {
            tenant: self.tenant.clone(),
            id,
            size: size as u64,
            closing: Closing::default(),
            expected_crc: None,
        }
    }

    async fn restart(&mut self) {
        self.world.crash().await;
        self.world.open().await.unwrap();
    }

    async fn expect_content(&self, id: RecordId, content: &[u8]) {
        let range = ContentRange {
            offset: 0,
            limit: None,
        };
        let purpose = Purpose::ServiceProvision;
        let mut reading = self.vault().read(&self.tenant, id, range, purpose).await.unwrap();
        let mut got = Vec::new();
        while let Some(bytes) = reading.next().await.unwrap() {
            got.extend_from_slice(&bytes);
        }
        assert!(got == content, "{} of {} bytes", got.len(), content.len());
    }

    fn spool_files(&self) -> Vec<std::path::PathBuf> {
        let entries = std::fs::read_dir(self.world.spool_path()).unwrap();
        let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }

    /// Uploads that the bucket has, and blobs.
    async fn in_bucket(&self) -> (usize, usize) {
        use crate::blob::store::BlobStore;
        let bucket = self.world.bucket().await.unwrap();
        let blobs = bucket.list("blobs/", false, None, 100).await.unwrap();
        (bucket.uploads("").await.unwrap().len(), blobs.objects.len())
    }
}

fn draft() -> Draft {
    Draft {
        descriptor: Descriptor {
            conversation_id: "conv-1".parse().unwrap(),
            channel: Channel::Voice,
            direction: None,
            start: Timestamp(1_795_478_000_000_000),
            duration_millis: None,
            parties: vec![],
            media_type: "application/octet-stream".parse().unwrap(),
            languages: vec![],
            labels: Default::default(),
            data_categories: Default::default(),
            allowed_purposes: Default::default(),
            legal_basis: None,
            notice_version: None,
            consent_ref: None,
            source: None,
            retention_class: "standard".parse().unwrap(),
            age_flag: None,
            jurisdictions: vec![],
            external_id: None,
            derived_from: None,
            incomplete: false,
        },
        has_media_type: false,
        has_retention_class: true,
    }
}

fn content(length: usize) -> Vec<u8> {
    (0..length as u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 21) as u8)
        .collect()
}

fn reason<T: std::fmt::Debug>(answer: Result<T, Error>) -> &'static str {
    answer.unwrap_err().reason
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_of_several_writes_is_one_recording() {
    let bench = Bench::new().await;
    for length in [1, 70_000, EXTENT, EXTENT + 1, 2 * EXTENT, 20_000_000] {
        let content = content(length);
        let id = bench.begin().await;
        let half = length / 2;
        let status = bench.send(id, 0, &content[..half]).await;
        assert_eq!((status.durable, status.received), (half as u64, half as u64));
        let status = bench.send(id, half, &content[half..]).await;
        assert_eq!(status.durable, length as u64, "{length}");
        let record = bench.commit(id, length).await.unwrap();
        assert_eq!((record.id, record.size), (id, length as u64));
        bench.expect_content(id, &content).await;
        assert_eq!(bench.commit(id, length).await.unwrap(), record);
        assert_eq!(bench.status(id).await.record, Some(record));
    }
    assert_eq!(bench.in_bucket().await, (0, 6));
    bench.vault().settle().await.unwrap();
    let report = bench.vault().verify().await.unwrap();
    assert_eq!((report.findings, report.records), (vec![], 6));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_durable_survives_a_crash_and_the_upload_goes_on_from_there() {
    let mut bench = Bench::new().await;
    let content = content(20_000_000);
    let id = bench.begin().await;
    let mut sent = 0;
    // Crashes at the beginning, within parts, at their ends, and beyond.
    for stop in [
        1,
        65_480,
        300_000,
        EXTENT - 1,
        EXTENT,
        EXTENT + 1,
        12_000_000,
        2 * EXTENT,
    ] {
        let durable = bench.send(id, sent, &content[sent..stop]).await.durable;
        assert_eq!(durable, stop as u64);
        // What is not durable may be lost.
        let mut writer = bench.writer(id, stop).await;
        let lost = Bytes::copy_from_slice(&content[stop..stop + 50_000]);
        writer.write(lost).await.unwrap();
        drop(writer);
        bench.restart().await;
        let status = bench.status(id).await;
        assert!(status.durable >= durable, "{stop}: {status:?}");
        assert_eq!(status.received, status.durable, "after a restart");
        sent = usize::try_from(status.durable).unwrap();
    }
    bench.send(id, sent, &content[sent..]).await;
    let record = bench.commit(id, content.len()).await.unwrap();
    bench.restart().await;
    assert_eq!(bench.commit(id, content.len()).await.unwrap(), record);
    bench.expect_content(id, &content).await;
    bench.vault().settle().await.unwrap();
    assert_eq!(bench.vault().verify().await.unwrap().findings, vec![]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_must_begin_where_the_server_is_and_what_it_has_is_passed_over() {
    let bench = Bench::new().await;
    let content = content(100_000);
    let id = bench.begin().await;
    bench.send(id, 0, &content[..60_000]).await;
    let beyond = bench.vault().write_upload(&bench.tenant, &id, 60_001).await;
    let error = beyond.unwrap_err();
    assert_eq!(error.reason, "UPLOAD_OFFSET");
    let offsets = vec![
        ("received_offset", "60000".to_owned()),
        ("durable_offset", "60000".to_owned()),
    ];
    assert_eq!(error.details.to_vec(), offsets);
    bench.send(id, 0, &content[..10_000]).await;
    bench.send(id, 30_000, &content[30_000..]).await;
    bench.commit(id, content.len()).await.unwrap();
    bench.expect_content(id, &content).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_writer_takes_over_and_late_bytes_of_the_first_never_land() {
    let bench = Bench::new().await;
    let content = content(300_000);
    let id = bench.begin().await;
    let mut first = bench.writer(id, 0).await;
    first
        .write(Bytes::copy_from_slice(&content[..100_000]))
        .await
        .unwrap();
    let mut second = bench.writer(id, 100_000).await;
    let ended = tokio::time::timeout(Duration::from_secs(5), first.superseded()).await;
    assert_eq!(ended.unwrap().reason, "UPLOAD_TAKEN_OVER");
    let late = first.write(Bytes::from_static(&[0xee; 100])).await;
    assert_eq!(reason(late), "UPLOAD_TAKEN_OVER");
    assert_eq!(reason(first.finish().await), "UPLOAD_TAKEN_OVER");
    second
        .write(Bytes::copy_from_slice(&content[100_000..]))
        .await
        .unwrap();
    second.finish().await.unwrap();
    bench.commit(id, content.len()).await.unwrap();
    bench.expect_content(id, &content).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_of_another_length_or_checksum_is_refused_and_the_upload_goes_on() {
    let bench = Bench::new().await;
    let content = content(100_000);
    let id = bench.begin().await;
    assert_eq!(reason(bench.commit(id, 1).await), "UPLOAD_INCOMPLETE");
    bench.send(id, 0, &content[..50_000]).await;
    assert_eq!(reason(bench.commit(id, 100_000).await), "UPLOAD_INCOMPLETE");
    bench.send(id, 50_000, &content[50_000..]).await;
    let crc = crc32c::crc32c(&content);
    let mut spec = bench.commit_spec(id, content.len());
    spec.expected_crc = Some(crc ^ 1);
    let vault = bench.vault();
    assert_eq!(reason(vault.commit_upload(spec.clone()).await), "CRC32C_MISMATCH");
    spec.expected_crc = Some(crc);
    spec.closing.duration_millis = Some(5);
    let record = vault.commit_upload(spec.clone()).await.unwrap();
    assert_eq!(record.descriptor.duration_millis, Some(5));
    spec.closing.duration_millis = Some(6);
    assert_eq!(reason(vault.commit_upload(spec).await), "UPLOAD_COMMITTED");
    let more = vault.write_upload(&bench.tenant, &id, 0).await;
    assert_eq!(reason(more), "UPLOAD_COMMITTED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_begun_upload_is_found_again_by_its_request_and_other_descriptors_are_refused() {
    let mut bench = Bench::new().await;
    let mut spec = bench.spec();
    spec.request = Some("r-1".parse().unwrap());
    spec.draft.descriptor.external_id = Some("call-1".parse().unwrap());
    let first = bench.vault().begin_upload(spec.clone()).await.unwrap();
    bench.send(first.id, 0, b"hello").await;
    for _ in 0..2 {
        let again = bench.vault().begin_upload(spec.clone()).await.unwrap();
        assert_eq!((again.id, again.durable), (first.id, 5));
        let mut other = spec.clone();
        other.keep = true;
        assert_eq!(
            reason(bench.vault().begin_upload(other).await),
            "REQUEST_ID_REUSED"
        );
        let mut rival = bench.spec();
        rival.draft.descriptor.external_id = Some("call-1".parse().unwrap());
        assert_eq!(
            reason(bench.vault().begin_upload(rival).await),
            "UPLOAD_UNDER_WAY"
        );
        bench.restart().await;
    }
    let record = bench.commit(first.id, 5).await.unwrap();
    for _ in 0..2 {
        let again = bench.vault().begin_upload(spec.clone()).await.unwrap();
        assert_eq!((again.id, again.record.as_ref()), (first.id, Some(&record)));
        // Known by the index alone when the data directory is lost.
        bench.world.crash().await;
        for file in bench.spool_files() {
            std::fs::remove_file(file).unwrap();
        }
        bench.world.open().await.unwrap();
    }
    let mut rival = bench.spec();
    rival.draft.descriptor.external_id = Some("call-1".parse().unwrap());
    assert_eq!(
        reason(bench.vault().begin_upload(rival).await),
        "EXTERNAL_ID_EXISTS"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aborted_upload_leaves_nothing_and_is_another_tenants_never() {
    let bench = Bench::new().await;
    bench.make_tenant("other").await;
    let content = content(EXTENT + 500_000);
    let id = bench.begin().await;
    bench.send(id, 0, &content).await;
    let other: TenantId = "other".parse().unwrap();
    let vault = bench.vault();
    assert_eq!(reason(vault.abort_upload(&other, &id).await), "NOT_FOUND");
    assert_eq!(reason(vault.upload(&other, &id).await), "NOT_FOUND");
    assert_eq!(reason(vault.write_upload(&other, &id, 0).await), "NOT_FOUND");
    let mut spec = bench.commit_spec(id, content.len());
    spec.tenant = other;
    assert_eq!(reason(vault.commit_upload(spec).await), "NOT_FOUND");
    assert!(vault.spooled_bytes() > 0);
    vault.abort_upload(&bench.tenant, &id).await.unwrap();
    assert_eq!(reason(vault.abort_upload(&bench.tenant, &id).await), "NOT_FOUND");
    assert_eq!(bench.spool_files(), Vec::<std::path::PathBuf>::new());
    assert_eq!(bench.in_bucket().await, (0, 0));
    assert_eq!(vault.spooled_bytes(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_commits_is_discarded_or_kept_as_incomplete_also_after_a_restart() {
    let mut bench = Bench::new().await;
    let content = content(EXTENT + 100_000);
    let discard = bench.begin().await;
    bench.send(discard, 0, &content).await;
    let mut spec = bench.spec();
    spec.keep = true;
    let keep = bench.vault().begin_upload(spec.clone()).await.unwrap().id;
    bench.send(keep, 0, &content).await;
    let empty = bench.vault().begin_upload(spec).await.unwrap().id;
    bench.world.clock.advance(limits::UPLOAD_MICROS - 1_000_000);
    bench.vault().expire_uploads().await;
    assert_eq!(bench.status(keep).await.durable, content.len() as u64);
    bench.restart().await;
    bench.world.clock.advance(2_000_000);
    bench.vault().expire_uploads().await;
    for gone in [discard, empty] {
        assert_eq!(
            reason(bench.vault().upload(&bench.tenant, &gone).await),
            "NOT_FOUND"
        );
    }
    let record = bench.status(keep).await.record.unwrap();
    assert!(record.descriptor.incomplete);
    bench.expect_content(keep, &content).await;
    assert_eq!(bench.in_bucket().await, (0, 1));
    // The answer to a repetition ends after a day.
    bench.world.clock.advance(limits::REQUEST_ID_MICROS + 1);
    bench.vault().expire_uploads().await;
    assert_eq!(
        reason(bench.vault().upload(&bench.tenant, &keep).await),
        "NOT_FOUND"
    );
    assert_eq!(bench.spool_files(), Vec::<std::path::PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_more_and_keeps_what_was_durable() {
    let mut bench = Bench::new().await;
    let content = content(400_000);
    let id = bench.begin().await;
    bench.send(id, 0, &content[..200_000]).await;
    bench.world.disk_faults.set_full(true);
    assert_eq!(
        reason(bench.vault().begin_upload(bench.spec()).await),
        "SPOOL_FULL"
    );
    let mut writer = bench.writer(id, 200_000).await;
    let refused = writer.write(Bytes::copy_from_slice(&content[200_000..])).await;
    assert_eq!(reason(refused), "SPOOL_FULL");
    assert_eq!(reason(writer.finish().await), "SPOOL_FULL");
    let status = bench.status(id).await;
    assert_eq!(status.durable, 200_000);
    bench.world.disk_faults.set_full(false);
    // Not even what was in memory is sent twice.
    let received = usize::try_from(status.received).unwrap();
    assert!(received > 200_000);
    let status = bench.send(id, received, &content[received..]).await;
    assert_eq!(status.durable, 400_000);
    bench.restart().await;
    bench.commit(id, 400_000).await.unwrap();
    bench.expect_content(id, &content).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limit_of_the_spool_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::new(dir.path(), Engine::Memory, 8).unwrap();
    world.settings.uploads.spool_bytes = 300_000;
    // Too small for whole parts in memory: everything goes to the disk.
    world.settings.memory_budget = 1 << 20;
    world.open().await.unwrap();
    let bench = Bench {
        world,
        tenant: "dev".parse().unwrap(),
        _dir: dir,
    };
    bench.make_tenant("dev").await;
    let id = bench.begin().await;
    let mut writer = bench.writer(id, 0).await;
    let error = loop {
        if let Err(error) = writer.write(Bytes::from(content(100_000))).await {
            break error;
        }
    };
    assert_eq!((error.kind, error.reason), (Kind::Exhausted, "SPOOL_FULL"));
    assert!(error.message.contains("limits.spool_bytes"), "{error}");
    assert!(bench.vault().spooled_bytes() <= 300_000);
    bench.vault().abort_upload(&bench.tenant, &id).await.unwrap();
    assert_eq!(bench.vault().spooled_bytes(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_failed_sync_put_in_doubt_must_be_sent_again() {
    let bench = Bench::new().await;
    let content = content(300_000);
    let id = bench.begin().await;
    bench.send(id, 0, &content[..100_000]).await;
    let mut writer = bench.writer(id, 100_000).await;
    writer
        .write(Bytes::copy_from_slice(&content[100_000..]))
        .await
        .unwrap();
    bench.world.disk_faults.fail_next_sync();
    bench.vault().sync_uploads_now(Sync::All).await;
    assert_eq!(reason(writer.finish().await), "UPLOAD_TAKEN_OVER");
    let status = bench.status(id).await;
    assert_eq!((status.durable, status.received), (100_000, 100_000));
    bench.send(id, 100_000, &content[100_000..]).await;
    let mut spec = bench.commit_spec(id, content.len());
    spec.expected_crc = Some(crc32c::crc32c(&content));
    bench.vault().commit_upload(spec).await.unwrap();
    bench.expect_content(id, &content).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_for_a_while_loses_nothing() {
    let mut bench = Bench::new().await;
    let content = content(2 * EXTENT + 100_000);
    let id = bench.begin().await;
    bench.world.faults.take_down();
    let mut writer = bench.writer(id, 0).await;
    for chunk in content.chunks(1 << 20) {
        writer.write(Bytes::copy_from_slice(chunk)).await.unwrap();
    }
    assert_eq!(
        reason(
            tokio::time::timeout(Duration::from_millis(300), bench.commit(id, content.len()))
                .await
                .unwrap_or_else(|_| Err(Error::new(Kind::TimedOut, "WAITING", "")))
        ),
        "WAITING"
    );
    bench.world.faults.bring_up();
    drop(writer);
    for _ in 0..200 {
        match bench.commit(id, content.len()).await {
            Ok(_) => break,
            Err(error) => assert_eq!(error.reason, "UPLOAD_COMMITTING"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    bench.restart().await;
    bench.expect_content(id, &content).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_acks_of_the_store_make_one_record() {
    let mut bench = Bench::new().await;
    let content = content(EXTENT + 70_000);
    for (operation, length) in [
        (Operation::PutPart, EXTENT + 70_000),
        (Operation::Begin, EXTENT + 70_000),
        (Operation::Complete, EXTENT + 70_000),
        (Operation::Put, 70_000),
    ] {
        let id = bench.begin().await;
        let rule = bench.world.faults.on(operation).below("blobs/").nth(1);
        let lost = rule.fail_after(Failure::Unavailable);
        bench.send(id, 0, &content[..length]).await;
        let record = match bench.commit(id, length).await {
            Ok(record) => record,
            Err(_) => bench.commit(id, length).await.unwrap(),
        };
        assert_eq!(record.id, id);
        assert_eq!(lost.fired(), 1, "{operation}");
        bench.expect_content(id, &content[..length]).await;
        bench.world.faults.clear();
    }
    bench.restart().await;
    assert_eq!(bench.vault().verify().await.unwrap().findings, vec![]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_the_object_and_the_index_is_found_by_the_repeated_commit() {
    let mut bench = Bench::new().await;
    for length in [70_000, EXTENT + 70_000] {
        let content = content(length);
        let id = bench.begin().await;
        bench.send(id, 0, &content).await;
        // The object is made, the answer is lost, and so is the way to find out.
        let faults = &bench.world.faults;
        let operation = if length < EXTENT {
            Operation::Put
        } else {
            Operation::Complete
        };
        faults
            .on(operation)
            .below("blobs/")
            .nth(1)
            .fail_after(Failure::Unavailable);
        faults
            .on(Operation::Head)
            .below("blobs/")
            .times(u64::from(crate::domain::limits::STORE_READ_TRIES))
            .fail_before(Failure::Unavailable);
        assert_eq!(reason(bench.commit(id, length).await), "STORE_UNAVAILABLE");
        bench.restart().await;
        let record = bench.commit(id, length).await.unwrap();
        assert_eq!((record.id, record.size), (id, length as u64));
        bench.expect_content(id, &content).await;
        bench.world.faults.clear();
    }
    assert_eq!(bench.in_bucket().await, (0, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_survives_the_loss_of_the_index() {
    let mut bench = Bench::new().await;
    let content = content(EXTENT + 70_000);
    let id = bench.begin().await;
    bench.send(id, 0, &content).await;
    bench.world.crash().await;
    bench.world.lose_index().await.unwrap();
    bench.world.open().await.unwrap();
    assert_eq!(bench.status(id).await.durable, content.len() as u64);
    bench.commit(id, content.len()).await.unwrap();
    bench.expect_content(id, &content).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_that_the_store_has_lost_end_the_upload() {
    let bench = Bench::new().await;
    let content = content(EXTENT + 70_000);
    let id = bench.begin().await;
    bench.send(id, 0, &content).await;
    use crate::blob::store::BlobStore;
    let bucket = bench.world.bucket().await.unwrap();
    for (key, upload, _) in bucket.uploads("").await.unwrap() {
        bench.world.vault().store.abort(&key, &upload).await.unwrap();
    }
    assert_eq!(reason(bench.commit(id, content.len()).await), "UPLOAD_GONE");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_spool_is_refused_and_never_other_data() {
    let mut bench = Bench::new().await;
    let content = content(3_000);
    let id = bench.begin().await;
    bench.send(id, 0, &content).await;
    bench.world.crash().await;
    let files = bench.spool_files();
    assert_eq!(files.len(), 2);
    let mut refused = 0;
    for file in &files {
        let whole = std::fs::read(file).unwrap();
        for at in (0..whole.len()).step_by(7) {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x04;
            std::fs::write(file, &flipped).unwrap();
            bench.world.open().await.unwrap();
            match bench.vault().upload(&bench.tenant, &id).await {
                Ok(status) => {
                    assert_eq!(status.durable, content.len() as u64, "{file:?} {at}");
                    let session = bench.vault().session(&bench.tenant, &id).await.unwrap();
                    let crc = session.state().open().crc;
                    assert_eq!(crc, crc32c::crc32c(&content), "{file:?} {at}");
                }
                Err(error) => {
                    refused += 1;
                    assert!(
                        matches!(error.kind, Kind::Corrupt | Kind::NotFound),
                        "{file:?} {at} {error:?}"
                    );
                    assert!(bench.commit(id, content.len()).await.is_err());
                }
            }
            bench.world.crash().await;
        }
        std::fs::write(file, &whole).unwrap();
    }
    assert!(refused > 100, "{refused}");
    // Somebody else's files under these names open nothing either.
    bench.world.open().await.unwrap();
    let other = bench.begin().await;
    bench.send(other, 0, &[7; 3_000]).await;
    bench.world.crash().await;
    let spool = bench.world.spool_path();
    std::fs::copy(spool.join(format!("{other}.0")), spool.join(format!("{id}.0"))).unwrap();
    bench.world.open().await.unwrap();
    let swapped = bench.vault().upload(&bench.tenant, &id).await;
    assert_eq!(reason(swapped), "INTEGRITY");
    bench.vault().abort_upload(&bench.tenant, &id).await.unwrap();
}

/// A kill between the name of a file and its content: nothing in it was promised, so nothing is damaged.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_whose_making_was_cut_short_is_no_damage() {
    let mut bench = Bench::new().await;
    let content = content(3_000);
    for torn in [0, 1, 135] {
        let id = bench.begin().await;
        bench.world.crash().await;
        let spool = bench.world.spool_path();
        std::fs::write(spool.join(format!("{id}.0")), vec![7; torn]).unwrap();
        let unborn = crate::domain::ids::RecordId::mint(Timestamp(1), &bench.world.rng).unwrap();
        let journal = spool.join(crate::spool::journal_name(&unborn));
        std::fs::write(&journal, vec![7; torn]).unwrap();
        bench.world.open().await.unwrap();
        assert!(!journal.exists());
        assert_eq!(bench.vault().upload(&bench.tenant, &id).await.unwrap().durable, 0);
        bench.send(id, 0, &content).await;
        let record = bench.commit(id, content.len()).await.unwrap();
        assert_eq!(record.size, content.len() as u64);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_data_directory_holds_nothing_that_was_said_or_sent() {
    let bench = Bench::new().await;
    let mut spec = bench.spec();
    spec.draft.descriptor.conversation_id = "conversation-of-jane".parse().unwrap();
    spec.request = Some("request-of-jane".parse().unwrap());
    let id = bench.vault().begin_upload(spec).await.unwrap().id;
    bench.send(id, 0, b"what jane said").await;
    for file in bench.spool_files() {
        let bytes = std::fs::read(&file).unwrap();
        for secret in [&b"jane"[..], b"uploader"] {
            assert!(!bytes.windows(secret.len()).any(|w| w == secret), "{file:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_calls_take_next_to_nothing_of_the_budget_and_fast_ones_give_it_back() {
    let bench = Bench::with_budget(64 << 20).await;
    let vault = bench.vault();
    let free = vault.budget().available();
    let mut writers = Vec::new();
    for _ in 0..200 {
        let id = bench.begin().await;
        let mut writer = bench.writer(id, 0).await;
        writer.write(Bytes::from(content(8_000))).await.unwrap();
        writers.push((id, writer));
    }
    // All of them: the vault's own second may be syncing one at this moment, and is waited for.
    vault.sync_uploads_now(Sync::All).await;
    assert!(free - vault.budget().available() <= 200 * 32 * 1024);
    for (id, _) in &writers {
        assert_eq!(bench.status(*id).await.durable, 8_000);
    }
    drop(writers);
    let (id, writer) = loop {
        let began = Instant::now();
        let id = bench.begin().await;
        let mut writer = bench.writer(id, 0).await;
        writer.write(Bytes::from(content(1 << 20))).await.unwrap();
        let taken = free - vault.budget().available();
        // A machine that is busy makes a slow sender of anybody: then another try.
        if began.elapsed() < Duration::from_millis(400) {
            assert!(taken >= 8 << 20, "in memory while it is fast");
            break (id, writer);
        }
    };
    let in_the_spool = async {
        while bench.status(id).await.durable < 1 << 20 || free - vault.budget().available() > 32 << 10 {
            vault.sync_uploads_now(Sync::Second).await;
        }
    };
    let patience = Duration::from_secs(60);
    let ended = tokio::time::timeout(patience, in_the_spool).await;
    ended.expect("in the spool when it is not");
    drop(writer);
}
