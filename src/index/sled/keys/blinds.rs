//! `identifier(tenant, blind)`, `external(tenant, blind)`, `request(tenant, blind)`.

use super::{
    Span, Table,
    codec::{Columns, Reader},
};
use crate::{
    domain::ids::TenantId,
    index::{IndexError, Key, key::Blind},
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
    match table {
        IDENTIFIER => Some(read_blind(columns, Key::Identifier)),
        EXTERNAL => Some(read_blind(columns, Key::External)),
        REQUEST => Some(read_blind(columns, Key::Request)),
        _ => None,
    }
}

fn with(table: Table, tenant: &TenantId) -> Columns {
    Columns::of(table).text(tenant.as_str())
}

fn read_blind(columns: &mut Reader<'_>, key: fn(TenantId, Blind) -> Key) -> Result<Key, IndexError> {
    Ok(key(columns.id()?, columns.array()?))
}
