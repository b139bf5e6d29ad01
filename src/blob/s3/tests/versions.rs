//! A bucket that keeps versions keeps none of what was deleted.

use super::{bucket::Ways, *};

fn keeping(page: Option<usize>) -> Ways {
    Ways {
        versions: true,
        page,
        ..Ways::default()
    }
}

/// Several versions and a marker of one name, beside names that begin alike.
pub(super) async fn deleting_leaves_no_version(store: &S3Store) {
    for length in 1..=3 {
        store.overwrite(&key("x"), body(length)).await.unwrap();
    }
    for neighbour in ["x-1", "x/y", "x0"] {
        store.put(&key(neighbour), body(7)).await.unwrap();
    }
    store.delete(&key("x")).await.unwrap();
    store.put(&key("x"), body(9)).await.unwrap();
    store.delete(&key("x")).await.unwrap();
    store.delete(&key("x")).await.unwrap();
    let left = store.versions(&key("x"), None, None).await.unwrap();
    let left_of_it = |named: &Option<String>| named.as_deref() == Some(key("x").as_str());
    assert!(
        !left.versions().iter().any(|version| left_of_it(&version.key)),
        "{left:?}"
    );
    assert!(
        !left.delete_markers().iter().any(|marker| left_of_it(&marker.key)),
        "{left:?}"
    );
    for neighbour in ["x-1", "x/y", "x0"] {
        assert_eq!(store.head(&key(neighbour)).await.unwrap().length, 7);
    }
}

#[tokio::test]
async fn every_version_of_a_deleted_object_is_removed() {
    for page in [None, Some(1), Some(2), Some(3)] {
        let rig = Rig::new(keeping(page)).await;
        deleting_leaves_no_version(&rig.store).await;
        assert_eq!(rig.bucket.kept().values().sum::<usize>(), 3, "page of {page:?}");
    }
}

/// Whatever the bucket was when it was opened.
#[tokio::test]
async fn versions_that_were_switched_on_later_are_removed_too() {
    let rig = Rig::new(Ways::default()).await;
    assert!(!rig.store.abilities().keeps_versions);
    rig.store.put(&key("x"), body(1)).await.unwrap();
    rig.bucket.change(|ways| ways.versions = true);
    rig.store.overwrite(&key("x"), body(2)).await.unwrap();
    rig.store.delete(&key("x")).await.unwrap();
    assert!(rig.bucket.kept().is_empty(), "{:?}", rig.bucket.kept());
}

#[tokio::test]
async fn a_purge_that_was_cut_short_shows_nothing_and_can_be_repeated() {
    let rig = Rig::new(keeping(None)).await;
    rig.store.put(&key("x"), body(1)).await.unwrap();
    rig.bucket.change(|ways| {
        ways.forbidden.insert("DeleteObjectVersion");
    });
    let cut = rig.store.delete(&key("x")).await;
    assert!(matches!(cut, Err(StoreError::Denied(_))), "{cut:?}");
    let gone = rig.store.get(&key("x"), ByteRange::Full).await;
    assert!(matches!(gone, Err(StoreError::NotFound)), "{gone:?}");
    rig.bucket.change(|ways| ways.forbidden.clear());
    rig.store.delete(&key("x")).await.unwrap();
    assert!(rig.bucket.kept().is_empty(), "{:?}", rig.bucket.kept());
}

#[tokio::test]
async fn versions_are_told_where_they_are_kept() {
    for versions in [false, true] {
        let ways = Ways {
            versions,
            ..Ways::default()
        };
        let rig = Rig::new(ways).await;
        let put = rig.store.put(&key("x"), body(1)).await.unwrap();
        assert_eq!(put.0.is_empty(), !versions);
        assert_eq!(rig.store.head(&key("x")).await.unwrap().version, put);
    }
}

#[tokio::test]
async fn uploads_are_listed_over_many_pages() {
    let rig = Rig::new(keeping(Some(2))).await;
    let mut begun = Vec::new();
    for name in ["u/a", "u/a", "u/b", "u/c", "u/c"] {
        begun.push((key(name), rig.store.begin(&key(name)).await.unwrap()));
    }
    rig.store.begin(&key("v")).await.unwrap();
    let listed = rig.store.uploads("u/").await.unwrap();
    let listed: Vec<_> = listed.into_iter().map(|(key, id, _)| (key, id)).collect();
    assert_eq!(listed, begun);
}
