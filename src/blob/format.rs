//! The end of every blob.
//!
//! ```text
//! blob    := extent+ (of each entry, in order) | footer | trailer
//! footer  := protobuf callvault.storage.v1.BlobFooter, canonical encoding
//! trailer := footer length u32be | CRC-32C of footer and length u32be | "CVB1"      12 bytes
//! ```
//!
//! The CRC finds accidents; what an attacker changes is found by the footer's SHA-256 in the state log and by the sealed
//! descriptor, whose context binds every field of its entry. `docs/format.md` is the specification.

use bytes::Bytes;
use prost::Message;
use ring::digest;

use crate::{
    crypto::stream,
    domain::{
        clock::Timestamp,
        ids::{InvalidId, PageId, RecordId, RegionName, TenantId, VaultId},
        limits,
        record::Kind,
    },
    proto::storage,
};

use super::store::ObjectKey;

/// Bytes of the trailer.
pub const TRAILER_LEN: usize = 12;
/// Read this much of a blob's end first: it holds nearly every footer.
pub const TAIL_LEN: u64 = 16 << 10;
const MAGIC: &[u8; 4] = b"CVB1";
const FORMAT_VERSION: u32 = 1;

/// Bytes that are not a blob's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed footer what={0}")]
pub struct MalformedFooter(pub &'static str);

/// What a blob says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footer {
    /// Whose vault.
    pub vault: VaultId,
    /// Where it was written.
    pub region: RegionName,
    /// Whose records.
    pub tenant: TenantId,
    /// Node slot that wrote it.
    pub node: u32,
    /// When.
    pub created: Timestamp,
    /// One a record; at least one.
    pub entries: Vec<Entry>,
}

/// One record's part of a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The record.
    pub record: RecordId,
    /// What it is.
    pub kind: Kind,
    /// Plaintext bytes; the extents' lengths follow from it.
    pub plaintext_length: u64,
    /// Page and slot that wrap its DEK.
    pub page: PageId,
    /// 0..4096.
    pub slot: u16,
    /// The wrapped DEK, 60 bytes.
    pub wrapped_dek: Bytes,
    /// Checked before the DEK is used.
    pub commitment: [u8; 32],
    /// What the caller's request id was keyed to, and what the request asked for.
    pub request: Option<Request>,
    /// The sealed descriptor.
    pub sealed_descriptor: Bytes,
    /// Digest over all segment tags.
    pub tags_digest: [u8; 32],
}

/// A request as an entry remembers it: keyed, so that it tells nothing to who lacks the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Keyed request id.
    pub mac: [u8; 32],
    /// Keyed digest of what was asked.
    pub fingerprint: [u8; 32],
}

impl Entry {
    /// Ciphertext bytes of its extents.
    pub fn ciphertext_length(&self) -> u64 {
        extent_lengths(self.plaintext_length).map(u64::from).sum()
    }
}

/// Ciphertext length of each extent of this much plaintext.
pub fn extent_lengths(plaintext_length: u64) -> impl Iterator<Item = u32> {
    let mut left = plaintext_length;
    let mut extent = 0;
    std::iter::from_fn(move || {
        if left == 0 {
            return None;
        }
        let taken = left.min(stream::extent_capacity(extent));
        left -= taken;
        extent += 1;
        u32::try_from(stream::ciphertext_len(taken)).ok()
    })
}

/// Name of the object that a blob is stored as: `blobs/<tenant>/<yyyy>/<mm>/<dd>/<uuidv7>`, the id being its first record's.
pub fn object_key(tenant: &TenantId, created: Timestamp, first: &RecordId) -> String {
    let (year, month, day) = created.date();
    format!("blobs/{tenant}/{year:04}/{month:02}/{day:02}/{first}")
}

/// The tenant and the first record in a blob's name, if it is one.
pub fn parse_object_key(key: &ObjectKey) -> Option<(TenantId, RecordId)> {
    let [root, tenant, _, _, _, record] = key.as_str().split('/').collect::<Vec<_>>()[..] else {
        return None;
    };
    (root == "blobs").then_some(())?;
    Some((tenant.parse().ok()?, record.parse().ok()?))
}

/// SHA-256 of an encoded footer (without the trailer): the blob's identity beside its name.
pub fn footer_sha256(encoded: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, encoded).as_ref());
    out
}

/// A footer as it lies in a blob.
#[derive(Clone, Debug)]
pub struct EncodedFooter {
    /// Footer, then trailer.
    pub bytes: Vec<u8>,
    /// SHA-256 of the footer alone.
    pub sha256: [u8; 32],
}

impl Footer {
    /// Encodes footer and trailer.
    ///
    /// # Errors
    /// [`MalformedFooter`] if it would be longer than [`limits::FOOTER_BYTES`].
    pub fn encode(&self) -> Result<EncodedFooter, MalformedFooter> {
        let mut bytes = self.to_proto().encode_to_vec();
        if bytes.len() > limits::FOOTER_BYTES {
            return Err(MalformedFooter("too long"));
        }
        let sha256 = footer_sha256(&bytes);
        let length = u32::try_from(bytes.len()).map_err(|_| MalformedFooter("too long"))?;
        bytes.extend_from_slice(&length.to_be_bytes());
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_be_bytes());
        bytes.extend_from_slice(MAGIC);
        Ok(EncodedFooter { bytes, sha256 })
    }

    /// Decodes a footer (without its trailer). Only the canonical encoding is taken.
    ///
    /// # Errors
    /// [`MalformedFooter`] names what is wrong.
    pub fn decode(encoded: &Bytes) -> Result<Self, MalformedFooter> {
        let message =
            storage::BlobFooter::decode(encoded.clone()).map_err(|_| MalformedFooter("protobuf"))?;
        let footer = Self::from_proto(message)?;
        if footer.to_proto().encode_to_vec() != *encoded {
            return Err(MalformedFooter("not canonical"));
        }
        Ok(footer)
    }

    /// Bytes before the footer: all extents of all entries.
    pub fn content_length(&self) -> u64 {
        self.entries.iter().map(Entry::ciphertext_length).sum()
    }

    /// Where entry `index` begins in the blob.
    pub fn entry_offset(&self, index: usize) -> u64 {
        self.entries
            .iter()
            .take(index)
            .map(Entry::ciphertext_length)
            .sum()
    }

    /// Where each entry begins in the blob.
    pub fn entry_offsets(&self) -> Vec<u64> {
        let mut next = 0;
        let starts = self.entries.iter().map(|entry| {
            let start = next;
            next += entry.ciphertext_length();
            start
        });
        starts.collect()
    }

    fn to_proto(&self) -> storage::BlobFooter {
        storage::BlobFooter {
            format_version: FORMAT_VERSION,
            vault_id: self.vault.as_bytes().to_vec().into(),
            region: self.region.to_string(),
            tenant_id: self.tenant.to_string(),
            node: self.node,
            created_at_micros: self.created.micros(),
            entries: self.entries.iter().map(Entry::to_proto).collect(),
        }
    }

    fn from_proto(message: storage::BlobFooter) -> Result<Self, MalformedFooter> {
        let bad = |what| move |_: InvalidId| MalformedFooter(what);
        if message.format_version != FORMAT_VERSION {
            return Err(MalformedFooter("unknown format version"));
        }
        if message.entries.is_empty() {
            return Err(MalformedFooter("no entries"));
        }
        Ok(Self {
            vault: VaultId::from_slice(&message.vault_id).map_err(bad("vault id"))?,
            region: message.region.parse().map_err(bad("region"))?,
            tenant: message.tenant_id.parse().map_err(bad("tenant id"))?,
            node: message.node,
            created: Timestamp(message.created_at_micros),
            entries: message
                .entries
                .into_iter()
                .map(Entry::from_proto)
                .collect::<Result<_, _>>()?,
        })
    }
}

impl Entry {
    fn to_proto(&self) -> storage::BlobEntry {
        storage::BlobEntry {
            record_id: self.record.as_bytes().to_vec().into(),
            kind: i32::try_from(self.kind.number()).unwrap_or(0),
            extent_lengths: extent_lengths(self.plaintext_length).collect(),
            page_id: self.page.as_bytes().to_vec().into(),
            slot: u32::from(self.slot),
            wrapped_dek: self.wrapped_dek.clone(),
            commitment: self.commitment.to_vec().into(),
            request_mac: self.request.map(|r| r.mac.to_vec()).unwrap_or_default().into(),
            request_fingerprint: self
                .request
                .map(|r| r.fingerprint.to_vec())
                .unwrap_or_default()
                .into(),
            sealed_descriptor: self.sealed_descriptor.clone(),
            tags_digest: self.tags_digest.to_vec().into(),
            plaintext_length: self.plaintext_length,
        }
    }

    fn from_proto(message: storage::BlobEntry) -> Result<Self, MalformedFooter> {
        let bad = |what| move |_: InvalidId| MalformedFooter(what);
        if message.plaintext_length == 0 || message.plaintext_length > limits::RECORDING_BYTES {
            return Err(MalformedFooter("plaintext length"));
        }
        if !extent_lengths(message.plaintext_length).eq(message.extent_lengths.iter().copied()) {
            return Err(MalformedFooter("extent lengths"));
        }
        if message.wrapped_dek.len() != 60 {
            return Err(MalformedFooter("wrapped dek"));
        }
        let request = match (
            message.request_mac.is_empty(),
            message.request_fingerprint.is_empty(),
        ) {
            (true, true) => None,
            (false, false) => Some(Request {
                mac: array(&message.request_mac, "request mac")?,
                fingerprint: array(&message.request_fingerprint, "request fingerprint")?,
            }),
            _ => return Err(MalformedFooter("request mac without fingerprint")),
        };
        Ok(Self {
            record: RecordId::from_slice(&message.record_id).map_err(bad("record id"))?,
            kind: u32::try_from(message.kind)
                .ok()
                .and_then(Kind::from_number)
                .ok_or(MalformedFooter("kind"))?,
            plaintext_length: message.plaintext_length,
            page: PageId::from_slice(&message.page_id).map_err(bad("page id"))?,
            slot: u16::try_from(message.slot)
                .ok()
                .filter(|s| *s < 4_096)
                .ok_or(MalformedFooter("slot"))?,
            wrapped_dek: message.wrapped_dek,
            commitment: array(&message.commitment, "commitment")?,
            request,
            sealed_descriptor: message.sealed_descriptor,
            tags_digest: array(&message.tags_digest, "tags digest")?,
        })
    }
}

fn array(bytes: &[u8], what: &'static str) -> Result<[u8; 32], MalformedFooter> {
    bytes.try_into().map_err(|_| MalformedFooter(what))
}

/// What the last bytes of a blob tell.
#[derive(Debug, PartialEq, Eq)]
pub enum Tail {
    /// The whole footer was among them: its encoding.
    Whole(Bytes),
    /// Read this many bytes of the end instead.
    Longer(u64),
}

/// Finds the footer in the last bytes of a blob.
///
/// # Errors
/// [`MalformedFooter`] if magic, length or checksum is wrong.
pub fn find_footer(tail: &Bytes, object_length: u64) -> Result<Tail, MalformedFooter> {
    let (covered, end) = tail.split_last_chunk::<8>().ok_or(MalformedFooter("too short"))?;
    let (crc, magic) = end.split_at(4);
    if magic != MAGIC {
        return Err(MalformedFooter("magic"));
    }
    let (before, length) = covered
        .split_last_chunk::<4>()
        .ok_or(MalformedFooter("too short"))?;
    let length = u32::from_be_bytes(*length) as usize;
    if length > limits::FOOTER_BYTES || (length + TRAILER_LEN) as u64 > object_length {
        return Err(MalformedFooter("length"));
    }
    if length > before.len() {
        return Ok(Tail::Longer((length + TRAILER_LEN) as u64));
    }
    let start = before.len() - length;
    if crc32c::crc32c(&covered[start..]).to_be_bytes() != crc {
        return Err(MalformedFooter("checksum"));
    }
    Ok(Tail::Whole(tail.slice(start..start + length)))
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    fn vectors() -> Vec<(String, serde_json::Value)> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/blob");
        let read = |path: std::path::PathBuf| {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, serde_json::from_slice(&fs::read(path).unwrap()).unwrap())
        };
        fs::read_dir(folder)
            .unwrap()
            .map(|entry| read(entry.unwrap().path()))
            .collect()
    }

    fn end(vector: &serde_json::Value) -> Bytes {
        hex::decode(vector["end"].as_str().unwrap()).unwrap().into()
    }

    fn open(end: &Bytes) -> Result<(Footer, Bytes), MalformedFooter> {
        match find_footer(end, u64::MAX)? {
            Tail::Longer(_) => Err(MalformedFooter("cut")),
            Tail::Whole(encoded) => Ok((Footer::decode(&encoded)?, encoded)),
        }
    }

    #[test]
    fn footers_of_the_specification_are_read_and_written_alike() {
        let good: Vec<_> = vectors()
            .into_iter()
            .filter(|(n, _)| !n.starts_with("malformed"))
            .collect();
        assert_eq!(good.len(), 3);
        for (name, vector) in good {
            let (footer, encoded) = open(&end(&vector)).unwrap();
            assert_eq!(
                hex::encode(footer_sha256(&encoded)),
                vector["sha256"].as_str().unwrap(),
                "{name}"
            );
            let lengths: Vec<u64> = footer.entries.iter().map(|e| e.plaintext_length).collect();
            assert_eq!(serde_json::json!(lengths), vector["plaintext_lengths"], "{name}");
            assert_eq!(
                footer.content_length(),
                vector["content_length"].as_u64().unwrap(),
                "{name}"
            );
            assert_eq!(footer.encode().unwrap().bytes, end(&vector), "{name}");
        }
    }

    #[test]
    fn malformed_footers_are_refused() {
        let bad: Vec<_> = vectors()
            .into_iter()
            .filter(|(n, _)| n.starts_with("malformed"))
            .collect();
        assert_eq!(bad.len(), 21);
        for (name, vector) in bad {
            assert!(open(&end(&vector)).is_err(), "{name}");
        }
    }

    #[test]
    fn every_flipped_bit_of_an_end_is_found() {
        let (_, vector) = vectors().into_iter().find(|(n, _)| n == "one").unwrap();
        let whole = end(&vector);
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&flipped.into()).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_tail_that_is_too_short_says_how_much_to_read() {
        let (_, vector) = vectors().into_iter().find(|(n, _)| n == "one").unwrap();
        let whole = end(&vector);
        let cut = whole.slice(whole.len() - 20..);
        assert_eq!(find_footer(&cut, 1_000), Ok(Tail::Longer(whole.len() as u64)));
        assert!(
            find_footer(&cut, whole.len() as u64 - 1).is_err(),
            "no object is shorter than its footer"
        );
    }

    #[test]
    fn names_of_blobs_tell_tenant_and_first_record() {
        let tenant: TenantId = "acme".parse().unwrap();
        let record: RecordId = "01890a5d-ac96-774b-bcce-b302099a8058".parse().unwrap();
        let name = object_key(&tenant, Timestamp(951_782_400_000_000), &record);
        assert_eq!(name, "blobs/acme/2000/02/29/01890a5d-ac96-774b-bcce-b302099a8058");
        assert_eq!(
            parse_object_key(&ObjectKey::parse(&name).unwrap()),
            Some((tenant, record))
        );
        for other in [
            "blobs/acme/x",
            "payloads/acme/2000/02/29/01890a5d-ac96-774b-bcce-b302099a8058",
        ] {
            assert_eq!(
                parse_object_key(&ObjectKey::parse(other).unwrap()),
                None,
                "{other}"
            );
        }
    }
}
