//! Which bytes of a recording a stretch of time is: from the WAV header, or by the rate of raw G.711.

use std::time::Duration;

/// Bytes of the beginning in which a WAV header's `data` chunk must begin.
pub(super) const HEADER_BYTES: u64 = 64 << 10;
const G711_BYTE_RATE: u32 = 8_000;

/// How sound lies in the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// First byte of sound.
    data: u64,
    /// Byte behind the last one of sound; the end of the content when the header does not say.
    end: u64,
    /// Bytes of one second.
    byte_rate: u32,
    /// Bytes of one sample of all channels: a cut never falls within.
    block: u32,
    /// The content of the `fmt ` chunk.
    format: Vec<u8>,
}

impl Layout {
    /// Of content of this type and size that begins so.
    ///
    /// # Errors
    /// What to do instead, for content whose bytes have no fixed rate.
    pub(super) fn of(media_type: &str, size: u64, start: &[u8]) -> Result<Self, String> {
        let bare = media_type
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase();
        match bare.as_str() {
            "audio/pcmu" => Ok(Self::g711(7, size)),
            "audio/pcma" => Ok(Self::g711(6, size)),
            "audio/wav" | "audio/x-wav" | "audio/wave" | "audio/vnd.wave" => Self::wav(size, start)
                .ok_or_else(|| {
                    "the WAV header has no fixed byte rate or cannot be understood; use --offset and --limit"
                        .to_owned()
                }),
            _ => Err(format!(
                "times are known for WAV and raw G.711 only; use --offset and --limit media_type={media_type}"
            )),
        }
    }

    fn g711(tag: u16, size: u64) -> Self {
        let mut format = Vec::with_capacity(18);
        format.extend(tag.to_le_bytes());
        format.extend(1_u16.to_le_bytes());
        format.extend(G711_BYTE_RATE.to_le_bytes());
        format.extend(G711_BYTE_RATE.to_le_bytes());
        format.extend(1_u16.to_le_bytes());
        format.extend(8_u16.to_le_bytes());
        format.extend(0_u16.to_le_bytes());
        Self {
            data: 0,
            end: size,
            byte_rate: G711_BYTE_RATE,
            block: 1,
            format,
        }
    }

    /// Walks the chunks up to `data`. Source: Microsoft, "Multimedia Programming Interface and Data Specifications 1.0".
    fn wav(size: u64, start: &[u8]) -> Option<Self> {
        if !matches!(start.get(..4)?, b"RIFF" | b"RF64") || start.get(8..12)? != b"WAVE" {
            return None;
        }
        let mut at = 12;
        let mut format: Option<&[u8]> = None;
        loop {
            let name = start.get(at..at + 4)?;
            let length = u32::from_le_bytes(start.get(at + 4..at + 8)?.try_into().ok()?);
            at += 8;
            if name == b"data" {
                return Self::over(format?, at as u64, length, size);
            }
            let body = start.get(at..at.checked_add(length as usize)?)?;
            if name == b"fmt " {
                format = Some(body);
            }
            // Chunks begin at even places.
            at += body.len() + body.len() % 2;
        }
    }

    fn over(format: &[u8], data: u64, length: u32, size: u64) -> Option<Self> {
        let byte_rate = u32::from_le_bytes(format.get(8..12)?.try_into().ok()?);
        let block = u32::from(u16::from_le_bytes(format.get(12..14)?.try_into().ok()?));
        // Both are written by recorders that do not know the end yet.
        let end = if length == 0 || length == u32::MAX {
            size
        } else {
            size.min(data + u64::from(length))
        };
        (byte_rate > 0 && block > 0 && data < end).then(|| Self {
            data,
            end,
            byte_rate,
            block,
            format: format.to_vec(),
        })
    }

    /// First byte and number of bytes of a stretch of time; an end beyond the sound's is the sound's.
    ///
    /// # Errors
    /// What is wrong with the stretch.
    pub(super) fn range(&self, from: Duration, to: Option<Duration>) -> Result<(u64, u64), String> {
        let begin = self.byte(from);
        let end = to.map_or(self.end, |to| self.byte(to).min(self.end));
        if begin >= self.end {
            let seconds = (self.end - self.data) / u64::from(self.byte_rate);
            return Err(format!(
                "--from lies beyond the end of the recording length_seconds={seconds}"
            ));
        }
        if end <= begin {
            return Err("--to must be later than --from".to_owned());
        }
        Ok((begin, end - begin))
    }

    fn byte(&self, time: Duration) -> u64 {
        let bytes = time.as_nanos().saturating_mul(u128::from(self.byte_rate)) / 1_000_000_000;
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX / 2);
        (self.data).saturating_add(bytes - bytes % u64::from(self.block))
    }

    /// A header that makes `length` bytes of this sound a WAV file of their own.
    pub(super) fn header(&self, length: u64) -> Vec<u8> {
        let word = |n: u64| u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes();
        let format = self.format.len() as u64;
        let mut out = b"RIFF".to_vec();
        out.extend(word(4 + 8 + format + format % 2 + 8 + length));
        out.extend(b"WAVEfmt ");
        out.extend(word(format));
        out.extend(&self.format);
        out.resize(out.len() + self.format.len() % 2, 0);
        out.extend(b"data");
        out.extend(word(length));
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stereo, 16 bits, 8 kHz, with a chunk of odd length before the sound.
    fn wav(length: u32) -> Vec<u8> {
        let mut out =
            b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x02\0\x40\x1f\0\0\0\x7d\0\0\x04\0\x10\0".to_vec();
        out.extend(b"LIST\x03\0\0\0abc\0data");
        out.extend(length.to_le_bytes());
        out
    }

    const DATA: u64 = 56;

    #[test]
    fn seconds_become_bytes_of_whole_samples() {
        let layout = Layout::of("audio/wav", 10_000_000, &wav(9_600_000)).unwrap();
        let seconds = Duration::from_secs;
        assert_eq!(
            layout.range(seconds(30), Some(seconds(60))),
            Ok((DATA + 960_000, 960_000))
        );
        assert_eq!(layout.range(seconds(0), None), Ok((DATA, 9_600_000)));
        assert_eq!(
            layout.range(seconds(299), Some(seconds(900))),
            Ok((DATA + 299 * 32_000, 32_000))
        );
        let (begin, _) = layout.range(Duration::from_micros(100), None).unwrap();
        assert_eq!((begin - DATA) % 4, 0);
        assert!(
            layout
                .range(seconds(300), None)
                .unwrap_err()
                .contains("length_seconds=300")
        );
        assert!(layout.range(seconds(5), Some(seconds(5))).is_err());
    }

    #[test]
    fn a_header_without_a_length_means_all_that_is_there() {
        for unknown in [0, u32::MAX] {
            let layout = Layout::of("audio/wav", 32_000 + DATA, &wav(unknown)).unwrap();
            assert_eq!(layout.range(Duration::ZERO, None), Ok((DATA, 32_000)));
        }
    }

    #[test]
    fn raw_g711_has_one_rate() {
        let layout = Layout::of("audio/PCMU", 80_000, b"").unwrap();
        assert_eq!(
            layout.range(Duration::from_secs(2), Some(Duration::from_secs(3))),
            Ok((16_000, 8_000))
        );
    }

    #[test]
    fn a_slice_with_a_header_is_a_wav_file() {
        let layout = Layout::of("audio/wav", 10_000_000, &wav(9_600_000)).unwrap();
        let again = Layout::of("audio/wav", 44 + 960_000, &layout.header(960_000)).unwrap();
        assert_eq!(
            (again.data, again.end, again.byte_rate),
            (44, 44 + 960_000, 32_000)
        );
    }

    #[test]
    fn what_has_no_rate_is_refused_with_a_way_out() {
        for (media_type, start) in [
            ("audio/mpeg", &b"ID3"[..]),
            ("audio/wav", b"RIFF"),
            ("audio/wav", b"no header at all"),
        ] {
            let refused = Layout::of(media_type, 1_000, start).unwrap_err();
            assert!(refused.contains("--offset"), "{refused}");
        }
        for cut in 0..wav(0).len() {
            assert!(Layout::wav(1_000, &wav(0)[..cut]).is_none(), "{cut}");
        }
    }
}
