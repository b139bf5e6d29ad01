//! Identifiers: parsed once, valid for ever after.

use std::{fmt, str::FromStr};

use uuid::Uuid;

use super::clock::{Rng, RngFailed, Timestamp};

/// A string that is not the identifier it was said to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} must be {rule}")]
pub struct InvalidId {
    /// Which identifier.
    pub what: &'static str,
    /// What it must look like.
    pub rule: &'static str,
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl $name {
            /// Mints a UUIDv7 (RFC 9562 section 5.7).
            ///
            /// # Errors
            /// [`RngFailed`] if no randomness is to be had.
            pub fn mint(now: Timestamp, rng: &dyn Rng) -> Result<Self, RngFailed> {
                let mut random = [0; 10];
                rng.fill(&mut random)?;
                let millis = u64::try_from(now.millis()).unwrap_or(0);
                let id = uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid();
                Ok(Self(id.into_bytes()))
            }

            /// No id that is minted from `at` on comes before this one, to the millisecond.
            pub fn earliest(at: Timestamp) -> Self {
                let millis = u64::try_from(at.millis()).unwrap_or(0);
                let id = uuid::Builder::from_unix_timestamp_millis(millis, &[0; 10]).into_uuid();
                Self(id.into_bytes())
            }

            /// From 16 bytes as stored.
            ///
            /// # Errors
            /// [`InvalidId`] unless `bytes` are a UUIDv7.
            pub fn from_slice(bytes: &[u8]) -> Result<Self, InvalidId> {
                let id = Uuid::from_slice(bytes).map_err(|_| Self::invalid())?;
                if id.get_version_num() != 7 {
                    return Err(Self::invalid());
                }
                Ok(Self(id.into_bytes()))
            }

            /// The 16 bytes, big-endian, ordered by time of minting.
            pub fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }

            fn invalid() -> InvalidId {
                InvalidId { what: $what, rule: "a lowercase UUIDv7" }
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let id = Uuid::try_parse(text).map_err(|_| Self::invalid())?;
                if id.hyphenated().to_string() != text {
                    return Err(Self::invalid());
                }
                Self::from_slice(id.as_bytes())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                Uuid::from_bytes(self.0).hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

uuid_id!(
    /// One stored thing: a recording, a message or an artifact.
    RecordId,
    "record_id"
);
uuid_id!(
    /// A puncturable set of slot keys.
    PageId,
    "page_id"
);
uuid_id!(
    /// This vault, whatever machine or bucket it moves to.
    VaultId,
    "vault_id"
);
uuid_id!(
    /// Long work that was asked for.
    OperationId,
    "operation_id"
);
uuid_id!(
    /// A compliance case that leads to a shred.
    ErasureId,
    "erasure_id"
);
uuid_id!(
    /// One index of a vault; a vault serves from one at a time.
    IndexId,
    "index_id"
);

macro_rules! name_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:literal, $rule:literal, $ok:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// Longest allowed, in bytes.
            pub const MAX_LEN: usize = $max;

            /// The identifier's text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let valid: fn(&str) -> bool = $ok;
                if text.is_empty() || text.len() > $max || !valid(text) {
                    return Err(InvalidId { what: $what, rule: $rule });
                }
                Ok(Self(text.to_owned()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

/// Lowercase letters, digits and hyphens, beginning and ending with a letter or digit.
fn is_label(text: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = text.as_bytes();
    edge(bytes.first())
        && edge(bytes.last())
        && bytes
            .iter()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}

/// Text of the platform's own making: no control characters, no surrounding white space.
fn is_plain(text: &str) -> bool {
    text.trim() == text && !text.chars().any(char::is_control)
}

name_id!(
    /// The isolation unit. Appears in object names: never personal.
    TenantId,
    "tenant_id",
    63,
    "1 to 63 lowercase letters, digits and hyphens, beginning and ending with a letter or digit",
    is_label
);
name_id!(
    /// A region's name. Appears in object names.
    RegionName,
    "region",
    63,
    "1 to 63 lowercase letters, digits and hyphens, beginning and ending with a letter or digit",
    is_label
);
name_id!(
    /// A retention class of one tenant. Policy, never personal.
    RetentionClassId,
    "retention_class",
    63,
    "1 to 63 lowercase letters, digits and hyphens, beginning and ending with a letter or digit",
    is_label
);
name_id!(
    /// The platform's conversation. Personal: only ever stored sealed or blinded.
    ConversationId,
    "conversation_id",
    256,
    "1 to 256 bytes of text without control characters or surrounding spaces",
    is_plain
);
name_id!(
    /// The platform's id of a call or message, unique per tenant. Personal: only ever stored sealed or blinded.
    ExternalId,
    "external_id",
    256,
    "1 to 256 bytes of text without control characters or surrounding spaces",
    is_plain
);
name_id!(
    /// A caller's idempotency key. Only ever stored keyed.
    RequestId,
    "request_id",
    128,
    "1 to 128 printable ASCII characters without spaces",
    |text: &str| text.bytes().all(|b| b.is_ascii_graphic())
);

/// Policy names may be logged; the platform's own ids may name people and may not.
macro_rules! debug_open {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    )*};
}
macro_rules! debug_redacted {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({} bytes)"), self.0.len())
            }
        }
    )*};
}
debug_open!(TenantId, RegionName, RetentionClassId);
debug_redacted!(ConversationId, ExternalId, RequestId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenant_ids_are_labels() {
        for good in ["a", "dev", "acme-2", "0x"] {
            assert!(good.parse::<TenantId>().is_ok(), "{good}");
        }
        let long = "a".repeat(64);
        for bad in ["", "-a", "a-", "A", "a/b", "a.b", "ä", "..", long.as_str()] {
            assert!(bad.parse::<TenantId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn uuids_have_one_spelling() {
        let good = "01890a5d-ac96-774b-bcce-b302099a8057";
        assert_eq!(good.parse::<RecordId>().unwrap().to_string(), good);
        for bad in [
            "01890A5D-AC96-774B-BCCE-B302099A8057",
            "01890a5dac96774bbcceb302099a8057",
            "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
            "",
        ] {
            assert!(bad.parse::<RecordId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn personal_ids_do_not_print_themselves() {
        let id: ExternalId = "call-of-jane".parse().unwrap();
        assert_eq!(format!("{id:?}"), "ExternalId(12 bytes)");
    }
}
