//! A store in memory that fails at the call it is told to, before or after the call took effect.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;

use crate::blob::store::{
    BlobStore, ByteRange, Listing, ObjectBytes, ObjectInfo, ObjectKey, ObjectVersion, PartReceipt,
    StoreError, UploadId,
};

/// When a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failing {
    Before,
    After,
}

#[derive(Debug, Default)]
pub(super) struct TestStore {
    objects: Mutex<BTreeMap<String, Bytes>>,
    /// `put` replaces what exists, as a store without conditional writes does.
    pub(super) replaces: AtomicBool,
    /// It is a second store, where tiles are overwritten too.
    pub(super) of_copies: AtomicBool,
    calls: AtomicUsize,
    failing: Mutex<Option<(usize, Failing)>>,
}

impl TestStore {
    pub(super) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Fails the `call`th call from now, counting from 0, once.
    pub(super) fn fail_at(&self, call: usize, failing: Failing) {
        self.calls.store(0, Ordering::SeqCst);
        *self.failing.lock().unwrap() = Some((call, failing));
    }

    /// Fails no more; returns whether the failure was still to come.
    pub(super) fn calm(&self) -> bool {
        self.failing.lock().unwrap().take().is_some()
    }

    pub(super) fn snapshot(&self) -> BTreeMap<String, Bytes> {
        self.objects.lock().unwrap().clone()
    }

    pub(super) fn restore(&self, objects: BTreeMap<String, Bytes>) {
        *self.objects.lock().unwrap() = objects;
    }

    /// The attacker's hand: sets or removes an object below the log's prefix.
    pub(super) fn set(&self, path: &str, body: Option<Bytes>) {
        let key = format!("{}{path}", super::name().prefix());
        let mut objects = self.objects.lock().unwrap();
        match body {
            Some(body) => objects.insert(key, body),
            None => objects.remove(&key),
        };
    }

    /// Objects by their names below the log's prefix.
    pub(super) fn paths(&self) -> BTreeMap<String, Bytes> {
        let prefix = super::name().prefix();
        let strip = |(name, body): (String, Bytes)| (name.strip_prefix(&prefix).unwrap().to_owned(), body);
        self.snapshot().into_iter().map(strip).collect()
    }

    fn call<T>(
        &self,
        effect: impl FnOnce(&mut BTreeMap<String, Bytes>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        let failing = self
            .failing
            .lock()
            .unwrap()
            .take_if(|(at, _)| *at == call)
            .map(|(_, how)| how);
        let failed = || StoreError::Unavailable("told to fail".into());
        if failing == Some(Failing::Before) {
            return Err(failed());
        }
        let result = effect(&mut self.objects.lock().unwrap());
        if failing == Some(Failing::After) {
            Err(failed())
        } else {
            result
        }
    }
}

#[async_trait]
impl BlobStore for TestStore {
    async fn put(&self, key: &ObjectKey, body: Bytes) -> Result<ObjectVersion, StoreError> {
        let replaces = self.replaces.load(Ordering::SeqCst);
        self.call(|objects| {
            if !replaces && objects.contains_key(key.as_str()) {
                return Err(StoreError::AlreadyExists);
            }
            objects.insert(key.to_string(), body);
            Ok(ObjectVersion::default())
        })
    }

    async fn overwrite(&self, key: &ObjectKey, body: Bytes) -> Result<ObjectVersion, StoreError> {
        assert!(
            self.of_copies.load(Ordering::SeqCst) || key.as_str().ends_with("/checkpoint"),
            "only the checkpoint may be overwritten: {key}"
        );
        self.call(|objects| {
            objects.insert(key.to_string(), body);
            Ok(ObjectVersion::default())
        })
    }

    async fn begin(&self, _: &ObjectKey) -> Result<UploadId, StoreError> {
        unreachable!("a log has no multipart uploads")
    }

    async fn put_part(
        &self,
        _: &ObjectKey,
        _: &UploadId,
        _: u32,
        _: u64,
        _: Bytes,
    ) -> Result<PartReceipt, StoreError> {
        unreachable!("a log has no multipart uploads")
    }

    async fn complete(
        &self,
        _: &ObjectKey,
        _: &UploadId,
        _: &[PartReceipt],
    ) -> Result<ObjectVersion, StoreError> {
        unreachable!("a log has no multipart uploads")
    }

    async fn abort(&self, _: &ObjectKey, _: &UploadId) -> Result<(), StoreError> {
        unreachable!("a log has no multipart uploads")
    }

    async fn uploads(&self, _: &str) -> Result<Vec<(ObjectKey, UploadId, i64)>, StoreError> {
        unreachable!("a log has no multipart uploads")
    }

    async fn get(&self, key: &ObjectKey, range: ByteRange) -> Result<ObjectBytes, StoreError> {
        let ByteRange::Suffix { length } = range else {
            unreachable!("a log reads suffixes")
        };
        self.call(|objects| {
            let object = objects.get(key.as_str()).ok_or(StoreError::NotFound)?;
            let object_length = object.len() as u64;
            if object_length == 0 {
                return Err(StoreError::OutOfRange { object_length });
            }
            let bytes = object.slice(object.len().saturating_sub(length as usize)..);
            Ok(ObjectBytes { bytes, object_length })
        })
    }

    async fn head(&self, _: &ObjectKey) -> Result<ObjectInfo, StoreError> {
        unreachable!("a log needs no metadata")
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.call(|objects| {
            objects.remove(key.as_str());
            Ok(())
        })
    }

    /// In pages of at most three, so that callers must go on.
    async fn list(
        &self,
        prefix: &str,
        delimited: bool,
        next: Option<&str>,
        limit: usize,
    ) -> Result<Listing, StoreError> {
        let limit = if delimited { limit.min(3) } else { limit };
        self.call(|objects| {
            let mut listing = Listing::default();
            for (name, body) in objects.range(prefix.to_owned()..) {
                let Some(rest) = name.strip_prefix(prefix) else {
                    break;
                };
                let folded = rest
                    .find('/')
                    .filter(|_| delimited)
                    .map(|at| name[..=prefix.len() + at].to_owned());
                let shown = folded.clone().unwrap_or_else(|| name.clone());
                if next.is_some_and(|next| shown.as_str() <= next) || listing.prefixes.last() == Some(&shown)
                {
                    continue;
                }
                if listing.objects.len() + listing.prefixes.len() == limit {
                    let last = listing.prefixes.last().cloned();
                    listing.next = last.max(listing.objects.last().map(|object| object.key.to_string()));
                    break;
                }
                match folded {
                    Some(folded) => listing.prefixes.push(folded),
                    None => listing.objects.push(ObjectInfo {
                        key: ObjectKey::parse(name)?,
                        length: body.len() as u64,
                        modified_micros: 0,
                        version: ObjectVersion::default(),
                    }),
                }
            }
            Ok(listing)
        })
    }
}
