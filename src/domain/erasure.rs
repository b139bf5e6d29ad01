//! The erasure case: its states, and the one decision of what may be shredded now. Pure.
//!
//! ```text
//! PROPOSED -> APPROVED -> PENDING_SHRED (grace, unreadable from minute 0) -> EFFECTIVE -> FINAL
//!                              |-> CANCELLED
//! ```

use std::{fmt, str::FromStr};

use super::{
    clock::Timestamp,
    ids::{ConversationId, InvalidId, RecordId},
    record::{Query, SubjectIdentifier},
};

/// Longest grace, 14 days: the case must be FINAL within a month (GDPR Art. 12(3)).
pub const LONGEST_GRACE_MICROS: i64 = 14 * DAY_MICROS;
/// The grace of who says nothing.
pub const DEFAULT_GRACE_MICROS: i64 = 7 * DAY_MICROS;
const DAY_MICROS: i64 = 24 * 3_600 * 1_000_000;
/// Longest reference.
const REFERENCE_BYTES: usize = 64;

/// Where a case is. The numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum ErasureState {
    /// Waits for approvals.
    Proposed = 1,
    /// Approved; cuts its records off.
    Approved = 2,
    /// Unreadable, in grace or waiting for an obstacle to go.
    PendingShred = 3,
    /// The keys are gone from the current state.
    Effective = 4,
    /// Nor do old copies open anything.
    Final = 5,
    /// Undone within its grace.
    Cancelled = 6,
}

/// What happens to a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// Enough people have approved it.
    Approved,
    /// Nothing of it can be read any more.
    CutOff,
    /// Somebody takes it back.
    Cancelled,
    /// The last of its keys is gone from the current state.
    Shredded,
    /// The last way from old copies is gone.
    Swept,
}

impl ErasureState {
    /// Every state.
    pub const ALL: [Self; 6] = [
        Self::Proposed,
        Self::Approved,
        Self::PendingShred,
        Self::Effective,
        Self::Final,
        Self::Cancelled,
    ];

    /// The stored number.
    pub fn number(self) -> u32 {
        self as u32
    }

    /// The state with this stored number.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.number() == number)
    }

    /// The state after an event; `None` if the event cannot happen to it. There is no way back from a shred.
    pub fn after(self, event: Event) -> Option<Self> {
        match (self, event) {
            (Self::Proposed, Event::Approved) => Some(Self::Approved),
            (Self::Approved, Event::CutOff) => Some(Self::PendingShred),
            (Self::Proposed | Self::Approved | Self::PendingShred, Event::Cancelled) => Some(Self::Cancelled),
            (Self::Approved | Self::PendingShred, Event::Shredded) => Some(Self::Effective),
            (Self::Effective, Event::Swept) => Some(Self::Final),
            _ => None,
        }
    }

    /// Whether its records are to be shredded, sooner or later.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Proposed | Self::Approved | Self::PendingShred)
    }
}

macro_rules! grounds {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $term:literal;)*) => {
        /// Why something is erased. Numbers and terms are stored.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u32)]
        pub enum Ground {
            $($(#[$doc])* $variant = $number,)*
        }

        impl Ground {
            /// Every ground.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Its term: DPV's where there is one.
            pub fn term(self) -> &'static str {
                match self {
                    $(Self::$variant => $term),*
                }
            }
        }
    };
}

grounds! {
    /// The right to erasure.
    A17 = 1, "dpv:A17";
    /// Consent was withdrawn.
    A7_3 = 2, "dpv:A7-3";
    /// The retention class's maximum has passed.
    RetentionExpired = 3, "callvault:RetentionExpired";
    /// It must not be kept at all: card verification codes, a child's data.
    MandatoryDestruction = 4, "callvault:MandatoryDestruction";
    /// The controller's contract ended.
    ContractEnded = 5, "callvault:ContractEnded";
}

impl Ground {
    /// The stored number.
    pub fn number(self) -> u32 {
        self as u32
    }

    /// The ground with this stored number.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.iter().copied().find(|ground| ground.number() == number)
    }
}

/// The controller's own name of a case. It stays in the logs for ever: 1 to 64 of `A-Z a-z 0-9 . _ : / -`.
#[derive(Clone, PartialEq, Eq)]
pub struct Reference(String);

impl Reference {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Reference {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._:/-".contains(&b);
        if (1..=REFERENCE_BYTES).contains(&text.len()) && text.bytes().all(plain) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidId {
                what: "reference",
                rule: "1 to 64 of A-Z a-z 0-9 . _ : / -, and the name of nobody",
            })
        }
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is to be erased.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// These.
    Records(Vec<RecordId>),
    /// Every record that is found now.
    Query(Box<Query>),
    /// Every record of a person.
    Subject(SubjectIdentifier),
    /// Every record of a conversation.
    Conversation(ConversationId),
    /// Everything.
    Tenant,
}

/// Why a record that is to go is still there. Names are shown and stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Obstacle {
    /// Nobody, or not everybody who must, has approved it.
    NotApproved,
    /// It may still be taken back.
    Grace,
    /// Blocked for a limitation period.
    Blocked,
    /// The law wants it kept for a while yet.
    MinimumRetention,
    /// A hold forbids it.
    Held,
}

impl Obstacle {
    /// The stable name.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotApproved => "NOT_APPROVED",
            Self::Grace => "GRACE",
            Self::Blocked => "BLOCKED",
            Self::MinimumRetention => "MINIMUM_RETENTION",
            Self::Held => "HELD",
        }
    }
}

/// An erasure as it bears on one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Why.
    pub ground: Ground,
    /// Whether everybody who must has approved it.
    pub approved: bool,
    /// When its grace ends.
    pub due: Timestamp,
}

/// All that decides whether a record is shredded now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Situation {
    /// Now.
    pub now: Timestamp,
    /// The erasure that covers it.
    pub claim: Option<Claim>,
    /// Whether a hold covers it, or many.
    pub held: bool,
    /// Until when the law wants it kept.
    pub keep_until: Option<Timestamp>,
    /// Until when it is blocked.
    pub block_until: Option<Timestamp>,
    /// When its retention class lets it go.
    pub expires: Option<Timestamp>,
}

/// What to do with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing asks for its end.
    Keep,
    /// It is to go, but not now.
    Wait(Obstacle),
    /// Now.
    Shred,
}

/// Decides. Mandatory destruction > hold > statutory minimum > blocking > valid erasure > maximum retention > default: keep.
///
/// Approval and grace belong to the claim itself: without them it is none yet. Source: COMPLIANCE section 2.
pub fn verdict(situation: &Situation) -> Verdict {
    let Situation {
        now,
        claim,
        held,
        keep_until,
        block_until,
        expires,
    } = *situation;
    let later = |moment: Option<Timestamp>| moment.is_some_and(|moment| moment > now);
    let expired = expires.is_some_and(|moment| moment <= now);
    if let Some(claim) = claim {
        let mandatory = claim.ground == Ground::MandatoryDestruction;
        return if !claim.approved {
            Verdict::Wait(Obstacle::NotApproved)
        } else if mandatory {
            Verdict::Shred
        } else if held {
            Verdict::Wait(Obstacle::Held)
        } else if later(keep_until) {
            Verdict::Wait(Obstacle::MinimumRetention)
        } else if later(block_until) {
            Verdict::Wait(Obstacle::Blocked)
        } else if claim.due > now {
            Verdict::Wait(Obstacle::Grace)
        } else {
            Verdict::Shred
        };
    }
    if !expired {
        Verdict::Keep
    } else if held {
        Verdict::Wait(Obstacle::Held)
    } else if later(keep_until) {
        Verdict::Wait(Obstacle::MinimumRetention)
    } else if later(block_until) {
        Verdict::Wait(Obstacle::Blocked)
    } else {
        Verdict::Shred
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000);
    const PAST: Timestamp = Timestamp(1_000);
    const FUTURE: Timestamp = Timestamp(1_001);

    /// One row a case: claim, held, keep until, block until, expires -> what is done.
    #[test]
    fn precedence_is_that_of_the_table() {
        use {Obstacle as O, Verdict as V};
        let claim = |ground, approved, due| {
            Some(Claim {
                ground,
                approved,
                due,
            })
        };
        let erasure = claim(Ground::A17, true, PAST);
        let in_grace = claim(Ground::A17, true, FUTURE);
        let proposed = claim(Ground::A17, false, PAST);
        let mandatory = claim(Ground::MandatoryDestruction, true, PAST);
        let mandatory_proposed = claim(Ground::MandatoryDestruction, false, PAST);
        let mandatory_in_grace = claim(Ground::MandatoryDestruction, true, FUTURE);
        let (past, future) = (Some(PAST), Some(FUTURE));
        let table = [
            // nothing asks for it
            (None, false, None, None, None, V::Keep),
            (None, true, future, future, None, V::Keep),
            (None, false, None, None, future, V::Keep),
            (None, true, None, None, future, V::Keep),
            // maximum retention
            (None, false, None, None, past, V::Shred),
            (None, false, past, past, past, V::Shred),
            (None, true, None, None, past, V::Wait(O::Held)),
            (None, true, future, future, past, V::Wait(O::Held)),
            (None, false, future, None, past, V::Wait(O::MinimumRetention)),
            (None, false, future, future, past, V::Wait(O::MinimumRetention)),
            (None, false, None, future, past, V::Wait(O::Blocked)),
            // an erasure
            (erasure, false, None, None, None, V::Shred),
            (erasure, false, past, past, future, V::Shred),
            (erasure, true, None, None, None, V::Wait(O::Held)),
            (erasure, true, future, future, past, V::Wait(O::Held)),
            (erasure, false, future, None, None, V::Wait(O::MinimumRetention)),
            (erasure, false, future, future, past, V::Wait(O::MinimumRetention)),
            (erasure, false, None, future, past, V::Wait(O::Blocked)),
            (in_grace, false, None, None, None, V::Wait(O::Grace)),
            (in_grace, true, None, None, None, V::Wait(O::Held)),
            (in_grace, false, None, None, past, V::Wait(O::Grace)),
            (proposed, false, None, None, None, V::Wait(O::NotApproved)),
            (proposed, true, future, future, past, V::Wait(O::NotApproved)),
            // mandatory destruction
            (mandatory, false, None, None, None, V::Shred),
            (mandatory, true, future, future, future, V::Shred),
            (mandatory_in_grace, true, future, None, None, V::Shred),
            (
                mandatory_proposed,
                true,
                None,
                None,
                None,
                V::Wait(O::NotApproved),
            ),
        ];
        for (place, (claim, held, keep_until, block_until, expires, expected)) in
            table.into_iter().enumerate()
        {
            let situation = Situation {
                now: NOW,
                claim,
                held,
                keep_until,
                block_until,
                expires,
            };
            assert_eq!(verdict(&situation), expected, "row {place}: {situation:?}");
        }
    }

    /// Rows are states, columns events, both in their order.
    #[test]
    fn a_case_goes_forward_only() {
        use ErasureState as S;
        let events = [
            Event::Approved,
            Event::CutOff,
            Event::Cancelled,
            Event::Shredded,
            Event::Swept,
        ];
        let table = [
            [Some(S::Approved), None, Some(S::Cancelled), None, None],
            [
                None,
                Some(S::PendingShred),
                Some(S::Cancelled),
                Some(S::Effective),
                None,
            ],
            [None, None, Some(S::Cancelled), Some(S::Effective), None],
            [None, None, None, None, Some(S::Final)],
            [None; 5],
            [None; 5],
        ];
        for (state, row) in S::ALL.into_iter().zip(table) {
            for (event, expected) in events.into_iter().zip(row) {
                assert_eq!(state.after(event), expected, "{state:?} {event:?}");
            }
            assert_eq!(S::from_number(state.number()), Some(state));
        }
    }

    #[test]
    fn a_reference_is_short_and_plain() {
        for good in ["CASE-1", "a", "2026/11:x_y.z", &"x".repeat(64)] {
            assert_eq!(good.parse::<Reference>().unwrap().as_str(), good);
        }
        for bad in ["", " ", "Jane Doe", "+5215550001", "a@b", "ü", &"x".repeat(65)] {
            assert!(bad.parse::<Reference>().is_err(), "{bad}");
        }
    }

    #[test]
    fn grounds_keep_their_numbers() {
        let numbers: Vec<u32> = Ground::ALL.iter().map(|ground| ground.number()).collect();
        assert_eq!(numbers, [1, 2, 3, 4, 5]);
        assert_eq!(Ground::from_number(6), None);
    }
}
