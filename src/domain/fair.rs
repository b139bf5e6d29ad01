//! Something there is only so much of, shared fairly: nobody has more than its share, and those who wait take turns.
//!
//! ```text
//! free >= asked, within the holder's share, nobody waits  -> at once
//! otherwise                                               -> one queue a holder, round robin among the holders
//! ```
//!
//! The holder whose turn it is waits for as much as it asked for, and nobody overtakes it: a large request never starves.
//! A holder beyond its share waits for itself alone and keeps nobody waiting.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::oneshot;

/// What is shared, in units, among holders named `K`.
pub struct Fair<K: Holder> {
    total: u64,
    share: u64,
    state: Mutex<State<K>>,
}

/// What a holder may be named by.
pub trait Holder: Clone + Eq + Hash + Send + 'static {}

impl<K: Clone + Eq + Hash + Send + 'static> Holder for K {}

struct State<K: Holder> {
    free: u64,
    /// Whoever has something.
    held: HashMap<K, u64>,
    /// Whoever waits for something; never an empty queue.
    waiting: HashMap<K, VecDeque<Waiter<K>>>,
    /// The keys of `waiting`, in the order of their turns.
    turns: VecDeque<K>,
}

struct Waiter<K: Holder> {
    units: u64,
    granted: oneshot::Sender<Held<K>>,
}

/// Units that are the holder's until this is dropped.
pub struct Held<K: Holder> {
    fair: Arc<Fair<K>>,
    holder: K,
    units: u64,
}

/// Nothing came free in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy;

impl<K: Holder> Fair<K> {
    /// `total` units, of which one holder has at most `share`; both at least one.
    pub fn new(total: u64, share: u64) -> Arc<Self> {
        let total = total.max(1);
        Arc::new(Self {
            total,
            share: share.clamp(1, total),
            state: Mutex::new(State {
                free: total,
                held: HashMap::new(),
                waiting: HashMap::new(),
                turns: VecDeque::new(),
            }),
        })
    }

    /// Waits for `units`, at most for `patience`. Cancel safe.
    ///
    /// More than the share is given to whoever holds nothing else, and more than there is counts as all of it: what is large
    /// comes through, alone.
    ///
    /// # Errors
    /// [`Busy`] if it took too long.
    pub async fn take(self: &Arc<Self>, holder: K, units: u64, patience: Duration) -> Result<Held<K>, Busy> {
        let mut place = match self.ask(holder, units) {
            Ok(held) => return Ok(held),
            Err(place) => place,
        };
        match tokio::time::timeout(patience, &mut place.granted).await {
            Ok(Ok(held)) => Ok(held),
            _ => Err(Busy),
        }
    }

    /// `units`, if they are free now, nobody waits, and the holder has at most `quarters` of its share then.
    ///
    /// # Errors
    /// [`Busy`] otherwise.
    pub fn try_take(self: &Arc<Self>, holder: K, units: u64, quarters: u64) -> Result<Held<K>, Busy> {
        let mut state = self.lock();
        let held = state.held.get(&holder).copied().unwrap_or(0);
        let within = held + units <= self.share * quarters.min(4) / 4;
        if within && units <= state.free && state.turns.is_empty() {
            return Ok(self.give(&mut state, holder, units));
        }
        Err(Busy)
    }

    /// Units that nobody has.
    pub fn free(&self) -> u64 {
        self.lock().free
    }

    /// All units.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// At once, or a place in the holder's queue.
    fn ask(self: &Arc<Self>, holder: K, units: u64) -> Result<Held<K>, Place<K>> {
        let units = units.clamp(1, self.total);
        let mut state = self.lock();
        // Whoever waits may wait for its own share alone: then this one overtakes nobody.
        if !state.waiting.contains_key(&holder)
            && self.fits(&state, &holder, units)
            && !self.keeps_waiting(&state)
        {
            return Ok(self.give(&mut state, holder, units));
        }
        let (granted, place) = oneshot::channel();
        if !state.waiting.contains_key(&holder) {
            state.turns.push_back(holder.clone());
        }
        let queue = state.waiting.entry(holder).or_default();
        queue.push_back(Waiter { units, granted });
        Err(Place {
            fair: Arc::clone(self),
            granted: place,
        })
    }

    /// Whether somebody waits for what is free, rather than for its own share.
    fn keeps_waiting(&self, state: &State<K>) -> bool {
        state.turns.iter().any(|holder| {
            let head = state.waiting.get(holder).and_then(VecDeque::front);
            head.is_some_and(|head| self.within_share(state, holder, head.units))
        })
    }

    fn fits(&self, state: &State<K>, holder: &K, units: u64) -> bool {
        units <= state.free && self.within_share(state, holder, units)
    }

    fn within_share(&self, state: &State<K>, holder: &K, units: u64) -> bool {
        state
            .held
            .get(holder)
            .is_none_or(|held| held + units <= self.share)
    }

    fn give(self: &Arc<Self>, state: &mut State<K>, holder: K, units: u64) -> Held<K> {
        state.free -= units;
        *state.held.entry(holder.clone()).or_default() += units;
        Held {
            fair: Arc::clone(self),
            holder,
            units,
        }
    }

    fn release(self: &Arc<Self>, holder: &K, units: u64) {
        let mut state = self.lock();
        state.free += units;
        if let Some(held) = state.held.get_mut(holder) {
            *held -= units;
            if *held == 0 {
                state.held.remove(holder);
            }
        }
        self.serve(state);
    }

    /// Gives what is free to whoever waits.
    fn serve(self: &Arc<Self>, mut state: MutexGuard<'_, State<K>>) {
        let mut given = Vec::new();
        let mut passed = 0;
        while passed < state.turns.len() {
            let Some((holder, units)) = first(&mut state) else {
                continue;
            };
            if !self.within_share(&state, &holder, units) {
                state.turns.rotate_left(1);
                passed += 1;
                continue;
            }
            if units > state.free {
                break;
            }
            if let Some(waiter) = pop(&mut state, &holder) {
                given.push((waiter.granted, self.give(&mut state, holder, units)));
            }
            passed = 0;
        }
        drop(state);
        for (granted, held) in given {
            // Whoever is gone by now lets go of it here, outside the lock, and the next one is served.
            let _ = granted.send(held);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<K>> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Holder> Held<K> {
    /// How many.
    pub fn units(&self) -> u64 {
        self.units
    }
}

/// Whose turn it is, and for how much; forgets those who are gone, and then says `None`.
fn first<K: Holder>(state: &mut State<K>) -> Option<(K, u64)> {
    let holder = state.turns.front()?.clone();
    let head = state.waiting.get_mut(&holder).and_then(|queue| {
        while queue.front().is_some_and(|waiter| waiter.granted.is_closed()) {
            queue.pop_front();
        }
        queue.front().map(|waiter| waiter.units)
    });
    if head.is_none() {
        state.waiting.remove(&holder);
        state.turns.pop_front();
    }
    head.map(|units| (holder, units))
}

/// Takes the first waiter of the holder whose turn it is, and moves the turn on.
fn pop<K: Holder>(state: &mut State<K>, holder: &K) -> Option<Waiter<K>> {
    let queue = state.waiting.get_mut(holder)?;
    let waiter = queue.pop_front();
    if queue.is_empty() {
        state.waiting.remove(holder);
        state.turns.pop_front();
    } else {
        state.turns.rotate_left(1);
    }
    waiter
}

/// A place in a queue. Left early, it makes way for those behind it.
struct Place<K: Holder> {
    fair: Arc<Fair<K>>,
    granted: oneshot::Receiver<Held<K>>,
}

impl<K: Holder> Drop for Place<K> {
    fn drop(&mut self) {
        self.granted.close();
        // What came in this very moment goes back; and whoever stood behind may fit.
        drop(self.granted.try_recv());
        self.fair.serve(self.fair.lock());
    }
}

impl<K: Holder> Drop for Held<K> {
    fn drop(&mut self) {
        self.fair.release(&self.holder, self.units);
    }
}

impl<K: Holder> fmt::Debug for Fair<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fair({} of {} free)", self.free(), self.total)
    }
}

impl<K: Holder> fmt::Debug for Held<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Held({})", self.units)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_secs(60);

    fn taking(fair: &Arc<Fair<u8>>, holder: u8, units: u64) -> tokio::task::JoinHandle<Held<u8>> {
        let fair = Arc::clone(fair);
        tokio::spawn(async move { fair.take(holder, units, LONG).await.unwrap() })
    }

    async fn until_waiting(fair: &Arc<Fair<u8>>, waiters: usize) {
        let waiting = || {
            fair.lock()
                .waiting
                .values()
                .map(|queue| queue.iter().filter(|w| !w.granted.is_closed()).count())
                .sum::<usize>()
        };
        while waiting() < waiters {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_holder_with_its_whole_share_leaves_the_rest_to_others_at_once() {
        let fair = Fair::new(10, 5);
        let _all_of_its_share = fair.take(1, 5, LONG).await.unwrap();
        assert_eq!(fair.take(1, 1, SOON).await.unwrap_err(), Busy);
        let waiting = taking(&fair, 1, 1);
        until_waiting(&fair, 1).await;
        assert!(fair.ask(2, 5).is_ok(), "without waiting");
        assert_eq!(fair.free(), 5);
        waiting.abort();
    }

    #[tokio::test]
    async fn those_who_wait_take_turns_however_many_they_are() {
        let fair = Fair::new(4, 4);
        let held = fair.take(9, 4, LONG).await.unwrap();
        let flood: Vec<_> = (0..50).map(|_| taking(&fair, 1, 4)).collect();
        until_waiting(&fair, 50).await;
        let late = taking(&fair, 2, 4);
        until_waiting(&fair, 51).await;
        drop(held);
        let mut flood = flood.into_iter();
        drop(flood.next().unwrap().await.unwrap());
        drop(late.await.unwrap());
        assert!(
            flood.all(|task| !task.is_finished()),
            "one of the flood, then the latecomer"
        );
    }

    #[tokio::test]
    async fn a_large_request_is_not_overtaken_for_ever() {
        let fair = Fair::new(10, 10);
        let small = fair.take(1, 6, LONG).await.unwrap();
        let large = taking(&fair, 2, 10);
        until_waiting(&fair, 1).await;
        let behind = taking(&fair, 3, 1);
        until_waiting(&fair, 2).await;
        assert_eq!(fair.free(), 4, "kept for the one whose turn it is");
        drop(small);
        drop(large.await.unwrap());
        drop(behind.await.unwrap());
        assert_eq!(fair.free(), 10);
    }

    #[tokio::test]
    async fn what_is_larger_than_everything_comes_alone() {
        let fair = Fair::new(10, 5);
        let all = fair.take(1, 1_000, LONG).await.unwrap();
        assert_eq!(fair.free(), 0);
        drop(all);
        assert_eq!(fair.free(), 10);
    }

    #[tokio::test]
    async fn whoever_stops_waiting_makes_way() {
        let fair = Fair::new(10, 10);
        let held = fair.take(1, 5, LONG).await.unwrap();
        let impatient = fair.take(2, 10, SOON);
        let behind = taking(&fair, 3, 5);
        assert_eq!(impatient.await.unwrap_err(), Busy);
        drop(behind.await.unwrap());
        drop(held);
        assert_eq!(fair.free(), 10);
        let state = fair.lock();
        assert!(state.held.is_empty() && state.waiting.is_empty() && state.turns.is_empty());
    }

    #[tokio::test]
    async fn trying_never_overtakes() {
        let fair = Fair::new(10, 10);
        let held = fair.try_take(1, 5, 4).unwrap();
        let waiting = taking(&fair, 2, 6);
        until_waiting(&fair, 1).await;
        assert_eq!(fair.try_take(3, 1, 4).unwrap_err(), Busy);
        drop(held);
        drop(waiting.await.unwrap());
        assert!(fair.try_take(3, 1, 4).is_ok());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn nothing_is_lost_whatever_is_cancelled_and_when() {
        let fair = Fair::new(16, 8);
        let mut tasks = Vec::new();
        for n in 0..400_u64 {
            let fair = Arc::clone(&fair);
            tasks.push(tokio::spawn(async move {
                let patience = Duration::from_micros(n * 7 % 900);
                if let Ok(held) = fair.take((n % 5) as u8, n % 11 + 1, patience).await {
                    tokio::time::sleep(Duration::from_micros(n % 300)).await;
                    drop(held);
                }
            }));
            if n % 3 == 0 {
                tasks.swap_remove((n as usize * 31) % tasks.len()).abort();
            }
        }
        for task in tasks {
            let _ = task.await;
        }
        while fair.free() < 16 {
            tokio::task::yield_now().await;
        }
        let state = fair.lock();
        assert!(state.held.is_empty() && state.waiting.is_empty() && state.turns.is_empty());
    }
}
