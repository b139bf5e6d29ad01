//! Sequences, positions and the queue of leaves.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    Checked, Harness,
    sample::{LOG, leaves, put, row, tenant},
};
use crate::index::{Change, Expect, Index, IndexError, Key, LeafDraft, LeafReceipt, LogId, LogKind, Scope};

/// Every scope and every log counts for itself.
pub async fn numbers_have_no_gaps(harness: &impl Harness) -> Checked {
    let index = harness.open()?;
    let (a, ab) = (Scope::Tenant(tenant("a")?), Scope::Tenant(tenant("ab")?));
    let scopes = [a.clone(), Scope::Fact, ab, a, Scope::Region];
    let sequences = |receipts: Vec<LeafReceipt>| receipts.iter().map(|r| r.sequence).collect::<Vec<_>>();
    assert_eq!(
        sequences(index.commit(leaves(LOG, &scopes)).await?),
        [1, 0, 1, 2, 1]
    );
    let other = LogId {
        kind: LogKind::Access,
        ..LOG
    };
    let receipts = index.commit(leaves(other, &scopes)).await?;
    assert_eq!(
        receipts.iter().map(|r| r.position).collect::<Vec<_>>(),
        [0, 1, 2, 3, 4]
    );
    assert_eq!(sequences(receipts), [3, 0, 2, 4, 2]);
    assert_eq!(
        index.get(&Key::Sequence(Scope::Region)).await?,
        Some(2_u64.to_be_bytes().to_vec())
    );
    assert_eq!(index.get(&Key::Sequence(Scope::Fact)).await?, None);
    assert_eq!(
        index.get(&Key::LogNext(LOG)).await?,
        Some(5_u64.to_be_bytes().to_vec())
    );

    let queued = index.queued(LOG, 1, 2).await?;
    assert_eq!(
        queued
            .iter()
            .map(|leaf| leaf.receipt.position)
            .collect::<Vec<_>>(),
        [1, 2]
    );
    assert_eq!(
        queued.iter().map(|leaf| leaf.scope.clone()).collect::<Vec<_>>(),
        scopes[1..3]
    );
    Ok(())
}

/// 32 tasks at once leave no gap and no double, and each row stands beside its own leaf.
pub async fn numbers_have_no_gaps_under_concurrency(harness: &impl Harness) -> Checked {
    const EACH: u64 = 4;
    let index = harness.open()?;
    let tasks: Vec<_> = (0..32)
        .map(|n| tokio::spawn(count(Arc::clone(&index), n, EACH)))
        .collect();
    let mut receipts = Vec::new();
    for task in tasks {
        receipts.extend(task.await??);
    }
    let (positions, sequences): (BTreeSet<_>, BTreeSet<_>) =
        receipts.iter().map(|r| (r.position, r.sequence)).unzip();
    assert_eq!(positions, (0..32 * EACH).collect());
    assert_eq!(sequences, (1..=32 * EACH).collect());

    let queued = index.queued(LOG, 0, 1_000).await?;
    assert_eq!(queued.len(), receipts.len());
    for leaf in queued {
        let n = u64::from_be_bytes(leaf.body.as_slice().try_into()?);
        assert!(index.get(&Key::Epoch(n)).await?.is_some());
    }
    Ok(())
}

/// Counting goes on after reopening, also when everything has been shipped.
pub async fn numbers_survive_reopening(harness: &impl Harness) -> Checked {
    let index = harness.open()?;
    index.commit(leaves(LOG, &[Scope::Region, Scope::Region])).await?;
    index.shipped(LOG, 2).await?;
    drop(index);
    let receipts = harness.open()?.commit(leaves(LOG, &[Scope::Region])).await?;
    assert_eq!(
        receipts,
        [LeafReceipt {
            position: 2,
            sequence: 3
        }]
    );
    Ok(())
}

/// A rebuild may set counters; a change that fails takes no number.
pub async fn a_failed_change_takes_no_number(harness: &impl Harness) -> Checked {
    let index = harness.open()?;
    let counters = [Key::Sequence(Scope::Region), Key::LogNext(LOG)];
    index
        .commit(put(counters.map(|key| row(key, 41_u64.to_be_bytes())).to_vec()))
        .await?;
    let mut failing = leaves(LOG, &[Scope::Region]);
    failing.expect = vec![Expect::Present(Key::Epoch(1))];
    assert!(matches!(
        index.commit(failing).await,
        Err(IndexError::Expectation(0))
    ));
    let receipts = index.commit(leaves(LOG, &[Scope::Region])).await?;
    assert_eq!(
        receipts,
        [LeafReceipt {
            position: 41,
            sequence: 42
        }]
    );
    Ok(())
}

/// What was shipped is gone, from this log alone, however much it was; shipping again is harmless.
pub async fn shipped_leaves_are_forgotten(harness: &impl Harness) -> Checked {
    let index = harness.open()?;
    let next_term = LogId {
        term: LOG.term + 1,
        ..LOG
    };
    for _ in 0..5 {
        index.commit(leaves(LOG, &vec![Scope::Fact; 60])).await?;
    }
    index.commit(leaves(next_term, &[Scope::Fact])).await?;
    for _ in 0..2 {
        index.shipped(LOG, 299).await?;
        let left = index.queued(LOG, 0, 1_000).await?;
        assert_eq!(
            left.iter().map(|leaf| leaf.receipt.position).collect::<Vec<_>>(),
            [299]
        );
    }
    assert_eq!(index.queued(next_term, 0, 10).await?.len(), 1);
    Ok(())
}

/// A leaf of the greatest length comes back whole, and is forgotten whole.
pub async fn long_leaves_come_back(harness: &impl Harness) -> Checked {
    let index = harness.open()?;
    let body: Vec<u8> = (0..60_u32 << 10).map(|n| n.to_le_bytes()[1]).collect();
    let leaf = LeafDraft {
        scope: Scope::Tenant(tenant("a-b")?),
        body,
    };
    let change = Change {
        log: Some(LOG),
        leaves: vec![leaf.clone()],
        ..Change::default()
    };
    index.commit(change).await?;
    let queued = index.queued(LOG, 0, 10).await?;
    assert!(
        queued
            .iter()
            .map(|queued| (&queued.scope, &queued.body))
            .eq([(&leaf.scope, &leaf.body)])
    );
    index.shipped(LOG, 1).await?;
    assert!(index.queued(LOG, 0, 10).await?.is_empty());
    Ok(())
}

async fn count(index: Arc<dyn Index>, task: u64, each: u64) -> Result<Vec<LeafReceipt>, IndexError> {
    let mut receipts = Vec::new();
    for n in 0..each {
        let n = task * each + n;
        let leaf = LeafDraft {
            scope: Scope::Region,
            body: n.to_be_bytes().to_vec(),
        };
        let put = vec![row(Key::Epoch(n), b"")];
        let change = Change {
            put,
            log: Some(LOG),
            leaves: vec![leaf],
            ..Change::default()
        };
        receipts.extend(index.commit(change).await?);
    }
    Ok(receipts)
}
