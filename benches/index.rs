//! What the index costs on this machine's disk: durable commits alone and 64 at a time, reads, scans.

#![allow(missing_docs, clippy::unwrap_used)]

use std::{hint::black_box, sync::Arc, time::Duration};

use callvault::{
    domain::{
        clock::{Rng as _, RngFailed, Timestamp},
        ids::{RecordId, TenantId},
    },
    index::{
        Change, Index, Key, LeafDraft, LogId, LogKind, Range, Row, Scan, Scope,
        sled::{SledIndex, SledOptions},
    },
};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use tokio::runtime::Runtime;

const LOG: LogId = LogId {
    kind: LogKind::State,
    node: 0,
    term: 1,
};

/// A counter in the place of randomness.
#[derive(Debug, Default)]
struct Count(std::sync::atomic::AtomicU64);

impl callvault::domain::clock::Rng for Count {
    fn fill(&self, out: &mut [u8]) -> Result<(), RngFailed> {
        let count = self
            .0
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed)
            .wrapping_mul(0x9E37_79B9_7F4A_7C15);
        out.iter_mut()
            .zip(count.to_be_bytes().into_iter().cycle())
            .for_each(|(out, byte)| *out = byte);
        Ok(())
    }
}

/// The rows of a message: itself, three ways to find it, and its leaf.
fn message(tenant: &TenantId, rng: &Count) -> (Change, RecordId) {
    let mut number = [0; 16];
    rng.fill(&mut number).unwrap();
    let record = RecordId::mint(Timestamp(1), rng).unwrap();
    let time = Timestamp(i64::from_be_bytes(number[..8].try_into().unwrap()));
    let row = |key, length| Row {
        key,
        value: vec![7; length],
    };
    let put = vec![
        row(Key::Record(tenant.clone(), record), 500),
        row(Key::ByTime(tenant.clone(), time, record), 0),
        row(Key::ByConversation(tenant.clone(), number, time, record), 0),
        row(Key::BySubject(tenant.clone(), number, time, record), 0),
    ];
    let leaves = vec![LeafDraft {
        scope: Scope::Fact,
        body: vec![7; 100],
    }];
    (
        Change {
            put,
            log: Some(LOG),
            leaves,
            ..Change::default()
        },
        record,
    )
}

fn commits(c: &mut Criterion, runtime: &Runtime, index: &Arc<SledIndex>, tenant: &TenantId, rng: &Count) {
    let mut group = c.benchmark_group("commit of 5 rows, durable");
    group
        .throughput(Throughput::Elements(1))
        .bench_function("alone", |b| {
            b.iter_batched(
                || message(tenant, rng).0,
                |change| runtime.block_on(index.commit(change)).unwrap(),
                BatchSize::SmallInput,
            );
        });
    group
        .throughput(Throughput::Elements(64))
        .bench_function("64 at a time", |b| {
            b.iter_batched(
                || (0..64).map(|_| message(tenant, rng).0).collect::<Vec<_>>(),
                |changes| {
                    runtime.block_on(async {
                        let commit = |change| {
                            let index = Arc::clone(index);
                            tokio::spawn(async move { index.commit(change).await })
                        };
                        for task in changes.into_iter().map(commit).collect::<Vec<_>>() {
                            task.await.unwrap().unwrap();
                        }
                    });
                },
                BatchSize::SmallInput,
            );
        });
}

fn reads(c: &mut Criterion, runtime: &Runtime, index: &SledIndex, tenant: &TenantId, record: RecordId) {
    let mut group = c.benchmark_group("read");
    let key = Key::Record(tenant.clone(), record);
    group.bench_function("get, cached", |b| {
        b.iter(|| runtime.block_on(index.get(black_box(&key))).unwrap())
    });
    let keys = vec![key; 16];
    group.bench_function("get 16, cached", |b| {
        b.iter(|| runtime.block_on(index.get_many(&keys)).unwrap())
    });
    let hop = || {
        runtime
            .block_on(async { tokio::task::spawn_blocking(|| black_box(1)).await })
            .unwrap()
    };
    group.bench_function("the hop to a blocking thread alone", |b| b.iter(hop));
    for (name, range) in [
        (
            "scan of 100 keys",
            Range::ByTime(tenant.clone(), Timestamp(i64::MIN), Timestamp(i64::MAX)),
        ),
        ("scan of 100 records", Range::Records(tenant.clone())),
    ] {
        let scan = Scan {
            range,
            reverse: true,
            after: None,
            limit: 100,
        };
        group.bench_function(name, |b| b.iter(|| runtime.block_on(index.scan(&scan)).unwrap()));
    }
}

fn index(c: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let index = Arc::new(
        SledIndex::open(
            dir.path(),
            SledOptions {
                cache_bytes: 64 << 20,
            },
        )
        .unwrap(),
    );
    let (tenant, rng) = ("acme".parse().unwrap(), Count::default());
    let (change, record) = message(&tenant, &rng);
    runtime.block_on(index.commit(change)).unwrap();
    commits(c, &runtime, &index, &tenant, &rng);
    reads(c, &runtime, &index, &tenant, record);
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(4));
    targets = index
}
criterion_main!(benches);
