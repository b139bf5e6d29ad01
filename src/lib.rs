//! callvault: the vault that call recordings and message bodies deserve.
//!
//! The layout is the architecture; `ARCHITECTURE.md` draws it.

#![forbid(unsafe_code)]

pub mod access;
pub mod app;
mod aws;
pub mod blob;
pub mod cli;
pub mod client;
pub mod config;
pub mod crypto;
pub mod domain;
pub mod evidence;
pub mod grpc;
pub mod index;
pub mod keys;
pub mod ledger;
pub mod server;
pub mod spool;
pub mod telemetry;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod vault;

/// Generated from `proto/`.
#[allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    clippy::clone_on_ref_ptr,
    unreachable_pub
)]
pub mod proto {
    /// The public API.
    pub mod v1 {
        tonic::include_proto!("callvault.v1");
        /// What reflection tells: the API, and nothing of what is stored.
        pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/api.fds"));
    }
    /// What lies in buckets and indexes.
    pub mod storage {
        include!(concat!(env!("OUT_DIR"), "/callvault.storage.v1.rs"));
    }
}
