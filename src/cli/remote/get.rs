//! `get`: one recording out, whole or a range; never a short file that looks whole.

use std::{
    fs,
    io::IsTerminal,
    os::{fd::AsFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::BytesMut;
use clap::Args;
use tokio::{fs::File, io::AsyncWriteExt};

use super::{
    Remote, Session, fields, json,
    slice::{HEADER_BYTES, Layout},
};
use crate::{
    cli::{CliError, terminal},
    client::Download,
    proto::v1::{Record, get_record_request::Name},
};

/// Options of `get`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Get {
    /// The record
    #[arg(value_name = "ID")]
    record: String,
    /// Where to write; `-` (and a pipe) for standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// First byte
    #[arg(long, value_name = "BYTES", conflicts_with_all = ["from", "to"])]
    offset: Option<u64>,
    /// Number of bytes
    #[arg(long, value_name = "BYTES", conflicts_with_all = ["from", "to"], value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// From this time in the recording on, e.g. 30s or 1m30s (WAV and raw G.711)
    #[arg(long, value_name = "TIME", value_parser = fields::length)]
    from: Option<Duration>,
    /// Up to this time
    #[arg(long, value_name = "TIME", value_parser = fields::length)]
    to: Option<Duration>,
    /// Put a WAV header before the bytes of --from and --to, so that they play; without it they come as they are stored
    #[arg(long)]
    wav: bool,
    #[command(flatten)]
    remote: Remote,
}

/// What is asked for.
struct Range {
    offset: u64,
    limit: u64,
    header: Vec<u8>,
}

impl Get {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let path = self.output.as_deref().filter(|path| *path != Path::new("-"));
        self.check(path)?;
        let session = self.remote.connect("reader").await?;
        let range = self.range(&session).await?;
        let tenant = session.tenant()?;
        let mut download = session
            .client
            .read_recording(&tenant, &self.record, range.offset, range.limit)
            .await?;
        let record = download.header().record.clone().unwrap_or_default();
        let Some(path) = path else {
            let mut out = File::from_std(std::io::stdout().as_fd().try_clone_to_owned()?.into());
            return write(&mut out, &range.header, &mut download).await;
        };
        let mut part = Part::beside(path)?;
        write(&mut part.file, &range.header, &mut download).await?;
        part.keep().await?;
        tell(&session, &record, path, download.header().length)
    }

    fn check(&self, path: Option<&Path>) -> Result<(), CliError> {
        if self.wav && self.from.is_none() && self.to.is_none() {
            return Err(CliError::usage("--wav goes with --from and --to"));
        }
        if path.is_none() && self.remote.json {
            return Err(CliError::usage(
                "--json needs -o FILE: standard output is the recording's",
            ));
        }
        if self.output.is_none() && std::io::stdout().is_terminal() {
            return Err(CliError::usage("give -o FILE; -o - writes sound to the terminal"));
        }
        Ok(())
    }

    async fn range(&self, session: &Session) -> Result<Range, CliError> {
        if self.from.is_none() && self.to.is_none() {
            return Ok(Range {
                offset: self.offset.unwrap_or(0),
                limit: self.limit.unwrap_or(0),
                header: Vec::new(),
            });
        }
        let layout = self.layout(session).await?;
        let (offset, limit) = layout
            .range(self.from.unwrap_or_default(), self.to)
            .map_err(CliError::failed)?;
        let header = if self.wav {
            layout.header(limit)
        } else {
            Vec::new()
        };
        Ok(Range {
            offset,
            limit,
            header,
        })
    }

    async fn layout(&self, session: &Session) -> Result<Layout, CliError> {
        let tenant = session.tenant()?;
        let name = Name::RecordId(self.record.clone());
        let record = session.client.get_record(&tenant, name).await?;
        let media_type = record
            .descriptor
            .map(|about| about.media_type)
            .unwrap_or_default();
        let size = u64::try_from(record.size_bytes).unwrap_or(0);
        let mut start = BytesMut::new();
        let mut download = session
            .client
            .read_recording(&tenant, &self.record, 0, HEADER_BYTES)
            .await?;
        while let Some(bytes) = download.next().await? {
            start.extend_from_slice(&bytes);
        }
        Layout::of(&media_type, size, &start).map_err(CliError::failed)
    }
}

async fn write(out: &mut File, header: &[u8], download: &mut Download) -> Result<(), CliError> {
    out.write_all(header).await?;
    let bar = terminal::bar(u64::try_from(download.header().length).ok());
    while let Some(bytes) = download.next().await? {
        out.write_all(&bytes).await?;
        bar.inc(bytes.len() as u64);
    }
    out.flush().await?;
    bar.finish_and_clear();
    Ok(())
}

fn tell(session: &Session, record: &Record, path: &Path, length: i64) -> Result<(), CliError> {
    if session.json {
        return Ok(terminal::say(json::to_text(record)?)?);
    }
    let length = terminal::bytes(u64::try_from(length).unwrap_or(0));
    Ok(terminal::say(format!("{length} written to {}", path.display()))?)
}

/// A file that is not there under its own name until it is whole; removed if it never is. What is no file, a device or a pipe,
/// is written to as it is.
pub(super) struct Part {
    pub(super) file: File,
    /// Where it is until it is whole; `None` of what is written to as it is.
    beside: Option<PathBuf>,
    path: PathBuf,
}

impl Part {
    pub(super) fn beside(path: &Path) -> Result<Self, CliError> {
        let failed = |e: std::io::Error| CliError::file(path, &e);
        // Through a link to what it leads to: the link stays.
        let target = match fs::metadata(path) {
            Ok(there) if !there.is_file() && !there.is_dir() => {
                let file = fs::OpenOptions::new().write(true).open(path).map_err(failed)?;
                return Ok(Self {
                    file: File::from_std(file),
                    beside: None,
                    path: path.to_owned(),
                });
            }
            Ok(_) => path.canonicalize().map_err(failed)?,
            Err(_) => path.to_owned(),
        };
        let name = target
            .file_name()
            .ok_or_else(|| CliError::usage("-o must name a file"))?;
        let name = format!(".{}.{}.part", name.to_string_lossy(), std::process::id());
        let beside = target.with_file_name(name);
        let file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)
            .map_err(failed)?;
        Ok(Self {
            file: File::from_std(file),
            beside: Some(beside),
            path: target,
        })
    }

    pub(super) async fn keep(&mut self) -> Result<(), CliError> {
        let Some(beside) = &self.beside else {
            return Ok(self.file.flush().await?);
        };
        self.file.sync_all().await?;
        fs::rename(beside, &self.path).map_err(|e| CliError::file(&self.path, &e))?;
        self.beside = None;
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if let Some(beside) = &self.beside {
            let _ = fs::remove_file(beside);
        }
    }
}
