//! Why a record is asked for, and what else is asked about it once it is known.

use std::{fmt, sync::Arc};

use super::{
    error::Error,
    purpose::Purpose,
    record::{Descriptor, Record},
};

/// Says whether whoever asks may have to do with a record. What the law and the record's own state say is asked beside it.
pub trait Judge: fmt::Debug + Send + Sync {
    /// Refuses, or does not.
    ///
    /// # Errors
    /// [`Kind::Forbidden`](super::error::Kind) says by which rule.
    fn judge(&self, record: &Record) -> Result<(), Error>;

    /// Refuses what a correction makes of a record, or does not.
    ///
    /// # Errors
    /// As [`Self::judge`].
    fn judge_change(&self, before: &Record, after: &Descriptor) -> Result<(), Error>;
}

/// Why a record is read: for what purpose, and on whose judgement.
#[derive(Clone, Debug)]
pub struct Reason {
    purpose: Purpose,
    by_law: bool,
    judge: Option<Arc<dyn Judge>>,
}

impl Reason {
    /// For a purpose, as `judge` says.
    pub fn new(purpose: Purpose, judge: Arc<dyn Judge>) -> Self {
        Self {
            purpose,
            by_law: false,
            judge: Some(judge),
        }
    }

    /// The same, of somebody whose office it is to answer the people concerned: the law's purposes let it see that a record is there,
    /// whatever the record allows.
    #[must_use]
    pub fn of_an_officer(self) -> Self {
        let by_law = matches!(self.purpose, Purpose::LegalCompliance | Purpose::RightsFulfilment);
        Self { by_law, ..self }
    }

    /// Whether the law lets a record be seen for this reason, whatever it allows.
    pub fn is_by_law(&self) -> bool {
        self.by_law
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
        let reason = Self {
            purpose,
            by_law: false,
            judge: None,
        };
        reason.of_an_officer()
    }
}
