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

async fn put(vault: &Arc<Vault>, request: &str, content: &'static [u8]) -> crate::domain::record::Record {
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

async fn read(vault: &Arc<Vault>, record: crate::domain::ids::RecordId) -> Vec<u8> {
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

async fn ended(vault: &Vault, operation: &KeyOperation) -> KeyOperation {
    loop {
        let now = vault.key_operation(&operation.id).await.unwrap();
        if now.state != OperationState::Running {
            return now;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn rotate(vault: &Vault) -> KeyOperation {
    let tenant = "dev".parse().unwrap();
    let begun = vault.rotate_tenant_key("keys", &tenant, None).await.unwrap();
    ended(vault, &begun).await
}

async fn turn(vault: &Vault) -> KeyOperation {
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
            vault.key_operation(&done.id).await.unwrap().state,
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
        let now = world.vault().key_operation(&begun.id).await.unwrap();
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
    assert_eq!(ended(world.vault(), &root).await.result, Some(2));
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
    let begun = opened.vault.key_operations(None, 10).await.unwrap();
    assert_eq!(begun.len(), 1);
    ended(&opened.vault, &begun[0]).await;
    assert_eq!(opened.vault.rotate_due_keys(90 * day).await.unwrap(), 0);
    assert_eq!(opened.vault.key_versions(&tenant).await.unwrap().len(), 2);
    opened.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_rotates_once_and_cannot_ask_for_something_else() {
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
    let refused = vault.rotate_root_epoch("keys", Some(&request)).await.unwrap_err();
    assert_eq!(refused.reason, "REQUEST_ID_REUSED");
    let nobody = vault
        .rotate_tenant_key("keys", &"nobody".parse().unwrap(), None)
        .await;
    assert_eq!(nobody.unwrap_err().kind, Kind::NotFound);
    opened.close().await;
}
