//! `tenant(tenant)`, `tenant_key(tenant, version)`, `retention_class(tenant, class)`, `page(tenant, page)`,
//! `open_page(tenant, class, month)`.

use super::{
    Span, Table,
    codec::{Columns, Reader},
};
use crate::{
    domain::ids::{PageId, RetentionClassId, TenantId},
    index::{IndexError, Key},
};

pub(super) fn tenant(tenant: &TenantId) -> Vec<u8> {
    with(Table::Tenant, tenant).done()
}

pub(super) fn key(tenant: &TenantId, version: u64) -> Vec<u8> {
    with(Table::TenantKey, tenant).u64(version).done()
}

pub(super) fn retention_class(tenant: &TenantId, class: &RetentionClassId) -> Vec<u8> {
    with(Table::RetentionClass, tenant).text(class.as_str()).done()
}

pub(super) fn page(tenant: &TenantId, page: &PageId) -> Vec<u8> {
    with(Table::Page, tenant).bytes(page.as_bytes()).done()
}

pub(super) fn open_page(tenant: &TenantId, class: &str, month: u32) -> Vec<u8> {
    with(Table::OpenPage, tenant).text(class).u32(month).done()
}

pub(super) fn all() -> Span {
    Span::under(Columns::of(Table::Tenant).done())
}

pub(super) fn keys(tenant: &TenantId) -> Span {
    Span::under(with(Table::TenantKey, tenant).done())
}

pub(super) fn retention_classes(tenant: &TenantId) -> Span {
    Span::under(with(Table::RetentionClass, tenant).done())
}

pub(super) fn pages(tenant: &TenantId) -> Span {
    Span::under(with(Table::Page, tenant).done())
}

pub(super) fn open_pages() -> Span {
    Span::under(Columns::of(Table::OpenPage).done())
}

pub(super) fn open_pages_of(tenant: &TenantId) -> Span {
    Span::under(Columns::of(Table::OpenPage).text(tenant.as_str()).done())
}

/// The key of a row of this family; `None` if the table is not of it.
pub(super) fn read(table: u8, columns: &mut Reader<'_>) -> Option<Result<Key, IndexError>> {
    const TENANT: u8 = Table::Tenant as u8;
    const TENANT_KEY: u8 = Table::TenantKey as u8;
    const RETENTION_CLASS: u8 = Table::RetentionClass as u8;
    const PAGE: u8 = Table::Page as u8;
    const OPEN_PAGE: u8 = Table::OpenPage as u8;
    match table {
        TENANT => Some(columns.id().map(Key::Tenant)),
        TENANT_KEY => Some(read_key(columns)),
        RETENTION_CLASS => Some(read_retention_class(columns)),
        PAGE => Some(read_page(columns)),
        OPEN_PAGE => Some(read_open_page(columns)),
        _ => None,
    }
}

fn with(table: Table, tenant: &TenantId) -> Columns {
    Columns::of(table).text(tenant.as_str())
}

fn read_key(columns: &mut Reader<'_>) -> Result<Key, IndexError> {
    Ok(Key::TenantKey(columns.id()?, columns.u64()?))
}

fn read_retention_class(columns: &mut Reader<'_>) -> Result<Key, IndexError> {
    Ok(Key::RetentionClass(columns.id()?, columns.id()?))
}

fn read_page(columns: &mut Reader<'_>) -> Result<Key, IndexError> {
    Ok(Key::Page(columns.id()?, columns.page()?))
}

fn read_open_page(columns: &mut Reader<'_>) -> Result<Key, IndexError> {
    Ok(Key::OpenPage(columns.id()?, columns.text()?, columns.u32()?))
}
