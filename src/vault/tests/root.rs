//! The root's provider is away, refuses, hangs or lies.

use std::time::Duration;

use super::{
    rotation::{ended, put, read, turn},
    *,
};
use crate::{
    crypto::secret::EpochKey,
    keys::{
        patient::PatientRoot,
        provider::{Anchor, Destruction, EpochGrant, EpochLabel, ProviderError, RootProvider},
    },
    testing::root::{FaultyRoot, Manner},
};

const HOUR_MICROS: i64 = 3_600 * 1_000_000;

/// A vault whose root is as bad as it is told to be.
async fn vault_over_a_faulty_root(index: &Arc<MemoryIndex>) -> (Bench, Opened, FaultyRoot) {
    let bench = Bench::new().await;
    let root = FaultyRoot::over(Arc::clone(&bench.root) as _);
    let opened = open(&bench, index, &root).await.unwrap();
    opened
        .vault
        .serve_without_root_for(Duration::from_secs(24 * 3_600));
    make_tenant(&opened.vault).await;
    (bench, opened, root)
}

async fn open(bench: &Bench, index: &Arc<MemoryIndex>, root: &FaultyRoot) -> Result<Opened, OpenError> {
    let patient = PatientRoot::new(root.clone(), Duration::from_millis(200));
    bench
        .open_all(Arc::clone(index) as _, Arc::new(patient), 256 << 20)
        .await
}

async fn refused_put(vault: &Arc<Vault>) -> Error {
    let mut another = draft("+525512345678");
    another.descriptor.external_id = None;
    let spec = PutSpec {
        draft: another,
        ..spec("r-late")
    };
    match vault.begin_put(spec).await {
        Err(error) => error,
        Ok(mut put) => {
            put.write(Bytes::from_static(b"late")).await.unwrap();
            put.finish(Closing::default()).await.unwrap_err()
        }
    }
}

async fn refused_read(vault: &Arc<Vault>, record: crate::domain::ids::RecordId) -> Error {
    let all = ContentRange {
        offset: 0,
        limit: None,
    };
    let tenant = "dev".parse().unwrap();
    let reading = vault.read(&tenant, record, all, Purpose::ServiceProvision);
    reading.await.unwrap_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_that_is_away_is_done_without_for_a_bounded_time() {
    let index = Arc::new(MemoryIndex::default());
    let (bench, opened, root) = vault_over_a_faulty_root(&index).await;
    let vault = &opened.vault;
    let record = put(vault, "r-1", b"before").await;
    vault.check_root().await.unwrap();
    assert_eq!((vault.health().is_ok(), vault.warning()), (true, None));
    for manner in [Manner::Away, Manner::Refusing, Manner::Silent] {
        root.behave(manner);
        bench.clock.advance(7 * HOUR_MICROS);
        let error = vault.check_root().await.unwrap_err();
        assert_eq!(
            (error.kind, error.reason),
            (Kind::Unavailable, "ROOT_UNAVAILABLE")
        );
        assert_eq!(
            (vault.health().is_ok(), vault.warning()),
            (true, Some("ROOT_UNAVAILABLE"))
        );
        vault.forget_stale_keys();
        assert_eq!(read(vault, record.id).await, b"before", "{manner:?}");
        let name = format!("r-{manner:?}").to_lowercase();
        put(vault, &name, b"meanwhile").await;
    }
    assert_eq!(vault.root_silence(), Duration::from_secs(21 * 3_600));
    bench.clock.advance(3 * HOUR_MICROS);
    read(vault, record.id).await;
    // One microsecond more than a day after the last answer.
    bench.clock.advance(1);
    for error in [
        vault.health().unwrap_err(),
        refused_read(vault, record.id).await,
        refused_put(vault).await,
    ] {
        assert_eq!(
            (error.kind, error.reason),
            (Kind::Unavailable, "ROOT_UNAVAILABLE")
        );
    }
    root.behave(Manner::Good);
    vault.check_root().await.unwrap();
    assert_eq!((vault.health().is_ok(), vault.warning()), (true, None));
    assert_eq!(read(vault, record.id).await, b"before");
    put(vault, "r-3", b"after").await;
    opened.close().await;
}

/// Its key is open, so nothing but this asks.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_under_way_takes_nothing_more_without_a_root() {
    let index = Arc::new(MemoryIndex::default());
    let (bench, opened, root) = vault_over_a_faulty_root(&index).await;
    let vault = &opened.vault;
    let begun = vault
        .begin_upload(BeginSpec {
            tenant: "dev".parse().unwrap(),
            actor: "uploader".into(),
            draft: draft("+525512345678"),
            request: None,
            keep: false,
        })
        .await
        .unwrap();
    root.behave(Manner::Away);
    let tenant = "dev".parse().unwrap();
    drop(vault.write_upload(&tenant, &begun.id, 0).await.unwrap());
    bench.clock.advance(25 * HOUR_MICROS);
    let error = vault.write_upload(&tenant, &begun.id, 0).await.unwrap_err();
    assert_eq!(
        (error.kind, error.reason),
        (Kind::Unavailable, "ROOT_UNAVAILABLE")
    );
    opened.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_epoch_waits_for_a_root_that_is_away_and_says_why() {
    let index = Arc::new(MemoryIndex::default());
    let (bench, opened, root) = vault_over_a_faulty_root(&index).await;
    let vault = &opened.vault;
    let record = put(vault, "r-1", b"before").await;
    for manner in [Manner::Away, Manner::Silent, Manner::Fickle] {
        root.behave(manner);
        let begun = vault.rotate_root_epoch("keys", None).await.unwrap();
        let waiting = loop {
            let now = vault.key_operation(&begun.id, |_| true).await.unwrap();
            if now.reason.is_some() {
                break now;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        assert_eq!(waiting.state, OperationState::Running);
        assert_eq!(waiting.reason.as_deref(), Some("ROOT_UNAVAILABLE"), "{manner:?}");
        assert_eq!(read(vault, record.id).await, b"before");
        let enabled = vault.root_epochs().await.unwrap();
        assert_eq!(enabled.iter().filter(|e| e.state == KeyState::Enabled).count(), 1);
        root.behave(Manner::Good);
        let done = ended(vault, &begun).await;
        assert_eq!(done.state, OperationState::Succeeded);
        assert_eq!(read(vault, record.id).await, b"before");
    }
    opened.close().await;
    let opened = bench.open(&Arc::new(MemoryIndex::default())).await;
    assert_eq!(read(&opened.vault, record.id).await, b"before");
    assert_eq!(opened.vault.verify().await.unwrap().findings, vec![]);
    opened.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_that_lies_opens_nothing_and_is_no_answer() {
    let index = Arc::new(MemoryIndex::default());
    let (bench, opened, root) = vault_over_a_faulty_root(&index).await;
    let vault = &opened.vault;
    let record = put(vault, "r-1", b"before").await;
    for manner in [Manner::Lying, Manner::Fickle] {
        root.behave(manner);
        vault.check_root().await.unwrap_err();
        assert_eq!(vault.warning(), Some("ROOT_UNAVAILABLE"));
    }
    bench.clock.advance(25 * HOUR_MICROS);
    let error = refused_read(vault, record.id).await;
    assert_eq!(error.reason, "ROOT_UNAVAILABLE");
    opened.close().await;
    for manner in [Manner::Lying, Manner::Fickle] {
        root.behave(manner);
        for index in [Arc::clone(&index), Arc::new(MemoryIndex::default())] {
            let refused = open(&bench, &index, &root).await.unwrap_err();
            assert!(
                matches!(refused, OpenError::Vault(ref e) if e.kind == Kind::Corrupt),
                "{refused:?}"
            );
        }
    }
    root.behave(Manner::Good);
    let opened = open(&bench, &index, &root).await.unwrap();
    assert_eq!(read(&opened.vault, record.id).await, b"before");
    assert_eq!(turn(&opened.vault).await.state, OperationState::Succeeded);
    opened.close().await;
}

/// What it seals while it lies would never open again.
#[tokio::test(flavor = "multi_thread")]
async fn a_vault_is_not_made_over_a_root_that_gives_another_key_each_time() {
    let bench = Bench::new().await;
    let root = FaultyRoot::over(Arc::clone(&bench.root) as _);
    root.behave(Manner::Fickle);
    let index = Arc::new(MemoryIndex::default());
    let refused = open(&bench, &index, &root).await.unwrap_err();
    assert!(
        matches!(
            refused,
            OpenError::Provider(crate::keys::provider::ProviderError::Corrupt)
        ),
        "{refused:?}"
    );
    root.behave(Manner::Good);
    open(&bench, &index, &root).await.unwrap().close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_that_is_another_provider_than_the_newest_epochs_is_refused() {
    #[derive(Debug)]
    struct Renamed(Arc<dyn RootProvider>);

    #[async_trait::async_trait]
    impl RootProvider for Renamed {
        fn kind(&self) -> &'static str {
            "pkcs11"
        }
        async fn create_epoch(&self, label: EpochLabel) -> Result<EpochGrant, ProviderError> {
            self.0.create_epoch(label).await
        }
        async fn unwrap(&self, label: EpochLabel, grant: &EpochGrant) -> Result<EpochKey, ProviderError> {
            self.0.unwrap(label, grant).await
        }
        async fn destroy(&self, label: EpochLabel, handle: &str) -> Result<Destruction, ProviderError> {
            self.0.destroy(label, handle).await
        }
        async fn destruction(
            &self,
            label: EpochLabel,
            handle: &str,
        ) -> Result<Option<Destruction>, ProviderError> {
            self.0.destruction(label, handle).await
        }
        async fn anchor(&self) -> Result<Option<Anchor>, ProviderError> {
            self.0.anchor().await
        }
        async fn advance(&self, anchor: &Anchor) -> Result<(), ProviderError> {
            self.0.advance(anchor).await
        }
    }

    let bench = Bench::new().await;
    let index = Arc::new(MemoryIndex::default());
    bench.open(&index).await.close().await;
    for index in [index, Arc::new(MemoryIndex::default())] {
        let renamed = Renamed(Arc::clone(&bench.root) as _);
        let refused = bench
            .open_all(Arc::clone(&index) as _, Arc::new(renamed), 256 << 20)
            .await
            .unwrap_err();
        let text = refused.to_string();
        assert!(text.contains("set root.provider to file"), "{text}");
    }
}
