//! `update`: corrects what is known of a record; the versions before are kept.

use clap::Args;
use prost_types::FieldMask;

use super::{Remote, fields, json, render, request_id};
use crate::{
    cli::{CliError, terminal},
    proto::v1::{Descriptor, UpdateRecordRequest},
};

/// Options of `update`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Update {
    /// The record
    #[arg(value_name = "ID")]
    record: String,
    /// A field of the descriptor; lists by commas, labels=key:value,..., parties as protobuf JSON; empty clears; may be repeated
    #[arg(long, value_name = "FIELD=VALUE", required = true, value_parser = fields::pair)]
    set: Vec<(String, String)>,
    /// Only if the record still has this etag
    #[arg(long, value_name = "ETAG")]
    etag: Option<String>,
    /// Makes the correction idempotent for 24 hours
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
    #[command(flatten)]
    remote: Remote,
}

impl Update {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let (descriptor, paths) = fields::message::<Descriptor>(&self.set)?;
        let session = self.remote.connect("supervisor").await?;
        let request = UpdateRecordRequest {
            tenant_id: session.tenant()?,
            record_id: self.record,
            descriptor: Some(descriptor),
            update_mask: Some(FieldMask { paths }),
            etag: self.etag.unwrap_or_default(),
            request_id: request_id(self.request_id),
        };
        let record = session.client.update_record(request).await?;
        if session.json {
            return Ok(terminal::say(json::to_text(&record)?)?);
        }
        Ok(terminal::say(render::record(&record))?)
    }
}
