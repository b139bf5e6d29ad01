//! The root moves from one provider to another, whatever dies or lies in between.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use async_trait::async_trait;

use crate::{
    crypto::secret::EpochKey,
    domain::{erasure::Target, ids::RecordId},
    keys::{
        aws_kms::AwsKmsRoot,
        patient::PatientRoot,
        provider::{Anchor, Destruction, EpochGrant, EpochLabel, ProviderError},
    },
    testing::{
        kms::Service,
        root::{FaultyRoot, Manner},
        world,
    },
};

use super::{
    erasure::record_call,
    rotation::{ended, read, turn},
    sweep::{Mortal, dead, erased, is_final, old_copy_opens, sweep},
    *,
};

const DAYS: i64 = 8;
const DAY_MICROS: i64 = 24 * 3_600 * 1_000_000;

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    ToKms,
    ToFile,
}

/// A bench, and a second root to move to.
struct Move {
    bench: Bench,
    service: Service,
    from: Arc<dyn RootProvider>,
    to: Arc<dyn RootProvider>,
    file: Arc<FileRoot>,
}

impl Move {
    async fn new(way: Way) -> Self {
        let (bench, service) = (Bench::new().await, Service::new());
        let settings = Service::settings(&service.serve().await, bench._dir.path());
        let kms = AwsKmsRoot::open(settings, Arc::clone(&bench.rng)).await.unwrap();
        let kms: Arc<dyn RootProvider> = Arc::new(kms);
        let file = Arc::clone(&bench.root);
        let (from, to): (Arc<dyn RootProvider>, _) = match way {
            Way::ToKms => (Arc::clone(&file) as _, kms),
            Way::ToFile => (kms, Arc::clone(&file) as _),
        };
        Self {
            bench,
            service,
            from,
            to,
            file,
        }
    }

    async fn open(&self, index: &MemoryIndex, root: impl Into<Providers>) -> Result<Opened, OpenError> {
        self.bench
            .open_all(Arc::new(index.clone()), root, 256 << 20)
            .await
    }

    fn moving(&self) -> Providers {
        Providers::one(Arc::clone(&self.from)).moving_to(Arc::clone(&self.to))
    }

    fn moved(&self) -> Providers {
        Providers::one(Arc::clone(&self.to)).with(Arc::clone(&self.from))
    }

    async fn store(&self, name: &str) -> Arc<dyn BlobStore> {
        let clock = Arc::clone(&self.bench.clock) as _;
        let path = self.bench._dir.path().join(name);
        let store = LocalStore::open(&path, clock, Arc::clone(&self.bench.rng)).await;
        Arc::new(store.unwrap())
    }

    async fn copy_of_bucket(&self, name: &str) -> Arc<dyn BlobStore> {
        let dir = self.bench._dir.path();
        world::copy(&dir.join("bucket"), &dir.join(name)).unwrap();
        self.store(name).await
    }

    async fn migrate(&self, index: &MemoryIndex) -> Result<Moved, Error> {
        let opened = self.open(index, self.moving()).await.unwrap();
        let moved = opened.vault.migrate_root("operator").await;
        opened.close().await;
        moved
    }

    /// Sweeps, and lets the time come in which KMS has deleted what it was asked to.
    async fn sweep(&self, vault: &Arc<Vault>) {
        assert_eq!(sweep(vault).await.state, OperationState::Succeeded);
        self.service.pass_days(DAYS);
        self.bench.clock.advance(DAYS * DAY_MICROS);
        vault.finish_scheduled().await.unwrap();
    }

    /// No epoch but the newest is with anybody.
    async fn only_the_newest_lives(&self, vault: &Vault) {
        let epochs = vault.root_epochs().await.unwrap();
        let (newest, older) = epochs.split_last().unwrap();
        assert_eq!(newest.provider, self.to.kind());
        for epoch in older {
            assert_eq!(epoch.state, KeyState::Destroyed, "{epoch:?}");
        }
        let grant = EpochGrant {
            handle: String::new(),
            wrapped: vec![0; 60],
        };
        for epoch in 1..newest.epoch + 3 {
            let label = vault.label(epoch);
            let file = self.file.unwrap(label, &grant).await.unwrap_err();
            let lives = newest.epoch == epoch && self.to.kind() == self.file.kind();
            assert_eq!(
                matches!(file, ProviderError::NoSuchKey),
                !lives,
                "{epoch} {file:?}"
            );
        }
        let in_kms = self.service.states();
        let living = usize::from(self.to.kind() != self.file.kind());
        // And the anchor's key.
        assert_eq!(in_kms, vec!["Enabled"; 1 + living]);
    }
}

/// What was there before a root moved.
struct Story {
    tenant: TenantId,
    kept: RecordId,
    gone: RecordId,
    erasure: Erasure,
    /// An index of before.
    old: MemoryIndex,
    /// A bucket of before, whose newest leaves are not in it.
    older: Arc<dyn BlobStore>,
    /// The bucket as it was when the move began.
    eve: Arc<dyn BlobStore>,
    /// One that has nothing in it.
    empty: Arc<dyn BlobStore>,
}

impl Story {
    async fn happen(of: &Move, index: &MemoryIndex) -> Self {
        let opened = of.open(index, Arc::clone(&of.from)).await.unwrap();
        let vault = &opened.vault;
        let tenant = make_tenant(vault).await;
        let (kept, gone) = (record_call(vault, 1).await, record_call(vault, 2).await);
        opened.close().await;
        let old = index.snapshot();
        let older = of.copy_of_bucket("older").await;
        let opened = of.open(index, Arc::clone(&of.from)).await.unwrap();
        let erasure = erased(&opened.vault, Target::Records(vec![gone.id])).await;
        opened.close().await;
        Self {
            tenant,
            kept: kept.id,
            gone: gone.id,
            erasure,
            old,
            older,
            eve: of.copy_of_bucket("eve").await,
            empty: of.store("empty").await,
        }
    }

    async fn is_whole(&self, vault: &Arc<Vault>) {
        assert_eq!(read(vault, self.kept).await, b"what was said in call 1");
        assert_eq!(vault.verify().await.unwrap().findings, vec![]);
    }

    /// A bucket of before is refused, whoever is named.
    async fn is_refused(&self, bucket: &Arc<dyn BlobStore>, of: &Move, n: i64) {
        for providers in [
            Providers::one(Arc::clone(&of.from)),
            Providers::one(Arc::clone(&of.to)),
            of.moving(),
            of.moved(),
        ] {
            let (store, index) = (Arc::clone(bucket), Arc::new(MemoryIndex::default()));
            let refused = of.bench.open_store(store, index, providers, 256 << 20).await;
            match refused.map(|_| ()) {
                Err(OpenError::BucketBehind(_) | OpenError::OtherProvider { .. }) => {}
                other => panic!("{n}: {other:?}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_moves_and_no_record_or_tenants_page_is_touched() {
    for way in [Way::ToKms, Way::ToFile] {
        let of = Move::new(way).await;
        let index = MemoryIndex::default();
        let story = Story::happen(&of, &index).await;
        let list = |below: &'static str| of.bench.store.list(below, false, None, 1_000);
        let blobs = list("blobs/").await.unwrap().objects;
        let moved = of.migrate(&index).await.unwrap();
        assert_eq!(
            moved,
            Moved {
                moved: true,
                to: of.to.kind().to_owned(),
                epoch: 2,
                left: vec![(1, of.from.kind().to_owned())],
            }
        );
        assert_eq!(list("blobs/").await.unwrap().objects, blobs);
        // Again: there is nothing to do, and nothing is done.
        let again = of.migrate(&index).await.unwrap();
        assert_eq!(
            again,
            Moved {
                moved: false,
                ..moved
            }
        );
        for bucket in [&story.older, &story.eve, &story.empty] {
            story.is_refused(bucket, &of, 0).await;
        }
        for index in [index.clone(), MemoryIndex::default(), story.old.snapshot()] {
            let alone = Providers::one(Arc::clone(&of.from));
            for wrong in [alone.clone(), alone.with(Arc::clone(&of.to))] {
                let refused = of.open(&index, wrong).await.unwrap_err();
                let text = refused.to_string();
                let held = format!("set root.provider to {}", of.to.kind());
                assert!(matches!(refused, OpenError::OtherProvider { .. }), "{text}");
                assert!(text.contains(&held), "{text}");
            }
            let opened = of.open(&index, of.moved()).await.unwrap();
            let vault = &opened.vault;
            story.is_whole(vault).await;
            vault.check_root().await.unwrap();
            assert_eq!(vault.warning(), None);
            let versions = vault.key_versions(&story.tenant).await.unwrap();
            assert_eq!(versions.len(), 1, "no key of a tenant is touched");
            opened.close().await;
        }
        let opened = of.open(&index, of.moved()).await.unwrap();
        let vault = &opened.vault;
        assert!(old_copy_opens(vault, &story.old, &story.tenant, story.gone).await);
        of.sweep(vault).await;
        assert!(is_final(vault, &story.erasure).await);
        assert!(!old_copy_opens(vault, &story.old, &story.tenant, story.gone).await);
        of.only_the_newest_lives(vault).await;
        story.is_whole(vault).await;
        // The old section may go now.
        opened.close().await;
        let opened = of.open(&index, Arc::clone(&of.to)).await.unwrap();
        let vault = &opened.vault;
        vault.check_root().await.unwrap();
        assert_eq!(vault.warning(), None);
        turn(vault).await;
        story.is_whole(vault).await;
        opened.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn older_epochs_whose_provider_is_not_configured_are_not_taken_for_destroyed() {
    for way in [Way::ToKms, Way::ToFile] {
        let of = Move::new(way).await;
        let index = MemoryIndex::default();
        let story = Story::happen(&of, &index).await;
        of.migrate(&index).await.unwrap();
        // Its section is gone; then it leads to a root of that kind, and to another one.
        let elsewhere = Move::new(way).await;
        for (providers, reason, warning) in [
            (
                Providers::one(Arc::clone(&of.to)),
                "ROOT_NOT_CONFIGURED",
                Some("ROOT_NOT_CONFIGURED"),
            ),
            (
                Providers::one(Arc::clone(&of.to)).with(Arc::clone(&elsewhere.from)),
                "ANOTHER_ROOT",
                None,
            ),
        ] {
            let opened = of.open(&index, providers).await.unwrap();
            let vault = &opened.vault;
            vault.check_root().await.unwrap();
            assert_eq!(vault.warning(), warning);
            assert!(vault.health().is_ok(), "it serves on");
            let begun = vault.run_sweep("keys", None).await.unwrap();
            // What the process before it was kept by is said until this one has looked.
            loop {
                let now = vault.key_operation(&begun.id, |_| true).await.unwrap();
                assert_eq!(now.state, OperationState::Running);
                if now.reason.as_deref() == Some(reason) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            story.is_whole(vault).await;
            assert!(!is_final(vault, &story.erasure).await);
            let states = vault.root_epochs().await.unwrap();
            assert!(states.iter().all(|epoch| epoch.destroyed.is_none()));
            let versions = vault.key_versions(&story.tenant).await.unwrap();
            assert_eq!(
                (states.len(), versions.len()),
                (2, 1),
                "nothing is rotated in vain"
            );
            opened.crash().await;
        }
        let opened = of.open(&index, of.moved()).await.unwrap();
        let vault = &opened.vault;
        let (running, _) = vault.key_operations(None, 10, |_| true).await.unwrap();
        for operation in &running {
            assert_eq!(ended(vault, operation).await.state, OperationState::Succeeded);
        }
        of.sweep(vault).await;
        assert!(is_final(vault, &story.erasure).await);
        of.only_the_newest_lives(vault).await;
        opened.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_that_fails_or_lies_is_not_given_the_vault() {
    for way in [Way::ToKms, Way::ToFile] {
        let of = Move::new(way).await;
        let index = MemoryIndex::default();
        let story = Story::happen(&of, &index).await;
        for manner in [
            Manner::Away,
            Manner::Refusing,
            Manner::Silent,
            Manner::Fickle,
            Manner::Forgetful,
        ] {
            let bad = FaultyRoot::over(Arc::clone(&of.to));
            let patient = PatientRoot::new(bad.clone(), Duration::from_millis(200));
            let providers = Providers::one(Arc::clone(&of.from)).moving_to(Arc::new(patient));
            let opened = of.open(&index, providers).await.unwrap();
            bad.behave(manner);
            let refused = opened.vault.migrate_root("operator").await.unwrap_err();
            assert_eq!(refused.reason, "ROOT_UNAVAILABLE", "{manner:?}");
            story.is_whole(&opened.vault).await;
            opened.crash().await;
            // Where it was: there the rotation that was begun goes on.
            let back = Providers::one(Arc::clone(&of.from)).with(Arc::clone(&of.to));
            let opened = of.open(&index, back).await.unwrap();
            let vault = &opened.vault;
            for operation in &vault.key_operations(None, 10, |_| true).await.unwrap().0 {
                assert_eq!(ended(vault, operation).await.state, OperationState::Succeeded);
            }
            story.is_whole(vault).await;
            let epochs = vault.root_epochs().await.unwrap();
            assert!(
                epochs.iter().all(|epoch| epoch.provider == of.from.kind()),
                "{epochs:?}"
            );
            opened.close().await;
        }
        assert!(of.migrate(&index).await.unwrap().moved);
        let opened = of.open(&index, of.moved()).await.unwrap();
        story.is_whole(&opened.vault).await;
        of.sweep(&opened.vault).await;
        of.only_the_newest_lives(&opened.vault).await;
        opened.close().await;
    }
}

/// A root of another vault is not written over.
#[tokio::test(flavor = "multi_thread")]
async fn a_root_does_not_move_to_where_another_vaults_is() {
    let of = Move::new(Way::ToKms).await;
    let index = MemoryIndex::default();
    Story::happen(&of, &index).await;
    let others = Move::new(Way::ToFile).await;
    let theirs = MemoryIndex::default();
    others
        .open(&theirs, Arc::clone(&others.from))
        .await
        .unwrap()
        .close()
        .await;
    let providers = Providers::one(Arc::clone(&of.from)).moving_to(Arc::clone(&others.from));
    let refused = of.open(&index, providers).await.unwrap_err();
    assert!(matches!(refused, OpenError::WrongRoot), "{refused:?}");
}

/// A root whose process dies before so many more calls.
#[derive(Debug)]
struct MortalRoot {
    inner: Arc<dyn RootProvider>,
    left: Arc<AtomicI64>,
}

impl MortalRoot {
    async fn live(&self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) <= 0 {
            std::future::pending().await
        }
    }
}

#[async_trait]
impl RootProvider for MortalRoot {
    fn kind(&self) -> &'static str {
        self.inner.kind()
    }

    async fn create_epoch(&self, label: EpochLabel) -> Result<EpochGrant, ProviderError> {
        self.live().await;
        self.inner.create_epoch(label).await
    }

    async fn unwrap(&self, label: EpochLabel, grant: &EpochGrant) -> Result<EpochKey, ProviderError> {
        self.live().await;
        self.inner.unwrap(label, grant).await
    }

    async fn destroy(&self, label: EpochLabel, handle: &str) -> Result<Destruction, ProviderError> {
        self.live().await;
        self.inner.destroy(label, handle).await
    }

    async fn destruction(
        &self,
        label: EpochLabel,
        handle: &str,
    ) -> Result<Option<Destruction>, ProviderError> {
        self.live().await;
        self.inner.destruction(label, handle).await
    }

    async fn anchor(&self) -> Result<Option<Anchor>, ProviderError> {
        self.live().await;
        self.inner.anchor().await
    }

    async fn advance(&self, anchor: &Anchor) -> Result<(), ProviderError> {
        self.live().await;
        self.inner.advance(anchor).await
    }
}

/// The process dies before the n-th change of the index or call of a provider, for every n.
#[tokio::test(flavor = "multi_thread")]
async fn wherever_a_move_of_the_root_is_cut_it_is_where_it_was_or_where_it_goes() {
    for way in [Way::ToKms, Way::ToFile] {
        let (mut before, mut after) = (0, 0);
        for n in 0.. {
            let of = Move::new(way).await;
            let index = MemoryIndex::default();
            let story = Story::happen(&of, &index).await;
            let left = Arc::new(AtomicI64::new(i64::MAX));
            let mortal = |inner: &Arc<dyn RootProvider>| {
                Arc::new(MortalRoot {
                    inner: Arc::clone(inner),
                    left: Arc::clone(&left),
                })
            };
            let providers = Providers::one(mortal(&of.from)).moving_to(mortal(&of.to));
            let dying = Mortal {
                index: index.clone(),
                left: Arc::clone(&left),
            };
            let opened = of
                .bench
                .open_all(Arc::new(dying), providers, 256 << 20)
                .await
                .unwrap();
            left.store(n, Ordering::Release);
            let done = tokio::select! {
                moved = opened.vault.migrate_root("operator") => moved.unwrap().moved,
                () = dead(&left) => false,
            };
            opened.crash().await;
            story.is_refused(&story.older, &of, n).await;

            let index = match n % 2 {
                0 => index,
                _ => MemoryIndex::default(),
            };
            let is_moved = match of.open(&index, of.moved()).await {
                Ok(opened) => {
                    story.is_whole(&opened.vault).await;
                    opened.close().await;
                    true
                }
                Err(OpenError::OtherProvider { .. }) => false,
                Err(error) => panic!("{n}: {error:?}"),
            };
            assert!(is_moved || !done, "{n}");
            match is_moved {
                true => {
                    after += 1;
                    story.is_refused(&story.empty, &of, n).await;
                }
                false => before += 1,
            }
            let back = Providers::one(Arc::clone(&of.from)).with(Arc::clone(&of.to));
            if is_moved {
                let refused = of.open(&index, back).await.unwrap_err();
                assert!(
                    matches!(refused, OpenError::OtherProvider { .. }),
                    "{n} {refused:?}"
                );
            } else if n % 3 == 0 {
                // A server is started meanwhile: what was begun becomes a rotation where the root was.
                let opened = of.open(&index, back).await.unwrap();
                let vault = &opened.vault;
                for operation in &vault.key_operations(None, 10, |_| true).await.unwrap().0 {
                    assert_eq!(ended(vault, operation).await.state, OperationState::Succeeded);
                }
                story.is_whole(vault).await;
                let newest = vault.root_epochs().await.unwrap().pop().unwrap();
                assert_eq!(newest.provider, of.from.kind(), "{n}");
                opened.close().await;
            }
            let again = of.migrate(&index).await.unwrap();
            assert_eq!((again.moved, again.to.as_str()), (!is_moved, of.to.kind()), "{n}");
            for bucket in [&story.older, &story.eve, &story.empty] {
                story.is_refused(bucket, &of, n).await;
            }
            let refused = of.open(&index, Arc::clone(&of.from)).await.unwrap_err();
            assert!(
                matches!(refused, OpenError::OtherProvider { .. }),
                "{n} {refused:?}"
            );
            let opened = of.open(&index, of.moved()).await.unwrap();
            let vault = &opened.vault;
            story.is_whole(vault).await;
            of.sweep(vault).await;
            assert!(is_final(vault, &story.erasure).await, "{n}");
            assert!(
                !old_copy_opens(vault, &story.old, &story.tenant, story.gone).await,
                "{n}"
            );
            of.only_the_newest_lives(vault).await;
            story.is_whole(vault).await;
            opened.close().await;
            if done {
                break;
            }
        }
        assert!(
            before > 10 && after > 2,
            "{before} before the pointer, {after} after it"
        );
    }
}
