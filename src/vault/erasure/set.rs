//! Which records an erasure covers: resolved once, when it is asked for, and named by a digest.

use std::collections::BTreeSet;

use bytes::Bytes;
use ring::digest;

use crate::{
    blob::store::{ByteRange, ObjectKey, StoreError},
    domain::{
        clock::Timestamp,
        erasure::Target,
        ids::{RecordId, TenantId},
        limits,
        purpose::Purpose,
        record::Query,
    },
    index::{Key, Range, Scan},
    proto::storage::{ErasureRow, RecordSet},
};

use super::super::{Error, Kind, Order, Vault, payload::once_more};

/// Records looked up at once.
const PAGE: usize = 1_000;
/// Ids that go into a leaf: a leaf has 60 KiB.
const IN_LEAF: usize = 2_000;
const ID_BYTES: usize = 16;

/// Records, ascending, each once.
pub(super) type Set = BTreeSet<RecordId>;

/// A set as a leaf has it.
pub(super) struct Stored {
    pub(super) sha256: Vec<u8>,
    pub(super) record_ids: Vec<Bytes>,
    pub(super) set: Option<RecordSet>,
}

/// SHA-256 of a set, as an approval is bound to it.
pub(super) fn sha256_of(set: &Set) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, &encoded(set)).as_ref());
    out
}

fn encoded(set: &Set) -> Vec<u8> {
    set.iter().flat_map(|id| *id.as_bytes()).collect()
}

impl Vault {
    /// Every record that a target names now, and all that was derived from one. Empty for a tenant.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if a record that is named is not there; [`Kind::Invalid`] for a query that narrows nothing;
    /// and beyond [`limits::ERASURE_RECORDS`].
    pub(super) async fn set_of(&self, tenant: &TenantId, target: &Target) -> Result<Set, Error> {
        let found = match target {
            Target::Tenant => return Ok(Set::new()),
            Target::Records(ids) => self.all_there(tenant, ids).await?,
            Target::Query(query) if **query == Query::default() => {
                return Err(Error::invalid(
                    "target.query",
                    "must narrow something; to erase everything, erase the tenant",
                ));
            }
            Target::Query(query) => self.all_found(tenant, query).await?,
            Target::Subject(subject) => {
                let query = Query {
                    subject: Some(subject.clone()),
                    ..Query::default()
                };
                self.all_found(tenant, &query).await?
            }
            Target::Conversation(conversation) => {
                let query = Query {
                    conversation: Some(conversation.clone()),
                    ..Query::default()
                };
                self.all_found(tenant, &query).await?
            }
        };
        self.with_derived(tenant, found).await
    }

    async fn all_there(&self, tenant: &TenantId, ids: &[RecordId]) -> Result<Set, Error> {
        let keys: Vec<Key> = ids.iter().map(|id| Key::Record(tenant.clone(), *id)).collect();
        let found = self.index.get_many(&keys).await?;
        if let Some(missing) = found.iter().position(Option::is_none) {
            return Err(Error {
                field: Some(format!("target.records.record_ids[{missing}]")),
                ..Error::not_found()
            });
        }
        Ok(ids.iter().copied().collect())
    }

    async fn all_found(&self, tenant: &TenantId, query: &Query) -> Result<Set, Error> {
        let mut set = Set::new();
        let mut token = None;
        loop {
            let _turn = self.turn(tenant).await?;
            // Whoever erases need not be allowed to read; whether anything may be erased was looked at before.
            let page = self
                .list_of_any(
                    tenant,
                    query,
                    Order::OldestFirst,
                    PAGE,
                    token.as_deref(),
                    &Purpose::RightsFulfilment.into(),
                )
                .await?;
            set.extend(page.records.iter().map(|record| record.id));
            refuse_too_many(&set)?;
            match page.next {
                Some(next) => token = Some(next),
                None => return Ok(set),
            }
        }
    }

    async fn with_derived(&self, tenant: &TenantId, found: Set) -> Result<Set, Error> {
        let mut all = found.clone();
        let mut sources = found;
        while !sources.is_empty() {
            let derived = self.derived_from(tenant, &sources).await?;
            sources = derived.difference(&all).copied().collect();
            all.extend(sources.iter().copied());
            refuse_too_many(&all)?;
        }
        Ok(all)
    }

    /// What was derived from any of these.
    pub(super) async fn derived_from(&self, tenant: &TenantId, sources: &Set) -> Result<Set, Error> {
        let mut derived = Set::new();
        for source in sources {
            let mut after = None;
            loop {
                let scan = Scan {
                    range: Range::BySource(tenant.clone(), *source, Timestamp(i64::MIN), Timestamp(i64::MAX)),
                    reverse: false,
                    after,
                    limit: PAGE,
                };
                let rows = self.index.scan(&scan).await?;
                let full = rows.len() == PAGE;
                after = rows.last().map(|row| row.key.clone());
                derived.extend(rows.into_iter().filter_map(|row| match row.key {
                    Key::BySource(_, _, _, record) => Some(record),
                    _ => None,
                }));
                if !full {
                    break;
                }
            }
        }
        Ok(derived)
    }

    /// Makes a set ready for a leaf; a long one goes into an object.
    pub(super) async fn store_set(&self, set: &Set) -> Result<Stored, Error> {
        let sha256 = sha256_of(set).to_vec();
        if set.len() <= IN_LEAF {
            return Ok(Stored {
                sha256,
                record_ids: set.iter().map(|id| id.as_bytes().to_vec().into()).collect(),
                set: None,
            });
        }
        let stored = RecordSet {
            sha256: sha256.clone().into(),
            records: u32::try_from(set.len()).unwrap_or(u32::MAX),
        };
        match self.store.put(&object_of(&stored)?, encoded(set).into()).await {
            Ok(_) | Err(StoreError::AlreadyExists) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(Stored {
            sha256,
            record_ids: Vec::new(),
            set: Some(stored),
        })
    }

    /// The set of a case.
    pub(super) async fn read_set(&self, row: &ErasureRow) -> Result<Set, Error> {
        let corrupt = || Error::corrupt("record set");
        let set: Set = match &row.set {
            None => {
                let ids = row.record_ids.iter().map(|id| RecordId::from_slice(id));
                ids.collect::<Result<_, _>>().map_err(|_| corrupt())?
            }
            Some(stored) => {
                let object = object_of(stored)?;
                once_more(|| async {
                    let bytes = match self.store.get(&object, ByteRange::Full).await {
                        Err(StoreError::NotFound) => return Err(Error::corrupt("missing object")),
                        read => read?.bytes,
                    };
                    let ids = bytes.chunks(ID_BYTES).map(RecordId::from_slice);
                    let set: Set = ids.collect::<Result<_, _>>().map_err(|_| corrupt())?;
                    if sha256_of(&set)[..] == stored.sha256[..] {
                        Ok(set)
                    } else {
                        Err(corrupt())
                    }
                })
                .await?
            }
        };
        if sha256_of(&set)[..] == row.set_sha256[..] {
            Ok(set)
        } else {
            Err(corrupt())
        }
    }
}

fn refuse_too_many(set: &Set) -> Result<(), Error> {
    if set.len() <= limits::ERASURE_RECORDS {
        return Ok(());
    }
    // No waiting makes it smaller.
    Err(Error {
        field: Some("target".to_owned()),
        ..Error::new(
            Kind::Invalid,
            "ERASURE_TOO_LARGE",
            format!(
                "one erasure covers at most {} records; erase by ranges of time",
                limits::ERASURE_RECORDS
            ),
        )
    })
}

fn object_of(set: &RecordSet) -> Result<ObjectKey, Error> {
    Ok(ObjectKey::parse(&format!(
        "payloads/{}",
        hex::encode(&set.sha256)
    ))?)
}
