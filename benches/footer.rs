//! Footers: one record's, and that of a recording as long as they come.

#![allow(clippy::unwrap_used, missing_docs)] // a bench has nobody to return an error to

use bytes::Bytes;
use callvault::{
    blob::format::{Entry, Footer, Tail, find_footer},
    domain::{clock::Timestamp, limits, record::Kind},
};
use criterion::{Criterion, criterion_group, criterion_main};

fn footer(plaintext_length: u64) -> Footer {
    let id = "01890a5d-ac96-774b-bcce-b302099a8057";
    Footer {
        vault: id.parse().unwrap(),
        region: "eu-west".parse().unwrap(),
        tenant: "acme".parse().unwrap(),
        node: 0,
        created: Timestamp(1_795_478_400_000_000),
        entries: vec![Entry {
            record: id.parse().unwrap(),
            kind: Kind::Recording,
            plaintext_length,
            page: id.parse().unwrap(),
            slot: 7,
            wrapped_dek: Bytes::from(vec![1; 60]),
            commitment: [2; 32],
            request: None,
            sealed_descriptor: Bytes::from(vec![3; 400]),
            tags_digest: [4; 32],
        }],
    }
}

fn footers(c: &mut Criterion) {
    for (name, length) in [("1 MiB", 1 << 20), ("64 GiB", limits::RECORDING_BYTES)] {
        let footer = footer(length);
        let encoded = Bytes::from(footer.encode().unwrap().bytes);
        c.bench_function(&format!("encode the footer of {name}"), |b| {
            b.iter(|| footer.encode().unwrap())
        });
        c.bench_function(&format!("find and decode the footer of {name}"), |b| {
            b.iter(|| match find_footer(&encoded, u64::MAX).unwrap() {
                Tail::Whole(bytes) => Footer::decode(&bytes).unwrap(),
                Tail::Longer(_) => unreachable!("it is whole"),
            });
        });
    }
}

criterion_group!(benches, footers);
criterion_main!(benches);
