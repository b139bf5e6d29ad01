//! A store that fails when told.
//!
//! ```
//! # use callvault::{blob::store::{BlobStore, ObjectKey}, testing::faulty::{Failure, FaultyStore, Operation}};
//! # async fn test(store: impl BlobStore, key: ObjectKey) {
//! let (store, faults) = FaultyStore::new(store);
//! let lost = faults.on(Operation::Put).nth(3).fail_after(Failure::Unavailable); // the third put takes effect, its ack is lost
//! let flipped = faults.on(Operation::Get).below("blobs/").always().flip(17);    // every read there has a wrong byte
//! // ...
//! assert_eq!(lost.fired(), 1);
//! assert_eq!(faults.calls(Operation::Put), 3);
//! # }
//! ```

mod plan;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};

use self::plan::{Effect, Entry, Hang};
pub use self::plan::{Failure, Injected, Rule};
use crate::blob::store::{
    BlobStore, ByteRange, Listing, ObjectBytes, ObjectInfo, ObjectKey, ObjectVersion, PartReceipt,
    StoreError, UploadId,
};

/// Where an endless listing goes on: before every name that a vault gives.
const ENDLESS: &str = "a";

/// A call of [`BlobStore`].
#[allow(missing_docs)] // named like the calls
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    Put,
    Overwrite,
    Begin,
    PutPart,
    Complete,
    Abort,
    Uploads,
    Get,
    Head,
    Delete,
    List,
}

/// What was asked of a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Calls, whatever became of them.
    pub calls: u64,
    /// Calls that returned an error, injected or not.
    pub errors: u64,
    /// Bytes that callers sent.
    pub bytes_in: u64,
    /// Bytes that callers got.
    pub bytes_out: u64,
}

/// The plan of faults and the counts, shared between a test and its store. Clones are the same plan.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<Plan>>);

#[derive(Debug, Default)]
struct Plan {
    down: Option<Failure>,
    refused_while_down: u64,
    entries: Vec<Entry>,
    counters: BTreeMap<Operation, Counters>,
}

/// What is to happen to one call.
#[derive(Debug, Default)]
struct Fate {
    delays: Vec<std::time::Duration>,
    before: Option<StoreError>,
    after: Option<StoreError>,
    hang: Option<Hang>,
    twice: bool,
    edits: Vec<(Effect, Arc<AtomicU64>)>,
}

impl Faults {
    /// Begins a rule for calls of one kind. Rules apply in the order in which they were made.
    pub fn on(&self, operation: Operation) -> Rule {
        Rule::new(self.clone(), Some(operation))
    }

    /// Begins a rule for all calls.
    pub fn on_all(&self) -> Rule {
        Rule::new(self.clone(), None)
    }

    /// Every call fails before its effect with [`StoreError::Unavailable`] until [`Self::bring_up`]: the bucket is gone.
    pub fn take_down(&self) {
        self.take_down_with(Failure::Unavailable);
    }

    /// The same with another failure: [`Failure::Denied`] is credentials that have expired.
    pub fn take_down_with(&self, failure: Failure) {
        self.plan().down = Some(failure);
    }

    /// Ends what [`Self::take_down`] began.
    pub fn bring_up(&self) {
        self.plan().down = None;
    }

    /// Calls that failed because the store was down.
    pub fn refused_while_down(&self) -> u64 {
        self.plan().refused_while_down
    }

    /// Forgets all rules and brings the store up. Counts stay.
    pub fn clear(&self) {
        let mut plan = self.plan();
        plan.entries.clear();
        plan.down = None;
    }

    /// How often any rule in force has fired.
    pub fn fired(&self) -> u64 {
        self.plan().entries.iter().map(Entry::fired).sum()
    }

    /// Calls of one kind so far.
    pub fn calls(&self, operation: Operation) -> u64 {
        self.counters(operation).calls
    }

    /// Counts of one kind of call.
    pub fn counters(&self, operation: Operation) -> Counters {
        self.plan().counters.get(&operation).copied().unwrap_or_default()
    }

    /// Counts of all calls together.
    pub fn total(&self) -> Counters {
        self.plan()
            .counters
            .values()
            .fold(Counters::default(), |sum, one| Counters {
                calls: sum.calls + one.calls,
                errors: sum.errors + one.errors,
                bytes_in: sum.bytes_in + one.bytes_in,
                bytes_out: sum.bytes_out + one.bytes_out,
            })
    }

    /// Starts all counts again from zero.
    pub fn reset_counters(&self) {
        self.plan().counters.clear();
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, operation: Operation, change: impl FnOnce(&mut Counters)) {
        change(self.plan().counters.entry(operation).or_default());
    }

    /// Decides what becomes of a call.
    fn decide(&self, operation: Operation, name: &str, bytes_in: u64) -> Fate {
        let mut plan = self.plan();
        let counters = plan.counters.entry(operation).or_default();
        counters.calls += 1;
        counters.bytes_in += bytes_in;
        let mut fate = Fate::default();
        if let Some(failure) = plan.down {
            plan.refused_while_down += 1;
            fate.before = Some(failure.error());
            return fate;
        }
        for entry in &mut plan.entries {
            if entry.strikes(operation, name) {
                entry.apply(&mut fate);
            }
        }
        fate
    }
}

/// Any store, with faults.
#[derive(Debug)]
pub struct FaultyStore<S> {
    store: S,
    faults: Faults,
}

impl<S: BlobStore> FaultyStore<S> {
    /// Wraps a store; it is faultless until the handle says otherwise.
    pub fn new(store: S) -> (Self, Faults) {
        let faults = Faults::default();
        (Self::sharing(store, &faults), faults)
    }

    /// Wraps a store under a plan that exists already, to "restart" a node without losing its plan.
    pub fn sharing(store: S, faults: &Faults) -> Self {
        Self {
            store,
            faults: faults.clone(),
        }
    }

    /// The store itself, past all faults and counts.
    pub fn inner(&self) -> &S {
        &self.store
    }

    async fn call<T, Call>(
        &self,
        operation: Operation,
        name: &str,
        bytes_in: usize,
        call: impl Fn() -> Call,
    ) -> Result<(T, Fate), StoreError>
    where
        Call: Future<Output = Result<T, StoreError>>,
    {
        let mut fate = self.faults.decide(operation, name, bytes_in as u64);
        let outcome = run(&mut fate, call).await;
        if outcome.is_err() {
            self.faults.count(operation, |counters| counters.errors += 1);
        }
        Ok((outcome?, fate))
    }

    async fn plain<T, Call>(
        &self,
        operation: Operation,
        name: &str,
        bytes_in: usize,
        call: impl Fn() -> Call,
    ) -> Result<T, StoreError>
    where
        Call: Future<Output = Result<T, StoreError>>,
    {
        Ok(self.call(operation, name, bytes_in, call).await?.0)
    }
}

async fn run<T, Call>(fate: &mut Fate, call: impl Fn() -> Call) -> Result<T, StoreError>
where
    Call: Future<Output = Result<T, StoreError>>,
{
    for delay in &fate.delays {
        tokio::time::sleep(*delay).await;
    }
    if let Some(error) = fate.before.take() {
        return Err(error);
    }
    if fate.hang == Some(Hang::Before) {
        return std::future::pending().await;
    }
    if fate.twice {
        call().await?;
    }
    let done = call().await?;
    if fate.hang == Some(Hang::After) {
        return std::future::pending().await;
    }
    match fate.after.take() {
        Some(error) => Err(error),
        None => Ok(done),
    }
}

#[async_trait]
impl<S: BlobStore> BlobStore for FaultyStore<S> {
    fn kind(&self) -> &'static str {
        self.store.kind()
    }

    async fn put(&self, key: &ObjectKey, body: Bytes) -> Result<ObjectVersion, StoreError> {
        self.plain(Operation::Put, key.as_str(), body.len(), || {
            self.store.put(key, body.clone())
        })
        .await
    }

    async fn overwrite(&self, key: &ObjectKey, body: Bytes) -> Result<ObjectVersion, StoreError> {
        self.plain(Operation::Overwrite, key.as_str(), body.len(), || {
            self.store.overwrite(key, body.clone())
        })
        .await
    }

    async fn begin(&self, key: &ObjectKey) -> Result<UploadId, StoreError> {
        self.plain(Operation::Begin, key.as_str(), 0, || self.store.begin(key))
            .await
    }

    async fn put_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: u32,
        offset: u64,
        body: Bytes,
    ) -> Result<PartReceipt, StoreError> {
        let length = body.len();
        let call = || self.store.put_part(key, upload, number, offset, body.clone());
        self.plain(Operation::PutPart, key.as_str(), length, call).await
    }

    async fn complete(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        parts: &[PartReceipt],
    ) -> Result<ObjectVersion, StoreError> {
        self.plain(Operation::Complete, key.as_str(), 0, || {
            self.store.complete(key, upload, parts)
        })
        .await
    }

    async fn abort(&self, key: &ObjectKey, upload: &UploadId) -> Result<(), StoreError> {
        self.plain(Operation::Abort, key.as_str(), 0, || {
            self.store.abort(key, upload)
        })
        .await
    }

    async fn uploads(&self, prefix: &str) -> Result<Vec<(ObjectKey, UploadId, i64)>, StoreError> {
        self.plain(Operation::Uploads, prefix, 0, || self.store.uploads(prefix))
            .await
    }

    async fn get(&self, key: &ObjectKey, range: ByteRange) -> Result<ObjectBytes, StoreError> {
        let (mut read, fate) = self
            .call(Operation::Get, key.as_str(), 0, || self.store.get(key, range))
            .await?;
        for (edit, fired) in fate.edits {
            if edited(&mut read, &edit) {
                fired.fetch_add(1, Ordering::SeqCst);
            }
        }
        self.faults.count(Operation::Get, |counters| {
            counters.bytes_out += read.bytes.len() as u64
        });
        Ok(read)
    }

    async fn head(&self, key: &ObjectKey) -> Result<ObjectInfo, StoreError> {
        let (mut info, fate) = self
            .call(Operation::Head, key.as_str(), 0, || self.store.head(key))
            .await?;
        for (edit, fired) in fate.edits {
            if let Effect::Misstate(length) = edit {
                info.length = length;
                fired.fetch_add(1, Ordering::SeqCst);
            }
        }
        Ok(info)
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.plain(Operation::Delete, key.as_str(), 0, || self.store.delete(key))
            .await
    }

    async fn list(
        &self,
        prefix: &str,
        delimited: bool,
        next: Option<&str>,
        limit: usize,
    ) -> Result<Listing, StoreError> {
        let (mut page, fate) = self
            .call(Operation::List, prefix, 0, || {
                self.store.list(prefix, delimited, next, limit)
            })
            .await?;
        for (edit, fired) in fate.edits {
            if let Effect::Endless = edit {
                page.next = Some(ENDLESS.to_owned());
                fired.fetch_add(1, Ordering::SeqCst);
            }
        }
        Ok(page)
    }
}

/// Edits what was read; `false` if the edit does not apply to bytes so few.
fn edited(read: &mut ObjectBytes, edit: &Effect) -> bool {
    match *edit {
        Effect::Flip(at) if at < read.bytes.len() => {
            let mut changed = BytesMut::from(&read.bytes[..]);
            changed[at] ^= 1;
            read.bytes = changed.freeze();
        }
        Effect::Truncate(length) if length < read.bytes.len() => read.bytes.truncate(length),
        Effect::Lengthen(more) => {
            let mut longer = BytesMut::from(&read.bytes[..]);
            longer.resize(read.bytes.len() + more, 0xa5);
            read.bytes = longer.freeze();
        }
        Effect::Misstate(length) => read.object_length = length,
        _ => return false,
    }
    true
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests;
