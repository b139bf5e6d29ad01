//! `meta(name)`, `epoch(number)`, `region_page(page)`, `key_operation(operation)`.

use super::{
    Span, Table,
    codec::{Columns, Reader},
};
use crate::{
    domain::ids::{OperationId, PageId},
    index::{IndexError, Key},
};

pub(super) fn meta(name: &str) -> Vec<u8> {
    Columns::of(Table::Meta).text(name).done()
}

pub(super) fn epoch(epoch: u64) -> Vec<u8> {
    Columns::of(Table::Epoch).u64(epoch).done()
}

pub(super) fn page(page: &PageId) -> Vec<u8> {
    Columns::of(Table::RegionPage).bytes(page.as_bytes()).done()
}

pub(super) fn operation(operation: &OperationId) -> Vec<u8> {
    Columns::of(Table::KeyOperation)
        .bytes(operation.as_bytes())
        .done()
}

pub(super) fn operations() -> Span {
    Span::under(Columns::of(Table::KeyOperation).done())
}

pub(super) fn epochs() -> Span {
    Span::under(Columns::of(Table::Epoch).done())
}

pub(super) fn pages() -> Span {
    Span::under(Columns::of(Table::RegionPage).done())
}

/// The key of a row of this family; `None` if the table is not of it.
pub(super) fn read(table: u8, columns: &mut Reader<'_>) -> Option<Result<Key, IndexError>> {
    const EPOCH: u8 = Table::Epoch as u8;
    const REGION_PAGE: u8 = Table::RegionPage as u8;
    const KEY_OPERATION: u8 = Table::KeyOperation as u8;
    match table {
        EPOCH => Some(columns.u64().map(Key::Epoch)),
        REGION_PAGE => Some(columns.page().map(Key::RegionPage)),
        KEY_OPERATION => Some(columns.operation().map(Key::KeyOperation)),
        _ => None,
    }
}
