//! Values: opaque, and whole.

use std::sync::Arc;

use super::{
    Checked, Harness,
    sample::{put, row},
};
use crate::index::{Change, Expect, Index, IndexError, Key, Range, Scan, VALUE_BYTES};

/// From nothing to 64 KiB.
pub async fn values_of_every_length_come_back(harness: &impl Harness) -> Checked {
    let index = harness.open()?;
    for length in [0, 1, 1_023, 1_024, 1_025, 2_048, 2_049, 10_000, VALUE_BYTES] {
        let value: Vec<u8> = (0..length).map(|n| (n / 7).to_le_bytes()[0]).collect();
        let expect = vec![Expect::Absent(Key::Epoch(length as u64))];
        index
            .commit(Change {
                expect,
                ..put(vec![row(Key::Epoch(length as u64), value.clone())])
            })
            .await?;
        assert_eq!(index.get(&Key::Epoch(length as u64)).await?, Some(value.clone()));
        let expect = vec![Expect::Equals(Key::Epoch(length as u64), value)];
        index
            .commit(Change {
                expect,
                ..Change::default()
            })
            .await?;
    }
    Ok(())
}

/// A value replaced by a shorter or longer one is only the new one, in reads and in scans.
pub async fn replaced_values_leave_nothing_behind(harness: &impl Harness) -> Checked {
    let index = harness.open()?;
    for length in [5_000, 3_000, 10, 0, 2_000, VALUE_BYTES, 1_025] {
        let value = vec![length.to_le_bytes()[0]; length];
        index.commit(put(vec![row(Key::Epoch(1), value.clone())])).await?;
        assert_eq!(index.get(&Key::Epoch(1)).await?, Some(value.clone()));
        let scan = Scan {
            range: Range::Epochs,
            reverse: false,
            after: None,
            limit: 10,
        };
        assert_eq!(index.scan(&scan).await?, [row(Key::Epoch(1), value)]);
    }
    Ok(())
}

/// While values of many pieces replace each other, every reader sees one of them.
pub async fn readers_never_see_two_values_mixed(harness: &impl Harness) -> Checked {
    let index = harness.open()?;
    index
        .commit(put(vec![row(Key::Epoch(1), vec![0; 20_000])]))
        .await?;
    let writer = tokio::spawn(replace(Arc::clone(&index)));
    while !writer.is_finished() {
        let value = index.get(&Key::Epoch(1)).await?.unwrap_or_default();
        assert!(!value.is_empty() && value.iter().all(|byte| *byte == value[0]));
        assert_eq!(value.len(), 20_000 - 300 * usize::from(value[0]));
    }
    Ok(writer.await??)
}

/// Several keys at once answer in their order, missing ones as missing.
pub async fn values_come_in_the_order_asked(harness: &impl Harness) -> Checked {
    let index = harness.open()?;
    index
        .commit(put(vec![row(Key::Epoch(1), b"1"), row(Key::Epoch(3), b"3")]))
        .await?;
    let values = index.get_many(&[3, 2, 1, 3].map(Key::Epoch)).await?;
    let [one, three] = [Some(b"1".to_vec()), Some(b"3".to_vec())];
    assert_eq!(values, [three.clone(), None, one, three]);
    assert!(index.get_many(&[]).await?.is_empty());
    Ok(())
}

async fn replace(index: Arc<dyn Index>) -> Result<(), IndexError> {
    for n in 1..60_u8 {
        let value = vec![n; 20_000 - 300 * usize::from(n)];
        index.commit(put(vec![row(Key::Epoch(1), value)])).await?;
    }
    Ok(())
}
