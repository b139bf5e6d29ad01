//! The root turns: a new epoch takes over the region's pages and keyring.

use std::{sync::Arc, time::Duration};

use crate::{
    domain::clock::Timestamp,
    index::{Change, Expect, IndexError, Key, Range, Row, Scan, Scope},
    keys::{
        provider::{EpochGrant, EpochLabel, make_epoch},
        region::EpochKeys,
    },
    ledger::{
        leaf,
        outbox::{LedgerError, Until},
    },
    proto::storage::{
        EpochRow, PageStates, RootEpochCreated, RootEpochDestroyed, RootEpochDestroying, RootEpochIntended,
        state_leaf::Body,
    },
};

use super::{
    super::{Error, Vault, apply, pace::Pace},
    KeyOperation,
    staging::{Owner, Staging},
    step_row,
    sweep::Begun,
};

/// The provider that keeps wrapped epoch keys, and not only what opens them.
const KEEPS_WRAPS: &str = "file";

impl Vault {
    /// Turns the root. An attempt that was cut short is given up with its epoch: what it staged may still have slots that were
    /// punctured since, and must never be opened.
    pub(super) async fn turn_root_epoch(&self, operation: &KeyOperation) -> Result<(), Error> {
        let (before, _) = self.newest_epoch().await?;
        let (intended, by) = self.intended_epoch().await?;
        let intended = intended.max(before.epoch);
        for given_up in before.epoch + 1..=intended {
            self.give_up_epoch(given_up, &by).await?;
        }
        let label = self.label(intended + 1);
        let maker = self.providers.maker();
        if before.provider != maker.kind() {
            // From the pointer change on the maker's anchor is what a start looks at: it must know by then what the other knows.
            self.anchoring.secure().await.map_err(provider_failed)?;
        }
        self.intend_epoch(operation, label.epoch).await?;
        let made = make_epoch(&**maker, label).await;
        let (grant, key) = made.map_err(provider_failed)?;
        let sealed_keyring = self.keys.seal_region_keyring(label.epoch, &key)?;
        let next = Arc::new(EpochKeys::new(label.epoch, &key));
        drop(key);

        let mut staging = Staging::of(Owner::Region {
            current: before.epoch,
            next: &next,
        });
        let pages = self.count_rows(Range::RegionPages).await?;
        staging.stage(self, operation, pages, Some(Pace::begin())).await?;
        let _gate = self.keys.region_gate().await;
        staging.stage(self, operation, pages, None).await?;
        let page_states = staging.finish(self).await?;
        let created = self.created(operation, label, grant, sealed_keyring, page_states);
        if before.provider != maker.kind() {
            // The first that this provider has given: it must open all that it is to hold before anything depends on it.
            self.read_back_epoch(&created, &Begun::new()).await?;
        }
        self.take_over(&operation.with_all(pages), &next, created).await
    }

    fn created(
        &self,
        operation: &KeyOperation,
        label: EpochLabel,
        grant: EpochGrant,
        sealed_keyring: Vec<u8>,
        page_states: Vec<PageStates>,
    ) -> RootEpochCreated {
        RootEpochCreated {
            epoch: label.epoch,
            provider: self.providers.maker().kind().to_owned(),
            handle: grant.handle,
            wrapped_epoch_key: grant.wrapped.into(),
            sealed_keyring: sealed_keyring.into(),
            page_states,
            operation_id: operation.id.as_bytes().to_vec().into(),
        }
    }

    /// The pointer change; the caller holds the region's gate.
    async fn take_over(
        &self,
        operation: &KeyOperation,
        next: &Arc<EpochKeys>,
        created: RootEpochCreated,
    ) -> Result<(), Error> {
        let now = self.clock.now();
        let (before, value) = self.newest_epoch().await?;
        let (before_key, epoch) = (Key::Epoch(before.epoch), created.epoch);
        let change = Change {
            expect: vec![
                Expect::Absent(Key::Epoch(epoch)),
                Expect::Equals(before_key, value),
            ],
            put: vec![
                apply::epoch(&self.rows, &created, now),
                apply::epoch_retired(&self.rows, before, now),
                step_row(&self.rows, operation, epoch, now),
            ],
            leaves: vec![leaf::draft(
                Scope::Region,
                &operation.actor,
                now,
                Body::RootEpochCreated(created),
            )],
            ..Change::default()
        };
        // Whoever looks a page up from the moment of the commit on finds both open.
        self.keys.admit_epoch(next);
        let committed = self.ledger.commit(change, Until::Shipped).await;
        let applied = match &committed {
            Ok(_) | Err(LedgerError::NotShipped) => true,
            Err(LedgerError::Index(IndexError::Expectation(_))) => false,
            // It may be there all the same: a page sealed under an epoch that is no longer the newest would be lost.
            Err(_) => self.is_known(&Key::Epoch(epoch)).await,
        };
        if applied {
            self.keys.use_epoch(epoch);
        }
        Ok(committed.map(|_| ())?)
    }

    pub(in crate::vault) async fn replay_epoch_destroying(
        &self,
        body: &RootEpochDestroying,
        at: Timestamp,
    ) -> Result<Vec<Row>, Error> {
        let Some((before, _)) = self.epoch_row(body.epoch).await? else {
            return Ok(Vec::new());
        };
        Ok(vec![apply::epoch_destroying(&self.rows, before, at)])
    }

    pub(in crate::vault) async fn replay_epoch_destroyed(
        &self,
        body: &RootEpochDestroyed,
        at: Timestamp,
    ) -> Result<Vec<Row>, Error> {
        let Some((before, _)) = self.epoch_row(body.epoch).await? else {
            return Ok(Vec::new());
        };
        let row = apply::epoch_destroyed(&self.rows, before, body.scheduled_micros, at);
        Ok(vec![row])
    }

    /// The row of an epoch, and its value. One that was given up has none.
    pub(super) async fn epoch_row(&self, epoch: u64) -> Result<Option<(EpochRow, Vec<u8>)>, Error> {
        let key = Key::Epoch(epoch);
        let Some(value) = self.index.get(&key).await? else {
            return Ok(None);
        };
        Ok(Some((self.rows.open(&key, &value)?, value)))
    }

    /// Whether a row is there; asks until the index answers.
    async fn is_known(&self, key: &Key) -> bool {
        loop {
            match self.index.get(key).await {
                Ok(found) => return found.is_some(),
                Err(error) => {
                    tracing::error!(%error, "it is not known whether the root was turned; asking again")
                }
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// Says in the log, before the provider is asked, that an epoch is about to be made.
    async fn intend_epoch(&self, operation: &KeyOperation, epoch: u64) -> Result<(), Error> {
        let intended = RootEpochIntended {
            epoch,
            provider: self.providers.maker().kind().to_owned(),
        };
        let change = Change {
            put: vec![apply::intended(epoch, self.providers.maker().kind())],
            leaves: vec![leaf::draft(
                Scope::Region,
                &operation.actor,
                self.clock.now(),
                Body::RootEpochIntended(intended),
            )],
            ..Change::default()
        };
        self.ledger.commit(change, Until::Shipped).await?;
        Ok(())
    }

    /// The highest epoch that an attempt was begun for, and the kind of the provider that was to make it.
    async fn intended_epoch(&self) -> Result<(u64, String), Error> {
        let corrupt = || Error::corrupt("index row");
        let Some(value) = self.index.get(&Key::Meta(apply::INTENDED_EPOCH)).await? else {
            return Ok((0, String::new()));
        };
        let (number, kind) = value.split_first_chunk().ok_or_else(corrupt)?;
        let kind = String::from_utf8(kind.to_vec()).map_err(|_| corrupt())?;
        Ok((u64::from_be_bytes(*number), kind))
    }

    /// Destroys the key of an epoch that never came to be, where the last attempt was `by` and where the next one is made.
    async fn give_up_epoch(&self, epoch: u64, by: &str) -> Result<(), Error> {
        // By its label alone: an attempt that was cut short may not have been told the handle.
        let label = self.label(epoch);
        let maker = self.providers.maker();
        maker.destroy(label, "").await.map_err(provider_failed)?;
        if by.is_empty() || by == maker.kind() {
            return Ok(());
        }
        let given_up = match self.holder(by, epoch).await {
            Ok(provider) => provider.destroy(label, "").await.map_err(provider_failed),
            Err(error) => Err(error),
        };
        match given_up {
            // It alone keeps what it wrapped; elsewhere the epoch's key was nowhere but in the process that died.
            Err(error) if by == KEEPS_WRAPS => Err(error),
            Err(error) => {
                tracing::warn!(epoch, provider = by, %error, "the key of an epoch that never came to be was not destroyed");
                Ok(())
            }
            Ok(_) => Ok(()),
        }
    }

    /// The newest epoch that is known, and its row's value.
    pub(in crate::vault) async fn newest_epoch(&self) -> Result<(EpochRow, Vec<u8>), Error> {
        let scan = Scan {
            range: Range::Epochs,
            reverse: true,
            after: None,
            limit: 1,
        };
        let newest = self.index.scan(&scan).await?.pop();
        let row = newest.ok_or_else(|| Error::corrupt("key material"))?;
        let epoch: EpochRow = self.rows.open(&row.key, &row.value)?;
        if epoch.epoch != self.keys.current_epoch() {
            // An earlier attempt was applied without an answer.
            self.keys.use_epoch(epoch.epoch);
        }
        Ok((epoch, row.value))
    }
}

pub(super) fn provider_failed(error: crate::keys::provider::ProviderError) -> Error {
    crate::keys::KeyError::Provider(error).into()
}
