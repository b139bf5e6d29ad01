//! What was written and is not durable at the server yet: the only content that a client keeps.
//!
//! ```text
//! 0 ... durable ... kept, sent ... next ... kept, not sent ... end
//! ```
//!
//! Content is copied into pieces of its own, so that a small slice does not hold on to the large buffer that it came from.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

/// Longest piece, and so the longest message.
pub(super) const PIECE_BYTES: usize = 64 << 10;

/// The content of one upload as the client sees it.
#[derive(Debug)]
pub(super) struct Window {
    most: usize,
    /// All before it survives whatever happens to the server.
    durable: u64,
    /// The first byte that goes out next; beyond `end` while the server has more than was written yet.
    next: u64,
    /// All that was written.
    end: u64,
    crc: u32,
    /// Without a gap, up to the last.
    pieces: VecDeque<Piece>,
    last: BytesMut,
}

#[derive(Debug)]
struct Piece {
    at: u64,
    bytes: Bytes,
}

impl Piece {
    fn end(&self) -> u64 {
        self.at + self.bytes.len() as u64
    }
}

impl Window {
    /// Keeps at most so many bytes.
    pub(super) fn new(most: usize) -> Self {
        Self {
            most: most.max(PIECE_BYTES),
            durable: 0,
            next: 0,
            end: 0,
            crc: 0,
            pieces: VecDeque::new(),
            last: BytesMut::new(),
        }
    }

    /// Keeps at most so many bytes from now on, and at least one piece.
    pub(super) fn keep_at_most(&mut self, bytes: usize) {
        self.most = bytes.max(PIECE_BYTES);
    }

    /// Takes from the front of `content` what there is room for. What is durable already needs none.
    pub(super) fn take(&mut self, content: &mut Bytes) {
        let known = fitting(self.durable.saturating_sub(self.end), content.len());
        self.pass(content, known);
        content.advance(known);
        while !content.is_empty() {
            let room = self.most.saturating_sub(self.kept());
            let len = content.len().min(room).min(PIECE_BYTES - self.last.len());
            if len == 0 {
                return;
            }
            self.pass(content, len);
            self.last.extend_from_slice(&content.split_to(len));
            if self.last.len() == PIECE_BYTES {
                self.close_last();
            }
        }
    }

    /// The next message's content.
    pub(super) fn send(&mut self) -> Option<Bytes> {
        if self.unsent() == 0 {
            return None;
        }
        if self.next >= self.last_at() {
            self.close_last();
        }
        let which = self.pieces.partition_point(|piece| piece.end() <= self.next);
        let piece = self.pieces.get(which)?;
        let from = usize::try_from(self.next.checked_sub(piece.at)?).ok()?;
        let bytes = piece.bytes.slice(from..);
        self.next = piece.end();
        Some(bytes)
    }

    /// The server says where it is: what is durable is let go of, and what it has not is sent next.
    ///
    /// `false` if it has lost what it had promised, and what is not here any more.
    #[must_use]
    pub(super) fn go_on_from(&mut self, durable: u64, received: u64) -> bool {
        self.forget(durable);
        self.next = received;
        received >= self.durable
    }

    /// Lets go of what is durable.
    pub(super) fn forget(&mut self, durable: u64) {
        self.durable = self.durable.max(durable);
        while self
            .pieces
            .front()
            .is_some_and(|piece| piece.end() <= self.durable)
        {
            self.pieces.pop_front();
        }
        if self.end <= self.durable {
            self.last = BytesMut::new();
        }
    }

    /// Bytes that are kept.
    pub(super) fn kept(&self) -> usize {
        let pieces: u64 = match (self.pieces.front(), self.pieces.back()) {
            (Some(front), Some(back)) => back.end() - front.at,
            _ => 0,
        };
        fitting(pieces, usize::MAX) + self.last.len()
    }

    /// Bytes that wait to be sent.
    pub(super) fn unsent(&self) -> u64 {
        self.end.saturating_sub(self.next)
    }

    pub(super) fn is_full(&self) -> bool {
        self.kept() >= self.most
    }

    pub(super) fn is_durable(&self) -> bool {
        self.durable >= self.end
    }

    pub(super) fn durable(&self) -> u64 {
        self.durable
    }

    pub(super) fn next(&self) -> u64 {
        self.next
    }

    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// CRC-32C of all that was written.
    pub(super) fn crc(&self) -> u32 {
        self.crc
    }

    fn pass(&mut self, content: &Bytes, len: usize) {
        self.crc = crc32c::crc32c_append(self.crc, &content[..len]);
        self.end += len as u64;
    }

    fn last_at(&self) -> u64 {
        self.end - self.last.len() as u64
    }

    fn close_last(&mut self) {
        if !self.last.is_empty() {
            let at = self.last_at();
            let bytes = std::mem::take(&mut self.last).freeze();
            self.pieces.push_back(Piece { at, bytes });
        }
    }
}

fn fitting(bytes: u64, most: usize) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX).min(most)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(len: usize) -> Bytes {
        (0..len).map(|i| (i / 7) as u8).collect::<Vec<_>>().into()
    }

    #[test]
    fn what_is_written_is_sent_once_and_kept_until_it_is_durable() {
        let all = bytes(200_000);
        let mut window = Window::new(1 << 20);
        window.take(&mut all.clone());
        assert_eq!(
            (window.end(), window.kept(), window.unsent()),
            (200_000, 200_000, 200_000)
        );
        assert_eq!(window.crc(), crc32c::crc32c(&all));
        let sent: Vec<u8> = std::iter::from_fn(|| window.send()).flatten().collect();
        assert!(sent == all && window.unsent() == 0);
        window.forget(PIECE_BYTES as u64 + 1);
        assert_eq!(window.kept(), 200_000 - PIECE_BYTES, "whole pieces");
        assert!(!window.is_durable());
        window.forget(200_000);
        assert!(window.kept() == 0 && window.is_durable());
    }

    #[test]
    fn a_server_that_goes_back_gets_the_rest_again() {
        let all = bytes(100_000);
        let mut window = Window::new(1 << 20);
        window.take(&mut all.clone());
        while window.send().is_some() {}
        assert!(window.go_on_from(10_000, 70_001));
        let again: Vec<u8> = std::iter::from_fn(|| window.send()).flatten().collect();
        assert!(again == all[70_001..]);
        assert!(!window.go_on_from(0, 9_999), "it had promised 10,000");
    }

    #[test]
    fn what_a_server_has_of_an_earlier_process_is_counted_and_neither_kept_nor_sent() {
        let all = bytes(300_000);
        let mut window = Window::new(PIECE_BYTES);
        assert!(window.go_on_from(200_000, 250_000));
        window.take(&mut all.slice(..150_000));
        assert_eq!((window.kept(), window.unsent()), (0, 0));
        let mut rest = all.slice(150_000..);
        let mut sent = Vec::new();
        while !rest.is_empty() {
            window.take(&mut rest);
            while let Some(bytes) = window.send() {
                sent.extend_from_slice(&bytes);
            }
            window.forget(window.end());
        }
        assert!(sent == all[250_000..]);
        assert_eq!(window.crc(), crc32c::crc32c(&all));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn never_more_is_kept_than_was_agreed(
            most in 1_usize..400_000,
            steps in prop::collection::vec((1_usize..200_000, 0_u8..4, 0_u64..300_000), 1..20),
        ) {
            let mut window = Window::new(most);
            let bound = most.max(PIECE_BYTES);
            for (len, sends, durable) in steps {
                let mut content = bytes(len);
                window.take(&mut content);
                let held: usize = window.pieces.iter().map(|piece| piece.bytes.len()).sum();
                prop_assert_eq!(window.kept(), held + window.last.len());
                prop_assert!(window.kept() <= bound);
                prop_assert!(content.is_empty() || window.is_full());
                for _ in 0..sends {
                    window.send();
                }
                let durable = window.durable() + durable.min(window.next().min(window.end()).saturating_sub(window.durable()));
                let next = window.next();
                prop_assert!(window.go_on_from(durable, next.max(durable)));
            }
        }
    }
}
