//! sled's failures, and its panics, in the words of the trait.

use std::{
    io::ErrorKind,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicBool, Ordering},
};

use crate::index::IndexError;

impl From<::sled::Error> for IndexError {
    fn from(error: ::sled::Error) -> Self {
        match error {
            ::sled::Error::Corruption { .. } => Self::Corrupt("a checksum differs"),
            ::sled::Error::CollectionNotFound(_) => Self::Corrupt("the tree is missing"),
            ::sled::Error::Unsupported(_) => Self::Corrupt("the settings of the file differ"),
            ::sled::Error::ReportableBug(_) => Self::Corrupt("the engine contradicts itself"),
            ::sled::Error::Io(error) => error.into(),
        }
    }
}

impl From<std::io::Error> for IndexError {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::Full,
            ErrorKind::UnexpectedEof | ErrorKind::InvalidData => Self::Corrupt("the file ends too early"),
            _ if is_lock(&error) => Self::Locked,
            _ => Self::Unavailable(Box::new(error)),
        }
    }
}

/// sled says it in words only; the version is pinned and a test holds the words.
fn is_lock(error: &std::io::Error) -> bool {
    error.kind() == ErrorKind::Other && error.to_string().starts_with("could not acquire lock")
}

/// Whether a call into sled has panicked; its state in memory is unknown from then on.
#[derive(Debug, Default)]
pub(super) struct Health {
    panicked: AtomicBool,
}

impl Health {
    /// Whether sled may still be asked.
    ///
    /// # Errors
    /// [`IndexError::Corrupt`] if a call panicked.
    pub(super) fn check(&self) -> Result<(), IndexError> {
        if self.panicked.load(Ordering::Acquire) {
            return Err(IndexError::Corrupt("the engine panicked before"));
        }
        Ok(())
    }

    /// Runs `call`, unless an earlier one panicked.
    ///
    /// sled answers some damage with an assertion or an `unwrap` rather than with an error. Unwinding is caught here, and
    /// only here, so that damage is an error to the caller, who moves the index aside, and not the end of the process.
    ///
    /// # Errors
    /// [`IndexError::Corrupt`] if this or an earlier call panicked; what `call` returns.
    pub(super) fn guard<T>(&self, call: impl FnOnce() -> Result<T, IndexError>) -> Result<T, IndexError> {
        self.check()?;
        catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_| {
            self.panicked.store(true, Ordering::Release);
            Err(IndexError::Corrupt("the engine panicked"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_full() {
        let full = std::io::Error::from_raw_os_error(28); // ENOSPC
        assert!(matches!(
            IndexError::from(::sled::Error::Io(full)),
            IndexError::Full
        ));
    }

    #[test]
    fn a_panic_is_remembered() {
        let health = Health::default();
        let call = || -> Result<(), IndexError> { panic!("as sled does") };
        assert!(matches!(
            health.guard(call),
            Err(IndexError::Corrupt("the engine panicked"))
        ));
        assert!(matches!(
            health.guard(|| Ok(())),
            Err(IndexError::Corrupt("the engine panicked before"))
        ));
    }
}
