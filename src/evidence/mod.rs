//! Evidence: what anybody can check without this vault, from a file and the keys that it publishes.
//!
//! ```text
//! certificate (canonical JSON) -> JWS signed by the certificate key
//!     leaves that it cites -> inclusion proofs -> checkpoints signed by the log key
//! ```
//!
//! Pure but for [`proof::cite`], which reads proofs from a log. `docs/format.md`, "Certificates", is the specification.

pub mod canonical;
pub mod certificate;
pub mod jws;
pub mod keys;
pub mod proof;
pub mod story;
pub mod verify;
pub mod wording;

#[cfg(test)]
mod tests;
