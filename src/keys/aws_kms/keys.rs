//! Keys in KMS: made, found, looked at, and scheduled to go.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_kms::{
    error::BuildError,
    primitives::DateTime,
    types::{KeyMetadata, KeySpec, KeyState, KeyUsageType, OriginType, Tag},
};

use crate::{
    domain::clock::Timestamp,
    keys::provider::{EpochLabel, ProviderError},
};

use super::{AwsKmsRoot, Refusal};

/// Which vault's root: `name`.
const TAG_ROOT: &str = "callvault-root";
const TAG_VAULT: &str = "callvault-vault";
const TAG_EPOCH: &str = "callvault-epoch";

/// What a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// An epoch.
    Epoch(EpochLabel),
    /// The anchor.
    Anchor,
}

/// A key, as KMS describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) arn: String,
    id: String,
    pub(super) state: State,
    /// Its bytes came from KMS, and were nowhere else.
    is_native: bool,
}

/// What a key may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Everything.
    Usable,
    /// Nothing; it will be gone then.
    Pending(Timestamp),
    /// Nothing, until its operator does something.
    Disabled,
    /// Nothing now.
    Unavailable,
}

/// What binds a wrapped epoch key to its label.
pub(super) fn context(label: EpochLabel) -> HashMap<String, String> {
    HashMap::from([
        ("callvault:vault".to_owned(), label.vault.to_string()),
        ("callvault:epoch".to_owned(), label.epoch.to_string()),
    ])
}

impl Purpose {
    fn alias(&self, name: &str) -> String {
        match self {
            Self::Epoch(EpochLabel { vault, epoch }) => format!("alias/{name}-{vault}-{epoch}"),
            Self::Anchor => format!("alias/{name}-anchor"),
        }
    }

    fn description(&self) -> String {
        match self {
            Self::Epoch(EpochLabel { vault, epoch }) => {
                format!("callvault: root epoch {epoch} of vault {vault}. Deleting it destroys what it seals.")
            }
            Self::Anchor => {
                "callvault: remembers how far a vault has come, in tags. It encrypts nothing.".to_owned()
            }
        }
    }

    fn tags(&self, name: &str) -> Vec<(&'static str, String)> {
        let root = (TAG_ROOT, name.to_owned());
        match self {
            Self::Epoch(EpochLabel { vault, epoch }) => vec![
                root,
                (TAG_VAULT, vault.to_string()),
                (TAG_EPOCH, epoch.to_string()),
            ],
            Self::Anchor => vec![root, (TAG_EPOCH, "anchor".to_owned())],
        }
    }
}

impl Key {
    fn of(metadata: KeyMetadata) -> Self {
        let state = match metadata.key_state {
            Some(KeyState::Enabled) => State::Usable,
            Some(KeyState::PendingDeletion | KeyState::PendingReplicaDeletion) => {
                State::Pending(metadata.deletion_date.map_or(Timestamp(i64::MAX), moment))
            }
            Some(KeyState::Disabled) => State::Disabled,
            _ => State::Unavailable,
        };
        Self {
            arn: metadata.arn.unwrap_or_else(|| metadata.key_id.clone()),
            id: metadata.key_id,
            state,
            is_native: metadata.origin == Some(OriginType::AwsKms),
        }
    }

    /// Whether it may be asked to encrypt and decrypt.
    ///
    /// # Errors
    /// [`ProviderError::NoSuchKey`] if it is on its way out: that it may be called back is its operator's affair.
    pub(super) fn must_be_usable(&self) -> Result<(), ProviderError> {
        match self.state {
            State::Usable if self.is_native => Ok(()),
            State::Usable => Err(ProviderError::Refused(format!(
                "the material of {} was brought to KMS from elsewhere: destroying it there would prove nothing",
                self.arn
            ))),
            State::Pending(_) => Err(ProviderError::NoSuchKey),
            State::Disabled => Err(ProviderError::unavailable(format!(
                "{} is disabled; enable it (aws kms enable-key)",
                self.arn
            ))),
            State::Unavailable => Err(ProviderError::unavailable(format!(
                "{} cannot be used now",
                self.arn
            ))),
        }
    }
}

impl AwsKmsRoot {
    /// A key by its ARN; `None` once it is gone.
    pub(super) async fn by_id(&self, id: &str) -> Result<Option<Key>, ProviderError> {
        // KMS calls a key of another region missing, which would pass for destroyed.
        if let Some(region) = id.strip_prefix("arn:").and_then(|rest| rest.split(':').nth(2))
            && region != self.settings.region
        {
            return Err(ProviderError::Refused(format!(
                "{id} is a key of another region; correct root.aws_kms.region"
            )));
        }
        let described = self
            .session
            .send("DescribeKey", |client| client.describe_key().key_id(id).send())
            .await;
        match described {
            Ok(answer) => Ok(answer.key_metadata.map(Key::of)),
            Err(refusal) if refusal.is_missing() => Ok(None),
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// The key that an alias names, if its tags say the same.
    ///
    /// # Errors
    /// [`ProviderError::Refused`] if they do not: whoever moves an alias must not make the vault destroy another's key, or
    /// encrypt under it.
    pub(super) async fn by_alias(&self, purpose: &Purpose) -> Result<Option<Key>, ProviderError> {
        let alias = purpose.alias(&self.settings.name);
        let Some(key) = self.by_id(&alias).await? else {
            return Ok(None);
        };
        match self.is_for(&key.arn, purpose).await? {
            true => Ok(Some(key)),
            false => Err(ProviderError::Refused(format!(
                "{alias} names {}, whose tags say that it is another's; put the alias or the tags right",
                key.arn
            ))),
        }
    }

    /// Every key that has a purpose's tags. Asks about each key of the account: only where an alias is missing.
    pub(super) async fn by_tags(&self, purpose: &Purpose) -> Result<Vec<Key>, ProviderError> {
        let mut found = Vec::new();
        let mut marker = None::<String>;
        loop {
            let page = self
                .session
                .send("ListKeys", |client| {
                    client.list_keys().set_marker(marker.clone()).send()
                })
                .await?;
            for listed in page.keys.unwrap_or_default() {
                let arn = listed.key_arn.or(listed.key_id).unwrap_or_default();
                if self.is_for(&arn, purpose).await?
                    && let Some(key) = self.by_id(&arn).await?
                {
                    found.push(key);
                }
            }
            marker = page.next_marker.filter(|_| page.truncated);
            if marker.is_none() {
                found.sort_by(|a, b| a.arn.cmp(&b.arn));
                return Ok(found);
            }
        }
    }

    /// The keys that a destruction of this label means.
    pub(super) async fn all_of(&self, label: EpochLabel, handle: &str) -> Result<Vec<Key>, ProviderError> {
        let purpose = Purpose::Epoch(label);
        let mut all = Vec::new();
        if !handle.is_empty()
            && let Some(key) = self.by_id(handle).await?
        {
            if !self.is_for(&key.arn, &purpose).await? {
                return Err(ProviderError::Refused(format!(
                    "{handle} does not carry the tags of epoch {} of vault {}; nothing was done",
                    label.epoch, label.vault
                )));
            }
            all.push(key);
        }
        match self.by_alias(&purpose).await? {
            Some(key) if all.contains(&key) => {}
            Some(key) => all.push(key),
            None if all.is_empty() && handle.is_empty() => all = self.by_tags(&purpose).await?,
            None => {}
        }
        Ok(all)
    }

    /// Whether a key's tags say that it has a purpose. One that the vault may not look at is not the vault's.
    async fn is_for(&self, arn: &str, purpose: &Purpose) -> Result<bool, ProviderError> {
        let kept = match self.read_tags(arn).await {
            Ok(kept) => kept,
            Err(refusal) if refusal.is_denied() || refusal.is_missing() => return Ok(false),
            Err(refusal) => return Err(refusal.into()),
        };
        let wanted = purpose.tags(&self.settings.name);
        Ok(wanted.iter().all(|(key, value)| kept.get(*key) == Some(value)))
    }

    /// A key's tags.
    pub(super) async fn tags_of(&self, arn: &str) -> Result<BTreeMap<String, String>, ProviderError> {
        Ok(self.read_tags(arn).await?)
    }

    async fn read_tags(&self, arn: &str) -> Result<BTreeMap<String, String>, Refusal> {
        let mut kept = BTreeMap::new();
        let mut marker = None::<String>;
        loop {
            let page = self
                .session
                .send("ListResourceTags", |client| {
                    client
                        .list_resource_tags()
                        .key_id(arn)
                        .set_marker(marker.clone())
                        .send()
                })
                .await?;
            let pairs = page.tags.unwrap_or_default().into_iter();
            kept.extend(pairs.map(|tag| (tag.tag_key, tag.tag_value)));
            marker = page.next_marker.filter(|_| page.truncated);
            if marker.is_none() {
                return Ok(kept);
            }
        }
    }

    /// Sets tags of a key.
    pub(super) async fn tag(&self, arn: &str, pairs: Vec<(String, String)>) -> Result<(), ProviderError> {
        let pairs = pairs.into_iter().map(|(key, value)| tag(key, value));
        let tags = pairs.collect::<Result<Vec<_>, _>>();
        let tags = tags.map_err(ProviderError::unavailable)?;
        self.session
            .send("TagResource", |client| {
                client
                    .tag_resource()
                    .key_id(arn)
                    .set_tags(Some(tags.clone()))
                    .send()
            })
            .await?;
        Ok(())
    }

    /// A new key, with its tags from the beginning.
    pub(super) async fn make(&self, purpose: &Purpose) -> Result<Key, ProviderError> {
        let pairs = purpose.tags(&self.settings.name).into_iter();
        let tags = pairs
            .map(|(key, value)| tag(key, value))
            .collect::<Result<Vec<_>, _>>();
        let tags = tags.map_err(ProviderError::unavailable)?;
        let answer = self
            .session
            .send("CreateKey", |client| {
                client
                    .create_key()
                    .description(purpose.description())
                    .key_spec(KeySpec::SymmetricDefault)
                    .key_usage(KeyUsageType::EncryptDecrypt)
                    .set_tags(Some(tags.clone()))
                    .send()
            })
            .await?;
        let made = answer.key_metadata.map(Key::of);
        made.ok_or_else(|| ProviderError::unavailable("KMS made a key and did not say which"))
    }

    /// Gives a key its purpose's alias; tells whether it has it, rather than another key.
    pub(super) async fn name_by_alias(&self, purpose: &Purpose, key: &Key) -> Result<bool, ProviderError> {
        let alias = purpose.alias(&self.settings.name);
        let named = self
            .session
            .send("CreateAlias", |client| {
                client
                    .create_alias()
                    .alias_name(&alias)
                    .target_key_id(&key.arn)
                    .send()
            })
            .await;
        match named {
            Ok(_) => Ok(true),
            Err(refusal) if refusal.is_taken() => {
                let target = self.by_alias(purpose).await?;
                Ok(target.is_some_and(|target| target.arn == key.arn))
            }
            // Found by its tags just before whoever made it came too late with it and scheduled it to go.
            Err(refusal) if refusal.is_in_another_state() => Ok(false),
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// Schedules a key's deletion; says when.
    pub(super) async fn schedule(&self, key: &Key) -> Result<Timestamp, ProviderError> {
        let days = i32::from(self.settings.deletion_days);
        let scheduled = self
            .session
            .send("ScheduleKeyDeletion", |client| {
                // By its id: not everything that speaks KMS's language takes an ARN here.
                client
                    .schedule_key_deletion()
                    .key_id(&key.id)
                    .pending_window_in_days(days)
                    .send()
            })
            .await;
        match scheduled {
            Ok(answer) => answer
                .deletion_date
                .map(moment)
                .ok_or_else(|| ProviderError::unavailable("KMS does not say when it deletes a key")),
            // Somebody was quicker.
            Err(refusal) if refusal.is_in_another_state() => match self.by_id(&key.arn).await? {
                Some(Key {
                    state: State::Pending(at),
                    ..
                }) => Ok(at),
                _ => Err(refusal.into()),
            },
            Err(refusal) => Err(refusal.into()),
        }
    }
}

fn tag(key: impl Into<String>, value: impl Into<String>) -> Result<Tag, BuildError> {
    Tag::builder().tag_key(key).tag_value(value).build()
}

fn moment(date: DateTime) -> Timestamp {
    let micros = i64::from(date.subsec_nanos()) / 1_000;
    Timestamp(date.secs().saturating_mul(1_000_000).saturating_add(micros))
}
