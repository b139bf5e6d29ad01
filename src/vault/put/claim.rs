//! Who is uploading under which id.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use super::{Error, Kind};

/// Request ids and external ids of uploads under way: the second of two at once is told to wait.
#[derive(Clone, Debug, Default)]
pub(in crate::vault) struct UnderWay(Arc<Mutex<HashSet<[u8; 32]>>>);

impl UnderWay {
    pub(in crate::vault) fn claim(&self, ids: impl Iterator<Item = [u8; 32]>) -> Result<Claim, Error> {
        let mut claim = Claim {
            under_way: self.clone(),
            ids: Vec::new(),
        };
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for id in ids {
            if !taken.insert(id) {
                drop(taken);
                return Err(Error::new(
                    Kind::Conflict,
                    "UPLOAD_UNDER_WAY",
                    "an upload with this request_id or external_id is under way; try again when it has ended",
                ));
            }
            claim.ids.push(id);
        }
        Ok(claim)
    }
}

#[derive(Debug)]
pub(in crate::vault) struct Claim {
    under_way: UnderWay,
    ids: Vec<[u8; 32]>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut taken = self.under_way.0.lock().unwrap_or_else(PoisonError::into_inner);
        for id in &self.ids {
            taken.remove(id);
        }
    }
}
