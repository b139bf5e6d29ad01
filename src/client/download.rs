//! One recording on its way back.

use std::fmt;

use bytes::Bytes;
use futures_util::{Stream, stream};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tonic::Streaming;

use super::ClientError;
use crate::proto::v1::{ReadRecordingHeader, ReadRecordingResponse, read_recording_response::Payload};

/// Content on its way, authenticated by the vault. Dropping it ends the call.
pub struct Download {
    header: ReadRecordingHeader,
    chunks: Streaming<ReadRecordingResponse>,
    expected: u64,
    received: u64,
}

impl Download {
    /// Reads the header.
    pub(super) async fn begin(mut chunks: Streaming<ReadRecordingResponse>) -> Result<Self, ClientError> {
        match chunks.message().await?.and_then(|message| message.payload) {
            Some(Payload::Header(header)) => Ok(Self {
                expected: u64::try_from(header.length)
                    .map_err(|_| ClientError::Protocol("a negative length"))?,
                header,
                chunks,
                received: 0,
            }),
            _ => Err(ClientError::Protocol("a stream without a header")),
        }
    }

    /// The record and the range that follows.
    pub fn header(&self) -> &ReadRecordingHeader {
        &self.header
    }

    /// The next bytes; `None` once every byte has come.
    ///
    /// # Errors
    /// [`ClientError::ShortStream`] if the stream ends early without an error; what the vault answered otherwise. What came
    /// before is not the recording then.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        let Some(message) = self.chunks.message().await? else {
            return self.end();
        };
        let Some(Payload::Chunk(chunk)) = message.payload else {
            return Err(ClientError::Protocol(
                "something else than content after the header",
            ));
        };
        self.received += chunk.len() as u64;
        if self.received > self.expected {
            return Err(ClientError::Protocol("more content than the header announced"));
        }
        Ok(Some(chunk))
    }

    /// Writes all of it to `out` and flushes; returns the number of bytes.
    ///
    /// # Errors
    /// As [`Download::next`]; [`ClientError::Content`] if `out` fails.
    pub async fn copy_to(&mut self, out: &mut (impl AsyncWrite + Unpin)) -> Result<u64, ClientError> {
        while let Some(bytes) = self.next().await? {
            out.write_all(&bytes).await?;
        }
        out.flush().await?;
        Ok(self.received)
    }

    /// The same as a stream.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes, ClientError>> + Send {
        stream::try_unfold(self, |mut download| async move {
            Ok(download.next().await?.map(|bytes| (bytes, download)))
        })
    }

    fn end(&self) -> Result<Option<Bytes>, ClientError> {
        if self.received == self.expected {
            Ok(None)
        } else {
            Err(ClientError::ShortStream {
                expected: self.expected,
                received: self.received,
            })
        }
    }
}

/// The header tells who spoke with whom; lengths only.
impl fmt::Debug for Download {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Download")
            .field("expected", &self.expected)
            .field("received", &self.received)
            .finish_non_exhaustive()
    }
}
