//! The index of one node: an embedded sled 0.34 tree.
//!
//! sled is a view of the bucket here, and treated as one: damage is an error that says "move it aside and rebuild". What
//! sled removes stays in its file until overwritten; that is what keys are for.
//!
//! Reads go to tokio's blocking threads (a page that is not in the cache is read from the file); writes go to two threads of
//! our own (`writer`).

#[cfg(test)]
mod damage;
mod error;
mod keys;
mod open;
mod queue;
mod rows;
#[cfg(test)]
mod tests;
mod transaction;
mod writer;

use std::{
    collections::VecDeque,
    fmt,
    fs::File,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{Arc, Mutex, mpsc},
};

use ::sled::Tree;
use async_trait::async_trait;

use self::{error::Health, keys::Span, writer::Writer};
use super::{Change, Index, IndexError, Key, LeafReceipt, LogId, QueuedLeaf, Row, Scan};

/// How to run sled.
#[derive(Clone, Copy, Debug)]
pub struct SledOptions {
    /// Bytes of pages kept in memory.
    pub cache_bytes: u64,
}

/// An index in a directory of this machine, open in one process at a time.
///
/// Dropping it waits for what was asked, makes it durable and gives the directory back: it blocks for a few syncs.
pub struct SledIndex {
    // Taken when dropping, in the order that lets go of the lock.
    writer: Option<Writer>,
    reader: Option<Reader>,
    idle: Mutex<mpsc::Receiver<()>>,
    lock: File,
    health: Arc<Health>,
}

/// The tree, and a line that hangs up when the last read is over.
#[derive(Clone)]
struct Reader {
    // Before `_busy`: the tree is let go of first.
    tree: Tree,
    _busy: mpsc::Sender<()>,
}

impl SledIndex {
    /// Opens the index in `dir`, or makes an empty one. Blocks while sled reads its log.
    ///
    /// # Errors
    /// [`IndexError::Locked`] if it is open already, here or in another process; [`IndexError::Corrupt`] if it is damaged:
    /// move `dir` aside and rebuild; [`IndexError::Full`]; [`IndexError::Unavailable`] if `dir` cannot be used.
    pub fn open(dir: &Path, options: SledOptions) -> Result<Self, IndexError> {
        let health = Arc::new(Health::default());
        let tree = health.guard(|| open::tree(dir, options))?;
        let writer = Writer::start(&tree, open::data_file(dir)?, &health)?;
        let (busy, idle) = mpsc::channel();
        Ok(Self {
            writer: Some(writer),
            reader: Some(Reader { tree, _busy: busy }),
            idle: Mutex::new(idle),
            lock: open::data_file(dir)?,
            health,
        })
    }

    /// Runs `read` on a thread that may wait for the disk.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Tree) -> Result<T, IndexError> + Send + 'static,
    ) -> Result<T, IndexError> {
        let reader = self.reader.clone().ok_or_else(closed)?;
        let health = Arc::clone(&self.health);
        tokio::task::spawn_blocking(move || health.guard(|| read(&reader.tree)))
            .await
            .map_err(unavailable)?
    }

    fn writer(&self) -> Result<&Writer, IndexError> {
        self.writer.as_ref().ok_or_else(closed)
    }
}

#[async_trait]
impl Index for SledIndex {
    async fn commit(&self, change: Change) -> Result<Vec<LeafReceipt>, IndexError> {
        change.check()?;
        self.writer()?.commit(change).await
    }

    async fn get(&self, key: &Key) -> Result<Option<Vec<u8>>, IndexError> {
        let key = keys::encode(key);
        self.read(move |tree| rows::read(tree, &key)).await
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Vec<u8>>>, IndexError> {
        let keys: Vec<_> = keys.iter().map(keys::encode).collect();
        self.read(move |tree| keys.iter().map(|key| rows::read(tree, key)).collect())
            .await
    }

    async fn scan(&self, scan: &Scan) -> Result<Vec<Row>, IndexError> {
        scan.check()?;
        let (span, reverse, limit) = (remaining(scan), scan.reverse, scan.limit);
        self.read(move |tree| list(tree, span, reverse, limit)).await
    }

    async fn queued(&self, log: LogId, from: u64, limit: usize) -> Result<Vec<QueuedLeaf>, IndexError> {
        let leaves = self.read(move |tree| queue::list(tree, log, from, limit)).await?;
        self.writer()?.settled().await?;
        Ok(leaves)
    }

    fn health(&self) -> Result<(), IndexError> {
        self.health.check()?;
        self.writer()?.health()
    }

    async fn shipped(&self, log: LogId, position: u64) -> Result<(), IndexError> {
        self.read(move |tree| queue::forget(tree, log, position)).await
    }
}

impl fmt::Debug for SledIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SledIndex")
            .field("writer", &self.writer)
            .finish_non_exhaustive()
    }
}

impl Drop for SledIndex {
    fn drop(&mut self) {
        self.writer = None;
        let Some(Reader { tree, _busy }) = self.reader.take() else {
            return;
        };
        drop(_busy);
        // Nobody ever sends: this returns when the last read, perhaps of a cancelled caller, has ended.
        drop(self.idle.get_mut().map(|idle| idle.recv()));
        open::close(tree, &self.lock);
    }
}

/// What is left of a scan's range behind its `after`.
fn remaining(scan: &Scan) -> Span {
    let mut span = keys::span(&scan.range);
    let Some(after) = &scan.after else { return span };
    let mut after = keys::encode(after);
    if scan.reverse {
        span.high = span.high.min(after);
    } else {
        // No key is the prefix of another: this is just behind it and before every other.
        after.push(0);
        span.low = span.low.max(after);
    }
    span
}

fn list(tree: &Tree, span: Span, reverse: bool, limit: usize) -> Result<Vec<Row>, IndexError> {
    if span.is_empty() {
        return Ok(Vec::new());
    }
    if !reverse {
        return take(tree, tree.range(span.low..span.high), limit);
    }
    let backwards = || take(tree, tree.range(span.low.clone()..span.high.clone()).rev(), limit);
    // sled 0.34.7 guesses where the node before another ends, and panics when keys go on with `ff ff ff ff` there. Nothing is
    // written on the way, so its state is as good as before; the same rows are found forwards, at the price of all before them.
    catch_unwind(AssertUnwindSafe(backwards)).unwrap_or_else(|_| {
        tracing::warn!("sled cannot read this range backwards; it is read forwards");
        last(tree, &span, limit)
    })
}

/// The last rows of a span, last first, read forwards.
fn last(tree: &Tree, span: &Span, limit: usize) -> Result<Vec<Row>, IndexError> {
    let mut rows = VecDeque::with_capacity(limit);
    for row in tree.range(span.low.clone()..span.high.clone()) {
        rows.extend(read_row(tree, row)?);
        if rows.len() > limit {
            rows.pop_front();
        }
    }
    Ok(rows.into_iter().rev().collect())
}

fn take(
    tree: &Tree,
    range: impl Iterator<Item = ::sled::Result<(::sled::IVec, ::sled::IVec)>>,
    limit: usize,
) -> Result<Vec<Row>, IndexError> {
    range
        .filter_map(|row| read_row(tree, row).transpose())
        .take(limit)
        .collect()
}

/// A row of a scan; `None` if it was deleted while the scan came to it.
fn read_row(
    tree: &Tree,
    row: ::sled::Result<(::sled::IVec, ::sled::IVec)>,
) -> Result<Option<Row>, IndexError> {
    let (bytes, head) = row?;
    let key = keys::decode(&bytes)?;
    Ok(rows::complete(tree, &bytes, head)?.map(|value| Row { key, value }))
}

fn closed() -> IndexError {
    IndexError::Unavailable("the index is closed".into())
}

fn unavailable(error: impl std::error::Error + Send + Sync + 'static) -> IndexError {
    IndexError::Unavailable(Box::new(error))
}
