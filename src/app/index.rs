//! The index's files: opened, moved aside when they are damaged, named once.

use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use crate::{
    domain::{
        clock::{Clock, Rng},
        ids::IndexId,
    },
    index::{
        IndexError,
        sled::{SledIndex, SledOptions},
    },
};

use super::AppError;

const INDEX: &str = "index";
const INDEX_ID: &str = "index-id";
/// How long an index that this process has just closed may take to let go of its files.
const LET_GO: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(10);

/// Where the index of a data directory lies.
pub(super) fn directory(data: &Path) -> PathBuf {
    data.join(INDEX)
}

/// Opens the index, or makes an empty one. Blocks.
///
/// # Errors
/// As [`SledIndex::open`].
pub(super) fn open(data: &Path, cache_bytes: u64) -> Result<SledIndex, IndexError> {
    let began = Instant::now();
    loop {
        match SledIndex::open(&directory(data), SledOptions { cache_bytes }) {
            // The data directory's lock is ours: it can only be an earlier one of this process, on its way out.
            Err(IndexError::Locked) if began.elapsed() < LET_GO => thread::sleep(LOOK),
            opened => return opened,
        }
    }
}

/// Moves the index away, to `index.<why>-<time>`; returns where it lies now, if there was one.
///
/// # Errors
/// [`AppError::File`].
pub(super) fn move_aside(data: &Path, why: &str, clock: &dyn Clock) -> Result<Option<PathBuf>, AppError> {
    let from = directory(data);
    let to = data.join(format!("{INDEX}.{why}-{}", clock.now().micros()));
    match fs::rename(&from, &to) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(AppError::file(from)(error)),
    }
    File::open(data)
        .and_then(|data| data.sync_all())
        .map_err(AppError::file(data))?;
    Ok(Some(to))
}

/// The index's id, minted at the first start. It lies beside the index, so that a lost index is still the same one.
///
/// # Errors
/// [`AppError::IndexId`], [`AppError::File`], [`AppError::Rng`].
pub(super) fn id(data: &Path, clock: &dyn Clock, rng: &dyn Rng) -> Result<IndexId, AppError> {
    let path = data.join(INDEX_ID);
    match fs::read_to_string(&path) {
        Ok(text) => text
            .trim()
            .parse()
            .map_err(|source| AppError::IndexId { path, source }),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let id = IndexId::mint(clock.now(), rng)?;
            write(&path, format!("{id}\n").as_bytes())?;
            Ok(id)
        }
        Err(error) => Err(AppError::file(path)(error)),
    }
}

/// Writes a small file whole: beside, then in place, then its directory's entry.
///
/// # Errors
/// [`AppError::File`].
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), AppError> {
    let beside = path.with_extension("new");
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        File::open(path.parent().unwrap_or_else(|| Path::new(".")))?.sync_all()
    };
    write().map_err(AppError::file(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{crypto::rng::SystemRng, domain::clock::SystemClock};

    #[test]
    fn an_index_keeps_its_id() {
        let data = tempfile::tempdir().unwrap();
        let read = || id(data.path(), &SystemClock, &SystemRng::new());
        assert_eq!(read().unwrap(), read().unwrap());
        fs::write(data.path().join(INDEX_ID), "damaged").unwrap();
        assert!(matches!(read(), Err(AppError::IndexId { .. })));
    }

    #[test]
    fn what_is_moved_aside_is_kept() {
        let data = tempfile::tempdir().unwrap();
        assert_eq!(move_aside(data.path(), "old", &SystemClock).unwrap(), None);
        drop(open(data.path(), 1 << 20).unwrap());
        let aside = move_aside(data.path(), "old", &SystemClock).unwrap().unwrap();
        assert!(aside.join("db").is_file() && !directory(data.path()).exists());
    }
}
