//! Appending to a log.

use std::{cmp::Ordering, sync::Arc};

use bytes::Bytes;
use tlog_tiles::{Hash, record_hash, tree_hash};

use super::{
    Head, LogError, LogName, Signer, bundle,
    checkpoint::{self, SignedHead},
    edge::{self, Edge, Tile},
    objects::{HASH_BYTES, Objects, TileName},
    tiles::Tiles,
};
use crate::blob::store::BlobStore;

/// The one writer of a log.
///
/// One writer a (node, term) is the lease's business. If there are two all the same, the log notices at the next append of
/// the one that was overtaken: every append begins by reading the checkpoint it is about to replace.
#[derive(Debug)]
pub struct LogWriter {
    objects: Objects,
    origin: String,
    signer: Arc<dyn Signer>,
    edge: Edge,
    /// The last, incomplete entry bundle.
    tail: Bytes,
}

impl LogWriter {
    /// Continues a log where the bucket left it; a log without a checkpoint begins at size 0.
    ///
    /// Leaves of an append whose checkpoint was not written are not part of the log: append them again.
    ///
    /// # Errors
    /// [`LogError::Signature`] if the checkpoint is not `signer`'s; [`LogError::Corrupt`] if its right edge is not there or
    /// does not lead to its root; [`LogError::Store`].
    pub async fn open(
        store: Arc<dyn BlobStore>,
        name: LogName,
        signer: Arc<dyn Signer>,
    ) -> Result<Self, LogError> {
        let (objects, origin) = (Objects::new(store, &name), name.origin());
        let (edge, tail) = (Edge::default(), Bytes::new());
        let mut writer = Self { objects, origin, signer, edge, tail };
        if let Some(head) = writer.standing().await? {
            writer.edge = load_edge(&writer.objects, head).await?;
            writer.tail = load_tail(&writer.objects, &writer.edge).await?;
        }
        Ok(writer)
    }

    /// What has been appended: durable, and visible to every reader.
    pub fn head(&self) -> Head {
        self.edge.head()
    }

    /// Appends entries at [`Self::head`]'s size and returns the new head when they are durable and visible.
    ///
    /// Each entry is 1..=[`LEAF_BYTES`](crate::domain::limits::LEAF_BYTES) bytes; none at all changes nothing. They become
    /// visible together, when the checkpoint is written, which is last.
    ///
    /// After any error the writer is as before the call, and the same entries, or more behind them, can be appended again:
    /// what the failed attempt left in the bucket is then what is written. *Other* entries at the same positions are not a
    /// retry, and [`LogError::Forked`] as soon as the store can tell.
    ///
    /// # Errors
    /// [`LogError::EntryEmpty`] and [`LogError::EntryTooLong`], nothing having been written; [`LogError::Store`], retryable;
    /// [`LogError::Forked`]; [`LogError::Signature`] and [`LogError::Corrupt`] if the checkpoint in the bucket was tampered
    /// with or removed. An *older* checkpoint of this very log is put right, with a warning.
    ///
    /// # Cancel safety
    /// A dropped call is a failed one.
    pub async fn append(&mut self, entries: &[Bytes]) -> Result<Head, LogError> {
        entries.iter().try_for_each(bundle::check)?;
        if entries.is_empty() {
            return Ok(self.head());
        }
        let leaves: Vec<Hash> = entries.iter().map(|entry| record_hash(entry)).collect();
        // Before anything is written: a writer that was overtaken must not put its tiles where the other's will be.
        self.check_standing(&leaves).await?;
        let draft = self.draft(entries, &leaves);
        let head = draft.edge.head();
        self.objects.put_tiles(draft.tiles).await?;
        let checkpoint = checkpoint::sign(&self.origin, head, self.signer.as_ref())?;
        self.objects.put_checkpoint(checkpoint).await?;
        let outgrown = outgrown(self.edge.size(), head.size);
        (self.edge, self.tail) = (draft.edge, draft.tail);
        self.prune(outgrown).await;
        Ok(head)
    }

    /// The head in the bucket.
    async fn standing(&self) -> Result<Option<Head>, LogError> {
        let Some(object) = self.objects.checkpoint().await? else {
            return Ok(None);
        };
        let signed = SignedHead::parse(&self.origin, &object)?;
        signed.verify(&self.signer.public_key()).map(Some)
    }

    /// Checks that the head in the bucket is this writer's own: the one it knows, or one that an append of `leaves`, or of
    /// fewer, wrote without learning of it.
    async fn check_standing(&self, leaves: &[Hash]) -> Result<(), LogError> {
        let own = self.head();
        let Some(standing) = self.standing().await? else {
            let begun = own.size > 0;
            return if begun { Err(LogError::Corrupt { what: "checkpoint is missing" }) } else { Ok(()) };
        };
        let same = match standing.size.cmp(&own.size) {
            Ordering::Equal => standing == own,
            Ordering::Greater => self.passes_through(standing, leaves),
            Ordering::Less => self.passed_through(standing).await?,
        };
        let last = own.size + leaves.len() as u64;
        if same { Ok(()) } else { Err(LogError::Forked { position: standing.size.min(last).saturating_sub(1) }) }
    }

    /// Whether appending some of `leaves` leads to `later`.
    fn passes_through(&self, later: Head, leaves: &[Hash]) -> bool {
        let mut edge = self.edge.clone();
        let missing = (later.size - edge.size()) as usize;
        leaves.iter().take(missing).for_each(|leaf| edge.push(*leaf, &mut Vec::new()));
        edge.head() == later
    }

    /// Whether `older` is a head that this log had: one put back, or a write that the store completed late.
    async fn passed_through(&self, older: Head) -> Result<bool, LogError> {
        tracing::warn!(size = older.size, expected = self.edge.size(), "checkpoint in the bucket is old");
        if older.size == 0 {
            return Ok(true);
        }
        let tiles = Tiles::new(self.head());
        let root = tiles.answer(&self.objects, |tree| tree_hash(older.size, tree)).await?;
        Ok(root == older.hash())
    }

    /// The log as it will be, and the tiles to be written for it.
    fn draft(&self, entries: &[Bytes], leaves: &[Hash]) -> Draft {
        let (mut edge, mut hash_tiles) = (self.edge.clone(), Vec::new());
        let mut bundle = self.tail.to_vec();
        let mut tiles = Vec::new();
        for (entry, leaf) in entries.iter().zip(leaves) {
            bundle::push(&mut bundle, entry);
            edge.push(*leaf, &mut hash_tiles);
            if edge.size().is_multiple_of(bundle::WIDTH) {
                let name = TileName::bundle(edge.size() - 1, edge.size());
                tiles.push((name, Bytes::from(std::mem::take(&mut bundle))));
            }
        }
        let tail = Bytes::from(bundle);
        if !tail.is_empty() {
            tiles.push((TileName::bundle(edge.size() - 1, edge.size()), tail.clone()));
        }
        let unchanged: Vec<TileName> = edge::incomplete(self.edge.size()).collect();
        hash_tiles.extend(edge.partial().filter(|tile| !unchanged.contains(&tile.name)));
        tiles.extend(hash_tiles.iter().map(|tile| (tile.name, encode(tile))));
        Draft { edge, tail, tiles }
    }

    async fn prune(&self, full: Vec<TileName>) {
        for tile in full {
            if let Err(error) = self.objects.prune(tile).await {
                tracing::debug!(%error, "partial tiles were not pruned");
            }
        }
    }
}

/// A log with an append in it that is not in the bucket yet.
struct Draft {
    edge: Edge,
    tail: Bytes,
    tiles: Vec<(TileName, Bytes)>,
}

/// Full tiles that a log of `new` entries has where one of `old` had partial ones.
fn outgrown(old: u64, new: u64) -> Vec<TileName> {
    edge::incomplete(old)
        .map(TileName::full)
        .filter(|tile| tile.end() <= new)
        .flat_map(|tile| if tile.level() == 0 { vec![tile, tile.entries()] } else { vec![tile] })
        .collect()
}

async fn load_edge(objects: &Objects, head: Head) -> Result<Edge, LogError> {
    let mut levels = Vec::new();
    for tile in edge::incomplete(head.size) {
        levels.resize(tile.level(), Vec::new());
        levels.push(decode(&objects.hashes(tile).await?));
    }
    let edge = Edge::new(head.size, levels);
    if edge.head() == head { Ok(edge) } else { Err(LogError::Corrupt { what: "right edge" }) }
}

async fn load_tail(objects: &Objects, edge: &Edge) -> Result<Bytes, LogError> {
    let mut tail = Vec::new();
    if !edge.leaves().is_empty() {
        let entries = objects.entries(TileName::bundle(edge.size() - 1, edge.size())).await?;
        if !entries.iter().map(|entry| record_hash(entry)).eq(edge.leaves().iter().copied()) {
            return Err(LogError::Corrupt { what: "last entry bundle" });
        }
        entries.iter().for_each(|entry| bundle::push(&mut tail, entry));
    }
    Ok(Bytes::from(tail))
}

fn encode(tile: &Tile) -> Bytes {
    tile.hashes.iter().flat_map(|hash| hash.0).collect()
}

fn decode(hashes: &[u8]) -> Vec<Hash> {
    hashes.as_chunks::<HASH_BYTES>().0.iter().copied().map(Hash).collect()
}
