//! Extents are what Tink says, wherever they are cut.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::*;
use crate::crypto::{CryptoError, rng::SystemRng, secret::ContentKey};

const AAD: &[u8] = b"aad";

fn key() -> ContentKey {
    ContentKey::from_bytes([8; 32])
}

fn text(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8).collect()
}

fn sealed(len: usize) -> SealedExtent {
    let mut buffer = ExtentBuffer::new(0, 100);
    buffer.fill(&mut Bytes::from(text(len)));
    assert_eq!(buffer.plaintext_len(), len as u64);
    buffer.seal(&key(), AAD, &SystemRng::new()).unwrap()
}

fn opener(extent: &mut BytesMut) -> ExtentOpener {
    let header = extent.split_to(HEADER_LEN);
    ExtentOpener::new(&key(), AAD, header[..].try_into().unwrap()).unwrap()
}

fn open_all(mut extent: BytesMut, last: u32) -> Result<Vec<u8>, CryptoError> {
    let opener = opener(&mut extent);
    Ok(opener.open_run(0, last, extent)?.concat())
}

fn last_segment(len: u64) -> u32 {
    ((ciphertext_len(len) - 1) / SEGMENT_LEN as u64) as u32
}

#[test]
fn sizes_at_the_edges() {
    assert_eq!((extent_segments(4_999), extent_segments(5_000)), (128, 256));
    assert_eq!(
        (extent_capacity(0), extent_capacity(5_000)),
        (8_386_520, 16_773_080)
    );
    for (plain, cipher) in [
        (0, 56),
        (1, 57),
        (65_480, 65_536),
        (65_481, 65_553),
        (131_000, 131_072),
    ] {
        assert_eq!(ciphertext_len(plain), cipher, "{plain}");
    }
    assert_eq!(ciphertext_len(extent_capacity(0)), 8 << 20);
    assert_eq!(ciphertext_len(extent_capacity(5_000)), 16 << 20);
    assert_eq!(extent_count(0), Ok(1));
    assert_eq!(extent_count(8_386_520), Ok(1));
    assert_eq!(extent_count(8_386_521), Ok(2));
    let most = 5_000 * (8_386_520 + 16_773_080);
    assert_eq!(
        (extent_count(most), extent_count(most + 1)),
        (Ok(10_000), Err(CryptoError::TooLong))
    );
    assert!(most > crate::domain::limits::RECORDING_BYTES);
}

#[test]
fn extents_open_at_every_edge() {
    for len in [
        0, 1, 65_479, 65_480, 65_481, 131_000, 131_001, 8_386_519, 8_386_520,
    ] {
        let extent = sealed(len);
        assert_eq!(extent.bytes.len() as u64, ciphertext_len(len as u64));
        assert!(
            open_all(extent.bytes, last_segment(len as u64)).unwrap() == text(len),
            "{len}"
        );
    }
}

#[test]
fn a_full_buffer_takes_no_more_and_keeps_its_spare_room() {
    let mut buffer = ExtentBuffer::new(0, 1_000);
    assert!(buffer.is_empty() && !buffer.is_full());
    let mut chunk = Bytes::from(text(8_386_521));
    buffer.fill(&mut chunk);
    assert!(buffer.is_full());
    assert_eq!(chunk.len(), 1);
    buffer.fill(&mut chunk);
    assert_eq!(chunk.len(), 1);
    let sealed = buffer.seal(&key(), AAD, &SystemRng::new()).unwrap();
    assert_eq!((sealed.bytes.len(), sealed.plaintext_len), (8 << 20, 8_386_520));
    assert!(sealed.bytes.capacity() >= (8 << 20) + 1_000);
}

#[test]
fn big_extents_open() {
    let len = 16_773_080;
    let mut buffer = ExtentBuffer::new(5_000, 0);
    buffer.fill(&mut Bytes::from(text(len)));
    assert!(buffer.is_full());
    let sealed = buffer.seal(&key(), AAD, &SystemRng::new()).unwrap();
    assert!(open_all(sealed.bytes, 255).unwrap() == text(len));
}

#[test]
fn no_two_seals_share_a_header() {
    assert_ne!(sealed(1).bytes[..HEADER_LEN], sealed(1).bytes[..HEADER_LEN]);
}

#[test]
fn digests_are_of_the_tags() {
    let extent = sealed(65_481);
    let tags = [&extent.bytes[65_520..65_536], &extent.bytes[65_537..]].concat();
    assert_eq!(extent.tags_digest, crate::crypto::context::sha256(&tags));
    let two = [extent.tags_digest; 2];
    assert_eq!(entry_digest(&two), crate::crypto::context::sha256(&two.concat()));
}

#[test]
fn what_is_cut_moved_or_misnamed_does_not_open() {
    let refused = |extent: BytesMut, last| assert!(open_all(extent, last) == Err(CryptoError::Unauthentic));
    let extent = sealed(131_001).bytes;
    refused(extent[..131_072].into(), 1); // without the last segment, the one before it does not say that it is the last
    refused(extent[..131_080].into(), 2); // cut in a segment
    refused(extent[..50].into(), 2);
    refused(extent.clone(), 1); // more than there should be
    refused(extent.clone(), 3);
    let mut longer = extent.clone();
    longer.extend_from_slice(&[0; 16]);
    refused(longer, 2);

    // a whole number of segments opens as a run, but not as the piece that was asked for
    let whole = map_range(131_001, 0, 131_001).unwrap().next().unwrap();
    let mut short: BytesMut = extent[..131_072].into();
    let opener = opener(&mut short);
    assert_eq!(opener.open_run(0, 2, short.clone()).map(|run| run.len()), Ok(2));
    assert!(whole.open(&opener, short) == Err(CryptoError::Unauthentic));

    let three = sealed(196_520).bytes;
    let swapped = [&three[..65_536], &three[131_072..], &three[65_536..131_072]].concat();
    refused(swapped.as_slice().into(), 2);

    let mut header: [u8; HEADER_LEN] = extent[..HEADER_LEN].try_into().unwrap();
    header[0] = 41;
    assert_eq!(
        ExtentOpener::new(&key(), AAD, &header).err(),
        Some(CryptoError::Unauthentic)
    );
}

/// The same range, by asking of every byte where it is.
fn naive(plaintext_len: u64, offset: u64, limit: u64) -> Vec<(u32, u32, u64)> {
    let (mut extent, mut start, mut at) = (0, 0, offset);
    let mut segments: Vec<(u32, u32, u64)> = Vec::new();
    while at < plaintext_len.min(offset.saturating_add(limit)) {
        while at >= start + extent_capacity(extent) {
            start += extent_capacity(extent);
            extent += 1;
        }
        let in_extent = at - start;
        let (mut segment, mut room) = (0, 65_480);
        while in_extent >= room {
            (segment, room) = (segment + 1, room + 65_520);
        }
        let until = (start + room)
            .min(plaintext_len)
            .min(offset.saturating_add(limit));
        segments.push((extent, segment, until - at));
        at = until;
    }
    segments
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_chunks_give_the_same_plaintext(len in 0..200_000usize, cuts: Vec<prop::sample::Index>) {
        let mut buffer = ExtentBuffer::new(0, 0);
        let mut rest = Bytes::from(text(len));
        for cut in cuts {
            let mut chunk = rest.split_to(cut.index(rest.len() + 1));
            buffer.fill(&mut chunk);
        }
        buffer.fill(&mut rest);
        let sealed = buffer.seal(&key(), AAD, &SystemRng::new()).unwrap();
        prop_assert_eq!(sealed.bytes.len() as u64, ciphertext_len(len as u64));
        prop_assert!(open_all(sealed.bytes, last_segment(len as u64)).unwrap() == text(len));
    }

    #[test]
    fn any_flipped_bit_shows(len in 0..70_000usize, at: prop::sample::Index, bit in 0..8u32) {
        let mut extent = sealed(len).bytes;
        let at = at.index(extent.len());
        extent[at] ^= 1 << bit;
        let header: [u8; HEADER_LEN] = extent.split_to(HEADER_LEN)[..].try_into().unwrap();
        let opened = ExtentOpener::new(&key(), AAD, &header)
            .and_then(|opener| opener.open_run(0, last_segment(len as u64), extent));
        prop_assert!(opened.err() == Some(CryptoError::Unauthentic));
    }

    #[test]
    fn any_range_opens_to_its_plaintext(len in 1..300_000usize, a: prop::sample::Index, limit in 0..300_000u64) {
        let offset = a.index(len) as u64;
        let entry = sealed(len).bytes;
        let mut opened = Vec::new();
        for piece in map_range(len as u64, offset, limit).unwrap() {
            let opener = opener(&mut entry[piece.header_offset as usize..].into());
            let read = &entry[piece.offset as usize..(piece.offset + piece.len) as usize];
            opened.extend(piece.open(&opener, read.into()).unwrap().concat());
        }
        let end = (offset + limit).min(len as u64) as usize;
        prop_assert!(opened == text(len)[offset as usize..end]);
    }

    #[test]
    fn ranges_are_what_a_naive_walk_finds(
        (len, offset) in (1..100_000_000u64).prop_flat_map(|len| (Just(len), 0..=len + 5)),
        limit in prop_oneof![0..200_000u64, 0..20_000_000u64, Just(u64::MAX)],
        far in any::<bool>(),
    ) {
        // far: across the border between the sizes of extents
        let base = if far { 4_995 * extent_capacity(0) } else { 0 };
        let (len, offset) = (base + len, base + offset);
        let mut walk = naive(len, offset, limit).into_iter();
        let mut ciphertext_end = None;
        for piece in map_range(len, offset, limit).unwrap() {
            let segments: Vec<_> = walk.by_ref().take(piece.segments as usize).collect();
            prop_assert_eq!((piece.extent, piece.first_segment), (segments[0].0, segments[0].1));
            prop_assert!(segments.iter().all(|s| s.0 == piece.extent));
            prop_assert_eq!(piece.take, segments.iter().map(|s| s.2).sum::<u64>());
            prop_assert!(piece.first_segment + piece.segments <= piece.last_segment + 1);
            prop_assert!(piece.skip < 65_520);
            // pieces follow each other, and each but the first starts with its extent
            if let Some(end) = ciphertext_end {
                prop_assert_eq!((piece.header_offset, piece.first_segment, piece.skip), (end, 0, 0));
            }
            ciphertext_end = Some(piece.offset + piece.len);
        }
        prop_assert_eq!(walk.next(), None);
    }

    #[test]
    fn lengths_beyond_the_format_are_refused(len in 125_798_000_001u64.., offset: u64, limit: u64) {
        prop_assert_eq!(map_range(len, offset, limit).err(), Some(CryptoError::TooLong));
    }
}
