//! What a client wants stored.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use bytes::Bytes;
use callvault::{
    client::{Client, ClientError, Content},
    proto::v1::{
        BeginUploadRequest, Channel, CommitUploadRequest, Descriptor, PutMessageRequest, PutRecordingSpec,
        Record, UpdateRecordRequest, WriteUploadHeader, WriteUploadRequest,
        record_service_client::RecordServiceClient, write_upload_request,
    },
};

use super::Kept;

/// Content of one call of a resumable upload.
const PIECE: usize = 300_000;

/// One thing that a client wants done, the same however often it is tried.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    /// Request id, and the conversation that it alone is in.
    pub(super) name: String,
    pub(super) what: What,
    /// What the server said was durable of an upload.
    pub(super) promised: Arc<AtomicI64>,
}

#[derive(Clone, Debug)]
pub(super) enum What {
    Recording(Noise),
    Message(Noise),
    /// Of one call.
    Batch(Vec<Noise>),
    /// Written in pieces, by a client that finds its place again.
    Resumable(Noise),
    /// A recording, then a label on it.
    Corrected(Noise),
}

/// Content that can be made again: a thousand kills acknowledge more of it than there is memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Noise {
    pub(super) size: usize,
    pub(super) seed: u64,
}

impl Wish {
    pub(super) async fn perform(
        &self,
        client: &Client,
        corrector: &Client,
    ) -> Result<Vec<(String, Kept)>, ClientError> {
        let kept = |record: Record, content: &Noise, label: Option<String>| {
            let conversation = self.name.clone();
            (
                record.record_id,
                Kept {
                    conversation,
                    content: *content,
                    label,
                },
            )
        };
        match &self.what {
            What::Recording(content) => {
                let record = client
                    .put_recording(self.spec(), Content::bytes(content.bytes()), None)
                    .await?;
                Ok(vec![kept(record, content, None)])
            }
            What::Message(body) => {
                let record = client.put_message(self.message(0, body)).await?;
                Ok(vec![kept(record, body, None)])
            }
            What::Batch(bodies) => {
                let requests = bodies
                    .iter()
                    .enumerate()
                    .map(|(at, body)| self.message(at, body))
                    .collect();
                let answers = client.put_messages("dev", requests).await?;
                let answers = answers.into_iter().zip(bodies);
                answers
                    .map(|(answer, body)| match answer {
                        Ok(record) => Ok(kept(record, body, None)),
                        Err(refusal) => Err(ClientError::Refused(Box::new(refusal))),
                    })
                    .collect()
            }
            What::Resumable(content) => {
                let record = self.resume(client, &content.bytes()).await?;
                Ok(vec![kept(record, content, None)])
            }
            What::Corrected(content) => {
                let record = client
                    .put_recording(self.spec(), Content::bytes(content.bytes()), None)
                    .await?;
                let corrected = corrector
                    .update_record(self.correction(&record.record_id))
                    .await?;
                Ok(vec![kept(corrected, content, Some(self.name.clone()))])
            }
        }
    }

    /// Goes on where the server is, in calls of a piece each, and holds it to what it said was durable.
    async fn resume(&self, client: &Client, content: &Bytes) -> Result<Record, ClientError> {
        let mut calls = RecordServiceClient::new(client.channel());
        let begin = BeginUploadRequest {
            tenant_id: "dev".to_owned(),
            descriptor: Some(self.descriptor(Channel::Voice)),
            request_id: self.name.clone(),
            ..BeginUploadRequest::default()
        };
        let mut upload = calls.begin_upload(begin).await?.into_inner().upload.unwrap();
        let promised = self.promised.load(Ordering::Acquire);
        if upload.record.is_none() {
            assert!(
                upload.durable_offset >= promised,
                "{}: {} of {promised}",
                self.name,
                upload.durable_offset
            );
        }
        let size = i64::try_from(content.len()).unwrap();
        while upload.record.is_none() && upload.received_offset < size {
            let from = usize::try_from(upload.received_offset).unwrap();
            let header = write_upload_request::Payload::Header(WriteUploadHeader {
                tenant_id: "dev".to_owned(),
                upload_id: upload.upload_id.clone(),
                offset: upload.received_offset,
            });
            let piece = content.slice(from..content.len().min(from + PIECE));
            let messages =
                [header, write_upload_request::Payload::Chunk(piece)].map(|payload| WriteUploadRequest {
                    payload: Some(payload),
                });
            let written = calls.write_upload(futures_util::stream::iter(messages)).await?;
            upload = written.into_inner().upload.unwrap();
            self.promised.store(upload.durable_offset, Ordering::Release);
        }
        let commit = CommitUploadRequest {
            tenant_id: "dev".to_owned(),
            upload_id: upload.upload_id,
            size_bytes: size,
            expected_crc32c: Some(crc32c::crc32c(content)),
            ..CommitUploadRequest::default()
        };
        Ok(calls.commit_upload(commit).await?.into_inner().record.unwrap())
    }

    fn spec(&self) -> PutRecordingSpec {
        PutRecordingSpec {
            tenant_id: "dev".to_owned(),
            descriptor: Some(self.descriptor(Channel::Voice)),
            request_id: self.name.clone(),
            ..PutRecordingSpec::default()
        }
    }

    fn message(&self, at: usize, body: &Noise) -> PutMessageRequest {
        PutMessageRequest {
            tenant_id: "dev".to_owned(),
            descriptor: Some(self.descriptor(Channel::Chat)),
            request_id: format!("{}-{at}", self.name),
            body: body.bytes(),
        }
    }

    fn correction(&self, record: &str) -> UpdateRecordRequest {
        UpdateRecordRequest {
            tenant_id: "dev".to_owned(),
            record_id: record.to_owned(),
            descriptor: Some(Descriptor {
                labels: [("crash".to_owned(), self.name.clone())].into(),
                ..Descriptor::default()
            }),
            update_mask: Some(prost_types::FieldMask {
                paths: vec!["labels".to_owned()],
            }),
            request_id: format!("{}-label", self.name),
            ..UpdateRecordRequest::default()
        }
    }

    fn descriptor(&self, channel: Channel) -> Descriptor {
        Descriptor {
            conversation_id: self.name.clone(),
            channel: channel.into(),
            // Same for every try: the request's fingerprint covers it.
            start_time: Some(prost_types::Timestamp {
                seconds: 1_795_478_400,
                nanos: 0,
            }),
            ..Descriptor::default()
        }
    }
}

impl Noise {
    pub(super) fn bytes(self) -> Bytes {
        let mut state = self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let words = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        });
        let mut bytes: Vec<u8> = words.take(self.size.div_ceil(8)).flatten().collect();
        bytes.truncate(self.size);
        bytes.into()
    }
}
