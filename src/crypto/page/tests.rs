//! What a punctured page can and cannot do.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::crypto::rng::SystemRng;

fn page(seed: u8) -> PageState {
    PageState::from_root(Secret::from_bytes([seed; 32]))
}

fn punctured(seed: u8, slots: impl IntoIterator<Item = u16>) -> PageState {
    let mut state = page(seed);
    for slot in slots {
        state.puncture(slot).unwrap();
    }
    state
}

fn key(state: &PageState, slot: u16) -> [u8; 32] {
    *state.slot_key(slot).unwrap().expose()
}

/// The tree as the papers draw it, from the root, without any of the code under test.
fn leaf_by_the_book(root: [u8; 32], slot: u16) -> [u8; 32] {
    (0..12).rev().fold(root, |seed, shift| {
        let tag = hmac::sign(
            &hmac::Key::new(hmac::HMAC_SHA256, &seed),
            &[(slot >> shift & 1) as u8],
        );
        tag.as_ref().try_into().unwrap()
    })
}

fn slots() -> impl Strategy<Value = Vec<u16>> {
    // scattered, and clustered where whole subtrees go
    prop_oneof![
        prop::collection::vec(0..SLOTS, 0..24),
        (0..SLOTS - 64).prop_flat_map(|base| prop::collection::vec(base..base + 64, 0..80)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn punctured_slots_are_gone_and_the_others_unchanged(slots in slots()) {
        let state = punctured(7, slots.iter().copied());
        let gone: BTreeSet<u16> = slots.into_iter().collect();
        let live: Vec<u16> = (0..SLOTS).filter(|slot| !gone.contains(slot)).collect();
        prop_assert_eq!(state.live_slots().collect::<Vec<_>>(), live.clone());

        // every value that the state can lead to: its seeds and all that lies below them
        let mut derivable: BTreeSet<[u8; 32]> = live.iter().map(|slot| key(&state, *slot)).collect();
        derivable.extend(state.nodes.iter().map(|node| *node.seed.expose()));
        for slot in &gone {
            prop_assert!(state.is_punctured(*slot));
            prop_assert_eq!(state.slot_key(*slot).err(), Some(CryptoError::PuncturedSlot));
            prop_assert!(!state.nodes.iter().any(|node| node.slots().contains(slot)));
            prop_assert!(!derivable.contains(&leaf_by_the_book([7; 32], *slot)));
        }
        for slot in live.into_iter().step_by(61) {
            prop_assert_eq!(key(&state, slot), leaf_by_the_book([7; 32], slot));
        }
        prop_assert!(state.node_count() <= MAX_NODES);
        prop_assert!(state.node_count() <= 1 + 12 * gone.len());
    }

    #[test]
    fn the_order_of_punctures_does_not_matter(
        (slots, shuffled) in slots().prop_flat_map(|s| (Just(s.clone()), Just(s).prop_shuffle())),
    ) {
        let (a, b) = (punctured(1, slots.clone()), punctured(1, shuffled));
        prop_assert!(a.to_bytes().ct_eq(&b.to_bytes()));
        let again = punctured(1, slots.iter().chain(&slots).copied());
        prop_assert!(a.to_bytes().ct_eq(&again.to_bytes()));
    }

    #[test]
    fn the_stored_form_comes_back(slots in slots()) {
        let state = punctured(2, slots);
        let stored = state.to_bytes();
        prop_assert!(PageState::from_bytes(stored.expose()).unwrap().to_bytes().ct_eq(&stored));
    }

    /// A mutation is refused, or is the stored form of another state (a seed changed, or a puncture more or less).
    #[test]
    fn no_two_stored_forms_mean_one_state(slots in slots(), at: prop::sample::Index, xor in 1..=255u8) {
        let mut stored = punctured(3, slots).to_bytes().expose().to_vec();
        let at = at.index(stored.len());
        stored[at] ^= xor;
        if let Ok(state) = PageState::from_bytes(&stored) {
            prop_assert!(at >= 3, "a header has one spelling");
            prop_assert!(state.to_bytes().expose() == stored.as_slice());
        }
    }
}

#[test]
fn every_second_slot_gone_is_the_worst_case() {
    let state = punctured(4, (0..SLOTS).step_by(2));
    assert_eq!(state.node_count(), MAX_NODES);
    assert_eq!(state.to_bytes().len(), 71_683);
    assert!(PageState::from_bytes(state.to_bytes().expose()).is_ok());
    // one more puncture of any kind makes it smaller
    assert_eq!(
        punctured(4, (0..SLOTS).filter(|s| s % 2 == 0 || *s == 77)).node_count(),
        MAX_NODES - 1
    );
}

/// m(h) of the module's argument, by trying every set of leaves of a small tree.
#[test]
fn the_bound_is_tight_in_every_small_tree() {
    fn nodes(set: u32, leaves: u32) -> usize {
        match (set, leaves) {
            (0, _) => 0,
            (set, leaves) if set == u32::MAX >> (32 - leaves) => 1,
            (set, leaves) => {
                let half = leaves / 2;
                nodes(set >> half, half) + nodes(set & (u32::MAX >> (32 - half)), half)
            }
        }
    }
    for leaves in [2u32, 4, 8, 16] {
        let worst = (0..u32::MAX >> (32 - leaves)).map(|set| nodes(set, leaves)).max();
        assert_eq!(worst, Some(leaves as usize / 2));
    }
}

#[test]
fn a_page_can_be_emptied() {
    let state = punctured(5, 0..SLOTS);
    assert_eq!((state.node_count(), state.live_slots().count()), (0, 0));
    assert!(
        PageState::from_bytes(state.to_bytes().expose())
            .unwrap()
            .is_punctured(0)
    );
}

#[test]
fn slots_beyond_the_page_are_refused() {
    let mut state = PageState::generate(&SystemRng::new()).unwrap();
    assert_eq!(
        state.slot_key(SLOTS).err(),
        Some(CryptoError::Malformed("slot number"))
    );
    assert_eq!(
        state.puncture(u16::MAX).err(),
        Some(CryptoError::Malformed("slot number"))
    );
    assert!(state.is_punctured(SLOTS));
    assert_eq!(state.node_count(), 1);
}

#[test]
fn states_that_were_never_written_are_refused() {
    fn stored(nodes: &[(u8, u16)]) -> Vec<u8> {
        let mut out = vec![1];
        out.extend((nodes.len() as u16).to_be_bytes());
        for (depth, index) in nodes {
            out.push(*depth);
            out.extend(index.to_be_bytes());
            out.extend([9; 32]);
        }
        out
    }
    let refused = |bytes: &[u8]| match PageState::from_bytes(bytes) {
        Err(CryptoError::Malformed(what)) => what,
        other => panic!("{other:?}"),
    };
    assert!(PageState::from_bytes(&stored(&[(1, 1)])).is_ok());
    assert_eq!(refused(&[]), "page state length");
    assert_eq!(refused(&stored(&[(0, 0)])[..37]), "page state length");
    assert_eq!(
        refused(&[stored(&[(0, 0)]), vec![0]].concat()),
        "page state length"
    );
    assert_eq!(refused(&[2, 0, 0]), "page state format");
    assert_eq!(refused(&stored(&[(13, 0)])), "page state node");
    assert_eq!(refused(&stored(&[(1, 2)])), "page state node");
    assert_eq!(refused(&stored(&[(0, 1)])), "page state node");
    assert_eq!(refused(&stored(&[(2, 3), (2, 0)])), "page state order");
    assert_eq!(refused(&stored(&[(1, 0), (2, 1)])), "page state order");
    assert_eq!(refused(&stored(&[(0, 0), (0, 0)])), "page state order");
    assert_eq!(refused(&stored(&[(1, 0), (1, 1)])), "page state siblings");
    assert_eq!(
        refused(&stored(&vec![(12, 0); MAX_NODES + 1])),
        "page state length"
    );
}
