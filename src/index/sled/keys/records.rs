//! `record(tenant, record)`, `by_time(tenant, time, record)`, `by_conversation(tenant, number, time, record)`,
//! `by_subject(tenant, number, time, record)`, `by_source(tenant, source, time, record)`.

use super::{
    Span, Table,
    codec::{Columns, Reader},
};
use crate::{
    domain::{
        clock::Timestamp,
        ids::{RecordId, TenantId},
    },
    index::{IndexError, Key, key::Number},
};

pub(super) fn record(tenant: &TenantId, record: &RecordId) -> Vec<u8> {
    with(Table::Record, tenant).bytes(record.as_bytes()).done()
}

pub(super) fn by_time(tenant: &TenantId, time: Timestamp, record: &RecordId) -> Vec<u8> {
    with(Table::ByTime, tenant)
        .time(time)
        .bytes(record.as_bytes())
        .done()
}

pub(super) fn by_conversation(
    tenant: &TenantId,
    number: &Number,
    time: Timestamp,
    record: &RecordId,
) -> Vec<u8> {
    let columns = with(Table::ByConversation, tenant).bytes(number);
    columns.time(time).bytes(record.as_bytes()).done()
}

pub(super) fn by_subject(tenant: &TenantId, number: &Number, time: Timestamp, record: &RecordId) -> Vec<u8> {
    let columns = with(Table::BySubject, tenant).bytes(number);
    columns.time(time).bytes(record.as_bytes()).done()
}

pub(super) fn by_source(tenant: &TenantId, source: &RecordId, time: Timestamp, record: &RecordId) -> Vec<u8> {
    let columns = with(Table::BySource, tenant).bytes(source.as_bytes());
    columns.time(time).bytes(record.as_bytes()).done()
}

pub(super) fn all(tenant: &TenantId) -> Span {
    Span::under(with(Table::Record, tenant).done())
}

pub(super) fn of_conversations(tenant: &TenantId) -> Span {
    Span::under(with(Table::ByConversation, tenant).done())
}

pub(super) fn of_subjects(tenant: &TenantId) -> Span {
    Span::under(with(Table::BySubject, tenant).done())
}

pub(super) fn of_sources(tenant: &TenantId) -> Span {
    Span::under(with(Table::BySource, tenant).done())
}

pub(super) fn in_time(tenant: &TenantId, from: Timestamp, to: Timestamp) -> Span {
    let at = |time| with(Table::ByTime, tenant).time(time).done();
    Span::between(at(from), at(to))
}

pub(super) fn of_conversation(tenant: &TenantId, number: &Number, from: Timestamp, to: Timestamp) -> Span {
    let at = |time| {
        with(Table::ByConversation, tenant)
            .bytes(number)
            .time(time)
            .done()
    };
    Span::between(at(from), at(to))
}

pub(super) fn of_subject(tenant: &TenantId, number: &Number, from: Timestamp, to: Timestamp) -> Span {
    let at = |time| with(Table::BySubject, tenant).bytes(number).time(time).done();
    Span::between(at(from), at(to))
}

pub(super) fn of_source(tenant: &TenantId, source: &RecordId, from: Timestamp, to: Timestamp) -> Span {
    let of = |time| with(Table::BySource, tenant).bytes(source.as_bytes()).time(time);
    Span::between(of(from).done(), of(to).done())
}

/// The key of a row of this family; `None` if the table is not of it.
pub(super) fn read(table: u8, columns: &mut Reader<'_>) -> Option<Result<Key, IndexError>> {
    const RECORD: u8 = Table::Record as u8;
    const BY_TIME: u8 = Table::ByTime as u8;
    const BY_CONVERSATION: u8 = Table::ByConversation as u8;
    const BY_SUBJECT: u8 = Table::BySubject as u8;
    const BY_SOURCE: u8 = Table::BySource as u8;
    match table {
        RECORD => Some(read_record(columns)),
        BY_TIME => Some(read_by_time(columns)),
        BY_CONVERSATION => Some(read_numbered(columns, Key::ByConversation)),
        BY_SUBJECT => Some(read_numbered(columns, Key::BySubject)),
        BY_SOURCE => Some(read_by_source(columns)),
        _ => None,
    }
}

fn with(table: Table, tenant: &TenantId) -> Columns {
    Columns::of(table).text(tenant.as_str())
}

fn read_record(columns: &mut Reader<'_>) -> Result<Key, IndexError> {
    Ok(Key::Record(columns.id()?, columns.record()?))
}

fn read_by_time(columns: &mut Reader<'_>) -> Result<Key, IndexError> {
    Ok(Key::ByTime(columns.id()?, columns.time()?, columns.record()?))
}

fn read_by_source(columns: &mut Reader<'_>) -> Result<Key, IndexError> {
    Ok(Key::BySource(
        columns.id()?,
        columns.record()?,
        columns.time()?,
        columns.record()?,
    ))
}

fn read_numbered(
    columns: &mut Reader<'_>,
    key: fn(TenantId, Number, Timestamp, RecordId) -> Key,
) -> Result<Key, IndexError> {
    Ok(key(
        columns.id()?,
        columns.array()?,
        columns.time()?,
        columns.record()?,
    ))
}
