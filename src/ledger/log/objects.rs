//! A log's objects: their names, bounded reads, and writes that never replace anything but the checkpoint.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::{
    FollowError, LogError, LogName,
    bundle::{self, BUNDLE_BYTES, WIDTH},
};
use crate::blob::{
    copy::keep_copy,
    store::{BlobStore, ByteRange, ObjectKey, StoreError},
};

/// Bytes of a hash.
pub(super) const HASH_BYTES: usize = 32;
/// Longer than any checkpoint, with room for cosignatures.
const CHECKPOINT_BYTES: usize = 64 << 10;
/// Objects written or removed at a time.
const PARALLEL: usize = 16;

/// What a tile holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// Entries.
    Entries,
    /// Hashes of this level, 0 being the leaves'.
    Hashes(u8),
}

/// A tile's place in the tree; with its width, its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct TileName {
    /// What it holds.
    pub kind: Kind,
    /// Counts from 0 within its kind.
    pub index: u64,
    /// Entries or hashes in it, 1..=256; fewer than 256 make it a partial tile.
    pub width: u64,
}

impl TileName {
    /// The bundle that holds `position` in a log of `size` entries, `position < size`.
    pub(super) fn bundle(position: u64, size: u64) -> Self {
        let index = position / WIDTH;
        Self {
            kind: Kind::Entries,
            index,
            width: WIDTH.min(size - index * WIDTH),
        }
    }

    /// The tile that this one becomes when nothing is missing.
    pub(super) fn full(self) -> Self {
        Self { width: WIDTH, ..self }
    }

    /// The bundle of the leaves that `self`, of level 0, has hashes of.
    pub(super) fn entries(self) -> Self {
        Self {
            kind: Kind::Entries,
            ..self
        }
    }

    /// Level of a hash tile; 0 for entries.
    pub(super) fn level(self) -> usize {
        match self.kind {
            Kind::Entries => 0,
            Kind::Hashes(level) => usize::from(level),
        }
    }

    /// Position after the last leaf under it.
    pub(super) fn end(self) -> u64 {
        (self.index * WIDTH + self.width) << (8 * self.level())
    }

    /// Its name below the log's.
    pub(super) fn path(self) -> String {
        match self.width {
            WIDTH => self.stem(),
            width => format!("{}{width}", self.partials()),
        }
    }

    /// What the names of its partial tiles begin with.
    fn partials(self) -> String {
        format!("{}.p/", self.stem())
    }

    fn stem(self) -> String {
        let kind = match self.kind {
            Kind::Entries => "entries".to_owned(),
            Kind::Hashes(level) => level.to_string(),
        };
        let mut number = format!("{:03}", self.index % 1000);
        let mut rest = self.index / 1000;
        while rest > 0 {
            number = format!("x{:03}/{number}", rest % 1000);
            rest /= 1000;
        }
        format!("tile/{kind}/{number}")
    }
}

/// The objects of one log.
#[derive(Clone, Debug)]
pub(super) struct Objects {
    store: Arc<dyn BlobStore>,
    prefix: String,
}

impl Objects {
    pub(super) fn new(store: Arc<dyn BlobStore>, name: &LogName) -> Self {
        Self {
            store,
            prefix: name.prefix(),
        }
    }

    /// The checkpoint, if there is one.
    pub(super) async fn checkpoint(&self) -> Result<Option<Bytes>, LogError> {
        self.read("checkpoint", CHECKPOINT_BYTES).await
    }

    /// Replaces the checkpoint; it is durable when this returns.
    pub(super) async fn put_checkpoint(&self, body: Bytes) -> Result<(), LogError> {
        self.store.overwrite(&self.key("checkpoint")?, body).await?;
        Ok(())
    }

    /// Bytes of a hash tile, exactly as many as its width asks for; not yet authenticated.
    pub(super) async fn hashes(&self, tile: TileName) -> Result<Bytes, LogError> {
        let (mut bytes, whole) = self.tile(tile, HASH_BYTES * WIDTH as usize).await?;
        let length = HASH_BYTES * tile.width as usize;
        if bytes.len() < length || (whole && bytes.len() > length) {
            return Err(LogError::Corrupt {
                what: "hash tile length",
            });
        }
        bytes.truncate(length);
        Ok(bytes)
    }

    /// Entries of a bundle, exactly as many as its width asks for; not yet authenticated.
    pub(super) async fn entries(&self, tile: TileName) -> Result<Vec<Bytes>, LogError> {
        let (bytes, whole) = self.tile(tile, BUNDLE_BYTES).await?;
        let (entries, rest) = bundle::split(bytes, tile.width as usize)?;
        if whole && !rest.is_empty() {
            return Err(LogError::Corrupt {
                what: "entry bundle is long",
            });
        }
        Ok(entries)
    }

    /// Writes tiles, several at a time; all are durable when this returns.
    ///
    /// # Errors
    /// [`LogError::Forked`] if one exists with other content.
    pub(super) async fn put_tiles(&self, tiles: Vec<(TileName, Bytes)>) -> Result<(), LogError> {
        let puts: Vec<_> = tiles
            .into_iter()
            .map(|(name, body)| self.put_tile(name, body))
            .collect();
        stream::iter(puts).buffer_unordered(PARALLEL).try_collect().await
    }

    /// Removes the partial tiles that a full one, durable and under a checkpoint, has superseded. Best effort: what stays
    /// is read by nobody.
    pub(super) async fn prune(&self, full: TileName) -> Result<(), LogError> {
        let prefix = format!("{}{}", self.prefix, full.partials());
        let partials = self.store.list(&prefix, false, None, WIDTH as usize).await?;
        let deletes: Vec<_> = partials
            .objects
            .iter()
            .map(|object| self.store.delete(&object.key))
            .collect();
        stream::iter(deletes)
            .buffer_unordered(PARALLEL)
            .try_collect::<()>()
            .await?;
        Ok(())
    }

    /// Sees to it that a tile, the beginning of a log in another store, is there.
    pub(super) async fn keep_tile(&self, name: TileName, body: &Bytes) -> Result<(), FollowError> {
        self.keep(&name.path(), body).await
    }

    /// The same of a checkpoint.
    pub(super) async fn keep_checkpoint(&self, body: &Bytes) -> Result<(), FollowError> {
        self.keep("checkpoint", body).await
    }

    async fn keep(&self, path: &str, body: &Bytes) -> Result<(), FollowError> {
        keep_copy(&*self.store, &self.key(path)?, body).await?;
        Ok(())
    }

    async fn put_tile(&self, name: TileName, body: Bytes) -> Result<(), LogError> {
        let path = name.path();
        match self.store.put(&self.key(&path)?, body.clone()).await {
            // An answer that was lost, a retry, or somebody else: the content tells which.
            Err(StoreError::AlreadyExists) => match self.read(&path, body.len()).await {
                Ok(Some(found)) if found == body => Ok(()),
                Err(LogError::Store(error)) => Err(error.into()),
                _ => Err(LogError::Forked {
                    position: name.end() - 1,
                }),
            },
            written => written.map(drop).map_err(LogError::Store),
        }
    }

    /// A tile, and whether it is exactly the one asked for: a partial tile that was pruned is the start of the full one.
    async fn tile(&self, name: TileName, limit: usize) -> Result<(Bytes, bool), LogError> {
        if let Some(bytes) = self.read(&name.path(), limit).await? {
            return Ok((bytes, true));
        }
        match self.read(&name.full().path(), limit).await? {
            Some(bytes) => Ok((bytes, false)),
            None => Err(LogError::Corrupt {
                what: "tile is missing",
            }),
        }
    }

    /// A whole object of at most `limit` bytes. A suffix range reads it without trusting that it is that short.
    async fn read(&self, path: &str, limit: usize) -> Result<Option<Bytes>, LogError> {
        let range = ByteRange::Suffix { length: limit as u64 };
        match self.store.get(&self.key(path)?, range).await {
            Ok(object) if object.object_length == object.bytes.len() as u64 => Ok(Some(object.bytes)),
            Ok(_) => Err(LogError::Corrupt {
                what: "object is too long",
            }),
            Err(StoreError::OutOfRange { .. }) => Err(LogError::Corrupt {
                what: "object is empty",
            }),
            Err(StoreError::NotFound) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn key(&self, path: &str) -> Result<ObjectKey, LogError> {
        Ok(ObjectKey::parse(&format!("{}{path}", self.prefix))?)
    }
}
