//! The root in AWS KMS, or in what speaks its language.
//!
//! ```text
//! a key for each epoch   alias <name>-<vault>-<epoch>   tags callvault-root, callvault-vault, callvault-epoch
//! a key for the anchor   alias <name>-anchor            tags callvault-root, callvault-anchor, ... (`tags`); encrypts nothing
//! ```
//!
//! An epoch key is drawn here and encrypted by KMS, bound to the vault and the epoch by its encryption context. Only a key that
//! an alias names has ever encrypted anything, so one whose making was cut short before its alias is harmless; it carries its
//! tags from the beginning and is found by them, rather than made again. Destruction is scheduled, and can be called back until
//! it comes true.

mod client;
mod keys;
mod tags;

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use aws_sdk_kms::primitives::Blob;
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use crate::{crypto::secret::EpochKey, domain::clock::Rng};

use super::{
    anchor,
    provider::{Anchor, Destruction, EpochGrant, EpochLabel, ProviderError, RootProvider},
};

use client::{Refusal, Session};
use keys::{Purpose, State};
use tags::Slot;

/// How often tags are read again that do not agree yet: what was written a moment ago may not be everywhere.
const LOOKS: u32 = 5;
const LOOK_AGAIN: Duration = Duration::from_millis(300);

/// Which KMS, and how it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What aliases begin with: an account may hold the roots of several vaults.
    pub name: String,
    /// The region whose KMS it is.
    pub region: String,
    /// `https://host[:port]`, or `http://` where somebody decided so; AWS when absent.
    pub endpoint: Option<String>,
    /// PEM of the authorities that may vouch for the endpoint, instead of the machine's.
    pub ca_file: Option<PathBuf>,
    /// A profile of the credentials file, instead of the standard chain.
    pub profile: Option<String>,
    /// A credentials file in the format of AWS's, instead of the standard chain.
    pub credentials_file: Option<PathBuf>,
    /// Days between a destruction and its coming true, 7 to 30.
    pub deletion_days: u8,
    /// How long to wait, and how often to try.
    pub patience: Patience,
}

/// How long to wait, and how often to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Tries of a request, the first among them.
    pub attempts: u32,
    /// About how long to wait before the second try; doubles from there.
    pub backoff: Duration,
    /// Until a connection is made.
    pub connect: Duration,
    /// Until an answer begins once a request is on its way.
    pub read: Duration,
    /// Until a request is over, with all its tries.
    pub operation: Duration,
}

/// A root provider over AWS KMS.
pub struct AwsKmsRoot {
    settings: Arc<Settings>,
    session: Session,
    rng: Arc<dyn Rng>,
    /// The anchor's key, and where its last value lies; held while the anchor is written.
    anchored: Mutex<Option<Anchored>>,
}

struct Anchored {
    key: String,
    slot: Slot,
}

impl AwsKmsRoot {
    /// A root that is asked when it is needed.
    ///
    /// # Errors
    /// [`ProviderError::Refused`] if the authorities' file cannot be used.
    pub async fn open(settings: Settings, rng: Arc<dyn Rng>) -> Result<Self, ProviderError> {
        let settings = Arc::new(settings);
        Ok(Self {
            session: Session::open(Arc::clone(&settings)).await?,
            settings,
            rng,
            anchored: Mutex::new(None),
        })
    }

    /// The key of a label: found by its alias, or by its tags, or made.
    async fn key_for(&self, purpose: &Purpose) -> Result<keys::Key, ProviderError> {
        if let Some(key) = self.by_alias(purpose).await? {
            return Ok(key);
        }
        let found = self.by_tags(purpose).await?;
        let (key, is_new) = match found.into_iter().find(|key| key.state == State::Usable) {
            Some(made_before) => (made_before, false),
            None => (self.make(purpose).await?, true),
        };
        if self.name_by_alias(purpose, &key).await? {
            return Ok(key);
        }
        // Somebody else was quicker, and theirs counts; ours has encrypted nothing.
        if is_new {
            self.schedule(&key).await?;
        }
        self.by_alias(purpose).await?.ok_or_else(|| {
            ProviderError::unavailable("an alias of KMS is taken, and not there yet; asking again helps")
        })
    }

    /// The anchor's key and its tags, until what they say agrees.
    async fn read_anchor(&self, key: &str) -> Result<(Option<Anchor>, Slot), ProviderError> {
        let mut looks = 1;
        loop {
            let kept = self.tags_of(key).await?;
            let Some((bytes, slot)) = tags::read(&kept) else {
                return Ok((None, Slot::B));
            };
            match anchor::decode(&bytes) {
                Ok(anchor) => return Ok((Some(anchor), slot)),
                Err(error) if looks >= LOOKS => return Err(error),
                Err(_) => tokio::time::sleep(LOOK_AGAIN).await,
            }
            looks += 1;
        }
    }

    /// The anchor's key, if there is one.
    async fn anchor_key(&self) -> Result<Option<String>, ProviderError> {
        let Some(key) = self.by_alias(&Purpose::Anchor).await? else {
            return Ok(None);
        };
        match key.state {
            State::Pending(_) => Err(ProviderError::Refused(format!(
                "the key of the anchor is scheduled for deletion; whoever did that may want a bucket rolled back unnoticed. Cancel it \
                 (aws kms cancel-key-deletion --key-id {})",
                key.arn
            ))),
            _ => Ok(Some(key.arn)),
        }
    }
}

impl fmt::Debug for AwsKmsRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwsKmsRoot")
            .field("name", &self.settings.name)
            .field("region", &self.settings.region)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl RootProvider for AwsKmsRoot {
    fn kind(&self) -> &'static str {
        "aws_kms"
    }

    async fn create_epoch(&self, label: EpochLabel) -> Result<EpochGrant, ProviderError> {
        let key = self.key_for(&Purpose::Epoch(label)).await?;
        key.must_be_usable()?;
        let epoch_key = EpochKey::generate(&*self.rng).map_err(ProviderError::unavailable)?;
        let answer = self
            .session
            .send("Encrypt", |client| {
                client
                    .encrypt()
                    .key_id(&key.arn)
                    .plaintext(Blob::new(epoch_key.expose().as_slice()))
                    .set_encryption_context(Some(keys::context(label)))
                    .send()
            })
            .await?;
        let wrapped = answer.ciphertext_blob.map(Blob::into_inner).unwrap_or_default();
        Ok(EpochGrant {
            handle: key.arn,
            wrapped,
        })
    }

    async fn unwrap(&self, label: EpochLabel, grant: &EpochGrant) -> Result<EpochKey, ProviderError> {
        // What KMS says of a key whose deletion is scheduled is one of several things that "invalid state" may mean, and
        // services that only speak its language decrypt all the same.
        let key = self.by_id(&grant.handle).await?.ok_or(ProviderError::NoSuchKey)?;
        key.must_be_usable()?;
        if grant.wrapped.is_empty() {
            return Err(ProviderError::Corrupt);
        }
        let answer = self.session.send("Decrypt", |client| {
            client
                .decrypt()
                .key_id(&grant.handle)
                .ciphertext_blob(Blob::new(grant.wrapped.as_slice()))
                .set_encryption_context(Some(keys::context(label)))
                .send()
        });
        let answer = answer.await.map_err(|refusal| match refusal {
            refusal if refusal.is_unauthentic() => ProviderError::Corrupt,
            refusal if refusal.is_missing() => ProviderError::NoSuchKey,
            refusal => refusal.into(),
        })?;
        let opened = Zeroizing::new(answer.plaintext.map(Blob::into_inner).unwrap_or_default());
        EpochKey::from_slice(&opened).map_err(|_| ProviderError::Corrupt)
    }

    async fn destroy(&self, label: EpochLabel, handle: &str) -> Result<Destruction, ProviderError> {
        let mut last = Destruction::Destroyed;
        for key in self.all_of(label, handle).await? {
            let at = match key.state {
                State::Pending(at) => at,
                _ => self.schedule(&key).await?,
            };
            last = match last {
                Destruction::Scheduled { at: other } if other > at => last,
                _ => Destruction::Scheduled { at },
            };
        }
        Ok(last)
    }

    async fn destruction(
        &self,
        label: EpochLabel,
        handle: &str,
    ) -> Result<Option<Destruction>, ProviderError> {
        let mut last = Destruction::Destroyed;
        for key in self.all_of(label, handle).await? {
            let State::Pending(at) = key.state else {
                return Ok(None);
            };
            last = match last {
                Destruction::Scheduled { at: other } if other > at => last,
                _ => Destruction::Scheduled { at },
            };
        }
        Ok(Some(last))
    }

    async fn anchor(&self) -> Result<Option<Anchor>, ProviderError> {
        let mut anchored = self.anchored.lock().await;
        let Some(key) = self.anchor_key().await? else {
            return Ok(None);
        };
        let (anchor, slot) = self.read_anchor(&key).await?;
        *anchored = Some(Anchored { key, slot });
        Ok(anchor)
    }

    async fn advance(&self, anchor: &Anchor) -> Result<(), ProviderError> {
        let mut anchored = self.anchored.lock().await;
        let (key, slot) = match anchored.take() {
            Some(Anchored { key, slot }) => (key, slot),
            None => {
                let key = match self.anchor_key().await? {
                    Some(key) => key,
                    None => self.key_for(&Purpose::Anchor).await?.arn,
                };
                let slot = match self.read_anchor(&key).await {
                    Ok((_, slot)) => slot,
                    // It is about to be replaced, and both slots are as good.
                    Err(ProviderError::Corrupt) => Slot::A,
                    Err(error) => return Err(error),
                };
                (key, slot)
            }
        };
        let slot = slot.other();
        for step in tags::write(&anchor::encode(anchor), slot)? {
            self.tag(&key, step).await?;
        }
        *anchored = Some(Anchored { key, slot });
        Ok(())
    }
}

#[cfg(test)]
mod tests;
