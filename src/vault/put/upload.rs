//! One object on its way to the store: a single put, or a multipart upload that is aborted unless it is finished.

use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinHandle;

use crate::blob::store::{BlobStore, ObjectKey, ObjectVersion, PartReceipt, StoreError, UploadId};

use super::super::{Error, Kind};

/// A multipart upload that is aborted unless it is finished.
#[derive(Debug)]
pub(in crate::vault) struct Upload {
    store: Arc<dyn BlobStore>,
    key: ObjectKey,
    id: Option<UploadId>,
}

impl Upload {
    /// An object of which nothing is stored yet.
    pub(in crate::vault) fn new(store: Arc<dyn BlobStore>, key: ObjectKey) -> Self {
        Self { store, key, id: None }
    }

    pub(super) async fn begin(&mut self) -> Result<UploadId, Error> {
        match &self.id {
            Some(id) => Ok(id.clone()),
            None => Ok(self
                .id
                .insert(Beginning::new(&self.store, &self.key).id().await?)
                .clone()),
        }
    }

    /// Stores the last part, or the only one, and makes the object visible.
    pub(in crate::vault) async fn finish(
        &mut self,
        number: u32,
        offset: u64,
        body: Bytes,
        mut receipts: Vec<PartReceipt>,
    ) -> Result<ObjectVersion, Error> {
        let length = offset + body.len() as u64;
        let done = match &self.id {
            None => self.store.put(&self.key, body).await,
            Some(id) => {
                receipts.push(self.store.put_part(&self.key, id, number, offset, body).await?);
                self.store.complete(&self.key, id, &receipts).await
            }
        };
        match done {
            Ok(version) => {
                self.id = None;
                Ok(version)
            }
            Err(error) => self.settle(error, length).await,
        }
    }

    /// The answer may have been lost on the way: the key is ours alone, so an object of the right length is what was written.
    async fn settle(&mut self, error: StoreError, length: u64) -> Result<ObjectVersion, Error> {
        match self.store.head(&self.key).await {
            Ok(info) if info.length == length => {
                self.id = None;
                Ok(info.version)
            }
            _ => Err(error.into()),
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let Some(id) = self.id.take() else { return };
        let (store, key) = (Arc::clone(&self.store), self.key.clone());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { abort(&*store, &key, &id).await });
        }
    }
}

/// An upload that the store has been asked for. Whoever goes away before its answer has it aborted when it comes: nobody else
/// knows its id.
struct Beginning {
    store: Arc<dyn BlobStore>,
    key: ObjectKey,
    asked: Option<JoinHandle<Result<UploadId, StoreError>>>,
}

impl Beginning {
    fn new(store: &Arc<dyn BlobStore>, key: &ObjectKey) -> Self {
        let asked = {
            let (store, key) = (Arc::clone(store), key.clone());
            tokio::spawn(async move { store.begin(&key).await })
        };
        Self {
            store: Arc::clone(store),
            key: key.clone(),
            asked: Some(asked),
        }
    }

    async fn id(mut self) -> Result<UploadId, Error> {
        let Some(asked) = &mut self.asked else {
            return Err(interrupted());
        };
        let answer = asked.await;
        self.asked = None;
        Ok(answer.map_err(|_| interrupted())??)
    }
}

impl Drop for Beginning {
    fn drop(&mut self) {
        let Some(asked) = self.asked.take() else { return };
        let (store, key) = (Arc::clone(&self.store), self.key.clone());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Ok(Ok(id)) = asked.await {
                    abort(&*store, &key, &id).await;
                }
            });
        }
    }
}

async fn abort(store: &dyn BlobStore, key: &ObjectKey, id: &UploadId) {
    if let Err(error) = store.abort(key, id).await {
        tracing::warn!(%error, "upload not aborted; the store's lifecycle rule removes it");
    }
}

fn interrupted() -> Error {
    Error::new(
        Kind::Unavailable,
        "STORE_UNAVAILABLE",
        "the upload was interrupted; try again",
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        blob::{
            local::LocalStore,
            s3::tests::{
                bucket::Ways,
                wire::{Answer, Request, Wire},
            },
        },
        testing::{clock::TestClock, rng::SeededRng},
    };

    #[tokio::test]
    async fn an_upload_whose_caller_goes_away_before_the_store_has_begun_it_is_aborted() {
        let dir = tempfile::tempdir().unwrap();
        let (clock, rng) = (Arc::new(TestClock::default()), Arc::new(SeededRng::new(1)));
        let local = LocalStore::open(dir.path(), clock, rng).await.unwrap();
        let store = Arc::new(local);
        let key = ObjectKey::parse("blobs/x").unwrap();
        let mut upload = Upload::new(Arc::clone(&store) as _, key);
        {
            let mut begun = Box::pin(upload.begin());
            assert!(
                futures_util::poll!(&mut begun).is_pending(),
                "asked, and not answered"
            );
        }
        drop(upload);
        tokio::time::sleep(Duration::from_millis(100)).await;
        for _ in 0..100 {
            if store.uploads("blobs/").await.unwrap().is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(store.uploads("blobs/").await.unwrap(), vec![]);
    }

    fn keeping_versions() -> Ways {
        Ways {
            versions: true,
            ..Ways::default()
        }
    }

    fn is_completion(request: &Request) -> bool {
        request.is("POST") && request.head.contains("?uploadId=")
    }

    #[tokio::test]
    async fn a_completion_whose_ack_was_lost_is_done_and_keeps_its_version() {
        let rule = |request: &Request, before| match is_completion(request) {
            true if before == 3 => Answer::Lose,
            _ => Answer::Forward,
        };
        let wire = Wire::new(keeping_versions(), rule).await;
        let (store, key) = (Arc::new(wire.store), ObjectKey::parse("blobs/x").unwrap());
        let mut upload = Upload::new(Arc::clone(&store) as _, key.clone());
        let id = upload.begin().await.unwrap();
        let first = Bytes::from(vec![1; 100_000]);
        let receipt = store.put_part(&key, &id, 1, 0, first).await.unwrap();
        let last = Bytes::from_static(b"the end");
        let version = upload.finish(2, 100_000, last, vec![receipt]).await.unwrap();
        let head = store.head(&key).await.unwrap();
        assert_eq!((head.length, &head.version), (100_007, &version));
        assert!(!version.0.is_empty());
        assert_eq!(wire.bucket.kept()["blobs/x"], 1);
    }

    #[tokio::test]
    async fn a_completion_that_fails_is_aborted() {
        let rule = |request: &Request, _: usize| match is_completion(request) {
            true => Answer::HangUp,
            _ => Answer::Forward,
        };
        let wire = Wire::new(keeping_versions(), rule).await;
        let (store, key) = (Arc::new(wire.store), ObjectKey::parse("blobs/x").unwrap());
        let mut upload = Upload::new(Arc::clone(&store) as _, key);
        upload.begin().await.unwrap();
        let refused = upload.finish(1, 0, Bytes::from_static(b"all"), Vec::new()).await;
        assert!(refused.is_err());
        drop(upload);
        for _ in 0..100 {
            if wire.bucket.uploads_under_way() == 0 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        assert_eq!(wire.bucket.uploads_under_way(), 0);
        assert!(wire.bucket.kept().is_empty());
    }
}
