//! `put`: one recording in.

use std::{
    fs::Metadata,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use clap::Args;
use futures_util::StreamExt;
use indicatif::ProgressBar;
use tokio::fs::File;
use tokio_util::io::ReaderStream;

use super::{Remote, Session, about::About, json, render, request_id, resume};
use crate::{
    cli::{CliError, terminal},
    client::Content,
    proto::v1::{Channel, PutRecordingSpec, Record},
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
    /// Goes on by itself after a lost connection or a restarted server; and, for a file, where it was when the same command is
    /// run again. The recording then began when the file was last written, unless --start says otherwise
    #[arg(long)]
    resume: bool,
    #[command(flatten)]
    about: About,
    #[command(flatten)]
    remote: Remote,
}

impl Put {
    pub(super) async fn run(self) -> Result<(), CliError> {
        self.about.check()?;
        let content = Source::open(&self.file).await?;
        let session = self.remote.connect("uploader").await?;
        let as_json = session.json;
        let record = if self.resume {
            resume::put(&session, content, self.about, self.request_id).await?
        } else {
            put(&session, content, self.about, self.request_id).await?
        };
        if as_json {
            return Ok(terminal::say(json::to_text(&record)?)?);
        }
        Ok(terminal::say(render::record(&record))?)
    }
}

async fn put(
    session: &Session,
    content: Source,
    about: About,
    given_id: Option<String>,
) -> Result<Record, CliError> {
    let spec = PutRecordingSpec {
        tenant_id: session.tenant()?,
        request_id: request_id(given_id),
        expected_size_bytes: content.size().and_then(|size| i64::try_from(size).ok()),
        descriptor: Some(about.descriptor(Channel::Voice)),
        ..PutRecordingSpec::default()
    };
    let bar = terminal::bar(content.size());
    let record = session.client.put_recording(spec, content.read(&bar), None).await;
    bar.finish_and_clear();
    Ok(record?)
}

/// Where the content comes from.
pub(super) struct Source {
    path: PathBuf,
    file: File,
    /// What is known of a file, and not of a pipe.
    about: Option<Metadata>,
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
        let is_file = about.is_file() && path != Path::new("-");
        Ok(Self {
            path: path.to_owned(),
            file,
            about: is_file.then_some(about),
        })
    }

    /// Where it lies and what is known of it, if it is a file.
    pub(super) fn identity(&self) -> Option<(&Path, &Metadata)> {
        Some((&self.path, self.about.as_ref()?))
    }

    pub(super) fn size(&self) -> Option<u64> {
        self.about.as_ref().map(Metadata::len)
    }

    /// What there is, as soon as it is there.
    pub(super) fn chunks(self) -> ReaderStream<File> {
        ReaderStream::with_capacity(self.file, READ_BYTES)
    }

    /// A file can be sent again when the vault asks for it; a pipe cannot, nor what a bar is drawn for.
    fn read(self, bar: &ProgressBar) -> Content {
        if bar.is_hidden() && self.about.is_some() {
            return Content::file(self.path);
        }
        let bar = bar.clone();
        Content::stream(self.chunks().inspect(move |chunk| {
            if let Ok(chunk) = chunk {
                bar.inc(chunk.len() as u64);
            }
        }))
    }
}
