use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::{
    blob::{
        local::LocalStore,
        suite::{Capabilities, Subject},
    },
    testing::{clock::TestClock, rng::SeededRng},
};

mod promises {
    use super::*;

    async fn make() -> Subject {
        let (root, store, _) = faulty().await;
        Subject::new(store, Capabilities::ALL, "", root)
    }

    // Without faults, nobody can tell the difference.
    crate::blob_store_suite!(make);
}

async fn faulty() -> (TempDir, FaultyStore<LocalStore>, Faults) {
    let root = TempDir::new().unwrap();
    let clock = Arc::new(TestClock::default());
    let store = LocalStore::open(root.path(), clock, Arc::new(SeededRng::new(2)))
        .await
        .unwrap();
    let (store, faults) = FaultyStore::new(store);
    (root, store, faults)
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::parse(name).unwrap()
}

fn body() -> Bytes {
    Bytes::from_static(b"0123456789")
}

async fn read(store: &impl BlobStore, name: &str) -> Result<Bytes, StoreError> {
    Ok(store.get(&key(name), ByteRange::Full).await?.bytes)
}

#[tokio::test]
async fn a_failure_before_leaves_nothing_and_one_after_leaves_all() {
    let (_root, store, faults) = faulty().await;
    let before = faults.on(Operation::Put).fail_before(Failure::Full);
    assert!(matches!(
        store.put(&key("a"), body()).await,
        Err(StoreError::Full)
    ));
    assert!(matches!(read(&store, "a").await, Err(StoreError::NotFound)));
    let after = faults.on(Operation::Put).fail_after(Failure::Unavailable);
    assert!(matches!(
        store.put(&key("a"), body()).await,
        Err(StoreError::Unavailable(_))
    ));
    assert_eq!(read(&store, "a").await.unwrap(), body());
    assert_eq!((before.fired(), after.fired(), faults.fired()), (1, 1, 2));
}

#[tokio::test]
async fn rules_choose_calls_by_kind_place_and_number() {
    let (_root, store, faults) = faulty().await;
    let rule = faults
        .on(Operation::Put)
        .below("x/")
        .nth(2)
        .times(2)
        .fail_before(Failure::Denied);
    let mut failed = Vec::new();
    for name in ["x/1", "y/1", "x/2", "y/2", "x/3", "x/4"] {
        if store.put(&key(name), body()).await.is_err() {
            failed.push(name);
        }
    }
    assert_eq!(failed, ["x/2", "x/3"]);
    assert_eq!(rule.fired(), 2);
    assert_eq!(read(&store, "x/1").await.unwrap(), body());
}

#[tokio::test]
async fn reads_are_flipped_and_cut_short() {
    let (_root, store, faults) = faulty().await;
    store.put(&key("a"), body()).await.unwrap();
    let flip = faults.on(Operation::Get).flip(3);
    assert_eq!(read(&store, "a").await.unwrap(), &b"0122456789"[..]);
    let cut = faults.on(Operation::Get).truncate(4);
    assert_eq!(read(&store, "a").await.unwrap(), &b"0123"[..]);
    let beyond = faults.on(Operation::Get).always().flip(10);
    assert_eq!(read(&store, "a").await.unwrap(), body());
    assert_eq!((flip.fired(), cut.fired(), beyond.fired()), (1, 1, 0));
}

#[tokio::test]
async fn down_is_down_until_told_otherwise() {
    let (_root, store, faults) = faulty().await;
    faults.take_down();
    for _ in 0..3 {
        assert!(matches!(
            store.put(&key("a"), body()).await,
            Err(StoreError::Unavailable(_))
        ));
    }
    assert!(store.list("", false, None, 1).await.is_err());
    faults.bring_up();
    store.put(&key("a"), body()).await.unwrap();
    assert_eq!(faults.refused_while_down(), 4);
}

#[tokio::test]
async fn calls_wait() {
    let (_root, store, faults) = faulty().await;
    let delay = faults.on_all().delay(Duration::from_millis(30));
    let impatient = tokio::time::timeout(Duration::from_millis(5), store.put(&key("a"), body())).await;
    assert!(impatient.is_err());
    assert!(
        matches!(read(&store, "a").await, Err(StoreError::NotFound)),
        "a call that was dropped while it waited"
    );
    assert_eq!(delay.fired(), 1);
}

#[tokio::test]
async fn calls_and_bytes_are_counted() {
    let (_root, store, faults) = faulty().await;
    store.put(&key("a"), body()).await.unwrap();
    store.put(&key("a"), body()).await.unwrap_err();
    store
        .get(&key("a"), ByteRange::Suffix { length: 4 })
        .await
        .unwrap();
    assert_eq!(
        faults.counters(Operation::Put),
        Counters {
            calls: 2,
            errors: 1,
            bytes_in: 20,
            bytes_out: 0
        }
    );
    assert_eq!(
        faults.counters(Operation::Get),
        Counters {
            calls: 1,
            errors: 0,
            bytes_in: 0,
            bytes_out: 4
        }
    );
    assert_eq!(
        faults.total(),
        Counters {
            calls: 3,
            errors: 1,
            bytes_in: 20,
            bytes_out: 4
        }
    );
    faults.reset_counters();
    assert_eq!(faults.total(), Counters::default());
}

#[tokio::test]
async fn a_cleared_plan_is_no_plan() {
    let (_root, store, faults) = faulty().await;
    let rule = faults.on_all().always().fail_before(Failure::Protocol);
    store.put(&key("a"), body()).await.unwrap_err();
    faults.clear();
    store.put(&key("a"), body()).await.unwrap();
    assert_eq!(rule.fired(), 1);
}
