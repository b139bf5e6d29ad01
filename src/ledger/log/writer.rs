//! Appending to a log.

use std::{cmp::Ordering, sync::Arc};

use bytes::Bytes;
use tlog_tiles::{Hash, record_hash, tree_hash};

use super::{
    Head, LogError, LogName, Signer, bundle,
    checkpoint::{self, SignedHead},
    growth::Growth,
    objects::{Objects, TileName},
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
    growth: Growth,
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
        let mut writer = Self {
            objects,
            origin,
            signer,
            growth: Growth::default(),
        };
        if let Some(head) = writer.standing().await? {
            writer.growth = Growth::load(&writer.objects, head).await?;
        }
        Ok(writer)
    }

    /// What has been appended: durable, and visible to every reader.
    pub fn head(&self) -> Head {
        self.growth.head()
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
        let (grown, tiles) = self.growth.with(entries, &leaves);
        let head = grown.head();
        self.objects.put_tiles(tiles).await?;
        let checkpoint = checkpoint::sign(&self.origin, head, self.signer.as_ref())?;
        self.objects.put_checkpoint(checkpoint).await?;
        let outgrown = self.growth.outgrown_at(head.size);
        self.growth = grown;
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
            return if begun {
                Err(LogError::Corrupt {
                    what: "checkpoint is missing",
                })
            } else {
                Ok(())
            };
        };
        let same = match standing.size.cmp(&own.size) {
            Ordering::Equal => standing == own,
            Ordering::Greater => self.growth.passes_through(standing, leaves),
            Ordering::Less => self.passed_through(standing).await?,
        };
        let last = own.size + leaves.len() as u64;
        if same {
            Ok(())
        } else {
            Err(LogError::Forked {
                position: standing.size.min(last).saturating_sub(1),
            })
        }
    }

    /// Whether `older` is a head that this log had: one put back, or a write that the store completed late.
    async fn passed_through(&self, older: Head) -> Result<bool, LogError> {
        tracing::warn!(
            size = older.size,
            expected = self.head().size,
            "checkpoint in the bucket is old"
        );
        if older.size == 0 {
            return Ok(true);
        }
        let tiles = Tiles::new(self.head());
        let root = tiles
            .answer(&self.objects, |tree| tree_hash(older.size, tree))
            .await?;
        Ok(root == older.hash())
    }

    async fn prune(&self, full: Vec<TileName>) {
        for tile in full {
            if let Err(error) = self.objects.prune(tile).await {
                tracing::debug!(%error, "partial tiles were not pruned");
            }
        }
    }
}
