//! Random histories: small worlds of few names, so that everything meets everything.

use std::collections::BTreeMap;

use bytes::Bytes;
use callvault::{
    domain::{
        clock::Timestamp,
        ids::{RecordId, RequestId, RetentionClassId, TenantId},
        purpose::{AgeFlag, Channel, Direction, PartyRole, Purpose},
        record::{Descriptor, Kind, Party, Query, State, SubjectIdentifier},
        tenant::TenantSettings,
    },
    testing::faulty::{Failure, Operation},
};
use proptest::{collection::vec, option, prelude::*};

use super::kit;

/// One thing that happens.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    CreateTenant {
        tenant: u8,
        settings: Settings,
        request: Option<u8>,
    },
    UpdateTenant {
        tenant: u8,
        fields: u8,
        settings: Settings,
        etag: Etag,
        request: Option<u8>,
    },
    CreateClass {
        tenant: u8,
        class: u8,
        minimum: u32,
        maximum: Option<u32>,
        request: Option<u8>,
    },
    Put(Box<Draw>),
    /// Messages put in one call.
    PutMessages(Vec<Draw>),
    /// The n-th put so far once more, with its request id; perhaps with other content.
    Repeat {
        which: usize,
        other: Other,
    },
    Get {
        tenant: u8,
        which: Which,
        purpose: u8,
    },
    Read {
        tenant: u8,
        which: usize,
        offset: u64,
        limit: Option<u64>,
        purpose: u8,
    },
    GetMessages {
        tenant: u8,
        which: Vec<usize>,
        purpose: u8,
    },
    List {
        tenant: u8,
        query: Search,
        newest: bool,
        size: usize,
        purpose: u8,
    },
    Update {
        tenant: u8,
        which: usize,
        fields: u16,
        described: Described,
        etag: Etag,
        request: Option<u8>,
    },
    /// A resumable upload begins.
    Begin(Box<Draw>),
    /// Some of it arrives, and is made durable or not.
    Write {
        which: usize,
        length: usize,
        settle: bool,
    },
    Commit {
        which: usize,
        says_more: bool,
    },
    CommitAgain(usize),
    Abort(usize),
    Advance(i64),
    Restart,
    Crash,
    LoseIndex {
        crash: bool,
    },
    /// An index as it was at some restart.
    RestoreIndex,
    Verify,
    /// A tenant's key is rotated, or the root's; perhaps the process dies meanwhile, and goes on after it.
    Rotate {
        tenant: Option<u8>,
        killed: Option<u8>,
    },
    /// Root keys that nothing needs any more are destroyed.
    DestroyOldEpochs,
    /// A record is erased, with all that was derived from it.
    Erase {
        tenant: u8,
        which: usize,
    },
    /// What was erased becomes final; perhaps the process dies meanwhile, and goes on after it.
    Sweep {
        killed: Option<u8>,
    },
    /// The store fails while it happens.
    Faulty(Fault, Box<Op>),
    /// The store fails while a vault starts, perhaps from nothing.
    FaultyStart {
        fault: Fault,
        lose: bool,
    },
    /// The store is bad for a while; then it is well, or something happens to the process before it is.
    Weather(Storm, Vec<Op>, Option<After>),
    /// The log cannot be written, and the caller goes away; then something happens to the process.
    Cut(Box<Op>, After),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum After {
    Restart,
    Crash,
    CrashAndLose,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Etag {
    None,
    Current,
    Stale,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Other {
    Nothing,
    Content,
    Length,
    Closing,
    Descriptor,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Which {
    Record(usize),
    External(u8),
    Nobody,
}

#[derive(Clone, Debug)]
pub(crate) struct Settings {
    text: u8,
    default_class: Option<u8>,
    purposes: u8,
}

/// A put.
#[derive(Clone, Debug)]
pub(crate) struct Draw {
    pub(crate) tenant: u8,
    pub(crate) described: Described,
    pub(crate) says_class: bool,
    pub(crate) says_media: bool,
    pub(crate) seed: u64,
    pub(crate) length: usize,
    pub(crate) chunk: usize,
    pub(crate) request: Option<u8>,
    pub(crate) expected: u8,
    pub(crate) closing: Option<(Option<i64>, Vec<Person>)>,
    pub(crate) derived: Option<usize>,
}

#[derive(Clone, Debug)]
pub(crate) struct Described {
    conversation: u8,
    channel: u8,
    direction: u8,
    start: i64,
    duration: Option<i64>,
    people: Vec<Person>,
    label: Option<(u8, u8)>,
    purposes: u8,
    child: bool,
    source: u8,
    class: u8,
    external: Option<u8>,
}

#[derive(Clone, Debug)]
pub(crate) struct Person {
    tel: Option<u8>,
    mail: Option<u8>,
    id: Option<u8>,
    agent: Option<u8>,
    name: u8,
}

#[derive(Clone, Debug)]
pub(crate) struct Search {
    kind: u8,
    from: Option<i64>,
    until: Option<i64>,
    conversation: Option<u8>,
    subject: Option<(u8, u8)>,
    agent: Option<u8>,
    direction: u8,
    channel: u8,
    label: Option<(u8, u8)>,
    state: u8,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) operation: Operation,
    pub(crate) below: &'static str,
    pub(crate) nth: u64,
    pub(crate) times: u64,
    pub(crate) harm: Harm,
}

/// What happens to a call.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Harm {
    Before(Failure),
    /// Its ack is lost.
    After(Failure),
    Hang,
    /// It hangs with its effect.
    Stall,
    Twice,
    Flip(usize),
    Truncate(usize),
    Lengthen(usize),
    Misstate(u64),
}

/// What is wrong with a store for a while.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Storm {
    Gone,
    Denied,
    /// One call in three is told to slow down.
    Slow,
    LogGone,
    /// One read in three has a wrong bit.
    Noise,
}

pub(crate) fn history() -> impl Strategy<Value = Vec<Op>> {
    vec(op(), 12..40)
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        10 => plain(),
        2 => (fault(), plain()).prop_map(|(f, op)| Op::Faulty(f, Box::new(op))),
        1 => (change(), after()).prop_map(|(op, after)| Op::Cut(Box::new(op), after)),
        1 => weather(),
        4 => resumable(),
        1 => prop_oneof![
            3 => Just(Op::Restart),
            3 => (option::weighted(0.7, tenant()), option::weighted(0.3, 0..20u8))
                .prop_map(|(tenant, killed)| Op::Rotate { tenant, killed }),
            1 => Just(Op::DestroyOldEpochs),
            4 => (tenant(), any::<usize>()).prop_map(|(tenant, which)| Op::Erase { tenant, which }),
            2 => option::weighted(0.3, 0..30u8).prop_map(|killed| Op::Sweep { killed }),
            3 => Just(Op::Crash),
            3 => any::<bool>().prop_map(|crash| Op::LoseIndex { crash }),
            2 => Just(Op::RestoreIndex),
            2 => (fault(), any::<bool>()).prop_map(|(fault, lose)| Op::FaultyStart { fault, lose }),
            1 => Just(Op::Verify),
        ],
    ]
}

fn plain() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => change(),
        1 => (tenant(), which(), 0..3u8).prop_map(|(tenant, which, purpose)| Op::Get { tenant, which, purpose }),
        1 => (tenant(), any::<usize>(), offset(), option::of(offset()), 0..3u8)
            .prop_map(|(tenant, which, offset, limit, purpose)| Op::Read { tenant, which, offset, limit, purpose }),
        1 => (tenant(), vec(any::<usize>(), 1..6), 0..3u8)
            .prop_map(|(tenant, which, purpose)| Op::GetMessages { tenant, which, purpose }),
        2 => (tenant(), search(), any::<bool>(), 1..6usize, 0..3u8)
            .prop_map(|(tenant, query, newest, size, purpose)| Op::List { tenant, query, newest, size, purpose }),
        1 => prop_oneof![Just(1), Just(kit::HOUR), Just(13 * kit::HOUR), Just(24 * kit::HOUR), Just(40 * 24 * kit::HOUR)]
            .prop_map(Op::Advance),
    ]
}

fn change() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => (tenant(), settings(), request()).prop_map(|(tenant, settings, request)| Op::CreateTenant { tenant, settings, request }),
        2 => (tenant(), any::<u8>(), settings(), etag(), request()).prop_map(|(tenant, fields, settings, etag, request)| {
            Op::UpdateTenant { tenant, fields, settings, etag, request }
        }),
        2 => (tenant(), 0..3u8, 0..4u32, option::of(2..9u32), request()).prop_map(|(tenant, class, minimum, maximum, request)| {
            Op::CreateClass { tenant, class, minimum, maximum, request }
        }),
        6 => draw().prop_map(|d| Op::Put(Box::new(d))),
        4 => (tenant(), vec(message(), 1..6)).prop_map(|(tenant, mut draws)| {
            draws.iter_mut().for_each(|draw| draw.tenant = tenant);
            Op::PutMessages(draws)
        }),
        2 => (any::<usize>(), other()).prop_map(|(which, other)| Op::Repeat { which, other }),
        5 => (tenant(), any::<usize>(), any::<u16>(), described(), etag(), request())
            .prop_map(|(tenant, which, fields, described, etag, request)| {
                Op::Update { tenant, which, fields, described, etag, request }
            }),
    ]
}

fn resumable() -> impl Strategy<Value = Op> {
    let length = prop_oneof![3 => 1..2_000usize, 3 => 1..200_000usize, 1 => Just(9 << 20)];
    prop_oneof![
        4 => draw().prop_map(|draw| Op::Begin(Box::new(draw.at_leisure()))),
        6 => (any::<usize>(), length, any::<bool>())
            .prop_map(|(which, length, settle)| Op::Write { which, length, settle }),
        3 => (any::<usize>(), prop::bool::weighted(0.2)).prop_map(|(which, says_more)| Op::Commit { which, says_more }),
        1 => any::<usize>().prop_map(Op::CommitAgain),
        1 => any::<usize>().prop_map(Op::Abort),
    ]
}

/// Mostly one tenant, so that records meet.
fn tenant() -> impl Strategy<Value = u8> {
    prop_oneof![6 => Just(0u8), 2 => Just(1u8), 1 => Just(2u8)]
}

fn request() -> impl Strategy<Value = Option<u8>> {
    option::weighted(0.4, 0..4u8)
}

fn after() -> impl Strategy<Value = After> {
    prop_oneof![
        Just(After::Restart),
        Just(After::Crash),
        Just(After::CrashAndLose)
    ]
}

fn etag() -> impl Strategy<Value = Etag> {
    prop_oneof![2 => Just(Etag::None), 2 => Just(Etag::Current), 1 => Just(Etag::Stale)]
}

fn other() -> impl Strategy<Value = Other> {
    prop_oneof![
        4 => Just(Other::Nothing),
        1 => Just(Other::Content),
        1 => Just(Other::Length),
        1 => Just(Other::Closing),
        1 => Just(Other::Descriptor),
    ]
}

fn which() -> impl Strategy<Value = Which> {
    prop_oneof![
        3 => any::<usize>().prop_map(Which::Record),
        2 => (0..4u8).prop_map(Which::External),
        1 => Just(Which::Nobody),
    ]
}

fn offset() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(0),
        0..300u64,
        65_000..66_000u64,
        0..210_000u64,
        8_380_000..8_400_000u64,
        Just(u64::MAX)
    ]
}

fn length() -> impl Strategy<Value = usize> {
    prop_oneof![1 => Just(0usize), 12 => 1..2_000usize, 4 => 65_400..65_600usize, 8 => 1..200_000usize, 1 => 8_380_000..8_400_000usize]
}

fn settings() -> impl Strategy<Value = Settings> {
    (any::<u8>(), option::weighted(0.3, 0..3u8), 0..3u8).prop_map(|(text, default_class, purposes)| {
        Settings {
            text,
            default_class,
            purposes,
        }
    })
}

fn draw() -> impl Strategy<Value = Draw> {
    let says = (prop::bool::weighted(0.8), any::<bool>());
    let body = (
        0..1_000_000u64,
        length(),
        prop_oneof![Just(1 << 20), 1..70_000usize],
    );
    let closing = option::weighted(0.3, (option::of(0..9_000i64), vec(person(), 0..3)));
    (
        tenant(),
        described(),
        says,
        body,
        request(),
        0..12u8,
        closing,
        option::weighted(0.15, any::<usize>()),
    )
        .prop_map(
            |(
                tenant,
                described,
                (says_class, says_media),
                (seed, length, chunk),
                request,
                expected,
                closing,
                derived,
            )| Draw {
                tenant,
                described,
                says_class,
                says_media,
                seed,
                length,
                chunk: chunk.max(length / 2_000),
                request,
                expected,
                closing,
                derived,
            },
        )
}

/// A message: a body at once, nothing expected of it, nothing known only at the end.
fn message() -> impl Strategy<Value = Draw> {
    let length = prop_oneof![
        1 => Just(0usize),
        12 => 1..2_000usize,
        2 => 65_400..65_600usize,
        1 => (1 << 20) - 1..(1 << 20) + 2usize,
    ];
    (draw(), length).prop_map(|(draw, length)| Draw {
        length,
        expected: u8::MAX,
        closing: None,
        ..draw
    })
}

fn described() -> impl Strategy<Value = Described> {
    let time = (
        prop_oneof![8 => -3..3i64, 1 => Just(-100_000_000), 1 => Just(70_000_000)],
        option::of(prop_oneof![9 => 0..9_000i64, 1 => Just(-1)]),
    );
    let who = (
        vec(person(), 0..4),
        option::of((0..2u8, 0..2u8)),
        0..4u8,
        prop::bool::weighted(0.1),
    );
    (
        0..3u8,
        0..3u8,
        0..4u8,
        time,
        who,
        any::<u8>(),
        prop_oneof![6 => Just(0u8), 2 => 1..4u8],
        option::weighted(0.3, 0..4u8),
    )
        .prop_map(
            |(
                conversation,
                channel,
                direction,
                (start, duration),
                (people, label, purposes, child),
                source,
                class,
                external,
            )| Described {
                conversation,
                channel,
                direction,
                start,
                duration,
                people,
                label,
                purposes,
                child,
                source,
                class,
                external,
            },
        )
}

fn person() -> impl Strategy<Value = Person> {
    let some = || option::of(0..3u8);
    (
        some(),
        some(),
        option::weighted(0.2, 0..2u8),
        option::weighted(0.4, 0..2u8),
        any::<u8>(),
    )
        .prop_map(|(tel, mail, id, agent, name)| Person {
            tel,
            mail,
            id,
            agent,
            name,
        })
}

fn search() -> impl Strategy<Value = Search> {
    let rarely = |of: std::ops::Range<u8>| option::weighted(0.25, of);
    let time = (option::weighted(0.2, -3..3i64), option::weighted(0.2, -3..4i64));
    let subject = option::weighted(0.35, (0..3u8, 0..3u8));
    (
        0..8u8,
        time,
        rarely(0..3),
        subject,
        rarely(0..3),
        0..12u8,
        0..12u8,
        option::weighted(0.15, (0..2u8, 0..2u8)),
        0..10u8,
    )
        .prop_map(
            |(kind, (from, until), conversation, subject, agent, direction, channel, label, state)| Search {
                kind,
                from,
                until,
                conversation,
                subject,
                agent,
                direction,
                channel,
                label,
                state,
            },
        )
}

/// Whoever loses the index loses what was not acknowledged as well: then only puts, whose fate anybody can tell.
fn weather() -> impl Strategy<Value = Op> {
    let storm = prop_oneof![
        2 => Just(Storm::Gone), 1 => Just(Storm::Denied), 2 => Just(Storm::Slow), 2 => Just(Storm::LogGone), 1 => Just(Storm::Noise),
    ];
    let puts = prop_oneof![
        4 => draw().prop_map(|d| Op::Put(Box::new(d))),
        1 => any::<usize>().prop_map(|which| Op::Repeat { which, other: Other::Nothing }),
    ];
    prop_oneof![
        2 => (storm.clone(), vec(plain(), 2..6), option::of(prop_oneof![Just(After::Restart), Just(After::Crash)]))
            .prop_map(|(storm, ops, after)| Op::Weather(storm, ops, after)),
        1 => (storm, vec(puts, 2..5)).prop_map(|(storm, ops)| Op::Weather(storm, ops, Some(After::CrashAndLose))),
    ]
}

fn fault() -> impl Strategy<Value = Fault> {
    use Operation as O;
    let failure =
        || prop_oneof![3 => Just(Failure::Unavailable), 1 => Just(Failure::Full), 1 => Just(Failure::Denied)];
    let writes = prop_oneof![
        4 => Just(O::Put), 3 => Just(O::Overwrite), 1 => Just(O::Begin), 2 => Just(O::PutPart), 2 => Just(O::Complete),
        1 => Just(O::Abort), 1 => Just(O::Delete),
    ];
    let written = prop_oneof![
        6 => failure().prop_map(Harm::Before),
        6 => failure().prop_map(Harm::After),
        1 => Just(Harm::Hang),
        1 => Just(Harm::Stall),
        2 => Just(Harm::Twice),
    ];
    let reads = prop_oneof![4 => Just(O::Get), 1 => Just(O::Head), 1 => Just(O::List), 1 => Just(O::Uploads)];
    let read = prop_oneof![
        4 => failure().prop_map(Harm::Before),
        1 => Just(Harm::Hang),
        4 => (0..70_000usize).prop_map(Harm::Flip),
        4 => (0..200usize).prop_map(Harm::Flip),
        2 => prop_oneof![Just(0), 1..70_000usize].prop_map(Harm::Truncate),
        2 => (1..100usize).prop_map(Harm::Lengthen),
        2 => (0..100_000u64).prop_map(Harm::Misstate),
    ];
    let below = prop_oneof![3 => Just(""), 2 => Just("blobs/"), 1 => Just("log/"), 1 => Just("payloads/")];
    let call = prop_oneof![
        5 => (writes, written, 1..3u64),
        // Reads are tried four times.
        3 => (reads, read, prop_oneof![1..3u64, 4..9u64]),
    ];
    (call, below, 1..3u64).prop_map(|((operation, harm, times), below, nth)| Fault {
        operation,
        below,
        nth,
        times,
        harm,
    })
}

impl Fault {
    /// Whether what is read may be other bytes, all of them the asked for number.
    pub(crate) fn corrupts(&self) -> bool {
        matches!(self.harm, Harm::Flip(_))
    }

    pub(crate) fn is_once(mut self) -> Self {
        self.times = 1;
        self
    }
}

// --- what the small numbers stand for ---

const HOSTILE: [&str; 8] = [
    "plain",
    "'; DROP TABLE records; --",
    "../../../etc/passwd",
    "\u{202e}gpj.exe \u{1f980}",
    "%00%0d%0aSet-Cookie: a=b {{7*7}} ${HOME}",
    "\u{feff}zero\u{200b}width",
    "<script>alert(1)</script>",
    "İstanbul ß ǆ",
];

fn hostile(n: u8) -> String {
    match n % 9 {
        8 => "a".repeat(256),
        n => HOSTILE[usize::from(n)].to_owned(),
    }
}

pub(crate) fn tenant_id(n: u8) -> TenantId {
    kit::tenant(["acme", "a", "acme-2"][usize::from(n)])
}

pub(crate) fn class_id(n: u8) -> RetentionClassId {
    ["std", "long", "st", "none"][usize::from(n)].parse().unwrap()
}

pub(crate) fn request_id(n: u8) -> RequestId {
    ["r", "r2", "../r", "R"][usize::from(n)].parse().unwrap()
}

pub(crate) fn purpose(n: u8) -> Purpose {
    [kit::LAWFUL, Purpose::CustomerCare, Purpose::DirectMarketing][usize::from(n)]
}

fn purposes(n: u8) -> impl Iterator<Item = Purpose> {
    let all: &[Purpose] = match n {
        0 => Purpose::ALL,
        1 => &[Purpose::LegalCompliance, Purpose::CustomerCare],
        2 => &[Purpose::DirectMarketing],
        _ => &[],
    };
    all.iter().copied()
}

pub(crate) fn external_id(n: u8) -> callvault::domain::ids::ExternalId {
    ["call-1", "call-2", "Call-1", "call\u{1f4de}"][usize::from(n)]
        .parse()
        .unwrap()
}

fn moment(hours: i64) -> Timestamp {
    Timestamp(1_767_225_600_000_000_i64.saturating_add(hours.saturating_mul(kit::HOUR)))
}

impl Settings {
    pub(crate) fn settings(&self) -> TenantSettings {
        TenantSettings {
            display_name: Some(hostile(self.text).parse().unwrap()),
            controller: (self.text > 128).then(|| "Controller".parse().unwrap()),
            role: None,
            default_retention_class: self.default_class.map(class_id),
            allowed_purposes: match self.purposes {
                0 => Default::default(),
                n => purposes(n).collect(),
            },
            jurisdictions: Vec::new(),
        }
    }

    /// At creation a default class is refused; seldom enough.
    pub(crate) fn at_creation(&self) -> TenantSettings {
        TenantSettings {
            default_retention_class: self.default_class.filter(|n| *n == 2).map(class_id),
            ..self.settings()
        }
    }
}

impl Person {
    pub(crate) fn party(&self) -> Party {
        const TELS: [&str; 3] = ["+5215512345678", "tel:+52-155-1234-5679", "+14155550100"];
        const MAILS: [&str; 3] = [
            "Jane.Doe@Example.com",
            "jane.doe@example.com",
            "JÜRGEN@example.com",
        ];
        Party {
            role: self.agent.map(|_| PartyRole::Agent),
            tel: self.tel.map(|n| TELS[usize::from(n)].parse().unwrap()),
            mailto: self.mail.map(|n| MAILS[usize::from(n)].parse().unwrap()),
            name: Some(hostile(self.name).parse().unwrap()),
            external_subject_id: self.id.map(|n| hostile(n + 1).parse().unwrap()),
            agent_id: self.agent.map(agent),
            team: None,
        }
    }
}

fn agent(n: u8) -> callvault::domain::text::Text {
    // The same text as an external subject id: they must not be taken for each other.
    hostile(n + 1).parse().unwrap()
}

impl Described {
    pub(crate) fn descriptor(&self, derived_from: Option<RecordId>) -> Descriptor {
        Descriptor {
            conversation_id: ["c-1", "c-2", "+5215512345678"][usize::from(self.conversation)]
                .parse()
                .unwrap(),
            channel: Channel::ALL[usize::from(self.channel)],
            direction: Direction::ALL.get(usize::from(self.direction)).copied(),
            start: moment(self.start),
            duration_millis: self.duration,
            parties: self.people.iter().map(Person::party).collect(),
            media_type: "application/octet-stream".parse().unwrap(),
            languages: vec!["es-MX".parse().unwrap()],
            labels: self
                .label
                .iter()
                .map(|(k, v)| (label_key(*k), hostile(*v)))
                .collect(),
            data_categories: [].into(),
            allowed_purposes: purposes(self.purposes).collect(),
            legal_basis: None,
            notice_version: None,
            consent_ref: None,
            source: Some(hostile(self.source).parse().unwrap()),
            retention_class: class_id(self.class),
            age_flag: self.child.then_some(AgeFlag::Child),
            jurisdictions: Vec::new(),
            external_id: self.external.map(external_id),
            derived_from,
            incomplete: false,
        }
    }

    /// For an update, which may not leave a record without purposes.
    pub(crate) fn update(&self) -> Descriptor {
        let mut descriptor = self.descriptor(None);
        if descriptor.allowed_purposes.is_empty() {
            descriptor.allowed_purposes = purposes(1).collect();
        }
        descriptor
    }
}

fn label_key(n: u8) -> callvault::domain::text::LabelKey {
    ["queue", "queue.2"][usize::from(n)].parse().unwrap()
}

impl Draw {
    /// As a resumable upload: nothing is expected of it, its names are its own, and it has content.
    fn at_leisure(mut self) -> Self {
        (self.expected, self.request, self.described.external) = (5, None, None);
        self.length = self.length.max(1);
        self.described.duration = self.described.duration.filter(|millis| *millis >= 0);
        self
    }

    pub(crate) fn content(&self) -> Bytes {
        if self.seed.is_multiple_of(3) && self.expected == u8::MAX {
            return "¿qué tal? ".repeat(self.length / 11 + 1).into_bytes()[..self.length]
                .to_vec()
                .into();
        }
        kit::content(self.seed, self.length)
    }
}

impl Search {
    pub(crate) fn query(&self) -> Query {
        let person = |n| {
            Person {
                tel: Some(n),
                mail: Some(n),
                id: Some(n),
                agent: None,
                name: 0,
            }
            .party()
        };
        Query {
            kinds: match self.kind {
                0 => [Kind::Artifact].into(),
                1 => [Kind::Recording, Kind::Message].into(),
                _ => [].into(),
            },
            from: self.from.map(moment),
            until: self.until.map(moment),
            conversation: self
                .conversation
                .map(|n| ["c-1", "c-2", "nobody"][usize::from(n)].parse().unwrap()),
            subject: self.subject.and_then(|(how, who)| match how {
                0 => person(who).tel.map(SubjectIdentifier::Tel),
                1 => person(who).mailto.map(SubjectIdentifier::Mailto),
                _ => person(who).external_subject_id.map(SubjectIdentifier::External),
            }),
            agent: self.agent.map(agent),
            derived_from: None,
            direction: Direction::ALL.get(usize::from(self.direction)).copied(),
            channel: Channel::ALL
                .get(usize::from(self.channel))
                .copied()
                .filter(|_| self.channel < 3),
            labels: self
                .label
                .iter()
                .map(|(k, v)| (label_key(*k), hostile(*v)))
                .collect::<BTreeMap<_, _>>(),
            states: match self.state {
                0 => [State::Restricted].into(),
                1 => [State::Active, State::Blocked].into(),
                _ => [].into(),
            },
        }
    }
}
