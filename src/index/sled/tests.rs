use std::{error::Error, fs, path::Path};

use tempfile::TempDir;

use super::*;
use crate::index::suite::{
    Harness,
    sample::{LOG, leaves, put, row},
};
use crate::index::{Range, Scope, VALUE_BYTES};

const OPTIONS: SledOptions = SledOptions {
    cache_bytes: 16 << 20,
};

impl Harness for TempDir {
    fn open(&self) -> Result<Arc<dyn Index>, Box<dyn Error + Send + Sync>> {
        Ok(Arc::new(SledIndex::open(self.path(), OPTIONS)?))
    }
}

crate::index_suite!(TempDir::new().unwrap());

fn open(dir: &Path) -> Result<SledIndex, IndexError> {
    SledIndex::open(dir, OPTIONS)
}

#[tokio::test]
async fn a_second_opener_is_locked_out_and_dropping_lets_it_in_at_once() {
    let dir = TempDir::new().unwrap();
    for n in 0..20 {
        let index = open(dir.path()).unwrap();
        assert!(matches!(open(dir.path()), Err(IndexError::Locked)));
        index
            .commit(put(vec![row(Key::Epoch(n), vec![1; 5_000])]))
            .await
            .unwrap();
        let key = Key::Epoch(n);
        let mut abandoned = Box::pin(index.get(&key));
        let _ = futures_util::poll!(&mut abandoned);
    }
}

#[tokio::test]
async fn what_is_asked_when_the_index_is_dropped_is_done() {
    let dir = TempDir::new().unwrap();
    let index = open(dir.path()).unwrap();
    let mut commit = Box::pin(index.commit(put(vec![row(Key::Epoch(1), b"")])));
    assert!(futures_util::poll!(&mut commit).is_pending());
    drop(commit);
    drop(index);
    assert!(
        open(dir.path())
            .unwrap()
            .get(&Key::Epoch(1))
            .await
            .unwrap()
            .is_some()
    );
}

#[tokio::test]
async fn everything_lies_in_the_one_file_that_is_synced() {
    let dir = TempDir::new().unwrap();
    let index = open(dir.path()).unwrap();
    for n in 0..8 {
        let rows = (0..8)
            .map(|m| row(Key::Epoch(n * 8 + m), vec![1; VALUE_BYTES]))
            .collect();
        index.commit(put(rows)).await.unwrap();
    }
    assert_eq!(fs::read_dir(dir.path().join("blobs")).unwrap().count(), 0);
}

#[tokio::test]
async fn pieces_of_replaced_and_deleted_values_are_gone() {
    let dir = TempDir::new().unwrap();
    let index = open(dir.path()).unwrap();
    let rows = |index: &SledIndex| index.reader.as_ref().unwrap().tree.iter().count();
    for (length, expected) in [(5_000, 6), (1_025, 3), (1_024, 1), (0, 1)] {
        index
            .commit(put(vec![row(Key::Epoch(1), vec![1; length])]))
            .await
            .unwrap();
        assert_eq!(rows(&index), expected, "{length}");
    }
    index
        .commit(put(vec![row(Key::Epoch(1), vec![1; 5_000])]))
        .await
        .unwrap();
    index
        .commit(Change {
            delete: vec![Key::Epoch(1)],
            ..Change::default()
        })
        .await
        .unwrap();
    assert_eq!(rows(&index), 0);

    let mut long = leaves(LOG, &[Scope::Fact]);
    long.leaves[0].body = vec![1; 50_000];
    index.commit(long).await.unwrap();
    index.shipped(LOG, 1).await.unwrap();
    assert_eq!(rows(&index), 1); // the next position
}

#[tokio::test]
async fn a_foreign_or_changed_row_is_corrupt() {
    let dir = TempDir::new().unwrap();
    let index = open(dir.path()).unwrap();
    index
        .commit(put(vec![
            row(Key::Epoch(1), b"one"),
            row(Key::Epoch(2), vec![2; 3_000]),
        ]))
        .await
        .unwrap();
    let tree = index.reader.as_ref().unwrap().tree.clone();
    let [one, two, three] = [1, 2, 3].map(|n| keys::encode(&Key::Epoch(n)));

    tree.insert(&three, tree.get(&one).unwrap().unwrap()).unwrap(); // a value under another key
    tree.insert(keys::chunk(&two, 1), vec![3; 1_024]).unwrap(); // another piece
    for n in [2, 3] {
        assert!(matches!(
            index.get(&Key::Epoch(n)).await,
            Err(IndexError::Corrupt(_))
        ));
    }
    tree.insert(&two, &[]).unwrap(); // no head at all
    tree.insert([2, 0], tree.get(&one).unwrap().unwrap()).unwrap(); // no key at all
    let scan = Scan {
        range: Range::Epochs,
        reverse: false,
        after: None,
        limit: 10,
    };
    assert!(matches!(
        index.get(&Key::Epoch(2)).await,
        Err(IndexError::Corrupt(_))
    ));
    assert!(matches!(index.scan(&scan).await, Err(IndexError::Corrupt(_))));
}

#[tokio::test]
async fn a_range_read_forwards_ends_as_it_begins_backwards() {
    let dir = TempDir::new().unwrap();
    let index = open(dir.path()).unwrap();
    for n in 0..200 {
        index
            .commit(put(vec![row(Key::Epoch(n * 7 % 200), vec![1; 40])]))
            .await
            .unwrap();
    }
    let tree = &index.reader.as_ref().unwrap().tree;
    let span = || keys::span(&Range::Epochs);
    for limit in [1, 3, 199, 200, 1_000] {
        let backwards = list(tree, span(), true, limit).unwrap();
        assert_eq!(backwards.len(), limit.min(200));
        assert_eq!(last(tree, &span(), limit).unwrap(), backwards, "limit {limit}");
    }
}

#[tokio::test]
async fn an_index_that_cannot_write_any_more_says_so_until_it_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut index = open(dir.path()).unwrap();
    index.health().unwrap();
    // A writer whose file takes no sync, as a disk that is full or gone.
    let tree = index.reader.as_ref().unwrap().tree.clone();
    let broken = std::fs::File::open("/dev/null").unwrap();
    index.writer = Some(Writer::start(&tree, broken, &index.health).unwrap());
    drop(tree);
    let change = Change {
        put: vec![Row {
            key: Key::Meta("m"),
            value: vec![1],
        }],
        ..Change::default()
    };
    index.health().unwrap();
    index.commit(change).await.unwrap_err();
    index.health().unwrap_err();
    drop(index);
    open(dir.path()).unwrap().health().unwrap();
}
