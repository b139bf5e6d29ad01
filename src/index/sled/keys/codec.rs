//! Columns as bytes whose order is the order of the columns.
//!
//! | column | bytes |
//! |---|---|
//! | table | its prefix ([`Table`]) |
//! | number | big-endian |
//! | timestamp | big-endian with the sign bit flipped, so that what was before 1970 sorts first |
//! | fixed bytes | as they are |
//! | text | UTF-8, then 00; inside, 00 is written 01 01 and 01 is written 01 02 |
//!
//! No encoded column is the prefix of another, so neither is any key, and `"a"` sorts before `"a-b"` and `"ab"`.

use super::Table;
use crate::{
    domain::{
        clock::Timestamp,
        ids::{ErasureId, OperationId, PageId, RecordId},
    },
    index::IndexError,
};

const END: u8 = 0x00;
const ESCAPE: u8 = 0x01;
const SIGN: u64 = 1 << 63;

/// A key being written, column by column.
#[derive(Debug)]
pub(super) struct Columns(Vec<u8>);

impl Columns {
    pub(super) fn of(table: Table) -> Self {
        let mut key = Vec::with_capacity(64);
        key.push(table as u8);
        Self(key)
    }

    pub(super) fn u8(mut self, number: u8) -> Self {
        self.0.push(number);
        self
    }

    pub(super) fn u32(self, number: u32) -> Self {
        self.bytes(&number.to_be_bytes())
    }

    pub(super) fn u64(self, number: u64) -> Self {
        self.bytes(&number.to_be_bytes())
    }

    pub(super) fn time(self, time: Timestamp) -> Self {
        self.u64(time.0.cast_unsigned() ^ SIGN)
    }

    pub(super) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(super) fn text(mut self, text: &str) -> Self {
        for byte in text.bytes() {
            match byte {
                END | ESCAPE => self.0.extend([ESCAPE, byte + 1]),
                _ => self.0.push(byte),
            }
        }
        self.0.push(END);
        self
    }

    pub(super) fn done(self) -> Vec<u8> {
        self.0
    }
}

/// A key being read, column by column.
#[derive(Debug)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(key: &'a [u8]) -> Self {
        Self(key)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], IndexError> {
        let (column, rest) = self.0.split_first_chunk().ok_or_else(undecodable)?;
        self.0 = rest;
        Ok(*column)
    }

    pub(super) fn u8(&mut self) -> Result<u8, IndexError> {
        self.array().map(|[number]| number)
    }

    pub(super) fn u32(&mut self) -> Result<u32, IndexError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, IndexError> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn time(&mut self) -> Result<Timestamp, IndexError> {
        self.u64()
            .map(|flipped| Timestamp((flipped ^ SIGN).cast_signed()))
    }

    pub(super) fn text(&mut self) -> Result<String, IndexError> {
        let mut text = Vec::new();
        loop {
            match self.u8()? {
                END => break,
                ESCAPE => text.push(unescaped(self.u8()?)?),
                byte => text.push(byte),
            }
        }
        String::from_utf8(text).map_err(|_| undecodable())
    }

    /// A text that is an identifier.
    pub(super) fn id<T: std::str::FromStr>(&mut self) -> Result<T, IndexError> {
        self.text()?.parse().map_err(|_| undecodable())
    }

    pub(super) fn record(&mut self) -> Result<RecordId, IndexError> {
        RecordId::from_slice(&self.array::<16>()?).map_err(|_| undecodable())
    }

    pub(super) fn page(&mut self) -> Result<PageId, IndexError> {
        PageId::from_slice(&self.array::<16>()?).map_err(|_| undecodable())
    }

    pub(super) fn operation(&mut self) -> Result<OperationId, IndexError> {
        OperationId::from_slice(&self.array::<16>()?).map_err(|_| undecodable())
    }

    pub(super) fn erasure(&mut self) -> Result<ErasureId, IndexError> {
        ErasureId::from_slice(&self.array::<16>()?).map_err(|_| undecodable())
    }

    pub(super) fn end(&self) -> Result<(), IndexError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(undecodable())
        }
    }
}

pub(super) fn undecodable() -> IndexError {
    IndexError::Corrupt("a key cannot be read")
}

fn unescaped(byte: u8) -> Result<u8, IndexError> {
    match byte {
        1 | 2 => Ok(byte - 1),
        _ => Err(undecodable()),
    }
}
