//! The directories that objects lie in: entered, made durable, pruned.
//!
//! Every step is taken from an open directory and follows no symbolic link, so that no key leads out of the root.

use std::{
    collections::HashSet,
    os::fd::OwnedFd,
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustix::{
    fs::{AtFlags, Mode, OFlags, fsync, mkdirat, openat, unlinkat},
    io::Errno,
};

use super::{super::store::StoreError, error::from_io};

/// Durable directories that are remembered; beyond that, all are forgotten and synced once more.
const REMEMBERED: usize = 65_536;

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// The tree below `objects`.
pub(super) struct Directories {
    objects: OwnedFd,
    durable: Mutex<Durable>,
}

/// Directories whose own names are known to be on disk.
///
/// Another call may have made a directory without having synced it yet. An object in it must not be acknowledged before
/// the directory is durable, so whoever does not know that it is syncs it too.
#[derive(Default)]
struct Durable {
    /// Counts removals: what was learned before one may be about a directory that is gone.
    removals: u64,
    paths: HashSet<String>,
}

impl Directories {
    pub(super) fn open(root: &OwnedFd) -> Result<Self, StoreError> {
        let (objects, _) = enter_or_make(root, "objects")?;
        Ok(Self {
            objects,
            durable: Mutex::default(),
        })
    }

    /// Enters the directory `path` (no `/` at either end; empty for the top). `None` if it does not exist.
    pub(super) fn enter(&self, path: &str) -> Result<Option<OwnedFd>, StoreError> {
        let mut directory = self.objects.try_clone().map_err(from_io)?;
        for (segment, _) in steps(path) {
            directory = match enter(&directory, segment) {
                Ok(child) => child,
                // A file or a link where a directory was expected: no object lies below it.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
                Err(errno) => return Err(errno.into()),
            };
        }
        Ok(Some(directory))
    }

    /// Enters the directory `path`, making what is missing, and returns when it is durable.
    ///
    /// # Errors
    /// [`Errno::NOENT`] if it was pruned meanwhile: try again.
    pub(super) fn make(&self, path: &str) -> Result<OwnedFd, Errno> {
        let removals = self.durable().removals;
        let mut directory = self
            .objects
            .try_clone()
            .map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
        for (segment, path) in steps(path) {
            let (child, made) = enter_or_make(&directory, segment)?;
            if made || !self.durable().paths.contains(path) {
                fsync(&directory)?;
                self.durable().remember(path, removals);
            }
            directory = child;
        }
        Ok(directory)
    }

    /// Removes the directory `path` and those above it, as long as they are empty.
    pub(super) fn prune(&self, path: &str) {
        let mut path = path;
        while !path.is_empty() {
            let (above, segment) = path.rsplit_once('/').unwrap_or(("", path));
            // An empty directory that stays behind is invisible to callers: not worth an error.
            let Ok(Some(directory)) = self.enter(above) else {
                return;
            };
            if !self.remove_if_empty(&directory, segment, path) {
                return;
            }
            path = above;
        }
    }

    /// Removal and forgetting are one step, so that nobody takes a successor of the same name for the durable one.
    fn remove_if_empty(&self, directory: &OwnedFd, segment: &str, path: &str) -> bool {
        let mut durable = self.durable();
        let removed = unlinkat(directory, segment, AtFlags::REMOVEDIR).is_ok();
        if removed {
            durable.removals += 1;
            durable.paths.remove(path);
        }
        removed
    }

    fn durable(&self) -> MutexGuard<'_, Durable> {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Durable {
    /// Remembers that `path` was synced, unless something was removed since `removals` were counted.
    fn remember(&mut self, path: &str, removals: u64) {
        if self.removals != removals {
            return;
        }
        if self.paths.len() >= REMEMBERED {
            self.paths.clear();
        }
        self.paths.insert(path.to_owned());
    }
}

/// Enters a directory in another.
pub(super) fn enter(directory: &OwnedFd, segment: &str) -> Result<OwnedFd, Errno> {
    openat(directory, segment, DIRECTORY, Mode::empty())
}

/// Enters a directory in another, making it if need be; says whether it did.
pub(super) fn enter_or_make(directory: &OwnedFd, segment: &str) -> Result<(OwnedFd, bool), Errno> {
    match enter(directory, segment) {
        Err(Errno::NOENT) => {}
        entered => return Ok((entered?, false)),
    }
    let made = match mkdirat(directory, segment, Mode::RWXU) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(errno) => return Err(errno),
    };
    Ok((enter(directory, segment)?, made))
}

/// The segments of `path`, each with the path up to and including it.
fn steps(path: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut start = 0;
    path.split('/')
        .filter(|segment| !segment.is_empty())
        .map(move |segment| {
            let end = start + segment.len();
            start = end + 1;
            (segment, &path[..end])
        })
}
