//! Request ids make mutations idempotent for 24 hours; then they are forgotten.
//!
//! | a request about | is found by | is compared under |
//! |---|---|---|
//! | one record | the request key | a key of the record's own: what was asked of it dies with it |
//! | a tenant or a retention class | the request key | the request key |
//! | an erasure | keys of the region | keys of the region, who it is about under the index key |
//!
//! So what a record was asked is compared when the record is known, and its key opened; a new request costs nothing of that.

use bytes::Bytes;

use crate::{
    blob::format::Request,
    crypto::{blind, kdf, secret::FingerprintKey},
    domain::{
        clock::Timestamp,
        ids::{RecordId, RequestId, TenantId},
        limits,
        record::Record,
    },
    index::{Change, Expect, Key, Range, Row, Scan},
    keys::tenant::TenantKeys,
    proto::storage::RequestRow,
};

use super::{Error, Kind, Vault, record::Name};

/// Rows looked at, and at most forgotten, in one transaction.
const BATCH: usize = 32;

/// What a call with a request id asks of a record that it makes or changes, before the record's key is at hand.
#[derive(Clone)]
pub(super) struct Asked {
    pub(super) mac: [u8; 32],
    what: Vec<u8>,
}

impl Asked {
    pub(super) fn new(keys: &TenantKeys, tenant: &TenantId, request: &RequestId, what: Vec<u8>) -> Self {
        Self {
            mac: blind::request_mac(keys.request_key(), tenant, request),
            what,
        }
    }

    /// The request as it is kept, under the key of the record that it is about.
    pub(super) fn tag(&self, key: &FingerprintKey) -> Request {
        Request {
            mac: self.mac,
            fingerprint: blind::record_fingerprint(key, &[&self.what]),
        }
    }

    /// Refuses a request that was another one before.
    pub(super) fn must_be(&self, key: &FingerprintKey, fingerprint: &[u8]) -> Result<(), Error> {
        if blind::is_fingerprint(&self.tag(key).fingerprint, fingerprint) {
            Ok(())
        } else {
            Err(request_reused())
        }
    }
}

/// What an earlier call with the same request id was about. Whether it asked for the same, the record's key tells.
#[derive(Clone)]
pub(super) struct Answered {
    pub(super) record: RecordId,
    fingerprint: Bytes,
}

impl Vault {
    /// Forgets every request id that has expired, and returns how many. Idempotent; bounded memory.
    ///
    /// # Errors
    /// What the index answered; what was forgotten stays forgotten.
    pub async fn forget_expired_requests(&self) -> Result<u64, Error> {
        let now = self.clock.now().micros();
        let mut forgotten = 0;
        let mut after: Option<Key> = None;
        loop {
            let scan = Scan {
                range: Range::Requests,
                reverse: false,
                after,
                limit: BATCH,
            };
            let rows = self.index.scan(&scan).await?;
            let Some(last) = rows.last().map(|row| row.key.clone()) else {
                return Ok(forgotten);
            };
            let mut delete = Vec::new();
            for row in rows {
                let request: RequestRow = self.rows.open(&row.key, &row.value)?;
                if request.expires_micros <= now {
                    delete.push(row.key);
                }
            }
            forgotten += delete.len() as u64;
            if !delete.is_empty() {
                self.index
                    .commit(Change {
                        delete,
                        ..Change::default()
                    })
                    .await?;
            }
            after = Some(last);
        }
    }

    /// The record that an earlier call with this request id was about, if it has not expired.
    pub(super) async fn answered(
        &self,
        tenant: &TenantId,
        mac: &[u8; 32],
    ) -> Result<Option<Answered>, Error> {
        let key = Key::Request(tenant.clone(), *mac);
        match self.index.get(&key).await? {
            Some(value) => self.answered_in(&key, &value),
            None => Ok(None),
        }
    }

    /// Likewise, of a row that was read.
    pub(super) fn answered_in(&self, key: &Key, value: &[u8]) -> Result<Option<Answered>, Error> {
        let row: RequestRow = self.rows.open(key, value)?;
        if row.expires_micros <= self.clock.now().micros() {
            return Ok(None);
        }
        if row.record_id.is_empty() {
            return Err(request_reused());
        }
        let record = RecordId::from_slice(&row.record_id).map_err(|_| Error::corrupt("index row"))?;
        Ok(Some(Answered {
            record,
            fingerprint: row.fingerprint,
        }))
    }

    /// The record that was answered before, as it is now, if the same was asked of it.
    ///
    /// # Errors
    /// [`Kind::Shredded`] if it is no more, whatever was asked of it: that is not known any more; [`Kind::AlreadyExists`]
    /// (`REQUEST_ID_REUSED`) if something else was; if its key cannot be opened, why: then nothing is told of it.
    pub(super) async fn answer_again(
        &self,
        tenant: &TenantId,
        asked: &Asked,
        answered: &Answered,
    ) -> Result<Record, Error> {
        let located = self.locate(tenant, &Name::Id(answered.record)).await?;
        let located = located.ok_or_else(shredded)?;
        let dek = self.record_dek(&located).await?;
        asked.must_be(&kdf::fingerprint_key(&dek), &answered.fingerprint)?;
        Ok(self.open_with(&located, &dek)?.0)
    }

    /// What an earlier call with this request id did that was about no record; an error if it asked for something else.
    pub(super) async fn seen(&self, tenant: &TenantId, tag: &Request) -> Result<Option<RequestRow>, Error> {
        let key = Key::Request(tenant.clone(), tag.mac);
        let Some(value) = self.index.get(&key).await? else {
            return Ok(None);
        };
        let row: RequestRow = self.rows.open(&key, &value)?;
        if row.expires_micros <= self.clock.now().micros() {
            return Ok(None);
        }
        if !blind::is_fingerprint(&tag.fingerprint, &row.fingerprint) {
            return Err(request_reused());
        }
        Ok(Some(row))
    }

    pub(super) fn request_row(
        &self,
        tenant: &TenantId,
        tag: &Request,
        record: Option<&RecordId>,
        at: Timestamp,
    ) -> Row {
        let row = RequestRow {
            record_id: record.map(|r| r.as_bytes().to_vec()).unwrap_or_default().into(),
            fingerprint: tag.fingerprint.to_vec().into(),
            expires_micros: at.plus_micros(limits::REQUEST_ID_MICROS).micros(),
        };
        self.rows.row(Key::Request(tenant.clone(), tag.mac), &row)
    }

    /// An answer that repeats an earlier one promises what that one did: the leaf is in the bucket.
    pub(super) async fn ship_before_repeating(&self) -> Result<(), Error> {
        Ok(self.ledger.settled().await?)
    }

    /// Adds a request's row to a change, unless a later use of the same id is known already: leaves may be replayed in any order.
    pub(super) async fn remember_request(
        &self,
        change: &mut Change,
        tenant: &TenantId,
        tag: &Request,
        record: Option<&RecordId>,
        at: Timestamp,
    ) -> Result<(), Error> {
        let row = self.request_row(tenant, tag, record, at);
        let found = self.index.get(&row.key).await?;
        if let Some(expect) = self.remembers(&row, found, at)? {
            change.expect.push(expect);
            change.put.push(row);
        }
        Ok(())
    }

    /// What must hold for a request's row to be written over what was found in its place; `None` if that is a later use of the id.
    pub(super) fn remembers(
        &self,
        row: &Row,
        found: Option<Vec<u8>>,
        at: Timestamp,
    ) -> Result<Option<Expect>, Error> {
        let Some(value) = found else {
            return Ok(Some(Expect::Absent(row.key.clone())));
        };
        let have: RequestRow = self.rows.open(&row.key, &value)?;
        let later = have.expires_micros >= at.plus_micros(limits::REQUEST_ID_MICROS).micros();
        Ok((!later).then(|| Expect::Equals(row.key.clone(), value)))
    }
}

pub(super) fn request_reused() -> Error {
    Error::new(
        Kind::AlreadyExists,
        "REQUEST_ID_REUSED",
        "the request_id was used for something else; use a new one for each request",
    )
}

pub(super) fn shredded() -> Error {
    Error::new(Kind::Shredded, "SHREDDED", "the record was shredded")
}

/// A request that is about no record, as the vault remembers it.
pub(super) fn tag_request(
    keys: &TenantKeys,
    tenant: &TenantId,
    request: &RequestId,
    asked: &[u8],
) -> Request {
    Request {
        mac: blind::request_mac(keys.request_key(), tenant, request),
        fingerprint: blind::request_fingerprint(keys.request_key(), &[asked]),
    }
}
