//! What arrived, in numbers, and whether it is what was said.

use ring::digest;

use crate::domain::media;

use super::{Error, Kind, PutSpec, empty};

/// What arrived, in numbers.
pub(super) struct Received {
    pub(super) bytes: u64,
    /// CRC-32C of the content, for the fingerprint of a request that has an id.
    pub(super) crc: Option<u32>,
    sha256: Option<digest::Context>,
    pub(super) start: Vec<u8>,
}

impl Received {
    pub(super) fn new(spec: &PutSpec) -> Self {
        Self {
            bytes: 0,
            crc: spec.request.as_ref().map(|_| 0),
            sha256: spec
                .expected_sha256
                .map(|_| digest::Context::new(&digest::SHA256)),
            start: Vec::new(),
        }
    }

    pub(super) fn take(&mut self, chunk: &[u8]) {
        self.bytes += chunk.len() as u64;
        self.crc = self.crc.map(|crc| crc32c::crc32c_append(crc, chunk));
        if let Some(sha256) = &mut self.sha256 {
            sha256.update(chunk);
        }
        if self.start.len() < media::SNIFF_LEN {
            let missing = (media::SNIFF_LEN - self.start.len()).min(chunk.len());
            self.start.extend_from_slice(&chunk[..missing]);
        }
    }

    pub(super) fn check(&mut self, spec: &PutSpec) -> Result<(), Error> {
        if self.bytes == 0 {
            return Err(empty());
        }
        if spec.expected_size.is_some_and(|size| size != self.bytes) {
            return Err(Error {
                field: Some("spec.expected_size_bytes".into()),
                ..Error::new(
                    Kind::Invalid,
                    "SIZE_MISMATCH",
                    "the content has another length; nothing was kept",
                )
            });
        }
        if let (Some(expected), Some(sha256)) = (spec.expected_sha256, self.sha256.take())
            && sha256.finish().as_ref() != expected
        {
            return Err(Error {
                field: Some("spec.expected_sha256".into()),
                ..Error::new(
                    Kind::Invalid,
                    "SHA256_MISMATCH",
                    "the content has another SHA-256; nothing was kept",
                )
            });
        }
        Ok(())
    }
}
