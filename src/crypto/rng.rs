//! The system's randomness.

use ring::rand::{SecureRandom, SystemRandom};

use crate::domain::clock::{Rng, RngFailed};

/// The operating system's generator, by ring.
#[derive(Clone, Debug)]
pub struct SystemRng(SystemRandom);

impl SystemRng {
    /// Opens nothing and cannot fail; [`Rng::fill`] can.
    pub fn new() -> Self {
        Self(SystemRandom::new())
    }
}

impl Default for SystemRng {
    fn default() -> Self {
        Self::new()
    }
}

impl Rng for SystemRng {
    fn fill(&self, out: &mut [u8]) -> Result<(), RngFailed> {
        self.0.fill(out).map_err(|_| RngFailed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_differ() {
        let (mut a, mut b) = ([0; 32], [0; 32]);
        SystemRng::new().fill(&mut a).unwrap();
        SystemRng::new().fill(&mut b).unwrap();
        assert_ne!(a, b);
    }
}
