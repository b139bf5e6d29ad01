//! By which request ids records were stored that are shredded. The logs keep them: an index that is made anew then tells a retry
//! that its record was shredded, and takes no other try of the same request for a record that was lost.

use std::collections::BTreeMap;

use crate::{
    blob::format::Request,
    domain::{
        clock::Timestamp,
        ids::{RecordId, TenantId},
        limits,
    },
    index::{Change, Key},
    proto::storage::{RecordsShredded, RequestRow},
};

use super::super::{Error, Vault, record::Located};

impl Vault {
    /// Until when the request ids that stored some records stand for them, in microseconds; none for one that may be used again,
    /// or stands for another record by now.
    pub(super) async fn open_requests(
        &self,
        tenant: &TenantId,
        records: impl Iterator<Item = &Located> + Send,
    ) -> Result<BTreeMap<RecordId, i64>, Error> {
        let mut ids = Vec::new();
        let mut keys = Vec::new();
        for located in records {
            if let Ok(mac) = <[u8; 32]>::try_from(&located.row.request_mac[..]) {
                ids.push(located.id);
                keys.push(Key::Request(tenant.clone(), mac));
            }
        }
        let values = self.index.get_many(&keys).await?;
        let mut open = BTreeMap::new();
        for ((id, key), value) in ids.into_iter().zip(keys).zip(values) {
            let Some(value) = value else { continue };
            let row: RequestRow = self.rows.open(&key, &value)?;
            if row.record_id[..] == id.as_bytes()[..] {
                open.insert(id, row.expires_micros);
            }
        }
        Ok(open)
    }

    /// Remembers the requests that a leaf of a shred names, in an index that catches up.
    pub(super) async fn replay_requests_shredded(
        &self,
        change: &mut Change,
        tenant: &TenantId,
        body: &RecordsShredded,
    ) -> Result<(), Error> {
        let corrupt = || Error::corrupt("leaf");
        let now = self.clock.now().micros();
        let open = body
            .records
            .iter()
            .filter(|record| record.request_expires_micros > now);
        let mut requests = BTreeMap::new();
        for record in open {
            let id = RecordId::from_slice(&record.record_id).map_err(|_| corrupt())?;
            let mac: [u8; 32] = record.request_mac[..].try_into().map_err(|_| corrupt())?;
            // A key is written once in a change.
            requests.insert(mac, (id, record.request_expires_micros));
        }
        for (mac, (id, expires)) in requests {
            // What was asked is not known any more, nor is it looked at: the record is shredded.
            let request = Request {
                mac,
                fingerprint: [0; 32],
            };
            let at = Timestamp(expires - limits::REQUEST_ID_MICROS);
            self.remember_request(change, tenant, &request, Some(&id), at)
                .await?;
        }
        Ok(())
    }
}
