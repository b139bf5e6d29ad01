//! What the vault asks of an object store, and nothing more.
//!
//! The semantics are those of S3 as far as a caller can see: an object appears whole or not at all, a completed write is
//! durable and visible at once to reads and listings, and a multipart upload is invisible until it is completed.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;

/// Name of an object: 1 to 512 bytes of `[a-z0-9./_-]`, segments between `/` of 1 to 255 bytes, neither `.` nor `..`.
///
/// No object may be named like the beginning of another's segments (`a` beside `a/b`): a directory cannot hold both.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey(String);

impl ObjectKey {
    /// Parses an object's name.
    ///
    /// # Errors
    /// [`StoreError::InvalidKey`] unless `text` follows the rule above.
    pub fn parse(text: &str) -> Result<Self, StoreError> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"./_-".contains(&b);
        let segment = |s: &str| (1..=255).contains(&s.len()) && s != "." && s != "..";
        if text.len() > 512 || !text.bytes().all(plain) || !text.split('/').all(segment) {
            return Err(StoreError::InvalidKey);
        }
        Ok(Self(text.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Version that a store gave an object; empty where it keeps none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ObjectVersion(pub String);

/// A multipart upload under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UploadId(pub String);

/// What a store says of one part, to be handed back at completion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartReceipt {
    /// Counts from 1.
    pub number: u32,
    /// The store's tag of the part.
    pub etag: String,
    /// Bytes of the part.
    pub length: u64,
}

/// What a store knows of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// The object's name.
    pub key: ObjectKey,
    /// Its size in bytes.
    pub length: u64,
    /// When it became visible, microseconds since the Unix epoch, by the store's clock.
    pub modified_micros: i64,
    /// Which version it is: told by `head` where the store keeps versions, never by a listing.
    pub version: ObjectVersion,
}

/// Which bytes of an object to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteRange {
    /// The whole object.
    Full,
    /// `length` bytes from `offset`; all of them must exist.
    Exact {
        /// First byte.
        offset: u64,
        /// Number of bytes, at least 1.
        length: u64,
    },
    /// The last `length` bytes, or the whole object when it is shorter.
    Suffix {
        /// Number of bytes, at least 1.
        length: u64,
    },
}

impl ByteRange {
    /// First byte and number of bytes within an object of `object_length` bytes.
    ///
    /// # Errors
    /// [`StoreError::OutOfRange`] if not all of an exact range exists, or if no byte is asked for.
    pub fn within(self, object_length: u64) -> Result<(u64, u64), StoreError> {
        let outside = StoreError::OutOfRange { object_length };
        match self {
            Self::Full => Ok((0, object_length)),
            Self::Exact { length: 0, .. } | Self::Suffix { length: 0 } => Err(outside),
            Self::Exact { offset, length } => match offset.checked_add(length) {
                Some(end) if end <= object_length => Ok((offset, length)),
                _ => Err(outside),
            },
            Self::Suffix { length } => {
                let length = length.min(object_length);
                Ok((object_length - length, length))
            }
        }
    }
}

/// Bytes of an object.
#[derive(Clone, Debug)]
pub struct ObjectBytes {
    /// The bytes asked for.
    pub bytes: Bytes,
    /// Size of the whole object.
    pub object_length: u64,
}

/// One page of a listing.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// In ascending order of their names' bytes.
    pub objects: Vec<ObjectInfo>,
    /// With a delimiter: names up to and including the next `/`, each once, ascending.
    pub prefixes: Vec<String>,
    /// Pass to the next call; `None` at the end.
    pub next: Option<String>,
}

/// Why a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no such object.
    #[error("object not found")]
    NotFound,
    /// There is no such upload: completed, aborted or never begun.
    #[error("upload not found")]
    UploadNotFound,
    /// The object exists already and the call would have replaced it.
    #[error("object exists already")]
    AlreadyExists,
    /// The range does not lie within the object.
    #[error("range not satisfiable object_length={object_length}")]
    OutOfRange {
        /// Size of the whole object.
        object_length: u64,
    },
    /// The name cannot be an object's.
    #[error("invalid object key")]
    InvalidKey,
    /// The store has no room.
    #[error("store is full")]
    Full,
    /// The store answered something that cannot be.
    #[error("store answered wrongly what={0}")]
    Protocol(&'static str),
    /// The store cannot be asked now; the call may or may not have taken effect. Retryable.
    #[error("store unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The store refuses these credentials or this call. Retryable once somebody has given it others.
    #[error("store refused access")]
    Denied(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// An object store.
///
/// Every call is cancel safe in the sense of S3: a dropped future may or may not have taken effect, never half. A call may take
/// as long as the store does; [`Patient`](super::patient::Patient) ends it.
#[async_trait]
pub trait BlobStore: Send + Sync + fmt::Debug {
    /// Its kind, as certificates name it: "s3", "local".
    fn kind(&self) -> &'static str {
        "other"
    }

    /// Writes one object and returns when it is durable. Nothing is overwritten: the key must be new.
    ///
    /// # Errors
    /// [`StoreError::AlreadyExists`] where the store can tell; callers use unique keys and never depend on it.
    async fn put(&self, key: &ObjectKey, body: Bytes) -> Result<ObjectVersion, StoreError>;

    /// Writes an object whether or not it exists. Only checkpoints, claims and content-named payloads are written so.
    async fn overwrite(&self, key: &ObjectKey, body: Bytes) -> Result<ObjectVersion, StoreError>;

    /// Begins a multipart upload. Nothing is visible until it is completed.
    async fn begin(&self, key: &ObjectKey) -> Result<UploadId, StoreError>;

    /// Writes part `number` (1 to 10,000), which will lie at `offset` of the object, and returns when it is durable. Parts
    /// may arrive in any order and in parallel; one that is written again replaces the one before.
    ///
    /// # Errors
    /// [`StoreError::UploadNotFound`] if the upload is gone; [`StoreError::Protocol`], where the store can tell, if parts of
    /// ascending numbers would not lie at ascending offsets, side by side.
    async fn put_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: u32,
        offset: u64,
        body: Bytes,
    ) -> Result<PartReceipt, StoreError>;

    /// Makes the object of these parts, in this order, and returns when it is durable and visible.
    ///
    /// # Errors
    /// [`StoreError::UploadNotFound`] if the upload is gone, perhaps because it was completed before (look for the object);
    /// [`StoreError::AlreadyExists`] where the store can tell; [`StoreError::Protocol`] if there are no parts, if parts are
    /// missing or differ from their receipts, or if they do not adjoin. The upload stays until it is aborted.
    async fn complete(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        parts: &[PartReceipt],
    ) -> Result<ObjectVersion, StoreError>;

    /// Forgets an upload and its parts. An unknown upload is no error.
    async fn abort(&self, key: &ObjectKey, upload: &UploadId) -> Result<(), StoreError>;

    /// Uploads under way whose keys begin with `prefix`, with the time they began (microseconds since the epoch).
    async fn uploads(&self, prefix: &str) -> Result<Vec<(ObjectKey, UploadId, i64)>, StoreError>;

    /// Reads bytes of an object.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::OutOfRange`] when not all of an exact range exists.
    async fn get(&self, key: &ObjectKey, range: ByteRange) -> Result<ObjectBytes, StoreError>;

    /// What the store knows of an object.
    async fn head(&self, key: &ObjectKey) -> Result<ObjectInfo, StoreError>;

    /// Removes an object, every version of it. A missing object is no error.
    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError>;

    /// Lists up to `limit` (1..=1000) objects whose names begin with `prefix`, from `next` of the page before.
    /// With `delimited`, names that have a `/` after the prefix are folded into [`Listing::prefixes`].
    async fn list(
        &self,
        prefix: &str,
        delimited: bool,
        next: Option<&str>,
        limit: usize,
    ) -> Result<Listing, StoreError>;
}
