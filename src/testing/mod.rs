//! Doubles for tests: faults on demand, time that stands still, randomness that repeats.

pub mod clock;
pub mod faulty;
pub mod rng;
