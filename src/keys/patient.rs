//! A root provider whose calls all end.

use std::{
    future::Future,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::{self, Instant};

use crate::crypto::secret::EpochKey;

use super::provider::{Anchor, Destruction, EpochGrant, EpochLabel, ProviderError, RootProvider};

/// Longest wait for an anchor to be set: everything that is to reach the log waits for it.
const LONGEST_ADVANCE: Duration = Duration::from_secs(5);
/// After an anchor that was not set, none is tried for this long. One that lags is safe; a log that stands still is not.
const REST: Duration = Duration::from_secs(30);

/// Gives up waiting for a provider that does not answer. What was asked may be done all the same: calls are idempotent.
#[derive(Debug)]
pub struct PatientRoot<P> {
    inner: P,
    longest: Duration,
    rest: Duration,
    resting_since: Mutex<Option<Instant>>,
}

impl<P: RootProvider> PatientRoot<P> {
    /// Waits this long for an answer.
    pub fn new(inner: P, longest: Duration) -> Self {
        Self {
            inner,
            longest,
            rest: REST,
            resting_since: Mutex::new(None),
        }
    }

    fn resting(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.resting_since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn within<T>(
        longest: Duration,
        asked: impl Future<Output = Result<T, ProviderError>> + Send,
    ) -> Result<T, ProviderError> {
        match time::timeout(longest, asked).await {
            Ok(answered) => answered,
            Err(_) => Err(ProviderError::unavailable(format!(
                "no answer within {} s",
                longest.as_secs_f32()
            ))),
        }
    }
}

#[async_trait]
impl<P: RootProvider> RootProvider for PatientRoot<P> {
    fn kind(&self) -> &'static str {
        self.inner.kind()
    }

    async fn create_epoch(&self, label: EpochLabel) -> Result<EpochGrant, ProviderError> {
        Self::within(self.longest, self.inner.create_epoch(label)).await
    }

    async fn unwrap(&self, label: EpochLabel, grant: &EpochGrant) -> Result<EpochKey, ProviderError> {
        Self::within(self.longest, self.inner.unwrap(label, grant)).await
    }

    async fn destroy(&self, label: EpochLabel, handle: &str) -> Result<Destruction, ProviderError> {
        Self::within(self.longest, self.inner.destroy(label, handle)).await
    }

    async fn destruction(
        &self,
        label: EpochLabel,
        handle: &str,
    ) -> Result<Option<Destruction>, ProviderError> {
        Self::within(self.longest, self.inner.destruction(label, handle)).await
    }

    async fn anchor(&self) -> Result<Option<Anchor>, ProviderError> {
        Self::within(self.longest, self.inner.anchor()).await
    }

    async fn advance(&self, anchor: &Anchor) -> Result<(), ProviderError> {
        if self.resting().is_some_and(|since| since.elapsed() < self.rest) {
            return Err(ProviderError::unavailable(
                "it did not set the last anchor; it is asked again soon",
            ));
        }
        let longest = self.longest.min(LONGEST_ADVANCE);
        let advanced = Self::within(longest, self.inner.advance(anchor)).await;
        *self.resting() = advanced.is_err().then(Instant::now);
        advanced
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        crypto::rng::SystemRng,
        domain::{clock::Timestamp, ids::VaultId},
        keys::{file::FileRoot, suite::Subject},
        testing::root::{FaultyRoot, Manner},
    };

    fn file(dir: &std::path::Path) -> FileRoot {
        FileRoot::open(&dir.join("root"), Arc::new(SystemRng::new())).unwrap()
    }

    mod promises {
        use super::*;

        async fn make() -> Subject {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().to_owned();
            let open = move || {
                let path = path.clone();
                async move { PatientRoot::new(file(&path), Duration::from_secs(30)) }
            };
            Subject::new(open, dir).await
        }

        crate::root_provider_suite!(make);
    }

    #[tokio::test]
    async fn a_provider_that_never_answers_is_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let faulty = FaultyRoot::over(Arc::new(file(dir.path())));
        let root = PatientRoot {
            rest: Duration::from_secs(1),
            ..PatientRoot::new(faulty.clone(), Duration::from_millis(50))
        };
        let vault = VaultId::mint(Timestamp(1), &SystemRng::new()).unwrap();
        let label = EpochLabel { vault, epoch: 1 };
        let grant = root.create_epoch(label).await.unwrap();
        faulty.behave(Manner::Silent);
        let anchor = Anchor {
            vault,
            region_seq: 1,
            heads: Vec::new(),
        };
        let late = |refused: ProviderError| match refused {
            ProviderError::Unavailable(why) => why.to_string().contains("no answer within 0.05 s"),
            _ => false,
        };
        assert!(late(root.unwrap(label, &grant).await.unwrap_err()));
        assert!(late(root.create_epoch(label).await.unwrap_err()));
        assert!(late(root.destroy(label, "").await.unwrap_err()));
        assert!(late(root.destruction(label, "").await.unwrap_err()));
        assert!(late(root.anchor().await.unwrap_err()));
        // What the log waits for is not waited for again and again.
        let began = Instant::now();
        assert!(late(root.advance(&anchor).await.unwrap_err()));
        faulty.behave(Manner::Good);
        let resting = root.advance(&anchor).await.unwrap_err();
        assert!(began.elapsed() >= root.rest || !late(resting));
        time::sleep(root.rest).await;
        root.advance(&anchor).await.unwrap();
        assert_eq!(root.anchor().await.unwrap(), Some(anchor));
    }
}
