//! Leaves of the state log as bytes: a draft without its number, and the finished leaf.

use bytes::Bytes;
use prost::Message;

use crate::{
    blob::format::Request,
    domain::{clock::Timestamp, limits},
    index::{LeafDraft, QueuedLeaf, Scope},
    proto::storage::{StateLeaf, state_leaf::Body},
};

const FORMAT_VERSION: u32 = 1;
/// Who acts when no principal asked.
pub const SYSTEM: &str = "system";

/// A leaf that cannot be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed leaf what={0}")]
pub struct MalformedLeaf(pub &'static str);

/// A leaf to be queued: what happened, who asked, when. Its number comes with the transaction.
pub fn draft(scope: Scope, actor: &str, now: Timestamp, body: Body) -> LeafDraft {
    draft_for_request(scope, actor, now, None, body)
}

/// The same, with the keyed request id of the call that asked and the keyed digest of what it asked.
pub fn draft_for_request(
    scope: Scope,
    actor: &str,
    now: Timestamp,
    request: Option<&Request>,
    body: Body,
) -> LeafDraft {
    let leaf = StateLeaf {
        format_version: FORMAT_VERSION,
        time_micros: now.micros(),
        actor: actor.to_owned(),
        request_mac: request.map(|r| r.mac.to_vec()).unwrap_or_default().into(),
        request_fingerprint: request.map(|r| r.fingerprint.to_vec()).unwrap_or_default().into(),
        body: Some(body),
        ..StateLeaf::default()
    };
    LeafDraft {
        scope,
        body: leaf.encode_to_vec(),
    }
}

/// The leaf as it lies in the log.
///
/// # Errors
/// [`MalformedLeaf`] if the draft does not decode or the leaf is longer than [`limits::LEAF_BYTES`].
pub fn finish(queued: &QueuedLeaf) -> Result<Bytes, MalformedLeaf> {
    let mut leaf = StateLeaf::decode(&queued.body[..]).map_err(|_| MalformedLeaf("draft"))?;
    number(&mut leaf, &queued.scope, queued.receipt.sequence);
    let bytes = leaf.encode_to_vec();
    if bytes.len() > limits::LEAF_BYTES {
        return Err(MalformedLeaf("too long"));
    }
    Ok(bytes.into())
}

fn number(leaf: &mut StateLeaf, scope: &Scope, sequence: u64) {
    match scope {
        Scope::Fact => {}
        Scope::Region => leaf.region_seq = sequence,
        Scope::Tenant(tenant) => {
            leaf.tenant_id = tenant.to_string();
            leaf.tenant_seq = sequence;
        }
    }
}

/// Reads a leaf of the log.
///
/// # Errors
/// [`MalformedLeaf`] if it is of another format or says nothing.
pub fn parse(bytes: &Bytes) -> Result<StateLeaf, MalformedLeaf> {
    let leaf = StateLeaf::decode(bytes.clone()).map_err(|_| MalformedLeaf("protobuf"))?;
    if leaf.format_version != FORMAT_VERSION {
        return Err(MalformedLeaf("unknown format version"));
    }
    if leaf.body.is_none() {
        return Err(MalformedLeaf("no body"));
    }
    Ok(leaf)
}
