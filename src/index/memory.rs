//! An index in memory: the second engine of the suite, and the quick one for tests of other modules.
//!
//! It keeps typed keys in a map and knows nothing of bytes, so it is also what the encoded keys of others are held against.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;

use super::{
    Change, Expect, Index, IndexError, Key, LeafDraft, LeafReceipt, LogId, QueuedLeaf, Range, Row, Scan,
    change::{after, counter, is_numbered},
};

/// An index that is gone with its last clone. Clones share their rows.
#[derive(Clone, Debug, Default)]
pub struct MemoryIndex {
    state: Arc<Mutex<State>>,
}

#[derive(Clone, Debug, Default)]
struct State {
    rows: BTreeMap<Key, Vec<u8>>,
    queue: BTreeMap<(LogId, u64), QueuedLeaf>,
}

impl MemoryIndex {
    /// An empty index.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A copy as it is now, which goes its own way.
    #[must_use]
    pub fn snapshot(&self) -> Self {
        Self {
            state: Arc::new(Mutex::new(self.state().clone())),
        }
    }

    /// Every row, to be looked at or damaged by a test.
    #[must_use]
    pub fn rows(&self) -> Vec<Row> {
        let row = |(key, value): (&Key, &Vec<u8>)| Row {
            key: key.clone(),
            value: value.clone(),
        };
        self.state().rows.iter().map(row).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock panics, so a poisoned lock guards whole rows.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Index for MemoryIndex {
    async fn commit(&self, change: Change) -> Result<Vec<LeafReceipt>, IndexError> {
        change.check()?;
        self.state().apply(change)
    }

    async fn get(&self, key: &Key) -> Result<Option<Vec<u8>>, IndexError> {
        Ok(self.state().rows.get(key).cloned())
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Vec<u8>>>, IndexError> {
        let state = self.state();
        Ok(keys.iter().map(|key| state.rows.get(key).cloned()).collect())
    }

    async fn scan(&self, scan: &Scan) -> Result<Vec<Row>, IndexError> {
        scan.check()?;
        let state = self.state();
        let listed = state.rows.iter().filter(|(key, _)| contains(&scan.range, key));
        let row = |(key, value): (&Key, &Vec<u8>)| Row {
            key: key.clone(),
            value: value.clone(),
        };
        let after = scan.after.as_ref();
        Ok(if scan.reverse {
            let rest = listed
                .rev()
                .filter(|(key, _)| after.is_none_or(|after| *key < after));
            rest.take(scan.limit).map(row).collect()
        } else {
            let rest = listed.filter(|(key, _)| after.is_none_or(|after| *key > after));
            rest.take(scan.limit).map(row).collect()
        })
    }

    async fn queued(&self, log: LogId, from: u64, limit: usize) -> Result<Vec<QueuedLeaf>, IndexError> {
        let state = self.state();
        let leaves = state.queue.range((log, from)..=(log, u64::MAX));
        Ok(leaves.take(limit).map(|(_, leaf)| leaf.clone()).collect())
    }

    async fn shipped(&self, log: LogId, position: u64) -> Result<(), IndexError> {
        self.state()
            .queue
            .retain(|(of, at), _| *of != log || *at >= position);
        Ok(())
    }
}

impl State {
    fn apply(&mut self, change: Change) -> Result<Vec<LeafReceipt>, IndexError> {
        if let Some(place) = change.expect.iter().position(|expect| !self.holds(expect)) {
            return Err(IndexError::Expectation(place));
        }
        let mut receipts = Vec::new();
        // Numbers first: nothing else can fail.
        if let Some(log) = change.log {
            for leaf in change.leaves {
                receipts.push(self.enqueue(log, leaf)?);
            }
        }
        for key in &change.delete {
            self.rows.remove(key);
        }
        self.rows
            .extend(change.put.into_iter().map(|row| (row.key, row.value)));
        Ok(receipts)
    }

    fn holds(&self, expect: &Expect) -> bool {
        match expect {
            Expect::Absent(key) => !self.rows.contains_key(key),
            Expect::Present(key) => self.rows.contains_key(key),
            Expect::Equals(key, value) => self.rows.get(key) == Some(value),
        }
    }

    fn enqueue(&mut self, log: LogId, leaf: LeafDraft) -> Result<LeafReceipt, IndexError> {
        let next = Key::LogNext(log);
        let position = self.counter(&next)?;
        let sequence = self.next_sequence(&leaf)?;
        let receipt = LeafReceipt { position, sequence };
        self.rows.insert(next, after(position)?.to_be_bytes().to_vec());
        self.queue.insert(
            (log, position),
            QueuedLeaf {
                receipt,
                scope: leaf.scope,
                body: leaf.body,
            },
        );
        Ok(receipt)
    }

    fn next_sequence(&mut self, leaf: &LeafDraft) -> Result<u64, IndexError> {
        if !is_numbered(&leaf.scope) {
            return Ok(0);
        }
        let key = Key::Sequence(leaf.scope.clone());
        let sequence = after(self.counter(&key)?)?;
        self.rows.insert(key, sequence.to_be_bytes().to_vec());
        Ok(sequence)
    }

    fn counter(&self, key: &Key) -> Result<u64, IndexError> {
        counter(self.rows.get(key).map(Vec::as_slice))
    }
}

/// Whether `range` lists `key`: the documentation of [`Range`] as a function.
fn contains(range: &Range, key: &Key) -> bool {
    match (range, key) {
        (Range::Epochs, Key::Epoch(_))
        | (Range::RegionPages, Key::RegionPage(_))
        | (Range::KeyOperations, Key::KeyOperation(_))
        | (Range::Logs, Key::Log(_))
        | (Range::Tenants, Key::Tenant(_))
        | (Range::OpenPages, Key::OpenPage(..))
        | (Range::Requests, Key::Request(..))
        | (Range::Unswept, Key::Unswept(..))
        | (Range::Purges, Key::Purge(..)) => true,
        (Range::DueErasures(until), Key::DueErasure(time, ..)) => time < until,
        (Range::TenantKeys(of), Key::TenantKey(tenant, _))
        | (Range::RetentionClasses(of), Key::RetentionClass(tenant, _))
        | (Range::Pages(of), Key::Page(tenant, _))
        | (Range::Records(of), Key::Record(tenant, _))
        | (Range::Identifiers(of), Key::Identifier(tenant, _))
        | (Range::Externals(of), Key::External(tenant, _))
        | (Range::TenantRequests(of), Key::Request(tenant, _))
        | (Range::TenantOpenPages(of), Key::OpenPage(tenant, ..))
        | (Range::Conversations(of), Key::ByConversation(tenant, ..))
        | (Range::Subjects(of), Key::BySubject(tenant, ..))
        | (Range::Sources(of), Key::BySource(tenant, ..))
        | (Range::Erasures(of), Key::Erasure(tenant, _))
        | (Range::Tombstones(of), Key::Tombstone(tenant, _))
        | (Range::TenantPurges(of), Key::Purge(tenant, _))
        | (Range::Renumbers(of), Key::Renumber(tenant, _)) => tenant == of,
        (Range::ByTime(of, from, to), Key::ByTime(tenant, time, _)) => {
            tenant == of && (from..to).contains(&time)
        }
        (Range::ByConversation(of, which, from, to), Key::ByConversation(tenant, number, time, _))
        | (Range::BySubject(of, which, from, to), Key::BySubject(tenant, number, time, _)) => {
            tenant == of && number == which && (from..to).contains(&time)
        }
        (Range::BySource(of, which, from, to), Key::BySource(tenant, source, time, _)) => {
            tenant == of && source == which && (from..to).contains(&time)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::{error::Error, sync::Arc};

    use super::*;
    use crate::index::suite::Harness;

    impl Harness for MemoryIndex {
        fn open(&self) -> Result<Arc<dyn Index>, Box<dyn Error + Send + Sync>> {
            Ok(Arc::new(self.clone()))
        }
    }

    crate::index_suite!(MemoryIndex::new());
}
