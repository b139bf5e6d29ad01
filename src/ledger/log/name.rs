//! What a log is called: to verifiers, and in the bucket.

use std::str::FromStr;

use super::LogError;
use crate::{
    blob::store::BlobStore,
    domain::ids::VaultId,
    index::{LogId, LogKind},
};

/// A log of a vault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogName {
    /// The vault.
    pub vault: VaultId,
    /// Which of its logs.
    pub log: LogId,
}

impl LogName {
    /// The first line of its checkpoints and the name of its key: `callvault/<vault>/<kind>/<node>/<term>`.
    ///
    /// A valid key name of a signed note: neither spaces nor `+`.
    pub fn origin(&self) -> String {
        let LogId { kind, node, term } = self.log;
        format!("callvault/{}/{}/{node}/{term}", self.vault, word(kind))
    }

    /// What the names of its objects begin with: `log/<kind>/<node>/<term>/`.
    pub fn prefix(&self) -> String {
        prefix(self.log)
    }
}

/// Every log of `kind` that has an object in the bucket, ascending: by node, then term.
///
/// A log that is listed may have no checkpoint yet ([`super::LogReader::open`] then says `None`). Names that this program
/// does not write are passed over.
///
/// # Errors
/// [`LogError::Store`].
pub async fn logs(store: &dyn BlobStore, kind: LogKind) -> Result<Vec<LogId>, LogError> {
    let mut found = Vec::new();
    for node in children::<u32>(store, &root(kind)).await? {
        let terms = children::<u64>(store, &format!("{}{node}/", root(kind))).await?;
        found.extend(terms.into_iter().map(|term| LogId { kind, node, term }));
    }
    found.sort_unstable();
    Ok(found)
}

/// The numbers that stand between `prefix` and the next `/`.
async fn children<N: FromStr + ToString>(store: &dyn BlobStore, prefix: &str) -> Result<Vec<N>, LogError> {
    let mut numbers = Vec::new();
    let mut next = None;
    loop {
        let page = store.list(prefix, true, next.as_deref(), 1000).await?;
        numbers.extend(
            page.prefixes
                .iter()
                .filter_map(|name| number(name.strip_prefix(prefix)?)),
        );
        next = page.next;
        if next.is_none() {
            return Ok(numbers);
        }
    }
}

/// Reads `<n>/`; one spelling per number.
fn number<N: FromStr + ToString>(segment: &str) -> Option<N> {
    let digits = segment.strip_suffix('/')?;
    let number: N = digits.parse().ok()?;
    (number.to_string() == digits).then_some(number)
}

pub(super) fn prefix(LogId { kind, node, term }: LogId) -> String {
    format!("{}{node}/{term}/", root(kind))
}

/// The log whose objects' names begin with `prefix`; one spelling a log.
pub(super) fn parse(kind: LogKind, prefix: &str) -> Option<LogId> {
    let numbers = prefix.strip_prefix(&root(kind))?;
    let (node, term) = numbers.split_at(numbers.find('/')? + 1);
    let (node, term) = (number(node)?, number(term)?);
    Some(LogId { kind, node, term })
}

pub(super) fn root(kind: LogKind) -> String {
    format!("log/{}/", word(kind))
}

/// Stable: part of object names and of signed text.
fn word(kind: LogKind) -> &'static str {
    match kind {
        LogKind::State => "state",
        LogKind::Access => "access",
    }
}
