//! What tells that a file is another one.

use std::{fs, os::unix::fs::MetadataExt, path::Path, time::SystemTime};

/// What tells a file's content and its permissions from others: when it was written and changed, its length, its inode.
type Stamp = (SystemTime, (i64, i64), u64, u64);

/// Stamps of some files; of one that is not there, nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamps(Vec<Option<Stamp>>);

impl Stamps {
    /// A call to the system each, which do not wait for a disk.
    pub fn of<'a>(files: impl IntoIterator<Item = &'a Path>) -> Self {
        let stamp = |path: &Path| {
            let found = fs::metadata(path).ok()?;
            let changed = (found.ctime(), found.ctime_nsec());
            Some((found.modified().ok()?, changed, found.len(), found.ino()))
        };
        Self(files.into_iter().map(stamp).collect())
    }
}
