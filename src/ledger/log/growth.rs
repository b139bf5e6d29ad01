//! Where a log is being written: its right edge, and the bundle that is filling.

use bytes::Bytes;
use tlog_tiles::{Hash, record_hash};

use super::{
    Head, LogError, bundle,
    edge::{self, Edge, Tile},
    objects::{HASH_BYTES, Objects, TileName},
};

/// All that a writer remembers of its log. A log that grows is another value: nothing is lost when an append fails.
#[derive(Clone, Debug, Default)]
pub(super) struct Growth {
    edge: Edge,
    /// The last, incomplete entry bundle.
    tail: Bytes,
}

impl Growth {
    /// Reads the right edge of the log of `head`, and checks that it leads there.
    pub(super) async fn load(objects: &Objects, head: Head) -> Result<Self, LogError> {
        let edge = load_edge(objects, head).await?;
        let tail = load_tail(objects, &edge).await?;
        Ok(Self { edge, tail })
    }

    pub(super) fn head(&self) -> Head {
        self.edge.head()
    }

    /// The log with these entries behind it (`leaves` are their hashes), and every tile that is new in it.
    pub(super) fn with(&self, entries: &[Bytes], leaves: &[Hash]) -> (Self, Vec<(TileName, Bytes)>) {
        let (mut edge, mut bundle) = (self.edge.clone(), self.tail.to_vec());
        let (mut tiles, mut hash_tiles) = (Vec::new(), Vec::new());
        for (entry, leaf) in entries.iter().zip(leaves) {
            bundle::push(&mut bundle, entry);
            edge.push(*leaf, &mut hash_tiles);
            if edge.size().is_multiple_of(bundle::WIDTH) {
                tiles.push((last_bundle(&edge), Bytes::from(std::mem::take(&mut bundle))));
            }
        }
        let tail = Bytes::from(bundle);
        if !tail.is_empty() {
            tiles.push((last_bundle(&edge), tail.clone()));
        }
        let unchanged: Vec<TileName> = edge::incomplete(self.edge.size()).collect();
        hash_tiles.extend(edge.partial().filter(|tile| !unchanged.contains(&tile.name)));
        tiles.extend(hash_tiles.iter().map(|tile| (tile.name, encode(tile))));
        (Self { edge, tail }, tiles)
    }

    /// Whether appending some of `leaves` leads to `later`.
    pub(super) fn passes_through(&self, later: Head, leaves: &[Hash]) -> bool {
        let mut edge = self.edge.clone();
        for leaf in leaves {
            if edge.size() == later.size {
                break;
            }
            edge.push(*leaf, &mut Vec::new());
        }
        edge.head() == later
    }

    /// Full tiles that the log has at `size` where it has partial ones now.
    pub(super) fn outgrown_at(&self, size: u64) -> Vec<TileName> {
        edge::incomplete(self.edge.size())
            .map(TileName::full)
            .filter(|tile| tile.end() <= size)
            .flat_map(|tile| {
                if tile.level() == 0 {
                    vec![tile, tile.entries()]
                } else {
                    vec![tile]
                }
            })
            .collect()
    }
}

async fn load_edge(objects: &Objects, head: Head) -> Result<Edge, LogError> {
    let mut levels = Vec::new();
    for tile in edge::incomplete(head.size) {
        levels.resize(tile.level(), Vec::new());
        levels.push(decode(&objects.hashes(tile).await?));
    }
    let edge = Edge::new(head.size, levels);
    if edge.head() == head {
        Ok(edge)
    } else {
        Err(LogError::Corrupt { what: "right edge" })
    }
}

async fn load_tail(objects: &Objects, edge: &Edge) -> Result<Bytes, LogError> {
    let mut tail = Vec::new();
    if !edge.leaves().is_empty() {
        let entries = objects.entries(last_bundle(edge)).await?;
        if !entries
            .iter()
            .map(|entry| record_hash(entry))
            .eq(edge.leaves().iter().copied())
        {
            return Err(LogError::Corrupt {
                what: "last entry bundle",
            });
        }
        entries.iter().for_each(|entry| bundle::push(&mut tail, entry));
    }
    Ok(Bytes::from(tail))
}

/// The bundle of the last leaf.
fn last_bundle(edge: &Edge) -> TileName {
    TileName::bundle(edge.size() - 1, edge.size())
}

pub(super) fn encode(tile: &Tile) -> Bytes {
    tile.hashes.iter().flat_map(|hash| hash.0).collect()
}

fn decode(hashes: &[u8]) -> Vec<Hash> {
    hashes
        .as_chunks::<HASH_BYTES>()
        .0
        .iter()
        .copied()
        .map(Hash)
        .collect()
}
