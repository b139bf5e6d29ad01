//! Hashes of a tree, each traced to the root before anything is concluded from it.
//!
//! The tree library asks for tiles in one synchronous call and authenticates them itself ([`TileHashReader`]). So a
//! question is asked twice: the first time to learn which tiles it needs, then, when they have been fetched, for the answer.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use tlog_tiles::{Error, Hash, HashReader, Tile, TileHashReader, TileReader};

use super::{
    Head, LogError,
    objects::{Kind, Objects, TileName},
};

/// log2 of a full tile's width.
const HEIGHT: u8 = 8;
/// Tiles fetched at a time.
const PARALLEL: usize = 8;

/// The hash tiles of a log up to a head.
///
/// Keeps the tiles of the last question, a few of 8 KiB each: reading on in order asks for the same ones again.
#[derive(Debug)]
pub(super) struct Tiles {
    head: Head,
    recent: Mutex<HashMap<Tile, Bytes>>,
}

impl Tiles {
    pub(super) fn new(head: Head) -> Self {
        Self {
            head,
            recent: Mutex::default(),
        }
    }

    /// The hashes at these [stored indexes](tlog_tiles::stored_hash_index).
    pub(super) async fn hashes(&self, objects: &Objects, indexes: &[u64]) -> Result<Vec<Hash>, LogError> {
        self.answer(objects, |tree| tree.read_hashes(indexes)).await
    }

    /// Answers a question about the tree, which must have at least one leaf.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] if the tiles do not lead to the head's root.
    pub(super) async fn answer<A>(
        &self,
        objects: &Objects,
        question: impl Fn(&TileHashReader<'_>) -> Result<A, Error> + Sync,
    ) -> Result<A, LogError> {
        let shelf = Shelf {
            tiles: self.fetch(objects, self.plan(&question)).await?,
            wanted: Mutex::default(),
        };
        let answer = question(&TileHashReader::new(self.head.size, self.head.hash(), &shelf))
            .map_err(|_| LogError::Corrupt { what: "hash tile" })?;
        *self.recent.lock().unwrap_or_else(PoisonError::into_inner) = shelf.tiles;
        Ok(answer)
    }

    /// The tiles that a question needs.
    fn plan<A>(&self, question: impl Fn(&TileHashReader<'_>) -> Result<A, Error>) -> Vec<Tile> {
        let empty = Shelf::default();
        let _ = question(&TileHashReader::new(self.head.size, self.head.hash(), &empty));
        empty.wanted.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    async fn fetch(&self, objects: &Objects, tiles: Vec<Tile>) -> Result<HashMap<Tile, Bytes>, LogError> {
        let reads: Vec<_> = tiles
            .into_iter()
            .map(|tile| self.fetch_one(objects, tile))
            .collect();
        stream::iter(reads).buffer_unordered(PARALLEL).try_collect().await
    }

    async fn fetch_one(&self, objects: &Objects, tile: Tile) -> Result<(Tile, Bytes), LogError> {
        let known = self.recent(tile);
        match known {
            Some(bytes) => Ok((tile, bytes)),
            None => Ok((tile, objects.hashes(name(tile)).await?)),
        }
    }

    fn recent(&self, tile: Tile) -> Option<Bytes> {
        self.recent
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&tile)
            .cloned()
    }
}

/// Tiles at hand, and what was asked for in vain.
#[derive(Default)]
struct Shelf {
    tiles: HashMap<Tile, Bytes>,
    wanted: Mutex<Vec<Tile>>,
}

impl TileReader for Shelf {
    fn height(&self) -> u8 {
        HEIGHT
    }

    fn read_tiles(&self, tiles: &[Tile]) -> Result<Vec<Vec<u8>>, Error> {
        let found: Option<_> = tiles
            .iter()
            .map(|tile| self.tiles.get(tile).map(|b| b.to_vec()))
            .collect();
        found.ok_or_else(|| {
            *self.wanted.lock().unwrap_or_else(PoisonError::into_inner) = tiles.to_vec();
            Error::InvalidTile
        })
    }

    fn save_tiles(&self, _tiles: &[Tile], _data: &[Vec<u8>]) {}
}

fn name(tile: Tile) -> TileName {
    TileName {
        kind: Kind::Hashes(tile.level()),
        index: tile.level_index(),
        width: u64::from(tile.width()),
    }
}
