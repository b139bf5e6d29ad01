//! Files put in their place, and removed from it.

use std::os::fd::OwnedFd;

use rustix::{
    fs::{AtFlags, FileType, RenameFlags, fsync, linkat, renameat, renameat_with, statat, unlinkat},
    io::Errno,
};

use super::{
    super::store::{ObjectKey, StoreError},
    directories::Directories,
    error::unavailable,
    staging::Staging,
};

/// Tries before giving up on a directory that others keep removing.
const ATTEMPTS: usize = 64;

/// What becomes of an object of the same name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Existing {
    /// It stays, and the newcomer is refused.
    Keep,
    /// It is replaced.
    Replace,
}

/// Why a file is not known to be in its place.
pub(super) enum PlaceError {
    /// It was not moved.
    Refused(StoreError),
    /// It was moved, and may be moved back by a crash.
    Unsynced(StoreError),
}

impl From<PlaceError> for StoreError {
    fn from(error: PlaceError) -> Self {
        match error {
            PlaceError::Refused(error) | PlaceError::Unsynced(error) => error,
        }
    }
}

/// The directory and the name in it of an object.
pub(super) fn split(key: &ObjectKey) -> (&str, &str) {
    key.as_str().rsplit_once('/').unwrap_or(("", key.as_str()))
}

/// Moves a synced staging file to where the object `key` lies and returns when that is durable.
pub(super) fn into(
    directories: &Directories,
    staging: &Staging,
    staged: &str,
    key: &ObjectKey,
    existing: Existing,
) -> Result<(), PlaceError> {
    let (path, name) = split(key);
    for _ in 0..ATTEMPTS {
        let directory = match directories.make(path) {
            Ok(directory) => directory,
            Err(Errno::NOENT) => continue, // pruned under our feet
            Err(errno) => return Err(PlaceError::Refused(misplaced(errno))),
        };
        match rename(staging.directory(), staged, &directory, name, existing) {
            Ok(()) => return fsync(&directory).map_err(|errno| PlaceError::Unsynced(errno.into())),
            Err(Errno::NOENT) if staging.has(staged) => {}
            Err(Errno::EXIST) => return Err(PlaceError::Refused(occupied(&directory, name))),
            Err(errno) => return Err(PlaceError::Refused(misplaced(errno))),
        }
    }
    Err(PlaceError::Refused(unavailable(std::io::Error::from(
        Errno::BUSY,
    ))))
}

/// Removes the object `key`, if it exists, and returns when that is durable.
pub(super) fn remove(directories: &Directories, key: &ObjectKey) -> Result<(), StoreError> {
    let (path, name) = split(key);
    let Some(directory) = directories.enter(path)? else {
        return Ok(());
    };
    match unlinkat(&directory, name, AtFlags::empty()) {
        // Synced even when it was gone: the one who removed it may not have come so far.
        Ok(()) | Err(Errno::NOENT) => fsync(&directory)?,
        Err(Errno::ISDIR | Errno::PERM) if is_directory(&directory, name) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    }
    directories.prune(path);
    Ok(())
}

fn rename(from: &OwnedFd, staged: &str, to: &OwnedFd, name: &str, existing: Existing) -> Result<(), Errno> {
    if existing == Existing::Replace {
        return renameat(from, staged, to, name);
    }
    match renameat_with(from, staged, to, name, RenameFlags::NOREPLACE) {
        // NFS and older ZFS know no such rename.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => link(from, staged, to, name),
        done => done,
    }
}

/// The same in two steps. A crash between them leaves a staging file with a second name, see [`Staging::open`].
pub(super) fn link(from: &OwnedFd, staged: &str, to: &OwnedFd, name: &str) -> Result<(), Errno> {
    linkat(from, staged, to, name, AtFlags::empty())?;
    // The object is in place whatever becomes of its first name.
    let _ = unlinkat(from, staged, AtFlags::empty());
    Ok(())
}

fn occupied(directory: &OwnedFd, name: &str) -> StoreError {
    if is_directory(directory, name) {
        StoreError::InvalidKey
    } else {
        StoreError::AlreadyExists
    }
}

fn is_directory(directory: &OwnedFd, name: &str) -> bool {
    statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

/// A key below another object, or above one, has no place in a directory.
fn misplaced(errno: Errno) -> StoreError {
    match errno {
        Errno::NOTDIR | Errno::ISDIR | Errno::LOOP => StoreError::InvalidKey,
        errno => errno.into(),
    }
}
