//! Which index keys a tenant's searchable identifiers are blinded under, as a row that every writer of such rows expects.
//!
//! The row is what the tenant's keys imply. Whoever derived terms from keys that are no longer the tenant's fails on it and
//! looks again; so from the moment at which a next index key is staged, everything that is put can be found under it.

use crate::{
    domain::{
        ids::{RecordId, TenantId},
        record::Descriptor,
    },
    index::{Expect, Key, Row},
    keys::tenant::TenantKeys,
    proto::storage::{BlindingRow, IndexKeyStaged, TenantKeyRotated, TenantRow},
};

use super::{
    Error, Vault,
    rows::RowCodec,
    terms::{self, Terms},
};

/// Generation of a tenant without keys.
pub(super) const NONE: u64 = u64::MAX;

/// What must hold for rows whose terms were derived from these keys.
pub(super) fn fence(rows: &RowCodec, tenant: &TenantId, keys: &TenantKeys) -> Expect {
    if !keys.was_reblinded() {
        return Expect::Absent(Key::Blinding(tenant.clone()));
    }
    let (generation, next) = keys.blinding();
    let row = blinding(rows, tenant, generation, next);
    Expect::Equals(row.key, row.value)
}

/// Whether this is such an expectation.
pub(super) fn is_fence(expect: &Expect) -> bool {
    matches!(
        expect,
        Expect::Absent(Key::Blinding(_)) | Expect::Equals(Key::Blinding(_), _)
    )
}

/// The rows of a tenant with a next index key.
pub(super) fn staged(
    rows: &RowCodec,
    tenant: &TenantId,
    before: TenantRow,
    generation: u64,
    body: &IndexKeyStaged,
) -> Vec<Row> {
    let row = TenantRow {
        sealed_keyring: body.sealed_keyring.clone(),
        ..before
    };
    vec![
        rows.row(Key::Tenant(tenant.clone()), &row),
        blinding(rows, tenant, generation, body.generation),
    ]
}

/// The row of a tenant that has no keys any more: no expectation of a writer holds.
pub(super) fn none(rows: &RowCodec, tenant: &TenantId) -> Row {
    blinding(rows, tenant, NONE, 0)
}

fn blinding(rows: &RowCodec, tenant: &TenantId, generation: u64, next_generation: u64) -> Row {
    let row = BlindingRow {
        generation,
        next_generation,
    };
    rows.row(Key::Blinding(tenant.clone()), &row)
}

/// Everything that leads to a record, for whoever shreds it.
#[derive(Debug)]
pub(super) struct FoundBy {
    /// Rows to delete with it.
    pub(super) keys: Vec<Key>,
    /// What must hold, beside the record's own row being what it was.
    pub(super) expect: Vec<Expect>,
}

impl Vault {
    /// The row of a tenant whose key was rotated; `None` if it stays what it is.
    pub(super) async fn blinding_rotated(
        &self,
        tenant: &TenantId,
        body: &TenantKeyRotated,
    ) -> Result<Option<Row>, Error> {
        if body.index_key_generation != 0 {
            return Ok(Some(blinding(&self.rows, tenant, body.index_key_generation, 0)));
        }
        // A next index key that did not take over is given up.
        let before = self.blinding_row(tenant).await?;
        let given_up = before.filter(|before| before.next_generation != 0);
        Ok(given_up.map(|before| blinding(&self.rows, tenant, before.generation, 0)))
    }

    /// The rows of a tenant whose next index key a leaf names.
    pub(super) async fn replay_staging(
        &self,
        tenant: &TenantId,
        body: &IndexKeyStaged,
    ) -> Result<Vec<Row>, Error> {
        let corrupt = || Error::corrupt("leaf");
        let (before, _) = self.tenant_row(tenant).await?.ok_or_else(corrupt)?;
        let generation = self.blinding_row(tenant).await?.map_or(1, |row| row.generation);
        Ok(staged(&self.rows, tenant, before, generation, body))
    }

    pub(super) async fn blinding_row(&self, tenant: &TenantId) -> Result<Option<BlindingRow>, Error> {
        let key = Key::Blinding(tenant.clone());
        let value = self.index.get(&key).await?;
        value.map(|value| self.rows.open(&key, &value)).transpose()
    }

    /// What leads to a record with this descriptor.
    ///
    /// # Errors
    /// What index and keys answered.
    pub(super) async fn found_by_terms(
        &self,
        tenant: &TenantId,
        record: &RecordId,
        descriptor: &Descriptor,
    ) -> Result<FoundBy, Error> {
        let keys = self.keys.tenant(tenant).await?;
        let terms = Terms::of(&keys, descriptor);
        let numbers = terms::known_numbers(&*self.index, &self.rows, tenant, &terms.numbered()).await?;
        let mut found_by = terms.keys(tenant, record, &numbers);
        found_by.extend(terms.external_keys(tenant));
        let mut expect = numbers.expectations();
        expect.push(fence(&self.rows, tenant, &keys));
        Ok(FoundBy {
            keys: found_by,
            expect,
        })
    }
}
