//! Doubles for tests: faults on demand, time that stands still, randomness that repeats, a vault to wreck.

pub mod clock;
pub mod disk;
pub mod faulty;
pub mod fuzz;
pub mod issuer;
pub mod kms;
pub mod rng;
pub mod root;
pub mod token;
pub mod world;
