//! Words of the command line as values of the API.

use std::collections::BTreeSet;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use prost::{Message, Name};
use prost_reflect::{FieldDescriptor, Kind};
use prost_types::{Duration, Timestamp};
use serde_json::{Map, Value};

use super::json;
use crate::{
    cli::CliError,
    domain::clock::{Clock, SystemClock},
    proto::v1::{
        Channel, Direction, ErasureGround, LegalBasis, Purpose, RecordKind, RetentionAction, TenantRole,
        subject_identifier::Identifier,
    },
};

/// `key=value`.
pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("must be key=value".to_owned()),
    }
}

/// Refuses two values of one label: a map would keep the last and say nothing.
pub(super) fn once_each(labels: &[(String, String)]) -> Result<(), CliError> {
    let mut keys = BTreeSet::new();
    match labels.iter().find(|(key, _)| !keys.insert(key)) {
        Some((key, _)) => Err(CliError::usage(format!("--label {key} is given twice"))),
        None => Ok(()),
    }
}

/// A person's identifier: with `+` in front a telephone number, with `@` within an e-mail address, else the platform's own id.
pub(super) fn subject(text: &str) -> Result<Identifier, String> {
    Ok(match text {
        "" => return Err("must not be empty".to_owned()),
        tel if tel.starts_with('+') => Identifier::Tel(tel.to_owned()),
        mailto if mailto.contains('@') => Identifier::Mailto(mailto.to_owned()),
        id => Identifier::ExternalSubjectId(id.to_owned()),
    })
}

/// A SHA-256: in hex, as text has it, or in base64, as JSON has it.
pub(super) fn sha256(text: &str) -> Result<Bytes, String> {
    let bytes = hex::decode(text).or_else(|_| STANDARD.decode(text));
    match bytes {
        Ok(bytes) if bytes.len() == 32 => Ok(bytes.into()),
        _ => Err("must be a SHA-256: 64 hexadecimal digits".to_owned()),
    }
}

/// A moment: RFC 3339 (`2026-05-01`, `2026-05-01T10:00:00Z`), or how long ago (`2h`, `30d`).
pub(super) fn moment(text: &str) -> Result<Timestamp, String> {
    if let Ok(ago) = humantime::parse_duration(text) {
        let micros = i64::try_from(ago.as_micros()).map_err(|_| "too long ago")?;
        return Ok(timestamp(SystemClock.now().plus_micros(-micros).micros()));
    }
    let whole_day = format!("{text}T00:00:00Z");
    let text = if text.len() == 10 { &whole_day } else { text };
    let at = humantime::parse_rfc3339_weak(text).map_err(|_| {
        "must be a moment such as 2026-05-01 or 2026-05-01T10:00:00Z, or how long ago such as 2h".to_owned()
    })?;
    Ok(at.into())
}

/// A moment, and whether it was said as how long ago.
#[derive(Clone, Copy, Debug)]
pub(super) struct When {
    pub(super) at: Timestamp,
    pub(super) ago: bool,
}

/// A moment, with how it was said.
pub(super) fn when(text: &str) -> Result<When, String> {
    Ok(When {
        at: moment(text)?,
        ago: humantime::parse_duration(text).is_ok(),
    })
}

/// Now.
pub(super) fn now() -> Timestamp {
    timestamp(SystemClock.now().micros())
}

fn timestamp(micros: i64) -> Timestamp {
    Timestamp {
        seconds: micros.div_euclid(1_000_000),
        nanos: i32::try_from(micros.rem_euclid(1_000_000) * 1_000).unwrap_or(0),
    }
}

/// A length of time: `90`, `1m30s`, `12.5`.
pub(super) fn length(text: &str) -> Result<std::time::Duration, String> {
    if let Ok(seconds) = text.parse::<f64>() {
        return std::time::Duration::try_from_secs_f64(seconds).map_err(|e| e.to_string());
    }
    humantime::parse_duration(text)
        .map_err(|_| "must be a length of time such as 90, 1m30s or 500ms".to_owned())
}

/// The same for a message.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    Duration::try_from(length(text)?).map_err(|e| e.to_string())
}

macro_rules! terms {
    ($($name:ident, $enum:ident, $prefix:literal;)*) => {$(
        /// A term of the vocabulary, in any case: `voice`, `VOICE`, `ServiceProvision`, `service-provision`.
        pub(super) fn $name(text: &str) -> Result<i32, String> {
            let full = concat!("callvault.v1.", stringify!($enum));
            match $enum::from_str_name(&constant($prefix, text)) {
                Some(term) if term as i32 != 0 => Ok(term as i32),
                _ => Err(format!("must be one of: {}", words(full, $prefix))),
            }
        }
    )*};
}

terms! {
    channel, Channel, "CHANNEL";
    direction, Direction, "DIRECTION";
    purpose, Purpose, "PURPOSE";
    legal_basis, LegalBasis, "LEGAL_BASIS";
    kind, RecordKind, "RECORD_KIND";
    retention_action, RetentionAction, "RETENTION_ACTION";
    tenant_role, TenantRole, "TENANT_ROLE";
    ground, ErasureGround, "ERASURE_GROUND";
}

/// The word for a term: `CHANNEL_VOICE` is `voice`.
pub(super) fn word(prefix: &str, constant: &str) -> String {
    let bare = constant.strip_prefix(prefix).unwrap_or(constant);
    bare.trim_start_matches('_').to_lowercase().replace('_', "-")
}

fn words(full_name: &str, prefix: &str) -> String {
    let known = json::pool()
        .ok()
        .and_then(|pool| pool.get_enum_by_name(full_name));
    let values = known.iter().flat_map(|e| e.values().collect::<Vec<_>>());
    let words: Vec<_> = values
        .filter(|v| v.number() != 0)
        .map(|v| word(prefix, v.name()))
        .collect();
    words.join(" ")
}

/// The constant that a word means: `ServiceProvision` is `PURPOSE_SERVICE_PROVISION`.
fn constant(prefix: &str, text: &str) -> String {
    let mut out = prefix.to_owned();
    let mut last = '_';
    out.push('_');
    for c in text.chars() {
        if c.is_ascii_uppercase() && last.is_ascii_lowercase() {
            out.push('_');
        }
        out.push(if c == '-' { '_' } else { c.to_ascii_uppercase() });
        last = c;
    }
    match out.split_once(&format!("_{prefix}_")) {
        Some((_, named_in_full)) => format!("{prefix}_{named_in_full}"),
        None => out,
    }
}

/// A message from `field=value` pairs, and the paths that they name.
///
/// Lists are separated by commas, labels are `key:value`; a value that begins with `[` or `{` is protobuf JSON. An empty value
/// clears the field.
pub(super) fn message<M: Message + Name + Default>(
    pairs: &[(String, String)],
) -> Result<(M, Vec<String>), CliError> {
    let descriptor = json::describe::<M>()?;
    let mut object = Map::new();
    for (name, text) in pairs {
        let field = descriptor.get_field_by_name(name).ok_or_else(|| {
            let known: Vec<_> = descriptor.fields().map(|f| f.name().to_owned()).collect();
            CliError::usage(format!("no field `{name}`; there are: {}", known.join(" ")))
        })?;
        if object.contains_key(name) {
            return Err(CliError::usage(format!("field `{name}` is set twice")));
        }
        let value = if text.is_empty() {
            Value::Null
        } else {
            value(&field, text)?
        };
        object.insert(name.clone(), value);
    }
    let message = json::from_json(Value::Object(object))?;
    Ok((message, pairs.iter().map(|(name, _)| name.clone()).collect()))
}

fn value(field: &FieldDescriptor, text: &str) -> Result<Value, CliError> {
    let wrong = |error: String| CliError::usage(format!("{}: {error}", field.name()));
    if text.starts_with(['[', '{']) {
        return serde_json::from_str(text).map_err(|e| wrong(e.to_string()));
    }
    if field.is_map() {
        let entry = |item: &str| {
            let (key, value) = item
                .split_once([':', '='])
                .ok_or_else(|| wrong("must be key:value,...".to_owned()))?;
            Ok((key.to_owned(), Value::String(value.to_owned())))
        };
        return Ok(Value::Object(
            text.split(',').map(entry).collect::<Result<_, CliError>>()?,
        ));
    }
    if field.is_list() {
        let items = text
            .split(',')
            .map(|item| single(field, item.trim()).map_err(wrong));
        return Ok(Value::Array(items.collect::<Result<_, _>>()?));
    }
    single(field, text).map_err(wrong)
}

fn single(field: &FieldDescriptor, text: &str) -> Result<Value, String> {
    match field.kind() {
        Kind::Enum(known) => {
            let zero = known.default_value();
            let prefix = zero.name().trim_end_matches("_UNSPECIFIED").to_owned();
            let name = constant(&prefix, text);
            match known.get_value_by_name(&name) {
                Some(value) if value.number() != 0 => Ok(Value::String(name)),
                _ => Err(format!("must be one of: {}", words(known.full_name(), &prefix))),
            }
        }
        Kind::Message(m) if m.full_name() == "google.protobuf.Timestamp" => {
            Ok(Value::String(moment(text)?.to_string()))
        }
        Kind::Message(m) if m.full_name() == "google.protobuf.Duration" => {
            let length = length(text)?;
            Ok(Value::String(format!(
                "{}.{:09}s",
                length.as_secs(),
                length.subsec_nanos()
            )))
        }
        Kind::Message(_) => Err("write it as protobuf JSON".to_owned()),
        _ => Ok(Value::String(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::v1::{Descriptor, Tenant};

    fn set(pairs: &[(&str, &str)]) -> Result<(Descriptor, Vec<String>), CliError> {
        let pairs: Vec<_> = pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        message(&pairs)
    }

    #[test]
    fn terms_are_read_in_any_case() {
        for text in [
            "ServiceProvision",
            "service-provision",
            "SERVICE_PROVISION",
            "PURPOSE_SERVICE_PROVISION",
        ] {
            assert_eq!(purpose(text), Ok(Purpose::ServiceProvision as i32), "{text}");
        }
        assert!(purpose("fun").unwrap_err().contains("customer-care"));
        assert!(channel("unspecified").is_err());
    }

    #[test]
    fn a_descriptor_is_made_of_pairs() {
        let (descriptor, paths) = set(&[
            ("direction", "outbound"),
            ("languages", "es-MX, en"),
            ("labels", "queue:sales,priority:1"),
            ("duration", "1m30s"),
            ("start_time", "2026-05-01T10:00:00Z"),
            ("allowed_purposes", "ServiceProvision,LegalCompliance"),
            ("parties", r#"[{"role":"PARTY_ROLE_AGENT","agent_id":"a-1"}]"#),
            ("notice_version", ""),
        ])
        .unwrap();
        assert_eq!(descriptor.direction(), Direction::Outbound);
        assert_eq!(descriptor.languages, ["es-MX", "en"]);
        assert_eq!(descriptor.labels["queue"], "sales");
        assert_eq!(descriptor.duration.unwrap().seconds, 90);
        assert_eq!(descriptor.start_time.unwrap().seconds, 1_777_629_600);
        assert_eq!(descriptor.allowed_purposes.len(), 2);
        assert_eq!(descriptor.parties[0].agent_id, "a-1");
        assert_eq!(paths.len(), 8);
    }

    #[test]
    fn what_is_not_a_field_is_named() {
        for bad in [
            ("colour", "red"),
            ("direction", "sideways"),
            ("labels", "x"),
            ("parties", "["),
        ] {
            let error = set(&[bad]).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(bad.0), "{error}");
        }
        assert!(set(&[("source", "a"), ("source", "b")]).is_err());
    }

    #[test]
    fn a_tenant_is_made_the_same_way() {
        let pairs = [("role".to_owned(), "processor".to_owned())];
        assert_eq!(message::<Tenant>(&pairs).unwrap().0.role(), TenantRole::Processor);
    }

    #[test]
    fn grounds_and_digests() {
        for (text, ground_of) in [
            ("a17", ErasureGround::A17),
            ("A7-3", ErasureGround::A73),
            ("retention-expired", ErasureGround::RetentionExpired),
            ("MandatoryDestruction", ErasureGround::MandatoryDestruction),
            ("contract-ended", ErasureGround::ContractEnded),
        ] {
            assert_eq!(ground(text), Ok(ground_of as i32), "{text}");
        }
        let digest = "ab".repeat(32);
        assert_eq!(sha256(&digest).unwrap()[..], [0xab; 32]);
        assert_eq!(sha256(&STANDARD.encode([0xab; 32])).unwrap()[..], [0xab; 32]);
        for bad in ["", "ab", &digest[1..], &"zz".repeat(32)] {
            assert!(sha256(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn moments_and_lengths() {
        assert_eq!(moment("1970-01-02").unwrap().seconds, 86_400);
        assert!(moment("2h").unwrap().seconds < now().seconds);
        assert!(moment("yesterday").is_err());
        assert_eq!(length("30").unwrap().as_secs(), 30);
        assert_eq!(length("1m30s").unwrap().as_secs(), 90);
        assert!(length("-1").is_err());
    }
}
