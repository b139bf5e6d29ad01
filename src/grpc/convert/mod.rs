//! Between the API's messages and the domain: every malformed field is refused by its path, nothing is guessed.

mod descriptor;
mod erasure;
mod key;
mod path;
mod query;
mod record;
mod tenant;
mod time;
mod upload;

use std::str::FromStr;

use crate::{
    domain::{ids::InvalidId, limits},
    vault::Error,
};

pub(super) use descriptor::{begin_spec, change, closing, message_spec, put_spec, size};
pub(super) use erasure::{
    erasure_spec, erasure_to_proto, ground, pending_deletion_to_proto, preview_to_proto, sweep_to_proto,
    target,
};
pub(super) use key::{epoch_to_proto, key_version_to_proto, operation_to_proto, signing_key_to_proto};
pub(super) use path::Path;
pub(super) use query::{order, query};
pub(super) use record::{corrected_to_proto, record_to_proto, written_to_proto};
pub(super) use tenant::{class_from_proto, class_to_proto, settings, settings_change, tenant_to_proto};
pub(super) use upload::upload_to_proto;

/// A text that must be there.
pub(super) fn required<T: FromStr<Err = InvalidId>>(text: &str, at: &Path<'_>) -> Result<T, Error> {
    text.parse()
        .map_err(|invalid: InvalidId| at.refuse(format!("must be {}", invalid.rule)))
}

/// A text that may be left out.
pub(super) fn optional<T: FromStr<Err = InvalidId>>(text: &str, at: &Path<'_>) -> Result<Option<T>, Error> {
    if text.is_empty() {
        return Ok(None);
    }
    required(text, at).map(Some)
}

/// How many items a page may have.
pub(super) fn page_size(asked: i32) -> Result<usize, Error> {
    let at = Path::root("page_size");
    match u32::try_from(asked) {
        Ok(0) => Ok(limits::DEFAULT_PAGE_SIZE as usize),
        Ok(size) if size <= limits::PAGE_SIZE => Ok(size as usize),
        _ => Err(at.refuse(format!("must be 0 to {}", limits::PAGE_SIZE))),
    }
}

/// The paths of a field mask as names of `known` fields; `fixed` ones are refused with their own words.
fn masked(
    mask: Option<&prost_types::FieldMask>,
    known: &'static [&'static str],
    fixed: &[&str],
) -> Result<std::collections::BTreeSet<&'static str>, Error> {
    let at = Path::root("update_mask");
    let paths = mask.map(|mask| mask.paths.as_slice()).unwrap_or_default();
    if paths.is_empty() {
        return Err(at.refuse("must name what to change"));
    }
    let at = at.field("paths");
    let named = paths.iter().enumerate().map(|(index, path)| {
        let at = at.item(index);
        match known.iter().find(|name| *name == path) {
            Some(name) => Ok(*name),
            None if fixed.contains(&path.as_str()) => {
                Err(at.refuse(format!("cannot be changed path={path}")))
            }
            None => Err(at.refuse(format!("must be one of: {}{}", known.join(" "), shown(path)))),
        }
    });
    named.collect()
}

/// A path that looks like one is repeated to the caller; anything else might be anything.
fn shown(path: &str) -> String {
    let plain = path
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_.*".contains(&b));
    if plain && path.len() <= limits::LABEL_KEY_BYTES {
        format!(" path={path}")
    } else {
        String::new()
    }
}

/// A term of the vocabulary that must be there.
fn required_term<T>(number: i32, from: impl Fn(u32) -> Option<T>, at: &Path<'_>) -> Result<T, Error> {
    u32::try_from(number)
        .ok()
        .and_then(from)
        .ok_or_else(|| at.refuse("must be one of the known values and not unspecified"))
}

/// A term of the vocabulary that may be left out.
fn optional_term<T>(number: i32, from: impl Fn(u32) -> Option<T>, at: &Path<'_>) -> Result<Option<T>, Error> {
    if number == 0 {
        return Ok(None);
    }
    required_term(number, from, at).map(Some)
}

/// A list of terms; repetitions are one.
fn terms<T, C: FromIterator<T>>(
    numbers: &[i32],
    from: impl Fn(u32) -> Option<T>,
    at: &Path<'_>,
) -> Result<C, Error> {
    bounded(numbers.len(), limits::TERMS, at)?;
    let term = |(index, number): (usize, &i32)| required_term(*number, &from, &at.item(index));
    numbers.iter().enumerate().map(term).collect()
}

/// A list of texts.
fn texts<T: FromStr<Err = InvalidId>>(given: &[String], at: &Path<'_>) -> Result<Vec<T>, Error> {
    bounded(given.len(), limits::TERMS, at)?;
    let text = |(index, text): (usize, &String)| required(text, &at.item(index));
    given.iter().enumerate().map(text).collect()
}

fn bounded(have: usize, most: usize, at: &Path<'_>) -> Result<(), Error> {
    if have > most {
        return Err(at.refuse(format!("must have at most {most} items")));
    }
    Ok(())
}

/// The API's number of a term: the same as the stored one.
fn number(stored: u32) -> i32 {
    i32::try_from(stored).unwrap_or(0)
}

/// A number that counts something.
pub(super) fn not_negative(count: i64, at: &Path<'_>) -> Result<u64, Error> {
    u64::try_from(count).map_err(|_| at.refuse("must not be negative"))
}

/// Bytes as the API counts them.
pub(super) fn bytes(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
