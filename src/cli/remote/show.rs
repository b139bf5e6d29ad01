//! `show`: what is known of one record.

use clap::Args;

use super::{Remote, json, render};
use crate::{
    cli::{CliError, terminal},
    proto::v1::get_record_request::Name,
};

/// Options of `show`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Show {
    /// The record
    #[arg(
        value_name = "ID",
        required_unless_present = "external_id",
        conflicts_with = "external_id"
    )]
    record: Option<String>,
    /// The platform's id of it instead
    #[arg(long, value_name = "ID")]
    external_id: Option<String>,
    #[command(flatten)]
    remote: Remote,
}

impl Show {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let session = self.remote.connect("reader").await?;
        let name = match (self.record, self.external_id) {
            (Some(id), _) => Name::RecordId(id),
            (None, id) => Name::ExternalId(id.unwrap_or_default()),
        };
        let record = session.client.get_record(&session.tenant()?, name).await?;
        if session.json {
            return Ok(terminal::say(json::to_text(&record)?)?);
        }
        Ok(terminal::say(render::record(&record))?)
    }
}
