//! Group commit: two threads, one that applies and one that makes durable.
//!
//! sled lets one transaction in at a time, so one thread asks it, without a queue for its lock. While the other waits for
//! the disk, the first goes on applying; whatever it has applied by then shares the next sync.
//!
//! sled's `flush()` writes its buffers and starts `sync_file_range`, which reaches neither the disk's own cache nor the
//! file's length. So the file is synced as well, through a handle of our own: `<dir>/db` holds everything, because sled only
//! writes `<dir>/blobs/` for nodes over 128 KiB and 16 rows of at most 1 KiB are far below (a test holds this).

use std::{
    fs::File,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
};

use ::sled::Tree;
use tokio::sync::{mpsc as queue, oneshot};

use super::{error::Health, transaction};
use crate::index::{Change, IndexError, LeafReceipt};

/// Changes that may wait to be applied; more wait outside, in their callers.
const WAITING: usize = 1_024;

type Outcome = Result<Vec<LeafReceipt>, IndexError>;

struct Asked {
    change: Change,
    answer: oneshot::Sender<Outcome>,
}

struct Applied {
    /// How many changes had been applied then.
    count: u64,
    outcome: Outcome,
    answer: oneshot::Sender<Outcome>,
}

/// How far changes have come, counted.
#[derive(Debug, Default)]
struct Progress {
    applied: AtomicU64,
    durable: AtomicU64,
    /// Why nothing becomes durable any more.
    failure: OnceLock<IndexError>,
}

impl Progress {
    fn stopped(&self) -> IndexError {
        match self.failure.get() {
            Some(IndexError::Full) => IndexError::Full,
            Some(IndexError::Corrupt(what)) => IndexError::Corrupt(what),
            _ => IndexError::Unavailable("the index stopped writing after a failure".into()),
        }
    }
}

/// The way in.
#[derive(Debug)]
pub(super) struct Writer {
    // Taken when dropping, so that the threads see that nobody asks any more.
    asked: Option<queue::Sender<Asked>>,
    threads: Vec<JoinHandle<()>>,
    progress: Arc<Progress>,
}

impl Writer {
    /// Starts both threads.
    ///
    /// # Errors
    /// [`IndexError::Unavailable`] if the system has no thread to give.
    pub(super) fn start(tree: &Tree, file: File, health: &Arc<Health>) -> Result<Self, IndexError> {
        let (asked, to_apply) = queue::channel(WAITING);
        let (applied, to_sync) = mpsc::channel();
        let progress = Arc::new(Progress::default());
        let applier = Applier {
            tree: tree.clone(),
            health: Arc::clone(health),
            progress: Arc::clone(&progress),
            applied,
        };
        let syncer = Syncer {
            tree: tree.clone(),
            file,
            health: Arc::clone(health),
            progress: Arc::clone(&progress),
        };
        let threads = vec![
            spawn("index-apply", move || applier.run(to_apply))?,
            spawn("index-sync", move || syncer.run(&to_sync))?,
        ];
        Ok(Self {
            asked: Some(asked),
            threads,
            progress,
        })
    }

    /// Applies `change` and returns when it, and everything applied before it, is durable.
    ///
    /// Cancel safe: dropped before it is queued nothing happens, later it is applied all the same.
    ///
    /// # Errors
    /// As [`crate::index::Index::commit`].
    pub(super) async fn commit(&self, change: Change) -> Outcome {
        let (answer, answered) = oneshot::channel();
        let stopped = || self.progress.stopped();
        let asked = self.asked.as_ref().ok_or_else(stopped)?;
        asked
            .send(Asked { change, answer })
            .await
            .map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())?
    }

    /// Whether it still writes.
    ///
    /// # Errors
    /// Why it has stopped.
    pub(super) fn health(&self) -> Result<(), IndexError> {
        match self.progress.failure.get() {
            None => Ok(()),
            Some(_) => Err(self.progress.stopped()),
        }
    }

    /// Returns when everything that was readable before the call is durable.
    ///
    /// # Errors
    /// As [`Self::commit`].
    pub(super) async fn settled(&self) -> Result<(), IndexError> {
        let applied = self.progress.applied.load(Ordering::SeqCst);
        if self.progress.durable.load(Ordering::SeqCst) < applied {
            self.commit(Change::default()).await?;
        }
        Ok(())
    }
}

impl Drop for Writer {
    /// Waits until what was asked is done: at most a few syncs.
    fn drop(&mut self) {
        self.asked = None;
        for thread in self.threads.drain(..) {
            // It has nothing to say: a panic inside has been answered to whoever waited.
            drop(thread.join());
        }
    }
}

struct Applier {
    tree: Tree,
    health: Arc<Health>,
    progress: Arc<Progress>,
    applied: mpsc::Sender<Applied>,
}

impl Applier {
    fn run(self, mut asked: queue::Receiver<Asked>) {
        while let Some(Asked { change, answer }) = asked.blocking_recv() {
            let applied = Applied {
                outcome: self.apply(&change),
                count: self.count(),
                answer,
            };
            if self.applied.send(applied).is_err() {
                return;
            }
        }
    }

    fn apply(&self, change: &Change) -> Outcome {
        if *change == Change::default() {
            return Ok(Vec::new());
        }
        // Counted first: nobody may read a row that looks settled and is not.
        self.progress.applied.fetch_add(1, Ordering::SeqCst);
        self.health.guard(|| transaction::apply(&self.tree, change))
    }

    fn count(&self) -> u64 {
        self.progress.applied.load(Ordering::SeqCst)
    }
}

struct Syncer {
    tree: Tree,
    file: File,
    health: Arc<Health>,
    progress: Arc<Progress>,
}

impl Syncer {
    fn run(self, applied: &mpsc::Receiver<Applied>) {
        while let Ok(first) = applied.recv() {
            let waiting: Vec<_> = std::iter::once(first).chain(applied.try_iter()).collect();
            let count = waiting.last().map_or(0, |last| last.count);
            if let Err(failure) = self.settle(count) {
                // What a failed sync has not written, a later one need not write either: nothing becomes durable from here
                // on. This thread hangs up on all who wait, the applier behind it on all who come.
                tracing::error!(
                    error = %failure,
                    "the index stopped writing: nothing more is acknowledged until the server is restarted"
                );
                drop(self.progress.failure.set(failure));
                return;
            }
            for Applied { outcome, answer, .. } in waiting {
                // Nobody listens any more: the caller was cancelled.
                drop(answer.send(outcome));
            }
        }
    }

    fn settle(&self, count: u64) -> Result<(), IndexError> {
        if self.progress.durable.load(Ordering::SeqCst) < count {
            self.health.guard(|| self.sync())?;
            self.progress.durable.store(count, Ordering::SeqCst);
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), IndexError> {
        self.tree.flush()?;
        Ok(self.file.sync_data()?)
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, IndexError> {
    Ok(thread::Builder::new().name(name.to_owned()).spawn(run)?)
}
