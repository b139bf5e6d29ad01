//! An object is kept in a second store as well, and seen to be there.

use bytes::Bytes;

use super::store::{BlobStore, ByteRange, ObjectKey, StoreError};

/// Why an object is not in the second store.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The store failed.
    #[error("the store of copies failed object={key}")]
    Store {
        /// Of which object.
        key: ObjectKey,
        /// How.
        source: StoreError,
    },
    /// It took the object, and gives something else.
    #[error("the store of copies does not give back what it took object={key}")]
    Differs {
        /// Which object.
        key: ObjectKey,
    },
}

/// Sees to it that `to` holds an object with these bytes. One that is there already is compared, and written only if it is
/// another; one that was written is read back. Returns whether it was written.
///
/// Cancel safe: the object is whole or not there.
///
/// # Errors
/// [`CopyError`]. The object may be there all the same.
pub async fn keep_copy(to: &dyn BlobStore, key: &ObjectKey, body: &Bytes) -> Result<bool, CopyError> {
    let failed = |source| CopyError::Store {
        key: key.clone(),
        source,
    };
    if holds(to, key, body).await.map_err(failed)? {
        return Ok(false);
    }
    to.overwrite(key, body.clone()).await.map_err(failed)?;
    if holds(to, key, body).await.map_err(failed)? {
        Ok(true)
    } else {
        Err(CopyError::Differs { key: key.clone() })
    }
}

/// Whether an object is there, with these bytes and no others. Never reads more than one byte beyond them.
async fn holds(store: &dyn BlobStore, key: &ObjectKey, body: &Bytes) -> Result<bool, StoreError> {
    let range = ByteRange::Suffix {
        length: body.len() as u64 + 1,
    };
    match store.get(key, range).await {
        Ok(found) => Ok(found.bytes == *body),
        Err(StoreError::NotFound | StoreError::OutOfRange { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        blob::local::LocalStore,
        crypto::rng::SystemRng,
        testing::{
            clock::TestClock,
            faulty::{Failure, FaultyStore, Operation},
        },
    };

    #[tokio::test]
    async fn a_copy_is_made_once_mended_and_never_taken_on_trust() {
        let dir = tempfile::tempdir().unwrap();
        let local = LocalStore::open(
            dir.path(),
            Arc::new(TestClock::default()),
            Arc::new(SystemRng::new()),
        );
        let (store, faults) = FaultyStore::new(local.await.unwrap());
        let key = ObjectKey::parse("payloads/a").unwrap();
        let body = Bytes::from_static(b"sealed");
        assert!(keep_copy(&store, &key, &body).await.unwrap());
        assert!(!keep_copy(&store, &key, &body).await.unwrap());
        assert_eq!(faults.calls(Operation::Overwrite), 1);
        // Another length, and the same one.
        for other in [&b"sealed and more"[..], b"healed"] {
            store.overwrite(&key, other.to_vec().into()).await.unwrap();
            assert!(keep_copy(&store, &key, &body).await.unwrap());
            assert!(!keep_copy(&store, &key, &body).await.unwrap());
        }
        faults.on(Operation::Get).always().flip(2);
        let lies = keep_copy(&store, &key, &body).await.unwrap_err();
        assert!(matches!(lies, CopyError::Differs { .. }), "{lies}");
        faults.clear();
        faults.take_down_with(Failure::Denied);
        let down = keep_copy(&store, &key, &body).await.unwrap_err();
        assert!(matches!(down, CopyError::Store { .. }), "{down}");
    }
}
