//! What every store promises, as tests that any store can be held to.
//!
//! ```ignore
//! mod promises {
//!     async fn make() -> callvault::blob::suite::Subject { ... }
//!     callvault::blob_store_suite!(make);
//! }
//! ```
//!
//! Every promise gets a subject of its own and keeps below its prefix, so that subjects may share a bucket.

#![allow(clippy::unwrap_used, clippy::panic)] // a test that fails panics

pub mod listings;
pub mod objects;
pub mod ranges;
pub mod uploads;

use std::{any::Any, fmt, sync::Arc};

use bytes::Bytes;

use super::store::{BlobStore, ByteRange, ObjectKey, StoreError};

/// What a store cannot promise, though the trait allows for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Refuses to put, or to complete, what exists already.
    pub no_overwrite: bool,
    /// Refuses a part whose place contradicts its neighbours' when it is put; if not, at the latest at completion.
    pub checks_offsets: bool,
    /// Lists uploads under way.
    pub lists_uploads: bool,
    /// Tells an upload that is gone, or another key's, from other failures.
    pub knows_uploads: bool,
    /// Bytes of every part but the last (5 MiB for S3).
    pub part_bytes: usize,
}

impl Capabilities {
    /// Everything, with small parts.
    pub const ALL: Self = Self {
        no_overwrite: true,
        checks_offsets: true,
        lists_uploads: true,
        knows_uploads: true,
        part_bytes: 64 << 10,
    };
}

/// A store under test.
pub struct Subject {
    store: Arc<dyn BlobStore>,
    capabilities: Capabilities,
    prefix: String,
    _keep: Box<dyn Any + Send + Sync>,
}

impl Subject {
    /// A store whose objects below `prefix` (empty, or ending with `/`) belong to one test. `keep` lives as long as the test.
    pub fn new(
        store: impl BlobStore + 'static,
        capabilities: Capabilities,
        prefix: &str,
        keep: impl Any + Send + Sync,
    ) -> Self {
        Self {
            store: Arc::new(store),
            capabilities,
            prefix: prefix.to_owned(),
            _keep: Box::new(keep),
        }
    }

    /// The store.
    pub fn store(&self) -> &dyn BlobStore {
        &*self.store
    }

    /// A key below the subject's prefix.
    pub fn key(&self, name: &str) -> ObjectKey {
        ObjectKey::parse(&format!("{}{name}", self.prefix)).unwrap()
    }

    fn shared(&self) -> Arc<dyn BlobStore> {
        Arc::clone(&self.store)
    }

    async fn put_all(&self, names: &[&str]) {
        for name in names {
            self.store
                .put(&self.key(name), body(name.len(), 0))
                .await
                .unwrap();
        }
    }

    async fn whole(&self, name: &str) -> Bytes {
        self.store
            .get(&self.key(name), ByteRange::Full)
            .await
            .unwrap()
            .bytes
    }

    /// Nothing is to be seen of the object, whichever way one looks.
    async fn assert_absent(&self, name: &str) {
        let key = self.key(name);
        let read = self.store.get(&key, ByteRange::Full).await;
        assert!(
            matches!(read, Err(StoreError::NotFound)),
            "get {key} gave {read:?}"
        );
        let head = self.store.head(&key).await;
        assert!(
            matches!(head, Err(StoreError::NotFound)),
            "head {key} gave {head:?}"
        );
        let listed = self.store.list(key.as_str(), false, None, 10).await.unwrap();
        assert!(listed.objects.iter().all(|o| o.key != key), "{key} is listed");
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject")
            .field("store", &self.store)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

/// Bytes of every value, in an order that depends on `seed`.
fn body(length: usize, seed: u32) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = std::iter::repeat_with(next)
        .take(length.div_ceil(4))
        .flatten()
        .collect();
    bytes.truncate(length);
    Bytes::from(bytes)
}

/// One `#[tokio::test]` for every promise of a store. `$make` is an async function that returns a
/// [`Subject`]. An attribute before it, such as `#[ignore]`, is given to every test.
#[macro_export]
macro_rules! blob_store_suite {
    ($make:path) => {
        $crate::blob_store_suite! { [] $make }
    };
    (#[$attribute:meta] $make:path) => {
        $crate::blob_store_suite! { [#[$attribute]] $make }
    };
    ($attributes:tt $make:path) => {
        $crate::blob_store_suite! { @ $attributes $make;
            objects: put_then_get, zero_length_object, every_byte_value_survives, put_refuses_to_replace,
                overwrite_replaces, overwrite_creates, missing_object_is_not_found, head_tells_length_and_time,
                delete_is_idempotent, deleted_key_can_be_put_again, concurrent_puts_of_many_keys,
                concurrent_puts_of_one_key, readers_see_whole_versions, keys_follow_the_rule, longest_key,
                puts_and_deletes_beside_each_other;
            ranges: exact_ranges, exact_range_beyond_the_end, suffix_ranges, ranges_of_an_empty_object,
                range_of_a_missing_object;
            uploads: parts_in_order, parts_out_of_order, parts_in_parallel, large_object, single_small_part,
                invisible_before_complete, abort_forgets, abort_is_idempotent, complete_twice, missing_part,
                no_parts, wrong_etag, parts_that_do_not_adjoin, part_put_again_replaces, last_part_may_shrink,
                part_after_the_end, unknown_upload, upload_of_another_key, completion_refuses_to_replace,
                two_uploads_of_one_key, uploads_are_listed;
            listings: empty_listing, all_in_byte_order, prefix_need_not_be_a_directory, delimiter_folds,
                delimiter_without_slash, pages_of_one, pages_of_two, delimited_pages, last_page_has_no_next,
                listing_tells_lengths, hostile_prefixes_list_nothing, deleted_objects_leave_no_prefix;
        }
    };
    (@ $attributes:tt $make:path; $($group:ident: $($promise:ident),+;)+) => {
        $($($crate::blob_store_suite! { ! $attributes $make, $group, $promise })+)+
    };
    (! [$($attribute:tt)*] $make:path, $group:ident, $promise:ident) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        $($attribute)*
        async fn $promise() {
            $crate::blob::suite::$group::$promise($make().await).await;
        }
    };
}
