//! `put`: one recording in.

use std::{
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use clap::Args;
use futures_util::StreamExt;
use indicatif::ProgressBar;
use tokio::fs::File;
use tokio_util::io::ReaderStream;

use super::{Remote, about::About, json, render, request_id};
use crate::{
    cli::{CliError, terminal},
    client::Content,
    proto::v1::{Channel, PutRecordingSpec},
};

/// Bytes read from a file at a time.
const READ_BYTES: usize = 1 << 20;

/// Options of `put`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Put {
    /// The recording; `-` for standard input
    file: PathBuf,
    /// Makes the upload idempotent for 24 hours
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
    #[command(flatten)]
    about: About,
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
            descriptor: Some(self.about.descriptor(Channel::Voice)),
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
