//! What a log that was followed has in the second store is known by its names.

use std::sync::{Arc, atomic::Ordering};

use super::*;
use crate::{
    blob::store::BlobStore,
    ledger::log::{Followed, listed},
};

fn second_store() -> Arc<TestStore> {
    let store = TestStore::new();
    store.of_copies.store(true, Ordering::SeqCst);
    store
}

#[tokio::test]
async fn a_copied_log_lacks_nothing_until_one_of_its_tiles_is_gone() {
    let (store, mut writer) = log_of(&[]).await;
    let copies = second_store();
    let to: Arc<dyn BlobStore> = Arc::clone(&copies) as _;
    let mut followed = Followed::default();
    let mut before = 0;
    // The last one has a second level of hashes that is full.
    for size in [1, 255, 256, 257, 600, 66_000] {
        writer.append(&entries(before..size)).await.unwrap();
        before = size;
        let reader = reader(&store).await.unwrap().unwrap();
        let mut seen = 0;
        followed.follow(&reader, Some(&to), |_| seen += 1).await.unwrap();
        assert!(seen > 0 && followed.head() == reader.head());
        let known = || [(name().log, size)];
        let found = listed(&*to, LogKind::State, known()).await.unwrap();
        assert_eq!(found.logs.into_iter().collect::<Vec<_>>(), [name().log]);
        assert!(found.lacking.is_empty(), "{size}");
        // From the beginning it is the same.
        let fresh: Arc<dyn BlobStore> = second_store();
        Followed::default()
            .follow(&reader, Some(&fresh), |_| ())
            .await
            .unwrap();
        let found = listed(&*fresh, LogKind::State, known()).await.unwrap();
        assert!(found.lacking.is_empty(), "{size}");
    }
    let whole = copies.snapshot();
    for lost in [
        "tile/entries/000",
        "tile/0/257.p/208",
        "tile/1/000",
        "tile/2/000.p/1",
    ] {
        copies.set(lost, None);
        let found = listed(&*to, LogKind::State, [(name().log, before)])
            .await
            .unwrap();
        assert!(found.lacking.contains(&name().log), "{lost}");
        copies.restore(whole.clone());
    }
    // Names that this program does not write are no logs.
    copies.set("x/checkpoint", Some(Bytes::new()));
    let found = listed(&*to, LogKind::State, []).await.unwrap();
    assert_eq!(found.logs.len(), 1);
}
