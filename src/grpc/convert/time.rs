//! Times and durations within the bounds of their well-known types.

use prost_types::{Duration as ProtoDuration, Timestamp as ProtoTimestamp};

use super::Path;
use crate::{domain::clock::Timestamp, vault::Error};

/// 0001-01-01T00:00:00Z.
const FIRST_SECOND: i64 = -62_135_596_800;
/// 9999-12-31T23:59:59Z.
const LAST_SECOND: i64 = 253_402_300_799;
/// About 10,000 years, as google.protobuf.Duration has it.
const LONGEST_SECONDS: i64 = 315_576_000_000;
const NANOS: std::ops::Range<i32> = 0..1_000_000_000;

/// A moment that may be left out; what is finer than a microsecond is dropped.
pub(super) fn optional_moment(
    given: Option<&ProtoTimestamp>,
    at: &Path<'_>,
) -> Result<Option<Timestamp>, Error> {
    let Some(given) = given else { return Ok(None) };
    if !(FIRST_SECOND..=LAST_SECOND).contains(&given.seconds) {
        return Err(at.refuse("must lie in the years 0001 to 9999"));
    }
    if !NANOS.contains(&given.nanos) {
        return Err(at.refuse("must have 0 to 999999999 nanos"));
    }
    Ok(Some(Timestamp(
        given.seconds * 1_000_000 + i64::from(given.nanos / 1_000),
    )))
}

/// A moment that must be there.
pub(super) fn moment(given: Option<&ProtoTimestamp>, at: &Path<'_>) -> Result<Timestamp, Error> {
    optional_moment(given, at)?.ok_or_else(|| at.refuse("is required"))
}

/// A duration that may be left out, in milliseconds; what is finer is dropped.
pub(super) fn optional_millis(given: Option<&ProtoDuration>, at: &Path<'_>) -> Result<Option<i64>, Error> {
    let Some(given) = given else { return Ok(None) };
    if !(0..=LONGEST_SECONDS).contains(&given.seconds) || !NANOS.contains(&given.nanos) {
        return Err(at.refuse("must not be negative, at most 315576000000 s, with 0 to 999999999 nanos"));
    }
    Ok(Some(given.seconds * 1_000 + i64::from(given.nanos / 1_000_000)))
}

pub(super) fn moment_to_proto(moment: Timestamp) -> ProtoTimestamp {
    ProtoTimestamp {
        seconds: moment.micros().div_euclid(1_000_000),
        nanos: fraction(moment.micros().rem_euclid(1_000_000), 1_000),
    }
}

pub(super) fn millis_to_proto(millis: i64) -> ProtoDuration {
    ProtoDuration {
        seconds: millis / 1_000,
        nanos: fraction(millis % 1_000, 1_000_000),
    }
}

fn fraction(units: i64, nanos_each: i64) -> i32 {
    i32::try_from(units * nanos_each).unwrap_or(0)
}
