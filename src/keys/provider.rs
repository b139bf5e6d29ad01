//! What holds the root: it makes, opens and destroys epoch keys, and remembers how far the vault has come.

use std::fmt;

use async_trait::async_trait;

use crate::{
    crypto::secret::EpochKey,
    domain::{clock::Timestamp, ids::VaultId},
};

/// Names an epoch. Calls with the same label are the same call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EpochLabel {
    /// The vault.
    pub vault: VaultId,
    /// Counts from 1.
    pub epoch: u64,
}

/// A made epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochGrant {
    /// The provider's name of its own key. Not a secret.
    pub handle: String,
    /// The epoch key, wrapped under it.
    pub wrapped: Vec<u8>,
}

/// What became of an epoch's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destruction {
    /// It is gone.
    Destroyed,
    /// It will be gone; until then it can be called back.
    Scheduled {
        /// When.
        at: Timestamp,
    },
}

/// A head of a log as the root remembers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnchoredHead {
    /// The log's origin.
    pub origin: String,
    /// Its number of leaves.
    pub size: u64,
    /// Its Merkle root.
    pub root: [u8; 32],
}

/// How far a vault has come: a bucket that is behind it has been rolled back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// The vault.
    pub vault: VaultId,
    /// Highest number of the region's sequence in the bucket.
    pub region_seq: u64,
    /// Heads of logs that are not closed, by origin.
    pub heads: Vec<AnchoredHead>,
}

/// The provider did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// There is no such key: destroyed, or somebody else's root.
    #[error("no such root key; is this the root that belongs to this vault?")]
    NoSuchKey,
    /// The wrapped key or the anchor does not authenticate.
    #[error("root material failed authentication")]
    Corrupt,
    /// It lets nobody in, and will not until somebody does what the text says: asking again is useless, and may do harm.
    #[error("the root provider refuses the vault: {0}")]
    Refused(String),
    /// It cannot be asked now.
    #[error("the root provider is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl ProviderError {
    /// It cannot be asked now, because of this.
    pub fn unavailable(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Unavailable(cause.into())
    }
}

/// Holds the root of a region's keys.
///
/// Every call is idempotent by its label and may be repeated after a failure. A caller that goes away leaves it done or undone.
#[async_trait]
pub trait RootProvider: Send + Sync + fmt::Debug {
    /// Its kind: "file", "pkcs11", "aws_kms".
    fn kind(&self) -> &'static str;

    /// Makes an epoch under a provider key of its own, or returns the one made before for this label: the same handle, but
    /// perhaps another epoch key wrapped under the same provider key. What was returned and kept is what counts.
    async fn create_epoch(&self, label: EpochLabel) -> Result<EpochGrant, ProviderError>;

    /// Opens an epoch key.
    async fn unwrap(&self, label: EpochLabel, grant: &EpochGrant) -> Result<EpochKey, ProviderError>;

    /// Destroys the provider key behind a handle, and with it every copy of the wrapped epoch key. An empty handle means the
    /// label's, if it has one: whoever gave an epoch up may not have been told. What is gone already is destroyed. A handle of
    /// another label destroys nothing of that label's.
    async fn destroy(&self, label: EpochLabel, handle: &str) -> Result<Destruction, ProviderError>;

    /// What has become of a provider key by now: `None` while it lives, also if its destruction was called back.
    async fn destruction(
        &self,
        label: EpochLabel,
        handle: &str,
    ) -> Result<Option<Destruction>, ProviderError>;

    /// The anchor, if one was ever set.
    async fn anchor(&self) -> Result<Option<Anchor>, ProviderError>;

    /// Replaces the anchor, durably.
    async fn advance(&self, anchor: &Anchor) -> Result<(), ProviderError>;
}

/// An epoch of a provider, and its key: opened twice, for what is sealed under it must open again.
///
/// # Errors
/// [`ProviderError::Corrupt`] if the provider gives one key and then another; as [`RootProvider::create_epoch`] and
/// [`RootProvider::unwrap`].
pub async fn make_epoch(
    provider: &dyn RootProvider,
    label: EpochLabel,
) -> Result<(EpochGrant, EpochKey), ProviderError> {
    let grant = provider.create_epoch(label).await?;
    let key = provider.unwrap(label, &grant).await?;
    match provider.unwrap(label, &grant).await?.ct_eq(&key) {
        true => Ok((grant, key)),
        false => Err(ProviderError::Corrupt),
    }
}
