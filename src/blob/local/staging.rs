//! Files that are not objects yet.

use std::{
    fs::File,
    io::Write,
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    sync::Arc,
};

use rustix::{
    fs::{AtFlags, Dir, FlockOperation, Mode, OFlags, flock, fsync, openat, statat, unlinkat},
    io::Errno,
};

use super::{
    super::store::StoreError,
    directories::enter_or_make,
    error::{from_io, unavailable},
    sidecar,
};
use crate::domain::clock::Rng;

/// Extension of the body of a put.
pub(super) const PUT: &str = "put";
/// Extension of the parts of an upload.
pub(super) const DATA: &str = "data";
/// Extension of what is known of an upload.
pub(super) const UPLOAD: &str = "upload";

/// The directory `staging`.
pub(super) struct Staging {
    directory: OwnedFd,
    rng: Arc<dyn Rng>,
    /// Held while the store is open: tells the next to open it whether staging files may be in use.
    _lock: OwnedFd,
}

/// A staging file that is removed with this value, unless it was moved away.
pub(super) struct Staged<'a> {
    staging: &'a Staging,
    name: String,
}

impl Staging {
    /// Opens the directory and clears away what a crash left: bodies of puts, uploads begun or completed by half.
    pub(super) fn open(root: &OwnedFd, rng: Arc<dyn Rng>) -> Result<Self, StoreError> {
        let (directory, _) = enter_or_make(root, "staging")?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let lock = openat(root, "lock", flags, Mode::RUSR | Mode::WUSR)?;
        let alone = flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok();
        let staging = Self {
            directory,
            rng,
            _lock: lock,
        };
        if alone {
            staging.clear()?;
        }
        flock(&staging._lock, FlockOperation::LockShared)?;
        Ok(staging)
    }

    /// Writes a body aside, synced.
    pub(super) fn write(&self, body: &[u8]) -> Result<Staged<'_>, StoreError> {
        let (id, mut file) = self.create(PUT)?;
        let staged = Staged {
            staging: self,
            name: name(&id, PUT),
        };
        file.write_all(body).map_err(from_io)?;
        file.sync_data().map_err(from_io)?;
        Ok(staged)
    }

    /// Creates a file under a new id, 32 hex digits.
    pub(super) fn create(&self, extension: &str) -> Result<(String, File), StoreError> {
        loop {
            let mut random = [0; 16];
            self.rng.fill(&mut random).map_err(unavailable)?;
            let id = hex::encode(random);
            match self.create_as(&id, extension) {
                Err(Errno::EXIST) => {}
                created => return Ok((id, created?)),
            }
        }
    }

    /// Creates a file that must not exist.
    pub(super) fn create_as(&self, id: &str, extension: &str) -> Result<File, Errno> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(
            &self.directory,
            name(id, extension),
            flags,
            Mode::RUSR | Mode::WUSR,
        )
        .map(File::from)
    }

    /// Opens a file that exists.
    pub(super) fn open_file(&self, id: &str, extension: &str) -> Result<File, Errno> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(&self.directory, name(id, extension), flags, Mode::empty()).map(File::from)
    }

    /// Removes a file; a missing one is no error.
    pub(super) fn remove(&self, id: &str, extension: &str) -> Result<(), Errno> {
        match unlinkat(&self.directory, name(id, extension), AtFlags::empty()) {
            Err(Errno::NOENT) => Ok(()),
            removed => removed,
        }
    }

    /// Whether a file of this name exists.
    pub(super) fn has(&self, name: &str) -> bool {
        statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// Makes creations and removals durable.
    pub(super) fn sync(&self) -> Result<(), Errno> {
        fsync(&self.directory)
    }

    /// The open directory.
    pub(super) fn directory(&self) -> &OwnedFd {
        &self.directory
    }

    /// Ids of all files with this extension.
    pub(super) fn ids(&self, extension: &str) -> Result<Vec<String>, StoreError> {
        let mut ids = Vec::new();
        for entry in Dir::read_from(&self.directory)? {
            let entry = entry?;
            let Ok(file_name) = entry.file_name().to_str() else {
                continue;
            };
            match file_name.split_once('.') {
                Some((id, found)) if found == extension && is_id(id) => ids.push(id.to_owned()),
                _ => {}
            }
        }
        Ok(ids)
    }

    fn clear(&self) -> Result<(), StoreError> {
        for id in self.ids(PUT)? {
            self.remove(&id, PUT)?;
        }
        for id in self.ids(DATA)? {
            if !self.is_upload(&id) {
                self.remove(&id, DATA)?;
            }
        }
        for id in self.ids(UPLOAD)? {
            if !self.has(&name(&id, DATA)) {
                self.remove(&id, UPLOAD)?;
            }
        }
        Ok(())
    }

    /// Whether parts belong to an upload under way; a second name says that they are an object already.
    fn is_upload(&self, id: &str) -> bool {
        let single = self
            .open_file(id, DATA)
            .is_ok_and(|f| f.metadata().is_ok_and(|m| m.nlink() == 1));
        single
            && self
                .open_file(id, UPLOAD)
                .is_ok_and(|file| sidecar::describe(&file).is_ok())
    }
}

impl Staged<'_> {
    /// Its name in the directory.
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        // What cannot be removed now is removed when the store is next opened.
        let _ = unlinkat(&self.staging.directory, &self.name, AtFlags::empty());
    }
}

/// The name of a staging file.
pub(super) fn name(id: &str, extension: &str) -> String {
    format!("{id}.{extension}")
}

/// Whether `id` is one of ours: nothing else becomes part of a path.
pub(super) fn is_id(id: &str) -> bool {
    id.len() == 32 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}
