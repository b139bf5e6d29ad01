//! Nonces of segments.

use super::layout::HEADER_LEN;
use crate::{
    crypto::{
        CryptoError,
        bulk::{self, NONCE_LEN},
    },
    domain::clock::Rng,
};

const SALT_LEN: usize = 32;
const PREFIX_LEN: usize = 7;

/// What an extent starts with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub(super) salt: [u8; SALT_LEN],
    prefix: [u8; PREFIX_LEN],
}

impl Header {
    /// Draws salt and prefix: the key and the nonces of one extent.
    pub(super) fn generate(rng: &dyn Rng) -> Result<Self, CryptoError> {
        let mut header = Self {
            salt: [0; SALT_LEN],
            prefix: [0; PREFIX_LEN],
        };
        rng.fill(&mut header.salt)?;
        rng.fill(&mut header.prefix)?;
        Ok(header)
    }

    /// Reads a header. Its first byte is the only one that the key does not depend on, so it is checked here.
    pub(super) fn read(bytes: &[u8; HEADER_LEN]) -> Result<Self, CryptoError> {
        let (length, rest) = bytes.split_at(1);
        if usize::from(length[0]) != HEADER_LEN {
            return Err(CryptoError::Unauthentic);
        }
        let mut header = Self {
            salt: [0; SALT_LEN],
            prefix: [0; PREFIX_LEN],
        };
        header.salt.copy_from_slice(&rest[..SALT_LEN]);
        header.prefix.copy_from_slice(&rest[SALT_LEN..]);
        Ok(header)
    }

    pub(super) fn write(&self, out: &mut [u8]) {
        out[0] = HEADER_LEN as u8;
        out[1..=SALT_LEN].copy_from_slice(&self.salt);
        out[1 + SALT_LEN..].copy_from_slice(&self.prefix);
    }

    /// Nonce of segment `number`; `last` says whether it ends the extent.
    pub(super) fn nonce(&self, number: u32, last: bool) -> [u8; NONCE_LEN] {
        let mut nonce = [0; NONCE_LEN];
        nonce[..PREFIX_LEN].copy_from_slice(&self.prefix);
        nonce[PREFIX_LEN..NONCE_LEN - 1].copy_from_slice(&number.to_be_bytes());
        nonce[NONCE_LEN - 1] = u8::from(last);
        nonce
    }
}

/// Nonces of one extent that is being sealed: each is given out once, and none after the last.
#[derive(Debug)]
pub(super) struct NonceSequence {
    header: Header,
    /// `None` after the number 2^32 - 1.
    next: Option<u32>,
}

impl NonceSequence {
    pub(super) fn new(header: Header) -> Self {
        Self {
            header,
            next: Some(0),
        }
    }

    /// Nonce of the next segment, which is not the last.
    ///
    /// # Errors
    /// [`CryptoError::TooLong`] when the numbers have run out: it never starts again.
    pub(super) fn next(&mut self) -> Result<[u8; bulk::NONCE_LEN], CryptoError> {
        let number = self.next.ok_or(CryptoError::TooLong)?;
        self.next = number.checked_add(1);
        Ok(self.header.nonce(number, false))
    }

    /// Nonce of the last segment.
    ///
    /// # Errors
    /// [`CryptoError::TooLong`] when the numbers have run out.
    pub(super) fn last(self) -> Result<[u8; bulk::NONCE_LEN], CryptoError> {
        let number = self.next.ok_or(CryptoError::TooLong)?;
        Ok(self.header.nonce(number, true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(next: u32) -> NonceSequence {
        let header = Header {
            salt: [0; 32],
            prefix: [1, 2, 3, 4, 5, 6, 7],
        };
        NonceSequence {
            header,
            next: Some(next),
        }
    }

    #[test]
    fn nonces_are_tinks() {
        let mut nonces = at(0);
        assert_eq!(nonces.next(), Ok([1, 2, 3, 4, 5, 6, 7, 0, 0, 0, 0, 0]));
        assert_eq!(nonces.next(), Ok([1, 2, 3, 4, 5, 6, 7, 0, 0, 0, 1, 0]));
        assert_eq!(nonces.last(), Ok([1, 2, 3, 4, 5, 6, 7, 0, 0, 0, 2, 1]));
    }

    #[test]
    fn nonces_run_out_rather_than_start_again() {
        let mut nonces = at(u32::MAX);
        assert!(nonces.next().is_ok());
        assert_eq!(nonces.next(), Err(CryptoError::TooLong));
        assert_eq!(nonces.last(), Err(CryptoError::TooLong));
    }
}
