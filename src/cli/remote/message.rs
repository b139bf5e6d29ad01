//! `message put|get`: one message in, one message out.

use std::{
    io::IsTerminal,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use clap::{Args, Subcommand};
use tokio::{
    fs::File,
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
};

use super::{Remote, about::About, get::Part, json, render, request_id};
use crate::{
    cli::{CliError, terminal},
    proto::v1::{self, Channel, PutMessageRequest},
};

/// Longest body: what is longer is not read to its end.
const BODY_BYTES: u64 = 1 << 20;

#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant)] // there is one, for the length of the process
pub(in crate::cli) enum Command {
    /// Store a message, or a transcript or summary of a record
    Put(Put),
    /// Read a message back
    Get(Get),
}

impl Command {
    pub(super) async fn run(self) -> Result<(), CliError> {
        match self {
            Self::Put(put) => put.run().await,
            Self::Get(get) => get.run().await,
        }
    }
}

/// Options of `message put`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Put {
    /// What it says, at most 1 MiB; `-` for standard input
    #[arg(required_unless_present = "text", conflicts_with = "text")]
    file: Option<PathBuf>,
    /// What it says, in place of a file
    #[arg(long, value_name = "TEXT")]
    text: Option<String>,
    #[command(flatten)]
    about: About,
    /// Makes the put idempotent for 24 hours
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
    #[command(flatten)]
    remote: Remote,
}

impl Put {
    async fn run(self) -> Result<(), CliError> {
        self.about.check()?;
        let body = body(self.file.as_deref(), self.text).await?;
        let session = self.remote.connect("uploader").await?;
        let request = PutMessageRequest {
            tenant_id: session.tenant()?,
            descriptor: Some(self.about.descriptor(Channel::Chat)),
            request_id: request_id(self.request_id),
            body,
        };
        let record = session.client.put_message(request).await?;
        if session.json {
            return Ok(terminal::say(json::to_text(&record)?)?);
        }
        Ok(terminal::say(render::record(&record))?)
    }
}

async fn body(file: Option<&Path>, text: Option<String>) -> Result<Bytes, CliError> {
    if let Some(text) = text {
        return Ok(text.into());
    }
    let path = file.unwrap_or_else(|| Path::new("-"));
    if path == Path::new("-") {
        let input = File::from_std(std::io::stdin().as_fd().try_clone_to_owned()?.into());
        return read(input).await;
    }
    let file = File::open(path).await.map_err(|e| CliError::file(path, &e))?;
    read(file).await
}

async fn read(input: impl AsyncRead + Unpin) -> Result<Bytes, CliError> {
    let mut body = Vec::new();
    input.take(BODY_BYTES + 1).read_to_end(&mut body).await?;
    if body.len() as u64 > BODY_BYTES {
        return Err(CliError::failed(
            "a message has at most 1 MiB; upload what is longer with `callvault put`",
        ));
    }
    Ok(body.into())
}

/// Options of `message get`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Get {
    /// The message, or an artifact of at most 1 MiB
    #[arg(value_name = "ID")]
    record: String,
    /// Where to write; `-` (and a pipe) for standard output, as it is
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    remote: Remote,
}

impl Get {
    async fn run(self) -> Result<(), CliError> {
        let session = self.remote.connect("reader").await?;
        let message = session
            .client
            .get_message(&session.tenant()?, &self.record)
            .await?;
        if let Some(path) = self.output.as_deref().filter(|path| *path != Path::new("-")) {
            let mut part = Part::beside(path)?;
            part.file.write_all(&message.body).await?;
            part.keep().await?;
            return told(&message, path, session.json);
        }
        if session.json {
            return Ok(terminal::say(json::to_text(&message)?)?);
        }
        if self.output.is_none() && std::io::stdout().is_terminal() {
            return Ok(terminal::say(shown(&message.body)?)?);
        }
        let mut out = File::from_std(std::io::stdout().as_fd().try_clone_to_owned()?.into());
        out.write_all(&message.body).await?;
        Ok(out.flush().await?)
    }
}

fn told(message: &v1::Message, path: &Path, as_json: bool) -> Result<(), CliError> {
    if as_json {
        let record = message.record.clone().unwrap_or_default();
        return Ok(terminal::say(json::to_text(&record)?)?);
    }
    let length = terminal::bytes(message.body.len() as u64);
    Ok(terminal::say(format!("{length} written to {}", path.display()))?)
}

/// Text as a terminal may have it: whoever wrote the message does not move the reader's cursor.
fn shown(body: &[u8]) -> Result<String, CliError> {
    let text = std::str::from_utf8(body).map_err(|_| {
        CliError::usage("the message is no text: give -o FILE; -o - writes it to the terminal")
    })?;
    let plain = |c: char| c == '\n' || c == '\t' || !c.is_control();
    Ok(text
        .chars()
        .map(|c| if plain(c) { c } else { '\u{fffd}' })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_does_not_steer_the_terminal() {
        assert_eq!(shown("hola\n\tJosé".as_bytes()).unwrap(), "hola\n\tJosé");
        assert_eq!(
            shown(b"a\x1b[2J\rb\x07").unwrap(),
            "a\u{fffd}[2J\u{fffd}b\u{fffd}"
        );
        assert_eq!(shown(b"\xff").unwrap_err().exit_code(), 2);
    }
}
