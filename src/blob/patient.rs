//! A store that always answers: every call ends in bounded time, and a read is tried again when its store is not there for a
//! moment or answers with a length that was not asked for.
//!
//! Writes are not repeated here: the caller's key is new, and [`StoreError::AlreadyExists`] would say nothing. Whether bytes of
//! the right length are the right bytes, only those who hold the key can tell.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;

use super::store::{
    BlobStore, ByteRange, Listing, ObjectBytes, ObjectInfo, ObjectKey, ObjectVersion, PartReceipt,
    StoreError, UploadId,
};
use crate::domain::limits;

/// How long to wait for a store, and how often to ask it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For one try of a read.
    pub read: Duration,
    /// For any other call.
    pub call: Duration,
    /// For a completion.
    pub complete: Duration,
    /// Tries of a read, the first among them; at least one.
    pub tries: u32,
    /// Before the second try; four times as long before each one after.
    pub pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            read: Duration::from_millis(limits::STORE_READ_MILLIS),
            call: Duration::from_millis(limits::STORE_CALL_MILLIS),
            complete: Duration::from_millis(limits::STORE_COMPLETE_MILLIS),
            tries: limits::STORE_READ_TRIES,
            pause: Duration::from_millis(50),
        }
    }
}

/// Any store, with patience and its end.
#[derive(Debug)]
pub struct Patient<S: ?Sized> {
    store: Arc<S>,
    patience: Patience,
}

impl<S: BlobStore + ?Sized> Patient<S> {
    /// Wraps a store.
    pub fn new(store: Arc<S>, patience: Patience) -> Self {
        Self { store, patience }
    }

    /// Reads, again while that may help.
    async fn read<T, Call>(&self, call: impl Fn() -> Call) -> Result<T, StoreError>
    where
        Call: Future<Output = Result<T, StoreError>>,
    {
        let mut pause = self.patience.pause;
        for _ in 1..self.patience.tries {
            match within(self.patience.read, call()).await {
                Err(error @ (StoreError::Unavailable(_) | StoreError::Protocol(_))) => {
                    tracing::debug!(%error, "a read from the store failed, trying again");
                }
                answered => return answered,
            }
            tokio::time::sleep(pause).await;
            pause *= 4;
        }
        within(self.patience.read, call()).await
    }
}

/// Ends a call that does not end.
async fn within<T>(
    longest: Duration,
    call: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    match tokio::time::timeout(longest, call).await {
        Ok(answered) => answered,
        Err(elapsed) => Err(StoreError::Unavailable(Box::new(elapsed))),
    }
}

/// Refuses an answer that is not as long as it was asked to be, or as it says itself.
fn of_its_length(range: ByteRange, read: ObjectBytes) -> Result<ObjectBytes, StoreError> {
    match range.within(read.object_length) {
        Ok((_, length)) if length == read.bytes.len() as u64 => Ok(read),
        _ => Err(StoreError::Protocol("a read of another length than asked for")),
    }
}

#[async_trait]
impl<S: BlobStore + ?Sized> BlobStore for Patient<S> {
    fn kind(&self) -> &'static str {
        self.store.kind()
    }

    async fn put(&self, key: &ObjectKey, body: Bytes) -> Result<ObjectVersion, StoreError> {
        within(self.patience.call, self.store.put(key, body)).await
    }

    async fn overwrite(&self, key: &ObjectKey, body: Bytes) -> Result<ObjectVersion, StoreError> {
        within(self.patience.call, self.store.overwrite(key, body)).await
    }

    async fn begin(&self, key: &ObjectKey) -> Result<UploadId, StoreError> {
        within(self.patience.call, self.store.begin(key)).await
    }

    async fn put_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: u32,
        offset: u64,
        body: Bytes,
    ) -> Result<PartReceipt, StoreError> {
        let call = self.store.put_part(key, upload, number, offset, body);
        within(self.patience.call, call).await
    }

    async fn complete(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        parts: &[PartReceipt],
    ) -> Result<ObjectVersion, StoreError> {
        within(self.patience.complete, self.store.complete(key, upload, parts)).await
    }

    async fn abort(&self, key: &ObjectKey, upload: &UploadId) -> Result<(), StoreError> {
        within(self.patience.call, self.store.abort(key, upload)).await
    }

    async fn uploads(&self, prefix: &str) -> Result<Vec<(ObjectKey, UploadId, i64)>, StoreError> {
        self.read(|| self.store.uploads(prefix)).await
    }

    async fn get(&self, key: &ObjectKey, range: ByteRange) -> Result<ObjectBytes, StoreError> {
        self.read(|| async move { of_its_length(range, self.store.get(key, range).await?) })
            .await
    }

    async fn head(&self, key: &ObjectKey) -> Result<ObjectInfo, StoreError> {
        self.read(|| self.store.head(key)).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        within(self.patience.call, self.store.delete(key)).await
    }

    async fn list(
        &self,
        prefix: &str,
        delimited: bool,
        next: Option<&str>,
        limit: usize,
    ) -> Result<Listing, StoreError> {
        self.read(|| self.store.list(prefix, delimited, next, limit))
            .await
    }
}

#[cfg(test)]
mod tests;
