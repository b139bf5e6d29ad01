//! Filling and sealing one extent, in the buffer that is uploaded.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use ring::digest;

use super::{
    layout::{HEADER_LEN, SEGMENT_LEN, TAG_LEN, extent_segments},
    nonce::{Header, NonceSequence},
};
use crate::{
    crypto::{CryptoError, bulk::BulkKey, kdf, secret::ContentKey},
    domain::clock::Rng,
};

/// Bytes of a full segment before its tag.
const TEXT_END: usize = SEGMENT_LEN - TAG_LEN;

/// Plaintext of one extent, already where its ciphertext will be: with gaps for the header and the tags.
pub struct ExtentBuffer {
    bytes: BytesMut,
    /// Bytes when full, without the last tag.
    full_len: usize,
    plaintext_len: u64,
}

impl ExtentBuffer {
    /// Room for the whole of extent number `extent` (from 0) and `spare` bytes after it, for a footer. Memory is reserved,
    /// not touched: a short extent costs what it holds.
    pub fn new(extent: u32, spare: usize) -> Self {
        let capacity = extent_segments(extent) as usize * SEGMENT_LEN;
        Self::within(extent, BytesMut::with_capacity(capacity + spare))
    }

    /// The same in the memory of `bytes`, which holds nothing yet and grows when it must: small extents are sealed one behind
    /// the other in the buffer that they are uploaded from.
    pub fn within(extent: u32, mut bytes: BytesMut) -> Self {
        bytes.put_bytes(0, HEADER_LEN);
        Self {
            bytes,
            full_len: extent_segments(extent) as usize * SEGMENT_LEN - TAG_LEN,
            plaintext_len: 0,
        }
    }

    /// Moves plaintext from the front of `chunk` to its place, until the extent is full or the chunk is empty.
    pub fn fill(&mut self, chunk: &mut Bytes) {
        while chunk.has_remaining() && !self.is_full() {
            let take = self.room_in_segment().min(chunk.len());
            self.bytes.extend_from_slice(&chunk[..take]);
            chunk.advance(take);
            self.plaintext_len += take as u64;
        }
    }

    /// Whether nothing more fits.
    pub fn is_full(&self) -> bool {
        self.bytes.len() == self.full_len
    }

    /// Whether it holds no plaintext.
    pub fn is_empty(&self) -> bool {
        self.plaintext_len == 0
    }

    /// Plaintext bytes held.
    pub fn plaintext_len(&self) -> u64 {
        self.plaintext_len
    }

    /// The plaintext from byte `from` of the extent on, in pieces of at most a segment; none lies across a tag's gap.
    pub fn pieces(&self, from: u64) -> impl Iterator<Item = &[u8]> {
        let mut text = HEADER_LEN;
        let mut skip = from;
        std::iter::from_fn(move || {
            loop {
                let end = (text - text % SEGMENT_LEN + TEXT_END).min(self.bytes.len());
                if text >= end {
                    return None;
                }
                let piece = &self.bytes[text..end];
                text = end + TAG_LEN;
                match usize::try_from(skip) {
                    Ok(skipped) if skipped < piece.len() => {
                        skip = 0;
                        return Some(&piece[skipped..]);
                    }
                    _ => skip -= piece.len() as u64,
                }
            }
        })
    }

    /// Seals every segment in place under a key and nonces of this extent's own.
    ///
    /// `aad` is [`crate::crypto::context::extent`]. An empty extent is one empty segment. CPU-bound: milliseconds for 8 MiB.
    ///
    /// # Errors
    /// [`CryptoError::Rng`] if there is no randomness; what was filled in is lost.
    pub fn seal(mut self, key: &ContentKey, aad: &[u8], rng: &dyn Rng) -> Result<SealedExtent, CryptoError> {
        let header = Header::generate(rng)?;
        header.write(&mut self.bytes[..HEADER_LEN]);
        self.bytes.put_bytes(0, TAG_LEN);
        let tags_digest = seal_segments(&mut self.bytes, key, aad, header)?;
        Ok(SealedExtent {
            bytes: self.bytes,
            plaintext_len: self.plaintext_len,
            tags_digest,
        })
    }

    /// Plaintext bytes that fit before the next tag; starts a new segment, leaving the gap, when this one has none left.
    fn room_in_segment(&mut self) -> usize {
        if self.bytes.len() % SEGMENT_LEN == TEXT_END {
            self.bytes.put_bytes(0, TAG_LEN);
        }
        TEXT_END - self.bytes.len() % SEGMENT_LEN
    }
}

/// Seals all segments of `extent`, whose tags' places are at their ends, and returns the digest of the tags.
fn seal_segments(
    extent: &mut [u8],
    key: &ContentKey,
    aad: &[u8],
    header: Header,
) -> Result<[u8; 32], CryptoError> {
    let cipher = BulkKey::new(&kdf::extent_key(key, &header.salt, aad))?;
    let mut nonces = NonceSequence::new(header);
    let mut tags = TagsDigest::new();
    // the last segment is the one that holds the extent's last byte: never an empty one after a full one
    let (body, last) = extent.split_at_mut((extent.len() - 1) / SEGMENT_LEN * SEGMENT_LEN);
    let alone = body.is_empty();
    for (number, segment) in body.chunks_exact_mut(SEGMENT_LEN).enumerate() {
        let start = if number == 0 { HEADER_LEN } else { 0 };
        tags.update(&seal_segment(&cipher, nonces.next()?, &mut segment[start..])?);
    }
    let start = if alone { HEADER_LEN } else { 0 };
    tags.update(&seal_segment(&cipher, nonces.last()?, &mut last[start..])?);
    Ok(tags.finish())
}

fn seal_segment(cipher: &BulkKey, nonce: [u8; 12], segment: &mut [u8]) -> Result<[u8; TAG_LEN], CryptoError> {
    let (text, gap) = segment.split_at_mut(segment.len() - TAG_LEN);
    let tag = cipher.seal(nonce, &[], text)?;
    gap.copy_from_slice(&tag);
    Ok(tag)
}

impl std::fmt::Debug for ExtentBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ExtentBuffer({} bytes)", self.plaintext_len)
    }
}

/// One extent, ready for upload.
#[derive(Debug)]
pub struct SealedExtent {
    /// Header and segments; the spare capacity is still behind them.
    pub bytes: BytesMut,
    /// Plaintext bytes inside.
    pub plaintext_len: u64,
    /// SHA-256 of the segments' tags, in order.
    pub tags_digest: [u8; 32],
}

/// SHA-256 over parts, one by one: over the tags of an extent, and over the digests of an entry's extents.
#[derive(Clone)]
pub struct TagsDigest(digest::Context);

impl TagsDigest {
    /// Of nothing yet.
    pub fn new() -> Self {
        Self(digest::Context::new(&digest::SHA256))
    }

    /// Adds a tag (16 bytes) or an extent's digest (32 bytes).
    pub fn update(&mut self, part: &[u8]) {
        self.0.update(part);
    }

    /// The digest.
    pub fn finish(self) -> [u8; 32] {
        let mut out = [0; 32];
        out.copy_from_slice(self.0.finish().as_ref());
        out
    }
}

impl Default for TagsDigest {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for TagsDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TagsDigest")
    }
}

/// The digest that a footer states of an entry, from its extents' digests in order.
pub fn entry_digest(extents: &[[u8; 32]]) -> [u8; 32] {
    let mut digest = TagsDigest::new();
    for extent in extents {
        digest.update(extent);
    }
    digest.finish()
}
