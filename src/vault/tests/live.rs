//! A vault whose bucket asks who comes and holds them to the policy of docs/operations.md: `scripts/live_s3.sh` serves one.

use super::*;
use crate::{
    blob::{
        s3::tests::live::{guarded, operate},
        store::{ByteRange, ObjectKey, StoreError},
    },
    vault::Kind,
};

/// One test: what it does to the keys, it does to everybody's.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a server: scripts/live_s3.sh"]
async fn the_documented_policy_is_enough_and_keys_may_change_under_a_running_vault() {
    let keep = tempfile::tempdir().unwrap();
    for bucket in ["guarded", "guarded-versions"] {
        let bench = Bench::over_s3(guarded(bucket, &keep).await);
        let store = Arc::clone(&bench.store);
        survives_the_loss_of_the_index(bench).await;
        nothing_else_may_be_removed(&*store).await;
    }
    keys_change(Bench::over_s3(guarded("guarded-keys", &keep).await)).await;
}

/// Or the policy is not the least.
async fn nothing_else_may_be_removed(store: &dyn BlobStore) {
    for prefix in ["log/", "payloads/", "vault/"] {
        let listing = store.list(prefix, false, None, 1_000).await.unwrap();
        let kept = |key: &&ObjectKey| !key.as_str().contains(".p/");
        let keys: Vec<_> = listing.objects.into_iter().map(|object| object.key).collect();
        let key = keys.iter().find(kept).expect(prefix);
        let refused = store.delete(key).await;
        assert!(
            matches!(refused, Err(StoreError::Denied(_))),
            "{key:?}: {refused:?}"
        );
        store.get(key, ByteRange::Full).await.unwrap();
    }
}

async fn keys_change(bench: Bench) {
    let index = Arc::new(MemoryIndex::default());
    let opened = bench.open(&index).await;
    let vault = &opened.vault;
    make_tenant(vault).await;
    let put = async |request: &str| {
        let mut spec = spec(request);
        spec.draft.descriptor.external_id = None;
        let mut put = vault.begin_put(spec).await?;
        put.write(Bytes::from_static(b"a call")).await?;
        put.finish(Closing::default()).await
    };
    put("r-0").await.unwrap();
    operate("rotate");
    let refused = put("r-1").await.unwrap_err();
    assert_eq!(
        (refused.kind, refused.reason),
        (Kind::Unavailable, "STORE_DENIED")
    );
    operate("renew");
    // Others are looked for at most once a second.
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    put("r-1").await.unwrap();
    opened.close().await;
}
