//! Associated data: what a sealed thing is bound to, spelt so that no two contexts are spelt alike.
//!
//! ```text
//! context := label-length u8 | label | field*
//! field   := length u32be | bytes          integers are fields of 4 or 8 bytes, big-endian
//! ```
//!
//! The format's version is in the label. Ids are their 16 bytes, names their UTF-8 text. Labels start with `callvault/v1/`:
//!
//! | function | label | fields, in order |
//! |---|---|---|
//! | [`extent`] | `extent` | tenant, record, kind u32, origin region, extent u32 |
//! | [`wrapped_dek`] | `wrapped-dek` | vault, tenant, page, slot u32, owner |
//! | [`wrapped_tenant_key`] | `wrapped-tenant-key` | vault, tenant, version u64, root id, region page, slot u32 |
//! | [`tenant_keyring`] | `tenant-keyring` | vault, tenant, key version u64 |
//! | [`region_keyring`] | `region-keyring` | vault, region, epoch u64 |
//! | [`tenant_page_state`] | `tenant-page-state` | vault, tenant, page, generation u64, key version u64 |
//! | [`region_page_state`] | `region-page-state` | vault, region, page, generation u64, epoch u64 |
//! | [`epoch_key`] | `epoch-key` | vault, epoch u64 |
//! | [`payload`] | `payload` | vault, tenant, purpose, sequence u64 |
//! | [`descriptor`] | `descriptor` | see [`DescriptorContext`], in the order of its fields |
//! | [`spool_record`] | `spool-record` | vault, tenant, record, log u32, number u64, head digest |
//! | [`spool_mark`] | `spool-mark` | vault, tenant, record, log u32, head digest |
//! | [`binding_digest`] | `binding` | see [`BindingFields`], in the order of its fields; SHA-256 of the context |

use ring::digest;

use crate::domain::{
    clock::Timestamp,
    ids::{PageId, RecordId, RegionName, TenantId, VaultId},
};

/// Builds associated data field by field.
#[derive(Debug)]
pub struct Context(Vec<u8>);

impl Context {
    /// Starts a context. `label` is at most 255 bytes; nothing after that is read.
    pub fn new(label: &'static str) -> Self {
        let length = u8::try_from(label.len()).unwrap_or(u8::MAX);
        let mut encoded = Vec::with_capacity(256);
        encoded.push(length);
        encoded.extend(label.bytes().take(usize::from(length)));
        Self(encoded)
    }

    /// Adds bytes, fewer than 2^32.
    pub fn bytes(mut self, field: &[u8]) -> Self {
        let length = u32::try_from(field.len()).unwrap_or(u32::MAX);
        self.0.extend_from_slice(&length.to_be_bytes());
        self.0.extend_from_slice(field);
        self
    }

    /// Adds text as UTF-8.
    pub fn text(self, field: &str) -> Self {
        self.bytes(field.as_bytes())
    }

    /// Adds four bytes, big-endian.
    pub fn u32(self, field: u32) -> Self {
        self.bytes(&field.to_be_bytes())
    }

    /// Adds eight bytes, big-endian.
    pub fn u64(self, field: u64) -> Self {
        self.bytes(&field.to_be_bytes())
    }

    /// Adds eight bytes, big-endian, two's complement.
    pub fn i64(self, field: i64) -> Self {
        self.bytes(&field.to_be_bytes())
    }

    /// The encoding.
    pub fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// Of an extent: whose it is and its place in the record.
pub fn extent(tenant: &TenantId, record: &RecordId, kind: u32, region: &RegionName, extent: u32) -> Vec<u8> {
    Context::new("callvault/v1/extent")
        .text(tenant.as_str())
        .bytes(record.as_bytes())
        .u32(kind)
        .text(region.as_str())
        .u32(extent)
        .finish()
}

/// Of a DEK's wrap. `owner` is the record id's 16 bytes, or the purpose text of a payload that has its own DEK.
pub fn wrapped_dek(vault: &VaultId, tenant: &TenantId, page: &PageId, slot: u16, owner: &[u8]) -> Vec<u8> {
    Context::new("callvault/v1/wrapped-dek")
        .bytes(vault.as_bytes())
        .text(tenant.as_str())
        .bytes(page.as_bytes())
        .u32(slot.into())
        .bytes(owner)
        .finish()
}

/// Of a tenant key's wrap. `root_id` names the hierarchy that wraps it, `region_page` and `slot` the slot key.
pub fn wrapped_tenant_key(
    vault: &VaultId,
    tenant: &TenantId,
    version: u64,
    root_id: &str,
    region_page: &PageId,
    slot: u16,
) -> Vec<u8> {
    Context::new("callvault/v1/wrapped-tenant-key")
        .bytes(vault.as_bytes())
        .text(tenant.as_str())
        .u64(version)
        .text(root_id)
        .bytes(region_page.as_bytes())
        .u32(slot.into())
        .finish()
}

/// Of a tenant's keyring.
pub fn tenant_keyring(vault: &VaultId, tenant: &TenantId, key_version: u64) -> Vec<u8> {
    Context::new("callvault/v1/tenant-keyring")
        .bytes(vault.as_bytes())
        .text(tenant.as_str())
        .u64(key_version)
        .finish()
}

/// Of a region's keyring.
pub fn region_keyring(vault: &VaultId, region: &RegionName, epoch: u64) -> Vec<u8> {
    Context::new("callvault/v1/region-keyring")
        .bytes(vault.as_bytes())
        .text(region.as_str())
        .u64(epoch)
        .finish()
}

/// Of one generation of a tenant page's state.
pub fn tenant_page_state(
    vault: &VaultId,
    tenant: &TenantId,
    page: &PageId,
    generation: u64,
    key_version: u64,
) -> Vec<u8> {
    Context::new("callvault/v1/tenant-page-state")
        .bytes(vault.as_bytes())
        .text(tenant.as_str())
        .bytes(page.as_bytes())
        .u64(generation)
        .u64(key_version)
        .finish()
}

/// Of one generation of a region page's state.
pub fn region_page_state(
    vault: &VaultId,
    region: &RegionName,
    page: &PageId,
    generation: u64,
    epoch: u64,
) -> Vec<u8> {
    Context::new("callvault/v1/region-page-state")
        .bytes(vault.as_bytes())
        .text(region.as_str())
        .bytes(page.as_bytes())
        .u64(generation)
        .u64(epoch)
        .finish()
}

/// Of an epoch key that the file provider wraps.
pub fn epoch_key(vault: &VaultId, epoch: u64) -> Vec<u8> {
    Context::new("callvault/v1/epoch-key")
        .bytes(vault.as_bytes())
        .u64(epoch)
        .finish()
}

/// Of a payload object: what it is for, and the sequence number of the leaf that names it.
pub fn payload(vault: &VaultId, tenant: &TenantId, purpose: &str, sequence: u64) -> Vec<u8> {
    Context::new("callvault/v1/payload")
        .bytes(vault.as_bytes())
        .text(tenant.as_str())
        .text(purpose)
        .u64(sequence)
        .finish()
}

/// Whose spool log it is and which: part of every context in it.
#[derive(Clone, Debug)]
pub struct SpoolLog {
    /// The vault.
    pub vault: VaultId,
    /// The tenant.
    pub tenant: TenantId,
    /// The upload, and the record that it becomes.
    pub record: RecordId,
    /// 0 for the journal, 1 + the number of the extent for an extent's pieces.
    pub log: u32,
    /// SHA-256 of the log's bare head.
    pub head: [u8; 32],
}

/// Of record `number`, from 0, of a spool log: none can be left out, moved or taken from another log.
pub fn spool_record(log: &SpoolLog, number: u64) -> Vec<u8> {
    Context::new("callvault/v1/spool-record")
        .bytes(log.vault.as_bytes())
        .text(log.tenant.as_str())
        .bytes(log.record.as_bytes())
        .u32(log.log)
        .u64(number)
        .bytes(&log.head)
        .finish()
}

/// Of a spool log's mark, which says how much of the log is durable.
pub fn spool_mark(log: &SpoolLog) -> Vec<u8> {
    Context::new("callvault/v1/spool-mark")
        .bytes(log.vault.as_bytes())
        .text(log.tenant.as_str())
        .bytes(log.record.as_bytes())
        .u32(log.log)
        .bytes(&log.head)
        .finish()
}

/// The whole story of a record, which its sealed descriptor vouches for.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)] // each is what the footer's field of that name holds
pub struct DescriptorContext<'a> {
    pub vault: &'a VaultId,
    pub tenant: &'a TenantId,
    pub record: &'a RecordId,
    pub kind: u32,
    /// Where the record was written first.
    pub region: &'a RegionName,
    pub created_at: Timestamp,
    pub object_key: &'a str,
    pub entry_index: u32,
    pub entry_count: u32,
    pub extent_count: u32,
    /// Ciphertext bytes of the last extent; the others are full.
    pub last_extent_length: u32,
    pub plaintext_length: u64,
    /// 1 in the blob; a corrected descriptor's is higher.
    pub descriptor_version: u32,
    /// [`binding_digest`] of the rest of the entry.
    pub binding: &'a [u8; 32],
}

/// Of a descriptor.
pub fn descriptor(context: &DescriptorContext<'_>) -> Vec<u8> {
    Context::new("callvault/v1/descriptor")
        .bytes(context.vault.as_bytes())
        .text(context.tenant.as_str())
        .bytes(context.record.as_bytes())
        .u32(context.kind)
        .text(context.region.as_str())
        .i64(context.created_at.micros())
        .text(context.object_key)
        .u32(context.entry_index)
        .u32(context.entry_count)
        .u32(context.extent_count)
        .u32(context.last_extent_length)
        .u64(context.plaintext_length)
        .u32(context.descriptor_version)
        .bytes(context.binding)
        .finish()
}

/// What else a footer says of an entry. `request_mac` and `request_fingerprint` are 32 bytes or empty.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)] // each is what the footer's field of that name holds
pub struct BindingFields<'a> {
    pub node: u32,
    pub page: &'a PageId,
    pub slot: u32,
    pub wrapped_dek: &'a [u8],
    pub commitment: &'a [u8],
    pub request_mac: &'a [u8],
    pub request_fingerprint: &'a [u8],
    pub tags_digest: &'a [u8],
}

/// Digest that binds the rest of an entry into its descriptor's context. All of it is public.
pub fn binding_digest(fields: &BindingFields<'_>) -> [u8; 32] {
    let encoded = Context::new("callvault/v1/binding")
        .u32(fields.node)
        .bytes(fields.page.as_bytes())
        .u32(fields.slot)
        .bytes(fields.wrapped_dek)
        .bytes(fields.commitment)
        .bytes(fields.request_mac)
        .bytes(fields.request_fingerprint)
        .bytes(fields.tags_digest)
        .finish();
    sha256(&encoded)
}

/// SHA-256 of `bytes`.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encode(fields: &[Vec<u8>]) -> Vec<u8> {
        let start = Context::new("callvault/v1/test");
        fields
            .iter()
            .fold(start, |context, field| context.bytes(field))
            .finish()
    }

    /// Lists over few letters and short fields, so that a confusable encoding would be found.
    fn fields() -> impl Strategy<Value = Vec<Vec<u8>>> {
        prop::collection::vec(prop::collection::vec(0..3u8, 0..6), 0..4)
    }

    proptest! {
        #[test]
        fn different_fields_are_spelt_differently(a in fields(), b in fields()) {
            prop_assert_eq!(a == b, encode(&a) == encode(&b));
        }

        #[test]
        fn moving_a_boundary_changes_the_spelling(a: Vec<u8>, b: Vec<u8>, at: prop::sample::Index) {
            let joined = [a.clone(), b.clone()].concat();
            let at = at.index(joined.len() + 1);
            let moved = vec![joined[..at].to_vec(), joined[at..].to_vec()];
            prop_assert_eq!(at == a.len(), encode(&moved) == encode(&[a, b]));
        }
    }

    #[test]
    fn labels_and_integers_are_spelt_as_documented() {
        let encoded = Context::new("ab").u32(1).u64(2).i64(-1).text("é").finish();
        let expected = [
            b"\x02ab".as_slice(),
            b"\0\0\0\x04\0\0\0\x01",
            b"\0\0\0\x08\0\0\0\0\0\0\0\x02",
            b"\0\0\0\x08\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\0\0\0\x02\xc3\xa9",
        ]
        .concat();
        assert_eq!(encoded, expected);
    }
}
