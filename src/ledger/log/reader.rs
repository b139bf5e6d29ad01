//! Reading a log: every byte is traced to the checkpoint's root before it is handed out.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{
    future,
    stream::{self, StreamExt, TryStreamExt},
};
use tlog_tiles::{
    Error, Hash, TileHashReader, prove_record, prove_tree, record_hash, sub_tree_index, tree_hash,
};

use super::{
    Head, LogError, LogName,
    bundle::WIDTH,
    checkpoint::SignedHead,
    edge::{Edge, Tile, peaks},
    objects::{Objects, TileName},
    tiles::Tiles,
};
use crate::blob::store::BlobStore;

/// Bundles read ahead by [`LogReader::verify`]; a bundle is at most 15 MiB and usually a thousandth of it.
const READ_AHEAD: usize = 4;

/// A log as it was when the reader was opened.
///
/// Entries appended later are not seen; partial tiles pruned later are read from the full ones.
#[derive(Debug)]
pub struct LogReader {
    name: LogName,
    objects: Objects,
    signed: SignedHead,
    tiles: Tiles,
}

impl LogReader {
    /// Opens a log at its checkpoint; `None` if it has none.
    ///
    /// Without a key the signature is *not* checked: a rebuild learns the key from a log, and then calls
    /// [`Self::verify_signature`]. Until that says yes, what is read is only consistent, not known to be this vault's.
    ///
    /// # Errors
    /// [`LogError::Corrupt`], [`LogError::Signature`], [`LogError::Store`].
    pub async fn open(
        store: Arc<dyn BlobStore>,
        name: LogName,
        public_key: Option<[u8; 32]>,
    ) -> Result<Option<Self>, LogError> {
        let objects = Objects::new(store, &name);
        let Some(object) = objects.checkpoint().await? else {
            return Ok(None);
        };
        let signed = SignedHead::parse(&name.origin(), &object)?;
        if let Some(key) = public_key {
            signed.verify(&key)?;
        }
        let tiles = Tiles::new(signed.unverified());
        Ok(Some(Self {
            name,
            objects,
            signed,
            tiles,
        }))
    }

    /// Checks that `public_key` signed the checkpoint that this reader trusts.
    ///
    /// # Errors
    /// [`LogError::Signature`].
    pub fn verify_signature(&self, public_key: [u8; 32]) -> Result<(), LogError> {
        self.signed.verify(&public_key).map(drop)
    }

    /// The signed note that says the head.
    pub fn checkpoint(&self) -> Vec<u8> {
        self.signed.to_bytes()
    }

    /// The log that is read.
    pub fn name(&self) -> &LogName {
        &self.name
    }

    /// The head that everything read is traced to.
    pub fn head(&self) -> Head {
        self.signed.unverified()
    }

    /// Entries of the bundle that holds position `from`, beginning there: 1 to 256 of them, or none at the end.
    ///
    /// To read a log, begin at 0 and go on at `from` plus the number of entries. Memory: one bundle, at most 15 MiB.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] if anything of it was changed or removed; [`LogError::Store`].
    pub async fn read(&self, from: u64) -> Result<Vec<Bytes>, LogError> {
        if from >= self.head().size {
            return Ok(Vec::new());
        }
        let bundle = TileName::bundle(from, self.head().size);
        let first = from - from % WIDTH;
        let indexes = sub_tree_index(first, first + bundle.width, Vec::new());
        let (mut entries, vouched) = future::try_join(
            self.objects.entries(bundle),
            self.tiles.hashes(&self.objects, &indexes),
        )
        .await?;
        let leaves: Vec<Hash> = entries.iter().map(|entry| record_hash(entry)).collect();
        if peaks(&leaves) != vouched {
            return Err(LogError::Corrupt { what: "entry bundle" });
        }
        Ok(entries.split_off((from - first) as usize))
    }

    /// Recomputes the whole tree from the entries, and compares it with every hash tile and with the checkpoint.
    ///
    /// Memory: a few bundles and O(log n) hashes.
    ///
    /// # Errors
    /// [`LogError::Corrupt`], [`LogError::Store`].
    pub async fn verify(&self) -> Result<(), LogError> {
        let size = self.head().size;
        let names = (0..size.div_ceil(WIDTH)).map(|bundle| TileName::bundle(bundle * WIDTH, size));
        let mut bundles = stream::iter(names.map(|name| self.objects.entries(name))).buffered(READ_AHEAD);
        let mut edge = Edge::default();
        while let Some(entries) = bundles.try_next().await? {
            let mut completed = Vec::new();
            entries
                .iter()
                .for_each(|entry| edge.push(record_hash(entry), &mut completed));
            self.compare(&completed).await?;
        }
        self.compare(&edge.partial().collect::<Vec<_>>()).await?;
        if edge.head() == self.head() {
            Ok(())
        } else {
            Err(LogError::Corrupt { what: "root" })
        }
    }

    /// Root of the first `size` entries.
    ///
    /// # Errors
    /// [`LogError::BeyondHead`] if there are fewer; [`LogError::Corrupt`], [`LogError::Store`].
    pub async fn root_at(&self, size: u64) -> Result<[u8; 32], LogError> {
        self.within(size)?;
        if size == 0 {
            return Ok(Head::EMPTY.root);
        }
        let root = self
            .tiles
            .answer(&self.objects, |tree| tree_hash(size, tree))
            .await?;
        Ok(root.0)
    }

    /// Proof that this log holds its entry at `position`: at most 48 hashes for [`super::check_inclusion`].
    ///
    /// # Errors
    /// [`LogError::BeyondHead`] if there is none; [`LogError::Corrupt`], [`LogError::Store`].
    pub async fn inclusion_proof(&self, position: u64) -> Result<Vec<[u8; 32]>, LogError> {
        let size = self.head().size;
        self.within(position.saturating_add(1))?;
        self.prove(|tree| prove_record(size, position, tree)).await
    }

    /// Proof that this log begins with the log that it was at size `old`, for [`super::check_consistency`].
    ///
    /// # Errors
    /// [`LogError::BeyondHead`] if it never had that size; [`LogError::Corrupt`], [`LogError::Store`].
    pub async fn consistency_proof(&self, old: u64) -> Result<Vec<[u8; 32]>, LogError> {
        let size = self.head().size;
        self.within(old)?;
        if old == 0 {
            return Ok(Vec::new());
        }
        self.prove(|tree| prove_tree(size, old, tree)).await
    }

    async fn prove(
        &self,
        question: impl Fn(&TileHashReader<'_>) -> Result<Vec<Hash>, Error> + Sync,
    ) -> Result<Vec<[u8; 32]>, LogError> {
        let proof = self.tiles.answer(&self.objects, question).await?;
        Ok(proof.into_iter().map(|hash| hash.0).collect())
    }

    /// Checks that tiles lie in the bucket as they were computed.
    pub(super) async fn compare(&self, tiles: &[Tile]) -> Result<(), LogError> {
        for tile in tiles {
            let stored = self.objects.hashes(tile.name).await?;
            if !stored
                .iter()
                .copied()
                .eq(tile.hashes.iter().flat_map(|hash| hash.0))
            {
                return Err(LogError::Corrupt { what: "hash tile" });
            }
        }
        Ok(())
    }

    fn within(&self, position: u64) -> Result<(), LogError> {
        let size = self.head().size;
        if position <= size {
            Ok(())
        } else {
            Err(LogError::BeyondHead { position, size })
        }
    }
}
