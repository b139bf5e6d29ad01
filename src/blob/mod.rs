//! Stored objects: what a store promises ([`store`]), how it is held to it (`suite`), and the stores themselves.

pub mod copy;
pub mod format;
pub mod local;
pub mod patient;
pub mod s3;
pub mod store;
#[cfg(any(test, feature = "testing"))]
pub mod suite;
pub mod walk;
