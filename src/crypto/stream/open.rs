//! Opening an extent's segments, any of them, in place.

use bytes::{Bytes, BytesMut};

use super::{
    layout::{HEADER_LEN, SEGMENT_LEN, TAG_LEN},
    nonce::Header,
};
use crate::crypto::{CryptoError, bulk::BulkKey, kdf, secret::ContentKey};

/// Opens the segments of one extent.
#[derive(Debug)]
pub struct ExtentOpener {
    cipher: BulkKey,
    header: Header,
}

impl ExtentOpener {
    /// From the extent's first 40 bytes. `aad` is [`crate::crypto::context::extent`]. Whether they all belong together
    /// shows with the first segment.
    ///
    /// # Errors
    /// [`CryptoError::Unauthentic`] if the header is none.
    pub fn new(key: &ContentKey, aad: &[u8], header: &[u8; HEADER_LEN]) -> Result<Self, CryptoError> {
        let header = Header::read(header)?;
        let cipher = BulkKey::new(&kdf::extent_key(key, &header.salt, aad))?;
        Ok(Self { cipher, header })
    }

    /// Opens one sealed segment in place.
    ///
    /// `sealed` is ciphertext then tag, without the header before segment 0: at most [`SEGMENT_LEN`] bytes; `index` counts
    /// segments from 0; `last` says whether the segment ends the extent. Returns the plaintext, at most 65,520 bytes.
    ///
    /// # Errors
    /// [`CryptoError::Unauthentic`] if any key, context or ciphertext bit, the index or `last` differs. Not retryable.
    ///
    /// Source: Tink streaming AEAD wire format; NIST SP 800-38D section 7.2.
    pub fn open_segment<'a>(
        &self,
        index: u32,
        last: bool,
        sealed: &'a mut [u8],
    ) -> Result<&'a mut [u8], CryptoError> {
        self.cipher.open(self.header.nonce(index, last), &[], sealed)
    }

    /// Opens consecutive segments of one read in place and gives their plaintexts, without copying them.
    ///
    /// `ciphertext` is whole segments from `first_segment` on, without the header; `last_segment_of_extent` is the number
    /// of the extent's last segment, which the descriptor vouches for. A run may end anywhere between segments: whether it
    /// is all that was asked for, [`super::Piece::open`] checks.
    ///
    /// # Errors
    /// [`CryptoError::Unauthentic`] if any segment is, if one is cut short, or if there is more than the extent has.
    pub fn open_run(
        &self,
        first_segment: u32,
        last_segment_of_extent: u32,
        mut ciphertext: BytesMut,
    ) -> Result<Vec<Bytes>, CryptoError> {
        let mut places = Vec::with_capacity(ciphertext.len() / SEGMENT_LEN + 1);
        let (mut index, mut start) = (first_segment, 0);
        while start < ciphertext.len() {
            if index > last_segment_of_extent {
                return Err(CryptoError::Unauthentic);
            }
            let end = ciphertext.len().min(start + sealed_len(index));
            self.open_segment(
                index,
                index == last_segment_of_extent,
                &mut ciphertext[start..end],
            )?;
            places.push(start..end - TAG_LEN);
            (index, start) = (index.checked_add(1).ok_or(CryptoError::TooLong)?, end);
        }
        let opened = ciphertext.freeze();
        Ok(places.into_iter().map(|place| opened.slice(place)).collect())
    }
}

/// Ciphertext bytes of a full segment without the header.
fn sealed_len(index: u32) -> usize {
    if index == 0 {
        SEGMENT_LEN - HEADER_LEN
    } else {
        SEGMENT_LEN
    }
}
