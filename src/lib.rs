//! callvault: the vault that call recordings and message bodies deserve.
//!
//! The layout is the architecture; `ARCHITECTURE.md` draws it.

#![forbid(unsafe_code)]

pub mod blob;
pub mod domain;
pub mod index;
pub mod ledger;

/// Generated from `proto/`.
#[allow(missing_docs, clippy::all, clippy::pedantic, unreachable_pub)]
pub mod proto {
    /// What lies in buckets and indexes.
    pub mod storage {
        include!(concat!(env!("OUT_DIR"), "/callvault.storage.v1.rs"));
    }
}
