//! One upload under way.

use std::task::Poll;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, stream};
use tokio::{sync::mpsc, task::JoinHandle};
use tonic::{Response, Status};

use super::{Client, ClientError, content::CHUNK_BYTES};
use crate::proto::v1::{
    PutRecordingClosing, PutRecordingRequest, PutRecordingResponse, PutRecordingSpec, Record,
    put_recording_request::Payload,
};

/// Messages between the caller and the connection.
const AHEAD: usize = 2;
/// Chunks below this are gathered first: HTTP/2 servers take a flood of tiny frames for an attack.
const LEAST_CHUNK: usize = 4 << 10;

/// An upload under way, for content that is still being recorded. Dropping it aborts it: nothing is kept.
#[derive(Debug)]
pub struct Upload {
    messages: mpsc::Sender<Message>,
    gathered: BytesMut,
    call: JoinHandle<Result<Response<PutRecordingResponse>, Status>>,
}

#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // moved once, through a short channel
enum Message {
    Request(Box<PutRecordingRequest>),
    /// The upload is whole.
    End,
}

impl Client {
    /// Begins an upload.
    ///
    /// # Errors
    /// [`ClientError::Refused`] if the connection is gone; what the vault has against the spec comes with a later call.
    pub async fn begin_upload(&self, spec: PutRecordingSpec) -> Result<Upload, ClientError> {
        let (messages, sent) = mpsc::channel(AHEAD);
        let mut service = self.record_service();
        let call = tokio::spawn(async move { service.put_recording(until_end(sent)).await });
        let mut upload = Upload {
            messages,
            gathered: BytesMut::new(),
            call,
        };
        upload.send(Payload::Spec(spec)).await?;
        Ok(upload)
    }
}

impl Upload {
    /// Sends content, in order. Waits while the vault is slower than the caller.
    ///
    /// # Errors
    /// What the vault answered, if it has ended the upload.
    pub async fn write(&mut self, mut content: Bytes) -> Result<(), ClientError> {
        if self.gathered.len() + content.len() < LEAST_CHUNK {
            self.gathered.extend_from_slice(&content);
            return Ok(());
        }
        self.flush().await?;
        while !content.is_empty() {
            let chunk = content.split_to(content.len().min(CHUNK_BYTES));
            self.send(Payload::Chunk(chunk)).await?;
        }
        Ok(())
    }

    /// Ends the upload, with what was known only at the end; returns when the vault has it durably.
    ///
    /// # Errors
    /// What the vault answered.
    pub async fn finish(mut self, closing: Option<PutRecordingClosing>) -> Result<Record, ClientError> {
        self.flush().await?;
        if let Some(closing) = closing {
            self.send(Payload::Closing(closing)).await?;
        }
        if self.messages.send(Message::End).await.is_err() {
            return Err(self.refusal().await);
        }
        let answer = (&mut self.call).await.map_err(interrupted)??;
        answer
            .into_inner()
            .record
            .ok_or(ClientError::Protocol("an answer without a record"))
    }

    /// Returns when the vault has ended the upload before its end.
    pub(super) async fn ended(&self) {
        self.messages.closed().await;
    }

    async fn flush(&mut self) -> Result<(), ClientError> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let chunk = self.gathered.split().freeze();
        self.send(Payload::Chunk(chunk)).await
    }

    async fn send(&mut self, payload: Payload) -> Result<(), ClientError> {
        let request = PutRecordingRequest {
            payload: Some(payload),
        };
        match self.messages.send(Message::Request(Box::new(request))).await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.refusal().await),
        }
    }

    /// Why the vault has ended the upload.
    pub(super) async fn refusal(&mut self) -> ClientError {
        match (&mut self.call).await {
            Ok(Err(status)) => status.into(),
            Ok(Ok(_)) => ClientError::Protocol("an acknowledgement before the end"),
            Err(error) => interrupted(error),
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.call.abort();
    }
}

/// The messages until the end. A sender that is gone without one leaves the stream open, for its call is being cancelled:
/// an end would make half a recording look whole.
fn until_end(mut sent: mpsc::Receiver<Message>) -> impl Stream<Item = PutRecordingRequest> + Send {
    stream::poll_fn(move |cx| match sent.poll_recv(cx) {
        Poll::Ready(Some(Message::Request(request))) => Poll::Ready(Some(*request)),
        Poll::Ready(Some(Message::End)) => Poll::Ready(None),
        Poll::Ready(None) | Poll::Pending => Poll::Pending,
    })
}

fn interrupted(_: tokio::task::JoinError) -> ClientError {
    ClientError::Refused(Box::new(Status::cancelled("the upload was interrupted").into()))
}
