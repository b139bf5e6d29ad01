//! The vault against an in-memory model of what is correct, against faults by name, and against every flipped byte.
//!
//! `CALLVAULT_CASES` sets how many random histories are driven; a failure prints the shortest history that still fails.

#![allow(clippy::unwrap_used, clippy::panic)] // tests fail where they stand

mod bucket;
mod drive;
mod faults;
mod flip;
mod kit;
mod messages;
mod model;
mod ops;
mod sessions;
mod weather;
