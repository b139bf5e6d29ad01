//! Keys as types. They zeroise when dropped, are not `Clone`, compare in constant time, and print their length only.
//!
//! The bytes live on the heap, so that moving a key leaves no copy behind on the stack.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::CryptoError;
use crate::domain::clock::Rng;

/// `N` secret bytes.
pub struct Secret<const N: usize>(Box<Zeroizing<[u8; N]>>);

impl<const N: usize> Secret<N> {
    /// Takes over `bytes` and zeroises the argument; copies that the caller still has are the caller's.
    pub fn from_bytes(mut bytes: [u8; N]) -> Self {
        let secret = Self::filled_by(|out| out.copy_from_slice(&bytes));
        bytes.zeroize();
        secret
    }

    /// Copies `bytes`.
    ///
    /// # Errors
    /// [`CryptoError::Malformed`] unless there are exactly `N`.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, CryptoError> {
        if bytes.len() != N {
            return Err(CryptoError::Malformed("length of a secret"));
        }
        Ok(Self::filled_by(|out| out.copy_from_slice(bytes)))
    }

    /// Draws `N` random bytes, in place.
    ///
    /// # Errors
    /// [`CryptoError::Rng`] if there is no randomness.
    pub fn generate(rng: &dyn Rng) -> Result<Self, CryptoError> {
        let mut secret = Self::zeros();
        rng.fill(secret.0.as_mut_slice())?;
        secret.watch();
        Ok(secret)
    }

    /// Lets `fill` write the bytes where they will stay.
    pub(super) fn filled_by(fill: impl FnOnce(&mut [u8; N])) -> Self {
        let mut secret = Self::zeros();
        fill(&mut secret.0);
        secret.watch();
        secret
    }

    /// For tests that look for secrets where none may be; nothing in a library or binary.
    fn watch(&self) {
        #[cfg(test)]
        super::watch::note(self.expose());
    }

    /// The bytes themselves. Do not let them out of sight.
    pub fn expose(&self) -> &[u8; N] {
        &self.0
    }

    /// Whether both are equal, in a time that tells nothing.
    pub fn ct_eq(&self, other: &Self) -> bool {
        self.0.as_slice().ct_eq(other.0.as_slice()).into()
    }

    fn zeros() -> Self {
        Self(Box::new(Zeroizing::new([0; N])))
    }
}

impl<const N: usize> ZeroizeOnDrop for Secret<N> {}

impl<const N: usize> fmt::Debug for Secret<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({N} bytes)")
    }
}

/// Secret bytes of any length: opened page states, keyrings, descriptors.
pub struct SecretBytes(Zeroizing<Vec<u8>>);

impl SecretBytes {
    /// Takes over `bytes`. Growing a vector leaves copies behind: allocate what it needs before filling it.
    pub fn from_vec(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes themselves.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Length in bytes; not a secret.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether both are equal, in a time that tells only whether the lengths are.
    pub fn ct_eq(&self, other: &Self) -> bool {
        self.0.as_slice().ct_eq(other.0.as_slice()).into()
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretBytes({} bytes)", self.0.len())
    }
}

/// A 256-bit key that [`super::aead`] can use.
pub trait KeyBytes {
    /// The 32 bytes.
    fn key_bytes(&self) -> &[u8; 32];
}

impl KeyBytes for [u8; 32] {
    fn key_bytes(&self) -> &[u8; 32] {
        self
    }
}

impl KeyBytes for Secret<32> {
    fn key_bytes(&self) -> &[u8; 32] {
        self.expose()
    }
}

macro_rules! keys {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        pub struct $name(Secret<32>);

        impl $name {
            /// Takes over `bytes` and zeroises the argument.
            pub fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(Secret::from_bytes(bytes))
            }

            /// Copies `bytes`.
            ///
            /// # Errors
            /// [`CryptoError::Malformed`] unless there are exactly 32.
            pub fn from_slice(bytes: &[u8]) -> Result<Self, CryptoError> {
                Secret::from_slice(bytes).map(Self)
            }

            /// Draws a new key.
            ///
            /// # Errors
            /// [`CryptoError::Rng`] if there is no randomness.
            pub fn generate(rng: &dyn Rng) -> Result<Self, CryptoError> {
                Secret::generate(rng).map(Self)
            }

            /// The bytes themselves.
            pub fn expose(&self) -> &[u8; 32] {
                self.0.expose()
            }

            /// Whether both are equal, in a time that tells nothing.
            pub fn ct_eq(&self, other: &Self) -> bool {
                self.0.ct_eq(&other.0)
            }
        }

        impl From<Secret<32>> for $name {
            fn from(secret: Secret<32>) -> Self {
                Self(secret)
            }
        }

        impl KeyBytes for $name {
            fn key_bytes(&self) -> &[u8; 32] {
                self.expose()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(32 bytes)"))
            }
        }
    )+};
}

keys!(
    /// The root of a region for one epoch; held by a root provider.
    EpochKey,
    /// One version of a tenant's envelope key.
    TenantKey,
    /// Leaf of a page. Wraps exactly one key, once.
    SlotKey,
    /// Key of one record or payload; never changes.
    Dek,
    /// Blinds a tenant's searchable identifiers; replaced by sweeps.
    IndexKey,
    /// Keys a tenant's request ids.
    RequestKey,
    /// Authenticates rows of the index.
    RowMacKey,
    /// Seals a record's extents; derived from its DEK.
    ContentKey,
    /// Seals a record's descriptors; derived from its DEK.
    DescriptorKey,
    /// Seals what an unfinished upload keeps in the data directory; derived from its record's DEK.
    SpoolKey,
    /// Keys what a request asked of a record; derived from its DEK, so that no guess of it can be confirmed when that is gone.
    FingerprintKey,
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{crypto::rng::SystemRng, domain::clock::RngFailed};

    #[derive(Debug)]
    struct Dry;

    impl Rng for Dry {
        fn fill(&self, _: &mut [u8]) -> Result<(), RngFailed> {
            Err(RngFailed)
        }
    }

    #[test]
    fn secrets_print_their_length_only() {
        assert_eq!(format!("{:?}", Secret::from_bytes([7; 32])), "Secret(32 bytes)");
        assert_eq!(format!("{:?}", Dek::from_bytes([7; 32])), "Dek(32 bytes)");
        assert_eq!(
            format!("{:?}", SecretBytes::from_vec(vec![7; 5])),
            "SecretBytes(5 bytes)"
        );
    }

    #[test]
    fn lengths_are_checked() {
        assert!(Dek::from_slice(&[1; 32]).is_ok());
        for wrong in [0, 31, 33] {
            assert_eq!(
                Dek::from_slice(&vec![1; wrong]).err(),
                Some(CryptoError::Malformed("length of a secret"))
            );
        }
    }

    #[test]
    fn equality_is_of_bytes() {
        let a = Dek::generate(&SystemRng::new()).unwrap();
        assert!(a.ct_eq(&Dek::from_bytes(*a.expose())));
        assert!(!a.ct_eq(&Dek::generate(&SystemRng::new()).unwrap()));
    }

    #[test]
    fn no_randomness_no_key() {
        assert_eq!(Dek::generate(&Dry).err(), Some(CryptoError::Rng(RngFailed)));
    }
}
