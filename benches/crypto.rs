//! What a put and a get cost here. Few samples: numbers to steer by.

#![allow(clippy::unwrap_used, missing_docs)] // a bench has nobody to return an error to

use std::{hint::black_box, time::Duration};

use bytes::{Bytes, BytesMut};
use callvault::crypto::{
    aead, kdf,
    page::{PageState, SLOTS},
    rng::SystemRng,
    secret::{ContentKey, Dek, SlotKey},
    stream::{ExtentBuffer, ExtentOpener, HEADER_LEN, extent_capacity, map_range},
};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

/// A chunk of an upload stream.
const CHUNK: usize = 512 << 10;

fn filled(plaintext: &Bytes) -> ExtentBuffer {
    let mut buffer = ExtentBuffer::new(0, 0);
    let mut rest = plaintext.clone();
    while !rest.is_empty() {
        buffer.fill(&mut rest.split_to(CHUNK.min(rest.len())));
    }
    buffer
}

fn extents(c: &mut Criterion) {
    let (rng, key) = (SystemRng::new(), ContentKey::from_bytes([1; 32]));
    let len = extent_capacity(0);
    let plaintext = Bytes::from(vec![7; len as usize]);
    let sealed = filled(&plaintext).seal(&key, b"aad", &rng).unwrap().bytes;
    let (header, segments) = sealed.split_first_chunk::<HEADER_LEN>().unwrap();
    let whole = map_range(len, 0, len).unwrap().next().unwrap();

    let mut group = c.benchmark_group("extent of 8 MiB");
    group.throughput(Throughput::Bytes(len)).sample_size(20);
    group.bench_function("fill", |b| b.iter(|| filled(&plaintext)));
    group.bench_function("seal", |b| {
        let seal = |buffer: ExtentBuffer| buffer.seal(&key, b"aad", &rng).unwrap();
        b.iter_batched(|| filled(&plaintext), seal, BatchSize::LargeInput);
    });
    group.bench_function("open", |b| {
        let open = |ciphertext: BytesMut| {
            let opener = ExtentOpener::new(&key, b"aad", header).unwrap();
            whole.open(&opener, ciphertext).unwrap()
        };
        b.iter_batched(|| BytesMut::from(segments), open, BatchSize::LargeInput);
    });
    group.finish();

    let body = Bytes::from(vec![7; 1_024]);
    c.bench_function("message of 1 KiB: fill and seal", |b| {
        b.iter(|| filled(&body).seal(&key, b"aad", &rng).unwrap());
    });
}

fn pages(c: &mut Criterion) {
    let fresh = PageState::generate(&SystemRng::new()).unwrap();
    let mut punctured = PageState::generate(&SystemRng::new()).unwrap();
    for slot in (0..SLOTS).step_by(4).take(1_000) {
        punctured.puncture(slot).unwrap();
    }
    c.bench_function("slot key of a fresh page", |b| {
        b.iter(|| fresh.slot_key(black_box(2_731)).unwrap())
    });
    c.bench_function("slot key after 1,000 punctures", |b| {
        b.iter(|| punctured.slot_key(black_box(2_731)).unwrap());
    });
    let stored = fresh.to_bytes();
    c.bench_function("first puncture of a page", |b| {
        let load = || PageState::from_bytes(stored.expose()).unwrap();
        b.iter_batched_ref(
            load,
            |page| page.puncture(black_box(2_731)).unwrap(),
            BatchSize::SmallInput,
        );
    });
    let stored = punctured.to_bytes();
    c.bench_function("load a page after 1,000 punctures", |b| {
        b.iter(|| PageState::from_bytes(stored.expose()).unwrap());
    });
}

fn wraps(c: &mut Criterion) {
    let rng = SystemRng::new();
    let (slot, dek) = (SlotKey::generate(&rng).unwrap(), Dek::generate(&rng).unwrap());
    let (aad, commitment) = ([5; 120], dek.commitment());
    c.bench_function("wrap and unwrap a DEK", |b| {
        b.iter(|| {
            let wrapped = aead::wrap(&slot, dek.expose(), &aad, &rng).unwrap();
            kdf::open_dek(&slot, &wrapped, &aad, &commitment).unwrap()
        });
    });
    c.bench_function("derive a DEK's keys", |b| b.iter(|| kdf::DekKeys::derive(&dek)));
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .without_plots();
    targets = extents, pages, wraps
}
criterion_main!(benches);
