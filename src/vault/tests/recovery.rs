//! What everything is made again from lies in a second place before a key is destroyed, and nothing else does.

use std::{collections::BTreeMap, fs, path::Path};

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};

use crate::{
    blob::store::{ByteRange, ObjectKey},
    domain::erasure::Target,
    testing::{
        faulty::{Failure, Operation},
        world::{Engine, World, copy},
    },
};

use super::{
    erasure::{erase, record_call},
    rotation::{ended, read, rotate},
    sweep::{erased, is_final, stopped, sweep},
    *,
};

async fn world(dir: &Path, seed: u64) -> World {
    let mut world = World::new(dir, Engine::Memory, seed).unwrap();
    world.has_recovery = true;
    world.open().await.unwrap();
    world
}

/// Every object of a store, by its name.
async fn objects(store: &dyn BlobStore) -> BTreeMap<String, Bytes> {
    let (mut found, mut next) = (BTreeMap::new(), None);
    loop {
        let page = store.list("", false, next.as_deref(), 1_000).await.unwrap();
        for object in page.objects {
            let bytes = store.get(&object.key, ByteRange::Full).await.unwrap().bytes;
            found.insert(object.key.to_string(), bytes);
        }
        match page.next {
            Some(token) => next = Some(token),
            None => return found,
        }
    }
}

fn below<'a>(objects: &'a BTreeMap<String, Bytes>, prefix: &str) -> Vec<&'a String> {
    objects.keys().filter(|name| name.starts_with(prefix)).collect()
}

/// The bucket loses what lies below these; all of it, and nothing else, is copied back.
async fn lose_and_restore(world: &World, prefixes: &[&str]) {
    let (bucket, copies) = (
        world.bucket_path().join("objects"),
        world.recovery_path().join("objects"),
    );
    for prefix in prefixes {
        fs::remove_dir_all(bucket.join(prefix)).unwrap();
        copy(&copies.join(prefix), &bucket.join(prefix)).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_bucket_loses_of_its_keys_comes_back_from_the_recovery_store() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = world(dir.path(), 61).await;
    let tenant = make_tenant(world.vault()).await;
    let (kept, gone) = (
        record_call(world.vault(), 1).await,
        record_call(world.vault(), 2).await,
    );
    let first = erased(world.vault(), Target::Records(vec![gone.id])).await;
    assert_eq!(sweep(world.vault()).await.state, OperationState::Succeeded);
    assert!(is_final(world.vault(), &first).await);
    let (late, doomed) = (
        record_call(world.vault(), 3).await,
        record_call(world.vault(), 4).await,
    );
    let second = erased(world.vault(), Target::Records(vec![doomed.id])).await;
    assert_eq!(sweep(world.vault()).await.state, OperationState::Succeeded);
    world.vault().back_up_key_state().await.unwrap();
    world.close().await;

    for (n, prefixes) in (9..).zip([&["payloads"][..], &["payloads", "log", "vault"]]) {
        lose_and_restore(&world, prefixes).await;
        world.lose_index().await.unwrap();
        let replayed = world.open().await.unwrap().unwrap();
        assert_eq!(replayed.broken, Vec::<String>::new());
        let vault = world.vault();
        assert_eq!(vault.verify().await.unwrap().findings, vec![]);
        assert_eq!(read(vault, kept.id).await, b"what was said in call 1");
        assert_eq!(read(vault, late.id).await, b"what was said in call 3");
        for (erasure, record) in [(&first, &gone), (&second, &doomed)] {
            let found = vault
                .record(&tenant, &Name::Id(record.id), Purpose::LegalCompliance)
                .await;
            assert_eq!(found.unwrap_err().kind, Kind::NotFound);
            assert!(is_final(vault, erasure).await);
        }
        // And on it goes.
        let next = record_call(vault, n).await;
        let erasure = vault
            .request_erasure(erase(Target::Records(vec![next.id])))
            .await
            .unwrap();
        assert_eq!(sweep(vault).await.state, OperationState::Succeeded);
        assert!(is_final(vault, &erasure).await);
        assert_eq!(vault.verify().await.unwrap().findings, vec![]);
        vault.back_up_key_state().await.unwrap();
        world.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_recovery_store_has_what_lives_and_nothing_that_was_said() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = world(dir.path(), 62).await;
    make_tenant(world.vault()).await;
    record_call(world.vault(), 1).await;
    let mut many = Vec::new();
    for n in 10..14 {
        let gone = record_call(world.vault(), n).await;
        erased(world.vault(), Target::Records(vec![gone.id])).await;
        assert_eq!(sweep(world.vault()).await.state, OperationState::Succeeded);
        let (bucket, copies) = (
            objects(&world.bucket().await.unwrap()).await,
            objects(&world.recovery().await.unwrap()).await,
        );
        for (name, bytes) in &copies {
            // The log went on since.
            let still = name.ends_with("/checkpoint") || name.contains(".p/");
            assert!(still || bucket.get(name) == Some(bytes), "{name}");
        }
        let prefixes = ["log/state/", "payloads/", "vault/manifest"];
        let of_keys = |name: &String| prefixes.iter().any(|prefix| name.starts_with(prefix));
        assert!(copies.keys().all(of_keys), "{:?}", copies.keys());
        many.push((
            below(&bucket, "payloads/").len(),
            below(&copies, "payloads/").len(),
        ));
    }
    // The settings, the states of the tenant's pages and those of the region's.
    assert!(many.iter().all(|(_, copies)| *copies == 3), "{many:?}");
    assert!(many[3].0 > 8, "in the bucket they stay: {many:?}");
    // What was copied is not copied again.
    world.vault().back_up_key_state().await.unwrap();
    world.recovery_faults.reset_counters();
    world.vault().back_up_key_state().await.unwrap();
    let written = world.recovery_faults.calls(Operation::Overwrite);
    assert_eq!(written, 0);
    // But what somebody took away is.
    fs::remove_dir_all(world.recovery_path().join("objects/payloads")).unwrap();
    world.vault().back_up_key_state().await.unwrap();
    let copies = objects(&world.recovery().await.unwrap()).await;
    assert_eq!(below(&copies, "payloads/").len(), 3);
    world.close().await;
}

/// What a recovery store may do to a copy, and what is said then.
type Trouble = (&'static str, fn(&World));

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_store_that_fails_or_lies_keeps_every_key_alive() {
    let troubles: [Trouble; 5] = [
        ("RECOVERY_UNAVAILABLE", |world| {
            world.recovery_faults.take_down_with(Failure::Denied);
        }),
        ("RECOVERY_UNAVAILABLE", |world| {
            let puts = world.recovery_faults.on(Operation::Overwrite);
            puts.below("payloads/").always().fail_before(Failure::Full);
        }),
        ("RECOVERY_NOT_READ_BACK", |world| {
            let reads = world.recovery_faults.on(Operation::Get);
            reads.below("payloads/").always().flip(3);
        }),
        ("RECOVERY_NOT_READ_BACK", |world| {
            let reads = world.recovery_faults.on(Operation::Get);
            reads.below("log/").always().flip(3);
        }),
        ("RECOVERY_UNAVAILABLE", |world| {
            let reads = world.recovery_faults.on(Operation::List);
            reads
                .below("payloads/")
                .always()
                .fail_before(Failure::Unavailable);
        }),
    ];
    for (n, (reason, trouble)) in troubles.into_iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let mut world = world(dir.path(), 63).await;
        make_tenant(world.vault()).await;
        let (kept, gone) = (
            record_call(world.vault(), 1).await,
            record_call(world.vault(), 2).await,
        );
        let erasure = erased(world.vault(), Target::Records(vec![gone.id])).await;
        trouble(&world);
        let begun = world.vault().run_sweep("keys", None).await.unwrap();
        assert_eq!(stopped(world.vault(), &begun).await, reason, "{n}");
        let first = world.root_path().join("epoch-00000001.key");
        assert!(first.exists() && !is_final(world.vault(), &erasure).await, "{n}");
        assert_eq!(read(world.vault(), kept.id).await, b"what was said in call 1");
        world.crash().await;
        world.recovery_faults.clear();
        world.open().await.unwrap();
        assert_eq!(
            ended(world.vault(), &begun).await.state,
            OperationState::Succeeded
        );
        assert!(!first.exists() && is_final(world.vault(), &erasure).await, "{n}");
        assert_eq!(read(world.vault(), kept.id).await, b"what was said in call 1");
        world.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retired_version_is_destroyed_when_its_successor_lies_in_the_recovery_store() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = world(dir.path(), 64).await;
    let tenant = make_tenant(world.vault()).await;
    let kept = record_call(world.vault(), 1).await;
    rotate(world.vault()).await;
    world.recovery_faults.take_down();
    let refused = world.vault().destroy_key_version("keys", &tenant, 1).await;
    assert_eq!(refused.unwrap_err().reason, "RECOVERY_UNAVAILABLE");
    let versions = world.vault().key_versions(&tenant).await.unwrap();
    assert_eq!(versions[0].state, KeyState::Retired);
    world.recovery_faults.clear();
    let destroyed = world.vault().destroy_key_version("keys", &tenant, 1).await;
    assert_eq!(destroyed.unwrap().state, KeyState::Destroyed);
    let copies = objects(&world.recovery().await.unwrap()).await;
    assert_eq!(below(&copies, "payloads/").len(), 2, "settings and page states");
    assert_eq!(read(world.vault(), kept.id).await, b"what was said in call 1");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_store_of_another_vault_or_the_bucket_itself_is_refused() {
    for (n, foreign) in [
        "vault/manifest",
        "claims/01890a5d-ac96-774b-bcce-b302099a8057",
        "blobs/01890a5d-ac96-774b-bcce-b302099a8057",
    ]
    .into_iter()
    .enumerate()
    {
        let dir = tempfile::tempdir().unwrap();
        let mut world = world(dir.path(), 65).await;
        make_tenant(world.vault()).await;
        let gone = record_call(world.vault(), 1).await;
        let erasure = erased(world.vault(), Target::Records(vec![gone.id])).await;
        let (copies, key) = (
            world.recovery().await.unwrap(),
            ObjectKey::parse(foreign).unwrap(),
        );
        let anothers = Bytes::from_static(b"another's");
        copies.overwrite(&key, anothers.clone()).await.unwrap();
        let begun = world.vault().run_sweep("keys", None).await.unwrap();
        assert_eq!(
            stopped(world.vault(), &begun).await,
            "RECOVERY_NOT_OURS",
            "{foreign}"
        );
        assert!(!is_final(world.vault(), &erasure).await);
        let found = objects(&copies).await;
        assert_eq!(found, BTreeMap::from([(foreign.to_owned(), anothers)]), "{n}");
        world.crash().await;
        copies.delete(&key).await.unwrap();
        world.open().await.unwrap();
        ended(world.vault(), &begun).await;
        assert!(is_final(world.vault(), &erasure).await);
        world.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_tells_of_copies_in_a_recovery_store_if_there_is_one() {
    for has_recovery in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let mut world = World::new(dir.path(), Engine::Memory, 66).unwrap();
        world.has_recovery = has_recovery;
        world.open().await.unwrap();
        let tenant = make_tenant(world.vault()).await;
        let gone = record_call(world.vault(), 1).await;
        let erasure = erased(world.vault(), Target::Records(vec![gone.id])).await;
        sweep(world.vault()).await;
        let issued = world.vault().certificate(&tenant, &erasure.id, None).await;
        let (stage, file) = issued.unwrap();
        let file: serde_json::Value = serde_json::from_slice(&file).unwrap();
        let payload = BASE64_URL_SAFE_NO_PAD.decode(file["payload"].as_str().unwrap());
        let said: serde_json::Value = serde_json::from_slice(&payload.unwrap()).unwrap();
        let copies = said["residual_copies"].as_array().unwrap();
        let of = |copy: &&serde_json::Value| copy["copies"].as_str().unwrap().contains("recovery store");
        let of = copies.iter().find(of);
        assert_eq!(of.is_some(), has_recovery);
        assert!(
            of.is_none_or(|of| of["killed_by"].as_str().unwrap().contains("root epochs")),
            "{stage:?} {of:?}"
        );
        world.close().await;
    }
}

/// A world whose bucket has noise: a tenant's states under versions that are destroyed, the region's under destroyed epochs.
async fn world_with_noise(dir: &Path, seed: u64) -> World {
    let world = world(dir, seed).await;
    make_tenant(world.vault()).await;
    record_call(world.vault(), 1).await;
    for n in 10..12 {
        let gone = record_call(world.vault(), n).await;
        erased(world.vault(), Target::Records(vec![gone.id])).await;
        assert_eq!(sweep(world.vault()).await.state, OperationState::Succeeded);
    }
    world
}

/// Puts the bucket's payload objects, noise and all, beside the copies.
fn mix_in(world: &World) {
    let (bucket, copies) = (world.bucket_path(), world.recovery_path());
    copy(&bucket.join("objects/payloads"), &copies.join("objects/payloads")).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_a_log_names_and_no_key_opens_is_removed_from_a_recovery_store() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = world_with_noise(dir.path(), 67).await;
    world.close().await;
    mix_in(&world);
    let copies = world.recovery().await.unwrap();
    let others = [
        // A corrected descriptor; something that nobody knows.
        format!("payloads/{}", "c0".repeat(32)),
        "payloads/readme.txt".to_owned(),
        "elsewhere/readme.txt".to_owned(),
    ];
    for name in &others {
        let key = ObjectKey::parse(name).unwrap();
        copies.overwrite(&key, Bytes::from_static(b"kept")).await.unwrap();
    }
    let before = below(&objects(&copies).await, "payloads/").len();
    assert!(before > 5, "{before}");
    world.open().await.unwrap();
    world.vault().back_up_key_state().await.unwrap();
    let found = objects(&copies).await;
    assert!(others.iter().all(|name| found.contains_key(name)), "{found:?}");
    assert_eq!(below(&found, "payloads/").len(), 3 + 2, "{found:?}");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_cannot_be_deleted_keeps_no_other_one_and_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = world_with_noise(dir.path(), 68).await;
    world.close().await;
    mix_in(&world);
    world.open().await.unwrap();
    let deletes = world.recovery_faults.on(Operation::Delete);
    let denied = deletes.below("payloads/").fail_before(Failure::Denied);
    world.vault().back_up_key_state().await.unwrap();
    assert_eq!(denied.fired(), 1);
    let copies = world.recovery().await.unwrap();
    assert_eq!(below(&objects(&copies).await, "payloads/").len(), 3 + 1);
    world.vault().back_up_key_state().await.unwrap();
    assert_eq!(below(&objects(&copies).await, "payloads/").len(), 3);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_store_that_is_ahead_of_a_rolled_back_bucket_is_left_alone_and_brings_it_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = world(dir.path(), 69).await;
    make_tenant(world.vault()).await;
    let kept = record_call(world.vault(), 1).await;
    world.vault().back_up_key_state().await.unwrap();
    world.close().await;
    let (old, anchor) = (dir.path().join("old"), world.root_path().join("anchor"));
    copy(&world.bucket_path(), &old).unwrap();

    world.open().await.unwrap();
    let late = record_call(world.vault(), 2).await;
    rotate(world.vault()).await;
    world.vault().back_up_key_state().await.unwrap();
    world.close().await;
    let copies = world.recovery().await.unwrap();
    let before = objects(&copies).await;
    let (blobs, newest) = (dir.path().join("blobs"), fs::read(&anchor).unwrap());
    copy(&world.bucket_path().join("objects/blobs"), &blobs).unwrap();

    // The rolled-back bucket begins another log than was copied, under the same name. Not even a manifest that is gone is written.
    for manifest in [true, false] {
        fs::remove_dir_all(world.bucket_path()).unwrap();
        copy(&old, &world.bucket_path()).unwrap();
        fs::remove_file(&anchor).unwrap();
        let mut left = before.clone();
        if !manifest {
            let key = ObjectKey::parse("vault/manifest").unwrap();
            copies.delete(&key).await.unwrap();
            left.remove("vault/manifest");
        }
        world.lose_index().await.unwrap();
        world.open().await.unwrap();
        let vault = world.vault();
        assert_eq!(read(vault, kept.id).await, b"what was said in call 1");
        for _ in 0..2 {
            let refused = vault.back_up_key_state().await.unwrap_err();
            assert_eq!(refused.reason, "RECOVERY_AHEAD", "{refused:?}");
            assert!(refused.message.contains("rolled back"), "{refused:?}");
            record_call(vault, 3).await;
        }
        let begun = vault.run_sweep("keys", None).await.unwrap();
        assert_eq!(stopped(vault, &begun).await, "RECOVERY_AHEAD");
        assert!(world.root_path().join("epoch-00000001.key").exists());
        assert_eq!(objects(&copies).await, left);
        world.crash().await;
    }

    // What docs/operations.md says to try first.
    copies
        .overwrite(
            &ObjectKey::parse("vault/manifest").unwrap(),
            before["vault/manifest"].clone(),
        )
        .await
        .unwrap();
    fs::remove_dir_all(world.bucket_path()).unwrap();
    copy(&old, &world.bucket_path()).unwrap();
    copy(&blobs, &world.bucket_path().join("objects/blobs")).unwrap();
    lose_and_restore(&world, &["payloads", "log", "vault"]).await;
    fs::write(&anchor, newest).unwrap();
    world.lose_index().await.unwrap();
    world.open().await.unwrap();
    let vault = world.vault();
    assert_eq!(read(vault, kept.id).await, b"what was said in call 1");
    assert_eq!(read(vault, late.id).await, b"what was said in call 2");
    vault.back_up_key_state().await.unwrap();
    assert_eq!(vault.verify().await.unwrap().findings, vec![]);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_somebody_took_from_the_recovery_store_is_copied_again_by_a_server_that_runs() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = world(dir.path(), 70).await;
    make_tenant(world.vault()).await;
    record_call(world.vault(), 1).await;
    world.close().await;
    world.open().await.unwrap();
    world.vault().back_up_key_state().await.unwrap();
    let store = world.recovery().await.unwrap();
    let whole = objects(&store).await;
    for lost in [
        "log/",
        "log/state/1/1/",
        "log/state/1/1/checkpoint",
        "log/state/1/1/tile/entries/",
        "log/state/1/1/tile/0/",
    ] {
        let names = below(&whole, lost);
        assert!(!names.is_empty(), "{lost}");
        for name in names {
            store.delete(&ObjectKey::parse(name).unwrap()).await.unwrap();
        }
        world.vault().back_up_key_state().await.unwrap();
        assert_eq!(objects(&store).await, whole, "{lost}");
    }
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn destroying_a_version_tells_nobody_what_of_another_tenant_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = world(dir.path(), 71).await;
    let tenant = make_tenant(world.vault()).await;
    let vault = Arc::clone(world.vault());
    rotate(&vault).await;
    let other: TenantId = "acme".parse().unwrap();
    let made = vault.create_tenant("admin", &other, TenantSettings::default(), None);
    made.await.unwrap();
    let bucket = world.bucket().await.unwrap();
    let before = objects(&bucket).await;
    let begun = vault.rotate_tenant_key("keys", &other, None).await.unwrap();
    ended(&vault, &begun).await;
    for name in below(&objects(&bucket).await, "payloads/") {
        if !before.contains_key(name) {
            bucket.delete(&ObjectKey::parse(name).unwrap()).await.unwrap();
        }
    }
    let told = vault.secure_key_state().await.unwrap_err();
    assert!(told.message.contains("tenant=acme"), "{told:?}");
    let told = vault.destroy_key_version("keys", &tenant, 1).await.unwrap_err();
    assert_eq!((told.kind, told.reason), (Kind::Corrupt, "KEY_STATE_DAMAGED"));
    for name in ["acme", "payloads", "object"] {
        assert!(!told.message.contains(name), "{told:?}");
    }
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_store_is_not_read_without_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = world(dir.path(), 72).await;
    make_tenant(world.vault()).await;
    let store = world.recovery().await.unwrap();
    let key = ObjectKey::parse("vault/manifest").unwrap();
    store.overwrite(&key, vec![7; 8 << 20].into()).await.unwrap();
    let refused = world.vault().back_up_key_state().await.unwrap_err();
    assert_eq!(refused.reason, "RECOVERY_NOT_OURS");
    let read = world.recovery_faults.counters(Operation::Get).bytes_out;
    assert!(read < 64 << 10, "{read}");
    store.delete(&key).await.unwrap();
    world.vault().back_up_key_state().await.unwrap();
    for prefix in ["log/state/", "payloads/"] {
        let lists = world.recovery_faults.on(Operation::List);
        lists.below(prefix).always().endless();
        let refused = world.vault().back_up_key_state().await.unwrap_err();
        assert_eq!(refused.reason, "RECOVERY_UNAVAILABLE", "{prefix}");
        world.recovery_faults.clear();
    }
    world.vault().back_up_key_state().await.unwrap();
    world.close().await;
}
