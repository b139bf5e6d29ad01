//! Pages: 4,096 slot keys, any of which can be destroyed without touching the others.
//!
//! A page is a puncturable pseudorandom function, a binary tree of seeds: a child is HMAC-SHA256 of its parent's seed over
//! one byte, 0x00 for the left and 0x01 for the right; the leaves, at depth 12, are the slot keys. The state is the list of
//! the seeds of the largest whole subtrees: the root when fresh. Puncturing a slot replaces the node above it by the
//! siblings along the path to it, so that one cannot get back to it: HMAC goes down, not up.
//!
//! | bytes | field |
//! |---|---|
//! | 1 | format, 1 |
//! | 2 | number of nodes, big-endian, at most 2,048 |
//! | 35 each | node: depth u8 (0 is the root), index u16be (from the left, in its depth), seed (32); in order of the slots |
//!
//! **Why 2,048 is the bound.** Let m(h) be the most nodes that a tree of height h needs when at least one leaf is punctured.
//! m(0) = 0. Otherwise either both halves are punctured, 2 m(h-1) nodes, or one is and the other is one node,
//! 1 + m(h-1). So m(1) = 1, and m(h) = 2 m(h-1) = 2^(h-1) from there on: m(12) = 2,048, when every second slot is gone.
//!
//! Source: Goldreich, Goldwasser, Micali, "How to Construct Random Functions" (1986); Green, Miers, "Forward Secure
//! Asynchronous Messaging from Puncturable Encryption" (2015); Aviram, Gellert, Jager, "Session Resumption Protocols and
//! Efficient Forward Security for TLS 1.3 0-RTT" (2019), section 5.

mod codec;

use ring::hmac;
use zeroize::Zeroizing;

use super::{
    CryptoError,
    secret::{Secret, SlotKey},
};
use crate::domain::clock::Rng;

/// Slots of a page.
pub const SLOTS: u16 = 1 << DEPTH;
/// Most nodes that a state can have; see the module.
pub const MAX_NODES: usize = 1 << (DEPTH - 1);

/// Depth of the leaves.
const DEPTH: u8 = 12;

/// Seed of a subtree that is whole.
#[derive(Debug)]
struct Node {
    /// 0 is the root, [`DEPTH`] a leaf.
    depth: u8,
    /// From the left, within its depth.
    index: u16,
    seed: Secret<32>,
}

impl Node {
    /// First slot under this node.
    fn first_slot(&self) -> u16 {
        self.index << (DEPTH - self.depth)
    }

    /// One past the last slot under this node.
    fn end_slot(&self) -> u16 {
        (self.index + 1) << (DEPTH - self.depth)
    }

    fn slots(&self) -> std::ops::Range<u16> {
        self.first_slot()..self.end_slot()
    }
}

/// What is left of a page: the nodes that cover its live slots, in order. One set of punctured slots has one state.
#[derive(Debug)]
pub struct PageState {
    nodes: Vec<Node>,
}

impl PageState {
    /// A fresh page.
    ///
    /// # Errors
    /// [`CryptoError::Rng`] if there is no randomness.
    pub fn generate(rng: &dyn Rng) -> Result<Self, CryptoError> {
        Ok(Self::from_root(Secret::generate(rng)?))
    }

    fn from_root(seed: Secret<32>) -> Self {
        Self {
            nodes: vec![Node {
                depth: 0,
                index: 0,
                seed,
            }],
        }
    }

    /// Derives the key of `slot`: at most 12 HMACs.
    ///
    /// # Errors
    /// [`CryptoError::PuncturedSlot`] if it is gone; [`CryptoError::Malformed`] if there is no such slot.
    pub fn slot_key(&self, slot: u16) -> Result<SlotKey, CryptoError> {
        let place = self.covering(in_page(slot)?).ok_or(CryptoError::PuncturedSlot)?;
        let node = &self.nodes[place];
        let mut seed = Zeroizing::new(*node.seed.expose());
        for depth in node.depth + 1..=DEPTH {
            child(&mut seed, path_bit(slot, depth));
        }
        Ok(Secret::filled_by(|out| out.copy_from_slice(seed.as_slice())).into())
    }

    /// Destroys the key of `slot` in this state; copies of older states still have it. Once is as good as twice.
    ///
    /// # Errors
    /// [`CryptoError::Malformed`] if there is no such slot.
    pub fn puncture(&mut self, slot: u16) -> Result<(), CryptoError> {
        if let Some(place) = self.covering(in_page(slot)?) {
            let siblings = siblings_towards(&self.nodes[place], slot);
            self.nodes.splice(place..=place, siblings);
        }
        Ok(())
    }

    /// Whether the key of `slot` is gone; also of slots that there are none of.
    pub fn is_punctured(&self, slot: u16) -> bool {
        self.covering(slot).is_none()
    }

    /// The slots that still have keys, in order.
    pub fn live_slots(&self) -> impl Iterator<Item = u16> + '_ {
        self.nodes.iter().flat_map(Node::slots)
    }

    /// Seeds that the state holds, 0 to [`MAX_NODES`].
    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// Place of the node above `slot`.
    fn covering(&self, slot: u16) -> Option<usize> {
        let after = self.nodes.partition_point(|node| node.first_slot() <= slot);
        let place = after.checked_sub(1)?;
        self.nodes[place].slots().contains(&slot).then_some(place)
    }
}

fn in_page(slot: u16) -> Result<u16, CryptoError> {
    if slot < SLOTS {
        Ok(slot)
    } else {
        Err(CryptoError::Malformed("slot number"))
    }
}

/// What covers the slots under `node` but `slot`, in order.
fn siblings_towards(node: &Node, slot: u16) -> Vec<Node> {
    let mut left = Vec::with_capacity(usize::from(DEPTH));
    let mut right = Vec::new();
    let mut seed = Zeroizing::new(*node.seed.expose());
    for depth in node.depth + 1..=DEPTH {
        let bit = path_bit(slot, depth);
        let index = (slot >> (DEPTH - depth)) ^ 1;
        let mut sibling = seed.clone();
        child(&mut sibling, 1 - bit);
        let sibling = Node {
            depth,
            index,
            seed: Secret::filled_by(|out| out.copy_from_slice(&*sibling)),
        };
        if bit == 1 {
            left.push(sibling)
        } else {
            right.push(sibling)
        }
        child(&mut seed, bit);
    }
    right.reverse();
    left.append(&mut right);
    left
}

/// 0 or 1: which child leads to `slot` at `depth`, 1 to [`DEPTH`].
fn path_bit(slot: u16, depth: u8) -> u8 {
    (slot >> (DEPTH - depth) & 1) as u8
}

/// Replaces a seed by its child's.
fn child(seed: &mut Zeroizing<[u8; 32]>, bit: u8) {
    let key = hmac::Key::new(hmac::HMAC_SHA256, seed.as_slice());
    seed.copy_from_slice(hmac::sign(&key, &[bit]).as_ref());
}

#[cfg(test)]
mod tests;
