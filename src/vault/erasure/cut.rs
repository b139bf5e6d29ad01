//! Records are cut off: unreadable from here on, and whoever reads them stops.

use crate::{
    domain::{ids::RecordId, record::State},
    index::{Change, Expect, Key},
    proto::storage::RecordRow,
};

use super::{
    super::{Error, Vault},
    case::Case,
    set::Set,
};

/// Records of one transaction: a row each, and room for what stands around them.
const BATCH: usize = 200;
/// How often rows may change while they are about to be.
const RACES: usize = 32;

impl Vault {
    /// Cuts off every record of a case that no other case has cut off. Idempotent.
    pub(super) async fn cut_off(&self, case: &Case) -> Result<(), Error> {
        let set = self.read_set(&case.row).await?;
        self.cut_off_some(case, &set).await
    }

    /// Likewise, of these.
    pub(super) async fn cut_off_some(&self, case: &Case, set: &Set) -> Result<(), Error> {
        let erasure = case.id.as_bytes().to_vec();
        let cut = |row: RecordRow| {
            (row.state != State::PendingShred.number()).then(|| RecordRow {
                state: State::PendingShred.number(),
                state_before: row.state,
                erasure_id: erasure.clone().into(),
                ..row
            })
        };
        let ids: Vec<RecordId> = set.iter().copied().collect();
        for some in ids.chunks(BATCH) {
            self.change_records(case, some, &cut).await?;
            self.streams.cut(&case.tenant, some);
        }
        Ok(())
    }

    /// Gives back what this case cut off. Idempotent.
    pub(super) async fn give_back(&self, case: &Case) -> Result<(), Error> {
        let erasure = case.id.as_bytes().to_vec();
        let back = |row: RecordRow| {
            (row.erasure_id[..] == erasure[..]).then(|| RecordRow {
                state: row.state_before,
                state_before: 0,
                erasure_id: Default::default(),
                ..row
            })
        };
        let set = self.read_set(&case.row).await?;
        let ids: Vec<RecordId> = set.into_iter().collect();
        for some in ids.chunks(BATCH) {
            self.change_records(case, some, &back).await?;
        }
        Ok(())
    }

    /// What both cases cover and this one cut off is the other's from here on. Idempotent.
    pub(super) async fn hand_over(&self, case: &Case, other: &Case) -> Result<(), Error> {
        let (from, to) = (case.id.as_bytes().to_vec(), other.id.as_bytes().to_vec());
        let theirs = |row: RecordRow| {
            (row.erasure_id[..] == from[..]).then(|| RecordRow {
                erasure_id: to.clone().into(),
                ..row
            })
        };
        let (ours, others) = (self.read_set(&case.row).await?, self.read_set(&other.row).await?);
        let both: Vec<RecordId> = ours.intersection(&others).copied().collect();
        for some in both.chunks(BATCH) {
            self.change_records(case, some, &theirs).await?;
        }
        Ok(())
    }

    async fn change_records(
        &self,
        case: &Case,
        ids: &[RecordId],
        change_row: &(dyn Fn(RecordRow) -> Option<RecordRow> + Sync),
    ) -> Result<(), Error> {
        let keys: Vec<Key> = ids
            .iter()
            .map(|id| Key::Record(case.tenant.clone(), *id))
            .collect();
        for _ in 0..RACES {
            let values = self.index.get_many(&keys).await?;
            let mut change = Change::default();
            for (key, value) in keys.iter().zip(values) {
                let Some(value) = value else { continue };
                let row = self.rows.open(key, &value)?;
                if let Some(after) = change_row(row) {
                    change.expect.push(Expect::Equals(key.clone(), value));
                    change.put.push(self.rows.row(key.clone(), &after));
                }
            }
            match self.index.commit(change).await.map_err(Error::from) {
                // A correction came between.
                Err(Error {
                    reason: "CONFLICT", ..
                }) => {}
                done => return done.map(|_| ()),
            }
        }
        Err(crate::index::IndexError::Expectation(0).into())
    }
}
