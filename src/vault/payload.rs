//! Payload objects: what a leaf is too small or too lasting for, under a key of its own and named by its sealed bytes.

use bytes::Bytes;
use ring::digest;

use crate::{
    blob::store::{ByteRange, ObjectKey, StoreError},
    crypto::{
        aead, context, kdf,
        secret::{Dek, SecretBytes},
    },
    domain::ids::{PageId, TenantId},
    keys::FreshSlot,
    proto::storage::SealedPayload,
};

use super::{Error, Kind, Vault};

impl Vault {
    /// Seals a payload under a DEK and slot of its own.
    pub(super) fn seal_payload(
        &self,
        tenant: &TenantId,
        purpose: &str,
        version: u64,
        plaintext: &[u8],
        slot: &FreshSlot,
    ) -> Result<(SealedPayload, Bytes), Error> {
        let dek = Dek::generate(&*self.rng)?;
        let wrap_context = context::wrapped_dek(
            &self.realm.vault,
            tenant,
            &slot.page,
            slot.slot,
            purpose.as_bytes(),
        );
        let wrapped = aead::wrap(&slot.key, dek.expose(), &wrap_context, &*self.rng)?;
        let aad = context::payload(&self.realm.vault, tenant, purpose, version);
        let sealed = Bytes::from(aead::wrap(&kdf::payload_key(&dek), plaintext, &aad, &*self.rng)?);
        let payload = SealedPayload {
            page_id: slot.page.as_bytes().to_vec().into(),
            slot: u32::from(slot.slot),
            wrapped_dek: wrapped.into(),
            commitment: dek.commitment().to_vec().into(),
            version,
            ..name_payload(&sealed)
        };
        Ok((payload, sealed))
    }

    pub(super) async fn open_payload(
        &self,
        tenant: &TenantId,
        purpose: &str,
        payload: &SealedPayload,
        sealed: &[u8],
    ) -> Result<SecretBytes, Error> {
        let corrupt = || Error::corrupt("payload");
        let page = PageId::from_slice(&payload.page_id).map_err(|_| corrupt())?;
        let slot = u16::try_from(payload.slot).map_err(|_| corrupt())?;
        let dek = self
            .open_dek(
                tenant,
                &page,
                slot,
                purpose.as_bytes(),
                &payload.wrapped_dek,
                &payload.commitment,
            )
            .await?;
        let aad = context::payload(&self.realm.vault, tenant, purpose, payload.version);
        Ok(aead::unwrap_to(&kdf::payload_key(&dek), sealed, &aad)?)
    }

    /// Writes a payload object under the name that its bytes give it.
    pub(super) async fn put_payload(&self, payload: &SealedPayload, sealed: Bytes) -> Result<(), Error> {
        match self.store.put(&payload_key(payload)?, sealed).await {
            Ok(_) | Err(StoreError::AlreadyExists) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads a payload object and checks that its bytes are those that its name promises; once more if they are not.
    pub(super) async fn read_payload(&self, payload: &SealedPayload) -> Result<Bytes, Error> {
        once_more(|| self.read_payload_once(payload)).await
    }

    async fn read_payload_once(&self, payload: &SealedPayload) -> Result<Bytes, Error> {
        let object = self.store.get(&payload_key(payload)?, ByteRange::Full).await?;
        if name_payload(&object.bytes).sha256 != payload.sha256 {
            return Err(Error::corrupt("payload"));
        }
        Ok(object.bytes)
    }
}

/// Reads stored data, once more if it was not what it should be: a bit that flipped on the way is not a damaged object.
pub(super) async fn once_more<T, Read>(read: impl Fn() -> Read) -> Result<T, Error>
where
    Read: Future<Output = Result<T, Error>>,
{
    match read().await {
        Err(error) if error.kind == Kind::Corrupt => {
            tracing::warn!(%error, "stored data does not authenticate; it is read once more");
            read().await
        }
        done => done,
    }
}

/// Names a payload by the SHA-256 of its sealed bytes.
pub(super) fn name_payload(sealed: &[u8]) -> SealedPayload {
    SealedPayload {
        sha256: digest::digest(&digest::SHA256, sealed).as_ref().to_vec().into(),
        length: u32::try_from(sealed.len()).unwrap_or(u32::MAX),
        ..SealedPayload::default()
    }
}

fn payload_key(payload: &SealedPayload) -> Result<ObjectKey, Error> {
    Ok(ObjectKey::parse(&format!(
        "payloads/{}",
        hex::encode(&payload.sha256)
    ))?)
}
