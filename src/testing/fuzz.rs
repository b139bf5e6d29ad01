//! Everything that reads what an attacker may have written, as functions of bytes: the targets in `fuzz/` call them, and so
//! do the tests here, with the seeds of `fuzz/seeds`.
//!
//! A finding is a panic.

#![allow(clippy::panic)] // a finding is a panic

use bytes::{Bytes, BytesMut};

use super::rng::SeededRng;
use crate::{
    blob::format::{Footer, Tail, find_footer},
    crypto::{
        page::PageState,
        secret::ContentKey,
        stream::{ExtentBuffer, ExtentOpener, HEADER_LEN, SEGMENT_LEN},
    },
    domain::media,
    ledger::leaf,
};

pub use crate::{
    grpc::fuzz::request,
    vault::fuzz::{descriptor, page_token},
};

/// A target by its name, and what runs it.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: &[Target] = &[
    ("descriptor", descriptor),
    ("footer", footer),
    ("page_token", page_token),
    ("request", request),
    ("stream", stream),
];

/// The end of a blob, a page's state, a leaf, and the start of a recording. What is taken is canonical: written again it is
/// what was read.
///
/// # Panics
/// If it is not.
pub fn footer(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    let found = find_footer(&bytes, bytes.len() as u64);
    if let Ok(Tail::Whole(encoded)) = &found
        && let Ok(footer) = Footer::decode(encoded)
    {
        let again = footer.encode().map(|again| again.bytes);
        assert_eq!(
            again.ok().as_deref(),
            Some(&data[data.len() - encoded.len() - 12..])
        );
    }
    // The checksum would keep most of what a fuzzer makes from the decoder.
    if let Ok(footer) = Footer::decode(&bytes) {
        let encoded = footer.encode().map(|again| again.bytes);
        assert!(encoded.is_ok_and(|again| again.starts_with(data)));
        assert!(footer.entry_offset(footer.entries.len()) == footer.content_length());
    }
    let _ = PageState::from_bytes(data);
    let _ = leaf::parse(&bytes);
    let _ = media::sniff(data);
}

/// An extent: nothing opens but what was sealed. The first four bytes say where it is changed and how; the rest is sealed.
///
/// # Panics
/// If a changed extent opens as something else than was sealed.
pub fn stream(data: &[u8]) {
    let Ok(key) = ContentKey::from_slice(&[3; 32]) else {
        return;
    };
    forged(&key, data);
    let Some(([high, low, kind, amount], text)) = data.split_first_chunk::<4>() else {
        return;
    };
    let mut buffer = ExtentBuffer::new(0, 0);
    // Repeated, so that short inputs reach several segments.
    for _ in 0..=(usize::from(*amount) % 3) {
        let mut chunk = Bytes::copy_from_slice(text);
        buffer.fill(&mut chunk);
    }
    let Ok(sealed) = buffer.seal(&key, b"aad", &SeededRng::new(1)) else {
        return;
    };
    let place = usize::from(u16::from_be_bytes([*high, *low])) * 31 % sealed.bytes.len();
    let mut changed = sealed.bytes.clone();
    match kind % 4 {
        0 => changed[place] ^= amount.max(&1),
        1 => changed.truncate(place),
        2 => changed.extend_from_slice(&[*amount; 3]),
        _ => changed.rotate_left(place),
    }
    let before = opened(&key, &sealed.bytes);
    assert!(before.is_some(), "what was sealed does not open");
    if changed != sealed.bytes {
        assert!(opened(&key, &changed).is_none(), "a changed extent opened");
    }
}

/// Nobody seals without the key.
fn forged(key: &ContentKey, data: &[u8]) {
    if data.len() > HEADER_LEN {
        assert!(
            opened(key, &BytesMut::from(data)).is_none(),
            "a forged extent opened"
        );
    }
}

fn opened(key: &ContentKey, extent: &BytesMut) -> Option<Vec<Bytes>> {
    let header = extent.first_chunk::<HEADER_LEN>()?;
    let opener = ExtentOpener::new(key, b"aad", header).ok()?;
    let last = u32::try_from((extent.len() - 1) / SEGMENT_LEN).ok()?;
    let body = BytesMut::from(&extent[HEADER_LEN..]);
    opener
        .open_run(0, last, body)
        .ok()
        .filter(|texts| !texts.is_empty())
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    #[test]
    fn every_target_runs_on_its_seeds() {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
        for (name, target) in TARGETS {
            let files: Vec<_> = fs::read_dir(seeds.join(name)).unwrap().collect();
            assert!(!files.is_empty(), "{name} has no seeds");
            for file in files {
                let seed = fs::read(file.unwrap().path()).unwrap();
                target(&seed);
                for cut in 0..seed.len().min(64) {
                    target(&seed[..cut]);
                }
            }
        }
    }

    #[test]
    fn every_target_has_its_file() {
        for (name, _) in TARGETS {
            let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fuzz/targets/{name}.rs"));
            assert!(
                fs::read_to_string(file)
                    .unwrap()
                    .contains(&format!("fuzz::{name}(data)"))
            );
        }
    }
}
