//! The root on a token that speaks PKCS#11: an HSM, or a program that does as one.
//!
//! ```text
//! secret key   AES-256, never leaves the token   label "<name>-<vault>-<epoch>"   id = vault id (16) | epoch u64be
//! data object  application "callvault"           label "<name>-anchor"            value = u64be serial | as `anchor` has it
//! ```
//!
//! An epoch key is drawn here, and sealed by the token: `nonce (12) | AES-256-GCM`, with the context that every epoch key has.
//! Tokens block, hang and restart, so one thread of its own asks them (`worker`), and every call ends.

mod pin;
mod token;
mod worker;

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::{crypto::secret::EpochKey, domain::clock::Rng};

use super::provider::{Anchor, Destruction, EpochGrant, EpochLabel, ProviderError, RootProvider};

pub use pin::PinSource;

use token::Token;
use worker::Worker;

/// Which token, and how it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The module that speaks to it, a shared library.
    pub module: PathBuf,
    /// The token's label.
    pub token: String,
    /// What its objects' labels begin with: a token may hold the roots of several vaults.
    pub name: String,
    /// Where its user's PIN is.
    pub pin: PinSource,
    /// How long a call may take, waiting for its turn included.
    pub patience: Duration,
}

/// A root provider over a token.
pub struct Pkcs11Root {
    name: Arc<str>,
    token: String,
    worker: Worker,
    rng: Arc<dyn Rng>,
}

impl Pkcs11Root {
    /// Reaches the token and logs in.
    ///
    /// # Errors
    /// [`ProviderError::Refused`] if the token or its PIN are not what they should be, with what to do;
    /// [`ProviderError::Unavailable`] if it cannot be reached.
    pub async fn open(settings: Settings, rng: Arc<dyn Rng>) -> Result<Self, ProviderError> {
        let (name, token) = (settings.name.as_str().into(), settings.token.clone());
        let worker = Worker::start(settings)?;
        worker.call(Token::check).await?;
        Ok(Self {
            name,
            token,
            worker,
            rng,
        })
    }

    /// The label of an epoch's key on the token, which is its handle.
    fn handle(&self, label: EpochLabel) -> String {
        format!("{}-{}-{}", self.name, label.vault, label.epoch)
    }

    fn anchor_label(&self) -> String {
        format!("{}-anchor", self.name)
    }
}

impl fmt::Debug for Pkcs11Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pkcs11Root")
            .field("token", &self.token)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl RootProvider for Pkcs11Root {
    fn kind(&self) -> &'static str {
        "pkcs11"
    }

    async fn create_epoch(&self, label: EpochLabel) -> Result<EpochGrant, ProviderError> {
        let (handle, rng) = (self.handle(label), Arc::clone(&self.rng));
        let named = handle.clone();
        let make = move |token: &mut Token| token.create_epoch(label, &named, &*rng);
        let wrapped = self.worker.call(make).await?;
        Ok(EpochGrant { handle, wrapped })
    }

    async fn unwrap(&self, label: EpochLabel, grant: &EpochGrant) -> Result<EpochKey, ProviderError> {
        let (handle, rng) = (self.handle(label), Arc::clone(&self.rng));
        let wrapped = grant.wrapped.clone();
        let open = move |token: &mut Token| token.unwrap(label, &handle, &wrapped, &*rng);
        self.worker.call(open).await
    }

    /// Destroys the key object, and looks whether it is gone. What backups a token has is between it and its operator.
    async fn destroy(&self, label: EpochLabel, _handle: &str) -> Result<Destruction, ProviderError> {
        let handle = self.handle(label);
        let destroy = move |token: &mut Token| token.destroy(label, &handle);
        self.worker.call(destroy).await?;
        Ok(Destruction::Destroyed)
    }

    async fn destruction(
        &self,
        label: EpochLabel,
        _handle: &str,
    ) -> Result<Option<Destruction>, ProviderError> {
        let handle = self.handle(label);
        let look = move |token: &mut Token| token.has_epoch(label, &handle);
        let found = self.worker.call(look).await?;
        Ok((!found).then_some(Destruction::Destroyed))
    }

    async fn anchor(&self) -> Result<Option<Anchor>, ProviderError> {
        let named = self.anchor_label();
        self.worker.call(move |token| token.anchor(&named)).await
    }

    async fn advance(&self, anchor: &Anchor) -> Result<(), ProviderError> {
        let (named, anchor) = (self.anchor_label(), super::anchor::encode(anchor));
        let advance = move |token: &mut Token| token.advance(&named, &anchor);
        self.worker.call(advance).await
    }
}

#[cfg(test)]
mod tests;
