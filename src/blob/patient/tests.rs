use std::sync::Arc;

use tempfile::TempDir;

use super::*;
use crate::{
    blob::{
        local::LocalStore,
        suite::{Capabilities, Subject},
    },
    testing::{
        clock::TestClock,
        faulty::{Failure, Faults, FaultyStore, Operation},
        rng::SeededRng,
    },
};

type Subjected = Patient<FaultyStore<LocalStore>>;

mod promises {
    use super::*;

    async fn make() -> Subject {
        let (root, store, _) = patient().await;
        Subject::new(store, Capabilities::ALL, "", root)
    }

    // Over a store without faults, nobody can tell the difference.
    crate::blob_store_suite!(make);
}

async fn patient() -> (TempDir, Subjected, Faults) {
    let root = TempDir::new().unwrap();
    let store = LocalStore::open(
        root.path(),
        Arc::new(TestClock::default()),
        Arc::new(SeededRng::new(3)),
    );
    let (store, faults) = FaultyStore::new(store.await.unwrap());
    let patience = Patience {
        pause: Duration::from_millis(1),
        ..Patience::default()
    };
    (root, Patient::new(Arc::new(store), patience), faults)
}

fn key() -> ObjectKey {
    ObjectKey::parse("a").unwrap()
}

async fn holding() -> (TempDir, Subjected, Faults) {
    let (root, store, faults) = patient().await;
    store
        .put(&key(), Bytes::from_static(b"0123456789"))
        .await
        .unwrap();
    (root, store, faults)
}

const MIDDLE: ByteRange = ByteRange::Exact { offset: 2, length: 3 };

#[tokio::test]
async fn a_read_is_tried_four_times_and_no_more() {
    let (_root, store, faults) = holding().await;
    faults
        .on(Operation::Get)
        .times(3)
        .fail_before(Failure::Unavailable);
    assert_eq!(store.get(&key(), MIDDLE).await.unwrap().bytes, &b"234"[..]);
    assert_eq!(faults.calls(Operation::Get), 4);
    faults
        .on(Operation::Get)
        .times(4)
        .fail_before(Failure::Unavailable);
    assert!(matches!(
        store.get(&key(), MIDDLE).await,
        Err(StoreError::Unavailable(_))
    ));
    assert_eq!(faults.calls(Operation::Get), 8);
    faults.clear();
    faults.take_down();
    assert!(store.head(&key()).await.is_err());
    assert!(store.list("", false, None, 1).await.is_err());
    assert!(store.uploads("").await.is_err());
    assert_eq!(faults.refused_while_down(), 12);
}

#[tokio::test]
async fn what_asking_again_would_not_change_is_asked_once() {
    let (_root, store, faults) = holding().await;
    for failure in [Failure::Denied, Failure::NotFound] {
        let before = faults.calls(Operation::Get);
        faults.on(Operation::Get).fail_before(failure);
        store.get(&key(), MIDDLE).await.unwrap_err();
        assert_eq!(faults.calls(Operation::Get), before + 1);
    }
    faults.on(Operation::Put).fail_before(Failure::Unavailable);
    store
        .put(&ObjectKey::parse("b").unwrap(), Bytes::from_static(b"b"))
        .await
        .unwrap_err();
    assert_eq!(
        faults.calls(Operation::Put),
        2,
        "a write is its caller's business"
    );
}

#[tokio::test]
async fn an_answer_of_a_wrong_length_is_asked_for_again_and_never_given() {
    let (_root, store, faults) = holding().await;
    for range in [MIDDLE, ByteRange::Full, ByteRange::Suffix { length: 4 }] {
        let right = store.get(&key(), range).await.unwrap().bytes;
        let rule = || faults.on(Operation::Get);
        for forever in [false, true] {
            let times = if forever { u64::MAX } else { 1 };
            let rules: [&dyn Fn(); 4] = [
                &|| drop(rule().times(times).lengthen(1)),
                &|| drop(rule().times(times).truncate(1)),
                &|| drop(rule().times(times).truncate(0)),
                &|| drop(rule().times(times).misstate(3)),
            ];
            for (n, inject) in rules.into_iter().enumerate() {
                inject();
                match store.get(&key(), range).await {
                    Ok(read) => assert!(!forever && read.bytes == right, "{range:?} {n}"),
                    Err(error) => assert!(
                        forever && matches!(error, StoreError::Protocol(_)),
                        "{range:?} {n} {error:?}"
                    ),
                }
                assert!(faults.fired() > 0);
                faults.clear();
            }
        }
    }
}

#[tokio::test]
async fn a_call_that_hangs_is_ended() {
    let (_root, mut store, faults) = holding().await;
    store.patience.read = Duration::from_millis(500);
    faults.on(Operation::Get).hang();
    assert_eq!(
        store.get(&key(), MIDDLE).await.unwrap().bytes,
        &b"234"[..],
        "a read is tried again"
    );
    let short = Duration::from_millis(10);
    store.patience = Patience {
        read: short,
        call: short,
        complete: short,
        ..store.patience
    };
    faults.on_all().always().hang();
    let upload = UploadId("u".to_owned());
    let body = Bytes::from_static(b"b");
    let ended = [
        store.put(&key(), body.clone()).await.err(),
        store.overwrite(&key(), body.clone()).await.err(),
        store.begin(&key()).await.err(),
        store.put_part(&key(), &upload, 1, 0, body).await.err(),
        store.complete(&key(), &upload, &[]).await.err(),
        store.abort(&key(), &upload).await.err(),
        store.uploads("").await.err(),
        store.get(&key(), MIDDLE).await.err(),
        store.head(&key()).await.err(),
        store.delete(&key()).await.err(),
        store.list("", false, None, 1).await.err(),
    ];
    for (n, error) in ended.into_iter().enumerate() {
        assert!(matches!(error, Some(StoreError::Unavailable(_))), "{n} {error:?}");
    }
}
