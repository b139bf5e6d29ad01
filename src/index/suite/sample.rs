//! Keys and changes to try an index with.

use crate::{
    domain::{
        clock::Timestamp,
        ids::{ErasureId, InvalidId, OperationId, PageId, RecordId, RetentionClassId, TenantId},
    },
    index::{Change, Key, LeafDraft, LogId, LogKind, Range, Row, Scope, key::Number},
};

/// Tenants whose names are prefixes of each other or sort close.
pub const TENANTS: [&str; 4] = ["a", "a-b", "ab", "b"];
/// Times on both sides of 1970 and at both ends.
pub const TIMES: [i64; 7] = [i64::MIN, -1_000, -1, 0, 1, 1_700_000_000_000_000, i64::MAX];
const META: [&str; 3] = ["format", "index_id", ""];
const CLASSES: [&str; 3] = ["default", "default-2", "long"];

/// Numbers that look random and are the same for the same seed. Source: Vigna, SplitMix64.
#[derive(Clone, Debug)]
pub struct Dice(pub u64);

impl Dice {
    /// The next number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.roll() % end.max(1) as u64).unwrap_or(0)
    }

    /// One of `choices`.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// A small or a large number.
    pub fn number(&mut self) -> u64 {
        match self.below(4) {
            0 => u64::MAX,
            1 => self.roll(),
            _ => self.roll() % 300,
        }
    }

    /// A subject or conversation, one of a few.
    pub fn who(&mut self) -> Number {
        self.pick(&[[0; 16], [1; 16], [0xFF; 16]])
    }

    /// A time, often one at an edge.
    pub fn time(&mut self) -> Timestamp {
        Timestamp(if self.below(4) == 0 {
            self.roll().cast_signed()
        } else {
            self.pick(&TIMES)
        })
    }

    /// One of [`TENANTS`].
    ///
    /// # Errors
    /// None that happen.
    pub fn tenant(&mut self) -> Result<TenantId, InvalidId> {
        self.pick(&TENANTS).parse()
    }

    /// A record, one of a few hundred.
    ///
    /// # Errors
    /// None that happen.
    pub fn record(&mut self) -> Result<RecordId, InvalidId> {
        RecordId::from_slice(&uuid(self.below(300)))
    }

    /// A key of any table.
    ///
    /// # Errors
    /// None that happen.
    pub fn key(&mut self) -> Result<Key, InvalidId> {
        let tenant = self.tenant()?;
        Ok(match self.below(27) {
            0 => Key::Meta(self.pick(&META)),
            1 => Key::Epoch(self.number()),
            2 => Key::RegionPage(self.page()?),
            3 => Key::Log(self.log()),
            4 => Key::LogNext(self.log()),
            5 => Key::Sequence(self.scope()?),
            6 => Key::Tenant(tenant),
            7 => Key::TenantKey(tenant, self.number()),
            8 => Key::RetentionClass(tenant, self.class()?),
            9 => Key::Page(tenant, self.page()?),
            10 => Key::OpenPage(
                tenant,
                self.pick(&["", "a", "a\0", "a\u{1}", "ab", "é"]).to_owned(),
                202_611,
            ),
            11 => Key::Record(tenant, self.record()?),
            12 => Key::ByTime(tenant, self.time(), self.record()?),
            13 => Key::ByConversation(tenant, self.who(), self.time(), self.record()?),
            14 => Key::BySubject(tenant, self.who(), self.time(), self.record()?),
            15 => Key::Identifier(tenant, self.blind()),
            16 => Key::External(tenant, self.blind()),
            18 => Key::KeyOperation(self.operation()?),
            17 => Key::BySource(tenant, self.record()?, self.time(), self.record()?),
            19 => Key::Erasure(tenant, self.erasure()?),
            20 => Key::DueErasure(self.time(), tenant, self.erasure()?),
            21 => Key::Tombstone(tenant, self.record()?),
            22 => Key::Unswept(tenant, self.erasure()?),
            23 => Key::Purge(
                tenant,
                self.pick(&["blobs/a", "blobs/a-b", "payloads/a"]).to_owned(),
            ),
            24 => Key::Blinding(tenant),
            25 => Key::Renumber(tenant, self.who()),
            _ => Key::Request(tenant, self.blind()),
        })
    }

    /// A range of any kind.
    ///
    /// # Errors
    /// None that happen.
    pub fn ranges(&mut self) -> Result<Vec<Range>, InvalidId> {
        let tenant = self.tenant()?;
        let (from, to) = (self.time(), self.time());
        Ok(vec![
            Range::Epochs,
            Range::RegionPages,
            Range::KeyOperations,
            Range::Logs,
            Range::Tenants,
            Range::TenantKeys(tenant.clone()),
            Range::RetentionClasses(tenant.clone()),
            Range::Pages(tenant.clone()),
            Range::OpenPages,
            Range::Records(tenant.clone()),
            Range::ByTime(tenant.clone(), from, to),
            Range::ByConversation(tenant.clone(), self.who(), from, to),
            Range::BySubject(tenant.clone(), self.who(), from, to),
            Range::BySource(tenant.clone(), self.record()?, from, to),
            Range::Conversations(tenant.clone()),
            Range::Subjects(tenant.clone()),
            Range::Sources(tenant.clone()),
            Range::Identifiers(tenant.clone()),
            Range::Externals(tenant.clone()),
            Range::Requests,
            Range::TenantRequests(tenant.clone()),
            Range::TenantOpenPages(tenant.clone()),
            Range::Erasures(tenant.clone()),
            Range::DueErasures(from),
            Range::Tombstones(tenant.clone()),
            Range::Unswept,
            Range::Purges,
            Range::TenantPurges(tenant.clone()),
            Range::Renumbers(tenant),
        ])
    }

    /// A value: mostly short, sometimes in pieces.
    pub fn value(&mut self) -> Vec<u8> {
        let length = if self.below(8) == 0 {
            self.below(5_000)
        } else {
            self.below(40)
        };
        let byte = self.roll().to_le_bytes()[0];
        vec![byte; length]
    }

    fn page(&mut self) -> Result<PageId, InvalidId> {
        PageId::from_slice(&uuid(self.below(300)))
    }

    fn operation(&mut self) -> Result<OperationId, InvalidId> {
        OperationId::from_slice(&uuid(self.below(300)))
    }

    fn erasure(&mut self) -> Result<ErasureId, InvalidId> {
        ErasureId::from_slice(&uuid(self.below(300)))
    }

    fn class(&mut self) -> Result<RetentionClassId, InvalidId> {
        self.pick(&CLASSES).parse()
    }

    fn scope(&mut self) -> Result<Scope, InvalidId> {
        Ok(match self.below(3) {
            0 => Scope::Fact,
            1 => Scope::Region,
            _ => Scope::Tenant(self.tenant()?),
        })
    }

    fn log(&mut self) -> LogId {
        let kind = self.pick(&[LogKind::State, LogKind::Access]);
        LogId {
            kind,
            node: self.pick(&[0, 1, u32::MAX]),
            term: self.number(),
        }
    }

    fn blind(&mut self) -> [u8; 32] {
        let mut blind = [0; 32];
        blind[..8].copy_from_slice(&(self.roll() % 300).to_be_bytes());
        blind
    }
}

/// A log.
pub const LOG: LogId = LogId {
    kind: LogKind::State,
    node: 7,
    term: 1,
};

/// A tenant by name.
///
/// # Errors
/// [`InvalidId`] if it is none.
pub fn tenant(name: &str) -> Result<TenantId, InvalidId> {
    name.parse()
}

/// A row.
pub fn row(key: Key, value: impl Into<Vec<u8>>) -> Row {
    Row {
        key,
        value: value.into(),
    }
}

/// A change that puts `rows`.
pub fn put(rows: Vec<Row>) -> Change {
    Change {
        put: rows,
        ..Change::default()
    }
}

/// A change that queues a leaf for each of `scopes`.
pub fn leaves(log: LogId, scopes: &[Scope]) -> Change {
    let leaf = |scope: &Scope| LeafDraft {
        scope: scope.clone(),
        body: b"leaf".to_vec(),
    };
    Change {
        log: Some(log),
        leaves: scopes.iter().map(leaf).collect(),
        ..Change::default()
    }
}

/// A UUIDv7 of time `n`.
fn uuid(n: usize) -> [u8; 16] {
    let mut id = [0; 16];
    id[..6].copy_from_slice(&(n as u64).to_be_bytes()[2..]);
    id[6] = 0x70;
    id[8] = 0x80;
    id
}
