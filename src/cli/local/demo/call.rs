//! A telephone call that nobody made: two voices in turns, with syllables, pauses and line noise.
//!
//! Sums of harmonics under syllable envelopes; the same bytes every time.

use std::f64::consts::TAU;

const RATE: u32 = 8_000;
/// Five minutes: 9.6 MB, so that it crosses an extent.
const SECONDS: u32 = 300;
const BLOCK: u32 = 4;
/// Samples of one period of a voice.
const TABLE: usize = 1_024;
/// Amplitude of the line's noise, of 32,767.
const NOISE: u32 = 48;

/// The whole file: stereo, 16 bits, 8 kHz, customer left, agent right.
pub(super) fn wav() -> Vec<u8> {
    let frames = RATE * SECONDS;
    let mut out = header(frames * BLOCK);
    out.reserve((frames * BLOCK) as usize);
    let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
    // Formants near an open vowel, a lower voice and a higher one.
    let mut voices = [
        Voice::new(&[1.0, 0.8, 0.55, 0.6, 0.3, 0.12, 0.08], 118.0),
        Voice::new(&[1.0, 0.5, 0.7, 0.2, 0.15, 0.05], 205.0),
    ];
    let (mut speaker, mut left_in_turn) = (1, 0);
    for _ in 0..frames {
        if left_in_turn == 0 {
            speaker = 1 - speaker;
            left_in_turn = chance.between(2 * RATE, 9 * RATE);
        }
        left_in_turn -= 1;
        for (channel, voice) in voices.iter_mut().enumerate() {
            let sound = voice.next(channel == speaker, &mut chance);
            let noise = f64::from(chance.between(0, 2 * NOISE)) - f64::from(NOISE);
            #[allow(clippy::cast_possible_truncation)] // within 16 bits by the amplitudes
            out.extend(((sound + noise) as i16).to_le_bytes());
        }
    }
    out
}

/// Frequency, loudness and time left of one syllable or pause.
struct Voice {
    table: Vec<f64>,
    pitch: f64,
    phase: f64,
    step: f64,
    loudness: f64,
    length: u32,
    at: u32,
}

impl Voice {
    #[allow(clippy::cast_precision_loss)] // small numbers
    fn new(harmonics: &[f64], pitch: f64) -> Self {
        let sum: f64 = harmonics.iter().sum();
        let sample = |i: usize| {
            let turn = TAU * i as f64 / TABLE as f64;
            let tones = harmonics.iter().enumerate();
            tones
                .map(|(n, loud)| loud * (turn * (n + 1) as f64).sin())
                .sum::<f64>()
                / sum
        };
        Self {
            table: (0..TABLE).map(sample).collect(),
            pitch,
            phase: 0.0,
            step: 0.0,
            loudness: 0.0,
            length: 0,
            at: 0,
        }
    }

    fn next(&mut self, speaks: bool, chance: &mut Chance) -> f64 {
        if self.at >= self.length {
            self.begin(speaks, chance);
        }
        self.at += 1;
        if self.loudness == 0.0 {
            return 0.0;
        }
        let part = f64::from(self.at) / f64::from(self.length);
        // Up fast, down slowly, as syllables are.
        let envelope = 6.75 * part * (1.0 - part) * (1.0 - part);
        self.phase = (self.phase + self.step * (1.0 - 0.12 * part)) % 1.0;
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss
        )] // 0..TABLE
        let index = (self.phase * TABLE as f64) as usize;
        self.table.get(index).copied().unwrap_or_default() * self.loudness * envelope
    }

    fn begin(&mut self, speaks: bool, chance: &mut Chance) {
        self.at = 0;
        let pauses = !speaks || chance.between(0, 6) == 0;
        if pauses {
            self.loudness = 0.0;
            self.length = chance.between(RATE / 20, RATE / 4);
            return;
        }
        self.length = chance.between(RATE / 10, RATE / 3);
        self.loudness = f64::from(chance.between(6_000, 17_000));
        self.step = self.pitch * f64::from(chance.between(88, 125)) / 100.0 / f64::from(RATE);
    }
}

/// Xorshift: the same chances every time.
struct Chance(u64);

impl Chance {
    fn between(&mut self, low: u32, high: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        #[allow(clippy::cast_possible_truncation)] // the upper half is meant
        let random = (self.0 >> 32) as u32;
        low + random % (high - low)
    }
}

fn header(data: u32) -> Vec<u8> {
    let mut out = b"RIFF".to_vec();
    out.extend((36 + data).to_le_bytes());
    out.extend(b"WAVEfmt ");
    out.extend(16_u32.to_le_bytes());
    for half in [1_u16, 2] {
        out.extend(half.to_le_bytes());
    }
    for word in [RATE, RATE * BLOCK] {
        out.extend(word.to_le_bytes());
    }
    for half in [4_u16, 16] {
        out.extend(half.to_le_bytes());
    }
    out.extend(b"data");
    out.extend(data.to_le_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_call_is_the_same_every_time_and_never_silent() {
        let call = wav();
        assert_eq!(call.len(), 44 + 9_600_000);
        assert_eq!(call, wav());
        let quiet = call[44..]
            .chunks_exact(32)
            .filter(|window| window.iter().all(|b| *b == 0));
        assert_eq!(quiet.count(), 0);
        let loudest = call[44..]
            .chunks_exact(2)
            .map(|s| i16::from_le_bytes([s[0], s[1]]).unsigned_abs())
            .max();
        assert!((10_000..32_000).contains(&loudest.unwrap()), "{loudest:?}");
    }
}
