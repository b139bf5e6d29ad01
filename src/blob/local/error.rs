//! What the file system's refusals mean to callers.

use std::{error::Error, io};

use rustix::io::Errno;

use super::super::store::StoreError;

impl From<Errno> for StoreError {
    fn from(errno: Errno) -> Self {
        match errno {
            // FBIG: a limit on file sizes is a limit on room.
            Errno::NOSPC | Errno::DQUOT | Errno::FBIG => Self::Full,
            Errno::ACCESS | Errno::PERM | Errno::ROFS => Self::Denied(Box::new(io::Error::from(errno))),
            Errno::NAMETOOLONG => Self::InvalidKey,
            _ => unavailable(io::Error::from(errno)),
        }
    }
}

/// The same for errors of the standard library.
pub(super) fn from_io(error: io::Error) -> StoreError {
    match Errno::from_io_error(&error) {
        Some(errno) => errno.into(),
        None => unavailable(error),
    }
}

/// The store cannot be asked now.
pub(super) fn unavailable(error: impl Error + Send + Sync + 'static) -> StoreError {
    StoreError::Unavailable(Box::new(error))
}
