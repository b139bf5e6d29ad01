//! A store that is reached when it is first asked for something, and again until it was: the vault serves without it.

use std::{fmt, future::Future, pin::Pin, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::OnceCell;

use crate::blob::store::{
    BlobStore, ByteRange, Listing, ObjectBytes, ObjectInfo, ObjectKey, ObjectVersion, PartReceipt,
    StoreError, UploadId,
};

use super::AppError;

type Opening = Pin<Box<dyn Future<Output = Result<Arc<dyn BlobStore>, AppError>> + Send>>;

/// Any store, later.
pub(super) struct Late {
    open: Box<dyn Fn() -> Opening + Send + Sync>,
    opened: OnceCell<Arc<dyn BlobStore>>,
}

impl Late {
    pub(super) fn new(open: impl Fn() -> Opening + Send + Sync + 'static) -> Self {
        Self {
            open: Box::new(open),
            opened: OnceCell::new(),
        }
    }

    async fn store(&self) -> Result<&Arc<dyn BlobStore>, StoreError> {
        let opened = self.opened.get_or_try_init(|| (self.open)()).await;
        opened.map_err(|error| match error {
            AppError::Store(error) => error,
            error => StoreError::Unavailable(Box::new(error)),
        })
    }
}

impl fmt::Debug for Late {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Late")
            .field("opened", &self.opened.get())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl BlobStore for Late {
    fn kind(&self) -> &'static str {
        self.opened.get().map_or("other", |store| store.kind())
    }

    async fn put(&self, key: &ObjectKey, body: Bytes) -> Result<ObjectVersion, StoreError> {
        self.store().await?.put(key, body).await
    }

    async fn overwrite(&self, key: &ObjectKey, body: Bytes) -> Result<ObjectVersion, StoreError> {
        self.store().await?.overwrite(key, body).await
    }

    async fn begin(&self, key: &ObjectKey) -> Result<UploadId, StoreError> {
        self.store().await?.begin(key).await
    }

    async fn put_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: u32,
        offset: u64,
        body: Bytes,
    ) -> Result<PartReceipt, StoreError> {
        let store = self.store().await?;
        store.put_part(key, upload, number, offset, body).await
    }

    async fn complete(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        parts: &[PartReceipt],
    ) -> Result<ObjectVersion, StoreError> {
        self.store().await?.complete(key, upload, parts).await
    }

    async fn abort(&self, key: &ObjectKey, upload: &UploadId) -> Result<(), StoreError> {
        self.store().await?.abort(key, upload).await
    }

    async fn uploads(&self, prefix: &str) -> Result<Vec<(ObjectKey, UploadId, i64)>, StoreError> {
        self.store().await?.uploads(prefix).await
    }

    async fn get(&self, key: &ObjectKey, range: ByteRange) -> Result<ObjectBytes, StoreError> {
        self.store().await?.get(key, range).await
    }

    async fn head(&self, key: &ObjectKey) -> Result<ObjectInfo, StoreError> {
        self.store().await?.head(key).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.store().await?.delete(key).await
    }

    async fn list(
        &self,
        prefix: &str,
        delimited: bool,
        next: Option<&str>,
        limit: usize,
    ) -> Result<Listing, StoreError> {
        self.store().await?.list(prefix, delimited, next, limit).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::{blob::local::LocalStore, crypto::rng::SystemRng, domain::clock::SystemClock};

    #[tokio::test]
    async fn a_second_bucket_that_is_away_at_the_start_is_asked_again_and_then_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (root, asked) = (dir.path().to_owned(), Arc::new(AtomicU32::new(0)));
        let count = Arc::clone(&asked);
        let late = Late::new(move || {
            let (root, nth) = (root.clone(), count.fetch_add(1, Ordering::SeqCst));
            Box::pin(async move {
                if nth == 0 {
                    return Err(AppError::Store(StoreError::Denied("expired".into())));
                }
                let store = LocalStore::open(&root, Arc::new(SystemClock), Arc::new(SystemRng::new()));
                Ok(Arc::new(store.await?) as _)
            })
        });
        assert_eq!(asked.load(Ordering::SeqCst), 0, "nobody asked it for anything");
        let key = ObjectKey::parse("payloads/a").unwrap();
        let refused = late.put(&key, Bytes::from_static(b"sealed")).await.unwrap_err();
        assert!(matches!(refused, StoreError::Denied(_)), "{refused}");
        late.put(&key, Bytes::from_static(b"sealed")).await.unwrap();
        assert_eq!(late.head(&key).await.unwrap().length, 6);
        assert_eq!((asked.load(Ordering::SeqCst), late.kind()), (2, "local"));
    }
}
