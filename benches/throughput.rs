//! Uploads and reads through a real server process, beside a bare tonic service with the same TLS, frames, windows and chunks.
//!
//! ```text
//! cargo bench --bench throughput -- [GIB_PER_STREAM] [STREAMS]        default 1 4
//! ```
//!
//! Prints a Markdown table: GB/s end to end, server CPU-seconds per GiB (from `/proc/<pid>/stat`), and ratios of the same run. The
//! data directory is made below `CALLVAULT_BENCH_DIR` (default: the system's temporary directory) and removed.

mod common;

use std::sync::Arc;

use common::{
    Failure, GIB, Role, arguments, place,
    process::Process,
    recordings::{Cost, read, timed, upload},
};

fn main() -> Result<(), Failure> {
    let arguments = arguments();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if let Some(role) = Role::parse(&arguments) {
        return runtime.block_on(role.run());
    }
    let number = |at: usize, default| arguments.get(at).and_then(|a| a.parse().ok()).unwrap_or(default);
    runtime.block_on(measure(number(0, 1) * GIB, number(1, 4)))
}

async fn measure(bytes: u64, streams: u64) -> Result<(), Failure> {
    let dir = place::directory()?;
    let data = dir.path().join("data");
    println!("{streams} streams of {} GiB each\n", bytes / GIB);
    println!(
        "| server | upload GB/s | upload CPU-s/GiB | read GB/s | read CPU-s/GiB |\n|---|---|---|---|---|"
    );
    let mut rows = Vec::new();
    for name in ["callvault", "bare tonic"] {
        let server = if name == "callvault" {
            Process::dev(&data)?
        } else {
            // With the certificates of the vault measured before.
            Process::role(&Role::Bare { home: data.clone() })?
        };
        let total = bytes * streams;
        let client = Arc::new(place::connect(&data, &server.address, "uploader").await?);
        let (up, records) = timed(&server, total, || upload(&client, "dev", bytes, streams)).await?;
        let client = Arc::new(place::connect(&data, &server.address, "reader").await?);
        let (down, ()) = timed(&server, total, || read(&client, "dev", records, bytes)).await?;
        say(
            name,
            [
                up.gb_per_second,
                up.cpu_per_gib,
                down.gb_per_second,
                down.cpu_per_gib,
            ],
        );
        rows.push((up, down));
    }
    let [(up, down), (bare_up, bare_down)] = rows[..] else {
        return Err("two rows".into());
    };
    let rate = |cost: Cost, bare: Cost| cost.gb_per_second / bare.gb_per_second;
    let cpu = |cost: Cost, bare: Cost| cost.cpu_per_gib / bare.cpu_per_gib;
    say(
        "callvault / bare",
        [
            rate(up, bare_up),
            cpu(up, bare_up),
            rate(down, bare_down),
            cpu(down, bare_down),
        ],
    );
    Ok(())
}

fn say(name: &str, [a, b, c, d]: [f64; 4]) {
    println!("| {name} | {a:.2} | {b:.2} | {c:.2} | {d:.2} |");
}
