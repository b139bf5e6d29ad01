//! Keys of the trait as bytes of one ordered tree: a table prefix, then the columns.
//!
//! No range lists [`Key::Meta`], so its rows are written and looked up by name and never read back from bytes.

mod blinds;
mod codec;
mod erasures;
mod logs;
mod records;
mod region;
mod tenants;
#[cfg(test)]
mod tests;

use self::codec::Reader;
use crate::index::{IndexError, Key, Range};

pub(super) use self::logs::{position, queue};

/// The first byte of a key. Persisted: a number is never changed and never given to another table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Table {
    Meta = 0x01,
    Epoch = 0x02,
    RegionPage = 0x03,
    KeyOperation = 0x04,
    Log = 0x10,
    LogNext = 0x11,
    Sequence = 0x12,
    Queue = 0x13,
    Tenant = 0x20,
    TenantKey = 0x21,
    RetentionClass = 0x22,
    Page = 0x23,
    OpenPage = 0x24,
    Record = 0x30,
    ByTime = 0x31,
    ByConversation = 0x32,
    BySubject = 0x33,
    BySource = 0x34,
    Identifier = 0x40,
    External = 0x41,
    Request = 0x42,
    Blinding = 0x43,
    Renumber = 0x44,
    Erasure = 0x50,
    DueErasure = 0x51,
    Tombstone = 0x52,
    Unswept = 0x53,
    Purge = 0x54,
    /// Pieces of long values, so that no scan of another table meets them.
    Chunk = 0xF0,
}

/// A run of keys: `low` is the first that may be in it, `high` the first that is beyond.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) low: Vec<u8>,
    pub(super) high: Vec<u8>,
}

impl Span {
    fn between(low: Vec<u8>, high: Vec<u8>) -> Self {
        Self { low, high }
    }

    /// All keys that begin with `prefix`.
    fn under(prefix: Vec<u8>) -> Self {
        let mut high = prefix.clone();
        // Every prefix begins with a table, none of which is FF: something is always left to increment.
        while high.last() == Some(&u8::MAX) {
            high.pop();
        }
        if let Some(last) = high.last_mut() {
            *last += 1;
        }
        Self::between(prefix, high)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.low >= self.high
    }
}

/// A key as bytes. Bytes sort as keys of the same table do.
pub(super) fn encode(key: &Key) -> Vec<u8> {
    match key {
        Key::Meta(name) => region::meta(name),
        Key::Epoch(epoch) => region::epoch(*epoch),
        Key::RegionPage(page) => region::page(page),
        Key::KeyOperation(operation) => region::operation(operation),
        Key::Log(log) => logs::log(*log),
        Key::LogNext(log) => logs::next(*log),
        Key::Sequence(scope) => logs::sequence(scope),
        Key::Tenant(tenant) => tenants::tenant(tenant),
        Key::TenantKey(tenant, version) => tenants::key(tenant, *version),
        Key::RetentionClass(tenant, class) => tenants::retention_class(tenant, class),
        Key::Page(tenant, page) => tenants::page(tenant, page),
        Key::OpenPage(tenant, class, month) => tenants::open_page(tenant, class, *month),
        Key::Record(tenant, record) => records::record(tenant, record),
        Key::ByTime(tenant, time, record) => records::by_time(tenant, *time, record),
        Key::ByConversation(tenant, number, time, record) => {
            records::by_conversation(tenant, number, *time, record)
        }
        Key::BySubject(tenant, number, time, record) => records::by_subject(tenant, number, *time, record),
        Key::BySource(tenant, source, time, record) => records::by_source(tenant, source, *time, record),
        Key::Identifier(tenant, blind) => blinds::identifier(tenant, blind),
        Key::External(tenant, blind) => blinds::external(tenant, blind),
        Key::Request(tenant, blind) => blinds::request(tenant, blind),
        Key::Blinding(tenant) => blinds::blinding(tenant),
        Key::Renumber(tenant, number) => blinds::renumber(tenant, number),
        Key::Erasure(tenant, erasure) => erasures::erasure(tenant, erasure),
        Key::DueErasure(time, tenant, erasure) => erasures::due(*time, tenant, erasure),
        Key::Tombstone(tenant, record) => erasures::tombstone(tenant, record),
        Key::Unswept(tenant, erasure) => erasures::unswept(tenant, erasure),
        Key::Purge(tenant, object) => erasures::purge(tenant, object),
    }
}

/// Whether the row at `key` only says that a record is found there, so that its value is empty.
pub(super) fn finds_a_record(key: &[u8]) -> bool {
    const FOUND_BY: [u8; 4] = [
        Table::ByTime as u8,
        Table::ByConversation as u8,
        Table::BySubject as u8,
        Table::BySource as u8,
    ];
    key.first().is_some_and(|table| FOUND_BY.contains(table))
}

/// The key that `bytes` were made of, of a table that a [`Range`] lists.
///
/// # Errors
/// [`IndexError::Corrupt`] if they were not made by [`encode`], or of a table that is never listed.
pub(super) fn decode(bytes: &[u8]) -> Result<Key, IndexError> {
    let mut columns = Reader::new(bytes);
    let table = columns.u8()?;
    let key = region::read(table, &mut columns)
        .or_else(|| logs::read(table, &mut columns))
        .or_else(|| tenants::read(table, &mut columns))
        .or_else(|| records::read(table, &mut columns))
        .or_else(|| blinds::read(table, &mut columns))
        .or_else(|| erasures::read(table, &mut columns))
        .unwrap_or_else(|| Err(codec::undecodable()))?;
    columns.end()?;
    Ok(key)
}

/// Where the rows of a range lie.
pub(super) fn span(range: &Range) -> Span {
    match range {
        Range::Epochs => region::epochs(),
        Range::RegionPages => region::pages(),
        Range::KeyOperations => region::operations(),
        Range::Logs => logs::all(),
        Range::Tenants => tenants::all(),
        Range::TenantKeys(tenant) => tenants::keys(tenant),
        Range::RetentionClasses(tenant) => tenants::retention_classes(tenant),
        Range::Pages(tenant) => tenants::pages(tenant),
        Range::OpenPages => tenants::open_pages(),
        Range::Records(tenant) => records::all(tenant),
        Range::ByTime(tenant, from, to) => records::in_time(tenant, *from, *to),
        Range::ByConversation(tenant, number, from, to) => {
            records::of_conversation(tenant, number, *from, *to)
        }
        Range::BySubject(tenant, number, from, to) => records::of_subject(tenant, number, *from, *to),
        Range::BySource(tenant, source, from, to) => records::of_source(tenant, source, *from, *to),
        Range::Conversations(tenant) => records::of_conversations(tenant),
        Range::Subjects(tenant) => records::of_subjects(tenant),
        Range::Sources(tenant) => records::of_sources(tenant),
        Range::Identifiers(tenant) => blinds::identifiers(tenant),
        Range::Externals(tenant) => blinds::externals(tenant),
        Range::Requests => blinds::requests(),
        Range::TenantRequests(tenant) => blinds::requests_of(tenant),
        Range::TenantOpenPages(tenant) => tenants::open_pages_of(tenant),
        Range::Renumbers(tenant) => blinds::renumbers(tenant),
        Range::Erasures(tenant) => erasures::all(tenant),
        Range::DueErasures(until) => erasures::due_before(*until),
        Range::Tombstones(tenant) => erasures::tombstones(tenant),
        Range::Unswept => erasures::all_unswept(),
        Range::Purges => erasures::purges(),
        Range::TenantPurges(tenant) => erasures::purges_of(tenant),
    }
}

/// One piece of the long value at `key`. Keys are no prefixes of each other, so neither are these.
pub(super) fn chunk(key: &[u8], place: u16) -> Vec<u8> {
    let mut chunk = Vec::with_capacity(key.len() + 3);
    chunk.push(Table::Chunk as u8);
    chunk.extend_from_slice(key);
    chunk.extend_from_slice(&place.to_be_bytes());
    chunk
}
