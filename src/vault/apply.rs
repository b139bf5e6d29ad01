//! What a leaf means for the index: the same rows whether it was just queued or is replayed from the bucket.

use bytes::Bytes;
use prost::Message;

use crate::{
    domain::{
        clock::Timestamp,
        ids::{PageId, TenantId},
        tenant::TenantState,
    },
    index::{Key, Row},
    keys::store::{StoredPage, StoredTenantKey},
    proto::storage::{
        EpochRow, PageRow, RegionPageSealed, RetentionClassCreated, RootEpochCreated, TenantCreated,
        TenantKeyRow, TenantPageSealed, TenantRow, TenantUpdated, WrappedTenantKey,
    },
};

use super::rows::RowCodec;

/// The region page being filled.
pub(crate) const OPEN_REGION_PAGE: &str = "open-region-page";
/// Numbers of key states, stored.
pub(crate) const ENABLED: u32 = 1;

/// The row of an epoch. It has no MAC: it is read to find the key of the MAC, and authenticates itself.
pub(crate) fn epoch(body: &RootEpochCreated) -> Row {
    let row = EpochRow {
        epoch: body.epoch,
        provider: body.provider.clone(),
        handle: body.handle.clone(),
        wrapped_epoch_key: body.wrapped_epoch_key.clone(),
        sealed_keyring: body.sealed_keyring.clone(),
        state: ENABLED,
    };
    Row {
        key: Key::Epoch(body.epoch),
        value: row.encode_to_vec(),
    }
}

/// The row of a region page.
pub(crate) fn region_page(rows: &RowCodec, body: &RegionPageSealed) -> Option<Row> {
    let page = PageId::from_slice(&body.page_id).ok()?;
    let row = PageRow {
        generation: body.generation,
        key_version: body.epoch,
        sealed_state: body.sealed_state.clone(),
        retention_class: String::new(),
        month: 0,
    };
    Some(rows.row(Key::RegionPage(page), &row))
}

/// The row of a tenant page.
pub(crate) fn tenant_page(rows: &RowCodec, tenant: &TenantId, body: &TenantPageSealed) -> Option<Row> {
    let page = PageId::from_slice(&body.page_id).ok()?;
    let row = PageRow {
        generation: body.generation,
        key_version: body.key_version,
        sealed_state: body.sealed_state.clone(),
        retention_class: body.retention_class.clone(),
        month: body.month,
    };
    Some(rows.row(Key::Page(tenant.clone(), page), &row))
}

/// The rows of a new tenant; `sealed_settings` is the payload that the leaf names.
pub(crate) fn tenant_created(
    rows: &RowCodec,
    tenant: &TenantId,
    body: &TenantCreated,
    sealed_settings: &Bytes,
    created: Timestamp,
) -> Option<Vec<Row>> {
    let key = body.key.clone()?;
    let version = key.version;
    let row = TenantRow {
        state: TenantState::Active as u32,
        current_key_version: version,
        sealed_keyring: body.sealed_keyring.clone(),
        settings: Some(body.settings.clone()?),
        sealed_settings: sealed_settings.clone(),
        created_micros: created.micros(),
    };
    let key_row = TenantKeyRow {
        key: Some(key),
        state: ENABLED,
        created_micros: created.micros(),
    };
    Some(vec![
        rows.row(Key::Tenant(tenant.clone()), &row),
        rows.row(Key::TenantKey(tenant.clone(), version), &key_row),
        tenant_page(rows, tenant, body.settings_page.as_ref()?)?,
    ])
}

/// The row of a tenant whose settings changed.
pub(crate) fn tenant_updated(
    rows: &RowCodec,
    tenant: &TenantId,
    before: TenantRow,
    body: &TenantUpdated,
    sealed_settings: &Bytes,
) -> Option<Row> {
    let settings = Some(body.settings.clone()?);
    let row = TenantRow {
        settings,
        sealed_settings: sealed_settings.clone(),
        ..before
    };
    Some(rows.row(Key::Tenant(tenant.clone()), &row))
}

/// The row of a retention class.
pub(crate) fn retention_class(
    rows: &RowCodec,
    tenant: &TenantId,
    body: &RetentionClassCreated,
) -> Option<Row> {
    let class = body.retention_class.as_ref()?;
    let id = class.id.parse().ok()?;
    Some(rows.row(Key::RetentionClass(tenant.clone(), id), class))
}

/// The leaf of a new tenant page.
pub(crate) fn tenant_page_leaf(page: &PageId, stored: &StoredPage) -> TenantPageSealed {
    TenantPageSealed {
        page_id: page.as_bytes().to_vec().into(),
        generation: stored.generation,
        key_version: stored.key_version,
        retention_class: stored.retention_class.clone(),
        month: stored.month,
        sealed_state: stored.sealed_state.clone().into(),
    }
}

/// The leaf of a new region page.
pub(crate) fn region_page_leaf(page: &PageId, stored: &StoredPage) -> RegionPageSealed {
    RegionPageSealed {
        page_id: page.as_bytes().to_vec().into(),
        generation: stored.generation,
        epoch: stored.key_version,
        sealed_state: stored.sealed_state.clone().into(),
    }
}

/// A wrapped tenant key as leaves and rows hold it.
pub(crate) fn wrapped_tenant_key(key: &StoredTenantKey) -> WrappedTenantKey {
    WrappedTenantKey {
        version: key.version,
        root_id: key.root_id.clone(),
        region_page_id: key.region_page.as_bytes().to_vec().into(),
        slot: u32::from(key.slot),
        wrapped_key: key.wrapped.clone().into(),
        commitment: key.commitment.to_vec().into(),
    }
}

/// The same the other way.
pub(crate) fn stored_tenant_key(key: &WrappedTenantKey) -> Option<StoredTenantKey> {
    Some(StoredTenantKey {
        version: key.version,
        root_id: key.root_id.clone(),
        region_page: PageId::from_slice(&key.region_page_id).ok()?,
        slot: u16::try_from(key.slot).ok()?,
        wrapped: key.wrapped_key.to_vec(),
        commitment: key.commitment[..].try_into().ok()?,
    })
}
