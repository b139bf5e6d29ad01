//! What a damaged directory does: an error, or rows are missing, or nothing happens; never other values, never the end of
//! the process.
//!
//! Measured, with one flipped bit: mostly refused at opening. Near the end of the log sled takes a message that fails its
//! checksum for the end and forgets the commits from there on. Elsewhere, in about one flip of fifty, it drops that message
//! alone: a few rows of one node are missing, without a word. A row that had been replaced may then be its older self: the
//! checksum of a row cannot tell. So the caller compares the heads of its logs ([`Key::LogNext`]) with the bucket when it
//! opens an index, and only a comparison of all rows with the bucket finds the rest.

use std::{fs, path::Path};

use tempfile::TempDir;

use super::*;
use crate::index::suite::sample::{Dice, put, row};

const ROWS_OF_A_COMMIT: u64 = 20;

#[derive(Debug, Default)]
struct Seen {
    intact: u32,
    refused_to_open: u32,
    refused_to_read: u32,
    lost_the_last_commits: u32,
    lost_some_rows: u32,
}

fn value(n: u64) -> Vec<u8> {
    let length = if n.is_multiple_of(5) { 4_000 } else { 100 };
    n.to_be_bytes().into_iter().cycle().take(length).collect()
}

async fn fill(dir: &Path, rows: u64) {
    let index = open(dir).unwrap();
    for first in (0..rows).step_by(ROWS_OF_A_COMMIT as usize) {
        let rows = (first..first + ROWS_OF_A_COMMIT).map(|n| row(Key::Epoch(n), value(n)));
        index.commit(put(rows.collect())).await.unwrap();
    }
}

fn open(dir: &Path) -> Result<SledIndex, IndexError> {
    SledIndex::open(
        dir,
        SledOptions {
            cache_bytes: 16 << 20,
        },
    )
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.join("blobs")).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// Opens and reads everything; a wrong value is the one thing that must not be.
async fn look(dir: &Path, rows: u64, seen: &mut Seen) {
    let index = match open(dir) {
        Ok(index) => index,
        Err(IndexError::Corrupt(_)) => return seen.refused_to_open += 1,
        Err(other) => panic!("{other:?}"),
    };
    let mut there = Vec::new();
    for n in 0..rows {
        match index.get(&Key::Epoch(n)).await {
            Ok(Some(found)) => {
                assert_eq!(found, value(n));
                there.push(n);
            }
            Ok(None) => {}
            Err(IndexError::Corrupt(_)) => return seen.refused_to_read += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    let count = there.len() as u64;
    let first_commits = there.into_iter().eq(0..count) && count.is_multiple_of(ROWS_OF_A_COMMIT);
    match first_commits {
        true if count == rows => seen.intact += 1,
        true => seen.lost_the_last_commits += 1,
        false => seen.lost_some_rows += 1,
    }
}

/// Flips one bit per round, anywhere and near the beginning by turns: the headers that everything hangs on.
async fn flip(rows: u64, rounds: u32) -> Seen {
    let (dir, mut seen, mut dice) = (TempDir::new().unwrap(), Seen::default(), Dice(3));
    let whole = dir.path().join("whole");
    fill(&whole, rows).await;
    let files = fs::read_dir(&whole).unwrap().map(Result::unwrap);
    for file in files.filter(|file| file.file_type().unwrap().is_file()) {
        let sound = fs::read(file.path()).unwrap();
        for round in 0..rounds {
            let damaged = dir.path().join(format!("{round}-{}", file.file_name().display()));
            copy(&whole, &damaged);
            let mut bytes = sound.clone();
            let place = dice.below(if round % 2 == 0 {
                bytes.len()
            } else {
                bytes.len().min(64)
            });
            bytes[place] ^= 1 << dice.below(8);
            fs::write(damaged.join(file.file_name()), bytes).unwrap();
            look(&damaged, rows, &mut seen).await;
            fs::remove_dir_all(&damaged).unwrap();
        }
    }
    seen
}

#[tokio::test]
async fn a_flipped_bit_never_gives_other_values() {
    let seen = flip(400, 40).await;
    assert!(seen.refused_to_open > 0, "{seen:?}");
}

#[tokio::test]
async fn a_flipped_bit_in_a_larger_file_never_gives_other_values() {
    let seen = flip(6_000, 16).await;
    assert!(seen.refused_to_open > 0, "{seen:?}");
}

#[tokio::test]
async fn a_truncated_file_loses_the_last_commits() {
    let (dir, mut seen) = (TempDir::new().unwrap(), Seen::default());
    let whole = dir.path().join("whole");
    fill(&whole, 400).await;
    let bytes = fs::read(whole.join("db")).unwrap();
    for eighth in 0..8 {
        let damaged = dir.path().join(eighth.to_string());
        copy(&whole, &damaged);
        fs::write(damaged.join("db"), &bytes[..bytes.len() * eighth / 8]).unwrap();
        look(&damaged, 400, &mut seen).await;
    }
    assert_eq!(seen.lost_the_last_commits, 8, "{seen:?}");
}
