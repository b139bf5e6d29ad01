//! Recordings in and out: streams side by side, and what a server used for them.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use callvault::{
    client::Client,
    proto::v1::{
        Channel, Descriptor, PutRecordingRequest, PutRecordingSpec, ReadRecordingRequest,
        put_recording_request, read_recording_response, record_service_client::RecordServiceClient,
    },
};
use futures_util::stream;
use tonic::Request;

use super::{Failure, GIB, process::Process};

/// Content bytes of one message of an upload.
pub(crate) const CHUNK: usize = 1 << 20;

/// What some work cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    pub(crate) gb_per_second: f64,
    /// Of the server alone.
    pub(crate) cpu_per_gib: f64,
}

pub(crate) async fn timed<T, F: Future<Output = Result<T, Failure>>>(
    server: &Process,
    bytes: u64,
    work: impl FnOnce() -> F,
) -> Result<(Cost, T), Failure> {
    let (start, cpu) = (Instant::now(), server.cpu_seconds()?);
    let done = work().await?;
    let seconds = start.elapsed().as_secs_f64();
    let cpu = server.cpu_seconds()? - cpu;
    let cost = Cost {
        gb_per_second: bytes as f64 / 1e9 / seconds,
        cpu_per_gib: cpu / (bytes as f64 / GIB as f64),
    };
    Ok((cost, done))
}

/// Uploads so many recordings of `bytes` each, and returns their ids.
pub(crate) async fn upload(
    client: &Arc<Client>,
    tenant: &str,
    bytes: u64,
    streams: u64,
) -> Result<Vec<String>, Failure> {
    let chunk = chunk(CHUNK);
    let uploads = (0..streams).map(|_| {
        let (client, chunk, tenant) = (Arc::clone(client), chunk.clone(), tenant.to_owned());
        tokio::spawn(async move { upload_one(&client, &tenant, chunk, bytes).await })
    });
    let mut records = Vec::new();
    for upload in uploads.collect::<Vec<_>>() {
        records.push(upload.await??);
    }
    Ok(records)
}

async fn upload_one(client: &Client, tenant: &str, chunk: Bytes, bytes: u64) -> Result<String, Failure> {
    let spec = PutRecordingSpec {
        tenant_id: tenant.to_owned(),
        descriptor: Some(descriptor(Channel::Voice)),
        ..PutRecordingSpec::default()
    };
    let message = |payload| PutRecordingRequest {
        payload: Some(payload),
    };
    let first = message(put_recording_request::Payload::Spec(spec));
    let chunks =
        (0..bytes / CHUNK as u64).map(move |_| message(put_recording_request::Payload::Chunk(chunk.clone())));
    let request = stream::iter(std::iter::once(first).chain(chunks));
    let answer = RecordServiceClient::new(client.channel())
        .put_recording(request)
        .await?;
    let record = answer.into_inner().record.unwrap_or_default();
    Ok(record.record_id)
}

/// Reads all of them.
pub(crate) async fn read(
    client: &Arc<Client>,
    tenant: &str,
    records: Vec<String>,
    bytes: u64,
) -> Result<(), Failure> {
    let reads = records.into_iter().map(|record| {
        let (client, tenant) = (Arc::clone(client), tenant.to_owned());
        tokio::spawn(async move { read_one(&client, tenant, record, bytes).await })
    });
    for read in reads.collect::<Vec<_>>() {
        read.await??;
    }
    Ok(())
}

async fn read_one(client: &Client, tenant_id: String, record_id: String, bytes: u64) -> Result<(), Failure> {
    // A bare server has no records: the length travels in the limit, which the vault takes as well.
    let limit = i64::try_from(bytes)?;
    let mut request = Request::new(ReadRecordingRequest {
        tenant_id,
        record_id,
        offset: 0,
        limit,
    });
    request
        .metadata_mut()
        .insert("callvault-purpose", "ServiceProvision".parse()?);
    let mut content = RecordServiceClient::new(client.channel())
        .read_recording(request)
        .await?
        .into_inner();
    let mut got = 0;
    while let Some(message) = content.message().await? {
        if let Some(read_recording_response::Payload::Chunk(chunk)) = message.payload {
            got += chunk.len() as u64;
        }
    }
    if got == bytes {
        Ok(())
    } else {
        Err(format!("read {got} bytes of {bytes}").into())
    }
}

/// What every record of a bench says.
pub(crate) fn descriptor(channel: Channel) -> Descriptor {
    Descriptor {
        conversation_id: "bench".to_owned(),
        channel: channel.into(),
        start_time: Some(prost_types::Timestamp {
            seconds: 1_795_478_400,
            nanos: 0,
        }),
        ..Descriptor::default()
    }
}

/// Content that is no constant.
pub(crate) fn chunk(bytes: usize) -> Bytes {
    (0..bytes)
        .map(|n| (n * 31 % 251) as u8)
        .collect::<Vec<u8>>()
        .into()
}
