//! Cryptography: every key, wrap, seal and keyed digest of the vault. `docs/format.md` is the specification.
//!
//! | room | what happens there |
//! |---|---|
//! | [`secret`] | keys as types: zeroising, not `Clone`, mute in `Debug` |
//! | [`context`] | associated data, one function for each thing that is sealed |
//! | [`kdf`] | all key derivation, and opening a wrapped key against its commitment |
//! | [`page`] | puncturable sets of slot keys |
//! | [`aead`] | wraps keys, seals small things (RustCrypto) |
//! | `bulk` | the one file that calls bulk AEAD (ring) |
//! | [`spool`] | records of unfinished uploads' files (ring) |
//! | [`stream`] | extents: Tink streaming AEAD in 64 KiB segments |
//! | [`blind`] | keyed digests: identifiers, request ids, row MACs |
//! | [`sign`] | Ed25519 |
//!
//! Nothing here does I/O; randomness is a parameter.

pub mod aead;
pub mod blind;
mod bulk;
pub mod context;
pub mod jws;
pub mod kdf;
pub mod page;
pub mod rng;
pub mod secret;
pub mod sign;
pub mod spool;
pub mod stream;
#[cfg(test)]
pub(crate) mod watch;

use crate::domain::clock::RngFailed;

/// Why a cryptographic operation gave nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CryptoError {
    /// Key, associated data, ciphertext, commitment or signature do not belong together. Which one is not said: an
    /// oracle would be worse than a riddle. Not retryable.
    #[error("not authentic")]
    Unauthentic,
    /// More than the format or the cipher allows.
    #[error("too long")]
    TooLong,
    /// No randomness, so nothing was sealed.
    #[error(transparent)]
    Rng(#[from] RngFailed),
    /// The slot's key has been destroyed, and everything under it with it.
    #[error("the slot is punctured")]
    PuncturedSlot,
    /// Not what it is said to be.
    #[error("malformed what={0}")]
    Malformed(&'static str),
}
