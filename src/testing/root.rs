//! A root provider that does as it is told: also what none should.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use crate::{
    crypto::secret::EpochKey,
    keys::provider::{Anchor, Destruction, EpochGrant, EpochLabel, ProviderError, RootProvider},
};

/// How a provider behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Manner {
    /// As it should.
    #[default]
    Good,
    /// It cannot be asked.
    Away,
    /// It lets nobody in.
    Refusing,
    /// It never answers.
    Silent,
    /// It gives other keys than it wrapped, always the same.
    Lying,
    /// It gives another key each time.
    Fickle,
    /// It takes no anchor.
    Forgetful,
}

/// A provider over another, whose manner may be changed while it is in use. Clones are one.
#[derive(Clone, Debug)]
pub struct FaultyRoot {
    inner: Arc<dyn RootProvider>,
    manner: Arc<Mutex<(Manner, u8)>>,
}

impl FaultyRoot {
    /// Good at first.
    pub fn over(inner: Arc<dyn RootProvider>) -> Self {
        Self {
            inner,
            manner: Arc::default(),
        }
    }

    /// From now on it behaves so.
    pub fn behave(&self, manner: Manner) {
        self.manner.lock().unwrap_or_else(PoisonError::into_inner).0 = manner;
    }

    async fn manner(&self) -> Result<Manner, ProviderError> {
        let manner = self.manner.lock().unwrap_or_else(PoisonError::into_inner).0;
        match manner {
            Manner::Away => Err(ProviderError::unavailable("it is away")),
            Manner::Refusing => Err(ProviderError::Refused("it lets nobody in".to_owned())),
            Manner::Silent => std::future::pending().await,
            manner => Ok(manner),
        }
    }
}

#[async_trait]
impl RootProvider for FaultyRoot {
    fn kind(&self) -> &'static str {
        self.inner.kind()
    }

    async fn create_epoch(&self, label: EpochLabel) -> Result<EpochGrant, ProviderError> {
        self.manner().await?;
        self.inner.create_epoch(label).await
    }

    async fn unwrap(&self, label: EpochLabel, grant: &EpochGrant) -> Result<EpochKey, ProviderError> {
        match self.manner().await? {
            Manner::Lying => Ok(EpochKey::from_bytes([7; 32])),
            Manner::Fickle => {
                let mut manner = self.manner.lock().unwrap_or_else(PoisonError::into_inner);
                manner.1 = manner.1.wrapping_add(1);
                Ok(EpochKey::from_bytes([manner.1; 32]))
            }
            _ => self.inner.unwrap(label, grant).await,
        }
    }

    async fn destroy(&self, label: EpochLabel, handle: &str) -> Result<Destruction, ProviderError> {
        self.manner().await?;
        self.inner.destroy(label, handle).await
    }

    async fn destruction(
        &self,
        label: EpochLabel,
        handle: &str,
    ) -> Result<Option<Destruction>, ProviderError> {
        self.manner().await?;
        self.inner.destruction(label, handle).await
    }

    async fn anchor(&self) -> Result<Option<Anchor>, ProviderError> {
        self.manner().await?;
        self.inner.anchor().await
    }

    async fn advance(&self, anchor: &Anchor) -> Result<(), ProviderError> {
        match self.manner().await? {
            Manner::Forgetful => Err(ProviderError::unavailable("it takes no anchor")),
            _ => self.inner.advance(anchor).await,
        }
    }
}
