//! Keys are rotated under records that stay where they are.

use std::time::Duration;

use crate::{
    keys::provider::{EpochLabel, RootProvider},
    testing::{
        faulty::{Failure, Operation},
        world::{Engine, World},
    },
};

use super::*;

pub(super) async fn put(
    vault: &Arc<Vault>,
    request: &str,
    content: &'static [u8],
) -> crate::domain::record::Record {
    let mut draft = draft("+525512345678");
    draft.descriptor.external_id = None;
    let spec = PutSpec {
        draft,
        ..spec(request)
    };
    let mut put = vault.begin_put(spec).await.unwrap();
    put.write(Bytes::from_static(content)).await.unwrap();
    put.finish(Closing::default()).await.unwrap()
}

pub(super) async fn read(vault: &Arc<Vault>, record: crate::domain::ids::RecordId) -> Vec<u8> {
    let all = ContentRange {
        offset: 0,
        limit: None,
    };
    let tenant = "dev".parse().unwrap();
    let mut reading = vault
        .read(&tenant, record, all, Purpose::ServiceProvision)
        .await
        .unwrap();
    let mut got = Vec::new();
    while let Some(bytes) = reading.next().await.unwrap() {
        got.extend_from_slice(&bytes);
    }
    got
}

pub(super) async fn ended(vault: &Vault, operation: &KeyOperation) -> KeyOperation {
    loop {
        let now = vault.key_operation(&operation.id, |_| true).await.unwrap();
        if now.state != OperationState::Running {
            return now;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub(super) async fn rotate(vault: &Vault) -> KeyOperation {
    let tenant = "dev".parse().unwrap();
    let begun = vault.rotate_tenant_key("keys", &tenant, None).await.unwrap();
    ended(vault, &begun).await
}

pub(super) async fn turn(vault: &Vault) -> KeyOperation {
    let begun = vault.rotate_root_epoch("keys", None).await.unwrap();
    ended(vault, &begun).await
}

async fn objects(bench: &Bench, below: &str) -> Vec<(String, u64, i64)> {
    let page = bench.store.list(below, false, None, 1_000).await.unwrap();
    let objects = page.objects.into_iter();
    objects
        .map(|o| (o.key.to_string(), o.length, o.modified_micros))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_touches_no_record_and_every_record_opens_after_it() {
    let bench = Bench::new().await;
    let index = Arc::new(MemoryIndex::default());
    let opened = bench.open(&index).await;
    let vault = &opened.vault;
    let tenant = make_tenant(vault).await;
    let before = put(vault, "r-1", b"before").await;
    let blobs = objects(&bench, "blobs/").await;
    let done = rotate(vault).await;
    assert_eq!((done.state, done.result), (OperationState::Succeeded, Some(2)));
    assert_eq!(
        (done.done, done.total),
        (2, 2),
        "the settings' page and the record's"
    );
    assert_eq!(objects(&bench, "blobs/").await, blobs);
    let versions = vault.key_versions(&tenant).await.unwrap();
    let seen: Vec<_> = versions.iter().map(|v| (v.version, v.state, v.pages)).collect();
    assert_eq!(seen, [(1, KeyState::Retired, 0), (2, KeyState::Enabled, 2)]);
    assert_eq!(read(vault, before.id).await, b"before");
    let after = put(vault, "r-2", b"after").await;
    assert_eq!(rotate(vault).await.result, Some(3));
    opened.close().await;

    for index in [index, Arc::new(MemoryIndex::default())] {
        let opened = bench.open(&index).await;
        let vault = &opened.vault;
        assert_eq!(read(vault, before.id).await, b"before");
        assert_eq!(read(vault, after.id).await, b"after");
        assert_eq!(vault.verify().await.unwrap().findings, vec![]);
        let versions = vault.key_versions(&tenant).await.unwrap();
        assert_eq!(versions.len(), 3);
        assert_eq!(versions[2].state, KeyState::Enabled);
        assert_eq!(
            vault.key_operation(&done.id, |_| true).await.unwrap().state,
            OperationState::Succeeded
        );
        opened.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_root_may_die_and_an_index_from_before_it_still_catches_up() {
    let bench = Bench::new().await;
    let index = MemoryIndex::default();
    let opened = bench.open(&Arc::new(index.clone())).await;
    make_tenant(&opened.vault).await;
    let record = put(&opened.vault, "r-1", b"before").await;
    opened.close().await;
    let old = index.snapshot();

    let opened = bench.open(&Arc::new(index.clone())).await;
    let vault = &opened.vault;
    assert_eq!(rotate(vault).await.result, Some(2));
    assert_eq!(turn(vault).await.result, Some(2));
    let epochs = vault.root_epochs().await.unwrap();
    let seen: Vec<_> = epochs.iter().map(|e| (e.epoch, e.state)).collect();
    assert_eq!(seen, [(1, KeyState::Retired), (2, KeyState::Enabled)]);
    let label = EpochLabel {
        vault: *vault.id(),
        epoch: 1,
    };
    bench.root.destroy(label, "").await.unwrap();
    assert_eq!(read(vault, record.id).await, b"before");
    let tenant = "acme".parse().unwrap();
    let made = vault.create_tenant("admin", &tenant, TenantSettings::default(), None);
    made.await.unwrap();
    opened.close().await;

    for index in [index, old, MemoryIndex::default()] {
        let opened = bench.open(&Arc::new(index)).await;
        assert_eq!(read(&opened.vault, record.id).await, b"before");
        assert!(opened.vault.tenant(&tenant).await.is_ok());
        assert_eq!(opened.vault.verify().await.unwrap().findings, vec![]);
        assert_eq!(opened.vault.root_epochs().await.unwrap().len(), 2);
        opened.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_is_destroyed_when_nothing_is_sealed_under_it() {
    let bench = Bench::new().await;
    let index = Arc::new(MemoryIndex::default());
    let opened = bench.open(&index).await;
    let vault = &opened.vault;
    let tenant = make_tenant(vault).await;
    let record = put(vault, "r-1", b"kept").await;
    let refused = vault.destroy_key_version("keys", &tenant, 1).await.unwrap_err();
    assert_eq!((refused.kind, refused.reason), (Kind::WrongState, "KEY_IN_USE"));
    let refused = vault.destroy_key_version("keys", &tenant, 7).await.unwrap_err();
    assert_eq!(refused.kind, Kind::NotFound);
    rotate(vault).await;
    for _ in 0..2 {
        let destroyed = vault.destroy_key_version("keys", &tenant, 1).await.unwrap();
        assert_eq!(destroyed.state, KeyState::Destroyed);
    }
    let refused = vault.destroy_key_version("keys", &tenant, 2).await.unwrap_err();
    assert_eq!(refused.reason, "KEY_IN_USE");
    // What the row of the version still wraps opens no more.
    let (row, _) = vault.key_row(&tenant, 1).await.unwrap();
    let wrapped = apply::stored_tenant_key(&row.key.unwrap()).unwrap();
    assert!(matches!(
        vault.keys.open_version(&tenant, &wrapped).await,
        Err(crate::keys::KeyError::Punctured)
    ));
    assert_eq!(read(vault, record.id).await, b"kept");
    opened.close().await;
    let opened = bench.open(&Arc::new(MemoryIndex::default())).await;
    let versions = opened.vault.key_versions(&tenant).await.unwrap();
    assert_eq!(versions[0].state, KeyState::Destroyed);
    assert_eq!(read(&opened.vault, record.id).await, b"kept");
    opened.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_that_cannot_write_leaves_the_old_state_whole_and_goes_on_later() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::new(dir.path(), Engine::Memory, 11).unwrap();
    world.open().await.unwrap();
    let tenant = make_tenant(world.vault()).await;
    let record = put(world.vault(), "r-1", b"kept").await;
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
    let stuck = loop {
        let now = world.vault().key_operation(&begun.id, |_| true).await.unwrap();
        assert_eq!(now.state, OperationState::Running);
        if let Some(reason) = now.reason {
            break reason;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!(stuck, "STORE_DENIED");
    let versions = world.vault().key_versions(&tenant).await.unwrap();
    assert_eq!(versions.len(), 1);
    assert_eq!(read(world.vault(), record.id).await, b"kept");
    // The same work asked for again is the same operation.
    let again = world.vault().rotate_tenant_key("keys", &tenant, None).await;
    assert_eq!(again.unwrap().id, begun.id);
    world.crash().await;
    world.faults.clear();
    world.open().await.unwrap();
    assert_eq!(ended(world.vault(), &begun).await.result, Some(2));
    assert_eq!(read(world.vault(), record.id).await, b"kept");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_that_was_asked_for_survives_the_loss_of_the_index() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::new(dir.path(), Engine::Memory, 12).unwrap();
    world.open().await.unwrap();
    let tenant = make_tenant(world.vault()).await;
    world
        .faults
        .on(Operation::Put)
        .below("payloads/")
        .times(u64::MAX)
        .fail_before(Failure::Unavailable);
    let begun = world
        .vault()
        .rotate_tenant_key("keys", &tenant, None)
        .await
        .unwrap();
    let root = world.vault().rotate_root_epoch("keys", None).await.unwrap();
    world.crash().await;
    world.faults.clear();
    world.lose_index().await.unwrap();
    world.open().await.unwrap();
    assert_eq!(ended(world.vault(), &begun).await.result, Some(2));
    assert!(ended(world.vault(), &root).await.result > Some(1));
    assert_eq!(world.vault().verify().await.unwrap().findings, vec![]);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn puts_and_reads_go_on_while_keys_are_rotated() {
    let bench = Bench::new().await;
    let index = Arc::new(MemoryIndex::default());
    let opened = bench.open(&index).await;
    let vault = Arc::clone(&opened.vault);
    make_tenant(&vault).await;
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let rotating = tokio::spawn({
        let (vault, stop) = (Arc::clone(&vault), Arc::clone(&stop));
        async move {
            let mut rotated = 0;
            while !stop.load(std::sync::atomic::Ordering::Acquire) {
                assert_eq!(rotate(&vault).await.state, OperationState::Succeeded);
                assert_eq!(turn(&vault).await.state, OperationState::Succeeded);
                rotated += 1;
            }
            rotated
        }
    });
    let mut records = Vec::new();
    for n in 0..40 {
        records.push(put(&vault, &format!("r-{n}"), b"content").await.id);
        assert_eq!(read(&vault, records[n / 2]).await, b"content");
    }
    stop.store(true, std::sync::atomic::Ordering::Release);
    assert!(rotating.await.unwrap() > 1);
    for record in &records {
        assert_eq!(read(&vault, *record).await, b"content");
    }
    drop(vault);
    opened.close().await;
    let opened = bench.open(&Arc::new(MemoryIndex::default())).await;
    for record in &records {
        assert_eq!(read(&opened.vault, *record).await, b"content");
    }
    assert_eq!(opened.vault.verify().await.unwrap().findings, vec![]);
    opened.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_have_reached_their_age_are_rotated_once() {
    let bench = Bench::new().await;
    let opened = bench.open(&Arc::new(MemoryIndex::default())).await;
    let tenant = make_tenant(&opened.vault).await;
    let day = 24 * 3_600 * 1_000_000;
    assert_eq!(opened.vault.rotate_due_keys(90 * day).await.unwrap(), 0);
    bench.clock.advance(90 * day);
    assert_eq!(opened.vault.rotate_due_keys(90 * day).await.unwrap(), 1);
    let begun = opened.vault.key_operations(None, 10, |_| true).await.unwrap().0;
    assert_eq!(begun.len(), 1);
    ended(&opened.vault, &begun[0]).await;
    assert_eq!(opened.vault.rotate_due_keys(90 * day).await.unwrap(), 0);
    assert_eq!(opened.vault.key_versions(&tenant).await.unwrap().len(), 2);
    opened.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_rotates_once_and_is_its_tenants_own() {
    let bench = Bench::new().await;
    let opened = bench.open(&Arc::new(MemoryIndex::default())).await;
    let vault = &opened.vault;
    let tenant = make_tenant(vault).await;
    let request = "rotate-1".parse().unwrap();
    let first = vault
        .rotate_tenant_key("keys", &tenant, Some(&request))
        .await
        .unwrap();
    ended(vault, &first).await;
    let again = vault
        .rotate_tenant_key("keys", &tenant, Some(&request))
        .await
        .unwrap();
    assert_eq!(again.id, first.id);
    // Ids are a tenant's own: another's, and the region's, are others.
    let other = "acme".parse().unwrap();
    let made = vault.create_tenant("admin", &other, TenantSettings::default(), None);
    made.await.unwrap();
    let others = vault
        .rotate_tenant_key("keys", &other, Some(&request))
        .await
        .unwrap();
    assert_ne!(others.id, first.id);
    let root = vault.rotate_root_epoch("keys", Some(&request)).await.unwrap();
    assert_ne!(root.id, first.id);
    ended(vault, &root).await;
    let nobody = vault
        .rotate_tenant_key("keys", &"nobody".parse().unwrap(), None)
        .await;
    assert_eq!(nobody.unwrap_err().kind, Kind::NotFound);
    opened.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_changes_between_the_steps_of_a_turn_is_taken_over_as_it_is_then() {
    let bench = Bench::new().await;
    let opened = bench.open(&Arc::new(MemoryIndex::default())).await;
    let vault = &opened.vault;
    let tenant = make_tenant(vault).await;
    let record = put(vault, "r-1", b"kept").await;
    rotate(vault).await;
    // The turn has staged every page and waits at the gate: now one of them loses a slot.
    let gate = vault.keys.region_gate().await;
    let begun = vault.rotate_root_epoch("keys", None).await.unwrap();
    loop {
        let now = vault.key_operation(&begun.id, |_| true).await.unwrap();
        assert_eq!(now.state, OperationState::Running);
        if now.total > 0 && now.done == now.total {
            break;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let (key, value) = vault.key_row(&tenant, 1).await.unwrap();
    vault
        .puncture_version("keys", &tenant, 1, key, value)
        .await
        .unwrap();
    drop(gate);
    assert_eq!(ended(vault, &begun).await.result, Some(2));
    opened.close().await;
    let opened = bench.open(&Arc::new(MemoryIndex::default())).await;
    let vault = &opened.vault;
    assert_eq!(read(vault, record.id).await, b"kept");
    assert_eq!(vault.verify().await.unwrap().findings, vec![]);
    let (row, _) = vault.key_row(&tenant, 1).await.unwrap();
    let wrapped = apply::stored_tenant_key(&row.key.unwrap()).unwrap();
    assert!(matches!(
        vault.keys.open_version(&tenant, &wrapped).await,
        Err(crate::keys::KeyError::Punctured)
    ));
    opened.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_with_every_second_slot_gone_is_taken_over() {
    let bench = Bench::new().await;
    let opened = bench.open(&Arc::new(MemoryIndex::default())).await;
    let vault = &opened.vault;
    let tenant = make_tenant(vault).await;
    let record = put(vault, "r-1", b"kept").await;
    let (key, _) = vault.key_row(&tenant, 1).await.unwrap();
    let wrap = apply::stored_tenant_key(&key.key.unwrap()).unwrap();
    let row_key = crate::index::Key::RegionPage(wrap.region_page);
    let value = vault.index.get(&row_key).await.unwrap().unwrap();
    let row: crate::proto::storage::PageRow = vault.rows.open(&row_key, &value).unwrap();
    let page = apply::page_under(&row, 1).unwrap();
    let gone = (0..4_096).filter(|slot| slot % 2 != wrap.slot % 2);
    let next = vault
        .keys
        .puncture_region_page(&wrap.region_page, &page, gone)
        .unwrap();
    assert!(next.sealed_state.len() > 70_000);
    let sealed = apply::region_page_leaf(&wrap.region_page, &next);
    let change = crate::index::Change {
        put: vec![apply::region_page(&vault.rows, &sealed).unwrap()],
        ..Default::default()
    };
    vault.index.commit(change).await.unwrap();
    vault.keys.forget_region_pages();
    for epoch in [2, 3] {
        assert_eq!(turn(vault).await.result, Some(epoch));
        assert_eq!(read(vault, record.id).await, b"kept");
    }
    opened.close().await;
    let opened = bench.open(&Arc::new(MemoryIndex::default())).await;
    assert_eq!(read(&opened.vault, record.id).await, b"kept");
    opened.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_whose_making_was_cut_short_is_destroyed_and_its_number_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::new(dir.path(), Engine::Memory, 13).unwrap();
    world.open().await.unwrap();
    make_tenant(world.vault()).await;
    let record = put(world.vault(), "r-1", b"kept").await;
    world
        .faults
        .on(Operation::Put)
        .below("payloads/")
        .times(u64::MAX)
        .fail_before(Failure::Denied);
    let begun = world.vault().rotate_root_epoch("keys", None).await.unwrap();
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
    let made = world.root_path().join("epoch-00000002.key");
    assert!(made.exists());
    world.crash().await;
    world.faults.clear();
    world.open().await.unwrap();
    assert_eq!(ended(world.vault(), &begun).await.result, Some(3));
    assert!(!made.exists());
    world.close().await;
    world.lose_index().await.unwrap();
    world.open().await.unwrap();
    let epochs = world.vault().root_epochs().await.unwrap();
    let seen: Vec<_> = epochs.iter().map(|e| (e.epoch, e.state)).collect();
    assert_eq!(seen, [(1, KeyState::Retired), (3, KeyState::Enabled)]);
    assert_eq!(read(world.vault(), record.id).await, b"kept");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_too_old_opens_and_wraps_nothing_new() {
    const YEAR: i64 = 365 * 24 * 3_600 * 1_000_000;
    let bench = Bench::new().await;
    let index = Arc::new(MemoryIndex::default());
    let opened = bench.open(&index).await;
    make_tenant(&opened.vault).await;
    let record = put(&opened.vault, "r-1", b"before").await;
    opened.close().await;
    bench.clock.advance(2 * YEAR + 1);

    // Nothing is refused where nobody says when.
    let opened = bench.open(&index).await;
    put(&opened.vault, "r-2", b"after").await;
    opened.close().await;
    let opened = bench.open(&index).await;
    let vault = &opened.vault;
    vault.wrap_for(Duration::from_micros(2 * YEAR as u64));
    let refused = vault.begin_put(spec("r-3")).await.unwrap_err();
    assert_eq!((refused.kind, refused.reason), (Kind::WrongState, "KEY_TOO_OLD"));
    let refused = vault
        .create_tenant("admin", &"acme".parse().unwrap(), TenantSettings::default(), None)
        .await;
    assert_eq!(refused.unwrap_err().reason, "KEY_TOO_OLD");
    assert_eq!(read(vault, record.id).await, b"before", "what there is opens");

    assert!(vault.turn_due_epoch(YEAR).await.unwrap());
    let begun = vault.key_operations(None, 10, |_| true).await.unwrap().0;
    assert_eq!(ended(vault, &begun[0]).await.state, OperationState::Succeeded);
    assert!(!vault.turn_due_epoch(YEAR).await.unwrap());
    let refused = vault.begin_put(spec("r-3")).await.unwrap_err();
    assert_eq!(refused.reason, "KEY_TOO_OLD", "its own key is as old");
    rotate(vault).await;
    let next = put(vault, "r-3", b"again").await;
    assert_eq!(read(vault, next.id).await, b"again");
    opened.close().await;
}
