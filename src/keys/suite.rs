//! What every root provider promises, as tests that any provider can be held to.
//!
//! ```ignore
//! mod promises {
//!     async fn make() -> callvault::keys::suite::Subject { ... }
//!     callvault::root_provider_suite!(make);
//! }
//! ```
//!
//! Every promise gets a subject of its own, whose vault is its own too: subjects may share a token or an account.

#![allow(clippy::unwrap_used, clippy::panic)] // a test that fails panics

pub mod anchors;
pub mod epochs;

use std::{any::Any, fmt, future::Future, pin::Pin, sync::Arc};

use crate::{
    crypto::rng::SystemRng,
    domain::{clock::Timestamp, ids::VaultId},
};

use super::provider::{Destruction, EpochGrant, EpochLabel, ProviderError, RootProvider};

type Opening = Pin<Box<dyn Future<Output = Arc<dyn RootProvider>> + Send>>;

/// A provider under test, over a root that outlives it.
pub struct Subject {
    provider: Arc<dyn RootProvider>,
    open: Box<dyn Fn() -> Opening + Send + Sync>,
    vault: VaultId,
    clear: usize,
    _keep: Box<dyn Any + Send + Sync>,
}

impl Subject {
    /// A provider that `open` opens, again and again over the same root, which had no anchor before. `keep` lives as long as
    /// the test.
    pub async fn new<P, F>(open: impl Fn() -> F + Send + Sync + 'static, keep: impl Any + Send + Sync) -> Self
    where
        P: RootProvider + 'static,
        F: Future<Output = P> + Send + 'static,
    {
        let open = move || -> Opening {
            let opening = open();
            Box::pin(async move { Arc::new(opening.await) as Arc<dyn RootProvider> })
        };
        Self {
            provider: open().await,
            open: Box::new(open),
            vault: a_vault(),
            clear: 0,
            _keep: Box::new(keep),
        }
    }

    /// A wrapped key's first bytes are a name rather than sealed: altered, they may be refused in other words.
    #[must_use]
    pub fn with_clear_bytes(self, clear: usize) -> Self {
        Self { clear, ..self }
    }

    /// The provider.
    pub fn provider(&self) -> &dyn RootProvider {
        &*self.provider
    }

    /// A label of the subject's vault.
    pub fn label(&self, epoch: u64) -> EpochLabel {
        EpochLabel {
            vault: self.vault,
            epoch,
        }
    }

    /// The same root, opened anew, as after a restart.
    async fn reopen(&mut self) {
        self.provider = (self.open)().await;
    }

    async fn create(&self, epoch: u64) -> EpochGrant {
        self.provider.create_epoch(self.label(epoch)).await.unwrap()
    }

    async fn key(&self, epoch: u64, grant: &EpochGrant) -> [u8; 32] {
        *self
            .provider
            .unwrap(self.label(epoch), grant)
            .await
            .unwrap()
            .expose()
    }

    async fn refusal(&self, label: EpochLabel, grant: &EpochGrant) -> ProviderError {
        self.provider.unwrap(label, grant).await.unwrap_err()
    }

    async fn destroy(&self, epoch: u64, handle: &str) -> Destruction {
        let destroyed = self.provider.destroy(self.label(epoch), handle).await;
        destroyed.unwrap()
    }

    async fn destruction(&self, epoch: u64, handle: &str) -> Option<Destruction> {
        let told = self.provider.destruction(self.label(epoch), handle).await;
        told.unwrap()
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject")
            .field("provider", &self.provider)
            .field("vault", &self.vault)
            .finish_non_exhaustive()
    }
}

/// Nobody else's.
fn a_vault() -> VaultId {
    VaultId::mint(Timestamp(1_795_478_400_000_000), &SystemRng::new()).unwrap()
}

/// One `#[tokio::test]` for every promise of a root provider. `$make` is an async function that returns a [`Subject`]. An
/// attribute before it, such as `#[ignore]`, is given to every test.
#[macro_export]
macro_rules! root_provider_suite {
    ($make:path) => {
        $crate::root_provider_suite! { [] $make }
    };
    (#[$attribute:meta] $make:path) => {
        $crate::root_provider_suite! { [#[$attribute]] $make }
    };
    ($attributes:tt $make:path) => {
        $crate::root_provider_suite! { @ $attributes $make;
            epochs: an_epoch_opens_to_one_key, an_epoch_outlives_its_provider, creating_again_is_the_same_epoch,
                creations_beside_each_other_make_one_epoch, epochs_have_keys_of_their_own,
                a_grant_opens_under_its_own_label_only, an_altered_wrapped_key_is_corrupt,
                a_destroyed_epoch_opens_nothing, an_epoch_is_destroyed_by_its_label_alone,
                destroying_twice_changes_nothing, what_never_was_is_destroyed, destroying_one_spares_all_others,
                a_destruction_is_told_of_after_a_restart;
            anchors: no_anchor_at_first, an_anchor_is_read_as_it_was_set, an_anchor_outlives_its_provider,
                the_last_of_many_anchors_counts, anchors_of_any_number_of_heads, an_anchor_outlives_every_epoch;
        }
    };
    (@ $attributes:tt $make:path; $($group:ident: $($promise:ident),+;)+) => {
        $($($crate::root_provider_suite! { ! $attributes $make, $group, $promise })+)+
    };
    (! [$($attribute:tt)*] $make:path, $group:ident, $promise:ident) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        $($attribute)*
        async fn $promise() {
            $crate::keys::suite::$group::$promise($make().await).await;
        }
    };
}
