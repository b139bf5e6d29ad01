//! Opening and closing.

use std::{
    fs::{File, OpenOptions},
    io,
    path::Path,
    sync::mpsc,
    thread,
    time::Duration,
};

use ::sled::{Config, Tree};
use rustix::fs::{FlockOperation, flock};

use super::SledOptions;
use crate::index::IndexError;

/// How long closing waits for sled's own threads. Only a damaged sled needs longer: one of its threads has panicked, and it
/// waits for that thread for ever.
const CLOSE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(1);

/// Opens sled's tree in `dir`.
///
/// # Errors
/// As [`super::SledIndex::open`]. May panic where sled does.
pub(super) fn tree(dir: &Path, options: SledOptions) -> Result<Tree, IndexError> {
    let db = Config::new()
        .path(dir)
        .cache_capacity(options.cache_bytes)
        .open()?;
    sync_entries(dir)?;
    Ok((*db).clone())
}

/// A handle of our own to the file that holds everything.
///
/// # Errors
/// [`IndexError::Unavailable`] if it cannot be opened.
pub(super) fn data_file(dir: &Path) -> Result<File, IndexError> {
    Ok(OpenOptions::new().read(true).write(true).open(dir.join("db"))?)
}

/// Drops the last of sled and returns when its lock is free, so that the directory can be opened again at once.
///
/// `lock` is a handle to the locked file; it takes the lock for a moment to see that it is free.
pub(super) fn close(tree: Tree, lock: &File) {
    let (closed, wait) = mpsc::channel::<()>();
    let closer = thread::Builder::new().name("index-close".to_owned());
    // Should there be no thread, the closure is dropped here, and the tree with it.
    let closer = closer.spawn(move || {
        drop(tree);
        drop(closed);
    });
    // Nobody ever sends: the line hangs up when sled is gone.
    if closer.is_ok() && wait.recv_timeout(CLOSE) == Err(mpsc::RecvTimeoutError::Timeout) {
        return;
    }
    await_lock(lock);
}

/// sled's pool writes in the background and keeps the file open a moment longer than the tree.
fn await_lock(lock: &File) {
    let looks = CLOSE.as_millis() / LOOK.as_millis();
    for _ in 0..looks {
        match flock(lock, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => thread::sleep(LOOK),
            _ => break,
        }
    }
    // Closing the handle would do as well, but not before the caller has dropped it.
    let _ = flock(lock, FlockOperation::Unlock);
}

/// Makes the files themselves durable: sled writes their content, not their names.
fn sync_entries(dir: &Path) -> io::Result<()> {
    File::open(dir.join("conf"))?.sync_all()?;
    File::open(dir.join("db"))?.sync_all()?;
    File::open(dir)?.sync_all()?;
    match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}
