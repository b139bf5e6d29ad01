//! Objects written whole.

use std::sync::Arc;

use super::{
    super::store::{BlobStore, ByteRange, ObjectKey, StoreError},
    Subject, body,
};

/// What was put is what is read, at once.
pub async fn put_then_get(subject: Subject) {
    let sent = body(100_000, 1);
    subject
        .store()
        .put(&subject.key("a/b/c"), sent.clone())
        .await
        .unwrap();
    let read = subject
        .store()
        .get(&subject.key("a/b/c"), ByteRange::Full)
        .await
        .unwrap();
    assert_eq!(read.bytes, sent);
    assert_eq!(read.object_length, 100_000);
}

/// An object may be empty.
pub async fn zero_length_object(subject: Subject) {
    subject
        .store()
        .put(&subject.key("empty"), body(0, 0))
        .await
        .unwrap();
    assert!(subject.whole("empty").await.is_empty());
    assert_eq!(
        subject.store().head(&subject.key("empty")).await.unwrap().length,
        0
    );
}

/// Bodies are bytes, not text.
pub async fn every_byte_value_survives(subject: Subject) {
    let sent: Vec<u8> = (0..=255).chain((0..=255).rev()).collect();
    subject
        .store()
        .put(&subject.key("bytes"), sent.clone().into())
        .await
        .unwrap();
    assert_eq!(subject.whole("bytes").await, sent);
}

/// A second put of a key is refused, and the first stays, where the store can tell.
pub async fn put_refuses_to_replace(subject: Subject) {
    if !subject.capabilities.no_overwrite {
        return;
    }
    let key = subject.key("once");
    subject.store().put(&key, body(10, 1)).await.unwrap();
    let again = subject.store().put(&key, body(20, 2)).await;
    assert!(matches!(again, Err(StoreError::AlreadyExists)), "{again:?}");
    assert_eq!(subject.whole("once").await, body(10, 1));
}

/// An overwrite replaces, longer with shorter and shorter with longer.
pub async fn overwrite_replaces(subject: Subject) {
    let key = subject.key("many/times");
    for length in [100, 5, 0, 5_000] {
        subject.store().overwrite(&key, body(length, 3)).await.unwrap();
        assert_eq!(subject.whole("many/times").await, body(length, 3));
        assert_eq!(subject.store().head(&key).await.unwrap().length, length as u64);
    }
}

/// An overwrite needs nothing to replace.
pub async fn overwrite_creates(subject: Subject) {
    subject
        .store()
        .overwrite(&subject.key("new/one"), body(9, 1))
        .await
        .unwrap();
    assert_eq!(subject.whole("new/one").await, body(9, 1));
}

/// What does not exist is not found, also below and above what does.
pub async fn missing_object_is_not_found(subject: Subject) {
    subject.put_all(&["a/b/c"]).await;
    for name in ["a", "a/b", "a/b/d", "a/b/c/d", "z"] {
        subject.assert_absent(name).await;
    }
}

/// Length and time of an object, the latter within a day of this machine's.
pub async fn head_tells_length_and_time(subject: Subject) {
    use crate::domain::clock::{Clock, SystemClock};
    subject
        .store()
        .put(&subject.key("x"), body(1_234, 1))
        .await
        .unwrap();
    let info = subject.store().head(&subject.key("x")).await.unwrap();
    assert_eq!((info.key, info.length), (subject.key("x"), 1_234));
    let age = SystemClock.now().micros() - info.modified_micros;
    assert!(age.abs() < 86_400_000_000, "modified {age} us ago");
}

/// Deleting what exists, what existed, and what never did.
pub async fn delete_is_idempotent(subject: Subject) {
    subject.put_all(&["d/one", "d/two"]).await;
    for _ in 0..2 {
        subject.store().delete(&subject.key("d/one")).await.unwrap();
        subject.assert_absent("d/one").await;
    }
    subject.store().delete(&subject.key("d")).await.unwrap();
    subject
        .store()
        .delete(&subject.key("never/was/here"))
        .await
        .unwrap();
    assert_eq!(subject.whole("d/two").await.len(), 5);
}

/// A key is free once its object is deleted.
pub async fn deleted_key_can_be_put_again(subject: Subject) {
    for seed in 0..3 {
        subject
            .store()
            .put(&subject.key("p/h/o"), body(50, seed))
            .await
            .unwrap();
        assert_eq!(subject.whole("p/h/o").await, body(50, seed));
        subject.store().delete(&subject.key("p/h/o")).await.unwrap();
    }
}

/// Many keys at a time, in directories that nobody made before.
pub async fn concurrent_puts_of_many_keys(subject: Subject) {
    let puts: Vec<_> = (0..64_u32)
        .map(|n| {
            let (store, key) = (subject.shared(), subject.key(&format!("many/{}/x/{n}", n % 5)));
            tokio::spawn(async move { store.put(&key, body(1_000 + n as usize, n)).await })
        })
        .collect();
    for put in puts {
        put.await.unwrap().unwrap();
    }
    for n in 0..64_u32 {
        assert_eq!(
            subject.whole(&format!("many/{}/x/{n}", n % 5)).await,
            body(1_000 + n as usize, n)
        );
    }
}

/// Of many puts of one key, one wins where the store can tell; what is read is one of them whole.
pub async fn concurrent_puts_of_one_key(subject: Subject) {
    let puts: Vec<_> = (0..16)
        .map(|seed| {
            let (store, key) = (subject.shared(), subject.key("race/one"));
            tokio::spawn(async move { (seed, store.put(&key, body(200_000, seed)).await) })
        })
        .collect();
    let mut winners = Vec::new();
    for put in puts {
        match put.await.unwrap() {
            (seed, Ok(_)) => winners.push(seed),
            (_, Err(StoreError::AlreadyExists)) if subject.capabilities.no_overwrite => {}
            (_, Err(error)) => panic!("{error:?}"),
        }
    }
    let read = subject.whole("race/one").await;
    assert!(
        winners.iter().any(|seed| read == body(200_000, *seed)),
        "a mixture, or a loser's"
    );
    assert!(
        winners.len() == 1 || !subject.capabilities.no_overwrite,
        "{} winners",
        winners.len()
    );
}

/// While an object is overwritten, readers see an old one or a new one, never half.
pub async fn readers_see_whole_versions(subject: Subject) {
    let key = subject.key("whole");
    let versions: Vec<_> = (0..2).map(|n| body(300_000 + n, n as u32)).collect();
    subject
        .store()
        .overwrite(&key, versions[0].clone())
        .await
        .unwrap();
    let writer = tokio::spawn({
        let (store, key, versions) = (subject.shared(), key.clone(), versions.clone());
        async move {
            for n in 0..20 {
                store.overwrite(&key, versions[n % 2].clone()).await.unwrap();
            }
        }
    });
    while !writer.is_finished() {
        let read = subject.whole("whole").await;
        assert!(versions.contains(&read), "read half a version");
    }
    writer.await.unwrap();
}

/// Names that could lead elsewhere are no keys.
pub async fn keys_follow_the_rule(_: Subject) {
    let long = "k".repeat(513);
    let segment = format!("a/{}", "k".repeat(256));
    let bad = [
        "", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/./b", "A", "a b", "a\0b", "a\\b",
        "\u{e9}",
    ];
    for name in bad.into_iter().chain([long.as_str(), segment.as_str()]) {
        assert!(
            matches!(ObjectKey::parse(name), Err(StoreError::InvalidKey)),
            "{name:?} is a key"
        );
    }
    for name in ["a", "...", "a/b.c/-_", "..a", "0"] {
        assert_eq!(ObjectKey::parse(name).unwrap().as_str(), name);
    }
}

/// A key as long as keys may be.
pub async fn longest_key(subject: Subject) {
    let room = 512 - subject.key("x").as_str().len() + 1;
    let name: String = (0..room)
        .map(|i| if i % 100 == 99 && i + 1 < room { '/' } else { 'k' })
        .collect();
    subject.put_all(&[&name]).await;
    let listed = subject
        .store()
        .list(subject.key("k").as_str(), false, None, 10)
        .await
        .unwrap();
    assert_eq!(listed.objects[0].key, subject.key(&name));
    assert_eq!(subject.whole(&name).await.len(), room);
}

/// A put is not lost because its neighbour is deleted, over and over.
pub async fn puts_and_deletes_beside_each_other(subject: Subject) {
    let churn = |store: Arc<dyn BlobStore>, key: ObjectKey| async move {
        for seed in 0..25 {
            store.put(&key, body(64, seed)).await.unwrap();
            assert_eq!(
                store.get(&key, ByteRange::Full).await.unwrap().bytes,
                body(64, seed)
            );
            store.delete(&key).await.unwrap();
        }
    };
    let churns: Vec<_> = (0..4)
        .map(|n| {
            tokio::spawn(churn(
                subject.shared(),
                subject.key(&format!("churn/deep/{}/{n}", n % 2)),
            ))
        })
        .collect();
    for churn in churns {
        churn.await.unwrap();
    }
    let left = subject
        .store()
        .list(subject.key("churn").as_str(), true, None, 10)
        .await
        .unwrap();
    assert!(left.objects.is_empty() && left.prefixes.is_empty(), "{left:?}");
}
