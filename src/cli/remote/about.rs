//! What is said of a recording or a message when it goes in.

use clap::Args;
use prost_types::{Duration, Timestamp};

use super::fields;
use crate::{
    cli::CliError,
    proto::v1::{Channel, Descriptor, Party, PartyRole},
};

/// Options that describe what goes in.
#[derive(Debug, Args)]
pub(super) struct About {
    /// The platform's conversation
    #[arg(long, value_name = "ID")]
    conversation: String,
    /// Retention class; the tenant's default when absent
    #[arg(long, value_name = "CLASS")]
    retention: Option<String>,
    /// A customer's telephone number, E.164; may be repeated
    #[arg(long, value_name = "NUMBER")]
    tel: Vec<String>,
    /// A customer's e-mail address; the first belongs to the first --tel
    #[arg(long, value_name = "ADDRESS")]
    mailto: Vec<String>,
    /// A customer's name; the first belongs to the first --tel
    #[arg(long, value_name = "TEXT")]
    name: Vec<String>,
    /// An agent of the platform; may be repeated
    #[arg(long, value_name = "ID")]
    agent: Vec<String>,
    /// The agents' team
    #[arg(long, value_name = "NAME")]
    team: Option<String>,
    /// The platform's id of this call or message, unique within the tenant
    #[arg(long, value_name = "ID")]
    external_id: Option<String>,
    /// The record that this one is derived from: a transcript or summary of it. It dies with its source
    #[arg(long, value_name = "ID")]
    derived_from: Option<String>,
    /// RFC 6838; found out from the content when absent. Raw G.711 needs audio/PCMU or audio/PCMA
    #[arg(long, value_name = "TYPE")]
    media_type: Option<String>,
    /// The platform's own label; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = fields::pair)]
    label: Vec<(String, String)>,
    /// voice video sms whatsapp email chat social other; voice for recordings, chat for messages when absent
    #[arg(long, value_parser = fields::channel)]
    channel: Option<i32>,
    /// inbound outbound internal
    #[arg(long, value_parser = fields::direction)]
    direction: Option<i32>,
    /// When it began: 2026-05-01T10:00:00Z, or how long ago, e.g. 2h; now when absent
    #[arg(long, value_name = "TIME", value_parser = fields::when)]
    start: Option<fields::When>,
    /// How long it took, e.g. 4m30s
    #[arg(long, value_name = "LENGTH", value_parser = fields::duration)]
    duration: Option<Duration>,
    /// BCP 47; may be repeated
    #[arg(long, value_name = "TAG")]
    language: Vec<String>,
    /// Purpose that it may be read for; the tenant's default when absent; may be repeated
    #[arg(long = "allow", value_name = "TERM", value_parser = fields::purpose)]
    allow: Vec<i32>,
    /// consent contract-performance legal-obligation legitimate-interest-of-controller ...
    #[arg(long, value_name = "TERM", value_parser = fields::legal_basis)]
    legal_basis: Option<i32>,
    /// Where the content came from
    #[arg(long, value_name = "TEXT")]
    source: Option<String>,
}

impl About {
    /// The descriptor, over `channel` unless another was said.
    pub(super) fn descriptor(self, channel: Channel) -> Descriptor {
        Descriptor {
            parties: self.parties(),
            conversation_id: self.conversation,
            channel: self.channel.unwrap_or(channel as i32),
            direction: self.direction.unwrap_or_default(),
            start_time: Some(self.start.map_or_else(fields::now, |start| start.at)),
            duration: self.duration,
            media_type: self.media_type.unwrap_or_default(),
            languages: self.language,
            labels: self.label.into_iter().collect(),
            allowed_purposes: self.allow,
            legal_basis: self.legal_basis.unwrap_or_default(),
            source: self.source.unwrap_or_default(),
            retention_class: self.retention.unwrap_or_default(),
            external_id: self.external_id.unwrap_or_default(),
            derived_from: self.derived_from.unwrap_or_default(),
            ..Descriptor::default()
        }
    }

    /// Began then, unless something else was said.
    pub(super) fn begun_at(mut self, time: Timestamp) -> Self {
        self.start.get_or_insert(fields::When { at: time, ago: false });
        self
    }

    /// Whether its beginning was said as how long ago: the next time, it will be another moment.
    pub(super) fn begins_a_while_ago(&self) -> bool {
        self.start.is_some_and(|start| start.ago)
    }

    /// Refuses what is said twice.
    pub(super) fn check(&self) -> Result<(), CliError> {
        fields::once_each(&self.label)
    }

    fn parties(&self) -> Vec<Party> {
        let most = self.tel.len().max(self.mailto.len()).max(self.name.len());
        let at = |list: &[String], i: usize| list.get(i).cloned().unwrap_or_default();
        let customers = (0..most).map(|i| Party {
            role: PartyRole::Customer as i32,
            tel: at(&self.tel, i),
            mailto: at(&self.mailto, i),
            name: at(&self.name, i),
            ..Party::default()
        });
        let agents = self.agent.iter().map(|id| Party {
            role: PartyRole::Agent as i32,
            agent_id: id.clone(),
            team: self.team.clone().unwrap_or_default(),
            ..Party::default()
        });
        customers.chain(agents).collect()
    }
}
