//! Multipart uploads: parts written side by side into one file, which becomes the object.

use std::{
    collections::HashMap,
    fs::File,
    os::unix::fs::FileExt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use rustix::{
    fs::{Timespec, Timestamps, UTIME_NOW, futimens},
    io::Errno,
};

use super::{
    super::store::{ObjectKey, PartReceipt, StoreError, UploadId},
    directories::Directories,
    error::from_io,
    place::{self, Existing, PlaceError},
    sidecar::{self, Part},
    staging::{DATA, Staging, UPLOAD, is_id, name},
};
use crate::domain::{clock::Timestamp, limits};

mod table;

use self::table::{Reservation, Table};

/// The uploads that this process knows. Others are read from their sidecars when they are first asked for.
#[derive(Default)]
pub(super) struct Uploads {
    known: Mutex<HashMap<String, Arc<Upload>>>,
    tickets: AtomicU64,
}

/// One upload.
pub(super) struct Upload {
    id: String,
    key: ObjectKey,
    table: Table,
    /// Shared by writers of parts, exclusive to the one that ends the upload: when the file becomes an object, nobody may
    /// be writing to it any more, not even a call whose future was dropped long ago.
    over: RwLock<bool>,
}

impl Uploads {
    /// A number that is higher than all before.
    pub(super) fn ticket(&self) -> u64 {
        self.tickets.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Begins an upload, durably.
    pub(super) fn begin(
        &self,
        staging: &Staging,
        key: &ObjectKey,
        now: Timestamp,
    ) -> Result<UploadId, StoreError> {
        let (id, file) = staging.create(UPLOAD)?;
        let begun = sidecar::begin(&file, key, now.micros())
            .map_err(from_io)
            .and_then(|()| Ok(staging.create_as(&id, DATA)?))
            .and_then(|_| Ok(staging.sync()?));
        if let Err(error) = begun {
            let _ = remove(staging, &id); // the next start clears what stays
            return Err(error);
        }
        let upload = Upload {
            id: id.clone(),
            key: key.clone(),
            table: Table::default(),
            over: RwLock::default(),
        };
        self.known().insert(id.clone(), Arc::new(upload));
        Ok(UploadId(id))
    }

    /// Finds an upload of `key`.
    ///
    /// # Errors
    /// [`StoreError::UploadNotFound`] if there is none.
    pub(super) fn find(
        &self,
        staging: &Staging,
        key: &ObjectKey,
        upload: &UploadId,
    ) -> Result<Arc<Upload>, StoreError> {
        let id = Some(upload.0.as_str())
            .filter(|id| is_id(id))
            .ok_or(StoreError::UploadNotFound)?;
        let mut known = self.known();
        let upload = match known.get(id) {
            Some(upload) => Arc::clone(upload),
            None => {
                let upload = Arc::new(Upload::load(staging, id)?);
                known.insert(id.to_owned(), Arc::clone(&upload));
                upload
            }
        };
        if upload.key == *key {
            Ok(upload)
        } else {
            Err(StoreError::UploadNotFound)
        }
    }

    /// Makes an object of an upload's parts.
    pub(super) fn complete(
        &self,
        staging: &Staging,
        directories: &Directories,
        key: &ObjectKey,
        upload: &UploadId,
        parts: &[PartReceipt],
    ) -> Result<(), StoreError> {
        let upload = self.find(staging, key, upload)?;
        upload.complete(staging, directories, parts)?;
        self.known().remove(&upload.id);
        Ok(())
    }

    /// Forgets an upload and its parts.
    pub(super) fn abort(
        &self,
        staging: &Staging,
        key: &ObjectKey,
        upload: &UploadId,
    ) -> Result<(), StoreError> {
        let upload = match self.find(staging, key, upload) {
            Err(StoreError::UploadNotFound) => return Ok(()),
            found => found?,
        };
        upload.abort(staging)?;
        self.known().remove(&upload.id);
        Ok(())
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, Arc<Upload>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Uploads under way whose keys begin with `prefix`, by key, then by id.
pub(super) fn list(staging: &Staging, prefix: &str) -> Result<Vec<(ObjectKey, UploadId, i64)>, StoreError> {
    let mut uploads = Vec::new();
    for id in staging.ids(UPLOAD)? {
        // One that ends while it is being listed is left out.
        let Ok(file) = staging.open_file(&id, UPLOAD) else {
            continue;
        };
        let Ok((key, began_micros)) = sidecar::describe(&file) else {
            continue;
        };
        if key.as_str().starts_with(prefix) && staging.has(&name(&id, DATA)) {
            uploads.push((key, UploadId(id), began_micros));
        }
    }
    uploads.sort_by(|a, b| (&a.0, &a.1.0).cmp(&(&b.0, &b.1.0)));
    Ok(uploads)
}

impl Upload {
    fn load(staging: &Staging, id: &str) -> Result<Self, StoreError> {
        let file = staging.open_file(id, UPLOAD).map_err(gone)?;
        let sidecar = sidecar::read(&file).map_err(|_| StoreError::UploadNotFound)?;
        if !staging.has(&name(id, DATA)) {
            return Err(StoreError::UploadNotFound); // completed, and then the process died
        }
        let table = Table::of(sidecar.parts);
        Ok(Self {
            id: id.to_owned(),
            key: sidecar.key,
            table,
            over: RwLock::default(),
        })
    }

    /// Writes one part, durably. `ticket` orders calls for the same part: the highest wins.
    pub(super) fn put_part(
        &self,
        staging: &Staging,
        ticket: u64,
        number: u32,
        offset: u64,
        body: &[u8],
    ) -> Result<PartReceipt, StoreError> {
        if !(1..=limits::EXTENTS).contains(&(number as usize)) {
            return Err(StoreError::Protocol("part number out of range"));
        }
        let over = self.over.read().unwrap_or_else(PoisonError::into_inner);
        if *over {
            return Err(StoreError::UploadNotFound);
        }
        let part = Part {
            offset,
            length: body.len() as u64,
            crc: crc32c::crc32c(body),
        };
        match self.table.reserve(number, ticket, offset, part.length)? {
            Reservation::Superseded => {} // as if it had been written just before the one that replaces it
            Reservation::Mine { writing, replaces } => {
                self.write(staging, number, part, body, replaces)?;
                writing.done(part.crc);
            }
        }
        Ok(PartReceipt {
            number,
            etag: etag(part.crc),
            length: part.length,
        })
    }

    fn write(
        &self,
        staging: &Staging,
        number: u32,
        part: Part,
        body: &[u8],
        replaces: bool,
    ) -> Result<(), StoreError> {
        let notes = staging.open_file(&self.id, UPLOAD).map_err(gone)?;
        if replaces {
            // Before its bytes change, and durably: a crash must not leave the old receipt on a mixture.
            sidecar::note(&notes, number, None).map_err(from_io)?;
        }
        let data = staging.open_file(&self.id, DATA).map_err(gone)?;
        data.write_all_at(body, part.offset).map_err(from_io)?;
        // Here rather than once at completion: parts are synced while others still arrive, and a receipt outlives a crash.
        data.sync_data().map_err(from_io)?;
        sidecar::note(&notes, number, Some(part)).map_err(from_io)
    }

    fn complete(
        &self,
        staging: &Staging,
        directories: &Directories,
        receipts: &[PartReceipt],
    ) -> Result<(), StoreError> {
        let mut over = self.over.write().unwrap_or_else(PoisonError::into_inner);
        if *over {
            return Err(StoreError::UploadNotFound);
        }
        let length = self.table.adjoining(receipts)?;
        let data = staging.open_file(&self.id, DATA).map_err(gone)?;
        seal(&data, length)?;
        let placed = place::into(
            directories,
            staging,
            &name(&self.id, DATA),
            &self.key,
            Existing::Keep,
        );
        if let Err(PlaceError::Refused(error)) = placed {
            return Err(error);
        }
        *over = true;
        // Without its data the sidecar means nothing; the next start clears it if it stays.
        let _ = staging.remove(&self.id, UPLOAD);
        Ok(placed?)
    }

    fn abort(&self, staging: &Staging) -> Result<(), StoreError> {
        let mut over = self.over.write().unwrap_or_else(PoisonError::into_inner);
        if !*over {
            remove(staging, &self.id)?;
            *over = true;
            staging.sync()?;
        }
        Ok(())
    }
}

/// Gives the file its final length and today's date, durably.
fn seal(data: &File, length: u64) -> Result<(), StoreError> {
    if data.metadata().map_err(from_io)?.len() != length {
        data.set_len(length).map_err(from_io)?;
    }
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_NOW,
    };
    futimens(
        data,
        &Timestamps {
            last_access: now,
            last_modification: now,
        },
    )?;
    data.sync_all().map_err(from_io)
}

/// Data first: a sidecar without data is no upload.
fn remove(staging: &Staging, id: &str) -> Result<(), Errno> {
    staging.remove(id, DATA)?;
    staging.remove(id, UPLOAD)
}

/// Files of an upload that are missing: another process has ended it.
fn gone(errno: Errno) -> StoreError {
    if errno == Errno::NOENT {
        StoreError::UploadNotFound
    } else {
        errno.into()
    }
}

fn etag(crc: u32) -> String {
    format!("{crc:08x}")
}
