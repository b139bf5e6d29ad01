//! Listings in the order of whole keys, in memory of about a page.
//!
//! A directory is read in batches of the smallest names that come after what was seen. A subdirectory sorts as its name
//! with `/` behind it, which is what makes `a-b`, `a.b`, `a/b`, `ab` come out in the order of their bytes.

use std::{collections::BTreeSet, ops::ControlFlow, os::fd::OwnedFd};

use rustix::{
    fs::{AtFlags, Dir, DirEntry, FileType, statat},
    io::Errno,
};

use super::{
    super::store::{Listing, ObjectKey, StoreError},
    directories::{Directories, enter},
    read,
};

/// Names of a directory that are held at a time.
const BATCH: usize = 1_000;

type Flow = Result<ControlFlow<()>, StoreError>;

/// Lists up to `limit` names after `after`, the last one of the page before.
pub(super) fn list(
    directories: &Directories,
    prefix: &str,
    delimited: bool,
    after: &str,
    limit: usize,
) -> Result<Listing, StoreError> {
    let base = prefix.rfind('/').map_or("", |slash| &prefix[..=slash]);
    let mut page = Page {
        prefix,
        delimited,
        after,
        limit: limit.clamp(1, BATCH),
        last: String::new(),
        listing: Listing::default(),
    };
    if let Some(directory) = entrance(directories, base)? {
        // A break says that there is more than the page holds: `next` is set by then.
        let _ = page.walk(&directory, base)?;
    }
    Ok(page.listing)
}

/// The directory that holds every key beginning with `base`; `None` if there is none, or no key can.
fn entrance(directories: &Directories, base: &str) -> Result<Option<OwnedFd>, StoreError> {
    let path = base.strip_suffix('/').unwrap_or(base);
    if !base.is_empty() && ObjectKey::parse(path).is_err() {
        return Ok(None);
    }
    directories.enter(path)
}

/// A page being filled.
struct Page<'a> {
    prefix: &'a str,
    delimited: bool,
    after: &'a str,
    limit: usize,
    /// The last name in the listing, key or folded prefix.
    last: String,
    listing: Listing,
}

impl Page<'_> {
    /// Adds what lies in the directory `path`, which is empty or ends with `/`.
    fn walk(&mut self, directory: &OwnedFd, path: &str) -> Flow {
        let mut seen = String::new();
        loop {
            let mut names = self.batch(directory, path, &seen)?;
            for name in &names {
                if self.visit(directory, &format!("{path}{name}"), name)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            match names.pop_last() {
                Some(last) if names.len() + 1 == BATCH => seen = last,
                _ => return Ok(ControlFlow::Continue(())),
            }
        }
    }

    /// The smallest names of a directory after `seen` that this page has a use for.
    fn batch(&self, directory: &OwnedFd, path: &str, seen: &str) -> Result<BTreeSet<String>, StoreError> {
        let mut names = BTreeSet::new();
        for entry in entries(directory)? {
            let Some(name) = sort_name(directory, &entry?) else {
                continue;
            };
            if name.as_str() > seen && self.wants(&format!("{path}{name}")) {
                names.insert(name);
                if names.len() > BATCH {
                    names.pop_last();
                }
            }
        }
        Ok(names)
    }

    /// Whether a key, or anything below a directory (it ends with `/`), may belong on this page.
    fn wants(&self, name: &str) -> bool {
        let after = if name.ends_with('/') {
            name > self.after || (self.after.starts_with(name) && !(self.folds(name) && self.after == name))
        } else {
            name > self.after
        };
        after && name.starts_with(self.prefix) && ObjectKey::parse(name.trim_end_matches('/')).is_ok()
    }

    fn folds(&self, name: &str) -> bool {
        self.delimited && name.len() > self.prefix.len()
    }

    fn visit(&mut self, directory: &OwnedFd, full: &str, name: &str) -> Flow {
        let Some(segment) = name.strip_suffix('/') else {
            return self.visit_file(directory, full, name);
        };
        let below = match enter(directory, segment) {
            Ok(below) => below,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(ControlFlow::Continue(())), // pruned meanwhile
            Err(errno) => return Err(errno.into()),
        };
        if !self.folds(full) {
            return self.walk(&below, full);
        }
        if !holds_object(&below)? {
            return Ok(ControlFlow::Continue(()));
        }
        self.add(full, |listing| listing.prefixes.push(full.to_owned()))
    }

    fn visit_file(&mut self, directory: &OwnedFd, full: &str, name: &str) -> Flow {
        let stat = match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(ControlFlow::Continue(())), // deleted meanwhile
            Err(errno) => return Err(errno.into()),
        };
        match read::info(ObjectKey::parse(full)?, &stat) {
            Some(info) => self.add(full, |listing| listing.objects.push(info)),
            None => Ok(ControlFlow::Continue(())),
        }
    }

    fn add(&mut self, name: &str, push: impl FnOnce(&mut Listing)) -> Flow {
        if self.listing.objects.len() + self.listing.prefixes.len() == self.limit {
            self.listing.next = Some(std::mem::take(&mut self.last));
            return Ok(ControlFlow::Break(()));
        }
        push(&mut self.listing);
        name.clone_into(&mut self.last);
        Ok(ControlFlow::Continue(()))
    }
}

/// What lies in a directory; nothing if it was pruned meanwhile.
fn entries(directory: &OwnedFd) -> Result<impl Iterator<Item = Result<DirEntry, Errno>>, Errno> {
    let entries = match Dir::read_from(directory) {
        Err(Errno::NOENT) => None,
        opened => Some(opened?),
    };
    Ok(entries
        .into_iter()
        .flatten()
        .filter(|entry| !matches!(entry, Err(Errno::NOENT))))
}

/// The name of a file, or of a directory with `/` behind it; `None` for anything else.
fn sort_name(directory: &OwnedFd, entry: &DirEntry) -> Option<String> {
    let name = entry
        .file_name()
        .to_str()
        .ok()
        .filter(|name| !matches!(*name, "." | ".."))?;
    match kind(directory, entry) {
        FileType::RegularFile => Some(name.to_owned()),
        FileType::Directory => Some(format!("{name}/")),
        _ => None,
    }
}

/// Some file systems keep the kind in the directory, others have to be asked.
fn kind(directory: &OwnedFd, entry: &DirEntry) -> FileType {
    match entry.file_type() {
        FileType::Unknown => statat(directory, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)
            .map_or(FileType::Unknown, |stat| FileType::from_raw_mode(stat.st_mode)),
        known => known,
    }
}

/// Whether any object lies below: a directory that is about to be filled, or was just emptied, is no prefix.
fn holds_object(directory: &OwnedFd) -> Result<bool, StoreError> {
    for entry in entries(directory)? {
        let Some(name) = sort_name(directory, &entry?) else {
            continue;
        };
        let Some(segment) = name.strip_suffix('/') else {
            return Ok(true);
        };
        match enter(directory, segment) {
            Ok(below) if holds_object(&below)? => return Ok(true),
            Ok(_) | Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(false)
}
