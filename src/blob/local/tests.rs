//! What only a directory can get wrong.

mod full;

use std::{fs, path::Path};

use tempfile::TempDir;

use super::*;
use crate::{
    blob::suite::{Capabilities, Subject},
    domain::clock::Timestamp,
    testing::{clock::TestClock, rng::SeededRng},
};

mod promises {
    use super::*;

    async fn make() -> Subject {
        let root = TempDir::new().unwrap();
        Subject::new(open(root.path()).await, Capabilities::ALL, "", root)
    }

    crate::blob_store_suite!(make);
}

async fn open(root: &Path) -> LocalStore {
    LocalStore::open(root, Arc::new(TestClock::default()), Arc::new(SeededRng::new(1)))
        .await
        .unwrap()
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::parse(name).unwrap()
}

fn body(length: usize) -> Bytes {
    Bytes::from(vec![0xa5; length])
}

/// Names of the files in `staging`, sorted.
fn staged(root: &Path) -> Vec<String> {
    let names = fs::read_dir(root.join("staging")).unwrap();
    let mut names: Vec<_> = names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn leftovers_of_puts_are_cleared_and_uploads_stay() {
    let root = TempDir::new().unwrap();
    let store = open(root.path()).await;
    let upload = store.begin(&key("up")).await.unwrap();
    drop(store);
    let staging = root.path().join("staging");
    let id = |n: u8| hex::encode([n; 16]);
    fs::write(staging.join(format!("{}.put", id(1))), b"half a bo").unwrap();
    fs::write(
        staging.join(format!("{}.data", id(2))),
        b"parts without a sidecar",
    )
    .unwrap();
    fs::write(
        staging.join(format!("{}.upload", id(3))),
        b"a sidecar without parts",
    )
    .unwrap();
    fs::write(staging.join(format!("{}.data", id(4))), b"").unwrap();
    fs::write(staging.join(format!("{}.upload", id(4))), b"CVU1torn").unwrap();
    fs::write(staging.join("README"), b"not ours").unwrap();
    let store = open(root.path()).await;
    let uploads = store.uploads("").await.unwrap();
    assert_eq!(
        uploads,
        [(key("up"), upload.clone(), TestClock::default().now().micros())]
    );
    assert_eq!(staged(root.path()).len(), 3, "{:?}", staged(root.path()));
    store.abort(&key("up"), &upload).await.unwrap();
    assert_eq!(staged(root.path()), ["README"]);
}

#[tokio::test]
async fn staging_files_in_use_are_not_cleared() {
    let root = TempDir::new().unwrap();
    let _first = open(root.path()).await;
    let in_use = root
        .path()
        .join("staging")
        .join(format!("{}.put", hex::encode([9; 16])));
    fs::write(&in_use, b"being written").unwrap();
    let _second = open(root.path()).await;
    assert!(in_use.exists());
}

#[tokio::test]
async fn nothing_stays_in_staging() {
    let root = TempDir::new().unwrap();
    let store = open(root.path()).await;
    store.put(&key("a/b"), body(10)).await.unwrap();
    store.put(&key("a/b"), body(10)).await.unwrap_err();
    store.overwrite(&key("a/b"), body(11)).await.unwrap();
    let upload = store.begin(&key("a/c")).await.unwrap();
    let part = store
        .put_part(&key("a/c"), &upload, 1, 0, body(12))
        .await
        .unwrap();
    store.complete(&key("a/c"), &upload, &[part]).await.unwrap();
    assert!(staged(root.path()).is_empty());
    store.delete(&key("a/b")).await.unwrap();
    store.delete(&key("a/c")).await.unwrap();
    assert_eq!(fs::read_dir(root.path().join("objects")).unwrap().count(), 0);
}

#[tokio::test]
async fn an_upload_goes_on_after_a_restart() {
    let root = TempDir::new().unwrap();
    let store = open(root.path()).await;
    let upload = store.begin(&key("up")).await.unwrap();
    let first = store
        .put_part(&key("up"), &upload, 1, 0, body(100))
        .await
        .unwrap();
    drop(store);
    let store = open(root.path()).await;
    let second = store
        .put_part(&key("up"), &upload, 2, 100, body(50))
        .await
        .unwrap();
    drop(store);
    let store = open(root.path()).await;
    store
        .complete(&key("up"), &upload, &[first, second])
        .await
        .unwrap();
    assert_eq!(
        store.get(&key("up"), ByteRange::Full).await.unwrap().bytes,
        body(150)
    );
    drop(store);
    let again = open(root.path()).await.complete(&key("up"), &upload, &[]).await;
    assert!(matches!(again, Err(StoreError::UploadNotFound)));
}

#[tokio::test]
async fn a_torn_note_is_a_missing_part() {
    let root = TempDir::new().unwrap();
    let store = open(root.path()).await;
    let upload = store.begin(&key("up")).await.unwrap();
    let part = store
        .put_part(&key("up"), &upload, 1, 0, body(100))
        .await
        .unwrap();
    drop(store);
    let sidecar = root.path().join("staging").join(format!("{}.upload", upload.0));
    let mut bytes = fs::read(&sidecar).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&sidecar, bytes).unwrap();
    let store = open(root.path()).await;
    let refused = store.complete(&key("up"), &upload, &[part]).await;
    assert!(matches!(refused, Err(StoreError::Protocol("part missing"))));
    let part = store
        .put_part(&key("up"), &upload, 1, 0, body(100))
        .await
        .unwrap();
    store.complete(&key("up"), &upload, &[part]).await.unwrap();
}

/// The fallback where the file system cannot rename without replacing, and a crash in its middle.
#[tokio::test]
async fn a_completed_upload_with_two_names_is_no_upload() {
    let root = TempDir::new().unwrap();
    let store = open(root.path()).await;
    let upload = store.begin(&key("up")).await.unwrap();
    store
        .put_part(&key("up"), &upload, 1, 0, body(100))
        .await
        .unwrap();
    drop(store);
    let data = root.path().join("staging").join(format!("{}.data", upload.0));
    fs::hard_link(data, root.path().join("objects/up")).unwrap();
    let store = open(root.path()).await;
    assert!(store.uploads("").await.unwrap().is_empty());
    assert!(staged(root.path()).is_empty());
    assert_eq!(
        store.get(&key("up"), ByteRange::Full).await.unwrap().bytes,
        body(100)
    );
}

#[test]
fn linking_refuses_to_replace_and_leaves_one_name() {
    let root = TempDir::new().unwrap();
    fs::write(root.path().join("new"), b"new").unwrap();
    let directory: std::os::fd::OwnedFd = fs::File::open(root.path()).unwrap().into();
    place::link(&directory, "new", &directory, "object").unwrap();
    assert!(!root.path().join("new").exists());
    fs::write(root.path().join("other"), b"other").unwrap();
    assert_eq!(
        place::link(&directory, "other", &directory, "object"),
        Err(rustix::io::Errno::EXIST)
    );
    assert_eq!(fs::read(root.path().join("object")).unwrap(), b"new");
}

/// A call whose future was dropped may run late; it must not undo the one that took its place.
#[tokio::test]
async fn a_late_part_does_not_undo_its_successor() {
    let root = TempDir::new().unwrap();
    let store = open(root.path()).await;
    let id = store.begin(&key("up")).await.unwrap();
    let late = store.inner.uploads.ticket();
    let part = store.put_part(&key("up"), &id, 1, 0, body(100)).await.unwrap();
    let staging = &store.inner.staging;
    let upload = store.inner.uploads.find(staging, &key("up"), &id).unwrap();
    upload.put_part(staging, late, 1, 0, &[0; 100]).unwrap();
    store.complete(&key("up"), &id, &[part]).await.unwrap();
    assert_eq!(
        store.get(&key("up"), ByteRange::Full).await.unwrap().bytes,
        body(100)
    );
    assert!(matches!(
        upload.put_part(staging, late + 9, 1, 0, &[0; 100]),
        Err(StoreError::UploadNotFound)
    ));
}

#[tokio::test]
async fn links_are_not_followed() {
    let outside = TempDir::new().unwrap();
    fs::write(outside.path().join("secret"), b"secret").unwrap();
    let root = TempDir::new().unwrap();
    let store = open(root.path()).await;
    let objects = root.path().join("objects");
    std::os::unix::fs::symlink(outside.path(), objects.join("dir")).unwrap();
    std::os::unix::fs::symlink(outside.path().join("secret"), objects.join("file")).unwrap();
    for name in ["dir/secret", "file", "dir"] {
        assert!(
            matches!(
                store.get(&key(name), ByteRange::Full).await,
                Err(StoreError::NotFound)
            ),
            "{name}"
        );
        assert!(
            matches!(store.head(&key(name)).await, Err(StoreError::NotFound)),
            "{name}"
        );
    }
    assert!(store.list("", false, None, 10).await.unwrap().objects.is_empty());
    assert!(
        store
            .list("dir/", true, None, 10)
            .await
            .unwrap()
            .objects
            .is_empty()
    );
    assert!(matches!(
        store.put(&key("dir/new"), body(1)).await,
        Err(StoreError::InvalidKey)
    ));
    store.delete(&key("dir/secret")).await.unwrap();
    assert!(outside.path().join("secret").exists() && !outside.path().join("new").exists());
}

#[tokio::test]
async fn an_object_has_no_objects_below_it() {
    let root = TempDir::new().unwrap();
    let store = open(root.path()).await;
    store.put(&key("a/b"), body(1)).await.unwrap();
    assert!(matches!(
        store.put(&key("a/b/c"), body(1)).await,
        Err(StoreError::InvalidKey)
    ));
    assert!(matches!(
        store.put(&key("a"), body(1)).await,
        Err(StoreError::InvalidKey)
    ));
    assert!(matches!(
        store.overwrite(&key("a"), body(1)).await,
        Err(StoreError::InvalidKey)
    ));
    assert!(staged(root.path()).is_empty());
}

#[tokio::test]
async fn a_directory_of_more_than_one_batch_is_listed_whole() {
    let root = TempDir::new().unwrap();
    let store = open(root.path()).await;
    let directory = root.path().join("objects/many");
    fs::create_dir(&directory).unwrap();
    for n in 0..1_500 {
        fs::create_dir(directory.join(format!("empty-{n:04}"))).unwrap();
    }
    for n in 0..2_500 {
        fs::write(directory.join(format!("object-{n:04}")), b"x").unwrap();
    }
    let (mut names, mut next) = (Vec::new(), None::<String>);
    loop {
        let page = store.list("many/", true, next.as_deref(), 1_000).await.unwrap();
        assert!(page.prefixes.is_empty());
        names.extend(page.objects.into_iter().map(|o| o.key.to_string()));
        next = page.next;
        if next.is_none() {
            break;
        }
    }
    let expected: Vec<_> = (0..2_500).map(|n| format!("many/object-{n:04}")).collect();
    assert_eq!(names, expected);
}

#[tokio::test]
async fn without_randomness_nothing_is_written() {
    let root = TempDir::new().unwrap();
    let rng = SeededRng::default();
    let store = LocalStore::open(
        root.path(),
        Arc::new(TestClock::new(Timestamp(0))),
        Arc::new(rng.clone()),
    )
    .await
    .unwrap();
    rng.set_broken(true);
    assert!(matches!(
        store.put(&key("a"), body(1)).await,
        Err(StoreError::Unavailable(_))
    ));
    assert!(matches!(
        store.begin(&key("a")).await,
        Err(StoreError::Unavailable(_))
    ));
}
