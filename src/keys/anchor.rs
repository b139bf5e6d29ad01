//! The bytes of an anchor, wherever a root provider keeps them.
//!
//! ```text
//! "CVA1" | protobuf of the anchor | CRC-32C u32be
//! ```

use prost::Message;

use crate::{domain::ids::VaultId, proto::storage};

use super::provider::{Anchor, AnchoredHead, ProviderError};

const MAGIC: &[u8; 4] = b"CVA1";

/// The bytes of an anchor.
pub(super) fn encode(anchor: &Anchor) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    let message = storage::Anchor {
        vault_id: anchor.vault.as_bytes().to_vec().into(),
        region_seq: anchor.region_seq,
        heads: anchor
            .heads
            .iter()
            .map(|h| storage::AnchoredHead {
                origin: h.origin.clone(),
                size: h.size,
                root: h.root.to_vec().into(),
            })
            .collect(),
    };
    out.extend_from_slice(&message.encode_to_vec());
    let crc = crc32c::crc32c(&out);
    out.extend_from_slice(&crc.to_be_bytes());
    out
}

/// The anchor that these bytes are.
///
/// # Errors
/// [`ProviderError::Corrupt`] if they are none.
pub(super) fn decode(bytes: &[u8]) -> Result<Anchor, ProviderError> {
    let corrupt = || ProviderError::Corrupt;
    let message = storage::Anchor::decode(checked(bytes, MAGIC)?).map_err(|_| corrupt())?;
    let heads = message
        .heads
        .into_iter()
        .map(|h| {
            let root = <[u8; 32]>::try_from(&h.root[..]).map_err(|_| corrupt())?;
            Ok(AnchoredHead {
                origin: h.origin,
                size: h.size,
                root,
            })
        })
        .collect::<Result<_, ProviderError>>()?;
    Ok(Anchor {
        vault: VaultId::from_slice(&message.vault_id).map_err(|_| corrupt())?,
        region_seq: message.region_seq,
        heads,
    })
}

/// What lies between the magic and the checksum, if both are right.
///
/// # Errors
/// [`ProviderError::Corrupt`] if they are not.
pub(super) fn checked<'a>(bytes: &'a [u8], magic: &[u8; 4]) -> Result<&'a [u8], ProviderError> {
    let (covered, crc) = bytes.split_last_chunk::<4>().ok_or(ProviderError::Corrupt)?;
    if crc32c::crc32c(covered).to_be_bytes() != *crc {
        return Err(ProviderError::Corrupt);
    }
    covered.strip_prefix(magic).ok_or(ProviderError::Corrupt)
}
