//! Objects read.

use std::fs::File;

use bytes::Bytes;
use rustix::{
    buffer::spare_capacity,
    fs::{AtFlags, FileType, Mode, OFlags, Stat, fstat, openat, statat},
    io::{Errno, pread},
};

use super::{
    super::store::{ByteRange, ObjectBytes, ObjectInfo, ObjectKey, ObjectVersion, StoreError},
    directories::Directories,
    error::unavailable,
    place,
};

/// Reads bytes of an object into one buffer.
pub(super) fn get(
    directories: &Directories,
    key: &ObjectKey,
    range: ByteRange,
) -> Result<ObjectBytes, StoreError> {
    let (file, object_length) = open(directories, key)?;
    let (offset, length) = range.within(object_length)?;
    Ok(ObjectBytes {
        bytes: read(&file, offset, length)?,
        object_length,
    })
}

/// What is known of an object.
pub(super) fn head(directories: &Directories, key: &ObjectKey) -> Result<ObjectInfo, StoreError> {
    let (path, name) = place::split(key);
    let directory = directories.enter(path)?.ok_or(StoreError::NotFound)?;
    let stat = statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW).map_err(missing)?;
    info(key.clone(), &stat).ok_or(StoreError::NotFound)
}

/// What a file says of the object that it is; `None` if it is something else.
pub(super) fn info(key: ObjectKey, stat: &Stat) -> Option<ObjectInfo> {
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return None;
    }
    let nanos = i64::try_from(stat.st_mtime_nsec).unwrap_or(0);
    let modified_micros = stat
        .st_mtime
        .saturating_mul(1_000_000)
        .saturating_add(nanos / 1_000);
    Some(ObjectInfo {
        key,
        length: u64::try_from(stat.st_size).unwrap_or(0),
        modified_micros,
        version: ObjectVersion::default(),
    })
}

fn open(directories: &Directories, key: &ObjectKey) -> Result<(File, u64), StoreError> {
    let (path, name) = place::split(key);
    let directory = directories.enter(path)?.ok_or(StoreError::NotFound)?;
    // NONBLOCK: a pipe that someone put here must not hold the thread.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = openat(&directory, name, flags, Mode::empty()).map_err(missing)?;
    let length = info(key.clone(), &fstat(&file)?)
        .ok_or(StoreError::NotFound)?
        .length;
    Ok((File::from(file), length))
}

fn read(file: &File, offset: u64, length: u64) -> Result<Bytes, StoreError> {
    let wanted = usize::try_from(length).map_err(unavailable)?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(wanted).map_err(unavailable)?;
    let mut position = offset;
    while bytes.len() < wanted {
        match pread(file, spare_capacity(&mut bytes), position) {
            Ok(0) => return Err(StoreError::Protocol("object shrank while it was read")),
            Ok(read) => position += read as u64,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    // The allocator may have given more than was asked for, and an object that is replaced does not grow: defence only.
    bytes.truncate(wanted);
    Ok(Bytes::from(bytes))
}

fn missing(errno: Errno) -> StoreError {
    match errno {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP => StoreError::NotFound,
        errno => errno.into(),
    }
}
