//! A bucket in memory: quick enough to be damaged thousands of times.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use async_trait::async_trait;
use bytes::Bytes;
use callvault::blob::store::{
    BlobStore, ByteRange, Listing, ObjectBytes, ObjectInfo, ObjectKey, ObjectVersion, PartReceipt,
    StoreError, UploadId,
};

/// Clones are the same bucket.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bucket(Arc<Mutex<State>>);

#[derive(Clone, Debug, Default)]
struct State {
    objects: BTreeMap<String, Bytes>,
    uploads: BTreeMap<String, (ObjectKey, BTreeMap<u32, Bytes>)>,
    begun: u64,
}

impl Bucket {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// A copy that goes its own way.
    pub(crate) fn snapshot(&self) -> Self {
        Self(Arc::new(Mutex::new(self.state().clone())))
    }

    pub(crate) fn objects(&self) -> BTreeMap<String, Bytes> {
        self.state().objects.clone()
    }

    pub(crate) fn set(&self, key: &str, body: impl Into<Bytes>) {
        self.state().objects.insert(key.to_owned(), body.into());
    }

    pub(crate) fn remove(&self, key: &str) -> Option<Bytes> {
        self.state().objects.remove(key)
    }
}

#[async_trait]
impl BlobStore for Bucket {
    async fn put(&self, key: &ObjectKey, body: Bytes) -> Result<ObjectVersion, StoreError> {
        if self.state().objects.contains_key(key.as_str()) {
            return Err(StoreError::AlreadyExists);
        }
        self.overwrite(key, body).await
    }

    async fn overwrite(&self, key: &ObjectKey, body: Bytes) -> Result<ObjectVersion, StoreError> {
        self.set(key.as_str(), Bytes::copy_from_slice(&body));
        Ok(ObjectVersion::default())
    }

    async fn begin(&self, key: &ObjectKey) -> Result<UploadId, StoreError> {
        let mut state = self.state();
        state.begun += 1;
        let id = state.begun.to_string();
        state.uploads.insert(id.clone(), (key.clone(), BTreeMap::new()));
        Ok(UploadId(id))
    }

    async fn put_part(
        &self,
        _: &ObjectKey,
        upload: &UploadId,
        number: u32,
        _: u64,
        body: Bytes,
    ) -> Result<PartReceipt, StoreError> {
        let mut state = self.state();
        let (_, parts) = state
            .uploads
            .get_mut(&upload.0)
            .ok_or(StoreError::UploadNotFound)?;
        let length = body.len() as u64;
        parts.insert(number, body);
        Ok(PartReceipt {
            number,
            etag: String::new(),
            length,
        })
    }

    async fn complete(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        _: &[PartReceipt],
    ) -> Result<ObjectVersion, StoreError> {
        let parts = self.state().uploads.remove(&upload.0);
        let (_, parts) = parts.ok_or(StoreError::UploadNotFound)?;
        let body: Vec<Bytes> = parts.into_values().collect();
        self.put(key, body.concat().into()).await
    }

    async fn abort(&self, _: &ObjectKey, upload: &UploadId) -> Result<(), StoreError> {
        self.state().uploads.remove(&upload.0);
        Ok(())
    }

    async fn uploads(&self, _: &str) -> Result<Vec<(ObjectKey, UploadId, i64)>, StoreError> {
        let uploads = &self.state().uploads;
        Ok(uploads
            .iter()
            .map(|(id, (key, _))| (key.clone(), UploadId(id.clone()), 0))
            .collect())
    }

    async fn get(&self, key: &ObjectKey, range: ByteRange) -> Result<ObjectBytes, StoreError> {
        let state = self.state();
        let body = state.objects.get(key.as_str()).ok_or(StoreError::NotFound)?;
        let (offset, length) = range.within(body.len() as u64)?;
        Ok(ObjectBytes {
            bytes: body.slice(offset as usize..(offset + length) as usize),
            object_length: body.len() as u64,
        })
    }

    async fn head(&self, key: &ObjectKey) -> Result<ObjectInfo, StoreError> {
        let state = self.state();
        let body = state.objects.get(key.as_str()).ok_or(StoreError::NotFound)?;
        Ok(info(key.clone(), body))
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.remove(key.as_str());
        Ok(())
    }

    async fn list(
        &self,
        prefix: &str,
        delimited: bool,
        next: Option<&str>,
        _: usize,
    ) -> Result<Listing, StoreError> {
        assert_eq!(next, None, "everything fits in one page here");
        let mut listing = Listing::default();
        for (key, body) in self
            .state()
            .objects
            .range(prefix.to_owned()..)
            .take_while(|(k, _)| k.starts_with(prefix))
        {
            let slash = key[prefix.len()..].find('/').filter(|_| delimited);
            match slash {
                Some(at) => listing.prefixes.push(key[..=prefix.len() + at].to_owned()),
                None => listing.objects.push(info(ObjectKey::parse(key)?, body)),
            }
        }
        listing.prefixes.dedup();
        Ok(listing)
    }
}

fn info(key: ObjectKey, body: &Bytes) -> ObjectInfo {
    ObjectInfo {
        key,
        length: body.len() as u64,
        modified_micros: 0,
        version: ObjectVersion::default(),
    }
}
