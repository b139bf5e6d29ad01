//! An anchor in tags of a key. A tag holds 256 characters, a key 50 tags, and nothing says that tags which are set together
//! appear together.
//!
//! ```text
//! callvault-anchor         "<slot>.<n>.<first 240 characters of the anchor's base64url>"   written last: it commits
//! callvault-anchor-<slot>-<i>   256 characters more each, i in 0..n
//! ```
//!
//! There are two slots, a and b; a new anchor goes where the last one is not. One head, which is what a quiet vault has, fits
//! the first tag, and is written by one request.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::keys::provider::ProviderError;

const COMMIT: &str = "callvault-anchor";
/// Of a tag's 256 characters, what slot and number leave.
const FIRST_LEN: usize = 240;
const TAG_LEN: usize = 256;
/// Two slots of these, the first tag and those of [`super::keys`] leave an operator five of a key's 50.
const PARTS_MAX: usize = 20;

/// Where an anchor's parts lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    /// `a`.
    A,
    /// `b`.
    B,
}

impl Slot {
    pub(super) fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    fn letter(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }

    fn of(letter: &str) -> Option<Self> {
        [Self::A, Self::B]
            .into_iter()
            .find(|slot| slot.letter() == letter)
    }

    fn part(self, number: usize) -> String {
        format!("{COMMIT}-{}-{number}", self.letter())
    }
}

/// The tags of an anchor's bytes: what is to be set, one request after the other.
///
/// # Errors
/// [`ProviderError::Unavailable`] if there is no room for them.
pub(super) fn write(bytes: &[u8], slot: Slot) -> Result<Vec<Vec<(String, String)>>, ProviderError> {
    let text = URL_SAFE_NO_PAD.encode(bytes);
    let (first, rest) = text.split_at(text.len().min(FIRST_LEN));
    let parts: Vec<_> = rest
        .as_bytes()
        .chunks(TAG_LEN)
        .enumerate()
        .map(|(number, part)| (slot.part(number), String::from_utf8_lossy(part).into_owned()))
        .collect();
    if parts.len() > PARTS_MAX {
        return Err(ProviderError::unavailable(
            "the anchor has more heads than a key's tags have room for",
        ));
    }
    let commit = format!("{}.{}.{first}", slot.letter(), parts.len());
    let commit = vec![(COMMIT.to_owned(), commit)];
    Ok(match parts.is_empty() {
        true => vec![commit],
        false => vec![parts, commit],
    })
}

/// The bytes that tags hold, and where; `None` if no anchor was ever set. Bytes that are not what was written are none of an
/// anchor.
pub(super) fn read(kept: &BTreeMap<String, String>) -> Option<(Vec<u8>, Slot)> {
    let commit = kept.get(COMMIT)?;
    let mut fields = commit.splitn(3, '.');
    let mut field = || fields.next().unwrap_or_default();
    let (slot, number, first) = (Slot::of(field()).unwrap_or(Slot::B), field(), field());
    let number = number.parse::<usize>().unwrap_or(0).min(PARTS_MAX);
    let parts = (0..number).filter_map(|number| kept.get(&slot.part(number)));
    let text: String = std::iter::once(first).chain(parts.map(String::as_str)).collect();
    Some((URL_SAFE_NO_PAD.decode(text).unwrap_or_default(), slot))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(kept: &mut BTreeMap<String, String>, steps: Vec<Vec<(String, String)>>) {
        for step in steps {
            kept.extend(step);
        }
    }

    #[test]
    fn anchors_of_any_length_are_read_as_they_were_written() {
        let mut kept = BTreeMap::from([("cost-centre".to_owned(), "4711".to_owned())]);
        assert_eq!(read(&kept), None);
        let mut slot = Slot::B;
        for length in [0, 1, 179, 180, 181, 372, 373, 1_700, 4_000, 200, 10] {
            slot = slot.other();
            let bytes: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
            let steps = write(&bytes, slot).unwrap();
            assert_eq!(steps.len() == 1, length <= 180);
            for (key, value) in steps.iter().flatten() {
                assert!(key.len() <= 128 && value.len() <= 256);
                let allowed = |c: char| c.is_ascii_alphanumeric() || " +-=._:/@".contains(c);
                assert!(value.chars().all(allowed), "{value}");
            }
            set(&mut kept, steps);
            assert_eq!(read(&kept), Some((bytes, slot)));
            assert!(kept.len() <= 45, "{}", kept.len());
        }
        assert!(write(&[0; 4_100], Slot::A).is_err());
    }

    #[test]
    fn a_write_that_was_cut_short_leaves_the_anchor_before_it() {
        let mut kept = BTreeMap::new();
        let (before, after) = (vec![1; 900], vec![2; 1_500]);
        set(&mut kept, write(&before, Slot::A).unwrap());
        let mut steps = write(&after, Slot::B).unwrap();
        let commit = steps.pop().unwrap();
        for part in steps.into_iter().flatten() {
            set(&mut kept, vec![vec![part]]);
            assert_eq!(read(&kept), Some((before.clone(), Slot::A)));
        }
        set(&mut kept, vec![commit]);
        assert_eq!(read(&kept), Some((after, Slot::B)));
    }

    #[test]
    fn whatever_stands_in_a_tag_is_bytes_or_none() {
        for text in [
            "",
            ".",
            "a",
            "a.",
            "a.1.",
            "c.0.AAAA",
            "a.99999999999999999999.AA",
            "a.0.!!",
            "...",
        ] {
            let kept = BTreeMap::from([(COMMIT.to_owned(), text.to_owned())]);
            assert!(read(&kept).is_some(), "{text}");
        }
    }
}
