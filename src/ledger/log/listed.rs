//! What a store has of some logs, told by the names of its objects alone.

use std::collections::{BTreeSet, HashMap};

use super::{
    bundle::WIDTH,
    name::{parse, prefix, root},
    objects::{Kind, TileName},
};
use crate::{
    blob::{
        store::{BlobStore, StoreError},
        walk::each_name,
    },
    index::{LogId, LogKind},
};

/// More logs than a vault ever has: one a start.
const MOST_LOGS: usize = 1_000_000;

/// Logs of a store.
#[derive(Clone, Debug, Default)]
pub struct Listed {
    /// Those that have a checkpoint.
    pub logs: BTreeSet<LogId>,
    /// Those that lack a tile.
    pub lacking: BTreeSet<LogId>,
}

/// Lists the logs of `kind` that have a checkpoint, and which of `known` lack a tile of the size that they are known to have.
///
/// # Errors
/// As [`each_name`]; [`StoreError::Protocol`] if there are more logs than there can be.
pub async fn listed(
    store: &dyn BlobStore,
    kind: LogKind,
    known: impl IntoIterator<Item = (LogId, u64)>,
) -> Result<Listed, StoreError> {
    let mut wanted = HashMap::new();
    for (log, size) in known {
        let names = tiles(size).map(|tile| format!("{}{}", prefix(log), tile.path()));
        wanted.extend(names.map(|name| (name, log)));
    }
    let mut logs = BTreeSet::new();
    let found = |name: &str| {
        wanted.remove(name);
        if logs.len() <= MOST_LOGS {
            logs.extend(name.strip_suffix("checkpoint").and_then(|name| parse(kind, name)));
        }
    };
    each_name(store, &root(kind), found).await?;
    if logs.len() > MOST_LOGS {
        return Err(StoreError::Protocol("there are too many logs"));
    }
    Ok(Listed {
        logs,
        lacking: wanted.into_values().collect(),
    })
}

/// The tiles of a log of `size` entries, as whoever follows it writes them.
fn tiles(size: u64) -> impl Iterator<Item = TileName> {
    let bundles = (0..size.div_ceil(WIDTH)).map(move |bundle| TileName::bundle(bundle * WIDTH, size));
    let levels = (0..8u8).map(move |level| (level, size >> (8 * u32::from(level))));
    let hashes = levels.flat_map(|(level, hashes)| {
        (0..hashes.div_ceil(WIDTH)).map(move |index| TileName {
            kind: Kind::Hashes(level),
            index,
            width: WIDTH.min(hashes - index * WIDTH),
        })
    });
    bundles.chain(hashes)
}
