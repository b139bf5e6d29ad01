//! Appending: sizes, batches, restarts, failures.

use std::sync::{Arc, atomic::Ordering};

use bytes::Bytes;
use proptest::prelude::*;
use signed_note::{Note, StandardVerifier, VerifierList};

use super::{
    super::{LogError, LogName, Signer, checkpoint::SignedHead, logs, verifier_key},
    TestKey, entries, examine, log_of, naive_head, name, read_all, reader,
    store::{Failing, TestStore},
    writer,
};
use crate::{
    domain::limits::LEAF_BYTES,
    index::{LogId, LogKind},
};

#[tokio::test]
async fn a_log_that_grows_by_one_has_the_naive_root_at_every_size() {
    let store = TestStore::new();
    let mut writer = writer(&store).await.unwrap();
    let all = entries(0..600);
    for size in 1..=600 {
        let head = writer.append(&all[size - 1..size]).await.unwrap();
        assert_eq!(head, naive_head(&all[..size]), "{size}");
        assert_eq!(head, writer.head());
        if [1, 2, 128, 255, 256, 257, 511, 512, 513, 600].contains(&size) {
            assert_eq!(examine(&store).await.unwrap(), all[..size], "{size}");
        }
    }
}

#[tokio::test]
async fn a_log_written_at_once_has_the_naive_root_at_every_size() {
    for size in 0..=600 {
        let (store, writer) = log_of(&[0..size]).await;
        assert_eq!(writer.head(), naive_head(&entries(0..size)));
        match reader(&store).await.unwrap() {
            None => assert_eq!(size, 0),
            Some(reader) => assert_eq!(read_all(&reader).await.unwrap(), entries(0..size), "{size}"),
        }
    }
}

#[tokio::test]
async fn batches_across_boundaries_and_a_restart_before_each_change_nothing() {
    let store = TestStore::new();
    for batch in [
        0..3,
        3..255,
        255..256,
        256..257,
        257..511,
        511..1_300,
        1_300..1_301,
    ] {
        let mut writer = writer(&store).await.unwrap();
        assert_eq!(writer.head(), naive_head(&entries(0..batch.start)));
        writer.append(&entries(batch.clone())).await.unwrap();
        assert_eq!(examine(&store).await.unwrap(), entries(0..batch.end));
    }
}

#[tokio::test]
async fn a_big_log_fills_two_levels_of_tiles() {
    let all: Vec<Bytes> = (0..70_000).map(|n| Bytes::from(format!("{n:010}"))).collect();
    let store = TestStore::new();
    let mut first = writer(&store).await.unwrap();
    first.append(&all[..65_535]).await.unwrap();
    let mut second = writer(&store).await.unwrap();
    second.append(&all[65_535..65_536]).await.unwrap();
    let mut third = writer(&store).await.unwrap();
    third.append(&all[65_536..]).await.unwrap();
    assert_eq!(third.head(), naive_head(&all));
    assert_eq!(examine(&store).await.unwrap(), all);
    let paths = store.paths();
    for path in [
        "tile/1/000",
        "tile/2/000.p/1",
        "tile/1/001.p/17",
        "tile/0/273.p/112",
        "tile/entries/272",
    ] {
        assert!(paths.contains_key(path), "{path}");
    }
    assert!(!paths.contains_key("tile/1/000.p/255"));
}

#[tokio::test]
async fn superseded_partial_tiles_are_pruned_and_readers_of_older_heads_do_not_mind() {
    let (store, mut writer) = log_of(&[0..3, 3..5]).await;
    let old = reader(&store).await.unwrap().unwrap();
    writer.append(&entries(5..260)).await.unwrap();
    let names: Vec<String> = store.paths().into_keys().collect();
    assert_eq!(
        names,
        [
            "checkpoint",
            "tile/0/000",
            "tile/0/001.p/4",
            "tile/1/000.p/1",
            "tile/entries/000",
            "tile/entries/001.p/4"
        ]
    );
    assert_eq!(read_all(&old).await.unwrap(), entries(0..5));
    old.verify().await.unwrap();
}

#[tokio::test]
async fn reading_begins_anywhere_and_ends_with_nothing() {
    let (store, _) = log_of(&[0..600]).await;
    let reader = reader(&store).await.unwrap().unwrap();
    for (from, end) in [
        (0, 256),
        (255, 256),
        (256, 512),
        (400, 512),
        (512, 600),
        (599, 600),
    ] {
        assert_eq!(reader.read(from).await.unwrap(), entries(from..end));
    }
    for beyond in [600, 601, u64::MAX] {
        assert!(reader.read(beyond).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn entries_are_1_to_leaf_bytes_long() {
    let (store, mut writer) = log_of(&[0..2]).await;
    let before = store.snapshot();
    let longest = Bytes::from(vec![7; LEAF_BYTES]);
    let too_long = [longest.clone(), Bytes::from(vec![7; LEAF_BYTES + 1])];
    assert!(matches!(
        writer.append(&too_long).await,
        Err(LogError::EntryTooLong { length: 61_441 })
    ));
    assert!(
        LogError::EntryTooLong { length: 1 }
            .to_string()
            .ends_with(&LEAF_BYTES.to_string())
    );
    assert!(matches!(
        writer.append(&[Bytes::new()]).await,
        Err(LogError::EntryEmpty)
    ));
    assert_eq!(writer.append(&[]).await.unwrap().size, 2);
    assert_eq!(store.snapshot(), before);
    writer.append(&vec![longest.clone(); 300]).await.unwrap();
    assert_eq!(examine(&store).await.unwrap()[2..], vec![longest; 300]);
}

/// Appends three batches while the store fails once, at every call and both ways, and goes on with `retry`.
async fn survive_every_failure(restart: bool) {
    let all = entries(0..267);
    for replaces in [false, true] {
        for failing in [Failing::Before, Failing::After] {
            for call in 0.. {
                let store = TestStore::new();
                store.replaces.store(replaces, Ordering::SeqCst);
                let mut log = writer(&store).await.unwrap();
                store.fail_at(call, failing);
                for end in [3, 257, 267] {
                    while log.head().size < end {
                        let before = log.head();
                        let result = log.append(&all[before.size as usize..end as usize]).await;
                        let Err(error) = result else { continue };
                        assert!(matches!(error, LogError::Store(_)), "{error} call={call}");
                        assert_eq!(log.head(), before);
                        if restart {
                            log = writer(&store).await.unwrap();
                        } else {
                            // A longer one than the one that failed.
                            log.append(&all[before.size as usize..267]).await.unwrap();
                        }
                    }
                }
                let unreached = store.calm();
                assert_eq!(log.head(), naive_head(&all));
                assert_eq!(examine(&store).await.unwrap(), all);
                assert_eq!(writer(&store).await.unwrap().head(), log.head());
                if unreached {
                    assert!(call > 15, "the scenario is shorter than thought calls={call}");
                    break;
                }
            }
        }
    }
}

#[tokio::test]
async fn an_append_that_failed_anywhere_is_retried_with_more() {
    survive_every_failure(false).await;
}

#[tokio::test]
async fn an_append_that_failed_anywhere_is_taken_up_after_a_restart() {
    survive_every_failure(true).await;
}

#[tokio::test]
async fn opening_fails_whole_when_the_store_does() {
    let (store, _) = log_of(&[0..300]).await;
    for call in 0..4 {
        store.fail_at(call, Failing::Before);
        assert!(matches!(writer(&store).await, Err(LogError::Store(_))), "{call}");
    }
    assert_eq!(writer(&store).await.unwrap().head().size, 300);
}

#[tokio::test]
async fn checkpoints_are_signed_notes_that_anybody_can_open() {
    let (store, writer) = log_of(&[0..5]).await;
    let (origin, key) = (name().origin(), TestKey::new().public_key());
    let object = store.paths().remove("checkpoint").unwrap();
    let verifier = StandardVerifier::new(&verifier_key(&origin, &key)).unwrap();
    let note = Note::from_bytes(&object).unwrap();
    let (verified, unknown) = note.verify(&VerifierList::new(vec![Box::new(verifier)])).unwrap();
    assert_eq!((verified.len(), unknown.len()), (1, 0));
    assert_eq!(verified[0].name(), origin);
    assert_eq!(
        SignedHead::parse(&origin, &object).unwrap().verify(&key).unwrap(),
        writer.head()
    );
}

#[tokio::test]
async fn logs_are_found_by_node_and_term() {
    let store = TestStore::new();
    let ids: Vec<LogId> = [
        (0, 1),
        (0, 2),
        (2, 1),
        (2, 9),
        (2, 10),
        (2, 11),
        (2, u64::MAX),
        (10, 1),
        (11, 1),
        (u32::MAX, 4),
    ]
    .map(|(node, term)| LogId {
        kind: LogKind::State,
        node,
        term,
    })
    .to_vec();
    let access = LogId {
        kind: LogKind::Access,
        node: 5,
        term: 5,
    };
    for log in ids.iter().copied().chain([access]) {
        let name = LogName { log, ..name() };
        let mut writer = super::LogWriter::open(Arc::clone(&store) as _, name, TestKey::new())
            .await
            .unwrap();
        writer.append(&entries(0..2)).await.unwrap();
    }
    let mut objects = store.snapshot();
    for stray in [
        "log/state/x/1/a",
        "log/state/01/1/a",
        "log/state/2/+3/a",
        "log/state/2/03/a",
        "log/state/7",
        "log/stated/1/1/a",
    ] {
        objects.insert(stray.to_owned(), Bytes::from_static(b"stray"));
    }
    store.restore(objects);
    assert_eq!(logs(store.as_ref(), LogKind::State).await.unwrap(), ids);
    assert_eq!(logs(store.as_ref(), LogKind::Access).await.unwrap(), [access]);
}

#[test]
fn a_log_name_is_a_key_name_and_a_prefix() {
    assert_eq!(name().origin(), format!("callvault/{}/state/3/7", super::VAULT));
    assert!(signed_note::is_key_name_valid(&name().origin()));
    assert_eq!(name().prefix(), "log/state/3/7/");
}

#[tokio::test]
async fn logs_work_in_spawned_tasks() {
    let store = TestStore::new();
    let task = async move {
        let mut log = writer(&store).await?;
        log.append(&entries(0..300)).await?;
        let reader = reader(&store).await?.unwrap();
        reader.verify().await?;
        reader.inclusion_proof(3).await?;
        reader.consistency_proof(3).await?;
        logs(store.as_ref(), LogKind::State).await?;
        reader.read(0).await
    };
    assert_eq!(tokio::spawn(task).await.unwrap().unwrap(), entries(0..256));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_root_does_not_depend_on_how_entries_were_batched(
        batches in proptest::collection::vec(
            proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..20), 0..150),
            1..8,
        ),
        reopen in any::<u8>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let store = TestStore::new();
            let mut log = writer(&store).await.unwrap();
            let mut all = Vec::new();
            for (n, batch) in batches.into_iter().enumerate() {
                let batch: Vec<Bytes> = batch.into_iter().map(Bytes::from).collect();
                log.append(&batch).await.unwrap();
                all.extend(batch);
                if reopen >> n & 1 == 1 {
                    log = writer(&store).await.unwrap();
                }
                assert_eq!(log.head(), naive_head(&all));
            }
            if !all.is_empty() {
                assert_eq!(examine(&store).await.unwrap(), all);
            }
        });
    }
}
