//! Leaves are found in the logs by when they were queued: rows remember times, not positions.
//!
//! A log's leaves are about in the order of their times: a bisection over bundles finds the moment, a minute around it is read.
//! Where that does not find all, because a clock was set back, the whole of every log is read.

use std::{collections::HashSet, sync::Arc};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::{
    evidence::{
        certificate::{CitedLeaf, Inclusion},
        proof,
    },
    index::LogKind,
    ledger::{
        leaf,
        log::{LogName, LogReader, logs},
    },
    proto::storage::StateLeaf,
};

use super::super::super::{Error, Vault};

/// Around a moment, microseconds: how long a leaf may have waited for its place.
const SLACK: i64 = 60_000_000;
/// Logs opened at a time.
const PARALLEL: usize = 16;
/// Entries of a bundle.
const BUNDLE: u64 = 256;

/// Every state log of the vault, as the bucket holds them now.
#[derive(Debug)]
pub(super) struct Logs(Vec<LogReader>);

/// A leaf and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Found {
    log: usize,
    index: u64,
    bytes: Bytes,
    /// What it says.
    pub(super) leaf: StateLeaf,
}

impl Logs {
    pub(super) async fn open(vault: &Vault) -> Result<Self, Error> {
        let known = logs(&*vault.store, LogKind::State).await?;
        let opened: Vec<_> = known
            .into_iter()
            .map(|log| {
                let vault_id = vault.realm.vault;
                let name = LogName { vault: vault_id, log };
                LogReader::open(Arc::clone(&vault.store), name, None)
            })
            .collect();
        let opened: Vec<_> = stream::iter(opened).buffered(PARALLEL).try_collect().await?;
        Ok(Self(opened.into_iter().flatten().collect()))
    }

    /// The leaves that are wanted: looked for around these times, then, unless that is enough, everywhere. Each once, though
    /// it may stand in two logs.
    pub(super) async fn find(
        &self,
        times: impl IntoIterator<Item = i64>,
        wants: impl Fn(&StateLeaf) -> bool,
        enough: impl Fn(&[Found]) -> bool,
    ) -> Result<Vec<Found>, Error> {
        let found = self.look(&windows(times), &wants).await?;
        if enough(&found) {
            return Ok(found);
        }
        self.look(&[(i64::MIN, i64::MAX)], &wants).await
    }

    async fn look(
        &self,
        windows: &[(i64, i64)],
        wants: &impl Fn(&StateLeaf) -> bool,
    ) -> Result<Vec<Found>, Error> {
        let (mut found, mut seen) = (Vec::new(), HashSet::new());
        for (log, reader) in self.0.iter().enumerate() {
            let (size, mut from) = (reader.head().size, 0);
            for (begin, end) in windows {
                from = from.max(bundle_before(reader, *begin).await?);
                while from < size {
                    let mut past = false;
                    let entries = reader.read(from).await?;
                    for (index, bytes) in (from..).zip(&entries) {
                        let leaf = leaf::parse(bytes).map_err(|e| Error::corrupt("state log").because(e))?;
                        past = leaf.time_micros > *end;
                        if wants(&leaf) && seen.insert(bytes.clone()) {
                            let bytes = bytes.clone();
                            found.push(Found {
                                log,
                                index,
                                bytes,
                                leaf,
                            });
                        }
                    }
                    from += entries.len() as u64;
                    if past {
                        break;
                    }
                }
            }
        }
        Ok(found)
    }

    /// The leaves with their proofs, and the checkpoints of their logs.
    pub(super) async fn cite(&self, found: &[Found]) -> Result<Inclusion, Error> {
        let mut inclusion = Inclusion::default();
        for (log, reader) in self.0.iter().enumerate() {
            let leaves = found.iter().filter(|found| found.log == log);
            let mut cited: Vec<CitedLeaf> = Vec::new();
            for leaf in leaves {
                cited.push(proof::cite(reader, leaf.index, &leaf.bytes).await?);
            }
            if !cited.is_empty() {
                inclusion.checkpoints.push(proof::checkpoint(reader));
                inclusion.leaves.extend(cited);
            }
        }
        Ok(inclusion)
    }
}

/// Position of a bundle that every leaf queued at `begin` or later stands in or after, if times only ever grew.
async fn bundle_before(reader: &LogReader, begin: i64) -> Result<u64, Error> {
    if begin == i64::MIN {
        return Ok(0);
    }
    let (mut low, mut high) = (0, reader.head().size.div_ceil(BUNDLE));
    while low < high {
        let middle = low + (high - low) / 2;
        let entries = reader.read(middle * BUNDLE).await?;
        let first = entries.first().ok_or_else(|| Error::corrupt("state log"))?;
        let first = leaf::parse(first).map_err(|e| Error::corrupt("state log").because(e))?;
        if first.time_micros < begin {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low.saturating_sub(1) * BUNDLE)
}

/// Moments with a minute around each, ascending, those that touch made one. 0 is no moment.
fn windows(times: impl IntoIterator<Item = i64>) -> Vec<(i64, i64)> {
    let mut times: Vec<_> = times.into_iter().filter(|time| *time != 0).collect();
    times.sort_unstable();
    let mut windows: Vec<(i64, i64)> = Vec::new();
    for time in times {
        let (begin, end) = (time.saturating_sub(SLACK), time.saturating_add(SLACK));
        match windows.last_mut() {
            Some(last) if begin <= last.1 => last.1 = end,
            _ => windows.push((begin, end)),
        }
    }
    windows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_that_touch_are_looked_for_together() {
        assert_eq!(windows([0]), []);
        assert_eq!(
            windows([SLACK * 10, SLACK * 2, SLACK * 3]),
            [(SLACK, SLACK * 4), (SLACK * 9, SLACK * 11)]
        );
    }
}
