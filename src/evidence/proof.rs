//! Leaves of a log with the proof that they are in it: taken from the bucket, checked without it.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{
    certificate::{Checkpoint, CitedLeaf, Hash, Inclusion},
    keys::KeySet,
};
use crate::{
    ledger::{
        leaf,
        log::{Head, LogError, LogReader, check_inclusion, verify_checkpoint},
    },
    proto::storage::StateLeaf,
};

/// Why leaves are not proven to be in a vault's logs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// A log is not one of the vault's state logs, or is there twice.
    #[error("{0:?} is not a state log of the vault, or stands there twice")]
    Origin(String),
    /// No log key signed a checkpoint, or it is malformed.
    #[error("the checkpoint of {0} is not signed by a published log key")]
    Checkpoint(String),
    /// A leaf is of a log without a checkpoint, or is there twice.
    #[error("leaf {index} of {origin} has no checkpoint, or stands there twice")]
    Uncovered {
        /// The log.
        origin: String,
        /// The position.
        index: u64,
    },
    /// A proof does not lead from its leaf to the checkpoint's root.
    #[error("leaf {index} of {origin} is not proven to be in the log")]
    NotIncluded {
        /// The log.
        origin: String,
        /// The position.
        index: u64,
    },
    /// A leaf is none.
    #[error("leaf {index} of {origin} is malformed")]
    Leaf {
        /// The log.
        origin: String,
        /// The position.
        index: u64,
    },
}

/// The head that everything which is cited from this log is proven against.
pub fn checkpoint(log: &LogReader) -> Checkpoint {
    Checkpoint {
        origin: log.name().origin(),
        note: String::from_utf8_lossy(&log.checkpoint()).into_owned(),
    }
}

/// A leaf that was read at a position of this log, with its proof.
///
/// # Errors
/// [`LogError`] as the log says.
pub async fn cite(log: &LogReader, index: u64, leaf: &Bytes) -> Result<CitedLeaf, LogError> {
    let proof = log.inclusion_proof(index).await?;
    Ok(CitedLeaf {
        origin: log.name().origin(),
        index,
        leaf: leaf.to_vec(),
        proof: proof.into_iter().map(Hash).collect(),
    })
}

/// The leaves, each proven to be in a state log of the vault.
///
/// # Errors
/// [`ProofError`] names the first that is not.
pub fn proven(inclusion: &Inclusion, vault: &str, keys: &KeySet) -> Result<Vec<StateLeaf>, ProofError> {
    let mut heads = BTreeMap::new();
    for checkpoint in &inclusion.checkpoints {
        let origin = || checkpoint.origin.clone();
        let head = head(checkpoint, vault, keys)?;
        if heads.insert(checkpoint.origin.as_str(), head).is_some() {
            return Err(ProofError::Origin(origin()));
        }
    }
    let mut seen = std::collections::BTreeSet::new();
    inclusion
        .leaves
        .iter()
        .map(|cited| {
            let (origin, index) = (cited.origin.clone(), cited.index);
            let head = heads.get(cited.origin.as_str());
            let (Some(head), true) = (head, seen.insert((cited.origin.as_str(), index))) else {
                return Err(ProofError::Uncovered { origin, index });
            };
            let proof: Vec<_> = cited.proof.iter().map(|hash| hash.0).collect();
            if check_inclusion(&proof, head, index, &cited.leaf).is_err() {
                return Err(ProofError::NotIncluded { origin, index });
            }
            let bytes = Bytes::copy_from_slice(&cited.leaf);
            leaf::parse(&bytes).map_err(|_| ProofError::Leaf { origin, index })
        })
        .collect()
}

fn head(checkpoint: &Checkpoint, vault: &str, keys: &KeySet) -> Result<Head, ProofError> {
    let Checkpoint { origin, note } = checkpoint;
    let log = origin.strip_prefix(&format!("callvault/{vault}/state/"));
    let is_ours = log
        .and_then(|log| log.split_once('/'))
        .is_some_and(|(node, term)| {
            let is_number = |text: &str| text.parse::<u64>().is_ok_and(|n| n.to_string() == text);
            is_number(node) && is_number(term)
        });
    if !is_ours {
        return Err(ProofError::Origin(origin.clone()));
    }
    keys.log_keys()
        .find_map(|key| verify_checkpoint(origin, note.as_bytes(), key).ok())
        .ok_or_else(|| ProofError::Checkpoint(origin.clone()))
}
