//! Rotates the key of a tenant with as many pages as so many records fill, in sled and a directory, and counts what was written.
//!
//! ```text
//! cargo bench --bench rotation -- [RECORDS] [INDEXED]        default 10,000,000 and 100,000
//! ```
//!
//! A page holds the slots of 4,096 records. The generator makes the tenant's pages as puts make them, one to a retention class
//! with a message in each, and then rows of so many records into the index, so that it has a size. Wall time of the operation,
//! from the call to its end as `GetKeyOperation` tells it, index and log writes with their fsyncs included.

use std::{collections::BTreeMap, env, time::Instant};

use callvault::domain::ids::TenantId;

#[path = "common/filled.rs"]
mod filled;

use filled::{Filled, SLOTS, ended, fill_index, fill_pages, make_tenant, objects};

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<u64> = env::args()
        .skip(1)
        .filter_map(|a| a.replace(',', "").parse().ok())
        .collect();
    let (records, indexed) = (
        arguments.first().copied().unwrap_or(10_000_000),
        arguments.get(1).copied().unwrap_or(100_000),
    );
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure(records, indexed))
}

async fn measure(records: u64, indexed: u64) -> Result<(), Failure> {
    let filled = Filled::open().await?;
    let vault = filled.vault();
    let tenant: TenantId = "bench".parse()?;
    make_tenant(vault, &tenant).await?;
    let pages = records.div_ceil(SLOTS);
    fill_pages(vault, &tenant, pages, |_| 1).await?;
    fill_index(&*filled.index, &tenant, &*filled.clock, &*filled.rng, indexed).await?;

    println!("| rotate | pages | seconds | objects written | blobs written |\n|---|---|---|---|---|");
    for _ in 0..3 {
        let before = objects(&*filled.store).await?;
        let start = Instant::now();
        let begun = vault.rotate_tenant_key("bench", &tenant, None).await?;
        let done = ended(vault, &begun).await?;
        let seconds = start.elapsed().as_secs_f64();
        let after = objects(&*filled.store).await?;
        let blobs = |of: &BTreeMap<String, i64>| {
            of.iter()
                .filter(|(name, _)| name.starts_with("blobs/"))
                .map(|(name, at)| (name.clone(), *at))
                .collect::<Vec<_>>()
        };
        let written = after
            .iter()
            .filter(|(name, at)| before.get(*name) != Some(*at))
            .count();
        let rewritten = usize::from(blobs(&before) != blobs(&after));
        println!(
            "| a tenant of {records} records | {} | {seconds:.2} | {written} | {rewritten} |",
            done.total
        );
    }
    let start = Instant::now();
    let begun = vault.rotate_root_epoch("bench", None).await?;
    let done = ended(vault, &begun).await?;
    println!(
        "| the root | {} | {:.2} | | |",
        done.total,
        start.elapsed().as_secs_f64()
    );
    filled.opened.close().await;
    Ok(())
}
