//! Changes: all or nothing, and for good.

use std::sync::Arc;

use super::{
    Checked, Harness,
    sample::{LOG, leaves, put, row, tenant},
};
use crate::{
    domain::limits,
    index::{Change, Expect, Index, IndexError, Key, LeafDraft, Scope, VALUE_BYTES},
};

const MOST: usize = limits::TRANSACTION_ROWS;

/// What was committed is there after the index has been closed and opened again.
pub async fn rows_and_leaves_survive_reopening(harness: &impl Harness) -> Checked {
    let index = harness.open()?;
    let mut change = leaves(LOG, &[Scope::Region]);
    change.put = vec![row(Key::Epoch(1), b"one"), row(Key::Epoch(2), vec![2; 3_000])];
    index.commit(change).await?;
    drop(index);

    let index = harness.open()?;
    assert_eq!(index.get(&Key::Epoch(1)).await?, Some(b"one".to_vec()));
    assert_eq!(index.get(&Key::Epoch(2)).await?, Some(vec![2; 3_000]));
    assert_eq!(index.queued(LOG, 0, 10).await?.len(), 1);
    Ok(())
}

/// A failed precondition leaves rows, leaves and counters as they were.
pub async fn preconditions_hold_or_nothing_changes(harness: &impl Harness) -> Checked {
    let index = harness.open()?;
    let key = || Key::Epoch(1);
    let failing = [
        Expect::Absent(key()),
        Expect::Present(Key::Epoch(9)),
        Expect::Equals(key(), b"other".to_vec()),
        Expect::Equals(key(), Vec::new()),
        Expect::Equals(Key::Epoch(9), Vec::new()),
    ];
    let holding = [
        Expect::Present(key()),
        Expect::Absent(Key::Epoch(9)),
        Expect::Equals(key(), b"value".to_vec()),
    ];
    index.commit(put(vec![row(key(), b"value")])).await?;
    for expect in failing {
        let mut change = leaves(LOG, &[Scope::Region]);
        change.expect = vec![expect];
        change.put = vec![row(Key::Epoch(2), b"never")];
        change.delete = vec![key()];
        assert!(matches!(
            index.commit(change).await,
            Err(IndexError::Expectation(0))
        ));
    }
    assert_eq!(index.get(&key()).await?, Some(b"value".to_vec()));
    assert_eq!(index.get(&Key::Epoch(2)).await?, None);
    assert_eq!(index.get(&Key::LogNext(LOG)).await?, None);
    assert!(index.queued(LOG, 0, 10).await?.is_empty());

    index
        .commit(Change {
            expect: holding.to_vec(),
            ..Change::default()
        })
        .await?;
    Ok(())
}

/// The first precondition that fails is the one that is reported.
pub async fn preconditions_are_checked_in_order(harness: &impl Harness) -> Checked {
    let index = harness.open()?;
    let [absent, present] = [Expect::Absent(Key::Epoch(1)), Expect::Present(Key::Epoch(1))];
    let expect = vec![absent.clone(), absent, present.clone(), present];
    let outcome = index
        .commit(Change {
            expect,
            ..Change::default()
        })
        .await;
    assert!(matches!(outcome, Err(IndexError::Expectation(2))));
    Ok(())
}

/// What no engine may be asked is refused by all.
pub async fn malformed_changes_are_refused(harness: &impl Harness) -> Checked {
    let index = harness.open()?;
    let rows = |count: u64| (0..count).map(|n| row(Key::Epoch(n), b"")).collect::<Vec<_>>();
    let mut mixed = leaves(LOG, &[Scope::Fact]);
    mixed.put = rows(MOST as u64 - 1);
    mixed.delete = vec![Key::Epoch(1_000)];
    let mut counted = leaves(LOG, &[Scope::Region]);
    counted.put = vec![row(Key::Sequence(Scope::Region), [0; 8])];
    let mut long = leaves(LOG, &[]);
    long.leaves = vec![LeafDraft {
        scope: Scope::Fact,
        body: vec![0; (60 << 10) + 1],
    }];
    let malformed = [
        put(rows(MOST as u64 + 1)),
        mixed,
        counted,
        long,
        put([rows(1), rows(1)].concat()),
        put(vec![row(Key::Epoch(1), vec![0; VALUE_BYTES + 1])]),
        put(vec![row(Key::LogNext(LOG), b"seven b")]),
        Change {
            delete: vec![Key::Epoch(0)],
            ..put(rows(1))
        },
        Change {
            log: None,
            ..leaves(LOG, &[Scope::Fact])
        },
        Change {
            expect: vec![Expect::Absent(Key::Epoch(1)); MOST + 1],
            ..Change::default()
        },
    ];
    for change in malformed {
        assert!(matches!(
            index.commit(change).await,
            Err(IndexError::InvalidChange(_))
        ));
    }
    assert_eq!(index.get(&Key::Epoch(0)).await?, None);
    index.commit(put(rows(MOST as u64))).await?;
    Ok(())
}

/// Deleting deletes, and deleting again changes nothing.
pub async fn deleting_what_is_missing_is_no_error(harness: &impl Harness) -> Checked {
    let index = harness.open()?;
    let delete = || Change {
        delete: vec![Key::Epoch(1)],
        ..Change::default()
    };
    index
        .commit(put(vec![row(Key::Epoch(1), vec![1; 10_000])]))
        .await?;
    for _ in 0..2 {
        index.commit(delete()).await?;
        assert_eq!(index.get(&Key::Epoch(1)).await?, None);
    }
    Ok(())
}

/// Of 32 tasks that want the same key absent, one gets it.
pub async fn one_of_many_wins(harness: &impl Harness) -> Checked {
    let index = harness.open()?;
    let key = Key::Tenant(tenant("a")?);
    let tasks: Vec<_> = (0..32_u8)
        .map(|n| tokio::spawn(claim(Arc::clone(&index), key.clone(), n)))
        .collect();
    let mut winners = Vec::new();
    for task in tasks {
        winners.extend(task.await??);
    }
    assert_eq!(winners.len(), 1);
    assert_eq!(index.get(&key).await?, Some(winners));
    Ok(())
}

/// The change that changes nothing succeeds.
pub async fn an_empty_change_is_a_barrier(harness: &impl Harness) -> Checked {
    let index = harness.open()?;
    assert!(index.commit(Change::default()).await?.is_empty());
    Ok(())
}

/// `Some(n)` if `n` got `key`.
async fn claim(index: Arc<dyn Index>, key: Key, n: u8) -> Result<Option<u8>, IndexError> {
    let change = Change {
        expect: vec![Expect::Absent(key.clone())],
        ..put(vec![row(key, [n])])
    };
    match index.commit(change).await {
        Ok(_) => Ok(Some(n)),
        Err(IndexError::Expectation(0)) => Ok(None),
        Err(error) => Err(error),
    }
}
