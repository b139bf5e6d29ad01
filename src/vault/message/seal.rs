//! A group becomes a blob: every message under a key of its own, its extent behind the one before, the footer at the end.

use std::{collections::BTreeMap, sync::Arc};

use bytes::{Bytes, BytesMut};

use crate::{
    blob::{
        format::{self, Entry, Footer},
        store::ObjectKey,
    },
    crypto::{
        aead, context, kdf,
        kdf::DekKeys,
        secret::Dek,
        stream::{self, ExtentBuffer, TagsDigest},
    },
    domain::{
        clock::Timestamp,
        ids::{RecordId, RetentionClassId, TenantId},
    },
    keys::{FreshSlot, FreshSlots},
};

use super::{
    super::{
        Error, Kind, Vault, descriptor,
        record::{BlobName, entry_place},
    },
    prepare::Ready,
};

/// Bytes kept for an entry of the footer beside its descriptor; a longer footer costs a copy.
const ENTRY_ROOM: usize = 768;

/// A group as a blob that is not stored yet.
pub(super) struct Sealed {
    pub(super) group: Vec<Ready>,
    pub(super) footer: Footer,
    pub(super) name: BlobName,
    pub(super) object: ObjectKey,
    pub(super) bytes: Bytes,
}

/// Slots for a group, by the class that their page is filled by.
pub(super) type Slots = BTreeMap<RetentionClassId, Vec<FreshSlots>>;

impl Vault {
    /// A slot for every message of a group.
    pub(super) async fn group_slots(
        &self,
        tenant: &TenantId,
        group: &[Ready],
        created: Timestamp,
    ) -> Result<Slots, Error> {
        let mut counts: BTreeMap<RetentionClassId, usize> = BTreeMap::new();
        for message in group {
            *counts
                .entry(message.descriptor.retention_class.clone())
                .or_default() += 1;
        }
        let mut slots = Slots::new();
        let month = created.year_month();
        for (class, count) in counts {
            let taken = self.keys.fresh_slots(tenant, Some(&class), month, count).await?;
            slots.insert(class, taken);
        }
        Ok(slots)
    }

    /// Seals a group. CPU-bound: some tens of microseconds a message.
    pub(super) fn seal_group(
        self: &Arc<Self>,
        tenant: &TenantId,
        group: Vec<Ready>,
        mut slots: Slots,
        created: Timestamp,
    ) -> Result<Sealed, Error> {
        let records = group.iter().map(|_| RecordId::mint(created, &*self.rng));
        let records: Vec<RecordId> = records.collect::<Result<_, _>>()?;
        let first = records
            .first()
            .ok_or_else(|| Error::new(Kind::Internal, "GROUP", "a group is empty"))?;
        let object = ObjectKey::parse(&format::object_key(tenant, created, first))?;
        let content: u64 = group
            .iter()
            .map(|m| stream::ciphertext_len(m.body.len() as u64))
            .sum();
        let room = usize::try_from(content).unwrap_or(0) + group.len() * ENTRY_ROOM;
        let mut sealing = Sealing {
            vault: self,
            tenant,
            bytes: BytesMut::with_capacity(room),
            keys: Vec::with_capacity(group.len()),
        };
        let mut entries = Vec::with_capacity(group.len());
        for (message, record) in group.iter().zip(records) {
            let slot = next_slot(&mut slots, &message.descriptor.retention_class)?;
            entries.push(sealing.entry(message, record, &slot)?);
        }
        let Sealing {
            mut bytes,
            keys: deks,
            ..
        } = sealing;
        let mut footer = Footer {
            vault: self.realm.vault,
            region: self.realm.region.clone(),
            tenant: tenant.clone(),
            node: self.node,
            created,
            entries,
        };
        for (index, (message, keys)) in group.iter().zip(&deks).enumerate() {
            let entry = &footer.entries[index];
            let binding = descriptor::binding(footer.node, entry);
            let place = entry_place(&footer, entry, index, object.as_str(), &binding);
            let sealed = place.seal(&keys.descriptor, &message.descriptor, &*self.rng)?;
            footer.entries[index].sealed_descriptor = sealed;
        }
        let encoded = footer.encode()?;
        bytes.extend_from_slice(&encoded.bytes);
        Ok(Sealed {
            group,
            name: BlobName {
                object_key: object.to_string(),
                object_version: String::new(),
                footer_sha256: encoded.sha256,
            },
            object,
            footer,
            bytes: bytes.freeze(),
        })
    }
}

/// A blob being filled.
struct Sealing<'a> {
    vault: &'a Vault,
    tenant: &'a TenantId,
    bytes: BytesMut,
    keys: Vec<DekKeys>,
}

impl Sealing<'_> {
    /// Seals one message's body at the end of the blob; its descriptor is sealed when all entries are known.
    fn entry(&mut self, message: &Ready, record: RecordId, slot: &FreshSlot) -> Result<Entry, Error> {
        let (realm, rng) = (&self.vault.realm, &*self.vault.rng);
        let dek = Dek::generate(rng)?;
        let aad = context::wrapped_dek(
            &realm.vault,
            self.tenant,
            &slot.page,
            slot.slot,
            record.as_bytes(),
        );
        let wrapped = aead::wrap(&slot.key, dek.expose(), &aad, rng)?;
        let keys = DekKeys::derive(&dek);
        let aad = context::extent(self.tenant, &record, message.kind.number(), &realm.region, 0);
        let mut extent = ExtentBuffer::within(0, self.bytes.split_off(self.bytes.len()));
        extent.fill(&mut message.body.clone());
        let sealed = extent.seal(&keys.content, &aad, rng)?;
        let mut tags = TagsDigest::new();
        tags.update(&sealed.tags_digest);
        self.bytes.unsplit(sealed.bytes);
        self.keys.push(keys);
        Ok(Entry {
            record,
            kind: message.kind,
            plaintext_length: message.body.len() as u64,
            page: slot.page,
            slot: slot.slot,
            wrapped_dek: wrapped.into(),
            commitment: dek.commitment(),
            request: message
                .asked
                .as_ref()
                .map(|asked| asked.tag(&kdf::fingerprint_key(&dek))),
            sealed_descriptor: Bytes::new(),
            tags_digest: tags.finish(),
        })
    }
}

fn next_slot(slots: &mut Slots, class: &RetentionClassId) -> Result<FreshSlot, Error> {
    for run in slots.get_mut(class).into_iter().flatten() {
        if let Some(slot) = run.take()? {
            return Ok(slot);
        }
    }
    Err(Error::new(Kind::Internal, "SLOTS", "a slot is missing"))
}
