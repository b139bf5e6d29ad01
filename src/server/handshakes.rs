//! Handshakes under way: a bounded number, and never only those of whoever is slowest.
//!
//! Before TLS a peer is only an address, and behind a load balancer not even that. So nobody is turned away at the door: when
//! there are too many handshakes the oldest gives way, of the address that has most. Whoever opens connections and says nothing
//! pushes out itself; a peer in earnest needs two round trips.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

/// All of them.
#[derive(Debug)]
pub(super) struct Handshakes {
    most: usize,
    under_way: Mutex<UnderWay>,
}

#[derive(Debug, Default)]
struct UnderWay {
    /// Oldest first.
    queue: VecDeque<Entry>,
    begun: u64,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    address: IpAddr,
    /// Dropped when it must give way.
    _may_go_on: oneshot::Sender<()>,
}

/// One of them; dropped at its end.
#[derive(Debug)]
pub(super) struct Handshake {
    handshakes: Arc<Handshakes>,
    number: u64,
    may_go_on: oneshot::Receiver<()>,
}

impl Handshakes {
    /// None yet, and never more than `most`.
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            under_way: Mutex::default(),
        })
    }

    /// Begins one with a peer, at the price of another if need be.
    pub(super) fn begin(self: &Arc<Self>, address: IpAddr) -> Handshake {
        let (may_go_on, receiver) = oneshot::channel();
        let mut under_way = self.lock();
        under_way.begun += 1;
        let number = under_way.begun;
        under_way.queue.push_back(Entry {
            number,
            address,
            _may_go_on: may_go_on,
        });
        if under_way.queue.len() > self.most {
            under_way.push_out();
        }
        Handshake {
            handshakes: Arc::clone(self),
            number,
            may_go_on: receiver,
        }
    }

    fn lock(&self) -> MutexGuard<'_, UnderWay> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl UnderWay {
    /// Ends the oldest of the address that has most.
    fn push_out(&mut self) {
        let mut counts: HashMap<IpAddr, usize> = HashMap::new();
        for entry in &self.queue {
            *counts.entry(entry.address).or_default() += 1;
        }
        let most = counts.values().max().copied();
        let place = self
            .queue
            .iter()
            .position(|entry| counts.get(&entry.address).copied() == most);
        if let Some(place) = place {
            self.queue.remove(place);
        }
    }
}

impl Handshake {
    /// Returns when it must give way to another.
    pub(super) async fn pushed_out(&mut self) {
        let _ = (&mut self.may_go_on).await;
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        let mut under_way = self.handshakes.lock();
        if let Ok(place) = under_way
            .queue
            .binary_search_by_key(&self.number, |entry| entry.number)
        {
            under_way.queue.remove(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn is_out(handshake: &mut Handshake) -> bool {
        handshake.may_go_on.try_recv() == Err(oneshot::error::TryRecvError::Closed)
    }

    #[test]
    fn the_oldest_of_whoever_has_most_gives_way() {
        let handshakes = Handshakes::new(4);
        let mut honest = handshakes.begin(address(1));
        let mut flood: Vec<_> = (0..10).map(|_| handshakes.begin(address(2))).collect();
        assert!(!is_out(&mut honest), "it was the oldest of all");
        let out: Vec<_> = flood.iter_mut().map(is_out).collect();
        assert_eq!(out, [[true; 7].as_slice(), &[false; 3]].concat());
        let mut late = handshakes.begin(address(3));
        assert!(!is_out(&mut late) && !is_out(&mut honest));
        assert_eq!(handshakes.lock().queue.len(), 4);
        drop((honest, flood, late));
        assert_eq!(handshakes.lock().queue.len(), 0);
    }

    #[test]
    fn behind_a_load_balancer_the_newest_goes_on() {
        let handshakes = Handshakes::new(2);
        let mut all: Vec<_> = (0..5).map(|_| handshakes.begin(address(1))).collect();
        assert!(!is_out(&mut all[4]) && !is_out(&mut all[3]) && is_out(&mut all[0]));
    }
}
