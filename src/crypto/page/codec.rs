//! The stored form of a page's state; the module above has the byte table.

use super::{DEPTH, MAX_NODES, Node, PageState};
use crate::crypto::{
    CryptoError,
    secret::{Secret, SecretBytes},
};

const FORMAT: u8 = 1;
const HEADER_LEN: usize = 1 + 2;
const NODE_LEN: usize = 1 + 2 + 32;

impl PageState {
    /// The stored form, to be sealed: 38 bytes when fresh, at most 71,683.
    pub fn to_bytes(&self) -> SecretBytes {
        let mut out = Vec::with_capacity(HEADER_LEN + self.nodes.len() * NODE_LEN);
        out.push(FORMAT);
        out.extend_from_slice(&(self.nodes.len() as u16).to_be_bytes()); // at most MAX_NODES
        for node in &self.nodes {
            out.push(node.depth);
            out.extend_from_slice(&node.index.to_be_bytes());
            out.extend_from_slice(node.seed.expose());
        }
        SecretBytes::from_vec(out)
    }

    /// Reads the stored form, and accepts nothing that [`PageState::to_bytes`] would not write.
    ///
    /// # Errors
    /// [`CryptoError::Malformed`] if it is of another format or length, or has a node that is no node, is out of order,
    /// overlaps another, or lies beside its sibling (their parent would stand in their place).
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CryptoError> {
        let (header, body) = bytes
            .split_first_chunk::<HEADER_LEN>()
            .ok_or(CryptoError::Malformed("page state length"))?;
        if header[0] != FORMAT {
            return Err(CryptoError::Malformed("page state format"));
        }
        let count = usize::from(u16::from_be_bytes([header[1], header[2]]));
        if count > MAX_NODES || body.len() != count * NODE_LEN {
            return Err(CryptoError::Malformed("page state length"));
        }
        let nodes = body
            .chunks_exact(NODE_LEN)
            .map(read_node)
            .collect::<Result<Vec<_>, _>>()?;
        check_order(&nodes)?;
        Ok(Self { nodes })
    }
}

fn read_node(bytes: &[u8]) -> Result<Node, CryptoError> {
    let (place, seed) = bytes.split_at(3);
    let (depth, index) = (place[0], u16::from_be_bytes([place[1], place[2]]));
    if depth > DEPTH || index >> depth != 0 {
        return Err(CryptoError::Malformed("page state node"));
    }
    Ok(Node {
        depth,
        index,
        seed: Secret::from_slice(seed)?,
    })
}

fn check_order(nodes: &[Node]) -> Result<(), CryptoError> {
    for pair in nodes.windows(2) {
        let (a, b) = (&pair[0], &pair[1]);
        if b.first_slot() < a.end_slot() {
            return Err(CryptoError::Malformed("page state order"));
        }
        if a.depth == b.depth && a.index ^ 1 == b.index {
            return Err(CryptoError::Malformed("page state siblings"));
        }
    }
    Ok(())
}
