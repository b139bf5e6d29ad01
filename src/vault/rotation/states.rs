//! Objects of many sealed page states: a rotation of ten million records writes one or two, not two thousand.

use bytes::Bytes;
use prost::Message;

use crate::{
    blob::store::{ByteRange, ObjectKey, StoreError},
    proto::storage::{PageStates, RegionPageSealed, RegionPageStates, TenantPageSealed, TenantPageStates},
};

use super::super::{Error, Kind, Vault, payload::name_payload, payload::once_more};

/// Longest object: what one part of an upload may be on any store, and small enough to hold in memory.
const OBJECT_BYTES: usize = 4 << 20;

const MISSING: &str = "STATES_MISSING";

/// One sealed page state.
#[derive(Clone, Debug)]
pub(super) enum Sealed {
    Tenant(TenantPageSealed),
    Region(RegionPageSealed),
}

/// States on their way into objects.
#[derive(Debug, Default)]
pub(super) struct States {
    waiting: Vec<Sealed>,
    bytes: usize,
    written: Vec<PageStates>,
}

impl States {
    /// Adds a state; writes what waits when it is as long as an object may be.
    pub(super) async fn add(&mut self, vault: &Vault, state: Sealed) -> Result<(), Error> {
        let length = match &state {
            Sealed::Tenant(page) => page.encoded_len(),
            Sealed::Region(page) => page.encoded_len(),
        };
        // Tag and length before each.
        let length = length + 8;
        if self.bytes + length > OBJECT_BYTES {
            self.write(vault).await?;
        }
        self.bytes += length;
        self.waiting.push(state);
        Ok(())
    }

    /// Every object, the last ones written now.
    pub(super) async fn finish(&mut self, vault: &Vault) -> Result<Vec<PageStates>, Error> {
        self.write(vault).await?;
        Ok(self.written.clone())
    }

    async fn write(&mut self, vault: &Vault) -> Result<(), Error> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let pages = u32::try_from(self.waiting.len()).unwrap_or(u32::MAX);
        let (mut of_tenant, mut of_region) = (TenantPageStates::default(), RegionPageStates::default());
        for state in &self.waiting {
            match state {
                Sealed::Tenant(page) => of_tenant.pages.push(page.clone()),
                Sealed::Region(page) => of_region.pages.push(page.clone()),
            }
        }
        // Field 1 of both: an object has pages of one kind, so one of the two is empty.
        let mut bytes = of_tenant.encode_to_vec();
        of_region
            .encode(&mut bytes)
            .map_err(|_| Error::corrupt("page states"))?;
        let states = write_states(vault, bytes.into(), pages).await?;
        self.written.push(states);
        self.waiting.clear();
        self.bytes = 0;
        Ok(())
    }
}

/// Writes an object of states under the name that its bytes give it.
pub(in crate::vault) async fn write_states(
    vault: &Vault,
    bytes: Bytes,
    pages: u32,
) -> Result<PageStates, Error> {
    let named = name_payload(&bytes);
    let states = PageStates {
        sha256: named.sha256,
        length: named.length,
        pages,
    };
    match vault.store.put(&object_of(&states)?, bytes).await {
        Ok(_) | Err(StoreError::AlreadyExists) => Ok(states),
        Err(error) => Err(error.into()),
    }
}

/// The tenant pages of an object that a leaf names.
pub(in crate::vault) async fn tenant_states(
    vault: &Vault,
    states: &PageStates,
) -> Result<Vec<TenantPageSealed>, Error> {
    let read = once_more(|| read(vault, states)).await?;
    let pages = TenantPageStates::decode(read)
        .map_err(|_| Error::corrupt("page states"))?
        .pages;
    counted(states, pages)
}

/// The region pages of an object that a leaf names.
pub(in crate::vault) async fn region_states(
    vault: &Vault,
    states: &PageStates,
) -> Result<Vec<RegionPageSealed>, Error> {
    let read = once_more(|| read(vault, states)).await?;
    let pages = RegionPageStates::decode(read)
        .map_err(|_| Error::corrupt("page states"))?
        .pages;
    counted(states, pages)
}

/// What an object gave, or the error that says that it is not there. A bucket that was restored from the recovery store has none whose
/// key is destroyed.
pub(in crate::vault) fn if_there<T>(read: Result<T, Error>) -> Result<Result<T, Error>, Error> {
    match read {
        Err(error) if error.reason != MISSING => Err(error),
        read => Ok(read),
    }
}

fn counted<T>(states: &PageStates, pages: Vec<T>) -> Result<Vec<T>, Error> {
    if pages.len() == states.pages as usize {
        Ok(pages)
    } else {
        Err(Error::corrupt("page states"))
    }
}

async fn read(vault: &Vault, states: &PageStates) -> Result<Bytes, Error> {
    let whole = ByteRange::Exact {
        offset: 0,
        length: u64::from(states.length),
    };
    let object = match vault.store.get(&object_of(states)?, whole).await {
        Err(error @ StoreError::NotFound) => return Err(missing(states).because(error)),
        other => other?,
    };
    if name_payload(&object.bytes).sha256 != states.sha256 {
        return Err(Error::corrupt("page states"));
    }
    Ok(object.bytes)
}

fn missing(states: &PageStates) -> Error {
    Error::new(
        Kind::Corrupt,
        MISSING,
        format!(
            "an object of page states is missing; put it back from the recovery store or a copy of the bucket object=payloads/{}",
            hex::encode(&states.sha256)
        ),
    )
}

fn object_of(states: &PageStates) -> Result<ObjectKey, Error> {
    Ok(ObjectKey::parse(&format!(
        "payloads/{}",
        hex::encode(&states.sha256)
    ))?)
}
