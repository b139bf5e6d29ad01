//! The bare parts of an upload and a read: tonic, one seal with ring for every 8 MiB, the SDK as the vault sets it up. No keys of
//! records, no index, no log, no budget; as many parts on their way as the vault has.

use std::{
    collections::{BTreeMap, VecDeque},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use callvault::{
    blob::{
        s3::{Checksum, Patience, S3Store, Settings},
        store::{BlobStore, ByteRange, ObjectKey, PartReceipt, UploadId},
    },
    crypto::rng::SystemRng,
    domain::clock::SystemClock,
    server::pki::DevPki,
};
use futures_util::{StreamExt, stream};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use tokio::task::JoinHandle;
use tonic::{Status, async_trait};

use super::{
    Failure, MIB,
    bare::{Chunks, Mirror, READ_CHUNK},
    place::{self, BUCKET},
};

/// Bytes that are sealed and sent at once.
const PART: usize = 8 * MIB as usize;
const TAG: usize = 16;
/// Parts under way while the next is filled, and read ahead while one is sent.
const AHEAD: usize = 2;

pub(crate) struct Parts {
    store: Arc<S3Store>,
    key: Arc<LessSafeKey>,
    objects: AtomicU64,
}

impl Parts {
    pub(crate) async fn open(home: &Path, bucket: &str) -> Result<Self, Failure> {
        let settings = Settings {
            bucket: BUCKET.to_owned(),
            region: "us-east-1".to_owned(),
            endpoint: Some(format!("https://{bucket}")),
            path_style: true,
            ca_file: Some(DevPki::open(home, &SystemClock)?.authority()),
            profile: None,
            credentials_file: Some(place::credentials_file(home)),
            checksum: Checksum::Crc32c,
            tags: BTreeMap::new(),
            patience: Patience {
                attempts: 4,
                backoff: Duration::from_millis(200),
                connect: Duration::from_secs(5),
                read: Duration::from_secs(30),
                operation: Duration::from_secs(120),
            },
        };
        let store = S3Store::open(settings, &SystemClock, &SystemRng::new()).await?;
        let key = UnboundKey::new(&AES_256_GCM, &[7; 32]).map_err(|_| "a key")?;
        Ok(Self {
            store: Arc::new(store),
            key: Arc::new(LessSafeKey::new(key)),
            objects: AtomicU64::new(0),
        })
    }
}

#[async_trait]
impl Mirror for Parts {
    async fn take(&self, mut content: Chunks) -> Result<String, Status> {
        let name = format!("parts/{}", self.objects.fetch_add(1, Ordering::Relaxed));
        let object = ObjectKey::parse(&name).map_err(failed)?;
        let upload = self.store.begin(&object).await.map_err(failed)?;
        let mut sending = Sending {
            parts: self,
            object: &object,
            upload: &upload,
            under_way: VecDeque::new(),
            receipts: Vec::new(),
            number: 0,
        };
        let mut part = BytesMut::with_capacity(PART + TAG);
        while let Some(mut chunk) = content.next().await.transpose()? {
            while !chunk.is_empty() {
                let take = chunk.len().min(PART - part.len());
                part.extend_from_slice(&chunk.split_to(take));
                if part.len() == PART {
                    let full = std::mem::replace(&mut part, BytesMut::with_capacity(PART + TAG));
                    sending.send(full).await?;
                }
            }
        }
        if !part.is_empty() {
            sending.send(part).await?;
        }
        let receipts = sending.finish().await?;
        self.store
            .complete(&object, &upload, &receipts)
            .await
            .map_err(failed)?;
        Ok(name)
    }

    fn give(&self, name: String, length: usize) -> Chunks {
        let (store, key) = (Arc::clone(&self.store), Arc::clone(&self.key));
        let parts = (0..length).step_by(PART).enumerate().map(move |(number, at)| {
            let (store, key, name) = (Arc::clone(&store), Arc::clone(&key), name.clone());
            let sealed = PART.min(length - at) + TAG;
            tokio::spawn(async move {
                let range = ByteRange::Exact {
                    offset: (number * (PART + TAG)) as u64,
                    length: sealed as u64,
                };
                let object = ObjectKey::parse(&name).map_err(failed)?;
                let read = store.get(&object, range).await.map_err(failed)?;
                tokio::task::spawn_blocking(move || open(&key, number, read.bytes))
                    .await
                    .map_err(failed)?
            })
        });
        let parts = stream::iter(parts).buffered(AHEAD);
        Box::pin(parts.flat_map(|part| {
            let chunks: Vec<Result<Bytes, Status>> = match part.map_err(failed).and_then(|part| part) {
                Ok(part) => chunks(part).map(Ok).collect(),
                Err(status) => vec![Err(status)],
            };
            stream::iter(chunks)
        }))
    }
}

/// One upload under way.
struct Sending<'a> {
    parts: &'a Parts,
    object: &'a ObjectKey,
    upload: &'a UploadId,
    under_way: VecDeque<JoinHandle<Result<PartReceipt, Status>>>,
    receipts: Vec<PartReceipt>,
    number: u32,
}

impl Sending<'_> {
    async fn send(&mut self, mut part: BytesMut) -> Result<(), Status> {
        if self.under_way.len() == AHEAD {
            self.collect().await?;
        }
        let (store, key) = (Arc::clone(&self.parts.store), Arc::clone(&self.parts.key));
        let (object, upload, number) = (self.object.clone(), self.upload.clone(), self.number);
        self.number += 1;
        self.under_way.push_back(tokio::spawn(async move {
            let sealed = tokio::task::spawn_blocking(move || {
                key.seal_in_place_append_tag(nonce(number as usize), Aad::empty(), &mut part)
                    .map(|()| part.freeze())
            });
            let sealed = sealed
                .await
                .map_err(failed)?
                .map_err(|_| Status::internal("seal"))?;
            let offset = u64::from(number) * (PART + TAG) as u64;
            store
                .put_part(&object, &upload, number + 1, offset, sealed)
                .await
                .map_err(failed)
        }));
        Ok(())
    }

    async fn collect(&mut self) -> Result<(), Status> {
        if let Some(oldest) = self.under_way.pop_front() {
            self.receipts.push(oldest.await.map_err(failed)??);
        }
        Ok(())
    }

    async fn finish(mut self) -> Result<Vec<PartReceipt>, Status> {
        while !self.under_way.is_empty() {
            self.collect().await?;
        }
        Ok(self.receipts)
    }
}

fn open(key: &LessSafeKey, number: usize, sealed: Bytes) -> Result<Bytes, Status> {
    let mut sealed = sealed
        .try_into_mut()
        .unwrap_or_else(|shared| BytesMut::from(&shared[..]));
    key.open_in_place(nonce(number), Aad::empty(), &mut sealed)
        .map_err(|_| Status::data_loss("open"))?;
    let length = sealed.len() - TAG;
    Ok(sealed.freeze().slice(..length))
}

fn chunks(part: Bytes) -> impl Iterator<Item = Bytes> {
    let ends = (0..part.len()).step_by(READ_CHUNK);
    ends.map(move |at| part.slice(at..part.len().min(at + READ_CHUNK)))
}

/// One key and one number for many parts: nothing that this seals is a secret.
fn nonce(number: usize) -> Nonce {
    let mut nonce = [0; 12];
    nonce[..8].copy_from_slice(&(number as u64).to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

fn failed(error: impl std::fmt::Display) -> Status {
    Status::internal(error.to_string())
}
