//! A gentle tenant alone, and beside another that floods: how long its calls take.

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use callvault::{
    client::{Client, ClientError},
    proto::v1::{Channel, PutMessageRequest},
};
use hdrhistogram::Histogram;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::{
    World,
    common::{
        Failure,
        place::{self, client_file, tenant},
        recordings::{chunk, descriptor},
    },
    load, seconds,
};

const STREAMS: u64 = 16;
/// Between two calls of a gentle stream.
const PACE: Duration = Duration::from_millis(100);
const PAUSE: Duration = Duration::from_millis(20);

/// What the other tenant does: its name, and what `callvault bench` is told.
const FLOODS: [(&str, &[&str]); 4] = [
    (
        "PutMessage, 512 in flight",
        &["messages", "--streams", "512", "--connections", "4"],
    ),
    (
        "BatchPutMessages of 500, 32 in flight",
        &["messages", "--streams", "32", "--batch", "500"],
    ),
    (
        "uploads of 8 MiB, 64 in flight",
        &["uploads", "--streams", "64", "--size", "8MiB"],
    ),
    ("reads of 1 MiB, 64 in flight", &["reads", "--streams", "64"]),
];

pub(crate) async fn run() -> Result<(), Failure> {
    println!(
        "{STREAMS} streams of one tenant, each a message of 1 KiB every {} ms, PUTs of {} ms\n\n\
         | beside | calls | p50 ms | p99 ms | max ms | p99 / alone | failed |\n|---|---|---|---|---|---|---|",
        PACE.as_millis(),
        PAUSE.as_millis()
    );
    let world = World::start(PAUSE, 2).await?;
    let client = client_file(&world.home(), &world.vault.address)?;
    // Once in vain: connections, pages, lanes.
    gentle(&world.home(), &world.vault.address, 2).await?;
    let alone = gentle(&world.home(), &world.vault.address, seconds(10)).await?;
    alone.say("nobody", &alone);
    for (name, flood) in FLOODS {
        let time = (seconds(10) + 4).to_string();
        let mut arguments = flood.to_vec();
        arguments.extend(["--tenant", "bench-2", "--seconds", time.as_str()]);
        let flood = load(&client, &arguments)?;
        tokio::time::sleep(Duration::from_secs(3)).await;
        let beside = gentle(&world.home(), &world.vault.address, seconds(10)).await?;
        beside.say(name, &alone);
        drop(flood);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

struct Times {
    micros: Histogram<u64>,
    failed: u64,
}

impl Times {
    fn say(&self, beside: &str, alone: &Self) {
        let millis = |quantile| self.micros.value_at_quantile(quantile) as f64 / 1_000.0;
        let before = alone.micros.value_at_quantile(0.99) as f64 / 1_000.0;
        println!(
            "| {beside} | {} | {:.1} | {:.1} | {:.1} | {:.2} | {} |",
            self.micros.len(),
            millis(0.5),
            millis(0.99),
            millis(1.0),
            millis(0.99) / before,
            self.failed
        );
    }
}

/// Streams of the first tenant, for so long.
async fn gentle(home: &Path, address: &str, seconds: u64) -> Result<Times, Failure> {
    let client = Arc::new(place::connect(home, address, "uploader").await?);
    let end = Instant::now() + Duration::from_secs(seconds);
    let body = chunk(1 << 10);
    let streams: Vec<_> = (0..STREAMS)
        .map(|number| {
            let (client, body) = (Arc::clone(&client), body.clone());
            tokio::spawn(async move {
                // Not all at the same moment.
                tokio::time::sleep(PACE * u32::try_from(number).unwrap_or(0) / 16).await;
                one(&client, body, end).await
            })
        })
        .collect();
    let mut all = Times {
        micros: Histogram::new(3)?,
        failed: 0,
    };
    for stream in streams {
        let (times, failed) = stream.await?;
        for time in times {
            all.micros.record(u64::try_from(time.as_micros())?)?;
        }
        all.failed += failed;
    }
    Ok(all)
}

async fn one(client: &Client, body: Bytes, end: Instant) -> (Vec<Duration>, u64) {
    let (mut times, mut failed) = (Vec::new(), 0);
    let mut due = interval(PACE);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while Instant::now() < end {
        due.tick().await;
        let begun = Instant::now();
        match put(client, body.clone()).await {
            Ok(()) => times.push(begun.elapsed()),
            Err(_) => failed += 1,
        }
    }
    (times, failed)
}

async fn put(client: &Client, body: Bytes) -> Result<(), ClientError> {
    let message = PutMessageRequest {
        tenant_id: tenant(1),
        descriptor: Some(descriptor(Channel::Chat)),
        body,
        ..PutMessageRequest::default()
    };
    client.put_message(message).await.map(drop)
}
