//! Listing a store that may be anybody's: with an end, and with memory for what is looked for only.

use std::collections::HashSet;

use super::store::{BlobStore, StoreError};

/// Pages of a listing: ten million names.
const PAGES: u32 = 10_000;
/// Names of a page.
const NAMES: usize = 1_000;

/// Gives the name of every object below `prefix` to `each`.
///
/// # Errors
/// [`StoreError::Protocol`] if the listing has no end or its pages are longer than was asked; otherwise as [`BlobStore::list`].
pub async fn each_name(
    store: &dyn BlobStore,
    prefix: &str,
    mut each: impl FnMut(&str) + Send,
) -> Result<(), StoreError> {
    let mut next = None;
    for _ in 0..PAGES {
        let page = store.list(prefix, false, next.as_deref(), NAMES).await?;
        if page.objects.len() > NAMES {
            return Err(StoreError::Protocol("a page is longer than was asked"));
        }
        page.objects.iter().for_each(|object| each(object.key.as_str()));
        next = page.next;
        if next.is_none() {
            return Ok(());
        }
    }
    Err(StoreError::Protocol("a listing has no end"))
}

/// Those of `wanted` that are the name, behind `prefix`, of no object.
///
/// # Errors
/// As [`each_name`].
pub async fn lacking(
    store: &dyn BlobStore,
    prefix: &str,
    mut wanted: HashSet<String>,
) -> Result<HashSet<String>, StoreError> {
    let found = |name: &str| {
        if let Some(name) = name.strip_prefix(prefix) {
            wanted.remove(name);
        }
    };
    each_name(store, prefix, found).await?;
    Ok(wanted)
}
