//! `ls`: records that match, page after page.

use std::pin::pin;

use clap::Args;
use futures_util::{Stream, StreamExt};
use prost_types::Timestamp;

use super::{Remote, fields, json, render};
use crate::{
    cli::{CliError, terminal},
    client::ClientError,
    proto::v1::{
        ListRecordsRequest, Order, Record, RecordQuery, SubjectIdentifier, subject_identifier::Identifier,
    },
};

/// Rows that are aligned with each other.
const PAGE: usize = 100;

/// Options of `ls`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Ls {
    /// Of this conversation
    #[arg(long, value_name = "ID")]
    conversation: Option<String>,
    /// With this telephone number
    #[arg(long, value_name = "NUMBER", group = "subject")]
    tel: Option<String>,
    /// With this e-mail address
    #[arg(long, value_name = "ADDRESS", group = "subject")]
    mailto: Option<String>,
    /// With this person, by the platform's own id
    #[arg(long = "subject-id", value_name = "ID", group = "subject")]
    subject_id: Option<String>,
    /// With this agent
    #[arg(long, value_name = "ID")]
    agent: Option<String>,
    /// Begun at or after: 2026-05-01, 2026-05-01T10:00:00Z, or how long ago, e.g. 2h
    #[arg(long, value_name = "TIME", value_parser = fields::moment)]
    since: Option<Timestamp>,
    /// Begun before
    #[arg(long, value_name = "TIME", value_parser = fields::moment)]
    until: Option<Timestamp>,
    /// recording message artifact; may be repeated
    #[arg(long, value_parser = fields::kind)]
    kind: Vec<i32>,
    /// voice video sms whatsapp email chat social other
    #[arg(long, value_parser = fields::channel)]
    channel: Option<i32>,
    /// inbound outbound internal
    #[arg(long, value_parser = fields::direction)]
    direction: Option<i32>,
    /// With this label; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = fields::pair)]
    label: Vec<(String, String)>,
    /// Derived from this record: its transcripts and summaries
    #[arg(long, value_name = "ID")]
    derived_from: Option<String>,
    /// Oldest first
    #[arg(long)]
    oldest_first: bool,
    /// At most this many; all when 0
    #[arg(long, value_name = "N", default_value_t = 0)]
    limit: usize,
    #[command(flatten)]
    remote: Remote,
}

impl Ls {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let session = self.remote.connect("reader").await?;
        let most = if self.limit == 0 { usize::MAX } else { self.limit };
        let records = session
            .client
            .all_records(self.request(session.tenant()?))
            .take(most);
        if session.json {
            as_json(records).await
        } else {
            as_text(records).await
        }
    }

    fn request(self, tenant_id: String) -> ListRecordsRequest {
        let identifier = self
            .tel
            .map(Identifier::Tel)
            .or_else(|| self.mailto.map(Identifier::Mailto))
            .or_else(|| self.subject_id.map(Identifier::ExternalSubjectId));
        let query = RecordQuery {
            kinds: self.kind,
            start_time_from: self.since,
            start_time_until: self.until,
            conversation_id: self.conversation.unwrap_or_default(),
            subject: identifier.map(|identifier| SubjectIdentifier {
                identifier: Some(identifier),
            }),
            agent_id: self.agent.unwrap_or_default(),
            direction: self.direction.unwrap_or_default(),
            channel: self.channel.unwrap_or_default(),
            labels: self.label.into_iter().collect(),
            states: Vec::new(),
            derived_from: self.derived_from.unwrap_or_default(),
        };
        let order = if self.oldest_first {
            Order::OldestFirst
        } else {
            Order::NewestFirst
        };
        ListRecordsRequest {
            tenant_id,
            query: Some(query),
            order: order as i32,
            page_size: i32::try_from(self.limit.min(1_000)).unwrap_or(0),
            page_token: String::new(),
        }
    }
}

/// `{"records": [...]}`, written as it comes: a listing of any length needs no memory.
async fn as_json(records: impl Stream<Item = Result<Record, ClientError>>) -> Result<(), CliError> {
    let mut records = pin!(records);
    let mut before = "{\"records\":[\n";
    while let Some(record) = records.next().await {
        terminal::say(format!("{before}{}", json::to_json(&record?)?))?;
        before = ",";
    }
    let end = if before == "," { "]}" } else { "{\"records\":[]}" };
    Ok(terminal::say(end)?)
}

async fn as_text(records: impl Stream<Item = Result<Record, ClientError>>) -> Result<(), CliError> {
    let mut pages = pin!(records.chunks(PAGE));
    let mut count = 0;
    while let Some(page) = pages.next().await {
        let mut rows = vec![render::record_head()];
        if count > 0 {
            rows.clear();
        }
        for record in page {
            rows.push(render::record_row(&record?));
            count += 1;
        }
        terminal::say(terminal::columns(&rows))?;
    }
    if count == 0 {
        terminal::say("no records")?;
    }
    Ok(())
}
