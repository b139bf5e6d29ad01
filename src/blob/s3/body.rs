//! A body in memory, given to the HTTP client piece by piece.
//!
//! The client copies what it is given at once into a buffer of its own, and keeps that buffer as long as the connection: a part
//! given whole would be in memory twice while it is sent, and its room once more for every idle connection.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use bytes::Bytes;
use http_body::{Frame, SizeHint};

/// Bytes that are copied at once: small enough for a processor's cache.
const PIECE: usize = 64 << 10;

/// The body of a request that may be sent more than once.
pub(super) fn in_pieces(bytes: &Bytes) -> ByteStream {
    if bytes.len() <= PIECE {
        return ByteStream::from(bytes.clone());
    }
    let bytes = bytes.clone();
    ByteStream::new(SdkBody::retryable(move || {
        SdkBody::from_body_1_x(Pieces(bytes.clone()))
    }))
}

struct Pieces(Bytes);

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let take = PIECE.min(self.0.len());
        let piece = (take > 0).then(|| Ok(Frame::data(self.0.split_to(take))));
        Poll::Ready(piece)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use http_body::Body as _;

    use super::*;

    #[tokio::test]
    async fn pieces_are_the_body_and_say_how_long_it_is() {
        for length in [0, 1, PIECE, PIECE + 1, 3 * PIECE + 7] {
            let bytes: Bytes = (0..length).map(|n| (n % 251) as u8).collect::<Vec<_>>().into();
            let body = in_pieces(&bytes);
            assert_eq!(body.size_hint().1, Some(length as u64));
            assert_eq!(body.collect().await.unwrap().into_bytes(), bytes, "{length}");
        }
    }

    #[test]
    fn no_piece_is_long() {
        let mut pieces = Pieces(Bytes::from(vec![7; 3 * PIECE + 7]));
        let mut context = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut pieces).poll_frame(&mut context) {
            assert!(frame.data_ref().unwrap().len() <= PIECE);
        }
        assert!(pieces.is_end_stream());
    }
}
