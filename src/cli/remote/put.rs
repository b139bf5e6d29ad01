//! `put`: one recording in.

use std::{
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use clap::Args;
use futures_util::StreamExt;
use indicatif::ProgressBar;
use prost_types::{Duration, Timestamp};
use tokio::fs::File;
use tokio_util::io::ReaderStream;

use super::{Remote, fields, json, render, request_id};
use crate::{
    cli::{CliError, terminal},
    client::Content,
    proto::v1::{Descriptor, Party, PartyRole, PutRecordingSpec},
};

/// Bytes read from a file at a time.
const READ_BYTES: usize = 1 << 20;

/// Options of `put`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Put {
    /// The recording; `-` for standard input
    file: PathBuf,
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
    /// The platform's id of this call, unique within the tenant
    #[arg(long, value_name = "ID")]
    external_id: Option<String>,
    /// RFC 6838; found out from the content when absent. Raw G.711 needs audio/PCMU or audio/PCMA
    #[arg(long, value_name = "TYPE")]
    media_type: Option<String>,
    /// The platform's own label; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = fields::pair)]
    label: Vec<(String, String)>,
    /// Makes the upload idempotent for 24 hours
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
    /// voice video sms whatsapp email chat social other
    #[arg(long, default_value = "voice", value_parser = fields::channel)]
    channel: i32,
    /// inbound outbound internal
    #[arg(long, value_parser = fields::direction)]
    direction: Option<i32>,
    /// When it began: 2026-05-01T10:00:00Z, or how long ago, e.g. 2h; now when absent
    #[arg(long, value_name = "TIME", value_parser = fields::moment)]
    start: Option<Timestamp>,
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
    #[command(flatten)]
    remote: Remote,
}

impl Put {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let content = Source::open(&self.file).await?;
        let session = self.remote.connect("uploader").await?;
        let spec = PutRecordingSpec {
            tenant_id: session.tenant()?,
            request_id: request_id(self.request_id.clone()),
            expected_size_bytes: content.size.and_then(|size| i64::try_from(size).ok()),
            descriptor: Some(self.descriptor()),
            ..PutRecordingSpec::default()
        };
        let bar = terminal::bar(content.size);
        let record = session.client.put_recording(spec, content.read(&bar), None).await;
        bar.finish_and_clear();
        let record = record?;
        if session.json {
            return Ok(terminal::say(json::to_text(&record)?)?);
        }
        Ok(terminal::say(render::record(&record))?)
    }

    fn descriptor(self) -> Descriptor {
        Descriptor {
            parties: self.parties(),
            conversation_id: self.conversation,
            channel: self.channel,
            direction: self.direction.unwrap_or_default(),
            start_time: Some(self.start.unwrap_or_else(fields::now)),
            duration: self.duration,
            media_type: self.media_type.unwrap_or_default(),
            languages: self.language,
            labels: self.label.into_iter().collect(),
            allowed_purposes: self.allow,
            legal_basis: self.legal_basis.unwrap_or_default(),
            source: self.source.unwrap_or_default(),
            retention_class: self.retention.unwrap_or_default(),
            external_id: self.external_id.unwrap_or_default(),
            ..Descriptor::default()
        }
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

/// Where the content comes from.
struct Source {
    path: PathBuf,
    file: File,
    /// Known of files, not of pipes.
    size: Option<u64>,
}

impl Source {
    async fn open(path: &Path) -> Result<Self, CliError> {
        let file = if path == Path::new("-") {
            File::from_std(std::io::stdin().as_fd().try_clone_to_owned()?.into())
        } else {
            File::open(path).await.map_err(|e| CliError::file(path, &e))?
        };
        let about = file.metadata().await?;
        if about.is_dir() {
            return Err(CliError::failed(format!(
                "is a directory path={}",
                path.display()
            )));
        }
        let size = (about.is_file() && path != Path::new("-")).then_some(about.len());
        Ok(Self {
            path: path.to_owned(),
            file,
            size,
        })
    }

    /// A file can be sent again when the vault asks for it; a pipe cannot, nor what a bar is drawn for.
    fn read(self, bar: &ProgressBar) -> Content {
        if bar.is_hidden() && self.size.is_some() {
            return Content::file(self.path);
        }
        let bar = bar.clone();
        let chunks = ReaderStream::with_capacity(self.file, READ_BYTES);
        Content::stream(chunks.inspect(move |chunk| {
            if let Ok(chunk) = chunk {
                bar.inc(chunk.len() as u64);
            }
        }))
    }
}
