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
async fn reads_come_back_longer_and_misstated() {
    let (_root, store, faults) = faulty().await;
    store.put(&key("a"), body()).await.unwrap();
    let longer = faults.on(Operation::Get).lengthen(2);
    let range = ByteRange::Exact { offset: 1, length: 3 };
    let read = store.get(&key("a"), range).await.unwrap();
    assert_eq!((&read.bytes[..], read.object_length), (&b"123\xa5\xa5"[..], 10));
    let misstated = faults.on_all().times(2).misstate(7);
    assert_eq!(store.get(&key("a"), range).await.unwrap().object_length, 7);
    assert_eq!(store.head(&key("a")).await.unwrap().length, 7);
    assert_eq!(store.head(&key("a")).await.unwrap().length, 10);
    assert_eq!((longer.fired(), misstated.fired()), (1, 2));
}

#[tokio::test]
async fn a_call_that_hangs_ends_with_its_caller() {
    let (_root, store, faults) = faulty().await;
    let before = faults.on(Operation::Put).hang();
    let after = faults.on(Operation::Put).nth(2).hang_after();
    for (name, there) in [("a", false), ("b", true)] {
        let key = key(name);
        let patience = Duration::from_millis(if there { 1_000 } else { 20 });
        let impatient = tokio::time::timeout(patience, store.put(&key, body())).await;
        assert!(impatient.is_err());
        assert_eq!(read(&store, name).await.is_ok(), there, "{name}");
    }
    assert_eq!((before.fired(), after.fired()), (1, 1));
    store.put(&key("c"), body()).await.unwrap();
}

#[tokio::test]
async fn a_call_is_made_twice_and_the_second_answers() {
    let (_root, store, faults) = faulty().await;
    let twice = faults.on(Operation::Put).twice();
    let answer = store.put(&key("a"), body()).await;
    assert!(matches!(answer, Err(StoreError::AlreadyExists)), "{answer:?}");
    assert_eq!(read(&store, "a").await.unwrap(), body());
    let upload = store.begin(&key("b")).await.unwrap();
    let again = faults.on(Operation::PutPart).twice();
    let part = store.put_part(&key("b"), &upload, 1, 0, body()).await.unwrap();
    store.complete(&key("b"), &upload, &[part]).await.unwrap();
    assert_eq!(read(&store, "b").await.unwrap(), body());
    assert_eq!((twice.fired(), again.fired()), (1, 1));
    assert_eq!(faults.calls(Operation::Put), 1, "one call, as its caller sees it");
}

#[tokio::test]
async fn what_is_slowed_down_lets_some_through() {
    let (_root, store, faults) = faulty().await;
    let slow = faults
        .on(Operation::Put)
        .nth(2)
        .every(3)
        .times(2)
        .fail_before(Failure::Unavailable);
    let mut failed = Vec::new();
    for n in 1..=8 {
        if store.put(&key(&n.to_string()), body()).await.is_err() {
            failed.push(n);
        }
    }
    assert_eq!(failed, [2, 5]);
    assert_eq!(slow.fired(), 2);
}

#[tokio::test]
async fn expired_credentials_are_denied_until_renewed() {
    let (_root, store, faults) = faulty().await;
    faults.take_down_with(Failure::Denied);
    let denied = store.head(&key("a")).await;
    assert!(matches!(denied, Err(StoreError::Denied(_))), "{denied:?}");
    assert!(matches!(store.uploads("").await, Err(StoreError::Denied(_))));
    faults.bring_up();
    store.put(&key("a"), body()).await.unwrap();
    assert_eq!(faults.refused_while_down(), 2);
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
