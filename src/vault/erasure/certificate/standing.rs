//! How things stand now: which objects the store still has, what the provider says of an epoch.

use std::collections::BTreeMap;

use futures_util::{StreamExt, TryStreamExt, stream};

use crate::{
    blob::store::{ObjectKey, StoreError},
    domain::ids::TenantId,
    evidence::{
        certificate::{Listed, Objects, Pending},
        story::Story,
        verify::or_none,
        wording,
    },
    index::{Key, Range},
    keys::provider::{EpochGrant, ProviderError},
    proto::storage::{EpochRow, PurgeRow},
};

use super::super::super::{Error, Kind, Vault};

/// Objects asked for at a time.
const PARALLEL: usize = 16;
/// Rows read at once.
const BATCH: usize = 128;
/// Objects of a tenant that are named.
const NAMED: usize = 1_000;

impl Vault {
    /// What the provider says when it is asked for the key of a destroyed epoch.
    ///
    /// # Errors
    /// [`Kind::WrongState`] (`PATHS_OPEN`) if it gives the key out all the same; [`Kind::Unavailable`] if it cannot be asked.
    pub(super) async fn answer_of_provider(&self, row: &EpochRow) -> Result<&'static str, Error> {
        let Some(provider) = self.providers.of(&row.provider) else {
            return Ok(wording::NOT_ASKED);
        };
        let grant = EpochGrant {
            handle: row.handle.clone(),
            wrapped: row.wrapped_epoch_key.to_vec(),
        };
        match provider.unwrap(self.label(row.epoch), &grant).await {
            Err(ProviderError::NoSuchKey) => Ok(wording::REFUSED),
            Err(error) => Err(crate::keys::KeyError::Provider(error).into()),
            Ok(_) => Err(Error::new(
                Kind::WrongState,
                "PATHS_OPEN",
                "the root provider still gives out the key of an epoch that it was asked to destroy; restore nothing of it, and destroy it again",
            )
            .with("epoch", row.epoch)),
        }
    }

    /// What became of the objects of an erasure.
    pub(super) async fn objects_of(&self, tenant: &TenantId, story: &Story) -> Result<Objects, Error> {
        if story.tenant.is_some() {
            return self.objects_of_tenant(tenant).await;
        }
        let mut blobs = BTreeMap::<&str, (u32, u32)>::new();
        for record in &story.shredded {
            let counted = blobs.entry(&record.object_key).or_insert((0, record.entry_count));
            counted.0 += 1;
        }
        let names: Vec<_> = blobs.keys().map(|name| (*name).to_owned()).collect();
        let mut waiting = BTreeMap::new();
        for some in names.chunks(BATCH) {
            waiting.extend(self.waiting(tenant, some).await?);
        }
        let heads: Vec<_> = names.iter().map(|name| self.is_there(name)).collect();
        let there: Vec<bool> = stream::iter(heads).buffered(PARALLEL).try_collect().await?;
        let mut objects = Objects {
            checked: wording::OBJECTS_OF_RECORDS.to_owned(),
            gone: 0,
            kept: Listed::default(),
            pending: Listed::default(),
        };
        for (name, there) in names.iter().zip(there) {
            let shared = blobs.get(name.as_str()).is_some_and(|(erased, all)| erased < all);
            match waiting.remove(name) {
                Some(row) => objects.pending.0.push(pending(name, &row)),
                None if !there => objects.gone += 1,
                None if shared => objects.kept.0.push(name.clone()),
                None => objects.pending.0.push(pending(name, &PurgeRow::default())),
            }
        }
        Ok(objects)
    }

    /// Of a tenant, what the store still lists and what waits.
    async fn objects_of_tenant(&self, tenant: &TenantId) -> Result<Objects, Error> {
        let mut left = BTreeMap::new();
        for row in self.all_rows(Range::TenantPurges(tenant.clone())).await? {
            let waits: PurgeRow = self.rows.open(&row.key, &row.value)?;
            if let Key::Purge(_, name) = row.key {
                left.insert(name, waits);
            }
        }
        if left.is_empty() {
            let all = format!("blobs/{tenant}/");
            let listed = self.store.list(&all, false, None, NAMED).await?;
            let names = listed.objects.into_iter().map(|object| object.key.to_string());
            left.extend(names.map(|name| (name, PurgeRow::default())));
        }
        Ok(Objects {
            checked: wording::OBJECTS_OF_TENANT.to_owned(),
            gone: 0,
            kept: Listed::default(),
            pending: left
                .iter()
                .take(NAMED)
                .map(|(name, row)| pending(name, row))
                .collect(),
        })
    }

    /// Which of these objects wait for their deletion.
    async fn waiting(&self, tenant: &TenantId, names: &[String]) -> Result<Vec<(String, PurgeRow)>, Error> {
        let keys: Vec<_> = names
            .iter()
            .map(|name| Key::Purge(tenant.clone(), name.clone()))
            .collect();
        let rows = self.index.get_many(&keys).await?;
        let mut waiting = Vec::new();
        for ((name, key), value) in names.iter().zip(&keys).zip(rows) {
            if let Some(value) = value {
                waiting.push((name.clone(), self.rows.open(key, &value)?));
            }
        }
        Ok(waiting)
    }

    async fn is_there(&self, name: &str) -> Result<bool, Error> {
        match self.store.head(&ObjectKey::parse(name)?).await {
            Ok(_) => Ok(true),
            Err(StoreError::NotFound) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

fn pending(name: &str, row: &PurgeRow) -> Pending {
    let reason = if row.reason.is_empty() {
        wording::WAITS
    } else {
        &row.reason
    };
    Pending {
        object: name.to_owned(),
        tries: row.tries,
        reason: or_none(reason),
    }
}
