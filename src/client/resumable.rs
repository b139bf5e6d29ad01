//! An upload in many calls, which survives dropped connections, restarted servers and, where the content can be read again,
//! the end of the client's own process.
//!
//! ```text
//! caller -> write -> window (bounded) -> sender -> WriteUpload, WriteUpload, ...
//!                       ^ forgets what is durable <- GetUpload now and then, and every answer
//! ```

mod sender;
mod window;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::{sync::Notify, task::JoinHandle};
use tonic::Code;

use self::{sender::Sender, window::Window};
use super::{Client, ClientError, Content, Retry, retry, retry::request_id};
use crate::proto::v1::{
    AbortUploadRequest, BeginUploadRequest, CommitUploadRequest, GetUploadRequest, PutRecordingClosing,
    Record, Upload, UploadState,
};

/// Before the server is asked again what is durable, when all was sent.
const UNSETTLED_WAIT: Duration = Duration::from_millis(200);

/// An upload under way that goes on by itself after a lost connection and a restarted server.
///
/// It keeps what is not durable at the server yet, at most [`Resumable::MEMORY_BYTES`] or what
/// [`Resumable::keep_at_most`] says; beyond, [`Resumable::write`] waits. A slow call keeps kilobytes. What is written goes
/// out within about a second.
///
/// Dropping it leaves at the server what has arrived: [`Client::resume_upload`] goes on with it, in this process or another.
#[derive(Debug)]
pub struct Resumable {
    client: Client,
    name: Name,
    retry: Retry,
    shared: Arc<Shared>,
    sending: JoinHandle<()>,
    /// What it had become when it was begun or found again.
    record: Option<Record>,
}

/// Whose upload, and which.
#[derive(Clone, Debug)]
struct Name {
    tenant: String,
    upload: String,
}

/// What the caller and the sender share.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// For the sender: there is something to send, or to end.
    written: Notify,
    /// For the sender: the caller waits for room.
    pressed: Notify,
    /// For the caller: there is more room, more is durable, or the upload has ended.
    changed: Notify,
}

#[derive(Debug)]
struct State {
    window: Window,
    /// Where the server is must be asked before more is sent.
    stale: bool,
    /// The caller waits until everything is durable.
    flushing: bool,
    /// The furthest that the server has been.
    reached: u64,
    error: Option<ClientError>,
}

impl Client {
    /// Begins an upload in many calls, or finds the one that the same `request_id` began before; one is minted if there is
    /// none.
    ///
    /// An upload that was found again is written from the beginning of its content like any other: what the server has is not
    /// sent again.
    ///
    /// # Errors
    /// What the vault answered.
    pub async fn begin_resumable(&self, mut request: BeginUploadRequest) -> Result<Resumable, ClientError> {
        request.request_id = request_id(request.request_id);
        let begin = || async { self.record_service().begin_upload(request.clone()).await };
        let answer = self.patience().run_while(retry::interrupts, begin).await?;
        self.resumable(known(answer.into_inner().upload)?)
    }

    /// Goes on with an upload that was begun elsewhere. Write its content from the beginning: what the server has is not sent
    /// again.
    ///
    /// # Errors
    /// What the vault answered.
    pub async fn resume_upload(&self, tenant_id: &str, upload_id: &str) -> Result<Resumable, ClientError> {
        let upload = self.get_upload(tenant_id, upload_id).await?;
        self.resumable(upload)
    }

    /// How far an upload has come.
    ///
    /// # Errors
    /// What the vault answered.
    pub async fn get_upload(&self, tenant_id: &str, upload_id: &str) -> Result<Upload, ClientError> {
        let name = Name {
            tenant: tenant_id.to_owned(),
            upload: upload_id.to_owned(),
        };
        let look = || self.look(&name);
        self.patience().run_any_while(retry::interrupts, look).await
    }

    /// Uploads a recording in as many calls as it takes; returns when the vault has it durably.
    ///
    /// # Errors
    /// [`ClientError::Content`] if the content cannot be read; what the vault answered. What arrived stays until the upload's
    /// time is over, for the same `request_id` to go on.
    pub async fn put_resumable(
        &self,
        request: BeginUploadRequest,
        content: Content,
        closing: Option<PutRecordingClosing>,
    ) -> Result<Record, ClientError> {
        let mut chunks = content.open().await?;
        let mut upload = self.begin_resumable(request).await?;
        while let Some(chunk) = chunks.next().await {
            upload.write(chunk?).await?;
        }
        upload.commit(closing).await
    }

    fn resumable(&self, upload: Upload) -> Result<Resumable, ClientError> {
        let name = Name {
            tenant: upload.tenant_id.clone(),
            upload: upload.upload_id.clone(),
        };
        let shared = Arc::new(Shared::new());
        shared.go_on_from(&upload)?;
        let retry = self.patience();
        let sender = Sender {
            client: self.clone(),
            name: name.clone(),
            shared: Arc::clone(&shared),
            retry,
        };
        Ok(Resumable {
            client: self.clone(),
            name,
            retry,
            shared,
            sending: tokio::spawn(sender.run()),
            record: upload.record,
        })
    }

    /// One look, without patience.
    async fn look(&self, name: &Name) -> Result<Upload, ClientError> {
        let request = GetUploadRequest {
            tenant_id: name.tenant.clone(),
            upload_id: name.upload.clone(),
        };
        known(
            self.record_service()
                .get_upload(request)
                .await?
                .into_inner()
                .upload,
        )
    }
}

impl Resumable {
    /// Most bytes that are kept when nobody said otherwise: 32 MiB.
    pub const MEMORY_BYTES: usize = 32 << 20;

    /// Keeps at most so many bytes, at least 64 KiB. Fewer slow a fast sender down: a server makes most things durable within
    /// half a second to a second.
    pub fn keep_at_most(&mut self, bytes: usize) {
        self.shared.state().window.keep_at_most(bytes);
    }

    /// Names the upload, and the record that it becomes.
    pub fn upload_id(&self) -> &str {
        &self.name.upload
    }

    /// What the upload has become already, if somebody committed it before.
    pub fn record(&self) -> Option<&Record> {
        self.record.as_ref()
    }

    /// Bytes that survive whatever happens to the server, as far as is known here.
    pub fn durable(&self) -> u64 {
        self.shared.state().window.durable()
    }

    /// Bytes that are kept here now.
    pub fn kept(&self) -> usize {
        self.shared.state().window.kept()
    }

    /// Takes content, in order. Waits while as much is kept as may be.
    ///
    /// A call that is dropped half-way has taken a part of the content, in order.
    ///
    /// # Errors
    /// Why the upload cannot go on: what the vault answered for good (`UPLOAD_TAKEN_OVER` if somebody else goes on with it), or
    /// that patience has ended.
    pub async fn write(&mut self, mut content: Bytes) -> Result<(), ClientError> {
        loop {
            {
                let mut state = self.shared.state();
                state.go_ahead()?;
                state.window.take(&mut content);
            }
            self.shared.written.notify_one();
            if content.is_empty() {
                return Ok(());
            }
            self.shared.pressed.notify_one();
            self.shared.changed.notified().await;
        }
    }

    /// Returns when all that was written is durable.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub async fn flush(&mut self) -> Result<(), ClientError> {
        loop {
            {
                let mut state = self.shared.state();
                state.go_ahead()?;
                state.flushing = !state.window.is_durable();
                if !state.flushing {
                    return Ok(());
                }
            }
            self.shared.written.notify_one();
            self.shared.changed.notified().await;
        }
    }

    /// Makes a record of all that was written, with what was known only at the end. The vault compares length and CRC-32C.
    ///
    /// # Errors
    /// As [`Self::write`]; `CRC32C_MISMATCH` if the server has other content, from an earlier process: abort it and begin again.
    /// May be repeated.
    pub async fn commit(&mut self, closing: Option<PutRecordingClosing>) -> Result<Record, ClientError> {
        loop {
            self.flush().await?;
            let request = self.committing(closing.clone());
            if let Some(record) = &self.record
                && record.size_bytes == request.size_bytes
            {
                return Ok(record.clone());
            }
            let commit = || async { self.client.record_service().commit_upload(request.clone()).await };
            let refused = match self.retry.run_while(retry::interrupts, commit).await {
                Ok(answer) => return record(answer.into_inner().record),
                Err(error) => error,
            };
            if refused.reason() != Some("UPLOAD_INCOMPLETE") || !self.has_more().await? {
                return Err(refused);
            }
        }
    }

    /// Forgets the upload and all that arrived. One that is gone already is no error.
    ///
    /// # Errors
    /// What the vault answered: one that became a record is not aborted (`UPLOAD_COMMITTED`).
    pub async fn abort(self) -> Result<(), ClientError> {
        self.sending.abort();
        let request = AbortUploadRequest {
            tenant_id: self.name.tenant.clone(),
            upload_id: self.name.upload.clone(),
        };
        let abort = || async { self.client.record_service().abort_upload(request.clone()).await };
        match self.retry.run_while(retry::interrupts, abort).await {
            Err(error) if error.code() != Some(Code::NotFound) => Err(error),
            _ => Ok(()),
        }
    }

    fn committing(&self, closing: Option<PutRecordingClosing>) -> CommitUploadRequest {
        let state = self.shared.state();
        CommitUploadRequest {
            tenant_id: self.name.tenant.clone(),
            upload_id: self.name.upload.clone(),
            size_bytes: i64::try_from(state.window.end()).unwrap_or(i64::MAX),
            closing,
            expected_crc32c: Some(state.window.crc()),
        }
    }

    /// Whether there is anything that the server has not, or has lost.
    async fn has_more(&self) -> Result<bool, ClientError> {
        let upload = self
            .client
            .get_upload(&self.name.tenant, &self.name.upload)
            .await?;
        self.shared.go_on_from(&upload)?;
        Ok(self.shared.state().window.unsent() > 0)
    }
}

impl Drop for Resumable {
    fn drop(&mut self) {
        self.sending.abort();
    }
}

impl Shared {
    fn new() -> Self {
        Self {
            state: Mutex::new(State {
                window: Window::new(Resumable::MEMORY_BYTES),
                stale: false,
                flushing: false,
                reached: 0,
                error: None,
            }),
            written: Notify::new(),
            pressed: Notify::new(),
            changed: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// While no call is sending: what is sent next is what the server has not.
    fn go_on_from(&self, upload: &Upload) -> Result<(), ClientError> {
        let (durable, received) = offsets(upload)?;
        let is_sound = {
            let mut state = self.state();
            state.stale = false;
            state.reached = state.reached.max(received);
            state.window.go_on_from(durable, received)
        };
        self.changed.notify_one();
        if is_sound {
            return Ok(());
        }
        Err(ClientError::Protocol(
            "the server has lost what it called durable",
        ))
    }

    fn forget(&self, upload: &Upload) {
        if let Ok((durable, received)) = offsets(upload) {
            let mut state = self.state();
            state.reached = state.reached.max(received);
            state.window.forget(durable);
        }
        self.changed.notify_one();
    }

    fn reached(&self) -> u64 {
        self.state().reached
    }

    /// Returns when there is something to send, or to ask.
    async fn work(&self) {
        loop {
            let unsettled = {
                let mut state = self.state();
                if state.window.unsent() > 0 || state.stale {
                    return;
                }
                // All was sent, the caller waits, and no call is left that would tell what is durable.
                let waiting = state.flushing || state.window.is_full();
                let unsettled = waiting && !state.window.is_durable();
                state.stale = unsettled;
                unsettled
            };
            if unsettled {
                tokio::time::sleep(UNSETTLED_WAIT).await;
                return;
            }
            self.written.notified().await;
        }
    }
}

impl State {
    /// Refuses when nothing is sent any more.
    fn go_ahead(&self) -> Result<(), ClientError> {
        match &self.error {
            None => Ok(()),
            Some(ClientError::Refused(refusal)) => Err(ClientError::Refused(refusal.clone())),
            Some(ClientError::Protocol(what)) => Err(ClientError::Protocol(what)),
            Some(_) => Err(ClientError::Protocol("the upload was interrupted")),
        }
    }
}

fn offsets(upload: &Upload) -> Result<(u64, u64), ClientError> {
    let known = |offset| u64::try_from(offset).map_err(|_| ClientError::Protocol("a negative offset"));
    if upload.state() == UploadState::Unspecified {
        return Err(ClientError::Protocol("an upload without a state"));
    }
    Ok((known(upload.durable_offset)?, known(upload.received_offset)?))
}

fn known(upload: Option<Upload>) -> Result<Upload, ClientError> {
    upload.ok_or(ClientError::Protocol("an answer without an upload"))
}

fn record(record: Option<Record>) -> Result<Record, ClientError> {
    record.ok_or(ClientError::Protocol("an answer without a record"))
}
