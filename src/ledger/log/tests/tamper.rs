//! What somebody who writes the bucket, or a second writer, can make a reader believe: nothing.

use std::sync::{Arc, atomic::Ordering};

use bytes::Bytes;

use super::{
    super::{LogError, LogName, LogReader, LogWriter, Signer},
    TestKey, entries, examine, log_of, name, reader,
    store::TestStore,
    writer,
};

fn flipped(object: &Bytes, at: usize, bit: u8) -> Bytes {
    let mut object = object.to_vec();
    object[at] ^= 1 << bit;
    Bytes::from(object)
}

#[tokio::test]
async fn a_changed_byte_anywhere_is_an_error() {
    let (store, _) = log_of(&[0..259]).await;
    let paths = store.paths();
    assert_eq!(paths.len(), 6);
    for (path, object) in paths {
        for at in 0..object.len() {
            store.set(&path, Some(flipped(&object, at, (at % 8) as u8)));
            assert!(examine(&store).await.is_err(), "{path} at={at}");
        }
        store.set(&path, Some(object));
    }
    assert_eq!(examine(&store).await.unwrap(), entries(0..259));
}

#[tokio::test]
async fn every_bit_of_a_checkpoint_and_of_a_small_log_counts() {
    let (store, _) = log_of(&[0..1, 1..3]).await;
    for (path, object) in store.paths() {
        for (at, bit) in (0..object.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            store.set(&path, Some(flipped(&object, at, bit)));
            let superseded = path.ends_with(".p/1");
            match examine(&store).await {
                Ok(all) => assert!(superseded && all == entries(0..3), "{path} at={at}"),
                Err(_) => assert!(!superseded, "{path} at={at}"),
            }
        }
        store.set(&path, Some(object));
    }
}

#[tokio::test]
async fn reads_alone_never_return_changed_entries() {
    let (store, _) = log_of(&[0..259]).await;
    for (path, object) in store.paths() {
        for at in (0..object.len()).step_by(7) {
            store.set(&path, Some(flipped(&object, at, 0)));
            let Ok(Some(reader)) = reader(&store).await else {
                continue;
            };
            for (from, end) in [(0, 256), (256, 259)] {
                if let Ok(read) = reader.read(from).await {
                    assert_eq!(read, entries(from..end), "{path} at={at}");
                }
            }
        }
        store.set(&path, Some(object));
    }
}

#[tokio::test]
async fn removed_truncated_extended_and_emptied_objects_are_errors() {
    let (store, _) = log_of(&[0..259]).await;
    for (path, object) in store.paths() {
        let longer = [&object[..], b"x"].concat();
        let huge = [&object[..], &vec![0; 20 << 20]].concat();
        let shorter = object.slice(..object.len() - 1);
        for body in [
            None,
            Some(Bytes::new()),
            Some(longer.into()),
            Some(huge.into()),
            Some(shorter),
        ] {
            store.set(&path, body);
            assert!(examine(&store).await.is_err(), "{path}");
        }
        store.set(&path, Some(object));
    }
}

#[tokio::test]
async fn swapped_and_reordered_objects_are_errors() {
    let (store, _) = log_of(&[0..600]).await;
    let paths = store.paths();
    for (path, other) in paths
        .keys()
        .flat_map(|path| paths.keys().map(move |other| (path, other)))
    {
        if paths[path] != paths[other] {
            store.set(path, Some(paths[other].clone()));
            assert!(examine(&store).await.is_err(), "{path} {other}");
            store.set(path, Some(paths[path].clone()));
        }
    }
}

#[tokio::test]
async fn a_partial_tile_is_not_made_longer_by_a_false_full_one() {
    let (store, _) = log_of(&[0..3]).await;
    let (longer, _) = log_of(&[0..256]).await;
    for kind in ["0", "entries"] {
        let full = longer.paths().remove(&format!("tile/{kind}/000")).unwrap();
        store.set(&format!("tile/{kind}/000"), Some(full));
        store.set(&format!("tile/{kind}/000.p/3"), None);
    }
    assert_eq!(examine(&store).await.unwrap(), entries(0..3));
}

#[tokio::test]
async fn the_checkpoint_of_another_log_or_key_is_refused() {
    let (store, _) = log_of(&[0..5]).await;
    let elsewhere = LogName {
        log: crate::index::LogId {
            term: 8,
            ..name().log
        },
        ..name()
    };
    let mut objects = store.snapshot();
    for (name, body) in store.snapshot() {
        objects.insert(name.replace("/3/7/", "/3/8/"), body);
    }
    store.restore(objects);
    let key = Some(TestKey::new().public_key());
    let opened = LogReader::open(Arc::clone(&store) as _, elsewhere, key).await;
    assert!(matches!(opened, Err(LogError::Corrupt { what: "checkpoint" })));

    let stranger = TestKey::from_seed(&[1; 32]);
    let opened = LogReader::open(Arc::clone(&store) as _, name(), Some(stranger.public_key())).await;
    assert!(matches!(opened, Err(LogError::Signature)));
    let opened = LogWriter::open(Arc::clone(&store) as _, name(), Arc::clone(&stranger) as _).await;
    assert!(matches!(opened, Err(LogError::Signature)));

    let unsure = LogReader::open(Arc::clone(&store) as _, name(), None)
        .await
        .unwrap()
        .unwrap();
    assert!(matches!(
        unsure.verify_signature(stranger.public_key()),
        Err(LogError::Signature)
    ));
    unsure.verify_signature(TestKey::new().public_key()).unwrap();
}

#[tokio::test]
async fn an_unsigned_checkpoint_of_any_size_neither_panics_nor_reads() {
    let (store, _) = log_of(&[0..300]).await;
    let checkpoint = store.paths().remove("checkpoint").unwrap();
    let text = String::from_utf8(checkpoint.to_vec()).unwrap();
    for size in [
        0,
        1,
        255,
        256,
        299,
        301,
        1 << 20,
        (1 << 48) - 1,
        1 << 48,
        (1 << 48) + 1,
        u64::MAX - 1,
        u64::MAX,
    ] {
        let lie = text.replacen("\n300\n", &format!("\n{size}\n"), 1);
        store.set("checkpoint", Some(Bytes::from(lie)));
        let Ok(Some(reader)) = LogReader::open(Arc::clone(&store) as _, name(), None).await else {
            continue;
        };
        for position in [0, 255, 256, size / 2, size - 1]
            .into_iter()
            .filter(|p| *p < size)
        {
            assert!(reader.read(position).await.is_err(), "{size}");
            assert!(
                size == 1 || reader.inclusion_proof(position).await.is_err(),
                "{size}"
            );
        }
        assert!(reader.root_at(size).await.is_err());
        assert!(reader.consistency_proof(1).await.is_err() || size == 1);
        assert!(reader.verify().await.is_err());
    }
}

#[tokio::test]
async fn an_older_checkpoint_put_back_is_a_valid_older_head() {
    let (store, mut log) = log_of(&[0..5]).await;
    let old = store.paths().remove("checkpoint").unwrap();
    log.append(&entries(5..300)).await.unwrap();
    store.set("checkpoint", Some(old.clone()));
    // True once, and all that one log can know: the anchor remembers that there was more.
    assert_eq!(examine(&store).await.unwrap(), entries(0..5));
    // A living writer knows, and puts it right.
    log.append(&entries(300..301)).await.unwrap();
    assert_eq!(examine(&store).await.unwrap(), entries(0..301));
    // One that is started on the older head cannot write other leaves over the ones that were there.
    store.set("checkpoint", Some(old));
    let mut fooled = writer(&store).await.unwrap();
    let other: Vec<Bytes> = entries(1_000..1_295);
    assert!(matches!(
        fooled.append(&other).await,
        Err(LogError::Forked { .. })
    ));
}

#[tokio::test]
async fn a_removed_checkpoint_stops_a_living_writer() {
    let (store, mut log) = log_of(&[0..5]).await;
    store.set("checkpoint", None);
    assert!(reader(&store).await.unwrap().is_none());
    assert!(matches!(
        log.append(&entries(5..6)).await,
        Err(LogError::Corrupt {
            what: "checkpoint is missing"
        })
    ));
}

#[tokio::test]
async fn of_two_writers_the_overtaken_one_finds_out() {
    for replaces in [false, true] {
        for (mine, others) in [
            (5..6, 90..91),
            (5..6, 90..99),
            (5..9, 90..91),
            (5..300, 90..400),
            (5..400, 90..300),
        ] {
            let (store, mut live) = log_of(&[0..5]).await;
            store.replaces.store(replaces, Ordering::SeqCst);
            let mut zombie = writer(&store).await.unwrap();
            live.append(&entries(mine.clone())).await.unwrap();
            let before = store.snapshot();
            let answer = zombie.append(&entries(others)).await;
            assert!(
                matches!(answer, Err(LogError::Forked { position }) if position >= 5),
                "{answer:?}"
            );
            assert_eq!(zombie.head().size, 5);
            assert_eq!(store.snapshot(), before, "an overtaken writer writes nothing");
            live.append(&entries(500..501)).await.unwrap();
            assert!(examine(&store).await.is_ok());
        }
    }
}

#[tokio::test]
async fn two_writers_of_the_same_entries_agree() {
    let (store, mut one) = log_of(&[0..5]).await;
    let mut two = writer(&store).await.unwrap();
    one.append(&entries(5..9)).await.unwrap();
    two.append(&entries(5..300)).await.unwrap();
    one.append(&entries(9..400)).await.unwrap();
    assert_eq!(examine(&store).await.unwrap(), entries(0..400));
    // Fewer than are there is not a retry: whose the others are cannot be told.
    assert!(matches!(
        two.append(&entries(300..301)).await,
        Err(LogError::Forked { .. })
    ));
}

#[tokio::test]
async fn a_fork_is_noticed_even_when_it_won_the_race() {
    for other in [4..5, 90..91, 90..92, 90..97] {
        let (store, mut live) = log_of(&[0..4]).await;
        let base = store.snapshot();
        live.append(&entries(4..6)).await.unwrap();
        // The other one's checkpoint lands last, although it began before.
        let race = TestStore::new();
        race.restore(base);
        writer(&race)
            .await
            .unwrap()
            .append(&entries(other.clone()))
            .await
            .unwrap();
        store.set("checkpoint", race.paths().remove("checkpoint"));
        let answer = live.append(&entries(6..7)).await;
        if other.start == 4 {
            answer.unwrap(); // its entries are the log's own: only the checkpoint was old
        } else {
            assert!(matches!(answer, Err(LogError::Forked { .. })), "{answer:?}");
        }
    }
}

#[tokio::test]
async fn other_entries_than_before_a_failure_are_a_fork_as_soon_as_it_shows() {
    let (store, mut log) = log_of(&[0..5]).await;
    let left_over = {
        log_of(&[0..5, 5..9])
            .await
            .0
            .paths()
            .remove("tile/entries/000.p/9")
    };
    store.set("tile/entries/000.p/9", left_over);
    assert!(matches!(
        log.append(&entries(90..94)).await,
        Err(LogError::Forked { position: 8 })
    ));
    log.append(&entries(5..9)).await.unwrap();
    assert_eq!(examine(&store).await.unwrap(), entries(0..9));
}
