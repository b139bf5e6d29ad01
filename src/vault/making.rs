//! A record in the making: its name, its place in the bucket, the keys that seal it.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    blob::{
        format::{self, Entry, Footer, Request},
        store::ObjectKey,
    },
    crypto::{
        aead, context, kdf,
        kdf::DekKeys,
        secret::{Dek, FingerprintKey, SpoolKey},
        stream::{ExtentBuffer, SealedExtent},
    },
    domain::{
        clock::Timestamp,
        ids::{PageId, RecordId, RetentionClassId, TenantId},
        record::{Descriptor, Kind as RecordKind},
    },
};

use super::{Error, Vault, descriptor, record::entry_place};

/// What a record is before it is one.
pub(super) struct Making {
    pub(super) tenant: TenantId,
    pub(super) record: RecordId,
    pub(super) kind: RecordKind,
    pub(super) created: Timestamp,
    pub(super) page: PageId,
    pub(super) slot: u16,
    pub(super) wrapped_dek: Bytes,
    pub(super) commitment: [u8; 32],
    pub(super) keys: Arc<DekKeys>,
    pub(super) spool_key: Arc<SpoolKey>,
    /// Keys what was asked of it.
    pub(super) fingerprint_key: FingerprintKey,
    pub(super) object_key: ObjectKey,
}

impl Vault {
    /// Everything that sealing a recording takes: a slot, a key, a name.
    pub(super) async fn make(
        &self,
        tenant: &TenantId,
        class: &RetentionClassId,
        kind: RecordKind,
    ) -> Result<Making, Error> {
        let created = self.clock.now();
        let record = RecordId::mint(created, &*self.rng)?;
        let slot = self
            .keys
            .fresh_slot(tenant, Some(class), created.year_month())
            .await?;
        let dek = Dek::generate(&*self.rng)?;
        let aad = context::wrapped_dek(
            &self.realm.vault,
            tenant,
            &slot.page,
            slot.slot,
            record.as_bytes(),
        );
        Ok(Making {
            tenant: tenant.clone(),
            record,
            kind,
            created,
            page: slot.page,
            slot: slot.slot,
            wrapped_dek: aead::wrap(&slot.key, dek.expose(), &aad, &*self.rng)?.into(),
            commitment: dek.commitment(),
            keys: Arc::new(DekKeys::derive(&dek)),
            spool_key: Arc::new(kdf::spool_key(&dek)),
            fingerprint_key: kdf::fingerprint_key(&dek),
            object_key: ObjectKey::parse(&format::object_key(tenant, created, &record))?,
        })
    }

    /// The work of sealing an extent, for another thread.
    pub(super) fn sealer(
        &self,
        making: &Making,
        extent: u32,
        buffer: ExtentBuffer,
    ) -> impl FnOnce() -> Result<SealedExtent, Error> + Send + 'static {
        let aad = context::extent(
            &making.tenant,
            &making.record,
            making.kind.number(),
            &self.realm.region,
            extent,
        );
        let (keys, rng) = (Arc::clone(&making.keys), Arc::clone(&self.rng));
        move || Ok(buffer.seal(&keys.content, &aad, &*rng)?)
    }

    /// The footer of a blob that holds this record alone, its descriptor sealed.
    pub(super) fn footer(
        &self,
        making: &Making,
        descriptor: &Descriptor,
        plaintext_length: u64,
        request: Option<Request>,
        tags_digest: [u8; 32],
    ) -> Result<Footer, Error> {
        let entry = Entry {
            record: making.record,
            kind: making.kind,
            plaintext_length,
            page: making.page,
            slot: making.slot,
            wrapped_dek: making.wrapped_dek.clone(),
            commitment: making.commitment,
            request,
            sealed_descriptor: Bytes::new(),
            tags_digest,
        };
        let mut footer = Footer {
            vault: self.realm.vault,
            region: self.realm.region.clone(),
            tenant: making.tenant.clone(),
            node: self.node,
            created: making.created,
            entries: vec![entry],
        };
        let binding = descriptor::binding(footer.node, &footer.entries[0]);
        let sealed = entry_place(
            &footer,
            &footer.entries[0],
            0,
            making.object_key.as_str(),
            &binding,
        )
        .seal(&making.keys.descriptor, descriptor, &*self.rng)?;
        footer.entries[0].sealed_descriptor = sealed;
        Ok(footer)
    }
}
