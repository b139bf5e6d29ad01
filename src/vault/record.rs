//! Records as rows: reading them, opening what they seal, and showing them to callers who may see them.

use prost::Message;

use crate::{
    blob::format::{Entry, Footer},
    crypto::{context, kdf, kdf::DekKeys, secret::Dek},
    domain::{
        clock::Timestamp,
        ids::{ExternalId, PageId, RecordId, RegionName, TenantId, VaultId},
        judge::Reason,
        purpose::Purpose,
        record::{Descriptor, Kind as RecordKind, Record, State},
    },
    index::{Index, Key, Row},
    proto::storage::{ExternalRow, RecordKind as StoredKind, RecordRow},
};

use super::{
    Error, Kind, Vault,
    descriptor::{self, Place},
    terms,
};

/// How a caller names a record.
#[derive(Clone, Debug)]
pub enum Name {
    /// By the vault's id.
    Id(RecordId),
    /// By the platform's id.
    External(ExternalId),
}

/// A record's row, parsed.
#[derive(Clone, Debug)]
pub(super) struct Located {
    vault_id: VaultId,
    pub(super) tenant: TenantId,
    pub(super) id: RecordId,
    pub(super) kind: RecordKind,
    pub(super) state: State,
    pub(super) region: RegionName,
    pub(super) page: PageId,
    pub(super) slot: u16,
    pub(super) binding: [u8; 32],
    pub(super) row: RecordRow,
    /// The row's value as read, for preconditions.
    pub(super) value: Vec<u8>,
}

impl Located {
    pub(super) fn place(&self) -> Place<'_> {
        self.place_of_version(self.row.descriptor_version)
    }

    pub(super) fn place_of_version(&self, version: u32) -> Place<'_> {
        Place {
            vault: &self.vault_id,
            tenant: &self.tenant,
            record: &self.id,
            kind: self.kind,
            region: &self.region,
            created: Timestamp(self.row.created_micros),
            object_key: &self.row.object_key,
            entry_index: self.row.entry_index,
            entry_count: self.row.entry_count,
            plaintext_length: self.row.plaintext_length,
            version,
            binding: &self.binding,
        }
    }
}

impl Vault {
    /// One record without its content, if it may be seen for this purpose.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if there is none, or it is shredded; [`Kind::Corrupt`] if it does not authenticate.
    pub async fn record(
        &self,
        tenant: &TenantId,
        name: &Name,
        reason: impl Into<Reason>,
    ) -> Result<Record, Error> {
        let reason = reason.into();
        let _turn = self.turn(tenant).await?;
        let located = self.locate(tenant, name).await?.ok_or_else(Error::not_found)?;
        let (record, _) = self.open_record(&located).await?;
        let is_pending = record.state == State::PendingShred;
        if is_pending && !reason.is_by_law() {
            return Err(Error::not_found());
        }
        if let Err(refused) = reason.judge(&record) {
            // Whoever guesses the platform's ids learns nothing of what is not for him.
            return Err(match name {
                Name::Id(_) => refused,
                Name::External(_) => Error::not_found(),
            });
        }
        if !is_seen_for(&record, &reason) {
            return Err(purpose_denied(reason.purpose()));
        }
        Ok(record)
    }

    pub(super) async fn locate(&self, tenant: &TenantId, name: &Name) -> Result<Option<Located>, Error> {
        self.active_tenant(tenant).await?;
        self.locate_in_any(tenant, name).await
    }

    /// Likewise, whether or not the tenant is served.
    pub(super) async fn locate_in_any(
        &self,
        tenant: &TenantId,
        name: &Name,
    ) -> Result<Option<Located>, Error> {
        let id = match name {
            Name::Id(id) => *id,
            Name::External(external) => match self.by_external_id(tenant, external).await? {
                Some(id) => id,
                None => return Ok(None),
            },
        };
        let key = Key::Record(tenant.clone(), id);
        let Some(value) = self.index.get(&key).await? else {
            return Ok(None);
        };
        self.parse_row(tenant, &id, value).map(Some)
    }

    async fn by_external_id(&self, tenant: &TenantId, id: &ExternalId) -> Result<Option<RecordId>, Error> {
        let (key, value) = loop {
            let keys = self.keys.tenant(tenant).await?;
            let key = Key::External(tenant.clone(), terms::external(keys.index_key(), id));
            if let Some(value) = self.index.get(&key).await? {
                break (key, value);
            }
            if self.is_blinded_by(tenant, &keys).await? {
                return Ok(None);
            }
        };
        let row: ExternalRow = self.rows.open(&key, &value)?;
        RecordId::from_slice(&row.record_id)
            .map(Some)
            .map_err(|_| Error::corrupt("index row"))
    }

    pub(super) fn parse_row(
        &self,
        tenant: &TenantId,
        id: &RecordId,
        value: Vec<u8>,
    ) -> Result<Located, Error> {
        let row: RecordRow = self.rows.open(&Key::Record(tenant.clone(), *id), &value)?;
        let bad = || Error::corrupt("index row");
        Ok(Located {
            vault_id: self.realm.vault,
            tenant: tenant.clone(),
            id: *id,
            kind: u32::try_from(row.kind)
                .ok()
                .and_then(RecordKind::from_number)
                .ok_or_else(bad)?,
            state: State::from_number(row.state).ok_or_else(bad)?,
            region: row.region.parse().map_err(|_| bad())?,
            page: PageId::from_slice(&row.page_id).map_err(|_| bad())?,
            slot: u16::try_from(row.slot).map_err(|_| bad())?,
            binding: row.binding[..].try_into().map_err(|_| bad())?,
            row,
            value,
        })
    }

    /// Opens a record's descriptor, and the keys that open its content.
    pub(super) async fn open_record(&self, located: &Located) -> Result<(Record, DekKeys), Error> {
        self.open_with(located, &self.record_dek(located).await?)
    }

    /// Likewise, with the record's DEK.
    pub(super) fn open_with(&self, located: &Located, dek: &Dek) -> Result<(Record, DekKeys), Error> {
        let keys = DekKeys::derive(dek);
        let descriptor = located
            .place()
            .open(&keys.descriptor, &located.row.sealed_descriptor)?;
        Ok((located.record(descriptor), keys))
    }

    pub(super) async fn record_dek(&self, located: &Located) -> Result<Dek, Error> {
        let row = &located.row;
        self.open_dek(
            &located.tenant,
            &located.page,
            located.slot,
            located.id.as_bytes(),
            &row.wrapped_dek,
            &row.commitment,
        )
        .await
    }

    /// Opens a wrapped DEK: slot key, unwrap, commitment.
    pub(super) async fn open_dek(
        &self,
        tenant: &TenantId,
        page: &PageId,
        slot: u16,
        owner: &[u8],
        wrapped: &[u8],
        commitment: &[u8],
    ) -> Result<Dek, Error> {
        let slot_key = self.keys.slot_key(tenant, page, slot).await?;
        let aad = context::wrapped_dek(&self.realm.vault, tenant, page, slot, owner);
        Ok(kdf::open_dek(&slot_key, wrapped, &aad, commitment)?)
    }

    /// Opens the descriptor that a footer's entry holds.
    pub(super) async fn open_entry(
        &self,
        footer: &Footer,
        index: usize,
        object_key: &str,
    ) -> Result<(Descriptor, DekKeys), Error> {
        let entry = footer
            .entries
            .get(index)
            .ok_or_else(|| Error::corrupt("footer"))?;
        let dek = self
            .open_dek(
                &footer.tenant,
                &entry.page,
                entry.slot,
                entry.record.as_bytes(),
                &entry.wrapped_dek,
                &entry.commitment,
            )
            .await?;
        let keys = DekKeys::derive(&dek);
        let binding = descriptor::binding(footer.node, entry);
        let place = entry_place(footer, entry, index, object_key, &binding);
        let descriptor = place.open(&keys.descriptor, &entry.sealed_descriptor)?;
        Ok((descriptor, keys))
    }
}

/// Where the descriptor of a footer's entry belongs.
pub(super) fn entry_place<'a>(
    footer: &'a Footer,
    entry: &'a Entry,
    index: usize,
    object_key: &'a str,
    binding: &'a [u8; 32],
) -> Place<'a> {
    Place {
        vault: &footer.vault,
        tenant: &footer.tenant,
        record: &entry.record,
        kind: entry.kind,
        region: &footer.region,
        created: footer.created,
        object_key,
        entry_index: u32::try_from(index).unwrap_or(u32::MAX),
        entry_count: u32::try_from(footer.entries.len()).unwrap_or(u32::MAX),
        plaintext_length: entry.plaintext_length,
        version: 1,
        binding,
    }
}

/// A blob in the bucket, as its put leaf names it.
#[derive(Clone, Debug)]
pub(super) struct BlobName {
    pub(super) object_key: String,
    pub(super) object_version: String,
    pub(super) footer_sha256: [u8; 32],
}

/// The row of a record fresh from its footer.
pub(super) fn record_row(
    footer: &Footer,
    index: usize,
    offset: u64,
    blob: &BlobName,
    descriptor: &Descriptor,
) -> RecordRow {
    let entry = &footer.entries[index];
    RecordRow {
        kind: match entry.kind {
            RecordKind::Recording => StoredKind::Recording,
            RecordKind::Message => StoredKind::Message,
            RecordKind::Artifact => StoredKind::Artifact,
        }
        .into(),
        state: descriptor.resting_state().number(),
        object_key: blob.object_key.clone(),
        object_version: blob.object_version.clone(),
        footer_sha256: blob.footer_sha256.to_vec().into(),
        entry_index: u32::try_from(index).unwrap_or(u32::MAX),
        entry_count: u32::try_from(footer.entries.len()).unwrap_or(u32::MAX),
        offset,
        plaintext_length: entry.plaintext_length,
        page_id: entry.page.as_bytes().to_vec().into(),
        slot: u32::from(entry.slot),
        wrapped_dek: entry.wrapped_dek.clone(),
        commitment: entry.commitment.to_vec().into(),
        binding: descriptor::binding(footer.node, entry).to_vec().into(),
        region: footer.region.to_string(),
        created_micros: footer.created.micros(),
        updated_micros: footer.created.micros(),
        start_micros: descriptor.start.micros(),
        descriptor_version: 1,
        sealed_descriptor: entry.sealed_descriptor.clone(),
        request_mac: entry
            .request
            .as_ref()
            .map(|request| request.mac.to_vec())
            .unwrap_or_default()
            .into(),
        ..RecordRow::default()
    }
}

impl Located {
    pub(super) fn record(&self, descriptor: Descriptor) -> Record {
        Record {
            tenant: self.tenant.clone(),
            id: self.id,
            kind: self.kind,
            state: self.state,
            descriptor,
            version: self.row.descriptor_version,
            created: Timestamp(self.row.created_micros),
            updated: Timestamp(self.row.updated_micros),
            size: self.row.plaintext_length,
            region: self.region.clone(),
        }
    }
}

/// Whether a record's descriptor may be seen for this reason.
pub(super) fn may_see(record: &Record, reason: &Reason) -> bool {
    is_seen_for(record, reason) && reason.judge(record).is_ok()
}

/// Whether a record's descriptor is there to be seen: for a purpose that it allows, or one that the law imposes.
fn is_seen_for(record: &Record, reason: &Reason) -> bool {
    let cut_off = record.state == State::PendingShred;
    reason.is_by_law() || !cut_off && record.descriptor.allowed_purposes.contains(&reason.purpose())
}

/// Gate 2: whether a record's content may be read now, for this reason. Its state and its purposes are law: no policy stands above them.
pub(super) fn may_read(record: &Record, reason: &Reason) -> Result<(), Error> {
    if matches!(record.state, State::PendingShred | State::Shredded) {
        return Err(Error::not_found());
    }
    // Asked before anything that tells of the record: whose it is, or whether it is restricted, is not everybody's to know.
    reason.judge(record)?;
    if record.state != State::Active {
        return Err(Error::new(
            Kind::WrongState,
            "RESTRICTED",
            "the record is kept but may not be read; ask the tenant's compliance officer",
        ));
    }
    if record.descriptor.allowed_purposes.contains(&reason.purpose()) {
        return Ok(());
    }
    Err(purpose_denied(reason.purpose()))
}

fn purpose_denied(purpose: Purpose) -> Error {
    let message = format!(
        "the record may not be used for this purpose purpose={}",
        purpose.term()
    );
    Error::new(Kind::Forbidden, "PURPOSE_DENIED", message)
}

/// An index row as a message without a MAC.
pub(super) fn plain_row(key: Key, message: &impl Message) -> Row {
    Row {
        key,
        value: message.encode_to_vec(),
    }
}

/// Reads and decodes a row without a MAC.
pub(super) async fn read_plain<M: Message + Default>(
    index: &dyn Index,
    key: &Key,
) -> Result<Option<M>, Error> {
    let Some(value) = index.get(key).await? else {
        return Ok(None);
    };
    M::decode(&value[..])
        .map(Some)
        .map_err(|_| Error::corrupt("index row"))
}
