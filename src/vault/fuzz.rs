//! What a vault reads of what others wrote, as fuzz targets.

use prost::Message;

use crate::{
    crypto::{blind, secret::RowMacKey},
    domain::{clock::Timestamp, ids::RecordId},
    proto::storage,
};

use super::{descriptor, page_token};

/// A descriptor that opened is read without a panic, and what was read is written as something that reads the same.
pub fn descriptor(data: &[u8]) {
    let Ok(message) = storage::Descriptor::decode(data) else {
        return;
    };
    let Ok(read) = descriptor::from_proto(message) else {
        return;
    };
    let again = descriptor::from_proto(descriptor::to_proto(&read));
    assert_eq!(again.ok(), Some(read), "a descriptor changed by being written");
}

/// No token passes but one that was sealed for the same question; the first byte of `data` is what differs.
///
/// # Panics
/// If one does: that is the finding.
pub fn page_token(data: &[u8]) {
    let Ok(key) = RowMacKey::from_slice(&[7; 32]) else {
        return;
    };
    let (Some((flip, rest)), stated) = (data.split_first(), b"a question") else {
        return;
    };
    if let Ok(text) = std::str::from_utf8(rest) {
        assert!(
            page_token::open(&key, text, stated).is_err(),
            "a forged token passed"
        );
    }
    let Some((start, id)) = rest.split_first_chunk::<8>() else {
        return;
    };
    // Behind the MAC: whatever was sealed is read without a panic.
    behind_the_mac(&key, rest, stated);
    let Ok(record) = RecordId::from_slice(id) else {
        return;
    };
    let at = (Timestamp(i64::from_be_bytes(*start)), record);
    let token = page_token::seal(&key, at, stated);
    assert_eq!(page_token::open(&key, &token, stated).ok(), Some(at));
    assert!(
        page_token::open(&key, &token, b"another question").is_err(),
        "a token passed for another question"
    );
    let mut forged = token.clone().into_bytes();
    let place = usize::from(*flip) % forged.len();
    forged[place] = if forged[place] == b'A' { b'B' } else { b'A' };
    if let Ok(text) = std::str::from_utf8(&forged) {
        assert!(
            page_token::open(&key, text, stated).is_err(),
            "a changed token passed"
        );
    }
}

fn behind_the_mac(key: &RowMacKey, message: &[u8], stated: &[u8]) {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    let mut bytes = message.to_vec();
    bytes.extend_from_slice(&blind::row_mac(key, stated, message));
    let _ = page_token::open(key, &URL_SAFE_NO_PAD.encode(bytes), stated);
}
