//! Request ids make mutations idempotent for 24 hours; then they are forgotten.

use crate::{
    blob::format::Request,
    crypto::blind,
    domain::{
        clock::Timestamp,
        ids::{RecordId, RequestId, TenantId},
        limits,
    },
    index::{Change, Expect, Key, Range, Row, Scan},
    keys::tenant::TenantKeys,
    proto::storage::RequestRow,
};

use super::{Error, Kind, Vault};

/// Rows looked at, and at most forgotten, in one transaction.
const BATCH: usize = 32;

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

    /// What an earlier call with this request id did; an error if it asked for something else.
    pub(super) async fn seen(&self, tenant: &TenantId, tag: &Request) -> Result<Option<RequestRow>, Error> {
        let key = Key::Request(tenant.clone(), tag.mac);
        let Some(value) = self.index.get(&key).await? else {
            return Ok(None);
        };
        let row: RequestRow = self.rows.open(&key, &value)?;
        if row.expires_micros <= self.clock.now().micros() {
            return Ok(None);
        }
        if row.fingerprint != tag.fingerprint[..] {
            return Err(Error::new(
                Kind::AlreadyExists,
                "REQUEST_ID_REUSED",
                "the request_id was used for something else; use a new one for each request",
            ));
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

/// A request as the vault remembers it.
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
