//! Memory of the server with 1,000 uploads in flight, and with 2,000 calls that are spoken while they are stored.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use callvault::{
    client::{Client, ClientError},
    config::Limits,
    proto::v1::{
        BeginUploadRequest, Channel, PutRecordingSpec, WriteUploadHeader, WriteUploadRequest,
        record_service_client::RecordServiceClient, write_upload_request,
    },
};
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::time::{Instant, interval};

use crate::{
    World,
    common::{
        Failure, MIB,
        place::{self, tenant},
        process::Process,
        recordings::{chunk, descriptor},
    },
    seconds,
};

const TENANTS: usize = 20;
const UPLOADS: usize = 1_000;
const UPLOAD_BYTES: usize = 4 << 20;
const CALLS: usize = 2_000;
/// Twice a second: 8 KB/s.
const SPOKEN: usize = 4_000;
const CONNECTIONS: usize = 16;

pub(crate) async fn run() -> Result<(), Failure> {
    let budget = Limits::default().memory_budget_bytes;
    println!(
        "| | resident before MiB | with them MiB | highest MiB | budget + 256 MiB | |\n|---|---|---|---|---|---|"
    );
    uploads(budget).await?;
    calls(budget).await
}

/// Uploads as fast as they are taken, begun again as soon as they are done.
async fn uploads(budget: u64) -> Result<(), Failure> {
    let world = World::start(Duration::ZERO, TENANTS).await?;
    let (before, _) = world.vault.resident()?;
    let clients = connections(&world.home(), &world.vault, CONNECTIONS).await?;
    let done = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
    let content = chunk(1 << 20);
    let end = Instant::now() + Duration::from_secs(seconds(25));
    let uploads: Vec<_> = (0..UPLOADS)
        .map(|number| {
            let client = clients[number % clients.len()].clone();
            let (content, done) = (content.clone(), Arc::clone(&done));
            tokio::spawn(async move {
                while Instant::now() < end {
                    match upload(&client, &tenant(number % TENANTS + 1), &content).await {
                        Ok(()) => drop(done[0].fetch_add(1, Ordering::Relaxed)),
                        Err(_) => {
                            done[1].fetch_add(1, Ordering::Relaxed);
                            tokio::time::sleep(Duration::from_millis(500)).await;
                        }
                    }
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(seconds(25)) / 2).await;
    let (during, _) = world.vault.resident()?;
    for upload in uploads {
        upload.await?;
    }
    let [done, refused] = [&done[0], &done[1]].map(|count| count.load(Ordering::Relaxed));
    let note = format!(
        "{done} of {} MiB done, {refused} told to come back",
        UPLOAD_BYTES as u64 / MIB
    );
    say(
        &format!("{UPLOADS} uploads in flight"),
        &world.vault,
        (before, during),
        budget,
        &note,
    )
}

async fn upload(client: &Client, tenant: &str, content: &Bytes) -> Result<(), ClientError> {
    let spec = PutRecordingSpec {
        tenant_id: tenant.to_owned(),
        descriptor: Some(descriptor(Channel::Voice)),
        ..PutRecordingSpec::default()
    };
    let mut upload = client.begin_upload(spec).await?;
    for _ in 0..UPLOAD_BYTES / content.len() {
        upload.write(content.clone()).await?;
    }
    upload.finish(None).await.map(drop)
}

/// Resumable uploads at the pace of speech.
async fn calls(budget: u64) -> Result<(), Failure> {
    let world = World::start(Duration::ZERO, TENANTS).await?;
    let (before, _) = world.vault.resident()?;
    let clients = connections(&world.home(), &world.vault, CONNECTIONS).await?;
    let begun: Vec<(usize, String)> = stream::iter(0..CALLS)
        .map(|number| {
            let client = clients[number % clients.len()].clone();
            async move { Ok::<_, Failure>((number, begin(&client, number).await?)) }
        })
        .buffer_unordered(64)
        .try_collect()
        .await?;
    let (with_none_spoken, _) = world.vault.resident()?;
    let cpu = world.vault.cpu_seconds()?;
    let spoken_for = Duration::from_secs(seconds(60));
    let end = Instant::now() + spoken_for;
    let broken = Arc::new(AtomicU64::new(0));
    let calls: Vec<_> = begun
        .into_iter()
        .map(|(number, upload)| {
            let client = clients[number % clients.len()].clone();
            let broken = Arc::clone(&broken);
            tokio::spawn(async move {
                if speak(&client, number, upload, end).await.is_err() {
                    broken.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    tokio::time::sleep_until(end - Duration::from_secs(1)).await;
    let (during, _) = world.vault.resident()?;
    let cpu = (world.vault.cpu_seconds()? - cpu) / (spoken_for.as_secs_f64() - 1.0);
    for call in calls {
        call.await?;
    }
    let each = (during.saturating_sub(before) >> 10) as f64 / CALLS as f64;
    let note = format!(
        "{each:.0} KiB a call after {} s ({} KB of content each; {:.0} KiB a call before the first word); {cpu:.2} cores; {} broke off",
        spoken_for.as_secs(),
        2 * SPOKEN as u64 * spoken_for.as_secs() / 1_000,
        (with_none_spoken.saturating_sub(before) >> 10) as f64 / CALLS as f64,
        broken.load(Ordering::Relaxed)
    );
    say(
        &format!("{CALLS} live calls at 8 KB/s"),
        &world.vault,
        (before, during),
        budget,
        &note,
    )
}

async fn begin(client: &Client, number: usize) -> Result<String, Failure> {
    let request = BeginUploadRequest {
        tenant_id: tenant(number % TENANTS + 1),
        descriptor: Some(descriptor(Channel::Voice)),
        ..BeginUploadRequest::default()
    };
    let answer = RecordServiceClient::new(client.channel())
        .begin_upload(request)
        .await?;
    Ok(answer.into_inner().upload.ok_or("no upload")?.upload_id)
}

async fn speak(client: &Client, number: usize, upload_id: String, end: Instant) -> Result<(), Failure> {
    let message = |payload| WriteUploadRequest {
        payload: Some(payload),
    };
    let header = WriteUploadHeader {
        tenant_id: tenant(number % TENANTS + 1),
        upload_id,
        offset: 0,
    };
    let first = message(write_upload_request::Payload::Header(header));
    let spoken = chunk(SPOKEN);
    // Not all at the same moment.
    tokio::time::sleep(Duration::from_micros(number as u64 * 250)).await;
    let words = stream::unfold(interval(Duration::from_millis(500)), move |mut pace| async move {
        pace.tick().await;
        (Instant::now() < end).then_some(((), pace))
    });
    let words = words.map(move |()| message(write_upload_request::Payload::Chunk(spoken.clone())));
    let request = stream::iter(std::iter::once(first)).chain(words);
    RecordServiceClient::new(client.channel())
        .write_upload(request)
        .await?;
    Ok(())
}

async fn connections(home: &Path, server: &Process, count: usize) -> Result<Vec<Client>, Failure> {
    let mut clients = Vec::new();
    for _ in 0..count {
        clients.push(place::connect(home, &server.address, "uploader").await?);
    }
    Ok(clients)
}

fn say(
    name: &str,
    server: &Process,
    (before, during): (u64, u64),
    budget: u64,
    note: &str,
) -> Result<(), Failure> {
    let (_, highest) = server.resident()?;
    println!(
        "| {name} | {} | {} | {} | {} | {note} |",
        before / MIB,
        during / MIB,
        highest / MIB,
        budget / MIB + 256
    );
    Ok(())
}
