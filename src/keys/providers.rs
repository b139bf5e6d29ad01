//! The providers that hold one vault's epochs: the one that is configured, and those that older epochs are still with.
//!
//! ```text
//! a start       the newest epoch is the named provider's; it makes the next one
//! a migration   the newest epoch may be another's; the target makes the next one
//! always        what is asked about an epoch is asked of the provider whose kind its row names
//! ```

use std::sync::Arc;

use super::provider::RootProvider;

/// Providers of different kinds; which one it is is told by its kind.
#[derive(Clone, Debug)]
pub struct Providers {
    named: Arc<dyn RootProvider>,
    others: Vec<Arc<dyn RootProvider>>,
    target: Option<Arc<dyn RootProvider>>,
}

impl Providers {
    /// One, for everything.
    pub fn one(named: Arc<dyn RootProvider>) -> Self {
        Self {
            named,
            others: Vec::new(),
            target: None,
        }
    }

    /// And another, whose epochs may still live. The first of a kind counts.
    #[must_use]
    pub fn with(mut self, other: Arc<dyn RootProvider>) -> Self {
        if self.of(other.kind()).is_none() {
            self.others.push(other);
        }
        self
    }

    /// The root is to move to this one: it makes the next epoch, whoever holds the newest.
    #[must_use]
    pub fn moving_to(self, target: Arc<dyn RootProvider>) -> Self {
        let mut all = self.with(Arc::clone(&target));
        all.target = all.of(target.kind()).cloned();
        all
    }

    /// The one that the configuration names.
    pub fn named(&self) -> &Arc<dyn RootProvider> {
        &self.named
    }

    /// The one that makes the next epoch.
    pub fn maker(&self) -> &Arc<dyn RootProvider> {
        self.target.as_ref().unwrap_or(&self.named)
    }

    /// Whether the root is to move.
    pub fn is_moving(&self) -> bool {
        self.target.is_some()
    }

    /// The one of a kind, if there is one.
    pub fn of(&self, kind: &str) -> Option<&Arc<dyn RootProvider>> {
        std::iter::once(&self.named)
            .chain(&self.others)
            .find(|provider| provider.kind() == kind)
    }

    /// The one whose anchor says how far the vault has come; while the root moves, both that know.
    pub fn anchors(&self) -> Vec<&Arc<dyn RootProvider>> {
        let target = self.target.iter().filter(|to| to.kind() != self.named.kind());
        std::iter::once(&self.named).chain(target).collect()
    }
}

impl From<Arc<dyn RootProvider>> for Providers {
    fn from(named: Arc<dyn RootProvider>) -> Self {
        Self::one(named)
    }
}

impl<P: RootProvider + 'static> From<Arc<P>> for Providers {
    fn from(named: Arc<P>) -> Self {
        Self::one(named)
    }
}
