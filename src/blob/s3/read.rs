//! Bytes of an object: asked for, counted, and asked for again when they break off.

use std::time::Duration;

use aws_sdk_s3::{operation::get_object::GetObjectOutput, primitives::ByteStream};
use bytes::{Bytes, BytesMut};

use super::{S3Store, refusal::Refusal};
use crate::blob::store::{ByteRange, ObjectBytes, ObjectKey, StoreError};

const GET: &str = "GetObject";
/// Room that is made before the first byte came, at most: the rest grows as bytes do, whatever length a store claims.
const FIRST_ROOM: u64 = 64 << 20;

/// Why a body was not read.
enum Failed {
    /// It broke off: asked again, it may come whole.
    Cut(Refusal),
    For(StoreError),
}

impl S3Store {
    /// Reads a range, however often its body breaks off, within the patience for one call.
    pub(super) async fn read(&self, key: &ObjectKey, range: ByteRange) -> Result<ObjectBytes, StoreError> {
        let patience = self.settings.patience;
        let reading = async {
            let mut pause = patience.backoff;
            for _ in 1..patience.attempts {
                match self.read_once(key, range).await {
                    Err(Failed::Cut(_)) => tokio::time::sleep(pause).await,
                    read => return read,
                }
                pause *= 2;
            }
            self.read_once(key, range).await
        };
        match tokio::time::timeout(patience.operation, reading).await {
            Ok(Ok(read)) => Ok(read),
            Ok(Err(Failed::For(error))) => Err(error),
            Ok(Err(Failed::Cut(refusal))) => Err(refusal.into()),
            Err(_) => Err(Refusal::unanswered(GET, "the body took too long").into()),
        }
    }

    async fn read_once(&self, key: &ObjectKey, range: ByteRange) -> Result<ObjectBytes, Failed> {
        let Some(header) = header(range) else {
            return self.outside(key, range).await.map_err(Failed::For);
        };
        let answer = self
            .session
            .send(GET, |client| {
                client
                    .get_object()
                    .bucket(&self.settings.bucket)
                    .key(key.as_str())
                    .set_range(header.clone())
                    .send()
            })
            .await;
        match answer {
            Ok(answer) => self.body(range, answer).await,
            Err(refusal) if refusal.is_outside() => self.outside(key, range).await.map_err(Failed::For),
            Err(refusal) => Err(Failed::For(refusal.into())),
        }
    }

    /// A range without a byte in it: how long the object is decides what that means.
    async fn outside(&self, key: &ObjectKey, range: ByteRange) -> Result<ObjectBytes, StoreError> {
        let object_length = self.look(key).await?.length;
        match range.within(object_length)? {
            (_, 0) => Ok(ObjectBytes {
                bytes: Bytes::new(),
                object_length,
            }),
            _ => Err(Refusal::unanswered(GET, "the object changed while it was read").into()),
        }
    }

    async fn body(&self, range: ByteRange, answer: GetObjectOutput) -> Result<ObjectBytes, Failed> {
        let wrong = |what| Failed::For(StoreError::Protocol(what));
        let said = answer.content_length.and_then(|n| u64::try_from(n).ok());
        let (start, object_length) = match answer.content_range.as_deref() {
            Some(text) => content_range(text).ok_or_else(|| wrong("malformed content range"))?,
            // The whole object, also where a part was asked for and the store does not know parts.
            None => (0, said.ok_or_else(|| wrong("body without a length"))?),
        };
        let (offset, length) = range.within(object_length).map_err(Failed::For)?;
        if start != offset || said.is_some_and(|said| said != length) {
            return Err(wrong("other bytes than asked for"));
        }
        let bytes = collect(answer.body, length, self.settings.patience.read).await?;
        Ok(ObjectBytes { bytes, object_length })
    }
}

/// The range as a header; `None` if no header can say it.
fn header(range: ByteRange) -> Option<Option<String>> {
    match range {
        ByteRange::Full => Some(None),
        ByteRange::Exact { length: 0, .. } | ByteRange::Suffix { length: 0 } => None,
        ByteRange::Suffix { length } => Some(Some(format!("bytes=-{length}"))),
        ByteRange::Exact { offset, length } => {
            let last = offset.checked_add(length - 1)?;
            Some(Some(format!("bytes={offset}-{last}")))
        }
    }
}

/// First byte and object length of `bytes first-last/length`.
fn content_range(text: &str) -> Option<(u64, u64)> {
    let (range, length) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, _) = range.split_once('-')?;
    Some((first.trim().parse().ok()?, length.trim().parse().ok()?))
}

/// Exactly `length` bytes, in one piece of memory.
async fn collect(mut body: ByteStream, length: u64, idle: Duration) -> Result<Bytes, Failed> {
    let cut = |why: String| Failed::Cut(Refusal::unanswered(GET, why));
    let length =
        usize::try_from(length).map_err(|_| Failed::For(StoreError::Protocol("object too large")))?;
    let room = usize::try_from(FIRST_ROOM).unwrap_or(usize::MAX).min(length);
    let mut whole = BytesMut::with_capacity(room);
    loop {
        match tokio::time::timeout(idle, body.next()).await {
            Err(_) => return Err(cut("the body stalled".to_owned())),
            Ok(Some(Err(error))) => return Err(cut(error.to_string())),
            Ok(Some(Ok(piece))) if piece.len() > length - whole.len() => {
                return Err(Failed::For(StoreError::Protocol("body longer than said")));
            }
            Ok(Some(Ok(piece))) => whole.extend_from_slice(&piece),
            Ok(None) if whole.len() < length => return Err(cut("the body broke off".to_owned())),
            Ok(None) => return Ok(whole.freeze()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_are_read_or_refused() {
        assert_eq!(content_range("bytes 5-9/100"), Some((5, 100)));
        for bad in [
            "",
            "bytes",
            "bytes */100",
            "bytes 5-9",
            "bytes 5-9/*",
            "octets 5-9/100",
            "bytes -5-9/1",
        ] {
            assert_eq!(content_range(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_no_header_can_say_is_not_asked() {
        let exact = |offset, length| header(ByteRange::Exact { offset, length });
        assert_eq!(exact(5, 5), Some(Some("bytes=5-9".to_owned())));
        assert_eq!(exact(5, 0), None);
        assert_eq!(exact(u64::MAX, 2), None);
        assert_eq!(header(ByteRange::Suffix { length: 0 }), None);
        assert_eq!(header(ByteRange::Full), Some(None));
    }
}
