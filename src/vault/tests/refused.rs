//! What is refused once is refused again, until it is mended.

use std::fs;

use super::{
    erasure::{erase, record_call},
    rotation::{ended, read, rotate, turn},
    sweep::{stopped, sweep},
    *,
};
use crate::{
    domain::erasure::Target,
    testing::world::{Engine, World},
};

#[tokio::test(flavor = "multi_thread")]
async fn an_index_is_not_made_anew_without_a_page_state_that_counts_however_often_it_is_tried() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::new(dir.path(), Engine::Memory, 0x9e7).unwrap();
    world.open().await.unwrap();
    make_tenant(world.vault()).await;
    let kept = record_call(world.vault(), 1).await;
    rotate(world.vault()).await;
    world.close().await;
    // Nothing but page states of the rotation lies there besides settings and the like: each is tried.
    let payloads = world.bucket_path();
    let mut refused = 0;
    for object in files(&payloads)
        .into_iter()
        .filter(|path| path.contains("payloads"))
    {
        let bytes = fs::read(&object).unwrap();
        fs::remove_file(&object).unwrap();
        world.lose_index().await.unwrap();
        let first = world.open().await.is_err();
        if !first {
            world.close().await;
        }
        let again = world.open().await.is_err();
        assert_eq!(first, again, "{object}");
        if !again {
            world.close().await;
        }
        refused += u32::from(first);
        fs::write(&object, bytes).unwrap();
        world.open().await.unwrap();
        assert_eq!(read(world.vault(), kept.id).await, b"what was said in call 1");
        assert_eq!(world.vault().verify().await.unwrap().findings, vec![]);
        world.close().await;
    }
    assert!(refused > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_not_where_it_was_is_not_taken_for_destroyed() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::new(dir.path(), Engine::Memory, 0x9e8).unwrap();
    world.open().await.unwrap();
    make_tenant(world.vault()).await;
    let gone = record_call(world.vault(), 1).await;
    let vault = Arc::clone(world.vault());
    ended(&vault, &vault.rotate_root_epoch("keys", None).await.unwrap()).await;
    let first = world.root_path().join("epoch-00000001.key");
    let elsewhere = dir.path().join("elsewhere");
    fs::rename(&first, &elsewhere).unwrap();
    let erasure = vault
        .request_erasure(erase(Target::Records(vec![gone.id])))
        .await
        .unwrap();
    let begun = vault.run_sweep("keys", None).await.unwrap();
    assert_eq!(stopped(&vault, &begun).await, "EPOCH_NOT_THERE");
    let epochs = vault.root_epochs().await.unwrap();
    let states: Vec<_> = epochs.iter().map(|epoch| epoch.state).collect();
    assert_eq!(states, [KeyState::Retired, KeyState::Enabled]);
    let now = vault.erasure(&erasure.tenant, &erasure.id).await.unwrap();
    assert_eq!(now.content_final, None);
    drop(vault);
    world.crash().await;
    fs::rename(&elsewhere, &first).unwrap();
    world.open().await.unwrap();
    assert_eq!(
        ended(world.vault(), &begun).await.state,
        OperationState::Succeeded
    );
    assert!(!first.exists());
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sealed_again_since_is_not_missed() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::new(dir.path(), Engine::Memory, 0x9e9).unwrap();
    world.open().await.unwrap();
    make_tenant(world.vault()).await;
    let (kept, gone) = (
        record_call(world.vault(), 1).await,
        record_call(world.vault(), 2).await,
    );
    let before = files(&world.bucket_path());
    turn(world.vault()).await;
    let retired = files(&world.bucket_path()).into_iter();
    let retired = retired.filter(|path| path.contains("payloads") && !before.contains(path));
    let retired: Vec<String> = retired.collect();
    assert!(!retired.is_empty());
    turn(world.vault()).await;
    world.close().await;
    for object in retired {
        fs::remove_file(object).unwrap();
    }
    // Neither an index that is made anew nor a sweep needs it.
    world.lose_index().await.unwrap();
    world.open().await.unwrap();
    let erasure = erase(Target::Records(vec![gone.id]));
    world.vault().request_erasure(erasure).await.unwrap();
    assert_eq!(sweep(world.vault()).await.state, OperationState::Succeeded);
    assert_eq!(read(world.vault(), kept.id).await, b"what was said in call 1");
    assert_eq!(world.vault().verify().await.unwrap().findings, vec![]);
    world.close().await;
}

fn files(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path.to_str().unwrap().to_owned()),
        }
    }
    found
}
