//! The anchor is set, replaced and read again.

use super::{
    super::provider::{Anchor, AnchoredHead},
    Subject,
};

impl Subject {
    /// An anchor whose heads look like a vault's.
    fn an_anchor(&self, region_seq: u64, heads: u8) -> Anchor {
        let heads = (0..heads).map(|number| AnchoredHead {
            origin: format!(
                "callvault/{}/state/{number}/{}",
                self.vault,
                u32::from(number) + 7
            ),
            size: 1_000_000 + u64::from(number),
            root: [number; 32],
        });
        Anchor {
            vault: self.vault,
            region_seq,
            heads: heads.collect(),
        }
    }

    async fn advance(&self, anchor: &Anchor) {
        self.provider.advance(anchor).await.unwrap();
    }

    async fn anchor(&self) -> Option<Anchor> {
        self.provider.anchor().await.unwrap()
    }
}

/// A root that is new remembers nothing.
pub async fn no_anchor_at_first(subject: Subject) {
    assert_eq!(subject.anchor().await, None);
    subject.create(1).await;
    assert_eq!(subject.anchor().await, None);
}

/// What is set is read.
pub async fn an_anchor_is_read_as_it_was_set(subject: Subject) {
    let anchor = subject.an_anchor(5, 1);
    subject.advance(&anchor).await;
    assert_eq!(subject.anchor().await, Some(anchor));
}

/// Also after a restart, and one that replaced another.
pub async fn an_anchor_outlives_its_provider(mut subject: Subject) {
    for anchor in [subject.an_anchor(5, 1), subject.an_anchor(6, 2)] {
        subject.advance(&anchor).await;
        subject.reopen().await;
        assert_eq!(subject.anchor().await, Some(anchor));
    }
}

/// The last one counts, also where it says less: a new log begins small.
pub async fn the_last_of_many_anchors_counts(mut subject: Subject) {
    for number in 0..12 {
        let anchor = subject.an_anchor(20 - number / 4, 1 + (number % 3) as u8);
        subject.advance(&anchor).await;
        assert_eq!(subject.anchor().await, Some(anchor));
    }
    let last = subject.an_anchor(3, 1);
    subject.advance(&last).await;
    subject.reopen().await;
    assert_eq!(subject.anchor().await, Some(last));
}

/// From none to as many as a region has nodes, and fewer again.
pub async fn anchors_of_any_number_of_heads(subject: Subject) {
    for (number, heads) in [0, 1, 2, 3, 8, 16, 2, 16, 0].into_iter().enumerate() {
        let anchor = subject.an_anchor(number as u64, heads);
        subject.advance(&anchor).await;
        assert_eq!(subject.anchor().await, Some(anchor), "{heads} heads");
    }
}

/// It belongs to no epoch.
pub async fn an_anchor_outlives_every_epoch(mut subject: Subject) {
    let grant = subject.create(1).await;
    let anchor = subject.an_anchor(1, 1);
    subject.advance(&anchor).await;
    subject.destroy(1, &grant.handle).await;
    subject.reopen().await;
    assert_eq!(subject.anchor().await, Some(anchor));
}
