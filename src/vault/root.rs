//! The root provider is asked now and then whether it is still there; what is open serves for a bounded time without it. What
//! is asked about an epoch is asked of the provider that holds it.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use crate::{
    index::Range,
    keys::{
        KeyError,
        provider::{EpochGrant, EpochLabel, ProviderError, RootProvider},
    },
    proto::storage::EpochRow,
};

use super::{Error, Kind, Vault, apply};

const NOT_CONFIGURED: &str = "ROOT_NOT_CONFIGURED";

impl Vault {
    /// How long content may be read and stored after the root provider's last answer; for ever, unless this is called.
    pub fn serve_without_root_for(&self, longest: Duration) {
        let micros = i64::try_from(longest.as_micros()).unwrap_or(i64::MAX);
        self.keys.standing().bound(micros);
    }

    /// How long a tenant's key or a root epoch may wrap others after it was made; for ever until somebody says otherwise. After
    /// that it only opens: what needs a new key is refused (`KEY_TOO_OLD`) until it is rotated.
    pub fn wrap_for(&self, longest: Duration) {
        let micros = i64::try_from(longest.as_micros()).unwrap_or(i64::MAX);
        self.wraps_for.store(micros, Ordering::Relaxed);
    }

    /// How long ago the root provider last gave the current epoch's key.
    pub fn root_silence(&self) -> Duration {
        let micros = self.keys.standing().silent_micros();
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    }

    /// What an operator should see to: `ROOT_UNAVAILABLE` while the root provider does not answer, so that the vault may soon
    /// take nothing in any more; `ROOT_NOT_CONFIGURED` while an older epoch lives whose provider the configuration has no
    /// section for, so that no sweep can end.
    pub fn warning(&self) -> Option<&'static str> {
        let without = self.without_provider.load(Ordering::Relaxed);
        let failing = self.keys.standing().is_failing().then_some("ROOT_UNAVAILABLE");
        failing.or_else(|| without.then_some(NOT_CONFIGURED))
    }

    /// Asks the root provider for the current epoch's key, which must be the one that is open; to be called about every minute.
    ///
    /// # Errors
    /// [`Kind::Unavailable`](super::Kind) (`ROOT_UNAVAILABLE`) if it does not give it, or gives another: neither is an answer.
    /// What the index answered.
    pub async fn check_root(&self) -> Result<(), Error> {
        // What the index says is not the provider's fault.
        let (newest, _) = self.newest_epoch().await?;
        let asked = self.ask_root(newest).await;
        match &asked {
            Ok(()) => self.keys.standing().answered(),
            Err(_) => self.keys.standing().failed(),
        }
        let without = self.unreachable_epoch().await?.is_some();
        self.without_provider.store(without, Ordering::Relaxed);
        asked
    }

    async fn ask_root(&self, newest: EpochRow) -> Result<(), Error> {
        let provider = self.holder(&newest.provider, newest.epoch).await?;
        let grant = EpochGrant {
            handle: newest.handle,
            wrapped: newest.wrapped_epoch_key.to_vec(),
        };
        let key = provider.unwrap(self.label(newest.epoch), &grant).await;
        let key = key.map_err(KeyError::Provider)?;
        match self.keys.is_open_as(newest.epoch, &key) {
            true => Ok(()),
            false => Err(KeyError::Provider(ProviderError::Corrupt).into()),
        }
    }

    pub(super) fn label(&self, epoch: u64) -> EpochLabel {
        EpochLabel {
            vault: self.realm.vault,
            epoch,
        }
    }

    /// The provider that holds an epoch's key, and no other one of its kind: who never had the key would pass for who destroyed it.
    ///
    /// # Errors
    /// [`Kind::WrongState`] if it is not in the configuration (`ROOT_NOT_CONFIGURED`), or its anchor is not this vault's
    /// (`ANOTHER_ROOT`). [`Kind::Unavailable`] if it cannot be asked.
    pub(super) async fn holder(&self, kind: &str, epoch: u64) -> Result<&Arc<dyn RootProvider>, Error> {
        let provider = self
            .providers
            .of(kind)
            .ok_or_else(|| not_configured(kind, epoch))?;
        if self.providers.anchors().iter().any(|root| root.kind() == kind) {
            // It was looked at when the vault was opened.
            return Ok(provider);
        }
        match provider.anchor().await.map_err(KeyError::Provider)? {
            Some(anchor) if anchor.vault == self.realm.vault => Ok(provider),
            _ => Err(Error::new(
                Kind::WrongState,
                "ANOTHER_ROOT",
                "the section of the provider that older epochs are with leads to a root that does not know this vault; nothing is \
                 destroyed: point it at where the root was before it was moved",
            )
            .with("provider", kind)
            .with("epoch", epoch)),
        }
    }

    /// An older epoch that lives, and whose provider is not in the configuration.
    async fn unreachable_epoch(&self) -> Result<Option<EpochRow>, Error> {
        for row in self.all_rows(Range::Epochs).await? {
            let epoch: EpochRow = self.rows.open(&row.key, &row.value)?;
            if epoch.state != apply::DESTROYED && self.providers.of(&epoch.provider).is_none() {
                return Ok(Some(epoch));
            }
        }
        Ok(None)
    }

    /// Kinds of all providers that hold an epoch that lives.
    pub(super) async fn providers_of_living_epochs(&self) -> Result<BTreeSet<String>, Error> {
        let mut kinds = BTreeSet::new();
        for row in self.all_rows(Range::Epochs).await? {
            let epoch: EpochRow = self.rows.open(&row.key, &row.value)?;
            if epoch.state != apply::DESTROYED {
                kinds.insert(epoch.provider);
            }
        }
        Ok(kinds)
    }

    /// Refuses to take an epoch for destroyed that its provider does not know although nobody asked for its destruction: another
    /// directory, token or account of the same kind would say the same of it.
    pub(super) async fn must_be_there(&self, epoch: &EpochRow) -> Result<(), Error> {
        let provider = self.holder(&epoch.provider, epoch.epoch).await?;
        let grant = EpochGrant {
            handle: epoch.handle.clone(),
            wrapped: epoch.wrapped_epoch_key.to_vec(),
        };
        match provider.unwrap(self.label(epoch.epoch), &grant).await {
            Ok(_) => Ok(()),
            Err(ProviderError::NoSuchKey) => Err(Error::new(
                Kind::WrongState,
                "EPOCH_NOT_THERE",
                "the root provider does not have the key of an older epoch, and this vault has not destroyed it: it may live elsewhere, so \
                 nothing is destroyed; point the provider's section at the directory, token or account that has it",
            )
            .with("provider", &epoch.provider)
            .with("epoch", epoch.epoch)),
            Err(error) => Err(KeyError::Provider(error).into()),
        }
    }

    /// Refuses to go on while an older epoch lives that nobody can be asked to destroy.
    pub(super) async fn refuse_unreachable_epochs(&self) -> Result<(), Error> {
        let mut asked = BTreeSet::new();
        for row in self.all_rows(Range::Epochs).await? {
            let epoch: EpochRow = self.rows.open(&row.key, &row.value)?;
            if epoch.state != apply::DESTROYED && asked.insert(epoch.provider.clone()) {
                self.holder(&epoch.provider, epoch.epoch).await?;
            }
            if epoch.state != apply::DESTROYED && epoch.destroying_micros == 0 {
                self.must_be_there(&epoch).await?;
            }
        }
        Ok(())
    }
}

fn not_configured(provider: &str, epoch: u64) -> Error {
    Error::new(
        Kind::WrongState,
        NOT_CONFIGURED,
        "an older root epoch is with a provider that the configuration has no section for; nothing is destroyed, and no erasure \
         is final, until its section is there again",
    )
    .with("provider", provider)
    .with("epoch", epoch)
}
