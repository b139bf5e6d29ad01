//! The streams and what they do.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{Bench, Work, place::Place, tally::Tally};
use crate::{
    cli::{CliError, remote::fields},
    client::{Client, ClientError, Refusal},
    proto::v1::{Channel, Descriptor, PutMessageRequest, PutRecordingSpec},
};

/// Bytes of bodies in one batch, so that it is one call: a request is at most 4 MiB.
pub(super) const BATCH_BYTES: u64 = 7 << 19;
/// Bytes of one message: one slice of the buffer.
pub(super) const MESSAGE_BYTES: u64 = 1 << 20;
/// Content is sent in slices of one buffer: a bench measures the vault, not the making of noise.
const CHUNK_BYTES: usize = 1 << 20;
/// Recordings that the streams of a reading bench share.
const RECORDINGS: u32 = 32;

/// One thing done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Deed {
    Upload,
    Read,
    Message,
}

impl Deed {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Upload => "uploads",
            Self::Read => "reads",
            Self::Message => "messages",
        }
    }

    /// The deed of a stream's turn.
    fn of(work: Work, turn: usize) -> Self {
        match (work, turn % 20) {
            (Work::Uploads, _) | (Work::Mixed, 0) => Self::Upload,
            (Work::Reads, _) | (Work::Mixed, 5 | 10 | 15 | 18) => Self::Read,
            (Work::Messages | Work::Mixed, _) => Self::Message,
        }
    }
}

/// What came of one call.
struct Outcome {
    done: u64,
    bytes: u64,
    refused: Vec<Refusal>,
}

impl Outcome {
    fn done(done: u64, bytes: u64) -> Self {
        Self {
            done,
            bytes,
            refused: Vec::new(),
        }
    }
}

/// Tallies by deed.
pub(super) type Tallies = BTreeMap<Deed, Tally>;

/// What every stream needs.
struct Load {
    work: Work,
    size: u64,
    message: Bytes,
    batch: u32,
    chunk: Bytes,
    /// By tenant, for those who read.
    recordings: BTreeMap<String, Vec<String>>,
    retention_class: &'static str,
    begin: Instant,
    end: Instant,
}

/// Runs every stream to its end.
pub(super) async fn run(bench: &Bench, place: &Place) -> Result<Tallies, CliError> {
    let chunk: Vec<u8> = (0..CHUNK_BYTES).map(|n| (n * 31 % 251) as u8).collect(); // below 251
    let chunk = Bytes::from(chunk);
    let message_bytes = usize::try_from(bench.message_size).unwrap_or(CHUNK_BYTES);
    let mut load = Load {
        work: bench.work,
        size: bench.size,
        message: chunk.slice(..message_bytes.min(CHUNK_BYTES)),
        batch: bench.batch,
        chunk,
        recordings: BTreeMap::new(),
        retention_class: place.retention_class,
        begin: Instant::now(),
        end: Instant::now(),
    };
    if matches!(bench.work, Work::Reads | Work::Mixed) {
        load.fill(bench, place).await?;
    }
    load.begin = Instant::now() + Duration::from_secs(bench.warm_up);
    load.end = load.begin + bench.measured();
    let load = Arc::new(load);
    let streams: Vec<_> = (0..bench.streams as usize)
        .map(|number| {
            let stream = Stream {
                load: Arc::clone(&load),
                tenant: place.tenant(number).to_owned(),
                uploader: place.uploader(number).clone(),
                reader: place.reader(number).clone(),
            };
            tokio::spawn(stream.run(number))
        })
        .collect();
    let mut all = Tallies::new();
    for stream in streams {
        let tallies = stream.await.map_err(|e| CliError::failed(e.to_string()))?;
        for (deed, tally) in &tallies {
            all.entry(*deed).or_insert_with(Tally::new).add(tally);
        }
    }
    Ok(all)
}

impl Load {
    /// Uploads what is to be read.
    async fn fill(&mut self, bench: &Bench, place: &Place) -> Result<(), CliError> {
        for number in 0..bench.tenants.max(RECORDINGS.min(bench.streams)) as usize {
            let tenant = place.tenant(number).to_owned();
            let record = self.upload(place.uploader(number), &tenant).await?;
            self.recordings.entry(tenant).or_default().push(record);
        }
        Ok(())
    }

    async fn upload(&self, client: &Client, tenant: &str) -> Result<String, ClientError> {
        let spec = PutRecordingSpec {
            tenant_id: tenant.to_owned(),
            descriptor: Some(self.descriptor(Channel::Voice)),
            ..PutRecordingSpec::default()
        };
        let mut upload = client.begin_upload(spec).await?;
        let mut left = self.size;
        while left > 0 {
            let take = usize::try_from(left).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES));
            upload.write(self.chunk.slice(..take)).await?;
            left -= take as u64;
        }
        Ok(upload.finish(None).await?.record_id)
    }

    async fn read(&self, client: &Client, tenant: &str, turn: usize) -> Result<u64, ClientError> {
        let recordings = self.recordings.get(tenant).map(Vec::as_slice).unwrap_or_default();
        let Some(record) = recordings.get(turn % recordings.len().max(1)) else {
            return Ok(0);
        };
        let mut download = client.read_recording(tenant, record, 0, 0).await?;
        let mut bytes = 0;
        while let Some(chunk) = download.next().await? {
            bytes += chunk.len() as u64;
        }
        Ok(bytes)
    }

    /// One message, or a batch; what was refused of a batch is told item by item.
    async fn put_messages(&self, client: &Client, tenant: &str) -> Result<Outcome, ClientError> {
        let message = PutMessageRequest {
            tenant_id: tenant.to_owned(),
            descriptor: Some(self.descriptor(Channel::Chat)),
            body: self.message.clone(),
            ..PutMessageRequest::default()
        };
        let bytes = self.message.len() as u64;
        if self.batch == 1 {
            client.put_message(message).await?;
            return Ok(Outcome::done(1, bytes));
        }
        let messages = vec![message; self.batch as usize];
        let answers = client.put_messages(tenant, messages).await?;
        let (done, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
        let done = done.len() as u64;
        Ok(Outcome {
            done,
            bytes: done * bytes,
            refused: refused.into_iter().filter_map(Result::err).collect(),
        })
    }

    fn descriptor(&self, channel: Channel) -> Descriptor {
        Descriptor {
            conversation_id: "callvault-bench".to_owned(),
            channel: channel.into(),
            start_time: Some(fields::now()),
            retention_class: self.retention_class.to_owned(),
            ..Descriptor::default()
        }
    }
}

struct Stream {
    load: Arc<Load>,
    tenant: String,
    uploader: Client,
    reader: Client,
}

impl Stream {
    async fn run(self, number: usize) -> Tallies {
        let mut tallies = Tallies::new();
        for turn in number.. {
            let (deed, start) = (Deed::of(self.load.work, turn), Instant::now());
            if start >= self.load.end {
                break;
            }
            let outcome = self.perform(deed, turn).await;
            // What began before the measuring or ended after it would count time that is not in the interval.
            let failed = outcome.is_err();
            if start >= self.load.begin && Instant::now() <= self.load.end {
                let tally = tallies.entry(deed).or_insert_with(Tally::new);
                match outcome {
                    Ok(outcome) => {
                        tally.succeeded(start.elapsed(), outcome.done, outcome.bytes);
                        outcome.refused.iter().for_each(|refusal| tally.refused(refusal));
                    }
                    Err(error) => tally.failed(&error),
                }
            }
            if failed {
                // A server that refuses at once is not to be asked in a tight loop.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        tallies
    }

    async fn perform(&self, deed: Deed, turn: usize) -> Result<Outcome, ClientError> {
        let load = &self.load;
        match deed {
            Deed::Upload => {
                load.upload(&self.uploader, &self.tenant).await?;
                Ok(Outcome::done(1, load.size))
            }
            Deed::Read => {
                let bytes = load.read(&self.reader, &self.tenant, turn).await?;
                Ok(Outcome::done(1, bytes))
            }
            Deed::Message => load.put_messages(&self.uploader, &self.tenant).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mixed_bench_does_all_of_it_in_proportion() {
        let count = |deed| {
            (0..20)
                .filter(|turn| Deed::of(Work::Mixed, *turn) == deed)
                .count()
        };
        assert_eq!(
            (count(Deed::Upload), count(Deed::Read), count(Deed::Message)),
            (1, 4, 15)
        );
    }
}
