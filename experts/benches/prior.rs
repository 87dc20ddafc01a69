//! How many rows of synthetic databases one core makes in a second.
#![expect(clippy::expect_used, reason = "a bench may stop when its own set-up fails")]
#![cfg(feature = "prior")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use relata_experts::prior::{PriorConfig, demo_database, generate};

fn prior(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("prior");
    group.sample_size(10);
    let demo_rows = demo_database(1, 1_000_000).expect("a valid size").rows();
    group.throughput(Throughput::Elements(demo_rows as u64));
    group.bench_function("demo", |bencher| bencher.iter(|| demo_database(black_box(1), 1_000_000)));

    let config = PriorConfig::default();
    let drawn_rows: usize = (0..20).map(|seed| generate(&config, seed).expect("valid defaults").rows()).sum();
    group.throughput(Throughput::Elements(drawn_rows as u64));
    group.bench_function("generate", |bencher| {
        bencher.iter(|| (0..20).for_each(|seed| drop(black_box(generate(&config, seed)))));
    });
    group.finish();
}

criterion_group!(benches, prior);
criterion_main!(benches);
