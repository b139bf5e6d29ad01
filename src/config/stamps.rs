//! What tells that a file is another one.

use std::{fs, os::unix::fs::MetadataExt, path::Path, time::SystemTime};

/// Times, lengths and inodes of some files; of one that is not there, nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamps(Vec<Option<(SystemTime, u64, u64)>>);

impl Stamps {
    /// A call to the system each, which do not wait for a disk.
    pub fn of<'a>(files: impl IntoIterator<Item = &'a Path>) -> Self {
        let stamp = |path: &Path| {
            let found = fs::metadata(path).ok()?;
            Some((found.modified().ok()?, found.len(), found.ino()))
        };
        Self(files.into_iter().map(stamp).collect())
    }
}
