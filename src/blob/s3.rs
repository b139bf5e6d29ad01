//! A bucket that speaks S3.
//!
//! Any endpoint, path or virtual-host style. Keys are unique, so nothing depends on conditional writes: a request that is
//! repeated because its answer was lost writes the same bytes under the same name. Parts are extents; a part's CRC-32C is ours,
//! and bodies are not signed over TLS: hashing every byte would cost more than all the rest of an upload.
//!
//! What a store lacks is found out once, at the opening (`probe`).

mod body;
mod part;
mod probe;
mod purge;
mod read;
mod refusal;
mod session;
mod settings;

use std::{path::PathBuf, sync::Arc};

use async_trait::async_trait;
use aws_sdk_s3::{
    config::timeout::TimeoutConfig,
    operation::head_object::HeadObjectOutput,
    primitives::{ByteStream, DateTime},
    types::{ChecksumAlgorithm, CompletedMultipartUpload},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;

pub use probe::{Abilities, Ability};
pub use settings::{Checksum, Patience, Settings};

use self::{refusal::Refusal, session::Session};
use super::store::{
    BlobStore, ByteRange, Listing, ObjectBytes, ObjectInfo, ObjectKey, ObjectVersion, PartReceipt,
    StoreError, UploadId,
};
use crate::domain::clock::{Clock, Rng};

/// Why a bucket cannot be used. Every text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The certificate authorities cannot be read.
    #[error("store.s3.ca_file holds no usable certificates; give it PEM of the endpoint's authority path={}: {why}", path.display())]
    Authorities {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The bucket does not do what a vault needs.
    #[error("the bucket cannot hold a vault: {what}; {advice}: {cause}")]
    Unusable {
        /// What failed.
        what: &'static str,
        /// What to do.
        advice: &'static str,
        /// What the store said.
        cause: String,
    },
}

/// A bucket.
#[derive(Debug)]
pub struct S3Store {
    settings: Arc<Settings>,
    session: Session,
    abilities: Abilities,
    tagging: Option<String>,
}

impl S3Store {
    /// Reaches a bucket and tries what it can do, below `probe/`, leaving nothing there.
    ///
    /// # Errors
    /// [`OpenError`] if it cannot be reached or lacks what a vault needs.
    pub async fn open(settings: Settings, clock: &dyn Clock, rng: &dyn Rng) -> Result<Self, OpenError> {
        let settings = Arc::new(settings);
        let session = Session::open(Arc::clone(&settings)).await?;
        let mut store = Self {
            tagging: settings.tagging(),
            settings,
            session,
            abilities: Abilities::default(),
        };
        store.probe(clock, rng).await?;
        Ok(store)
    }

    /// What the bucket can do.
    pub fn abilities(&self) -> &Abilities {
        &self.abilities
    }

    async fn write(&self, key: &ObjectKey, body: Bytes) -> Result<ObjectVersion, Refusal> {
        let crc32c = self.crc32c(&body);
        let answer = self
            .session
            .send("PutObject", |client| {
                let call = client
                    .put_object()
                    .bucket(&self.settings.bucket)
                    .key(key.as_str())
                    .body(self.outgoing(&body))
                    .set_checksum_crc32_c(crc32c.clone())
                    .set_tagging(self.tagging.clone())
                    .customize();
                match self.settings.in_plain() {
                    true => call.send(),
                    false => call.disable_payload_signing().send(),
                }
            })
            .await?;
        Ok(version(answer.version_id))
    }

    /// In plain, its digest is signed, so the SDK must have all of it at hand.
    fn outgoing(&self, bytes: &Bytes) -> ByteStream {
        match self.settings.in_plain() {
            true => ByteStream::from(bytes.clone()),
            false => body::in_pieces(bytes),
        }
    }

    fn crc32c(&self, body: &[u8]) -> Option<String> {
        (self.settings.checksum == Checksum::Crc32c)
            .then(|| STANDARD.encode(crc32c::crc32c(body).to_be_bytes()))
    }

    /// What is known of an object.
    ///
    /// The answer to HEAD has no body, so it cannot tell a missing object from a missing bucket: a GET says which.
    async fn look(&self, key: &ObjectKey) -> Result<ObjectInfo, StoreError> {
        let refusal = match self.ask(key).await {
            Ok(info) => return info,
            Err(refusal) if !refusal.is_mute() => return Err(refusal.into()),
            Err(refusal) => refusal,
        };
        let first = self
            .session
            .send("GetObject", |client| {
                client
                    .get_object()
                    .bucket(&self.settings.bucket)
                    .key(key.as_str())
                    .range("bytes=0-0")
                    .send()
            })
            .await;
        match first {
            // It is there by now; if it still cannot be looked at, the first refusal stands.
            Ok(_) => self.ask(key).await.map_err(|_| refusal)?,
            Err(said) if said.is_outside() => self.ask(key).await.map_err(|_| refusal)?,
            Err(said) => Err(said.into()),
        }
    }

    async fn ask(&self, key: &ObjectKey) -> Result<Result<ObjectInfo, StoreError>, Refusal> {
        let answer = self
            .session
            .send("HeadObject", |client| {
                client
                    .head_object()
                    .bucket(&self.settings.bucket)
                    .key(key.as_str())
                    .send()
            })
            .await?;
        Ok(info(key, answer))
    }
}

#[async_trait]
impl BlobStore for S3Store {
    fn kind(&self) -> &'static str {
        "s3"
    }

    async fn put(&self, key: &ObjectKey, body: Bytes) -> Result<ObjectVersion, StoreError> {
        Ok(self.write(key, body).await?)
    }

    async fn overwrite(&self, key: &ObjectKey, body: Bytes) -> Result<ObjectVersion, StoreError> {
        Ok(self.write(key, body).await?)
    }

    async fn begin(&self, key: &ObjectKey) -> Result<UploadId, StoreError> {
        // Named at the beginning, or the parts' checksums are refused.
        let algorithm = (self.settings.checksum == Checksum::Crc32c).then_some(ChecksumAlgorithm::Crc32C);
        let answer = self
            .session
            .send("CreateMultipartUpload", |client| {
                client
                    .create_multipart_upload()
                    .bucket(&self.settings.bucket)
                    .key(key.as_str())
                    .set_checksum_algorithm(algorithm.clone())
                    .set_tagging(self.tagging.clone())
                    .send()
            })
            .await?;
        let id = answer.upload_id.unwrap_or_default();
        if !is_upload_id(&id) {
            return Err(StoreError::Protocol("an upload without an id"));
        }
        Ok(UploadId(id))
    }

    async fn put_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: u32,
        _offset: u64,
        body: Bytes,
    ) -> Result<PartReceipt, StoreError> {
        if !is_upload_id(&upload.0) {
            return Err(StoreError::UploadNotFound);
        }
        let part_number = i32::try_from(number).map_err(|_| StoreError::Protocol("part number"))?;
        let crc32c = self.crc32c(&body);
        let answer = self
            .session
            .send("UploadPart", |client| {
                let call = client
                    .upload_part()
                    .bucket(&self.settings.bucket)
                    .key(key.as_str())
                    .upload_id(&upload.0)
                    .part_number(part_number)
                    .body(self.outgoing(&body))
                    .set_checksum_crc32_c(crc32c.clone())
                    .customize();
                match self.settings.in_plain() {
                    true => call.send(),
                    false => call.disable_payload_signing().send(),
                }
            })
            .await?;
        let etag = answer
            .e_tag
            .filter(|etag| !etag.is_empty())
            .ok_or(StoreError::Protocol("a part without a tag"))?;
        Ok(PartReceipt {
            number,
            etag: part::tag(&etag, crc32c.as_deref()),
            length: body.len() as u64,
        })
    }

    async fn complete(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        parts: &[PartReceipt],
    ) -> Result<ObjectVersion, StoreError> {
        if !is_upload_id(&upload.0) {
            return Err(StoreError::UploadNotFound);
        }
        if parts.is_empty() {
            return Err(StoreError::Protocol("no parts"));
        }
        let length: u64 = parts.iter().map(|part| part.length).sum();
        let parts = parts.iter().map(part::completed).collect::<Result<_, _>>()?;
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let patience = self.settings.patience;
        // The store may copy all of it before it answers.
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(patience.connect)
            .read_timeout(patience.completion())
            .operation_timeout(patience.completion())
            .build();
        let answer = self
            .session
            .send("CompleteMultipartUpload", |client| {
                client
                    .complete_multipart_upload()
                    .bucket(&self.settings.bucket)
                    .key(key.as_str())
                    .upload_id(&upload.0)
                    .multipart_upload(parts.clone())
                    .customize()
                    .config_override(aws_sdk_s3::config::Builder::new().timeout_config(timeouts.clone()))
                    .send()
            })
            .await;
        match answer {
            Ok(answer) => Ok(version(answer.version_id)),
            // The object itself says whether it was done.
            Err(refusal) if refusal.is_garbled() => match self.look(key).await {
                Ok(info) if info.length == length => Ok(info.version),
                _ => Err(refusal.into()),
            },
            Err(refusal) => Err(refusal.into()),
        }
    }

    async fn abort(&self, key: &ObjectKey, upload: &UploadId) -> Result<(), StoreError> {
        if !is_upload_id(&upload.0) {
            return Ok(());
        }
        let answer = self
            .session
            .send("AbortMultipartUpload", |client| {
                client
                    .abort_multipart_upload()
                    .bucket(&self.settings.bucket)
                    .key(key.as_str())
                    .upload_id(&upload.0)
                    .send()
            })
            .await;
        match answer.map_err(StoreError::from) {
            Ok(_) | Err(StoreError::UploadNotFound) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn uploads(&self, prefix: &str) -> Result<Vec<(ObjectKey, UploadId, i64)>, StoreError> {
        let mut uploads = Vec::new();
        let (mut after_key, mut after_upload) = (None::<String>, None::<String>);
        loop {
            let page = self
                .session
                .send("ListMultipartUploads", |client| {
                    client
                        .list_multipart_uploads()
                        .bucket(&self.settings.bucket)
                        .prefix(prefix)
                        .set_key_marker(after_key.clone())
                        .set_upload_id_marker(after_upload.clone())
                        .send()
                })
                .await?;
            for upload in page.uploads.unwrap_or_default() {
                let (Some(name), Some(id)) = (upload.key, upload.upload_id) else {
                    continue;
                };
                if let Some(key) = ours(&name, prefix) {
                    uploads.push((key, UploadId(id), upload.initiated.as_ref().map_or(0, micros)));
                }
            }
            if page.is_truncated != Some(true) {
                return Ok(uploads);
            }
            if page.next_key_marker.is_none() {
                return Err(StoreError::Protocol("a listing goes on nowhere"));
            }
            (after_key, after_upload) = (page.next_key_marker, page.next_upload_id_marker);
        }
    }

    async fn get(&self, key: &ObjectKey, range: ByteRange) -> Result<ObjectBytes, StoreError> {
        self.read(key, range).await
    }

    async fn head(&self, key: &ObjectKey) -> Result<ObjectInfo, StoreError> {
        self.look(key).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.purge(key).await
    }

    async fn list(
        &self,
        prefix: &str,
        delimited: bool,
        next: Option<&str>,
        limit: usize,
    ) -> Result<Listing, StoreError> {
        // No key begins so, and a store may take some of it for a path.
        if !prefix.bytes().all(is_key_byte) {
            return Ok(Listing::default());
        }
        let limit = i32::try_from(limit.clamp(1, 1_000)).unwrap_or(1_000);
        let page = self
            .session
            .send("ListObjectsV2", |client| {
                client
                    .list_objects_v2()
                    .bucket(&self.settings.bucket)
                    .prefix(prefix)
                    .set_delimiter(delimited.then(|| "/".to_owned()))
                    .set_continuation_token(next.map(str::to_owned))
                    .max_keys(limit)
                    .send()
            })
            .await?;
        let next = match page.is_truncated {
            Some(true) => Some(
                page.next_continuation_token
                    .ok_or(StoreError::Protocol("a listing goes on nowhere"))?,
            ),
            _ => None,
        };
        // What somebody else put here, under names that no vault gives, is passed over.
        let objects = page.contents.unwrap_or_default().into_iter();
        let prefixes = page.common_prefixes.unwrap_or_default().into_iter();
        Ok(Listing {
            objects: objects
                .filter_map(|object| {
                    let key = ours(object.key.as_deref()?, prefix)?;
                    Some(ObjectInfo {
                        key,
                        length: u64::try_from(object.size?).ok()?,
                        modified_micros: object.last_modified.as_ref().map_or(0, micros),
                        version: ObjectVersion::default(),
                    })
                })
                .collect(),
            prefixes: prefixes
                .filter_map(|folded| folded.prefix)
                .filter(|name| name.starts_with(prefix) && name.bytes().all(is_key_byte))
                .collect(),
            next,
        })
    }
}

fn info(key: &ObjectKey, answer: HeadObjectOutput) -> Result<ObjectInfo, StoreError> {
    let length = answer.content_length.and_then(|n| u64::try_from(n).ok());
    Ok(ObjectInfo {
        key: key.clone(),
        length: length.ok_or(StoreError::Protocol("an object without a length"))?,
        modified_micros: answer.last_modified.as_ref().map_or(0, micros),
        version: version(answer.version_id),
    })
}

/// A bucket whose versioning is off, or was, calls its versions `null`.
fn version(id: Option<String>) -> ObjectVersion {
    ObjectVersion(id.filter(|id| id != "null").unwrap_or_default())
}

/// Whole seconds: headers know no finer time, and listings must agree with them.
fn micros(time: &DateTime) -> i64 {
    time.secs().saturating_mul(1_000_000)
}

fn ours(name: &str, prefix: &str) -> Option<ObjectKey> {
    ObjectKey::parse(name).ok().filter(|_| name.starts_with(prefix))
}

fn is_key_byte(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"./_-".contains(&byte)
}

/// Ids come from the store, and through clients and files: what no store would give is not sent to one.
fn is_upload_id(id: &str) -> bool {
    (1..=1_024).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic())
}

#[cfg(test)]
pub(crate) mod tests;
