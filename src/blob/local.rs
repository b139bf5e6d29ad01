//! A store in a directory, with the semantics of S3 as far as callers can see.
//!
//! ```text
//! <root>/objects/<key>           an object; directories come and go with the objects in them
//! <root>/staging/<id>.put        the body of a put that is under way
//! <root>/staging/<id>.upload     an upload: its key, when it began, its parts (see `sidecar`)
//! <root>/staging/<id>.data       its parts, each at its offset
//! <root>/lock                    locked shared by every process that has the store open
//! ```
//!
//! An object is written aside, synced, and renamed into place, and the directory is synced before the call returns: it
//! appears whole or not at all, and stays. A crash leaves at most files in `staging`.
//!
//! The directory may be read by other processes while one writes to it; two must not write to it at a time.

mod directories;
mod error;
mod list;
mod place;
mod read;
mod sidecar;
mod staging;
#[cfg(test)]
mod tests;
mod upload;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use bytes::Bytes;
use rustix::fs::{CWD, Mode, OFlags};

use self::{
    directories::Directories,
    error::{from_io, unavailable},
    place::Existing,
    staging::Staging,
    upload::Uploads,
};
use super::store::{
    BlobStore, ByteRange, Listing, ObjectBytes, ObjectInfo, ObjectKey, ObjectVersion, PartReceipt,
    StoreError, UploadId,
};
use crate::domain::clock::{Clock, Rng};

/// A directory as an object store. Versions are empty; etags are the CRC-32C of the part in hex.
///
/// Uploads and their parts survive a restart. Keys must fit the file system: it may refuse what is longer than its own
/// limits with [`StoreError::InvalidKey`].
///
/// A call whose future is dropped runs to its end all the same: file work is done on the blocking threads.
#[derive(Clone)]
pub struct LocalStore {
    root: PathBuf,
    inner: Arc<Inner>,
}

/// What the blocking threads work with.
struct Inner {
    directories: Directories,
    staging: Staging,
    uploads: Uploads,
    clock: Arc<dyn Clock>,
}

impl LocalStore {
    /// Opens the store in `root`, which is created if need be, and clears away what a crash left of unfinished puts.
    /// Unfinished uploads stay until they are aborted.
    ///
    /// `clock` dates uploads; `rng` names staging files.
    ///
    /// # Errors
    /// [`StoreError::Denied`], [`StoreError::Full`] or [`StoreError::Unavailable`] as the file system says.
    pub async fn open(root: &Path, clock: Arc<dyn Clock>, rng: Arc<dyn Rng>) -> Result<Self, StoreError> {
        let path = root.to_owned();
        let inner = blocking(move || Inner::open(&path, clock, rng)).await?;
        Ok(Self {
            root: root.to_owned(),
            inner: Arc::new(inner),
        })
    }

    /// Does file work on a thread that may block.
    async fn run<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static,
    {
        let inner = Arc::clone(&self.inner);
        blocking(move || work(&inner)).await
    }
}

impl Inner {
    fn open(root: &Path, clock: Arc<dyn Clock>, rng: Arc<dyn Rng>) -> Result<Self, StoreError> {
        std::fs::create_dir_all(root).map_err(from_io)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, root, flags, Mode::empty())?;
        let staging = Staging::open(&root, rng)?;
        let directories = Directories::open(&root)?;
        rustix::fs::fsync(&root)?;
        Ok(Self {
            directories,
            staging,
            uploads: Uploads::default(),
            clock,
        })
    }

    fn write(&self, key: &ObjectKey, body: &[u8], existing: Existing) -> Result<ObjectVersion, StoreError> {
        let staged = self.staging.write(body)?;
        place::into(&self.directories, &self.staging, staged.name(), key, existing)?;
        Ok(ObjectVersion::default())
    }
}

impl fmt::Debug for LocalStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalStore")
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl BlobStore for LocalStore {
    fn kind(&self) -> &'static str {
        "local"
    }

    async fn put(&self, key: &ObjectKey, body: Bytes) -> Result<ObjectVersion, StoreError> {
        let key = key.clone();
        self.run(move |store| store.write(&key, &body, Existing::Keep))
            .await
    }

    async fn overwrite(&self, key: &ObjectKey, body: Bytes) -> Result<ObjectVersion, StoreError> {
        let key = key.clone();
        self.run(move |store| store.write(&key, &body, Existing::Replace))
            .await
    }

    async fn begin(&self, key: &ObjectKey) -> Result<UploadId, StoreError> {
        let key = key.clone();
        self.run(move |store| store.uploads.begin(&store.staging, &key, store.clock.now()))
            .await
    }

    async fn put_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: u32,
        offset: u64,
        body: Bytes,
    ) -> Result<PartReceipt, StoreError> {
        // Taken here, not on the blocking thread: calls count in the order in which they were made.
        let ticket = self.inner.uploads.ticket();
        let (key, upload) = (key.clone(), upload.clone());
        self.run(move |store| {
            let upload = store.uploads.find(&store.staging, &key, &upload)?;
            upload.put_part(&store.staging, ticket, number, offset, &body)
        })
        .await
    }

    async fn complete(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        parts: &[PartReceipt],
    ) -> Result<ObjectVersion, StoreError> {
        let (key, upload, parts) = (key.clone(), upload.clone(), parts.to_vec());
        self.run(move |store| {
            store
                .uploads
                .complete(&store.staging, &store.directories, &key, &upload, &parts)?;
            Ok(ObjectVersion::default())
        })
        .await
    }

    async fn abort(&self, key: &ObjectKey, upload: &UploadId) -> Result<(), StoreError> {
        let (key, upload) = (key.clone(), upload.clone());
        self.run(move |store| store.uploads.abort(&store.staging, &key, &upload))
            .await
    }

    async fn uploads(&self, prefix: &str) -> Result<Vec<(ObjectKey, UploadId, i64)>, StoreError> {
        let prefix = prefix.to_owned();
        self.run(move |store| upload::list(&store.staging, &prefix)).await
    }

    async fn get(&self, key: &ObjectKey, range: ByteRange) -> Result<ObjectBytes, StoreError> {
        let key = key.clone();
        self.run(move |store| read::get(&store.directories, &key, range))
            .await
    }

    async fn head(&self, key: &ObjectKey) -> Result<ObjectInfo, StoreError> {
        let key = key.clone();
        self.run(move |store| read::head(&store.directories, &key)).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        let key = key.clone();
        self.run(move |store| place::remove(&store.directories, &key))
            .await
    }

    async fn list(
        &self,
        prefix: &str,
        delimited: bool,
        next: Option<&str>,
        limit: usize,
    ) -> Result<Listing, StoreError> {
        let (prefix, next) = (prefix.to_owned(), next.unwrap_or_default().to_owned());
        self.run(move |store| list::list(&store.directories, &prefix, delimited, &next, limit))
            .await
    }
}

/// Runs `work` on a thread that may block.
async fn blocking<T, F>(work: F) -> Result<T, StoreError>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, StoreError> + Send + 'static,
{
    tokio::task::spawn_blocking(work).await.map_err(unavailable)?
}
