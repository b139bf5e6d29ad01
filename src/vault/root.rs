//! The root provider is asked now and then whether it is still there; what is open serves for a bounded time without it.

use std::time::Duration;

use crate::{
    keys::{
        KeyError,
        provider::{EpochGrant, EpochLabel, ProviderError},
    },
    proto::storage::EpochRow,
};

use super::{Error, Vault};

impl Vault {
    /// How long content may be read and stored after the root provider's last answer; for ever, unless this is called.
    pub fn serve_without_root_for(&self, longest: Duration) {
        let micros = i64::try_from(longest.as_micros()).unwrap_or(i64::MAX);
        self.keys.standing().bound(micros);
    }

    /// How long ago the root provider last gave the current epoch's key.
    pub fn root_silence(&self) -> Duration {
        let micros = self.keys.standing().silent_micros();
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    }

    /// Why the vault may soon take nothing in any more: `ROOT_UNAVAILABLE` while the root provider does not answer.
    pub fn warning(&self) -> Option<&'static str> {
        self.keys.standing().is_failing().then_some("ROOT_UNAVAILABLE")
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
        asked
    }

    async fn ask_root(&self, newest: EpochRow) -> Result<(), Error> {
        let label = EpochLabel {
            vault: self.realm.vault,
            epoch: newest.epoch,
        };
        let grant = EpochGrant {
            handle: newest.handle,
            wrapped: newest.wrapped_epoch_key.to_vec(),
        };
        let key = self.provider.unwrap(label, &grant).await;
        let key = key.map_err(KeyError::Provider)?;
        match self.keys.is_open_as(newest.epoch, &key) {
            true => Ok(()),
            false => Err(KeyError::Provider(ProviderError::Corrupt).into()),
        }
    }
}
