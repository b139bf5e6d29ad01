//! By which request ids records were stored that are shredded so soon that those may still come again. The logs keep them: an
//! index that is made anew then tells a retry that its record was shredded, and does not store it a second time.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt, stream};

use crate::{
    blob::{
        format::{Footer, Request},
        store::ObjectKey,
    },
    domain::{
        clock::Timestamp,
        ids::{RecordId, TenantId},
        limits,
    },
    index::Change,
    proto::storage::RecordsShredded,
};

use super::super::{Error, Vault, record::Located};

/// Footers read at a time.
const READS: usize = 16;

impl Vault {
    /// The keyed digests of the request ids that stored some records, as far as they may come again. What cannot be read is left
    /// out: an erasure does not wait for it.
    pub(super) async fn young_requests(
        &self,
        records: impl Iterator<Item = &Located>,
    ) -> BTreeMap<RecordId, [u8; 32]> {
        let now = self.clock.now().micros();
        let is_young = |located: &&Located| {
            let created = Timestamp(located.row.created_micros);
            created
                .plus_micros(limits::REQUEST_ID_MICROS + limits::UPLOAD_MICROS)
                .micros()
                > now
        };
        let objects: BTreeSet<(String, Vec<u8>)> = records
            .filter(is_young)
            .map(|located| (located.row.object_key.clone(), located.row.footer_sha256.to_vec()))
            .collect();
        let footers = stream::iter(objects)
            .map(|(object, sha256)| async move {
                let read = self.known_footer(&object, &sha256).await;
                if let Err(error) = &read {
                    tracing::warn!(%object, %error, "a record that is shredded may be stored again by a retry of the last day, if the index is lost");
                }
                read.ok()
            })
            .buffer_unordered(READS)
            .filter_map(|footer| async { footer });
        let mut requests = BTreeMap::new();
        let mut footers = std::pin::pin!(footers);
        while let Some(footer) = footers.next().await {
            for entry in &footer.entries {
                if let Some(request) = &entry.request {
                    requests.insert(entry.record, request.mac);
                }
            }
        }
        requests
    }

    async fn known_footer(&self, object: &str, sha256: &[u8]) -> Result<Footer, Error> {
        let (footer, found) = self.read_footer(&ObjectKey::parse(object)?).await?;
        if found[..] == *sha256 {
            Ok(footer)
        } else {
            Err(Error::corrupt("footer"))
        }
    }

    /// Remembers the requests that a leaf of a shred names, in an index that catches up.
    pub(super) async fn replay_requests_shredded(
        &self,
        change: &mut Change,
        tenant: &TenantId,
        body: &RecordsShredded,
        at: Timestamp,
    ) -> Result<(), Error> {
        let corrupt = || Error::corrupt("leaf");
        for record in body
            .records
            .iter()
            .filter(|record| !record.request_mac.is_empty())
        {
            let id = RecordId::from_slice(&record.record_id).map_err(|_| corrupt())?;
            // What was asked is not known any more, nor is it looked at: the record is shredded.
            let request = Request {
                mac: record.request_mac[..].try_into().map_err(|_| corrupt())?,
                fingerprint: [0; 32],
            };
            self.remember_request(change, tenant, &request, Some(&id), at)
                .await?;
        }
        Ok(())
    }
}
