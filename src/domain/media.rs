//! What content is, from its first bytes. Bytes are never transcoded.

use super::{ids::InvalidId, text::MediaType};

/// Bytes that [`sniff`] looks at.
pub const SNIFF_LEN: usize = 64;

/// The media type of content that begins so.
///
/// WAV (also RF64, and with unknown length), Ogg and Opus, MP3, FLAC, AMR, MP4; anything else is `application/octet-stream`. Raw
/// G.711 has no header: its uploader must say `audio/PCMU` or `audio/PCMA`.
///
/// # Errors
/// Never in practice: every answer parses.
pub fn sniff(start: &[u8]) -> Result<MediaType, InvalidId> {
    let at = |offset: usize, magic: &[u8]| start.get(offset..offset + magic.len()) == Some(magic);
    let name = if (at(0, b"RIFF") || at(0, b"RF64") || at(0, b"RIFX")) && at(8, b"WAVE") {
        "audio/wav"
    } else if at(0, b"OggS") && start.windows(8).any(|w| w == b"OpusHead") {
        "audio/ogg;codecs=opus"
    } else if at(0, b"OggS") {
        "audio/ogg"
    } else if at(0, b"fLaC") {
        "audio/flac"
    } else if at(0, b"#!AMR") {
        "audio/amr"
    } else if at(4, b"ftyp") {
        "audio/mp4"
    } else if at(0, b"ID3") || is_mp3_frame(start) {
        "audio/mpeg"
    } else {
        "application/octet-stream"
    };
    name.parse()
}

/// An MPEG audio frame header of layer III with a bit rate and a sampling rate that exist.
fn is_mp3_frame(start: &[u8]) -> bool {
    matches!(start, [0xff, b1, b2, ..]
        if b1 & 0xe6 == 0xe2 && b2 & 0xf0 != 0xf0 && b2 & 0xf0 != 0 && b2 & 0x0c != 0x0c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_known_by_its_first_bytes() {
        for (start, name) in [
            (&b"RIFF\xff\xff\xff\xffWAVEfmt "[..], "audio/wav"),
            (
                b"OggS\0\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x13OpusHead",
                "audio/ogg;codecs=opus",
            ),
            (b"ID3\x04", "audio/mpeg"),
            (b"\xff\xfb\x90\x64", "audio/mpeg"),
            (b"\xff\xff\xff\xff", "application/octet-stream"),
            (b"", "application/octet-stream"),
        ] {
            assert_eq!(sniff(start).unwrap().as_str(), name);
        }
    }
}
