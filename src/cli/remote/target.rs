//! What `erase` is about, as the command line says it.

use clap::{ArgGroup, Args};
use prost_types::Timestamp;

use super::fields;
use crate::{
    cli::CliError,
    proto::v1::{
        ErasureTarget, RecordIds, RecordQuery, SubjectIdentifier, erasure_target,
        subject_identifier::Identifier,
    },
};

/// Options that say what is to be erased: records by name, everything, or all that fits.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).multiple(true))]
pub(super) struct Target {
    /// This record and all that was derived from it; may be repeated
    #[arg(long, value_name = "ID", group = "what", conflicts_with_all = ["whole", "fits"])]
    record: Vec<String>,
    /// Everything of the tenant, and the tenant
    #[arg(long = "all-of-tenant", id = "whole", group = "what", conflicts_with = "fits")]
    all_of_tenant: bool,
    #[command(flatten)]
    fits: Fits,
}

/// Options that narrow each other.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("fits").multiple(true))]
struct Fits {
    /// Of this person: a telephone number (E.164), an e-mail address, or the platform's own id
    #[arg(long, value_name = "IDENTIFIER", groups = ["what", "fits"], value_parser = fields::subject)]
    subject: Option<Identifier>,
    /// Of this conversation
    #[arg(long, value_name = "ID", groups = ["what", "fits"])]
    conversation: Option<String>,
    /// Begun at or after: 2026-05-01, 2026-05-01T10:00:00Z, or how long ago, e.g. 30d
    #[arg(long, value_name = "TIME", groups = ["what", "fits"], value_parser = fields::moment)]
    since: Option<Timestamp>,
    /// Begun before
    #[arg(long, value_name = "TIME", groups = ["what", "fits"], value_parser = fields::moment)]
    until: Option<Timestamp>,
    /// With this label; may be repeated
    #[arg(long, value_name = "KEY=VALUE", groups = ["what", "fits"], value_parser = fields::pair)]
    label: Vec<(String, String)>,
    /// recording message artifact; may be repeated
    #[arg(long, groups = ["what", "fits"], value_parser = fields::kind)]
    kind: Vec<i32>,
}

impl Target {
    /// Whether it is everything.
    pub(super) fn is_whole_tenant(&self) -> bool {
        self.all_of_tenant
    }

    /// The target as the API has it.
    ///
    /// # Errors
    /// [`CliError::Usage`] for two values of one label: no record has both.
    pub(super) fn message(self) -> Result<ErasureTarget, CliError> {
        use erasure_target::Target as T;
        let target = if self.all_of_tenant {
            T::WholeTenant(true)
        } else if !self.record.is_empty() {
            T::Records(RecordIds {
                record_ids: self.record,
            })
        } else {
            self.fits.target()?
        };
        Ok(ErasureTarget { target: Some(target) })
    }
}

impl Fits {
    fn target(self) -> Result<erasure_target::Target, CliError> {
        use erasure_target::Target as T;
        fields::once_each(&self.label)?;
        let narrowed =
            self.since.is_some() || self.until.is_some() || !self.label.is_empty() || !self.kind.is_empty();
        Ok(match (self.subject, self.conversation) {
            (Some(identifier), None) if !narrowed => T::Subject(person(identifier)),
            (None, Some(conversation)) if !narrowed => T::ConversationId(conversation),
            (identifier, conversation) => T::Query(RecordQuery {
                kinds: self.kind,
                start_time_from: self.since,
                start_time_until: self.until,
                conversation_id: conversation.unwrap_or_default(),
                subject: identifier.map(person),
                labels: self.label.into_iter().collect(),
                ..RecordQuery::default()
            }),
        })
    }
}

fn person(identifier: Identifier) -> SubjectIdentifier {
    SubjectIdentifier {
        identifier: Some(identifier),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        target: Target,
    }

    fn read(line: &str) -> Result<erasure_target::Target, CliError> {
        let words = std::iter::once("x").chain(line.split_whitespace());
        let line = Line::try_parse_from(words).map_err(|error| CliError::usage(error.to_string()))?;
        Ok(line.target.message()?.target.unwrap())
    }

    #[test]
    fn what_is_to_be_erased_is_said_in_one_way() {
        use erasure_target::Target as T;
        let ids = |ids: &[&str]| {
            T::Records(RecordIds {
                record_ids: ids.iter().map(|id| (*id).to_owned()).collect(),
            })
        };
        assert_eq!(read("--record a --record b").unwrap(), ids(&["a", "b"]));
        assert_eq!(read("--all-of-tenant").unwrap(), T::WholeTenant(true));
        assert_eq!(
            read("--conversation c").unwrap(),
            T::ConversationId("c".to_owned())
        );
        for (said, meant) in [
            ("+525512345678", Identifier::Tel("+525512345678".to_owned())),
            ("a@b.mx", Identifier::Mailto("a@b.mx".to_owned())),
            ("crm-7", Identifier::ExternalSubjectId("crm-7".to_owned())),
        ] {
            assert_eq!(
                read(&format!("--subject {said}")).unwrap(),
                T::Subject(person(meant))
            );
        }
        for (line, parts) in [
            ("--conversation c --kind message", (true, false, 1)),
            ("--subject a@b.mx --conversation c", (true, true, 0)),
            ("--subject a@b.mx --since 30d", (false, true, 0)),
            ("--label a=1 --until 2026-05-01", (false, false, 0)),
        ] {
            let T::Query(query) = read(line).unwrap() else {
                panic!("{line}");
            };
            let has = (
                !query.conversation_id.is_empty(),
                query.subject.is_some(),
                query.kinds.len(),
            );
            assert_eq!(has, parts, "{line}");
        }
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        for line in [
            "",
            "--record a --conversation c",
            "--record a --all-of-tenant",
            "--all-of-tenant --since 30d",
            "--label a=1 --label a=2",
            "--kind song",
        ] {
            assert_eq!(read(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }
}
