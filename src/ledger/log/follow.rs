//! A log is read on from where it was read before: each entry once, every tile computed again from the entries and compared.
//! Where there is a second store, it gets the same objects, the checkpoint last.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{
    future,
    stream::{self, StreamExt, TryStreamExt},
};
use tlog_tiles::record_hash;

use super::{
    Head, LogError, LogReader,
    bundle::{self, WIDTH},
    edge::{Edge, Tile},
    growth::encode,
    objects::{Objects, TileName},
};
use crate::blob::{copy::CopyError, store::BlobStore};

/// Bundles read side by side; a bundle is at most 15 MiB and usually a thousandth of it.
const BUNDLES: usize = 4;
/// Objects copied side by side.
const COPIES: usize = 8;

/// Why a log could not be followed.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The log is not what it should be, or its store failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The second store failed, or lies.
    #[error(transparent)]
    Copy(#[from] CopyError),
}

/// How far a log was followed: a few hashes.
#[derive(Clone, Debug, Default)]
pub struct Followed(Edge);

impl Followed {
    /// How far that is.
    pub fn head(&self) -> Head {
        self.0.head()
    }

    /// Gives every entry that the reader's log has gained to `each`, in order, and copies every object that it has gained.
    ///
    /// Memory: a few bundles and O(log n) hashes. Cancel safe.
    ///
    /// # Errors
    /// [`FollowError`]; then nothing counts as followed, whatever `each` was given and was copied.
    pub async fn follow(
        &mut self,
        reader: &LogReader,
        to: Option<&Arc<dyn BlobStore>>,
        mut each: impl FnMut(&Bytes) + Send,
    ) -> Result<(), FollowError> {
        let head = reader.head();
        if self.0.head() == head {
            return Ok(());
        }
        let copies = to.map(|to| Objects::new(Arc::clone(to), reader.name()));
        let mut edge = self.0.clone();
        let mut first = edge.size() - edge.size() % WIDTH;
        while first < head.size {
            let until = head.size.min(first + WIDTH * BUNDLES as u64);
            let bundles = (first..until).step_by(WIDTH as usize);
            let read = future::try_join_all(bundles.map(|bundle| reader.read(bundle))).await?;
            let (mut gained, mut hashes) = (Vec::new(), Vec::new());
            for entries in read {
                gained.push((TileName::bundle(first, head.size), bundled(&entries)));
                for entry in entries.iter().skip((edge.size() - first) as usize) {
                    edge.push(record_hash(entry), &mut hashes);
                    each(entry);
                }
                first += WIDTH;
            }
            keep(reader, copies.as_ref(), gained, &hashes).await?;
        }
        let partial: Vec<Tile> = edge.partial().collect();
        keep(reader, copies.as_ref(), Vec::new(), &partial).await?;
        if edge.head() != head {
            return Err(LogError::Corrupt { what: "root" }.into());
        }
        if let Some(copies) = &copies {
            copies.keep_checkpoint(&reader.checkpoint().into()).await?;
        }
        self.0 = edge;
        Ok(())
    }
}

fn bundled(entries: &[Bytes]) -> Bytes {
    let mut bytes = Vec::new();
    entries.iter().for_each(|entry| bundle::push(&mut bytes, entry));
    bytes.into()
}

/// Compares hashes with those in the bucket; keeps them and the bundles in the second store.
async fn keep(
    reader: &LogReader,
    copies: Option<&Objects>,
    bundles: Vec<(TileName, Bytes)>,
    hashes: &[Tile],
) -> Result<(), FollowError> {
    reader.compare(hashes).await?;
    let Some(copies) = copies else { return Ok(()) };
    let hashes = hashes.iter().map(|tile| (tile.name, encode(tile)));
    let tiles: Vec<_> = bundles.into_iter().chain(hashes).collect();
    let kept = tiles.iter().map(|(name, body)| copies.keep_tile(*name, body));
    let kept: Vec<_> = kept.collect();
    stream::iter(kept).buffer_unordered(COPIES).try_collect().await
}
