//! The messages of an upload, in their order and in time.
//!
//! ```text
//! spec, chunk*, closing?, end
//! ```

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::timeout;
use tonic::{Code, Status, Streaming};

use super::{Caller, StreamLimits, convert, gate};
use crate::{
    domain::{clock::Timestamp, limits, principal::Action, record::Record},
    proto::v1::{PutRecordingClosing, PutRecordingRequest, PutRecordingSpec, put_recording_request::Payload},
    vault::{Error, Kind, Put, PutSpec, Vault},
};

/// Takes one recording in. Whatever ends this early, also the caller's going away, drops the upload, which aborts it.
pub(super) async fn receive(
    vault: &Arc<Vault>,
    caller: &Caller,
    messages: Streaming<PutRecordingRequest>,
    limits: StreamLimits,
) -> Result<Record, Status> {
    timeout(limits.total, receive_all(vault, caller, messages, limits.idle))
        .await
        .map_err(|_| too_long("an upload", "UPLOAD_TOO_LONG", limits.total))?
}

async fn receive_all(
    vault: &Arc<Vault>,
    caller: &Caller,
    messages: Streaming<PutRecordingRequest>,
    idle: Duration,
) -> Result<Record, Status> {
    let mut messages = Messages { messages, idle };
    let spec = admitted(caller, &messages.spec().await?)?;
    let start = spec.draft.descriptor.start;
    let mut put = vault.begin_put(spec).await.map_err(within_spec)?;
    let closing = messages.content(&mut put).await?;
    let closing = closed(closing, start)?;
    // The caller has said all: its going away now must not leave a blob that nobody was told of.
    let finished = tokio::spawn(put.finish(closing)).await;
    let finished = finished
        .map_err(|cause| Error::new(Kind::Internal, "TASK", "the upload was interrupted").because(cause))?;
    Ok(finished.map_err(within_spec)?)
}

fn admitted(caller: &Caller, spec: &PutRecordingSpec) -> Result<PutSpec, Error> {
    let at = convert::Path::root("spec");
    let tenant = gate::in_scope(
        caller,
        Action::PutRecording,
        &spec.tenant_id,
        &at.field("tenant_id"),
    )?;
    convert::put_spec(spec, tenant, caller)
}

fn closed(closing: Option<PutRecordingClosing>, start: Timestamp) -> Result<crate::vault::Closing, Error> {
    match closing {
        None => Ok(crate::vault::Closing::default()),
        Some(closing) => convert::closing(&closing, start),
    }
}

/// The vault knows descriptors, not the messages that bring them.
fn within_spec(mut error: Error) -> Error {
    if let Some(field) = &mut error.field
        && field.starts_with("descriptor")
    {
        field.insert_str(0, "spec.");
    }
    error
}

struct Messages {
    messages: Streaming<PutRecordingRequest>,
    idle: Duration,
}

impl Messages {
    /// The first message.
    async fn spec(&mut self) -> Result<PutRecordingSpec, Status> {
        match self.next().await? {
            Some(Payload::Spec(spec)) => Ok(spec),
            Some(Payload::Chunk(_) | Payload::Closing(_)) => {
                Err(wrong_order("the first message must be a spec"))
            }
            None => Err(wrong_order("the upload has no message; begin with a spec")),
        }
    }

    /// All chunks; returns the closing, if there is one.
    async fn content(&mut self, put: &mut Put) -> Result<Option<PutRecordingClosing>, Status> {
        loop {
            match self.next().await? {
                Some(Payload::Chunk(chunk)) => put.write(checked(chunk)?).await?,
                Some(Payload::Closing(closing)) => {
                    self.end().await?;
                    return Ok(Some(closing));
                }
                Some(Payload::Spec(_)) => return Err(wrong_order("an upload has one spec")),
                None => return Ok(None),
            }
        }
    }

    async fn end(&mut self) -> Result<(), Status> {
        match self.next().await? {
            None => Ok(()),
            Some(_) => Err(wrong_order("nothing follows the closing")),
        }
    }

    /// The next message's payload; `None` at the end.
    async fn next(&mut self) -> Result<Option<Payload>, Status> {
        let message = timeout(self.idle, self.messages.message())
            .await
            .map_err(|_| too_long("a message", "UPLOAD_IDLE", self.idle))?
            .map_err(explained)?;
        match message {
            None => Ok(None),
            Some(PutRecordingRequest {
                payload: Some(payload),
            }) => Ok(Some(payload)),
            Some(PutRecordingRequest { payload: None }) => {
                Err(wrong_order("a message must be a spec, a chunk or a closing"))
            }
        }
    }
}

pub(super) fn checked(chunk: Bytes) -> Result<Bytes, Error> {
    let at = convert::Path::root("chunk");
    if chunk.is_empty() {
        return Err(at.refuse("must not be empty"));
    }
    if chunk.len() > limits::STREAM_MESSAGE_BYTES {
        return Err(chunk_too_long());
    }
    Ok(chunk)
}

/// tonic refuses a message that is too long without a reason of ours.
pub(super) fn explained(status: Status) -> Status {
    match status.code() {
        Code::OutOfRange => chunk_too_long().into(),
        _ => status,
    }
}

fn chunk_too_long() -> Error {
    let message = format!("must be at most {} bytes", limits::STREAM_MESSAGE_BYTES);
    Error {
        field: Some("chunk".to_owned()),
        ..Error::new(Kind::Invalid, "CHUNK_TOO_LONG", message)
    }
}

pub(super) fn wrong_order(message: &str) -> Status {
    Error::new(Kind::Invalid, "UPLOAD_ORDER", message).into()
}

pub(super) fn too_long(what: &str, reason: &'static str, limit: Duration) -> Status {
    let message = format!(
        "{what} did not come to its end in time; nothing was kept limit_seconds={}",
        limit.as_secs()
    );
    Error::new(Kind::TimedOut, reason, message).into()
}
