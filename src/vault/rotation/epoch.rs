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
    super::{Error, Vault, apply},
    KeyOperation,
    staging::{Owner, Staging},
    step_row,
};

impl Vault {
    /// Turns the root. An attempt that was cut short is given up with its epoch: what it staged may still have slots that were
    /// punctured since, and must never be opened.
    pub(super) async fn turn_root_epoch(&self, operation: &KeyOperation) -> Result<(), Error> {
        let (before, _) = self.newest_epoch().await?;
        let intended = self.intended_epoch().await?.max(before.epoch);
        for given_up in before.epoch + 1..=intended {
            self.give_up_epoch(given_up).await?;
        }
        let label = EpochLabel {
            vault: self.realm.vault,
            epoch: intended + 1,
        };
        self.intend_epoch(operation, label.epoch).await?;
        let made = make_epoch(&*self.provider, label).await;
        let (grant, key) = made.map_err(provider_failed)?;
        let sealed_keyring = self.keys.seal_region_keyring(label.epoch, &key)?;
        let next = Arc::new(EpochKeys::new(label.epoch, &key));
        drop(key);

        let mut staging = Staging::of(Owner::Region {
            current: before.epoch,
            next: &next,
        });
        let pages = self.count_rows(Range::RegionPages).await?;
        staging.stage(self, operation, pages).await?;
        let _gate = self.keys.region_gate().await;
        staging.stage(self, operation, pages).await?;
        let page_states = staging.finish(self).await?;
        let created = self.created(operation, label, grant, sealed_keyring, page_states);
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
            provider: self.provider.kind().to_owned(),
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
            provider: self.provider.kind().to_owned(),
        };
        let change = Change {
            put: vec![apply::intended(epoch)],
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

    /// The highest epoch that an attempt was begun for.
    pub(super) async fn intended_epoch(&self) -> Result<u64, Error> {
        let value = self.index.get(&Key::Meta(apply::INTENDED_EPOCH)).await?;
        let number = value.map(|value| value.try_into().map(u64::from_be_bytes));
        let number = number.transpose().map_err(|_| Error::corrupt("index row"))?;
        Ok(number.unwrap_or(0))
    }

    /// Destroys the key of an epoch that never came to be.
    async fn give_up_epoch(&self, epoch: u64) -> Result<(), Error> {
        let label = EpochLabel {
            vault: self.realm.vault,
            epoch,
        };
        // By its label alone: an attempt that was cut short may not have been told the handle.
        let destroyed = self.provider.destroy(label, "").await;
        destroyed.map(|_| ()).map_err(provider_failed)
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
