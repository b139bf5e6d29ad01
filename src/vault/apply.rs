//! What a leaf means for the index: the same rows whether it was just queued or is replayed from the bucket.

use crate::{
    domain::{
        clock::Timestamp,
        ids::{PageId, RecordId, TenantId},
        tenant::TenantState,
    },
    index::{Key, Row},
    keys::store::{StoredPage, StoredTenantKey},
    proto::storage::{
        EpochRow, PageRow, RecordsShredded, RegionPageSealed, RetentionClassCreated, RootEpochCreated,
        StagedPage, TenantCreated, TenantKeyRotated, TenantKeyRow, TenantPageSealed, TenantRow,
        TenantSuspended, TenantUpdated, TombstoneRow, WrappedTenantKey,
    },
};
use bytes::Bytes;

use super::rows::RowCodec;

/// The region page being filled.
pub(crate) const OPEN_REGION_PAGE: &str = "open-region-page";
/// The highest epoch that a provider was ever about to be asked for, a u64be, and which provider.
pub(crate) const INTENDED_EPOCH: &str = "intended-epoch";
/// Numbers of key states, stored.
pub(crate) const ENABLED: u32 = 1;
pub(crate) const RETIRED: u32 = 2;
pub(crate) const DESTROYED: u32 = 3;

/// The row of a new epoch.
pub(crate) fn epoch(rows: &RowCodec, body: &RootEpochCreated, created: Timestamp) -> Row {
    let row = EpochRow {
        created_micros: created.micros(),
        ..epoch_row(body)
    };
    rows.row(Key::Epoch(body.epoch), &row)
}

/// The row that remembers the highest epoch that was intended, and whose it was to be.
pub(crate) fn intended(epoch: u64, provider: &str) -> Row {
    Row {
        key: Key::Meta(INTENDED_EPOCH),
        value: [&epoch.to_be_bytes()[..], provider.as_bytes()].concat(),
    }
}

/// What a leaf says of an epoch.
pub(crate) fn epoch_row(body: &RootEpochCreated) -> EpochRow {
    EpochRow {
        epoch: body.epoch,
        provider: body.provider.clone(),
        handle: body.handle.clone(),
        wrapped_epoch_key: body.wrapped_epoch_key.clone(),
        sealed_keyring: body.sealed_keyring.clone(),
        state: ENABLED,
        ..EpochRow::default()
    }
}

/// An epoch that another one took over from.
pub(crate) fn epoch_retired(rows: &RowCodec, before: EpochRow, at: Timestamp) -> Row {
    let key = Key::Epoch(before.epoch);
    let row = EpochRow {
        state: RETIRED,
        retired_micros: at.micros(),
        ..before
    };
    rows.row(key, &row)
}

/// An epoch that nothing refers to any more: its provider is about to be asked to destroy it.
pub(crate) fn epoch_destroying(rows: &RowCodec, before: EpochRow, at: Timestamp) -> Row {
    let key = Key::Epoch(before.epoch);
    let row = EpochRow {
        destroying_micros: at.micros(),
        ..before
    };
    rows.row(key, &row)
}

/// An epoch that its provider destroyed, or will, at a time that is not 0.
pub(crate) fn epoch_destroyed(rows: &RowCodec, before: EpochRow, scheduled: i64, at: Timestamp) -> Row {
    let key = Key::Epoch(before.epoch);
    let row = match scheduled {
        0 => EpochRow {
            state: DESTROYED,
            destroyed_micros: at.micros(),
            ..before
        },
        scheduled_micros => EpochRow {
            scheduled_micros,
            ..before
        },
    };
    rows.row(key, &row)
}

/// The row of a region page as a leaf or object of states has it: nothing is staged beside it.
pub(crate) fn region_page(rows: &RowCodec, body: &RegionPageSealed) -> Option<Row> {
    let page = PageId::from_slice(&body.page_id).ok()?;
    let row = PageRow {
        generation: body.generation,
        key_version: body.epoch,
        sealed_state: body.sealed_state.clone(),
        ..PageRow::default()
    };
    Some(rows.row(Key::RegionPage(page), &row))
}

/// The row of a tenant page, likewise.
pub(crate) fn tenant_page(rows: &RowCodec, tenant: &TenantId, body: &TenantPageSealed) -> Option<Row> {
    let page = PageId::from_slice(&body.page_id).ok()?;
    let row = PageRow {
        generation: body.generation,
        key_version: body.key_version,
        sealed_state: body.sealed_state.clone(),
        retention_class: body.retention_class.clone(),
        month: body.month,
        staged: None,
    };
    Some(rows.row(Key::Page(tenant.clone(), page), &row))
}

/// The generation of a page that `key_version` opens, be it the one that a rotation has staged.
pub(crate) fn page_under(row: &PageRow, key_version: u64) -> Option<StoredPage> {
    let (generation, sealed_state) = match &row.staged {
        Some(staged) if staged.key_version == key_version => (staged.generation, &staged.sealed_state),
        _ if row.key_version == key_version => (row.generation, &row.sealed_state),
        _ => return None,
    };
    Some(StoredPage {
        generation,
        key_version,
        sealed_state: sealed_state.to_vec(),
        retention_class: row.retention_class.clone(),
        month: row.month,
    })
}

/// A page's row with the generation that counts, and one that a rotation stages beside it.
pub(crate) fn page_staging(current: &StoredPage, next: &StoredPage) -> PageRow {
    PageRow {
        generation: current.generation,
        key_version: current.key_version,
        sealed_state: current.sealed_state.clone().into(),
        retention_class: current.retention_class.clone(),
        month: current.month,
        staged: Some(StagedPage {
            generation: next.generation,
            key_version: next.key_version,
            sealed_state: next.sealed_state.clone().into(),
        }),
    }
}

/// The rows of a tenant whose key was rotated: the pointer, the new version and the one that it retires. Pages come before.
pub(crate) fn tenant_key_rotated(
    rows: &RowCodec,
    tenant: &TenantId,
    before: TenantRow,
    retired: TenantKeyRow,
    body: &TenantKeyRotated,
    at: Timestamp,
) -> Option<Vec<Row>> {
    let key = body.key.clone()?;
    let (old, new) = (before.current_key_version, key.version);
    let pages: u64 = body
        .page_states
        .iter()
        .map(|states| u64::from(states.pages))
        .sum();
    let row = TenantRow {
        current_key_version: new,
        sealed_keyring: body.sealed_keyring.clone(),
        ..before
    };
    let new_key = TenantKeyRow {
        key: Some(key),
        state: ENABLED,
        created_micros: at.micros(),
        seals: pages + 1,
        ..TenantKeyRow::default()
    };
    let old_key = TenantKeyRow {
        state: RETIRED,
        retired_micros: at.micros(),
        ..retired
    };
    Some(vec![
        rows.row(Key::Tenant(tenant.clone()), &row),
        rows.row(Key::TenantKey(tenant.clone(), new), &new_key),
        rows.row(Key::TenantKey(tenant.clone(), old), &old_key),
    ])
}

/// The row of a version that was destroyed.
pub(crate) fn tenant_key_destroyed(
    rows: &RowCodec,
    tenant: &TenantId,
    version: u64,
    before: TenantKeyRow,
    at: Timestamp,
) -> Row {
    let row = TenantKeyRow {
        state: DESTROYED,
        destroyed_micros: at.micros(),
        ..before
    };
    rows.row(Key::TenantKey(tenant.clone(), version), &row)
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
        state_before: 0,
    };
    let key_row = TenantKeyRow {
        key: Some(key),
        state: ENABLED,
        created_micros: created.micros(),
        // Its first page and its keyring.
        seals: 2,
        ..TenantKeyRow::default()
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

/// The row of a tenant that is suspended, or served again.
pub(crate) fn tenant_suspended(
    rows: &RowCodec,
    tenant: &TenantId,
    before: TenantRow,
    body: &TenantSuspended,
) -> Row {
    let state = match body.suspended {
        true => TenantState::Suspended,
        false => TenantState::Active,
    };
    let row = TenantRow {
        state: state as u32,
        ..before
    };
    rows.row(Key::Tenant(tenant.clone()), &row)
}

/// Tombstones of records, and their pages without their slots. What leads to the records is known where they are.
pub(crate) fn records_shredded(
    rows: &RowCodec,
    tenant: &TenantId,
    body: &RecordsShredded,
    at: Timestamp,
) -> Option<Vec<Row>> {
    let mut put = Vec::with_capacity(body.records.len() + body.pages.len());
    for record in &body.records {
        let id = RecordId::from_slice(&record.record_id).ok()?;
        let row = TombstoneRow {
            erasure_id: body.erasure_id.clone(),
            record: Some(record.clone()),
            shredded_micros: at.micros(),
        };
        put.push(rows.row(Key::Tombstone(tenant.clone(), id), &row));
    }
    for page in &body.pages {
        put.push(tenant_page(rows, tenant, page)?);
    }
    Some(put)
}

/// The row of a tenant that an erasure covers: not served from here on. What it was before the first one is kept.
pub(crate) fn tenant_cut_off(rows: &RowCodec, tenant: &TenantId, before: TenantRow) -> Row {
    let cut_before = before.state == TenantState::PendingShred as u32;
    let row = TenantRow {
        state: TenantState::PendingShred as u32,
        state_before: if cut_before {
            before.state_before
        } else {
            before.state
        },
        ..before
    };
    rows.row(Key::Tenant(tenant.clone()), &row)
}

/// The row of a tenant whose erasure was taken back.
pub(crate) fn tenant_restored(rows: &RowCodec, tenant: &TenantId, before: TenantRow) -> Row {
    let row = TenantRow {
        state: before.state_before,
        state_before: 0,
        ..before
    };
    rows.row(Key::Tenant(tenant.clone()), &row)
}

/// The row of a tenant that is gone.
pub(crate) fn tenant_shredded(rows: &RowCodec, tenant: &TenantId, before: TenantRow) -> Row {
    let row = TenantRow {
        state: TenantState::Shredded as u32,
        state_before: 0,
        ..before
    };
    rows.row(Key::Tenant(tenant.clone()), &row)
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
        stored: None,
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
