//! Randomness that repeats, and that can fail.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use ring::digest::{Context, SHA256};

use crate::domain::clock::{Rng, RngFailed};

/// SHA-256 of seed and counter. Two of the same seed give the same bytes; clones share the counter. Never for keys that matter.
#[derive(Clone, Debug)]
pub struct SeededRng {
    seed: u64,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    blocks: AtomicU64,
    broken: AtomicBool,
}

impl SeededRng {
    /// The stream of `seed`, from its start.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            state: Arc::default(),
        }
    }

    /// Whether to fail from now on.
    pub fn set_broken(&self, broken: bool) {
        self.state.broken.store(broken, Ordering::SeqCst);
    }

    fn block(&self) -> impl AsRef<[u8]> + use<> {
        let counter = self.state.blocks.fetch_add(1, Ordering::SeqCst);
        let mut context = Context::new(&SHA256);
        context.update(b"callvault test rng");
        context.update(&self.seed.to_be_bytes());
        context.update(&counter.to_be_bytes());
        context.finish()
    }
}

impl Default for SeededRng {
    fn default() -> Self {
        Self::new(0)
    }
}

impl Rng for SeededRng {
    fn fill(&self, out: &mut [u8]) -> Result<(), RngFailed> {
        if self.state.broken.load(Ordering::SeqCst) {
            return Err(RngFailed);
        }
        for chunk in out.chunks_mut(SHA256.output_len()) {
            chunk.copy_from_slice(&self.block().as_ref()[..chunk.len()]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(rng: &SeededRng) -> [u8; 80] {
        let mut out = [0; 80];
        rng.fill(&mut out).unwrap();
        out
    }

    #[test]
    fn repeats_by_seed_and_never_within() {
        let rng = SeededRng::new(7);
        let first = bytes(&rng);
        assert_eq!(first, bytes(&SeededRng::new(7)));
        assert_ne!(first, bytes(&rng.clone()));
        assert_ne!(first, bytes(&SeededRng::new(8)));
    }

    #[test]
    fn fails_when_told() {
        let rng = SeededRng::default();
        rng.set_broken(true);
        assert_eq!(rng.fill(&mut [0; 4]), Err(RngFailed));
    }
}
