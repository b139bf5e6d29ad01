//! `identifier(tenant, blind)`, `external(tenant, blind)`, `request(tenant, blind)`, `blinding(tenant)`,
//! `renumber(tenant, number)`.

use super::{
    Span, Table,
    codec::{Columns, Reader},
};
use crate::{
    domain::ids::TenantId,
    index::{
        IndexError, Key,
        key::{Blind, Number},
    },
};

pub(super) fn identifier(tenant: &TenantId, blind: &Blind) -> Vec<u8> {
    with(Table::Identifier, tenant).bytes(blind).done()
}

pub(super) fn external(tenant: &TenantId, blind: &Blind) -> Vec<u8> {
    with(Table::External, tenant).bytes(blind).done()
}

pub(super) fn request(tenant: &TenantId, blind: &Blind) -> Vec<u8> {
    with(Table::Request, tenant).bytes(blind).done()
}

pub(super) fn blinding(tenant: &TenantId) -> Vec<u8> {
    with(Table::Blinding, tenant).done()
}

pub(super) fn renumber(tenant: &TenantId, number: &Number) -> Vec<u8> {
    with(Table::Renumber, tenant).bytes(number).done()
}

pub(super) fn renumbers(tenant: &TenantId) -> Span {
    Span::under(with(Table::Renumber, tenant).done())
}

pub(super) fn externals(tenant: &TenantId) -> Span {
    Span::under(with(Table::External, tenant).done())
}

pub(super) fn requests_of(tenant: &TenantId) -> Span {
    Span::under(with(Table::Request, tenant).done())
}

pub(super) fn identifiers(tenant: &TenantId) -> Span {
    Span::under(with(Table::Identifier, tenant).done())
}

pub(super) fn requests() -> Span {
    Span::under(Columns::of(Table::Request).done())
}

/// The key of a row of this family; `None` if the table is not of it.
pub(super) fn read(table: u8, columns: &mut Reader<'_>) -> Option<Result<Key, IndexError>> {
    const IDENTIFIER: u8 = Table::Identifier as u8;
    const EXTERNAL: u8 = Table::External as u8;
    const REQUEST: u8 = Table::Request as u8;
    const BLINDING: u8 = Table::Blinding as u8;
    const RENUMBER: u8 = Table::Renumber as u8;
    match table {
        IDENTIFIER => Some(read_blind(columns, Key::Identifier)),
        EXTERNAL => Some(read_blind(columns, Key::External)),
        REQUEST => Some(read_blind(columns, Key::Request)),
        BLINDING => Some(columns.id().map(Key::Blinding)),
        RENUMBER => Some(read_renumber(columns)),
        _ => None,
    }
}

fn with(table: Table, tenant: &TenantId) -> Columns {
    Columns::of(table).text(tenant.as_str())
}

fn read_blind(columns: &mut Reader<'_>, key: fn(TenantId, Blind) -> Key) -> Result<Key, IndexError> {
    Ok(key(columns.id()?, columns.array()?))
}

fn read_renumber(columns: &mut Reader<'_>) -> Result<Key, IndexError> {
    Ok(Key::Renumber(columns.id()?, columns.array()?))
}
