//! The vault as a whole, in short: what the reference model drives at length.

mod live;

use std::{path::Path, sync::Arc};

use bytes::Bytes;

use crate::{
    blob::{
        local::LocalStore,
        s3::tests::{Rig, bucket::Ways},
        store::BlobStore,
    },
    crypto::rng::SystemRng,
    domain::{
        clock::{Rng, Timestamp},
        ids::{IndexId, TenantId},
        purpose::{Channel, Purpose},
        record::{Descriptor, Party, Query, SubjectIdentifier},
        tenant::{RetentionAction, RetentionClass, TenantSettings},
    },
    index::{Index, memory::MemoryIndex},
    keys::{file::FileRoot, provider::RootProvider},
    spool::Directory,
    testing::clock::TestClock,
};

use super::*;

mod certificate;
mod damaged;
mod erasure;
mod last_write;
mod migration;
mod reblind;
mod recovery;
mod refused;
mod requests;
mod root;
mod rotation;
mod sweep;
mod waiting;

struct Bench {
    _dir: tempfile::TempDir,
    store: Arc<dyn BlobStore>,
    root: Arc<FileRoot>,
    clock: Arc<TestClock>,
    rng: Arc<dyn Rng>,
    index_id: IndexId,
}

impl Bench {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(TestClock::new(Timestamp(1_795_478_400_000_000)));
        let rng: Arc<dyn Rng> = Arc::new(SystemRng::new());
        let bucket: &Path = &dir.path().join("bucket");
        let store = LocalStore::open(bucket, Arc::clone(&clock) as _, Arc::clone(&rng))
            .await
            .unwrap();
        let store: Arc<dyn BlobStore> = Arc::new(store);
        Self::over(store, dir, clock, rng)
    }

    /// Over a bucket of somebody's.
    fn over_s3(store: impl BlobStore + 'static) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(TestClock::new(Timestamp(1_795_478_400_000_000)));
        Self::over(Arc::new(store), dir, clock, Arc::new(SystemRng::new()))
    }

    fn over(
        store: Arc<dyn BlobStore>,
        dir: tempfile::TempDir,
        clock: Arc<TestClock>,
        rng: Arc<dyn Rng>,
    ) -> Self {
        let root = FileRoot::open(&dir.path().join("root"), Arc::clone(&rng)).unwrap();
        let index_id = IndexId::mint(Timestamp(1), &*rng).unwrap();
        Self {
            store,
            root: Arc::new(root),
            clock,
            rng,
            index_id,
            _dir: dir,
        }
    }

    async fn open(&self, index: &Arc<MemoryIndex>) -> Opened {
        self.open_with(index, 256 << 20).await
    }

    async fn open_with(&self, index: &Arc<MemoryIndex>, memory_budget: u64) -> Opened {
        let root: Arc<dyn RootProvider> = Arc::clone(&self.root) as _;
        let opened = self.open_all(Arc::clone(index) as _, root, memory_budget).await;
        opened.unwrap()
    }

    async fn open_over(&self, index: Arc<dyn Index>, root: Arc<dyn RootProvider>) -> Opened {
        self.open_all(index, root, 256 << 20).await.unwrap()
    }

    async fn open_all(
        &self,
        index: Arc<dyn Index>,
        root: impl Into<Providers>,
        memory_budget: u64,
    ) -> Result<Opened, OpenError> {
        let store = Arc::clone(&self.store);
        self.open_store(store, index, root, memory_budget).await
    }

    async fn open_store(
        &self,
        store: Arc<dyn BlobStore>,
        index: Arc<dyn Index>,
        root: impl Into<Providers>,
        memory_budget: u64,
    ) -> Result<Opened, OpenError> {
        let settings = VaultSettings {
            region: "mx-central".parse().unwrap(),
            country: "MX".into(),
            node: 1,
            memory_budget,
            tenant_share_percent: crate::domain::limits::TENANT_SHARE_PERCENT,
            index_id: self.index_id,
            take_over: false,
            uploads: UploadSettings::new(Arc::new(
                Directory::open(&self._dir.path().join("spool")).unwrap(),
            )),
            recovery: None,
        };
        Vault::open(
            settings,
            store,
            index,
            root,
            Arc::clone(&self.clock) as _,
            Arc::clone(&self.rng),
        )
        .await
    }
}

fn draft(tel: &str) -> Draft {
    Draft {
        descriptor: Descriptor {
            conversation_id: "conv-1".parse().unwrap(),
            channel: Channel::Voice,
            direction: None,
            start: Timestamp(1_795_478_000_000_000),
            duration_millis: None,
            parties: vec![Party {
                tel: Some(tel.parse().unwrap()),
                ..Party::default()
            }],
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
            external_id: Some("call-1".parse().unwrap()),
            derived_from: None,
            incomplete: false,
        },
        has_media_type: false,
        has_retention_class: true,
    }
}

async fn make_tenant(vault: &Vault) -> TenantId {
    let tenant = "dev".parse().unwrap();
    vault
        .create_tenant("admin", &tenant, TenantSettings::default(), None)
        .await
        .unwrap();
    let class = RetentionClass {
        id: "standard".parse().unwrap(),
        minimum_days: 0,
        maximum_days: Some(30),
        action: RetentionAction::Shred,
        jurisdiction: None,
        legal_ground: None,
        effective: Timestamp(0),
        created: Timestamp(0),
    };
    vault
        .create_retention_class("admin", &tenant, class, None)
        .await
        .unwrap();
    tenant
}

fn spec(request: &str) -> PutSpec {
    PutSpec {
        tenant: "dev".parse().unwrap(),
        actor: "uploader".into(),
        draft: draft("+525512345678"),
        request: Some(request.parse().unwrap()),
        expected_size: None,
        expected_sha256: None,
    }
}

/// Of 2 MiB, a tenant's readings have a quarter of a MiB: three segments for forty readings that all read ahead if they can.
#[tokio::test(flavor = "multi_thread")]
async fn readings_that_outnumber_the_budget_all_come_to_their_end() {
    let bench = Bench::new().await;
    let index = Arc::new(MemoryIndex::default());
    let opened = bench.open(&index).await;
    let tenant = make_tenant(&opened.vault).await;
    let content = Bytes::from(vec![7; 3 << 20]);
    let mut put = opened.vault.begin_put(spec("r-1")).await.unwrap();
    put.write(content.clone()).await.unwrap();
    let record = put.finish(Closing::default()).await.unwrap();
    opened.close().await;

    let opened = bench.open_with(&index, 2 << 20).await;
    let full = opened.vault.budget().available();
    let readings = (0..40).map(|_| {
        let (vault, tenant, content) = (Arc::clone(&opened.vault), tenant.clone(), content.clone());
        let all = ContentRange {
            offset: 0,
            limit: None,
        };
        tokio::spawn(async move {
            let reading = vault.read(&tenant, record.id, all, Purpose::ServiceProvision);
            let mut reading = reading.await.unwrap();
            let mut got = Vec::new();
            while let Some(bytes) = reading.next().await.unwrap() {
                got.extend_from_slice(&bytes);
            }
            assert!(got == content);
        })
    });
    for reading in readings.collect::<Vec<_>>() {
        reading.await.unwrap();
    }
    assert_eq!(opened.vault.budget().available(), full);
    opened.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_survives_the_loss_of_the_index() {
    survives_the_loss_of_the_index(Bench::new().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_in_s3_survives_the_loss_of_the_index() {
    for versions in [false, true] {
        let ways = Ways {
            versions,
            ..Ways::default()
        };
        let Rig {
            store,
            bucket,
            keep: _keep,
        } = Rig::new(ways).await;
        survives_the_loss_of_the_index(Bench::over_s3(store)).await;
        assert_eq!(bucket.uploads_under_way(), 0);
        assert_eq!(bucket.removed_beyond_the_policy(), Vec::<String>::new());
        let blobs = bucket.kept();
        assert_eq!(blobs.keys().filter(|name| name.starts_with("blobs/")).count(), 1);
    }
}

async fn survives_the_loss_of_the_index(bench: Bench) {
    let index = Arc::new(MemoryIndex::default());
    let opened = bench.open(&index).await;
    let vault = &opened.vault;
    let tenant = make_tenant(vault).await;
    let content: Vec<u8> = (0..20_000_000u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let mut put = vault.begin_put(spec("r-1")).await.unwrap();
    for chunk in content.chunks(300_000) {
        put.write(Bytes::copy_from_slice(chunk)).await.unwrap();
    }
    let record = put.finish(Closing::default()).await.unwrap();
    assert_eq!(record.size, 20_000_000);
    opened.close().await;

    for index in [index, Arc::new(MemoryIndex::default())] {
        let opened = bench.open(&index).await;
        let vault = &opened.vault;
        for (offset, limit) in [
            (0, None),
            (8_386_519, Some(3)),
            (12_345_678, Some(1_000_000)),
            (19_999_999, None),
        ] {
            let range = ContentRange { offset, limit };
            let mut reading = vault
                .read(&tenant, record.id, range, Purpose::ServiceProvision)
                .await
                .unwrap();
            let mut got = Vec::new();
            while let Some(bytes) = reading.next().await.unwrap() {
                got.extend_from_slice(&bytes);
            }
            let end = limit.map_or(content.len(), |l| (offset + l) as usize);
            assert!(got == content[offset as usize..end], "{offset} {limit:?}");
        }
        let query = Query {
            subject: Some(SubjectIdentifier::Tel("+525512345678".parse().unwrap())),
            ..Query::default()
        };
        let page = vault
            .list(
                &tenant,
                &query,
                Order::NewestFirst,
                10,
                None,
                Purpose::CustomerCare,
            )
            .await
            .unwrap();
        assert_eq!(page.records, vec![record.clone()]);
        let report = vault.verify().await.unwrap();
        assert_eq!(report.findings, vec![]);
        assert_eq!((report.records, report.blobs), (1, 1));
        opened.close().await;
    }
}
