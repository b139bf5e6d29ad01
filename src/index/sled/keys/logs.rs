//! `log(kind, node, term)`, `log_next(kind, node, term)`, `queue(kind, node, term, position)`, `sequence(scope[, tenant])`.

use super::{
    Span, Table,
    codec::{Columns, Reader, undecodable},
};
use crate::index::{IndexError, Key, LogId, LogKind, Scope};

// Persisted: never changed, never reused.
const STATE: u8 = 1;
const ACCESS: u8 = 2;
const FACT: u8 = 0;
const REGION: u8 = 1;
const TENANT: u8 = 2;

pub(super) fn log(log: LogId) -> Vec<u8> {
    with_log(Table::Log, log).done()
}

pub(super) fn next(log: LogId) -> Vec<u8> {
    with_log(Table::LogNext, log).done()
}

pub(super) fn sequence(scope: &Scope) -> Vec<u8> {
    let columns = Columns::of(Table::Sequence);
    match scope {
        Scope::Fact => columns.u8(FACT),
        Scope::Region => columns.u8(REGION),
        Scope::Tenant(tenant) => columns.u8(TENANT).text(tenant.as_str()),
    }
    .done()
}

pub(super) fn all() -> Span {
    Span::under(Columns::of(Table::Log).done())
}

/// Where the leaf at `position` is queued.
pub(in crate::index::sled) fn position(log: LogId, position: u64) -> Vec<u8> {
    with_log(Table::Queue, log).u64(position).done()
}

/// Where the leaves of `log` from position `from` up to but without `to` are queued; to the end when `None`.
pub(in crate::index::sled) fn queue(log: LogId, from: u64, to: Option<u64>) -> Span {
    let whole = Span::under(with_log(Table::Queue, log).done());
    let high = to.map_or(whole.high, |to| position(log, to));
    Span::between(position(log, from), high)
}

/// The key of a row of this family; `None` if the table is not of it. The queue is no table of the trait.
pub(super) fn read(table: u8, columns: &mut Reader<'_>) -> Option<Result<Key, IndexError>> {
    const LOG: u8 = Table::Log as u8;
    const LOG_NEXT: u8 = Table::LogNext as u8;
    const SEQUENCE: u8 = Table::Sequence as u8;
    match table {
        LOG => Some(read_log(columns).map(Key::Log)),
        LOG_NEXT => Some(read_log(columns).map(Key::LogNext)),
        SEQUENCE => Some(read_scope(columns).map(Key::Sequence)),
        _ => None,
    }
}

fn with_log(table: Table, log: LogId) -> Columns {
    let kind = match log.kind {
        LogKind::State => STATE,
        LogKind::Access => ACCESS,
    };
    Columns::of(table).u8(kind).u32(log.node).u64(log.term)
}

fn read_log(columns: &mut Reader<'_>) -> Result<LogId, IndexError> {
    let kind = match columns.u8()? {
        STATE => LogKind::State,
        ACCESS => LogKind::Access,
        _ => return Err(undecodable()),
    };
    Ok(LogId {
        kind,
        node: columns.u32()?,
        term: columns.u64()?,
    })
}

fn read_scope(columns: &mut Reader<'_>) -> Result<Scope, IndexError> {
    match columns.u8()? {
        FACT => Ok(Scope::Fact),
        REGION => Ok(Scope::Region),
        TENANT => columns.id().map(Scope::Tenant),
        _ => Err(undecodable()),
    }
}
