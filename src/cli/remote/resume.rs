//! `put --resume`: one recording in, whatever happens to connection, server or this process.

use std::{collections::BTreeMap, fs::Metadata, os::unix::fs::MetadataExt, path::Path};

use futures_util::StreamExt;
use indicatif::ProgressBar;
use prost::Message;
use prost_types::Timestamp;
use ring::digest;

use super::{Session, about::About, put::Source};
use crate::{
    cli::{CliError, terminal},
    client::{ClientError, Code, Resumable},
    proto::v1::{BeginUploadRequest, Channel, Descriptor, Record},
};

/// What is not durable at the server yet is kept: as much as 128 MB/s make in half a second.
const MEMORY_BYTES: usize = 64 << 20;

/// Uploads the content; goes on with what an earlier run of the same command has left.
pub(super) async fn put(
    session: &Session,
    content: Source,
    about: About,
    given_id: Option<String>,
) -> Result<Record, CliError> {
    let request = request(session.tenant()?, &content, about, given_id)?;
    let mut upload = session.client.begin_resumable(request).await?;
    if let Some(record) = upload.record() {
        return Ok(record.clone());
    }
    upload.keep_at_most(MEMORY_BYTES);
    let bar = terminal::bar(content.size());
    let sent = send(&mut upload, content, &bar).await;
    bar.finish_and_clear();
    match sent {
        Err(CliError::Client(error)) if error.reason() == Some("CRC32C_MISMATCH") => {
            upload.abort().await?;
            Err(CliError::failed(
                "the file has changed since its upload was begun; what had arrived is forgotten, run the command again",
            ))
        }
        // It can never be committed: nothing of it need wait for its end.
        Err(CliError::Client(error)) if error.code() == Some(Code::InvalidArgument) => {
            upload.abort().await?;
            Err(CliError::Client(error))
        }
        sent => sent,
    }
}

async fn send(upload: &mut Resumable, content: Source, bar: &ProgressBar) -> Result<Record, CliError> {
    let there = upload.durable();
    if there > 0 {
        bar.println(format!("going on at {}", terminal::bytes(there)));
    }
    bar.set_position(there);
    bar.reset_eta();
    let mut chunks = content.chunks();
    let mut read = 0;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(ClientError::from)?;
        read += chunk.len() as u64;
        upload.write(chunk).await?;
        bar.set_position(read.max(there));
    }
    Ok(upload.commit(None).await?)
}

fn request(
    tenant: String,
    content: &Source,
    about: About,
    given_id: Option<String>,
) -> Result<BeginUploadRequest, CliError> {
    let (descriptor, its_own_id) = match content.identity() {
        None => (about.descriptor(Channel::Voice), None),
        Some((path, file)) => {
            if about.begins_a_while_ago() {
                return Err(CliError::usage(
                    "--resume needs --start as a moment, e.g. 2026-11-24T10:00:00Z: another run must say the same",
                ));
            }
            if file.size() == 0 {
                return Err(CliError::failed(format!("is empty path={}", path.display())));
            }
            let written = Timestamp {
                seconds: file.mtime(),
                nanos: i32::try_from(file.mtime_nsec()).unwrap_or(0),
            };
            let descriptor = about.begun_at(written).descriptor(Channel::Voice);
            let path = path.canonicalize().map_err(|e| CliError::file(path, &e))?;
            let id = same_upload(&tenant, &path, file, &descriptor);
            (descriptor, Some(id))
        }
    };
    Ok(BeginUploadRequest {
        tenant_id: tenant,
        descriptor: Some(descriptor),
        // Without any, the client makes one that nobody knows after its end.
        request_id: given_id.or(its_own_id).unwrap_or_default(),
        ..BeginUploadRequest::default()
    })
}

/// The same for the same command over the same file as it is: another run finds the upload that this one began. A digest, so
/// that no name of a file leaves this machine.
fn same_upload(tenant: &str, path: &Path, file: &Metadata, descriptor: &Descriptor) -> String {
    let mut hash = digest::Context::new(&digest::SHA256);
    let facts = [file.dev(), file.ino(), file.size()]
        .map(u64::to_be_bytes)
        .concat();
    let times = [file.mtime(), file.mtime_nsec()].map(i64::to_be_bytes).concat();
    let parts = [
        b"callvault put --resume".as_slice(),
        tenant.as_bytes(),
        path.as_os_str().as_encoded_bytes(),
        &facts,
        &times,
    ];
    // A map is encoded in an order that differs from run to run.
    let mut plain = descriptor.clone();
    let labels: BTreeMap<_, _> = std::mem::take(&mut plain.labels).into_iter().collect();
    let plain = plain.encode_to_vec();
    let labels = labels
        .iter()
        .flat_map(|(key, value)| [key.as_bytes(), value.as_bytes()]);
    for part in parts.into_iter().chain([&plain[..]]).chain(labels) {
        hash.update(&(part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hex::encode(&hash.finish().as_ref()[..16])
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_that_changed_or_another_command_is_another_upload() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("call.wav");
        fs::write(&path, "one").unwrap();
        let id = |tenant: &str, about: &Descriptor| {
            same_upload(tenant, &path, &fs::metadata(&path).unwrap(), about)
        };
        let about = || Descriptor {
            conversation_id: "c-1".to_owned(),
            labels: [("a", "1"), ("b", "2")]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into(),
            ..Descriptor::default()
        };
        let first = id("dev", &about());
        assert_eq!((first.len(), id("dev", &about())), (32, first.clone()));
        assert_ne!(id("other", &about()), first);
        assert_ne!(id("dev", &Descriptor::default()), first);
        fs::write(&path, "three").unwrap();
        assert_ne!(id("dev", &about()), first);
    }
}
