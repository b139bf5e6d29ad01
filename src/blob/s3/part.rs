//! What a completion must say of every part.
//!
//! A store that was told of CRC-32C at the beginning wants every part's again at the end. Receipts may outlive the process,
//! so both travel in the receipt's tag: `"etag" crc32c=BASE64`.

use aws_sdk_s3::types::CompletedPart;

use crate::blob::store::{PartReceipt, StoreError};

const SEPARATOR: &str = " crc32c=";

/// The tag of a part's receipt.
pub(super) fn tag(etag: &str, crc32c: Option<&str>) -> String {
    match crc32c {
        Some(crc32c) => format!("{etag}{SEPARATOR}{crc32c}"),
        None => etag.to_owned(),
    }
}

/// A receipt as a completion names it.
pub(super) fn completed(receipt: &PartReceipt) -> Result<CompletedPart, StoreError> {
    let (etag, crc32c) = match receipt.etag.split_once(SEPARATOR) {
        Some((etag, crc32c)) => (etag, Some(crc32c.to_owned())),
        None => (receipt.etag.as_str(), None),
    };
    let number = i32::try_from(receipt.number).map_err(|_| StoreError::Protocol("part number"))?;
    Ok(CompletedPart::builder()
        .part_number(number)
        .e_tag(etag)
        .set_checksum_crc32_c(crc32c)
        .build())
}
