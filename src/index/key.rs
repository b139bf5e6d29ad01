//! Keys of the index: a table each, columns in order. Tenant first wherever there is one.

use crate::domain::{
    clock::Timestamp,
    ids::{ErasureId, OperationId, PageId, RecordId, RetentionClassId, TenantId},
};

/// Which log of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogKind {
    /// Every change, kept for ever.
    State,
    /// Every access, kept for its retention.
    Access,
}

/// One log: its kind, the node slot that writes it and the lease term under which it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId {
    /// State or access.
    pub kind: LogKind,
    /// Node slot.
    pub node: u32,
    /// Lease term, from 1.
    pub term: u64,
}

/// Whose sequence a leaf is numbered in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Nobody's: a fact that is true in any order.
    Fact,
    /// The region's.
    Region,
    /// A tenant's.
    Tenant(TenantId),
}

/// A blinded value: HMAC-SHA256 under a tenant's key.
pub type Blind = [u8; 32];
/// A random number that stands for a subject, a conversation or an agent in index rows.
pub type Number = [u8; 16];

/// Key of a row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// A fact about this index itself, by a short fixed name.
    Meta(&'static str),
    /// A root epoch.
    Epoch(u64),
    /// Long work on keys.
    KeyOperation(OperationId),
    /// A region page.
    RegionPage(PageId),
    /// How far a log has been applied.
    Log(LogId),
    /// Next position of a log (u64 big-endian).
    LogNext(LogId),
    /// Last number of a sequence (u64 big-endian).
    Sequence(Scope),
    /// A tenant.
    Tenant(TenantId),
    /// A version of a tenant's envelope key.
    TenantKey(TenantId, u64),
    /// A retention class.
    RetentionClass(TenantId, RetentionClassId),
    /// A tenant page.
    Page(TenantId, PageId),
    /// The page that a class and month (yyyymm) are filling; class `""` and month 0 for settings.
    OpenPage(TenantId, String, u32),
    /// A record.
    Record(TenantId, RecordId),
    /// A record by the start of its conversation.
    ByTime(TenantId, Timestamp, RecordId),
    /// A record of a conversation.
    ByConversation(TenantId, Number, Timestamp, RecordId),
    /// A record of a subject or an agent.
    BySubject(TenantId, Number, Timestamp, RecordId),
    /// A record derived from another: the source, then the derived record by the start of its conversation.
    BySource(TenantId, RecordId, Timestamp, RecordId),
    /// The number behind a blinded identifier.
    Identifier(TenantId, Blind),
    /// The record behind a blinded external id.
    External(TenantId, Blind),
    /// The record behind a keyed request id.
    Request(TenantId, Blind),
    /// An erasure.
    Erasure(TenantId, ErasureId),
    /// An erasure that is due at a time.
    DueErasure(Timestamp, TenantId, ErasureId),
    /// What stays of a shredded record.
    Tombstone(TenantId, RecordId),
    /// An erasure of which something could still be opened with old copies.
    Unswept(TenantId, ErasureId),
    /// An object that nothing needs any more, by its name.
    Purge(TenantId, String),
    /// Which index keys blind a tenant's identifiers.
    Blinding(TenantId),
    /// A number that a shredded record was found by: it is to be replaced.
    Renumber(TenantId, Number),
}

/// A contiguous run of rows of one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Range {
    /// All root epochs.
    Epochs,
    /// All long work on keys, oldest first.
    KeyOperations,
    /// All region pages.
    RegionPages,
    /// All logs ([`Key::Log`]).
    Logs,
    /// All tenants, by id.
    Tenants,
    /// All versions of a tenant's key.
    TenantKeys(TenantId),
    /// All retention classes of a tenant.
    RetentionClasses(TenantId),
    /// All pages of a tenant.
    Pages(TenantId),
    /// All open pages of all tenants.
    OpenPages,
    /// All records of a tenant, by id.
    Records(TenantId),
    /// A tenant's records by time, `from` inclusive, `to` exclusive.
    ByTime(TenantId, Timestamp, Timestamp),
    /// A conversation's records by time, `from` inclusive, `to` exclusive.
    ByConversation(TenantId, Number, Timestamp, Timestamp),
    /// A subject's records by time, `from` inclusive, `to` exclusive.
    BySubject(TenantId, Number, Timestamp, Timestamp),
    /// What was derived from a record, by time, `from` inclusive, `to` exclusive.
    BySource(TenantId, RecordId, Timestamp, Timestamp),
    /// All of a tenant's records by their conversations.
    Conversations(TenantId),
    /// All of a tenant's records by their subjects and agents.
    Subjects(TenantId),
    /// All of a tenant's derived records by their sources.
    Sources(TenantId),
    /// A tenant's blinded identifiers.
    Identifiers(TenantId),
    /// A tenant's blinded external ids.
    Externals(TenantId),
    /// All request ids of all tenants.
    Requests,
    /// All request ids of a tenant.
    TenantRequests(TenantId),
    /// All open pages of a tenant.
    TenantOpenPages(TenantId),
    /// A tenant's erasures, oldest first.
    Erasures(TenantId),
    /// Erasures of all tenants that are due before a time, by that time.
    DueErasures(Timestamp),
    /// What stays of a tenant's shredded records.
    Tombstones(TenantId),
    /// Erasures of all tenants that no sweep has made final.
    Unswept,
    /// All objects that wait for their deletion.
    Purges,
    /// Those of a tenant.
    TenantPurges(TenantId),
    /// A tenant's numbers that are to be replaced.
    Renumbers(TenantId),
}
