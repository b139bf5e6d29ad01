//! Request ids are forgotten when they have expired.

use crate::{
    index::{Change, Key, Range, Scan},
    proto::storage::RequestRow,
};

use super::{Error, Vault};

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
}
