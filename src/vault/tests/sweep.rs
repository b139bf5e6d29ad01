//! What was erased becomes final: no old copy, with the keys that are left, opens it. Whatever dies in between.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use async_trait::async_trait;

use crate::{
    domain::{
        erasure::{ErasureState, Target},
        ids::RecordId,
    },
    index::{Change, IndexError, Key, LeafReceipt, LogId, QueuedLeaf, Row, Scan},
    keys::{
        KeyError,
        provider::{EpochLabel, ProviderError, RootProvider},
    },
    testing::{
        faulty::{Failure, Operation},
        world::{Engine, World},
    },
};

use super::{
    erasure::{erase, message_spec, purged, record_call},
    rotation::{ended, read},
    *,
};

pub(super) async fn sweep(vault: &Vault) -> KeyOperation {
    let begun = vault.run_sweep("keys", None).await.unwrap();
    ended(vault, &begun).await
}

pub(super) async fn erased(vault: &Arc<Vault>, target: Target) -> Erasure {
    let erasure = vault.request_erasure(erase(target)).await.unwrap();
    assert_eq!(erasure.state, ErasureState::Effective);
    erasure
}

pub(super) async fn is_final(vault: &Vault, erasure: &Erasure) -> bool {
    let now = vault.erasure(&erasure.tenant, &erasure.id).await.unwrap();
    assert_eq!(now.state == ErasureState::Final, now.traces_final.is_some());
    now.content_final.is_some() && now.traces_final.is_some()
}

/// Why an operation does not get on, as soon as it says so.
pub(super) async fn stopped(vault: &Vault, operation: &KeyOperation) -> String {
    loop {
        let now = vault.key_operation(&operation.id, |_| true).await.unwrap();
        assert_eq!(now.state, OperationState::Running);
        if let Some(reason) = now.reason {
            return reason;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// What an old copy of the index has of a record, tried with the keys that are there now.
pub(super) async fn old_copy_opens(
    vault: &Vault,
    old: &MemoryIndex,
    tenant: &TenantId,
    record: RecordId,
) -> bool {
    let row = |key: Key| async move {
        let value = old.get(&key).await.unwrap()?;
        Some((key, value))
    };
    let (key, value) = row(Key::Record(tenant.clone(), record)).await.unwrap();
    let record: crate::proto::storage::RecordRow = vault.rows.open(&key, &value).unwrap();
    let (key, value) = row(Key::Tenant(tenant.clone())).await.unwrap();
    let owner: crate::proto::storage::TenantRow = vault.rows.open(&key, &value).unwrap();
    let version = Key::TenantKey(tenant.clone(), owner.current_key_version);
    let (key, value) = row(version).await.unwrap();
    let key_row: crate::proto::storage::TenantKeyRow = vault.rows.open(&key, &value).unwrap();
    let wrapped = apply::stored_tenant_key(&key_row.key.unwrap()).unwrap();
    // The way down from the root: the page of the region, as the old copy has it and as it is now.
    let (key, value) = row(Key::RegionPage(wrapped.region_page)).await.unwrap();
    let page: crate::proto::storage::PageRow = vault.rows.open(&key, &value).unwrap();
    let stored = apply::page_under(&page, page.key_version).unwrap();
    let old_state = vault
        .keys
        .check_region_page(&wrapped.region_page, &stored)
        .is_ok();
    let new_state = match vault.keys.open_version(tenant, &wrapped).await {
        Ok(()) => true,
        Err(KeyError::Punctured) => false,
        Err(error) => panic!("{error:?}"),
    };
    assert!(!record.wrapped_dek.is_empty());
    old_state || new_state
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_leaves_no_way_from_old_copies_and_every_survivor() {
    let bench = Bench::new().await;
    let index = MemoryIndex::default();
    let opened = bench.open(&Arc::new(index.clone())).await;
    let vault = &opened.vault;
    let tenant = make_tenant(vault).await;
    let (kept, gone) = (record_call(vault, 1).await, record_call(vault, 2).await);
    let specs = (0..2).map(|n| message_spec(n, None)).collect();
    let messages = vault.put_messages(&tenant, specs).await.unwrap();
    let messages: Vec<RecordId> = messages.into_iter().map(|m| m.unwrap().id).collect();
    opened.close().await;
    let old = index.snapshot();

    let opened = bench.open(&Arc::new(index.clone())).await;
    let vault = &opened.vault;
    let erasures = [
        erased(vault, Target::Records(vec![gone.id])).await,
        erased(vault, Target::Records(vec![messages[0]])).await,
    ];
    assert!(
        old_copy_opens(vault, &old, &tenant, gone.id).await,
        "EFFECTIVE is not FINAL"
    );
    assert!(!is_final(vault, &erasures[0]).await);
    purged(vault).await;
    let before = vault
        .store
        .list("blobs/", false, None, 100)
        .await
        .unwrap()
        .objects;
    let swept = sweep(vault).await;
    assert_eq!((swept.state, swept.result), (OperationState::Succeeded, Some(2)));
    let after = vault
        .store
        .list("blobs/", false, None, 100)
        .await
        .unwrap()
        .objects;
    assert_eq!(before, after, "no blob is touched");
    for erasure in &erasures {
        assert!(is_final(vault, erasure).await);
    }
    assert!(!old_copy_opens(vault, &old, &tenant, gone.id).await);
    let states: Vec<_> = vault
        .root_epochs()
        .await
        .unwrap()
        .iter()
        .map(|e| e.state)
        .collect();
    assert_eq!(states, [KeyState::Destroyed, KeyState::Enabled]);
    let versions: Vec<_> = vault
        .key_versions(&tenant)
        .await
        .unwrap()
        .iter()
        .map(|v| v.state)
        .collect();
    assert_eq!(versions, [KeyState::Destroyed, KeyState::Enabled]);
    opened.close().await;

    for (n, index) in (9..).zip([index, old, MemoryIndex::default()]) {
        let opened = bench.open(&Arc::new(index)).await;
        let vault = &opened.vault;
        assert_eq!(read(vault, kept.id).await, b"what was said in call 1");
        let body = vault
            .message(&tenant, messages[1], Purpose::ServiceProvision)
            .await;
        assert_eq!(body.unwrap().1, "message 1");
        let lost = vault
            .message(&tenant, messages[0], Purpose::ServiceProvision)
            .await;
        assert_eq!(lost.unwrap_err().kind, Kind::NotFound);
        for erasure in &erasures {
            assert!(is_final(vault, erasure).await);
        }
        let operation = vault.key_operation(&swept.id, |_| true).await.unwrap();
        assert_eq!(operation.state, OperationState::Succeeded);
        assert_eq!(vault.verify().await.unwrap().findings, vec![]);
        // And on it goes.
        let next = record_call(vault, n).await;
        assert_eq!(
            read(vault, next.id).await,
            format!("what was said in call {n}").as_bytes()
        );
        let erasure = erased(vault, Target::Records(vec![next.id])).await;
        assert_eq!(sweep(vault).await.state, OperationState::Succeeded);
        assert!(is_final(vault, &erasure).await);
        assert_eq!(vault.verify().await.unwrap().findings, vec![]);
        opened.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_is_final_after_a_sweep_and_its_neighbours_keys_are_not_touched() {
    let bench = Bench::new().await;
    let index = MemoryIndex::default();
    let opened = bench.open(&Arc::new(index.clone())).await;
    let vault = &opened.vault;
    let tenant = make_tenant(vault).await;
    let other: TenantId = "acme".parse().unwrap();
    let made = vault.create_tenant("admin", &other, TenantSettings::default(), None);
    made.await.unwrap();
    let record = record_call(vault, 1).await;
    opened.close().await;
    let old = index.snapshot();
    let opened = bench.open(&Arc::new(index.clone())).await;
    let vault = &opened.vault;
    let erasure = erased(vault, Target::Tenant).await;
    assert_eq!(sweep(vault).await.state, OperationState::Succeeded);
    let now = vault.erasure(&tenant, &erasure.id).await.unwrap();
    assert_eq!(now.state, ErasureState::Final);
    assert!(now.content_final.is_some() && now.traces_final.is_some());
    assert!(!old_copy_opens(vault, &old, &tenant, record.id).await);
    let versions = vault.key_versions(&other).await.unwrap();
    assert_eq!(versions.len(), 1, "nothing of it was shredded");
    opened.close().await;
    for index in [index, MemoryIndex::default()] {
        let opened = bench.open(&Arc::new(index)).await;
        let vault = &opened.vault;
        assert_eq!(
            vault.erasure(&tenant, &erasure.id).await.unwrap().state,
            ErasureState::Final
        );
        assert!(vault.tenant(&other).await.is_ok());
        assert_eq!(vault.verify().await.unwrap().findings, vec![]);
        opened.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_that_were_cut_short_leave_no_key_behind() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::new(dir.path(), Engine::Memory, 31).unwrap();
    world.open().await.unwrap();
    let tenant = make_tenant(world.vault()).await;
    let record = record_call(world.vault(), 1).await;
    // Two attempts take slots of the region's page, and never come to anything.
    world
        .faults
        .on(Operation::Put)
        .below("payloads/")
        .times(u64::MAX)
        .fail_before(Failure::Denied);
    let begun = world
        .vault()
        .rotate_tenant_key("keys", &tenant, None)
        .await
        .unwrap();
    while world
        .vault()
        .key_operation(&begun.id, |_| true)
        .await
        .unwrap()
        .reason
        .is_none()
    {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    world.faults.clear();
    world.crash().await;
    world.open().await.unwrap();
    let vault = world.vault();
    ended(vault, &begun).await;
    sweep(vault).await;
    let mut live = 0;
    for row in vault.all_rows(crate::index::Range::RegionPages).await.unwrap() {
        let Key::RegionPage(page) = row.key else { continue };
        let message: crate::proto::storage::PageRow = vault.rows.open(&row.key, &row.value).unwrap();
        let stored = apply::page_under(&message, vault.keys.current_epoch()).unwrap();
        let slots = vault.keys.live_region_slots(&page, &stored).unwrap();
        let unused = vault.first_unused().await.unwrap();
        let unused = unused
            .filter(|(open, _)| *open == page)
            .map_or(4_096, |(_, next)| next);
        live += slots.iter().filter(|slot| **slot < unused).count();
    }
    assert_eq!(live, 1, "the current version of the one tenant");
    assert_eq!(read(vault, record.id).await, b"what was said in call 1");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_whose_new_state_cannot_be_read_back_destroys_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::new(dir.path(), Engine::Memory, 32).unwrap();
    world.open().await.unwrap();
    make_tenant(world.vault()).await;
    let (kept, gone) = (
        record_call(world.vault(), 1).await,
        record_call(world.vault(), 2).await,
    );
    let erasure = erased(world.vault(), Target::Records(vec![gone.id])).await;
    // What was there before is read before; what the sweep writes comes back changed.
    world.vault().secure_key_state().await.unwrap();
    world
        .faults
        .on(Operation::Get)
        .below("payloads/")
        .times(u64::MAX)
        .flip(40);
    let begun = world.vault().run_sweep("keys", None).await.unwrap();
    let reason = loop {
        let now = world.vault().key_operation(&begun.id, |_| true).await.unwrap();
        assert_eq!(now.state, OperationState::Running);
        if let Some(reason) = now.reason {
            break reason;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    assert_eq!(reason, "NOT_READ_BACK");
    assert!(!is_final(world.vault(), &erasure).await);
    let first = world.root_path().join("epoch-00000001.key");
    assert!(first.exists());
    assert_eq!(read(world.vault(), kept.id).await, b"what was said in call 1");
    world.crash().await;
    world.faults.clear();
    world.open().await.unwrap();
    assert_eq!(
        ended(world.vault(), &begun).await.state,
        OperationState::Succeeded
    );
    assert!(is_final(world.vault(), &erasure).await);
    assert!(!first.exists());
    assert_eq!(read(world.vault(), kept.id).await, b"what was said in call 1");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_asked_for_while_one_works_comes_after_it() {
    let bench = Bench::new().await;
    let opened = bench.open(&Arc::new(MemoryIndex::default())).await;
    let vault = &opened.vault;
    make_tenant(vault).await;
    let records = [record_call(vault, 1).await, record_call(vault, 2).await];
    erased(vault, Target::Records(vec![records[0].id])).await;
    let gate = vault.keys.region_gate().await;
    let first = vault.run_sweep("keys", None).await.unwrap();
    // It waits at the region's gate, with its plan made.
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(gate);
    let late = erased(vault, Target::Records(vec![records[1].id])).await;
    let second = vault.run_sweep("keys", None).await.unwrap();
    ended(vault, &first).await;
    ended(vault, &second).await;
    assert!(is_final(vault, &late).await);
    opened.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn puts_reads_and_erasures_go_on_while_the_region_is_swept() {
    let bench = Bench::new().await;
    let index = Arc::new(MemoryIndex::default());
    let opened = bench.open(&index).await;
    let vault = Arc::clone(&opened.vault);
    make_tenant(&vault).await;
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let sweeping = tokio::spawn({
        let (vault, stop) = (Arc::clone(&vault), Arc::clone(&stop));
        async move {
            let mut swept = 0;
            while !stop.load(Ordering::Acquire) {
                assert_eq!(sweep(&vault).await.state, OperationState::Succeeded);
                let n = swept;
                let id = format!("t-{n}").parse().unwrap();
                let made = vault.create_tenant("admin", &id, TenantSettings::default(), None);
                made.await.unwrap();
                swept += 1;
            }
            swept
        }
    });
    let mut kept = Vec::new();
    let mut gone = Vec::new();
    for n in 0..30 {
        let record = record_call(&vault, n).await;
        if n % 3 == 0 {
            erased(&vault, Target::Records(vec![record.id])).await;
            gone.push(record.id);
        } else {
            kept.push((n, record.id));
        }
        let (n, some) = kept[kept.len() / 2..].first().copied().unwrap_or((n, record.id));
        if !gone.contains(&some) {
            assert_eq!(
                read(&vault, some).await,
                format!("what was said in call {n}").as_bytes()
            );
        }
    }
    stop.store(true, Ordering::Release);
    let swept = sweeping.await.unwrap();
    assert!(swept > 1);
    drop(vault);
    opened.close().await;
    for index in [index, Arc::new(MemoryIndex::default())] {
        let opened = bench.open(&index).await;
        let tenant = "dev".parse().unwrap();
        for (n, id) in &kept {
            assert_eq!(
                read(&opened.vault, *id).await,
                format!("what was said in call {n}").as_bytes()
            );
        }
        for id in &gone {
            let found = opened
                .vault
                .record(&tenant, &Name::Id(*id), Purpose::LegalCompliance)
                .await;
            assert_eq!(found.unwrap_err().kind, Kind::NotFound);
        }
        // Tenants that were made while keys were punctured have theirs.
        for n in 0..swept {
            let id = format!("t-{n}").parse().unwrap();
            opened.vault.keys.tenant(&id).await.unwrap();
        }
        assert_eq!(opened.vault.verify().await.unwrap().findings, vec![]);
        opened.close().await;
    }
}

/// A root that says that it destroys, and keeps all.
#[derive(Debug)]
struct Liar(Arc<FileRoot>);

#[async_trait]
impl RootProvider for Liar {
    fn kind(&self) -> &'static str {
        "file"
    }

    async fn create_epoch(
        &self,
        label: EpochLabel,
    ) -> Result<crate::keys::provider::EpochGrant, ProviderError> {
        self.0.create_epoch(label).await
    }

    async fn unwrap(
        &self,
        label: EpochLabel,
        grant: &crate::keys::provider::EpochGrant,
    ) -> Result<crate::crypto::secret::EpochKey, ProviderError> {
        self.0.unwrap(label, grant).await
    }

    async fn destroy(
        &self,
        _: EpochLabel,
        _: &str,
    ) -> Result<crate::keys::provider::Destruction, ProviderError> {
        Ok(crate::keys::provider::Destruction::Destroyed)
    }

    async fn destruction(
        &self,
        _: EpochLabel,
        _: &str,
    ) -> Result<Option<crate::keys::provider::Destruction>, ProviderError> {
        Ok(Some(crate::keys::provider::Destruction::Destroyed))
    }

    async fn anchor(&self) -> Result<Option<crate::keys::provider::Anchor>, ProviderError> {
        self.0.anchor().await
    }

    async fn advance(&self, anchor: &crate::keys::provider::Anchor) -> Result<(), ProviderError> {
        self.0.advance(anchor).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_lies_makes_nothing_final() {
    let bench = Bench::new().await;
    let index = Arc::new(MemoryIndex::default());
    let liar: Arc<dyn RootProvider> = Arc::new(Liar(Arc::clone(&bench.root)));
    let opened = bench.open_over(Arc::clone(&index) as _, liar).await;
    let vault = &opened.vault;
    make_tenant(vault).await;
    let gone = record_call(vault, 1).await;
    let erasure = erased(vault, Target::Records(vec![gone.id])).await;
    let begun = vault.run_sweep("keys", None).await.unwrap();
    let reason = loop {
        let now = vault.key_operation(&begun.id, |_| true).await.unwrap();
        if let Some(reason) = now.reason {
            break reason;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    assert_eq!(reason, "EPOCH_STILL_OPENS");
    assert!(!is_final(vault, &erasure).await);
    opened.close().await;
}

/// An index that dies after so many changes: whoever asks for another one waits for ever.
#[derive(Clone, Debug)]
pub(super) struct Mortal {
    pub(super) index: MemoryIndex,
    pub(super) left: Arc<AtomicI64>,
}

#[async_trait]
impl Index for Mortal {
    async fn commit(&self, change: Change) -> Result<Vec<LeafReceipt>, IndexError> {
        if self.left.fetch_sub(1, Ordering::AcqRel) <= 0 {
            return std::future::pending().await;
        }
        self.index.commit(change).await
    }

    async fn get(&self, key: &Key) -> Result<Option<Vec<u8>>, IndexError> {
        self.index.get(key).await
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Vec<u8>>>, IndexError> {
        self.index.get_many(keys).await
    }

    async fn scan(&self, scan: &Scan) -> Result<Vec<Row>, IndexError> {
        self.index.scan(scan).await
    }

    async fn queued(&self, log: LogId, from: u64, limit: usize) -> Result<Vec<QueuedLeaf>, IndexError> {
        self.index.queued(log, from, limit).await
    }

    async fn shipped(&self, log: LogId, position: u64) -> Result<(), IndexError> {
        self.index.shipped(log, position).await
    }
}

/// Ends a moment after somebody asked a dead index.
pub(super) async fn dead(left: &AtomicI64) {
    while left.load(Ordering::Acquire) >= 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
}

/// Erases a record, a tenant, and sweeps; the process dies before the n-th change of the index, for every n. Then another
/// process takes over, with the index or without it.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_change_is_the_last_one_all_of_it_goes_on_and_no_survivor_is_lost() {
    let mut deaths = 0;
    for n in 0.. {
        let bench = Bench::new().await;
        let index = MemoryIndex::default();
        let opened = bench.open(&Arc::new(index.clone())).await;
        let vault = &opened.vault;
        let tenant = make_tenant(vault).await;
        let doomed: TenantId = "acme".parse().unwrap();
        let made = vault.create_tenant("admin", &doomed, TenantSettings::default(), None);
        made.await.unwrap();
        let (kept, gone) = (record_call(vault, 1).await, record_call(vault, 2).await);
        opened.close().await;

        let left = Arc::new(AtomicI64::new(i64::MAX));
        let mortal = Mortal {
            index: index.clone(),
            left: Arc::clone(&left),
        };
        let root: Arc<dyn RootProvider> = Arc::clone(&bench.root) as _;
        let opened = bench.open_over(Arc::new(mortal), root).await;
        let vault = Arc::clone(&opened.vault);
        left.store(n, Ordering::Release);
        let asked = Arc::new(std::sync::Mutex::new(None));
        let story = async {
            let first = vault
                .request_erasure(erase(Target::Records(vec![gone.id])))
                .await?;
            *asked.lock().unwrap() = Some(first.id);
            let whole = ErasureSpec {
                tenant: doomed.clone(),
                ..erase(Target::Tenant)
            };
            vault.request_erasure(whole).await?;
            let begun = vault.run_sweep("keys", None).await?;
            ended(&vault, &begun).await;
            Ok::<_, Error>(())
        };
        tokio::select! {
            _ = story => {}
            () = dead(&left) => {}
        }
        let died = left.load(Ordering::Acquire) < 0;
        deaths += u32::from(died);
        let asked = *asked.lock().unwrap();
        drop(vault);
        opened.crash().await;

        for index in [index, MemoryIndex::default()] {
            let opened = bench.open(&Arc::new(index)).await;
            let vault = &opened.vault;
            vault.carry_out_due().await.unwrap();
            assert_eq!(read(vault, kept.id).await, b"what was said in call 1", "{n}");
            let running = vault.key_operations(None, 100, |_| true).await.unwrap().0;
            for operation in &running {
                assert_eq!(
                    ended(vault, operation).await.state,
                    OperationState::Succeeded,
                    "{n}"
                );
            }
            let found = vault
                .record(&tenant, &Name::Id(gone.id), Purpose::LegalCompliance)
                .await;
            // Acknowledged: gone for good. Not even logged: still there. Nothing in between.
            let erasures = vault.erasures(&tenant, None, 10).await.unwrap().0;
            match (asked, erasures.first()) {
                (Some(id), Some(erasure)) => {
                    assert_eq!(erasure.id, id);
                    assert_eq!(found.unwrap_err().kind, Kind::NotFound, "{n}");
                    assert!(erasure.state >= ErasureState::Effective, "{n} {erasure:?}");
                }
                (None, Some(erasure)) => {
                    assert_eq!(found.unwrap_err().kind, Kind::NotFound, "{n}");
                    assert!(erasure.state >= ErasureState::Effective, "{n} {erasure:?}");
                }
                (None, None) => assert_eq!(read(vault, gone.id).await, b"what was said in call 2", "{n}"),
                (Some(_), None) => panic!("{n}: an acknowledged erasure is forgotten"),
            }
            assert_eq!(vault.verify().await.unwrap().findings, vec![], "{n}");
            // All that is left to do can be done.
            let swept = sweep(vault).await;
            assert_eq!(swept.state, OperationState::Succeeded, "{n}");
            assert_eq!(read(vault, kept.id).await, b"what was said in call 1", "{n}");
            if let Some(erasure) = erasures.first() {
                assert!(is_final(vault, erasure).await, "{n}");
            }
            assert_eq!(vault.verify().await.unwrap().findings, vec![], "{n}");
            opened.close().await;
        }
        if !died {
            break;
        }
    }
    assert!(deaths > 15, "{deaths}");
}
