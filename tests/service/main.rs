//! The services over a real server on loopback: TLS, the dev PKI, a store in a directory.

// Helpers are tests as well: what fails in them fails the test.
#![allow(clippy::unwrap_used, clippy::panic)]

mod certificates;
mod erasure;
mod harness;
mod keys;
mod listing;
mod matrix;
mod messages;
mod policies;
mod reading;
mod refusals;
mod resumable;
mod resuming;
mod secrecy;
mod sharing;
mod streams;
mod suspending;
mod sweeping;
mod tenants;
mod tokens;
mod updating;
mod uploading;
