//! Where an upload's bytes come from.

use std::{
    fmt, io,
    path::PathBuf,
    pin::Pin,
    sync::{Mutex, PoisonError},
};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt, stream};
use tokio::{
    fs::File,
    io::{AsyncRead, AsyncReadExt},
};

/// Bytes in one message.
pub(super) const CHUNK_BYTES: usize = 1 << 20;

/// The content of a recording.
pub struct Content(Source);

enum Source {
    Bytes(Bytes),
    File(PathBuf),
    Once(Mutex<Chunks>),
}

/// Content on its way: chunks of at most [`CHUNK_BYTES`].
pub(super) type Chunks = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

impl Content {
    /// Bytes in memory. Can be sent again.
    pub fn bytes(bytes: impl Into<Bytes>) -> Self {
        Self(Source::Bytes(bytes.into()))
    }

    /// A file. Can be sent again.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self(Source::File(path.into()))
    }

    /// Anything that can be read once, in chunks as large as may be.
    ///
    /// For sound that is still being recorded, [`Upload`](super::Upload) sends what there is.
    pub fn reader(reader: impl AsyncRead + Send + Unpin + 'static) -> Self {
        Self(Source::Once(Mutex::new(read(reader).boxed())))
    }

    /// Anything that yields bytes once.
    pub fn stream(stream: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Self {
        Self(Source::Once(Mutex::new(stream.boxed())))
    }

    /// Whether it can be sent again from its beginning.
    pub fn is_replayable(&self) -> bool {
        !matches!(self.0, Source::Once(_))
    }

    /// From its beginning; nothing the second time if it cannot be sent again.
    pub(super) async fn open(&self) -> io::Result<Chunks> {
        match &self.0 {
            Source::Bytes(bytes) => Ok(slices(bytes.clone()).map(Ok).boxed()),
            Source::File(path) => Ok(read(File::open(path).await?).boxed()),
            Source::Once(chunks) => {
                let mut chunks = chunks.lock().unwrap_or_else(PoisonError::into_inner);
                Ok(std::mem::replace(&mut *chunks, stream::empty().boxed()))
            }
        }
    }
}

/// The bytes in slices of at most [`CHUNK_BYTES`].
fn slices(bytes: Bytes) -> impl Stream<Item = Bytes> + Send {
    stream::unfold(bytes, |mut rest| async move {
        let chunk = rest.split_to(rest.len().min(CHUNK_BYTES));
        (!chunk.is_empty()).then_some((chunk, rest))
    })
}

fn read(reader: impl AsyncRead + Send + Unpin) -> impl Stream<Item = io::Result<Bytes>> + Send {
    stream::try_unfold(reader, |mut reader| async move {
        let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
        while chunk.len() < CHUNK_BYTES {
            let room = CHUNK_BYTES - chunk.len();
            if (&mut reader).take(room as u64).read_buf(&mut chunk).await? == 0 {
                break;
            }
        }
        Ok((!chunk.is_empty()).then(|| (chunk.freeze(), reader)))
    })
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::Bytes(bytes) => write!(f, "Content({} bytes)", bytes.len()),
            Source::File(_) => f.write_str("Content(file)"),
            Source::Once(_) => f.write_str("Content(stream)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn sizes(content: Content) -> Vec<usize> {
        let chunks = content.open().await.unwrap();
        chunks.map(|chunk| chunk.unwrap().len()).collect().await
    }

    #[tokio::test]
    async fn content_comes_in_chunks_of_one_size_wherever_it_comes_from() {
        let bytes = vec![7; 2 * CHUNK_BYTES + 5];
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("call");
        std::fs::write(&path, &bytes).unwrap();
        let expected = [CHUNK_BYTES, CHUNK_BYTES, 5];
        assert_eq!(sizes(Content::bytes(bytes.clone())).await, expected);
        assert_eq!(sizes(Content::file(path)).await, expected);
        assert_eq!(sizes(Content::reader(io::Cursor::new(bytes))).await, expected);
        assert!(sizes(Content::bytes(Bytes::new())).await.is_empty());
    }

    #[tokio::test]
    async fn only_what_is_kept_elsewhere_can_be_sent_again() {
        assert!(Content::bytes("a").is_replayable() && Content::file("a").is_replayable());
        assert!(!Content::reader(tokio::io::empty()).is_replayable());
    }
}
