//! From an erasure to its end, in sled and a directory, index and log writes with their fsyncs included.
//!
//! ```text
//! cargo bench --bench erasure -- [RECORDS] [TENANTS]        default 10,000,000 and 10,000
//! ```
//!
//! The generator makes as many pages of one tenant as so many records fill, one to a retention class: ten messages in each of the
//! first thousand, one in the others, and 20,000 more in a page of their own, so that the tenant is one of those whose content does
//! not wait for its search traces. Beside it are so many other tenants. Three wall times: one record to content FINAL, all of the
//! ten thousand to content FINAL, and how long a read of a message takes at the 99th percentile alone and beside sweeps.

use std::{
    collections::BTreeMap,
    env,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use callvault::{
    domain::{
        erasure::{Ground, Target},
        ids::{RecordId, TenantId},
        purpose::Purpose,
    },
    vault::{Erasure, ErasureSpec, Vault},
};

#[path = "common/filled.rs"]
#[allow(dead_code)] // the other bench fills an index as well
mod filled;

use filled::{Filled, SLOTS, ended, fill_pages, make_tenant, objects};

type Failure = Box<dyn std::error::Error + Send + Sync>;

const MANY_PAGES: u64 = 1_000;
const MANY_IN_EACH: usize = 10;
const LARGE: usize = 20_000;
const READS: Duration = Duration::from_secs(5);

fn main() -> Result<(), Failure> {
    let arguments: Vec<u64> = env::args()
        .skip(1)
        .filter_map(|a| a.replace(',', "").parse().ok())
        .collect();
    let (records, tenants) = (
        arguments.first().copied().unwrap_or(10_000_000),
        arguments.get(1).copied().unwrap_or(10_000),
    );
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure(records, tenants))
}

async fn measure(records: u64, tenants: u64) -> Result<(), Failure> {
    let filled = Filled::open().await?;
    let vault = filled.vault();
    let tenant: TenantId = "bench".parse()?;
    make_tenant(vault, &tenant).await?;
    let pages = records.div_ceil(SLOTS).max(MANY_PAGES + 2);
    let ids = fill_pages(vault, &tenant, pages, |number| match number {
        0..MANY_PAGES => MANY_IN_EACH,
        MANY_PAGES => LARGE,
        _ => 1,
    })
    .await?;
    make_tenants(vault, tenants).await?;
    let many: Vec<RecordId> = ids
        .iter()
        .filter(|ids| ids.len() == MANY_IN_EACH)
        .flatten()
        .copied()
        .collect();
    let large: Vec<RecordId> = ids
        .iter()
        .filter(|ids| ids.len() == LARGE)
        .flatten()
        .copied()
        .collect();
    let (one, survivor) = (large[0], large[1]);

    println!(
        "| erased | pages of the tenant | tenants | EFFECTIVE, s | content FINAL, s | search traces FINAL, s | blobs rewritten |\n|---|---|---|---|---|---|---|"
    );
    for (what, target) in [
        ("one record", vec![one]),
        ("10,000 records over 1,000 pages", many),
    ] {
        let before = blobs(&filled).await?;
        let start = Instant::now();
        let erasure = vault.request_erasure(spec(&tenant, target)).await?;
        let effective = start.elapsed().as_secs_f64();
        let begun = vault.run_sweep("bench", None).await?;
        ended(vault, &begun).await?;
        let content = until(vault, &erasure, |now| now.content_final.is_some(), start).await?;
        let traces = until(vault, &erasure, |now| now.traces_final.is_some(), start).await?;
        let after = blobs(&filled).await?;
        let rewritten = after
            .iter()
            .filter(|(name, at)| before.get(*name) != Some(*at))
            .count();
        println!(
            "| {what} | {pages} | {tenants} | {effective:.2} | {content:.2} | {traces:.2} | {rewritten} |"
        );
    }

    let alone = reads(vault, &tenant, survivor).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let sweeping = tokio::spawn({
        let (vault, tenant, stop) = (Arc::clone(vault), tenant.clone(), Arc::clone(&stop));
        let victims = large[2..].to_vec();
        async move {
            let mut sweeps = 0;
            for victim in victims {
                if stop.load(Ordering::Acquire) {
                    break;
                }
                vault.request_erasure(spec(&tenant, vec![victim])).await?;
                let begun = vault.run_sweep("bench", None).await?;
                ended(&vault, &begun).await?;
                sweeps += 1;
            }
            Ok::<_, Failure>(sweeps)
        }
    });
    let beside = reads(vault, &tenant, survivor).await?;
    stop.store(true, Ordering::Release);
    let sweeps = sweeping.await??;
    println!(
        "\n| reads | p50, ms | p99, ms |\n|---|---|---|\n| alone | {:.2} | {:.2} |\n| beside {sweeps} sweeps | {:.2} | {:.2} |",
        alone.0, alone.1, beside.0, beside.1
    );
    filled.opened.close().await;
    Ok(())
}

fn spec(tenant: &TenantId, records: Vec<RecordId>) -> ErasureSpec {
    ErasureSpec {
        tenant: tenant.clone(),
        actor: "bench".to_owned(),
        target: Target::Records(records),
        ground: Ground::A17,
        #[allow(clippy::unwrap_used)] // a constant
        reference: "BENCH".parse().unwrap(),
        grace_micros: Some(0),
        expected_set: None,
        request: None,
    }
}

async fn until(
    vault: &Vault,
    erasure: &Erasure,
    reached: impl Fn(&Erasure) -> bool,
    start: Instant,
) -> Result<f64, Failure> {
    while !reached(&vault.erasure(&erasure.tenant, &erasure.id).await?) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(start.elapsed().as_secs_f64())
}

async fn make_tenants(vault: &Arc<Vault>, many: u64) -> Result<(), Failure> {
    let mut making = tokio::task::JoinSet::new();
    for number in 0..many {
        let vault = Arc::clone(vault);
        making.spawn(async move { make_tenant(&vault, &format!("tenant-{number}").parse()?).await });
        if making.len() >= 256
            && let Some(made) = making.join_next().await
        {
            made??;
        }
    }
    while let Some(made) = making.join_next().await {
        made??;
    }
    Ok(())
}

async fn blobs(filled: &Filled) -> Result<BTreeMap<String, i64>, Failure> {
    let mut all = objects(&*filled.store).await?;
    all.retain(|name, _| name.starts_with("blobs/"));
    Ok(all)
}

/// The middle and the 99th percentile of reads of a message, one after the other, in milliseconds.
async fn reads(vault: &Arc<Vault>, tenant: &TenantId, record: RecordId) -> Result<(f64, f64), Failure> {
    let (start, mut times) = (Instant::now(), Vec::new());
    while start.elapsed() < READS {
        let began = Instant::now();
        vault.message(tenant, record, Purpose::ServiceProvision).await?;
        times.push(began.elapsed().as_secs_f64() * 1_000.0);
    }
    times.sort_by(f64::total_cmp);
    let at = |hundredths: usize| times[times.len() * hundredths / 100];
    Ok((at(50), at(99)))
}
