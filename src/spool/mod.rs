//! Local files of uploads that are not finished: sealed, durable within about a second, and bounded.
//!
//! ```text
//! <data>/spool/<upload id>             the journal: what it is, which parts are in the store
//! <data>/spool/<upload id>.<extent>    content of one extent that is not in the store yet
//! ```
//!
//! Names hold ids that the vault minted and numbers, nothing else. `docs/format.md`, "The spool", is the specification.

pub mod disk;
pub mod log;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{crypto::CryptoError, domain::ids::RecordId};

pub use disk::{Directory, Disk};
pub use log::SealedLog;

/// Why the spool did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The limit is reached, or the disk is full. What was spooled before stays.
    #[error("the spool has no room")]
    Full,
    /// The disk failed.
    #[error("the spool's disk failed")]
    Disk(#[source] io::Error),
    /// What is there is not what was written.
    #[error("a spool file is damaged")]
    Damaged,
    /// Nothing could be sealed.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
}

impl From<io::Error> for SpoolError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Self::Full
            }
            _ => Self::Disk(error),
        }
    }
}

/// The directory and what may lie in it.
#[derive(Debug)]
pub struct Spool {
    disk: Arc<dyn Disk>,
    limit: u64,
    used: AtomicU64,
}

impl Spool {
    /// A spool that may hold `limit` bytes.
    pub fn new(disk: Arc<dyn Disk>, limit: u64) -> Self {
        Self {
            disk,
            limit,
            used: AtomicU64::new(0),
        }
    }

    /// Bytes in it.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Names of all files.
    ///
    /// # Errors
    /// As the disk says.
    pub fn names(&self) -> Result<Vec<String>, SpoolError> {
        Ok(self.disk.names()?)
    }

    /// Removes a file that no log stands for. A missing one is no error.
    ///
    /// # Errors
    /// As the disk says.
    pub fn remove(&self, name: &str) -> Result<(), SpoolError> {
        match self.disk.remove(name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Makes creations and removals durable.
    ///
    /// # Errors
    /// As the disk says.
    pub fn sync_names(&self) -> Result<(), SpoolError> {
        Ok(self.disk.sync_names()?)
    }

    /// Whether there is such a file.
    ///
    /// # Errors
    /// As the disk says.
    pub fn has(&self, name: &str) -> Result<bool, SpoolError> {
        match self.disk.length(name) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Counts a file that nobody has opened yet; returns its bytes, for [`Self::forget`].
    ///
    /// # Errors
    /// As the disk says.
    pub fn count_file(&self, name: &str) -> Result<u64, SpoolError> {
        let bytes = self.disk.length(name)?;
        self.count(bytes);
        Ok(bytes)
    }

    /// No longer counts what [`Self::count_file`] counted.
    pub fn forget(&self, bytes: u64) {
        self.release(bytes);
    }

    fn charge(&self, bytes: u64) -> Result<(), SpoolError> {
        let charged = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|sum| *sum <= self.limit)
            });
        charged.map(|_| ()).map_err(|_| SpoolError::Full)
    }

    /// Counts what is there already, whatever the limit says now.
    fn count(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    fn release(&self, bytes: u64) {
        let _ = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                Some(used.saturating_sub(bytes))
            });
    }
}

/// Name of an upload's journal.
pub fn journal_name(upload: &RecordId) -> String {
    upload.to_string()
}

/// Name of the file that holds one extent's content.
pub fn pieces_name(upload: &RecordId, extent: u32) -> String {
    format!("{upload}.{extent}")
}

/// What a file in the spool is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// An upload's journal.
    Journal(RecordId),
    /// The content of one of its extents.
    Pieces(RecordId, u32),
}

/// Reads a name; `None` for what the spool did not make.
pub fn parse_name(name: &str) -> Option<Named> {
    match name.split_once('.') {
        None => name.parse().ok().map(Named::Journal),
        Some((upload, extent)) => {
            let number = extent.parse().ok()?;
            let plain = u32::to_string(&number) == extent;
            (plain).then_some(Named::Pieces(upload.parse().ok()?, number))
        }
    }
}

#[cfg(test)]
mod tests;
