//! Where a page of a listing ended: opaque to callers, bound to tenant, query and order by a MAC.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use prost::Message;

use crate::{
    crypto::{
        blind::{self, ROW_MAC_LEN},
        secret::RowMacKey,
    },
    domain::{clock::Timestamp, ids::RecordId},
    proto::storage::PageToken,
};

use super::Error;

/// Longer than any token that was given.
const LONGEST: usize = 256;

/// A token: where the page ended, and a MAC over it and what was asked (`stated`).
pub(super) fn seal(key: &RowMacKey, (start, record): (Timestamp, RecordId), stated: &[u8]) -> String {
    let token = PageToken {
        start_micros: start.micros(),
        record_id: record.as_bytes().to_vec().into(),
        name: String::new(),
    };
    let mut bytes = token.encode_to_vec();
    let mac = blind::row_mac(key, stated, &bytes);
    bytes.extend_from_slice(&mac);
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Where the page before ended.
///
/// # Errors
/// [`super::Kind::Invalid`] unless the token was sealed under this key for what is asked now.
pub(super) fn open(key: &RowMacKey, token: &str, stated: &[u8]) -> Result<(Timestamp, RecordId), Error> {
    if token.len() > LONGEST {
        return Err(refused());
    }
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| refused())?;
    let (message, mac) = bytes.split_last_chunk::<ROW_MAC_LEN>().ok_or_else(refused)?;
    if !blind::row_mac_ok(key, stated, message, mac) {
        return Err(refused());
    }
    let token = PageToken::decode(message).map_err(|_| refused())?;
    let record = RecordId::from_slice(&token.record_id).map_err(|_| refused())?;
    Ok((Timestamp(token.start_micros), record))
}

fn refused() -> Error {
    Error::invalid(
        "page_token",
        "must come from the response before, with the same query and order",
    )
}
