//! The right edge of a Merkle tree: what must be remembered of a log to append to it.
//!
//! Of every level of tiles the hashes of its last, incomplete tile: at most 255 of each, 8 KiB a level, three levels for
//! sixteen million entries. Everything to the left of it is in full tiles and never needed again.

use tlog_tiles::{Hash, node_hash};

use super::{
    bundle::WIDTH,
    checkpoint::Head,
    objects::{Kind, TileName},
};

/// A tile with its hashes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tile {
    /// Which tile.
    pub name: TileName,
    /// Its hashes, left to right; as many as its name says.
    pub hashes: Vec<Hash>,
}

/// The incomplete tile of every level, from the leaves up.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Edge {
    size: u64,
    levels: Vec<Vec<Hash>>,
}

impl Edge {
    /// The edge of a tree of `size` leaves from its incomplete tiles' hashes, from the leaves up.
    pub(super) fn new(size: u64, levels: Vec<Vec<Hash>>) -> Self {
        Self { size, levels }
    }

    /// Leaves of the tree.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Hashes of the last, incomplete bundle's leaves.
    pub(super) fn leaves(&self) -> &[Hash] {
        self.levels.first().map_or(&[], Vec::as_slice)
    }

    /// Adds a leaf and hands out the tiles that it completes.
    pub(super) fn push(&mut self, leaf: Hash, completed: &mut Vec<Tile>) {
        self.size += 1;
        let mut hash = leaf;
        for level in 0.. {
            if self.levels.len() == level {
                self.levels.push(Vec::new());
            }
            self.levels[level].push(hash);
            if self.levels[level].len() < WIDTH as usize {
                return;
            }
            let hashes = std::mem::take(&mut self.levels[level]);
            hash = subtree(&hashes);
            let name = last_full(self.size, level);
            completed.push(Tile { name, hashes });
        }
    }

    /// The incomplete tiles, one a level that has any.
    pub(super) fn partial(&self) -> impl Iterator<Item = Tile> + '_ {
        incomplete(self.size).filter_map(|name| {
            Some(Tile {
                name,
                hashes: self.levels.get(name.level())?.clone(),
            })
        })
    }

    /// The head that this edge proves.
    pub(super) fn head(&self) -> Head {
        let peaks = self
            .levels
            .iter()
            .flat_map(|level| peaks(level).into_iter().rev());
        let root = peaks.reduce(|right, left| node_hash(left, right));
        root.map_or(Head::EMPTY, |root| Head {
            size: self.size,
            root: root.0,
        })
    }
}

/// Names of the incomplete hash tiles of a tree of `size` leaves, from the leaves up; at most one a level.
pub(super) fn incomplete(size: u64) -> impl Iterator<Item = TileName> {
    let hashes_at = move |level: u8| size >> (8 * u32::from(level));
    (0..8u8)
        .map(move |level| (level, hashes_at(level)))
        .filter(|(_, hashes)| hashes % WIDTH != 0)
        .map(|(level, hashes)| TileName {
            kind: Kind::Hashes(level),
            index: hashes / WIDTH,
            width: hashes % WIDTH,
        })
}

/// The tile of `level` that the last of `size` leaves completed.
fn last_full(size: u64, level: usize) -> TileName {
    let level = u8::try_from(level).unwrap_or(u8::MAX); // at most 8: sizes are 64 bits
    let tiles = size >> (8 * (u32::from(level) + 1));
    TileName {
        kind: Kind::Hashes(level),
        index: tiles - 1,
        width: WIDTH,
    }
}

/// Roots of the complete subtrees that `hashes` fall into, largest first, as RFC 6962 splits them.
pub(super) fn peaks(hashes: &[Hash]) -> Vec<Hash> {
    let mut rest = hashes;
    let mut peaks = Vec::new();
    while !rest.is_empty() {
        let (complete, right) = rest.split_at(1 << rest.len().ilog2());
        peaks.push(subtree(complete));
        rest = right;
    }
    peaks
}

/// Root of a complete subtree; `hashes` are a power of two of them.
fn subtree(hashes: &[Hash]) -> Hash {
    match hashes {
        [one] => *one,
        _ => {
            let (left, right) = hashes.split_at(hashes.len() / 2);
            node_hash(subtree(left), subtree(right))
        }
    }
}
