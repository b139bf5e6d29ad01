//! One lane a tenant: messages gather in it and leave in groups.
//!
//! | under way | messages leave |
//! |---|---|
//! | nothing | after 1 ms: whoever came together goes together, and nobody waits for nobody |
//! | one group | when it returns, or after 20 ms |
//! | two or three | when one returns; a full group at once |
//! | four | when one returns |
//!
//! So a group is as large as the store is slow and the callers are many. A lane is a task; it ends when it is empty.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::domain::{ids::TenantId, limits};

use super::{Vault, Waiting};

/// How long a group gathers when nothing of its tenant is under way.
const FIRST_GATHER: Duration = Duration::from_millis(1);
/// How long a group gathers at most while another could be under way.
const LONGEST_GATHER: Duration = Duration::from_millis(20);
/// Groups that may be under way before one that is not full has to wait.
const GROUPS: usize = 2;
/// Groups that may be under way at all.
const FULL_GROUPS: usize = 4;
/// Bodies of one group.
const GROUP_BYTES: usize = 4 << 20;
/// What a footer holds of an entry beside its descriptor, generously: defaults of the tenant go into the descriptor as well.
const ENTRY_BYTES: usize = 768;

type Arrivals = mpsc::UnboundedReceiver<Vec<Waiting>>;

/// The lanes of all tenants that have messages under way.
#[derive(Clone, Default)]
pub(in crate::vault) struct Lanes {
    /// What may be in here was reserved from the budget before.
    open: Arc<Mutex<HashMap<TenantId, mpsc::UnboundedSender<Vec<Waiting>>>>>,
    tasks: TaskTracker,
    cut: CancellationToken,
}

impl Lanes {
    /// Brings messages into their tenant's lane.
    pub(super) fn join(&self, vault: &Arc<Vault>, tenant: &TenantId, mut waiting: Vec<Waiting>) {
        let mut open = self.open();
        if let Some(lane) = open.get(tenant) {
            match lane.send(waiting) {
                Ok(()) => return,
                Err(gone) => waiting = gone.0,
            }
        }
        let (sender, arrivals) = mpsc::unbounded_channel();
        // The receiver is at hand: this cannot fail.
        let _ = sender.send(waiting);
        open.insert(tenant.clone(), sender);
        let lane = Lane {
            lanes: self.clone(),
            vault: Arc::clone(vault),
            tenant: tenant.clone(),
            arrivals,
            waiting: VecDeque::new(),
            size: Size::default(),
            under_way: JoinSet::new(),
            one_returned: false,
        };
        let cut = self.cut.clone();
        self.tasks
            .spawn(async move { cut.run_until_cancelled_owned(lane.run()).await });
    }

    /// Returns when all lanes are empty.
    pub(in crate::vault) async fn finish(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Ends all lanes at once, as if the process had died.
    #[cfg(any(test, feature = "testing"))]
    pub(in crate::vault) async fn cut(&self) {
        self.cut.cancel();
        self.finish().await;
    }

    fn open(&self) -> MutexGuard<'_, HashMap<TenantId, mpsc::UnboundedSender<Vec<Waiting>>>> {
        // Nothing under the lock panics, so a poisoned lock guards whole entries.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Lanes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lanes")
            .field("open", &self.open().len())
            .finish_non_exhaustive()
    }
}

/// How much waits, or leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Size {
    messages: usize,
    body_bytes: usize,
    footer_bytes: usize,
}

impl Size {
    fn of(waiting: &Waiting) -> Self {
        Self {
            messages: 1,
            body_bytes: waiting.spec.body.len(),
            footer_bytes: ENTRY_BYTES + waiting.said.len(),
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            messages: self.messages + other.messages,
            body_bytes: self.body_bytes + other.body_bytes,
            footer_bytes: self.footer_bytes + other.footer_bytes,
        }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            messages: self.messages - other.messages,
            body_bytes: self.body_bytes - other.body_bytes,
            footer_bytes: self.footer_bytes - other.footer_bytes,
        }
    }

    fn fits(self) -> bool {
        self.messages <= limits::BATCH_MESSAGES
            && self.body_bytes <= GROUP_BYTES
            && self.footer_bytes <= limits::FOOTER_BYTES
    }

    fn is_full(self) -> bool {
        self.messages >= limits::BATCH_MESSAGES || self.body_bytes >= GROUP_BYTES || !self.fits()
    }
}

struct Lane {
    lanes: Lanes,
    vault: Arc<Vault>,
    tenant: TenantId,
    arrivals: Arrivals,
    waiting: VecDeque<Waiting>,
    size: Size,
    under_way: JoinSet<()>,
    /// Whether a group returned while these waited.
    one_returned: bool,
}

impl Lane {
    async fn run(mut self) {
        loop {
            while self.is_due() {
                self.depart();
            }
            if self.waiting.is_empty() && self.under_way.is_empty() && self.close() {
                return;
            }
            let deadline = self.deadline();
            tokio::select! {
                Some(arrived) = self.arrivals.recv() => self.take(arrived),
                Some(_) = self.under_way.join_next() => self.one_returned = !self.waiting.is_empty(),
                () = until(deadline) => {}
            }
        }
    }

    fn take(&mut self, arrived: Vec<Waiting>) {
        for waiting in arrived {
            self.size = self.size.plus(Size::of(&waiting));
            self.waiting.push_back(waiting);
        }
    }

    fn is_due(&self) -> bool {
        self.waiting.front().is_some_and(|first| {
            let groups = self.under_way.len();
            may_depart(
                self.size.is_full(),
                groups,
                self.one_returned,
                first.since.elapsed(),
            )
        })
    }

    fn deadline(&self) -> Option<Instant> {
        let first = self.waiting.front()?.since;
        Some(first + patience(self.under_way.len())?)
    }

    /// Sends off as many as fit into one group.
    fn depart(&mut self) {
        let mut size = Size::default();
        let mut group = Vec::new();
        while let Some(next) = self.waiting.front() {
            let with_next = size.plus(Size::of(next));
            if !group.is_empty() && !with_next.fits() {
                break;
            }
            size = with_next;
            group.extend(self.waiting.pop_front());
        }
        self.size = self.size.minus(size);
        self.one_returned = false;
        let (vault, tenant) = (Arc::clone(&self.vault), self.tenant.clone());
        self.under_way
            .spawn(async move { vault.put_group(&tenant, group).await });
    }

    /// Closes the lane, unless somebody has come meanwhile.
    fn close(&mut self) -> bool {
        let mut open = self.lanes.open();
        let empty = self.arrivals.is_empty();
        if empty {
            open.remove(&self.tenant);
        }
        empty
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Whether those who wait may leave: the table above.
fn may_depart(full: bool, groups: usize, one_returned: bool, waited: Duration) -> bool {
    if full {
        return groups < FULL_GROUPS;
    }
    patience(groups).is_some_and(|patience| one_returned || waited >= patience)
}

/// How long a group that is not full gathers beside so many others; `None` until one of them returns.
fn patience(groups: usize) -> Option<Duration> {
    match groups {
        0 => Some(FIRST_GATHER),
        n if n < GROUPS => Some(LONGEST_GATHER),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENT: Duration = Duration::from_micros(1_500);
    const WHILE: Duration = Duration::from_millis(21);

    #[test]
    fn messages_wait_for_company_only_while_the_store_is_busy() {
        // full, groups under way, one returned, waited -> leaves
        for (full, groups, returned, waited, leaves) in [
            (false, 0, false, Duration::ZERO, false),
            (false, 0, false, MOMENT, true),
            (false, 0, true, Duration::ZERO, true),
            (false, 1, false, MOMENT, false),
            (false, 1, false, WHILE, true),
            (false, 1, true, Duration::ZERO, true),
            (false, 2, true, WHILE, false),
            (true, 0, false, Duration::ZERO, true),
            (true, 3, false, Duration::ZERO, true),
            (true, 4, true, WHILE, false),
        ] {
            assert_eq!(
                may_depart(full, groups, returned, waited),
                leaves,
                "{full} {groups} {returned} {waited:?}"
            );
        }
    }

    #[test]
    fn a_group_is_full_by_number_bytes_or_footer() {
        let size = |messages, body_bytes, footer_bytes| Size {
            messages,
            body_bytes,
            footer_bytes,
        };
        assert!(!size(999, GROUP_BYTES - 1, limits::FOOTER_BYTES).is_full());
        for full in [
            size(1_000, 1, 1),
            size(1, GROUP_BYTES, 1),
            size(1, 1, limits::FOOTER_BYTES + 1),
        ] {
            assert!(full.is_full(), "{full:?}");
        }
    }
}
