//! The transactional outbox: what the index holds queued is shipped to the bucket, in order, and whoever asked for it waits.
//!
//! ```text
//! commit(change) -> one index transaction: rows + queued leaves (durable)
//! ship           -> log tiles, then checkpoint, in the bucket
//! anchor         -> the root provider remembers the head
//! ack
//! ```
//!
//! A process has a log of its own: (node slot, lease term), a new term at each start, so that a request still under way
//! from a dead process cannot fork it. The log comes to life with the first leaf: idle nodes write nothing.

use std::{
    fmt,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{Mutex, Notify, OnceCell, watch};

use crate::{
    blob::store::BlobStore,
    domain::{clock::Clock, ids::VaultId, limits},
    index::{Change, Expect, Index, IndexError, Key, LeafReceipt, LogId, LogKind, QueuedLeaf, Row, Scope},
    proto::storage::{AnchoredHead, LogClosed, LogOpened, state_leaf::Body},
};

use super::{
    leaf::{self, MalformedLeaf},
    log::{Head, LogError, LogName, LogWriter, Signer},
};

/// Leaves shipped in one batch.
const BATCH: usize = 2_048;
/// Longest wait for the bucket before a caller is told to come back.
const SHIP_DEADLINE: Duration = Duration::from_secs(15);
/// First wait after a failed shipment; doubled up to [`LONGEST_BACKOFF`].
const BACKOFF: Duration = Duration::from_millis(50);
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);

/// The ledger did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The index refused or failed.
    #[error("the index failed")]
    Index(#[from] IndexError),
    /// The bucket's log failed.
    #[error("the log failed")]
    Log(#[from] LogError),
    /// A leaf cannot be encoded.
    #[error(transparent)]
    Leaf(#[from] MalformedLeaf),
    /// The change is durable here but not yet in the bucket: it will be shipped, but is not acknowledged.
    #[error("the bucket did not take the leaf in time; it stays queued")]
    NotShipped,
    /// More leaves wait for the bucket than may.
    #[error("too many leaves wait for the bucket")]
    Behind,
}

/// What an acknowledgement waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// Durable in the index; in the bucket within a second.
    Queued,
    /// In the bucket.
    Shipped,
}

/// Told of every head that reached the bucket, in order; the vault advances the anchor.
#[async_trait]
pub trait ShipObserver: Send + Sync + fmt::Debug {
    /// `head` of `name` is in the bucket; `region_seq` is the highest number of the region's sequence in it so far.
    async fn shipped(&self, name: &LogName, head: Head, region_seq: u64);
}

/// The state log of one process.
pub struct Ledger {
    vault: VaultId,
    node: u32,
    term: u64,
    index: Arc<dyn Index>,
    store: Arc<dyn BlobStore>,
    signer: Arc<dyn Signer>,
    clock: Arc<dyn Clock>,
    observer: Arc<dyn ShipObserver>,
    opened: OnceCell<()>,
    shipping: Mutex<Shipping>,
    /// Number of leaves in the bucket.
    shipped: watch::Sender<u64>,
    wake: Notify,
    urgent: AtomicBool,
    region_seq: AtomicU64,
    /// Heads of the logs that this process retired: named by its own first leaf.
    retired: std::sync::Mutex<Vec<AnchoredHead>>,
}

#[derive(Default)]
struct Shipping {
    writer: Option<LogWriter>,
    position: u64,
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger")
            .field("log", &self.log())
            .field("shipped", &*self.shipped.borrow())
            .finish_non_exhaustive()
    }
}

/// What a ledger is made of.
#[derive(Debug)]
pub struct LedgerParts {
    /// The vault.
    pub vault: VaultId,
    /// This node's slot.
    pub node: u32,
    /// This process's lease term.
    pub term: u64,
    /// Where leaves are queued.
    pub index: Arc<dyn Index>,
    /// Where they are shipped to.
    pub store: Arc<dyn BlobStore>,
    /// What signs checkpoints.
    pub signer: Arc<dyn Signer>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Who is told.
    pub observer: Arc<dyn ShipObserver>,
}

impl Ledger {
    /// A ledger whose log has no leaf yet.
    pub fn new(parts: LedgerParts) -> Arc<Self> {
        let LedgerParts {
            vault,
            node,
            term,
            index,
            store,
            signer,
            clock,
            observer,
        } = parts;
        Arc::new(Self {
            vault,
            node,
            term,
            index,
            store,
            signer,
            clock,
            observer,
            opened: OnceCell::new(),
            shipping: Mutex::default(),
            shipped: watch::Sender::new(0),
            wake: Notify::new(),
            urgent: AtomicBool::new(false),
            region_seq: AtomicU64::new(0),
            retired: std::sync::Mutex::default(),
        })
    }

    /// The state log of this process.
    pub fn log(&self) -> LogId {
        LogId {
            kind: LogKind::State,
            node: self.node,
            term: self.term,
        }
    }

    /// Number of its leaves in the bucket.
    pub fn shipped(&self) -> u64 {
        *self.shipped.borrow()
    }

    /// Applies a change and queues its leaves, all or nothing, and waits as `until` says.
    ///
    /// Cancel safe: the change may or may not be applied; if it is, its leaves are shipped.
    ///
    /// # Errors
    /// [`LedgerError::Index`] if it was refused: nothing changed. [`LedgerError::NotShipped`] if the bucket did not take it in
    /// time: it is applied and stays queued, but may not be acknowledged.
    pub async fn commit(&self, mut change: Change, until: Until) -> Result<Vec<LeafReceipt>, LedgerError> {
        if change.leaves.is_empty() {
            return Ok(self.index.commit(change).await?);
        }
        self.open().await?;
        change.log = Some(self.log());
        let receipts = self.index.commit(change).await?;
        let last = receipts.iter().map(|r| r.position).max().unwrap_or(0);
        if until == Until::Shipped {
            self.urgent.store(true, Ordering::Release);
        }
        self.wake.notify_one();
        if until == Until::Shipped {
            self.wait_for(last + 1).await?;
        }
        Ok(receipts)
    }

    /// Ships until `stop` is set, then ships what is left, for as long as a caller would be kept waiting: a process can end
    /// without its bucket, and the next one ships what stayed queued.
    pub async fn run(self: Arc<Self>, stop: watch::Receiver<bool>) {
        let mut stopped = stop.clone();
        let overdue = async {
            set(&mut stopped).await;
            tokio::time::sleep(SHIP_DEADLINE).await;
        };
        tokio::select! {
            () = self.ship_until(stop) => {}
            () = overdue => tracing::warn!("state log not shipped at shutdown in time; the next start ships it"),
        }
    }

    async fn ship_until(&self, mut stop: watch::Receiver<bool>) {
        let interval = Duration::from_millis(limits::SHIP_INTERVAL_MILLIS);
        while !*stop.borrow() {
            tokio::select! {
                () = self.wake.notified() => {}
                () = set(&mut stop) => break,
            }
            self.gather(interval, &mut stop).await;
            let mut backoff = BACKOFF;
            while let Err(error) = self.ship().await {
                tracing::warn!(error = %Causes(&error), "state log not shipped, trying again");
                tokio::select! {
                    () = tokio::time::sleep(backoff) => backoff = (backoff * 2).min(LONGEST_BACKOFF),
                    () = set(&mut stop) => break,
                }
            }
        }
        if let Err(error) = self.ship().await {
            tracing::warn!(error = %Causes(&error), "state log not shipped at shutdown; the next start ships it");
        }
    }

    /// Lets facts gather for a while; somebody's waiting ends it.
    async fn gather(&self, interval: Duration, stop: &mut watch::Receiver<bool>) {
        let until = tokio::time::Instant::now() + interval;
        while !self.urgent.swap(false, Ordering::AcqRel) {
            tokio::select! {
                () = tokio::time::sleep_until(until) => return,
                () = self.wake.notified() => {}
                () = set(stop) => return,
            }
        }
    }

    /// Ships all that is queued now.
    ///
    /// # Errors
    /// What the index or the log answered; what was shipped before stays shipped.
    pub async fn ship(&self) -> Result<(), LedgerError> {
        let mut shipping = self.shipping.lock().await;
        let name = LogName {
            vault: self.vault,
            log: self.log(),
        };
        while let Some((writer, head)) = self.ship_batch(&name, &mut shipping).await? {
            shipping.writer = Some(writer);
            shipping.position = head.size;
            self.shipped.send_replace(head.size);
            self.observer
                .shipped(&name, head, self.region_seq.load(Ordering::Acquire))
                .await;
            self.index.shipped(self.log(), head.size).await?;
        }
        Ok(())
    }

    async fn ship_batch(
        &self,
        name: &LogName,
        shipping: &mut Shipping,
    ) -> Result<Option<(LogWriter, Head)>, LedgerError> {
        let queued = self.index.queued(self.log(), shipping.position, BATCH).await?;
        if queued.is_empty() {
            return Ok(None);
        }
        let mut writer = match shipping.writer.take() {
            Some(writer) => writer,
            None => LogWriter::open(Arc::clone(&self.store), *name, Arc::clone(&self.signer)).await?,
        };
        let from = writer.head().size;
        let entries = finish_from(&queued, from)?;
        let head = if entries.is_empty() {
            writer.head()
        } else {
            writer.append(&entries).await?
        };
        let highest = queued
            .iter()
            .filter(|q| q.scope == Scope::Region)
            .map(|q| q.receipt.sequence)
            .max();
        self.region_seq.fetch_max(highest.unwrap_or(0), Ordering::AcqRel);
        Ok(Some((writer, head)))
    }

    /// Remembers the highest number of the region's sequence that an earlier log holds.
    pub fn note_region_seq(&self, sequence: u64) {
        self.region_seq.fetch_max(sequence, Ordering::AcqRel);
    }

    /// Waits until all that is queued now is in the bucket.
    ///
    /// # Errors
    /// [`LedgerError::NotShipped`] if the bucket did not take it in time; it stays queued.
    pub async fn settled(&self) -> Result<(), LedgerError> {
        let queued = self.queued().await?;
        if queued <= self.shipped() {
            return Ok(());
        }
        self.urgent.store(true, Ordering::Release);
        self.wake.notify_one();
        self.wait_for(queued).await
    }

    /// Refuses more facts while the bucket is so far behind that they would only pile up.
    ///
    /// # Errors
    /// [`LedgerError::Behind`].
    pub async fn keeps_up(&self) -> Result<(), LedgerError> {
        if self.queued().await?.saturating_sub(self.shipped()) > limits::QUEUED_LEAVES {
            return Err(LedgerError::Behind);
        }
        Ok(())
    }

    /// Number of leaves of this log, shipped or not.
    async fn queued(&self) -> Result<u64, LedgerError> {
        let next = self.index.get(&Key::LogNext(self.log())).await?;
        Ok(next
            .and_then(|value| value.try_into().ok())
            .map_or(0, u64::from_be_bytes))
    }

    async fn wait_for(&self, size: u64) -> Result<(), LedgerError> {
        let mut shipped = self.shipped.subscribe();
        let waited = tokio::time::timeout(SHIP_DEADLINE, shipped.wait_for(|have| *have >= size)).await;
        match waited {
            Ok(Ok(_)) => Ok(()),
            _ => Err(LedgerError::NotShipped),
        }
    }

    /// Queues the first leaf of this process's log, once.
    async fn open(&self) -> Result<(), LedgerError> {
        self.opened
            .get_or_try_init(|| async {
                let name = LogName {
                    vault: self.vault,
                    log: self.log(),
                };
                let opened = Body::LogOpened(LogOpened {
                    node: self.node,
                    term: self.term,
                    verifier_key: self.signer.public_key().to_vec().into(),
                    origin: name.origin(),
                    retired: self
                        .retired
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .clone(),
                });
                self.queue_own(Key::LogNext(self.log()), opened).await
            })
            .await?;
        Ok(())
    }

    async fn queue_own(&self, first: Key, body: Body) -> Result<(), LedgerError> {
        let change = Change {
            expect: vec![Expect::Absent(first)],
            log: Some(self.log()),
            leaves: vec![leaf::draft(Scope::Fact, leaf::SYSTEM, self.clock.now(), body)],
            ..Change::default()
        };
        self.index.commit(change).await?;
        Ok(())
    }
}

/// Waits until a flag is set, or nobody can set it any more. At once if it was set before.
async fn set(flag: &mut watch::Receiver<bool>) {
    let _ = flag.wait_for(|flag| *flag).await;
}

/// Ships what a dead process left queued in an earlier log, and closes that log with its last leaf.
///
/// # Errors
/// What the index or the log answered. Idempotent: call again.
pub async fn retire(ledger: &Ledger, log: LogId, closed_row: Row) -> Result<Head, LedgerError> {
    let name = LogName {
        vault: ledger.vault,
        log,
    };
    let close = close_leaf(ledger, log).await?;
    if let Some(change) = close {
        ledger.index.commit(change).await?;
    }
    let mut writer = LogWriter::open(Arc::clone(&ledger.store), name, Arc::clone(&ledger.signer)).await?;
    loop {
        let from = writer.head().size;
        let queued = ledger.index.queued(log, from, BATCH).await?;
        if queued.is_empty() {
            break;
        }
        let highest = queued
            .iter()
            .filter(|q| q.scope == Scope::Region)
            .map(|q| q.receipt.sequence)
            .max();
        ledger.note_region_seq(highest.unwrap_or(0));
        let (leaves, close) =
            queued.split_at(queued.len() - usize::from(queued.last().is_some_and(is_close)));
        writer.append(&finish_from(leaves, from)?).await?;
        if close.is_empty() {
            continue;
        }
        let close = finish_from(close, writer.head().size)?;
        match writer.append(&close).await {
            // Tiles of leaves that were lost with an index lie where the close would be, under no checkpoint: the log stays
            // as it is, and the next log's opening vouches for its head.
            Err(LogError::Forked { position }) => {
                tracing::warn!(
                    log = name.origin(),
                    position,
                    "a log whose tail was lost is left without a close"
                );
                break;
            }
            outcome => outcome?,
        };
    }
    let head = writer.head();
    let next = Row {
        key: Key::LogNext(log),
        value: head.size.to_be_bytes().to_vec(),
    };
    let done = Change {
        put: if head.size == 0 {
            vec![closed_row]
        } else {
            vec![closed_row, next]
        },
        ..Change::default()
    };
    ledger.index.commit(done).await?;
    if head.size == 0 {
        // It never came to life: nobody will find it in the bucket, so nobody may be told to look for it.
        return Ok(head);
    }
    ledger.index.shipped(log, u64::MAX).await?;
    ledger
        .retired
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(AnchoredHead {
            origin: name.origin(),
            size: head.size,
            root: head.root.to_vec().into(),
        });
    let region_seq = ledger.region_seq.load(Ordering::Acquire);
    ledger.observer.shipped(&name, head, region_seq).await;
    Ok(head)
}

/// The leaves that the log does not have yet.
///
/// # Errors
/// [`LogError::Forked`] if the first of them does not follow the log's head: the bucket lost leaves that it had.
fn finish_from(queued: &[QueuedLeaf], from: u64) -> Result<Vec<Bytes>, LedgerError> {
    let missing: Vec<_> = queued.iter().filter(|q| q.receipt.position >= from).collect();
    if missing.first().is_some_and(|first| first.receipt.position > from) {
        return Err(LogError::Forked { position: from }.into());
    }
    Ok(missing.into_iter().map(leaf::finish).collect::<Result<_, _>>()?)
}

fn is_close(queued: &QueuedLeaf) -> bool {
    let leaf = leaf::parse(&Bytes::copy_from_slice(&queued.body));
    leaf.is_ok_and(|l| matches!(l.body, Some(Body::LogClosed(_))))
}

/// The change that queues a log's last leaf, unless it is queued or shipped already.
async fn close_leaf(ledger: &Ledger, log: LogId) -> Result<Option<Change>, LedgerError> {
    let next = Key::LogNext(log);
    let Some(value) = ledger.index.get(&next).await? else {
        return Ok(None);
    };
    let size = value
        .as_slice()
        .try_into()
        .map(u64::from_be_bytes)
        .map_err(|_| IndexError::Corrupt("position"))?;
    if size == 0 {
        return Ok(None);
    }
    let last = ledger.index.queued(log, size - 1, 1).await?;
    if last.first().is_some_and(is_close) {
        return Ok(None);
    }
    let body = Body::LogClosed(LogClosed { size });
    Ok(Some(Change {
        expect: vec![Expect::Equals(next, value)],
        log: Some(log),
        leaves: vec![leaf::draft(Scope::Fact, leaf::SYSTEM, ledger.clock.now(), body)],
        ..Change::default()
    }))
}

/// An error and what caused it, for logs: none of these errors holds personal data.
#[derive(Debug)]
pub struct Causes<'a>(pub &'a (dyn std::error::Error + 'static));

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}
