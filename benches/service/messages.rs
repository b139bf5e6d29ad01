//! Messages of 1 KiB into a bucket that takes 20 ms for a PUT, beside bare unary calls. The load is `callvault bench`, on the same
//! cores as everything else.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};

use crate::{
    World,
    common::{Failure, Role, bucket::puts, place::client_file, process::Process},
    load, seconds,
};

const PAUSE: Duration = Duration::from_millis(20);
const WARM_UP: u64 = 2;

/// One load: what it is called, messages of a call, tenants, calls in flight, connections.
const LOADS: [(&str, u64, u64, u64, u64); 7] = [
    ("PutMessage", 1, 1, 64, 1),
    ("PutMessage", 1, 1, 1_024, 4),
    ("PutMessage", 1, 100, 64, 1),
    ("PutMessage", 1, 100, 4_000, 16),
    ("BatchPutMessages", 100, 1, 64, 1),
    ("BatchPutMessages", 100, 100, 100, 1),
    ("BatchPutMessages", 500, 20, 20, 1),
];

pub(crate) async fn run() -> Result<(), Failure> {
    println!(
        "Messages of 1 KiB, {} s each, PUTs of {} ms\n\n\
         | call | messages a call | tenants | calls in flight | messages/s | p50 ms | p99 ms | PUTs per 1,000 | server CPU us a message | refused |\n\
         |---|---|---|---|---|---|---|---|---|---|",
        seconds(8),
        PAUSE.as_millis()
    );
    let world = World::start(PAUSE, 100).await?;
    let client = client_file(&world.home(), &world.vault.address)?;
    for (call, batch, tenants, streams, connections) in LOADS {
        let run = Run {
            client: client.clone(),
            batch,
            tenants,
            streams,
            connections,
        };
        let row = run.measure(&world.vault, Some(&world)).await?;
        println!("| {call} | {batch} | {tenants} | {streams} | {row} |");
    }
    let bare = Process::role(&Role::Bare { home: world.home() })?;
    let client = client_file(&world.home(), &bare.address)?;
    for (streams, connections) in [(64, 1), (1_024, 4)] {
        let run = Run {
            client: client.clone(),
            batch: 1,
            tenants: 1,
            streams,
            connections,
        };
        let row = run.measure(&bare, None).await?;
        println!("| bare unary | 1 | 1 | {streams} | {row} |");
    }
    Ok(())
}

struct Run {
    client: PathBuf,
    batch: u64,
    tenants: u64,
    streams: u64,
    connections: u64,
}

impl Run {
    async fn measure(&self, server: &Process, world: Option<&World>) -> Result<String, Failure> {
        let seconds = seconds(8);
        let text = [
            ("--batch", self.batch),
            ("--tenants", self.tenants),
            ("--streams", self.streams),
            ("--connections", self.connections),
            ("--seconds", seconds),
            ("--warm-up", WARM_UP),
        ];
        let text: Vec<String> = text
            .iter()
            .flat_map(|(name, value)| [(*name).to_owned(), value.to_string()])
            .collect();
        let mut arguments = vec!["messages"];
        if self.tenants == 1 {
            arguments.extend(["--tenant", "bench-1"]);
        }
        arguments.extend(text.iter().map(String::as_str));
        let load = load(&self.client, &arguments)?;
        // Counted in the middle of the run: neither its beginning nor its end.
        tokio::time::sleep(Duration::from_millis(WARM_UP * 1_000 + 500)).await;
        let (before, begun) = (Counts::now(server, world).await?, Instant::now());
        tokio::time::sleep(Duration::from_secs(seconds - 1)).await;
        let (after, window) = (Counts::now(server, world).await?, begun.elapsed());
        let report = load.finish().await?;
        let result = &report["results"]["messages"];
        let calls = (after.calls - before.calls) as f64;
        let messages = match world {
            Some(_) => calls * self.batch as f64,
            // It counts nothing; calls are short, so its clients' count is as good.
            None => result["per_second"].as_f64().unwrap_or(0.0) * window.as_secs_f64(),
        };
        let rate = messages / window.as_secs_f64();
        let puts = match world {
            Some(_) => format!("{:.1}", (after.puts - before.puts) as f64 * 1_000.0 / messages),
            None => "-".to_owned(),
        };
        let cpu = (after.cpu - before.cpu) * 1e6 / messages;
        let millis = |name: &str| result["latency_micros"][name].as_f64().unwrap_or(f64::NAN) / 1_000.0;
        let refused: u64 = result["errors"]
            .as_object()
            .into_iter()
            .flatten()
            .filter_map(|(_, count)| Value::as_u64(count))
            .sum();
        Ok(format!(
            "{rate:.0} | {:.1} | {:.1} | {puts} | {cpu:.0} | {refused}",
            millis("p50"),
            millis("p99")
        ))
    }
}

/// What was counted so far.
struct Counts {
    puts: u64,
    /// Calls that were answered with OK.
    calls: u64,
    cpu: f64,
}

impl Counts {
    async fn now(server: &Process, world: Option<&World>) -> Result<Self, Failure> {
        let cpu = server.cpu_seconds()?;
        let (puts, calls) = match world {
            Some(world) => (puts(&world.bucket).await?, answered(world.place.ops).await?),
            None => (0, 0),
        };
        Ok(Self { puts, calls, cpu })
    }
}

/// Messages and batches that the vault has answered, as its metrics say.
async fn answered(ops: SocketAddr) -> Result<u64, Failure> {
    let mut stream = TcpStream::connect(ops).await?;
    let request = "GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    let counted = text.lines().filter(|line| {
        line.starts_with("callvault_calls_total{")
            && line.contains("PutMessage")
            && line.contains("code=\"OK\"")
    });
    let counts = counted.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
    Ok(counts.sum::<f64>() as u64)
}
