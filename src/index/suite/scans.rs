//! Scans: in order, page by page, within their range.

use super::{
    Checked, Harness,
    sample::{Dice, TENANTS, TIMES, put, row, tenant},
};
use crate::{
    domain::clock::Timestamp,
    index::{Index, IndexError, Key, Range, Row, Scan, memory::MemoryIndex},
};

/// Random rows of all tables, put, replaced and deleted; every range, both ways, in pages of 1, 2 and 1,000.
///
/// # Errors
/// Whatever the engine says.
pub async fn agree_with_the_model(harness: &impl Harness, seed: u64) -> Checked {
    let (index, model) = (harness.open()?, MemoryIndex::new());
    let mut dice = Dice(seed);
    for _ in 0..12 {
        let change = churn(&mut dice)?;
        model.commit(change.clone()).await?;
        index.commit(change).await?;
    }
    for range in dice.ranges()? {
        for reverse in [false, true] {
            let whole = pages(&model, &range, reverse, 1_000).await?;
            for limit in [1, 2, 1_000] {
                let found = pages(&*index, &range, reverse, limit).await?;
                assert_eq!(found, whole, "{range:?} reverse={reverse} limit={limit}");
            }
            let after = Some(dice.key()?);
            let scan = Scan {
                range: range.clone(),
                reverse,
                after: same_table(&range, after),
                limit: 3,
            };
            assert_eq!(index.scan(&scan).await?, model.scan(&scan).await?, "{scan:?}");
        }
    }
    Ok(())
}

/// A tenant's rows are its own, whatever the others are called.
pub async fn tenants_do_not_see_each_other(harness: &impl Harness) -> Checked {
    let index = harness.open()?;
    let mut dice = Dice(1);
    for name in TENANTS {
        let record = Key::Record(tenant(name)?, dice.record()?);
        let key = Key::TenantKey(tenant(name)?, u64::MAX);
        index
            .commit(put(vec![
                row(record, name),
                row(key, name),
                row(Key::Tenant(tenant(name)?), name),
            ]))
            .await?;
    }
    for name in TENANTS {
        for range in [Range::Records(tenant(name)?), Range::TenantKeys(tenant(name)?)] {
            let rows = pages(&*index, &range, false, 1).await?;
            assert_eq!(
                rows.iter().map(|row| row.value.clone()).collect::<Vec<_>>(),
                [name.as_bytes()]
            );
        }
    }
    let all = pages(&*index, &Range::Tenants, false, 1).await?;
    assert!(
        all.iter()
            .map(|row| row.value.as_slice())
            .eq(TENANTS.map(str::as_bytes))
    );
    Ok(())
}

/// Times sort as numbers with a sign; `from` is in, `to` is not.
pub async fn times_before_1970_come_first(harness: &impl Harness) -> Checked {
    let index = harness.open()?;
    let (a, record) = (tenant("a")?, Dice(2).record()?);
    for time in TIMES {
        let key = Key::ByTime(a.clone(), Timestamp(time), record);
        index.commit(put(vec![row(key, time.to_be_bytes())])).await?;
    }
    let listed = async |from, to| -> Result<Vec<Vec<u8>>, IndexError> {
        let range = Range::ByTime(a.clone(), Timestamp(from), Timestamp(to));
        Ok(pages(&*index, &range, false, 2)
            .await?
            .into_iter()
            .map(|row| row.value)
            .collect())
    };
    let bytes = |times: &[i64]| {
        times
            .iter()
            .map(|time| time.to_be_bytes().to_vec())
            .collect::<Vec<_>>()
    };
    assert_eq!(listed(i64::MIN, i64::MAX).await?, bytes(&TIMES[..6]));
    assert_eq!(listed(-1, 1).await?, bytes(&[-1, 0]));
    assert_eq!(listed(1, -1).await?, bytes(&[]));
    assert_eq!(listed(0, 0).await?, bytes(&[]));
    Ok(())
}

/// A page of none or of more than 1,000 rows is refused.
pub async fn limits_are_kept(harness: &impl Harness) -> Checked {
    let index = harness.open()?;
    for limit in [0, 1_001] {
        let scan = Scan {
            range: Range::Epochs,
            reverse: false,
            after: None,
            limit,
        };
        assert!(matches!(
            index.scan(&scan).await,
            Err(IndexError::InvalidChange(_))
        ));
    }
    Ok(())
}

async fn pages(
    index: &dyn Index,
    range: &Range,
    reverse: bool,
    limit: usize,
) -> Result<Vec<Row>, IndexError> {
    let mut rows: Vec<Row> = Vec::new();
    loop {
        let after = rows.last().map(|row| row.key.clone());
        let page = index
            .scan(&Scan {
                range: range.clone(),
                reverse,
                after,
                limit,
            })
            .await?;
        let full = page.len() == limit;
        rows.extend(page);
        if !full {
            return Ok(rows);
        }
    }
}

/// 40 rows put and 20 deleted, each key once.
fn churn(dice: &mut Dice) -> Result<crate::index::Change, crate::domain::ids::InvalidId> {
    let mut keys = std::collections::BTreeSet::new();
    while keys.len() < 60 {
        let key = dice.key()?;
        if !matches!(key, Key::Sequence(_) | Key::LogNext(_)) {
            keys.insert(key);
        }
    }
    let mut change = crate::index::Change::default();
    for key in keys {
        if change.delete.len() < 20 && dice.below(3) == 0 {
            change.delete.push(key);
        } else {
            change.put.push(row(key, dice.value()));
        }
    }
    Ok(change)
}

/// `after` where it is a key of the range's table: engines need not agree on the order of tables.
fn same_table(range: &Range, after: Option<Key>) -> Option<Key> {
    after.filter(|key| {
        matches!(
            (range, key),
            (Range::Epochs, Key::Epoch(_))
                | (Range::RegionPages, Key::RegionPage(_))
                | (Range::KeyOperations, Key::KeyOperation(_))
                | (Range::Tenants, Key::Tenant(_))
                | (Range::OpenPages, Key::OpenPage(..))
                | (Range::Records(_), Key::Record(..))
                | (Range::ByTime(..), Key::ByTime(..))
                | (Range::BySubject(..), Key::BySubject(..))
                | (Range::Requests, Key::Request(..))
                | (Range::TenantRequests(_), Key::Request(..))
                | (Range::Erasures(_), Key::Erasure(..))
                | (Range::DueErasures(_), Key::DueErasure(..))
                | (Range::Tombstones(_), Key::Tombstone(..))
                | (Range::Unswept, Key::Unswept(..))
                | (Range::Purges, Key::Purge(..))
                | (Range::Renumbers(_), Key::Renumber(..))
        )
    })
}
