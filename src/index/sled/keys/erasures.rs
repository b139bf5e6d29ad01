//! `erasure(tenant, erasure)`, `due_erasure(time, tenant, erasure)`, `tombstone(tenant, record)`, `unswept(tenant, erasure)`,
//! `purge(tenant, object)`.

use super::{
    Span, Table,
    codec::{Columns, Reader},
};
use crate::{
    domain::{
        clock::Timestamp,
        ids::{ErasureId, RecordId, TenantId},
    },
    index::{IndexError, Key},
};

pub(super) fn erasure(tenant: &TenantId, erasure: &ErasureId) -> Vec<u8> {
    with(Table::Erasure, tenant).bytes(erasure.as_bytes()).done()
}

pub(super) fn due(time: Timestamp, tenant: &TenantId, erasure: &ErasureId) -> Vec<u8> {
    Columns::of(Table::DueErasure)
        .time(time)
        .text(tenant.as_str())
        .bytes(erasure.as_bytes())
        .done()
}

pub(super) fn tombstone(tenant: &TenantId, record: &RecordId) -> Vec<u8> {
    with(Table::Tombstone, tenant).bytes(record.as_bytes()).done()
}

pub(super) fn unswept(tenant: &TenantId, erasure: &ErasureId) -> Vec<u8> {
    with(Table::Unswept, tenant).bytes(erasure.as_bytes()).done()
}

pub(super) fn purge(tenant: &TenantId, object: &str) -> Vec<u8> {
    with(Table::Purge, tenant).text(object).done()
}

pub(super) fn all(tenant: &TenantId) -> Span {
    Span::under(with(Table::Erasure, tenant).done())
}

pub(super) fn due_before(until: Timestamp) -> Span {
    let all = Columns::of(Table::DueErasure).done();
    Span::between(all, Columns::of(Table::DueErasure).time(until).done())
}

pub(super) fn tombstones(tenant: &TenantId) -> Span {
    Span::under(with(Table::Tombstone, tenant).done())
}

pub(super) fn all_unswept() -> Span {
    Span::under(Columns::of(Table::Unswept).done())
}

pub(super) fn purges() -> Span {
    Span::under(Columns::of(Table::Purge).done())
}

pub(super) fn purges_of(tenant: &TenantId) -> Span {
    Span::under(with(Table::Purge, tenant).done())
}

/// The key of a row of this family; `None` if the table is not of it.
pub(super) fn read(table: u8, columns: &mut Reader<'_>) -> Option<Result<Key, IndexError>> {
    const ERASURE: u8 = Table::Erasure as u8;
    const DUE: u8 = Table::DueErasure as u8;
    const TOMBSTONE: u8 = Table::Tombstone as u8;
    const UNSWEPT: u8 = Table::Unswept as u8;
    const PURGE: u8 = Table::Purge as u8;
    match table {
        ERASURE => Some(read_erasure(columns, Key::Erasure)),
        DUE => Some(read_due(columns)),
        TOMBSTONE => Some(read_tombstone(columns)),
        UNSWEPT => Some(read_erasure(columns, Key::Unswept)),
        PURGE => Some(read_purge(columns)),
        _ => None,
    }
}

fn with(table: Table, tenant: &TenantId) -> Columns {
    Columns::of(table).text(tenant.as_str())
}

fn read_erasure(columns: &mut Reader<'_>, key: fn(TenantId, ErasureId) -> Key) -> Result<Key, IndexError> {
    Ok(key(columns.id()?, columns.erasure()?))
}

fn read_due(columns: &mut Reader<'_>) -> Result<Key, IndexError> {
    Ok(Key::DueErasure(
        columns.time()?,
        columns.id()?,
        columns.erasure()?,
    ))
}

fn read_tombstone(columns: &mut Reader<'_>) -> Result<Key, IndexError> {
    Ok(Key::Tombstone(columns.id()?, columns.record()?))
}

fn read_purge(columns: &mut Reader<'_>) -> Result<Key, IndexError> {
    Ok(Key::Purge(columns.id()?, columns.text()?))
}
