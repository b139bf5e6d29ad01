//! Keyed digests: the same input is recognised again, and nothing is told to who lacks the key. HMAC-SHA256 over a [`Context`].
//!
//! | function | key | label, after `callvault/v1/` | fields, in order |
//! |---|---|---|---|
//! | [`blind`] | index key | `identifier` | kind u32, normalised value |
//! | [`request_mac`] | request key | `request` | tenant, request id |
//! | [`request_fingerprint`] | request key | `request-fingerprint` | each part |
//! | [`record_fingerprint`] | fingerprint key of the record | `request-fingerprint` | each part |
//! | [`row_mac`] | row MAC key | `row` | key, value; the first 16 bytes |

use ring::hmac;
use subtle::ConstantTimeEq;

use super::{
    context::Context,
    secret::{FingerprintKey, IndexKey, RequestKey, RowMacKey},
};
use crate::domain::ids::{RequestId, TenantId};

/// Bytes of a row's MAC: 128 bits, as no one can try forgeries offline.
pub const ROW_MAC_LEN: usize = 16;

/// What kind of thing an identifier names. The numbers are for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum IdentifierKind {
    /// E.164 with the plus sign.
    Tel = 1,
    /// E-mail address.
    Mailto = 2,
    /// The platform's id of a person.
    ExternalSubject = 3,
    /// The platform's id of an agent.
    Agent = 4,
    /// The platform's id of a conversation.
    Conversation = 5,
    /// The platform's id of a call or message.
    ExternalRecord = 6,
    /// A query of records, as bytes that say all of it, in hexadecimal digits: what an erasure was asked for.
    Query = 7,
}

impl IdentifierKind {
    /// The stored number.
    pub fn number(self) -> u32 {
        self as u32
    }
}

/// Blinds an identifier that has been normalised: equal people must be spelt equally before they come here.
pub fn blind(key: &IndexKey, kind: IdentifierKind, normalised: &str) -> [u8; 32] {
    let context = Context::new("callvault/v1/identifier")
        .u32(kind.number())
        .text(normalised);
    mac(key.expose(), context)
}

/// Keys a request id, so that a retry is recognised and the id itself is stored nowhere.
pub fn request_mac(key: &RequestKey, tenant: &TenantId, request_id: &RequestId) -> [u8; 32] {
    let context = Context::new("callvault/v1/request")
        .text(tenant.as_str())
        .text(request_id.as_str());
    mac(key.expose(), context)
}

/// Keyed digest of what a request asks for, part by part: the same id with other content is another request.
///
/// For what is about no record: the key lives as long as the tenant. [`record_fingerprint`] is for the rest.
pub fn request_fingerprint(key: &RequestKey, parts: &[&[u8]]) -> [u8; 32] {
    fingerprint(key.expose(), parts)
}

/// Likewise of what a request asks of one record, under a key that dies with it: no guess of it can be confirmed then.
pub fn record_fingerprint(key: &FingerprintKey, parts: &[&[u8]]) -> [u8; 32] {
    fingerprint(key.expose(), parts)
}

/// Whether `stored` is this fingerprint, in a time that tells nothing.
pub fn is_fingerprint(computed: &[u8; 32], stored: &[u8]) -> bool {
    computed.as_slice().ct_eq(stored).into()
}

fn fingerprint(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    let start = Context::new("callvault/v1/request-fingerprint");
    mac(key, parts.iter().fold(start, |context, part| context.bytes(part)))
}

/// MAC of an index row, bound to its key.
pub fn row_mac(key: &RowMacKey, key_bytes: &[u8], value: &[u8]) -> [u8; ROW_MAC_LEN] {
    let whole = mac(
        key.expose(),
        Context::new("callvault/v1/row").bytes(key_bytes).bytes(value),
    );
    let mut short = [0; ROW_MAC_LEN];
    short.copy_from_slice(&whole[..ROW_MAC_LEN]);
    short
}

/// Whether `stored` is the row's MAC, in a time that tells nothing.
pub fn row_mac_ok(key: &RowMacKey, key_bytes: &[u8], value: &[u8], stored: &[u8]) -> bool {
    row_mac(key, key_bytes, value).as_slice().ct_eq(stored).into()
}

fn mac(key: &[u8; 32], context: Context) -> [u8; 32] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), &context.finish());
    let mut out = [0; 32];
    out.copy_from_slice(tag.as_ref());
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::crypto::{kdf, secret::Dek};

    #[test]
    fn kinds_keep_their_numbers() {
        use IdentifierKind::*;
        let numbers = [Tel, Mailto, ExternalSubject, Agent, Conversation, ExternalRecord].map(|k| k.number());
        assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn kind_value_and_key_matter() {
        let (key, other) = (IndexKey::from_bytes([1; 32]), IndexKey::from_bytes([2; 32]));
        let tel = blind(&key, IdentifierKind::Tel, "+431234567");
        assert_eq!(tel, blind(&key, IdentifierKind::Tel, "+431234567"));
        assert_ne!(tel, blind(&key, IdentifierKind::Agent, "+431234567"));
        assert_ne!(tel, blind(&key, IdentifierKind::Tel, "+431234568"));
        assert_ne!(tel, blind(&other, IdentifierKind::Tel, "+431234567"));
    }

    #[test]
    fn request_ids_are_per_tenant_and_parts_keep_their_boundaries() {
        let key = RequestKey::from_bytes([1; 32]);
        let (a, b) = ("a".parse().unwrap(), "b".parse().unwrap());
        let id = "r-1".parse().unwrap();
        assert_ne!(request_mac(&key, &a, &id), request_mac(&key, &b, &id));
        assert_ne!(
            request_fingerprint(&key, &[b"ab", b"c"]),
            request_fingerprint(&key, &[b"a", b"bc"])
        );
    }

    #[test]
    fn a_fingerprint_is_its_records_own() {
        let of = |dek: u8| kdf::fingerprint_key(&Dek::from_bytes([dek; 32]));
        let stored = record_fingerprint(&of(1), &[b"asked"]);
        assert!(is_fingerprint(&record_fingerprint(&of(1), &[b"asked"]), &stored));
        for other in [
            record_fingerprint(&of(1), &[b"other"]),
            record_fingerprint(&of(2), &[b"asked"]),
            request_fingerprint(&RequestKey::from_bytes([1; 32]), &[b"asked"]),
        ] {
            assert!(!is_fingerprint(&other, &stored));
        }
        for cut in [&stored[..31], &[]] {
            assert!(!is_fingerprint(&stored, cut));
        }
    }

    proptest! {
        #[test]
        fn a_row_answers_to_its_own_mac_only(key: Vec<u8>, value: Vec<u8>, bit in 0..128usize) {
            let mac_key = RowMacKey::from_bytes([9; 32]);
            let mut mac = row_mac(&mac_key, &key, &value);
            prop_assert!(row_mac_ok(&mac_key, &key, &value, &mac));
            prop_assert!(!row_mac_ok(&mac_key, &key, &value, &mac[..15]));
            mac[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!row_mac_ok(&mac_key, &key, &value, &mac));
        }
    }
}
