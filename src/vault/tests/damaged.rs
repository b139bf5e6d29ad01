//! Something that a sweep needs is damaged: nothing is destroyed, everything is served as before, and what is mended lets it go on.

use std::{
    path::Path,
    sync::atomic::{AtomicU8, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::Mutex;

use crate::{
    blob::store::{ByteRange, ObjectKey},
    domain::{erasure::Target, ids::OperationId, record::Record},
    index::{Change, Key, Range, Row},
    keys::provider::{Anchor, Destruction, EpochGrant, EpochLabel, ProviderError, RootProvider},
    proto::storage::{PageRow, TenantRow},
    testing::world::{Engine, World},
};

use super::{
    erasure::{erase, record_call},
    rotation::{ended, read},
    sweep::{erased, is_final, stopped, sweep},
    *,
};

/// A world with logs of two processes and two tenants, whose keys have turned; and one record of the first that is erased.
async fn world(dir: &Path, seed: u64) -> (World, Record, Erasure) {
    let mut world = World::new(dir, Engine::Memory, seed).unwrap();
    world.open().await.unwrap();
    make_tenant(world.vault()).await;
    let other: TenantId = "acme".parse().unwrap();
    let settings = TenantSettings::default();
    let made = world.vault().create_tenant("admin", &other, settings, None);
    made.await.unwrap();
    let begun = world.vault().rotate_tenant_key("keys", &other, None);
    let begun = begun.await.unwrap();
    ended(world.vault(), &begun).await;
    let (kept, gone) = (
        record_call(world.vault(), 1).await,
        record_call(world.vault(), 2).await,
    );
    world.close().await;
    world.open().await.unwrap();
    let erasure = erased(world.vault(), Target::Records(vec![gone.id])).await;
    (world, kept, erasure)
}

/// Nothing was destroyed, nothing is final, and everything is served.
async fn untouched(world: &World, kept: &Record, erasure: &Erasure) {
    assert!(world.root_path().join("epoch-00000001.key").exists());
    assert!(!is_final(world.vault(), erasure).await);
    assert_eq!(read(world.vault(), kept.id).await, b"what was said in call 1");
    record_call(world.vault(), 77).await;
}

/// Names of objects below a prefix, the oldest log's first.
async fn named(world: &World, prefix: &str) -> Vec<ObjectKey> {
    let bucket = world.bucket().await.unwrap();
    let page = bucket.list(prefix, false, None, 1_000).await.unwrap();
    page.objects.into_iter().map(|object| object.key).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_in_the_bucket_stops_a_sweep_before_it_destroys_until_it_is_put_back() {
    // Of the log of an earlier process, of another tenant: nothing that this sweep wrote.
    for prefix in [
        "log/state/1/1/checkpoint",
        "log/state/1/1/tile/entries/",
        "log/state/1/1/tile/0/",
        "payloads/",
        "vault/manifest",
    ] {
        for missing in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let (mut world, kept, erasure) = world(dir.path(), 71).await;
            let bucket = world.bucket().await.unwrap();
            let mut whole = Vec::new();
            for key in named(&world, prefix).await {
                whole.push((
                    key.clone(),
                    bucket.get(&key, ByteRange::Full).await.unwrap().bytes,
                ));
            }
            assert!(!whole.is_empty(), "{prefix}");
            for (key, bytes) in &whole {
                if missing {
                    bucket.delete(key).await.unwrap();
                } else {
                    let mut flipped = bytes.to_vec();
                    flipped[bytes.len() / 2] ^= 1;
                    bucket.overwrite(key, flipped.into()).await.unwrap();
                }
            }
            let begun = world.vault().run_sweep("keys", None).await.unwrap();
            let reason = stopped(world.vault(), &begun).await;
            assert_eq!(reason, "KEY_STATE_DAMAGED", "{prefix} {missing}");
            let told = world.vault().secure_key_state().await.unwrap_err();
            assert!(told.message.contains("put the object back"), "{told:?}");
            let named = told.message.split_once("object=").unwrap().1;
            assert!(
                named.starts_with(prefix) || prefix.starts_with(named),
                "{prefix}: {told:?}"
            );
            untouched(&world, &kept, &erasure).await;
            for (key, bytes) in whole {
                bucket.overwrite(&key, bytes).await.unwrap();
            }
            world.crash().await;
            world.open().await.unwrap();
            assert_eq!(
                ended(world.vault(), &begun).await.state,
                OperationState::Succeeded,
                "{prefix} {missing}"
            );
            assert!(is_final(world.vault(), &erasure).await);
            assert_eq!(world.vault().verify().await.unwrap().findings, vec![]);
            world.close().await;
        }
    }
}

async fn rewrite(vault: &Vault, key: &Key, value: Vec<u8>) {
    let change = Change {
        put: vec![Row {
            key: key.clone(),
            value,
        }],
        ..Change::default()
    };
    vault.index.commit(change).await.unwrap();
}

/// A row of a tenant's key material as it is, and with something in it that does not open.
async fn broken_row(vault: &Vault, tenant: &TenantId, of_page: bool) -> (Key, Vec<u8>, Vec<u8>) {
    let flipped = |sealed: &Bytes| {
        let mut sealed = sealed.to_vec();
        sealed[20] ^= 1;
        Bytes::from(sealed)
    };
    if !of_page {
        let key = Key::Tenant(tenant.clone());
        let value = vault.index.get(&key).await.unwrap().unwrap();
        let row: TenantRow = vault.rows.open(&key, &value).unwrap();
        let broken = TenantRow {
            sealed_keyring: flipped(&row.sealed_keyring),
            ..row
        };
        let broken = vault.rows.row(key.clone(), &broken).value;
        return (key, value, broken);
    }
    let pages = vault.all_rows(Range::Pages(tenant.clone())).await.unwrap();
    let Row { key, value } = pages.into_iter().next().unwrap();
    let row: PageRow = vault.rows.open(&key, &value).unwrap();
    let broken = PageRow {
        sealed_state: flipped(&row.sealed_state),
        staged: None,
        ..row
    };
    let broken = vault.rows.row(key.clone(), &broken).value;
    (key, value, broken)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_keyring_or_page_of_one_tenant_stops_a_sweep_and_is_named() {
    for of_page in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let (mut world, kept, erasure) = world(dir.path(), 72).await;
        let vault = Arc::clone(world.vault());
        let tenant = erasure.tenant.clone();
        let (key, whole, broken) = broken_row(&vault, &tenant, of_page).await;
        rewrite(&vault, &key, broken).await;
        vault.keys.forget_tenant(&tenant);
        let begun = vault.run_sweep("keys", None).await.unwrap();
        let reason = stopped(&vault, &begun).await;
        assert_eq!(reason, if of_page { "PAGE_DAMAGED" } else { "INTEGRITY" });
        assert!(world.root_path().join("epoch-00000001.key").exists());
        assert!(!is_final(&vault, &erasure).await);
        if let Key::Page(_, page) = &key {
            let id = OperationId::mint(vault.clock.now(), &*vault.rng).unwrap();
            let operation = KeyOperation::sample(id, &tenant);
            let told = vault.turn_tenant_key(&operation, &tenant, None).await;
            let told = told.unwrap_err().message;
            assert!(
                told.contains(&format!("tenant={tenant} page={page}")) && told.contains("rebuild-index"),
                "{told}"
            );
        }
        rewrite(&vault, &key, whole).await;
        drop(vault);
        world.crash().await;
        world.open().await.unwrap();
        assert_eq!(
            ended(world.vault(), &begun).await.state,
            OperationState::Succeeded
        );
        assert!(is_final(world.vault(), &erasure).await);
        assert_eq!(read(world.vault(), kept.id).await, b"what was said in call 1");
        assert_eq!(world.vault().verify().await.unwrap().findings, vec![]);
        world.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_whose_page_is_lost_blocks_the_region_until_it_is_erased() {
    let dir = tempfile::tempdir().unwrap();
    let (mut world, _, erasure) = world(dir.path(), 73).await;
    let vault = Arc::clone(world.vault());
    let other: TenantId = "acme".parse().unwrap();
    // Of the first tenant something is erased, and its page is damaged beyond repair; of the other all is well.
    let (key, _, broken) = broken_row(&vault, &erasure.tenant, true).await;
    rewrite(&vault, &key, broken).await;
    vault.keys.forget_tenant(&erasure.tenant);
    let second = ErasureSpec {
        tenant: other.clone(),
        ..erase(Target::Tenant)
    };
    let second = vault.request_erasure(second).await.unwrap();
    let begun = vault.run_sweep("keys", None).await.unwrap();
    assert_eq!(stopped(&vault, &begun).await, "PAGE_DAMAGED");
    let told = vault.key_operation(&begun.id, |_| true).await.unwrap().detail;
    let told = told.unwrap();
    assert!(told.contains("tenant=dev page="), "{told}");
    let now = vault.erasure(&other, &second.id).await.unwrap();
    assert_eq!(now.content_final, None, "the region waits");
    let whole = vault.request_erasure(erase(Target::Tenant)).await.unwrap();
    drop(vault);
    world.crash().await;
    world.open().await.unwrap();
    assert_eq!(
        ended(world.vault(), &begun).await.state,
        OperationState::Succeeded
    );
    for erasure in [&second, &whole, &erasure] {
        let now = world.vault().erasure(&erasure.tenant, &erasure.id).await.unwrap();
        assert!(now.content_final.is_some(), "{now:?}");
    }
    world.close().await;
}

/// A root whose anchor is lost or damaged as soon as somebody says so, and that makes epochs when it may.
#[derive(Debug)]
struct Adrift {
    root: Arc<FileRoot>,
    answer: Arc<AtomicU8>,
    may_make: Arc<Mutex<()>>,
    asked_to_make: Arc<AtomicU8>,
}

impl Adrift {
    fn over(bench: &Bench) -> Self {
        Self {
            root: Arc::clone(&bench.root),
            answer: Arc::default(),
            may_make: Arc::default(),
            asked_to_make: Arc::default(),
        }
    }
}

#[async_trait]
impl RootProvider for Adrift {
    fn kind(&self) -> &'static str {
        "file"
    }

    async fn create_epoch(&self, label: EpochLabel) -> Result<EpochGrant, ProviderError> {
        self.asked_to_make.fetch_add(1, Ordering::AcqRel);
        let _may = self.may_make.lock().await;
        self.root.create_epoch(label).await
    }

    async fn unwrap(
        &self,
        label: EpochLabel,
        grant: &EpochGrant,
    ) -> Result<crate::crypto::secret::EpochKey, ProviderError> {
        self.root.unwrap(label, grant).await
    }

    async fn destroy(&self, label: EpochLabel, handle: &str) -> Result<Destruction, ProviderError> {
        self.root.destroy(label, handle).await
    }

    async fn destruction(
        &self,
        label: EpochLabel,
        handle: &str,
    ) -> Result<Option<Destruction>, ProviderError> {
        self.root.destruction(label, handle).await
    }

    async fn anchor(&self) -> Result<Option<Anchor>, ProviderError> {
        let anchor = self.root.anchor().await?;
        match self.answer.load(Ordering::Acquire) {
            0 => Ok(anchor),
            1 => Ok(None),
            2 => Err(ProviderError::Corrupt),
            // Of a log that never went so far.
            _ => Ok(anchor.map(|mut anchor| {
                anchor.heads.iter_mut().for_each(|head| head.size += 1_000);
                anchor
            })),
        }
    }

    async fn advance(&self, anchor: &Anchor) -> Result<(), ProviderError> {
        self.root.advance(anchor).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_key_is_destroyed_while_the_anchor_is_lost_or_damaged() {
    for answer in [1, 2, 3] {
        let bench = Bench::new().await;
        let index = Arc::new(MemoryIndex::default());
        let adrift = Arc::new(Adrift::over(&bench));
        let wrong = Arc::clone(&adrift.answer);
        let root: Arc<dyn RootProvider> = Arc::clone(&adrift) as _;
        let opened = bench.open_over(Arc::clone(&index) as _, root).await;
        let vault = &opened.vault;
        make_tenant(vault).await;
        let (kept, gone) = (record_call(vault, 1).await, record_call(vault, 2).await);
        let erasure = erased(vault, Target::Records(vec![gone.id])).await;
        wrong.store(answer, Ordering::Release);
        let begun = vault.run_sweep("keys", None).await.unwrap();
        assert_eq!(stopped(vault, &begun).await, "ANCHOR_DAMAGED", "{answer}");
        assert!(!is_final(vault, &erasure).await);
        assert_eq!(read(vault, kept.id).await, b"what was said in call 1");
        let epochs = vault.root_epochs().await.unwrap();
        assert!(epochs.iter().all(|epoch| epoch.state != KeyState::Destroyed));
        wrong.store(0, Ordering::Release);
        opened.crash().await;
        let opened = bench.open_over(index, adrift).await;
        let vault = &opened.vault;
        assert_eq!(ended(vault, &begun).await.state, OperationState::Succeeded);
        assert!(is_final(vault, &erasure).await);
        opened.close().await;
    }
}

/// A page that is begun and loses a slot while the sweep is on its way is in none of its objects, and needs none.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_is_begun_and_punctured_during_a_sweep_does_not_stop_it() {
    let bench = Bench::new().await;
    let adrift = Arc::new(Adrift::over(&bench));
    let root: Arc<dyn RootProvider> = Arc::clone(&adrift) as _;
    let opened = bench.open_over(Arc::new(MemoryIndex::default()), root).await;
    let vault = &opened.vault;
    let tenant = make_tenant(vault).await;
    let (kept, gone) = (record_call(vault, 1).await, record_call(vault, 2).await);
    let first = erased(vault, Target::Records(vec![gone.id])).await;
    let before = adrift.asked_to_make.load(Ordering::Acquire);
    let gate = adrift.may_make.lock().await;
    let begun = vault.run_sweep("keys", None).await.unwrap();
    // The tenant's key has turned; the root's provider waits.
    while adrift.asked_to_make.load(Ordering::Acquire) == before {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(vault.key_versions(&tenant).await.unwrap().len(), 2);
    let class = RetentionClass {
        id: "special".parse().unwrap(),
        minimum_days: 0,
        maximum_days: Some(30),
        action: RetentionAction::Shred,
        jurisdiction: None,
        legal_ground: None,
        effective: Timestamp(0),
        created: Timestamp(0),
    };
    let made = vault.create_retention_class("admin", &tenant, class, None);
    made.await.unwrap();
    let mut draft = draft("+525512340099");
    draft.descriptor.external_id = Some("call-99".parse().unwrap());
    draft.descriptor.retention_class = "special".parse().unwrap();
    let mut put = vault
        .begin_put(PutSpec {
            draft,
            ..spec("r-99")
        })
        .await
        .unwrap();
    put.write(Bytes::from_static(b"a new page")).await.unwrap();
    let late = put.finish(Closing::default()).await.unwrap();
    let second = erased(vault, Target::Records(vec![late.id])).await;
    let mut generations = Vec::new();
    for row in vault.all_rows(Range::Pages(tenant.clone())).await.unwrap() {
        let page: PageRow = vault.rows.open(&row.key, &row.value).unwrap();
        generations.push((page.retention_class, page.generation));
    }
    assert!(
        generations.contains(&("special".to_owned(), 2)),
        "{generations:?}"
    );
    drop(gate);
    let swept = loop {
        let now = vault.key_operation(&begun.id, |_| true).await.unwrap();
        assert_eq!(now.reason, None);
        if now.state != OperationState::Running {
            break now;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    assert_eq!(swept.state, OperationState::Succeeded);
    assert!(is_final(vault, &first).await && !is_final(vault, &second).await);
    assert_eq!(sweep(vault).await.state, OperationState::Succeeded);
    assert!(is_final(vault, &second).await);
    assert_eq!(read(vault, kept.id).await, b"what was said in call 1");
    assert_eq!(vault.verify().await.unwrap().findings, vec![]);
    opened.close().await;
}
