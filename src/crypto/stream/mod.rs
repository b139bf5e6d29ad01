//! Extents: content sealed in 64 KiB segments, each extent a complete Tink AES256-GCM-HKDF streaming ciphertext.
//!
//! | bytes | field |
//! |---|---|
//! | 1 | 40, length of the header |
//! | 32 | salt, random |
//! | 7 | nonce prefix, random |
//! | up to 65,496 | segment 0: ciphertext, tag (16) |
//! | 65,536 each | the segments between |
//! | 16 to 65,536 | the last segment |
//!
//! key = HKDF-SHA256(ikm = content key, salt = salt, info = associated data), 32 bytes;
//! nonce of a segment = prefix (7) || number u32be || 1 if it is the extent's last, else 0; no associated data per segment.
//!
//! No nonce is ever used twice: each seal draws a salt, so a key, of its own, and consumes the buffer.
//!
//! Source: Tink, "AES-GCM-HKDF streaming AEAD"; Hoang, Reyhanitabar, Rogaway, Vizar, "Online Authenticated-Encryption and its
//! Nonce-Reuse Misuse-Resistance" (2015).

mod layout;
mod nonce;
mod open;
mod range;
mod seal;

pub use layout::{
    BIG_FULL_SEGMENTS, BIG_PART_FROM, FULL_SEGMENTS, HEADER_LEN, SEGMENT_LEN, TAG_LEN, ciphertext_len,
    extent_capacity, extent_count, extent_segments,
};
pub use open::ExtentOpener;
pub use range::{Piece, Pieces, map_range};
pub use seal::{ExtentBuffer, SealedExtent, TagsDigest, entry_digest};

#[cfg(test)]
mod tests;
