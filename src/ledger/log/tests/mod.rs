//! What the log promises, tried on a store that fails and lies on demand.

#![allow(clippy::single_range_in_vec_init)] // a list of batches that has one batch

mod append;
mod follow;
mod proofs;
mod store;
mod tamper;
mod vectors;

use std::{fmt, sync::Arc};

use bytes::Bytes;
use ring::signature::{Ed25519KeyPair, KeyPair};
use tlog_tiles::{EMPTY_HASH, Hash, node_hash, record_hash};

use self::store::TestStore;
use super::{Head, LogError, LogName, LogReader, LogWriter, Signer};
use crate::index::{LogId, LogKind};

/// RFC 8032 section 7.1, test 1.
const SEED: &str = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
const VAULT: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

struct TestKey(Ed25519KeyPair);

impl TestKey {
    fn new() -> Arc<Self> {
        Self::from_seed(&hex::decode(SEED).unwrap())
    }

    fn from_seed(seed: &[u8]) -> Arc<Self> {
        Arc::new(Self(Ed25519KeyPair::from_seed_unchecked(seed).unwrap()))
    }
}

impl fmt::Debug for TestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TestKey")
    }
}

impl Signer for TestKey {
    fn public_key(&self) -> [u8; 32] {
        self.0.public_key().as_ref().try_into().unwrap()
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).as_ref().try_into().unwrap()
    }
}

fn name() -> LogName {
    LogName {
        vault: VAULT.parse().unwrap(),
        log: LogId {
            kind: LogKind::State,
            node: 3,
            term: 7,
        },
    }
}

fn entries(range: std::ops::Range<u64>) -> Vec<Bytes> {
    range.map(|n| Bytes::from(format!("entry {n}"))).collect()
}

async fn writer(store: &Arc<TestStore>) -> Result<LogWriter, LogError> {
    LogWriter::open(Arc::clone(store) as _, name(), TestKey::new()).await
}

async fn reader(store: &Arc<TestStore>) -> Result<Option<LogReader>, LogError> {
    LogReader::open(Arc::clone(store) as _, name(), Some(TestKey::new().public_key())).await
}

/// A log of these batches, each appended on its own.
async fn log_of(batches: &[std::ops::Range<u64>]) -> (Arc<TestStore>, LogWriter) {
    let store = TestStore::new();
    let mut writer = writer(&store).await.unwrap();
    for batch in batches {
        writer.append(&entries(batch.clone())).await.unwrap();
    }
    (store, writer)
}

async fn read_all(reader: &LogReader) -> Result<Vec<Bytes>, LogError> {
    let mut all = Vec::new();
    loop {
        let some = reader.read(all.len() as u64).await?;
        if some.is_empty() {
            return Ok(all);
        }
        all.extend(some);
    }
}

/// Everything that a log answers, each checked as it would be used.
async fn examine(store: &Arc<TestStore>) -> Result<Vec<Bytes>, LogError> {
    let Some(reader) = reader(store).await? else {
        return Err(LogError::Corrupt {
            what: "no checkpoint",
        });
    };
    let all = read_all(&reader).await?;
    reader.verify().await?;
    Ok(all)
}

/// RFC 6962 section 2.1, word by word.
fn naive_root(entries: &[Bytes]) -> [u8; 32] {
    fn mth(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => EMPTY_HASH,
            [leaf] => *leaf,
            _ => {
                let mut k = 1;
                while 2 * k < leaves.len() {
                    k *= 2;
                }
                node_hash(mth(&leaves[..k]), mth(&leaves[k..]))
            }
        }
    }
    mth(&entries.iter().map(|entry| record_hash(entry)).collect::<Vec<_>>()).0
}

fn naive_head(entries: &[Bytes]) -> Head {
    Head {
        size: entries.len() as u64,
        root: naive_root(entries),
    }
}
