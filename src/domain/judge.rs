//! Why a record is asked for, and what else is asked about it once it is known.

use std::{fmt, sync::Arc};

use super::{error::Error, purpose::Purpose, record::Record};

/// Says whether whoever asks may have to do with a record. What the law and the record's own state say is asked beside it.
pub trait Judge: fmt::Debug + Send + Sync {
    /// Refuses, or does not.
    ///
    /// # Errors
    /// [`Kind::Forbidden`](super::error::Kind) says by which rule.
    fn judge(&self, record: &Record) -> Result<(), Error>;
}

/// Why a record is read: for what purpose, and on whose judgement.
#[derive(Clone, Debug)]
pub struct Reason {
    purpose: Purpose,
    judge: Option<Arc<dyn Judge>>,
}

impl Reason {
    /// For a purpose, as `judge` says.
    pub fn new(purpose: Purpose, judge: Arc<dyn Judge>) -> Self {
        Self {
            purpose,
            judge: Some(judge),
        }
    }

    /// The purpose.
    pub fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// What the judge says of a record.
    ///
    /// # Errors
    /// As the judge.
    pub fn judge(&self, record: &Record) -> Result<(), Error> {
        self.judge.as_ref().map_or(Ok(()), |judge| judge.judge(record))
    }
}

/// Whoever has the vault itself at hand, such as an offline command, is judged by nobody.
impl From<Purpose> for Reason {
    fn from(purpose: Purpose) -> Self {
        Self { purpose, judge: None }
    }
}
