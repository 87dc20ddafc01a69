//! Profiling per value of each kind of column, against reading the values once.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use datafusion::arrow::array::{
    ArrayRef, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array, RecordBatch, StringViewArray,
};
use datafusion::arrow::compute::concat_batches;
use relata_featurize::profile::{ProfileConfig, TableProfile};

const BATCH: i64 = 8192;
const BATCHES: i64 = 64;

/// A number that looks random.
fn mixed(i: i64) -> i64 {
    let x = (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((x ^ (x >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 33) as i64
}

/// The rows of a batch of a column, by the batch's number.
type Column = Box<dyn Fn(i64) -> ArrayRef>;

fn columns() -> Vec<(&'static str, Column)> {
    let rows = |batch: i64| batch * BATCH..(batch + 1) * BATCH;
    vec![
        ("sorted integers", Box::new(move |b| Arc::new(Int64Array::from_iter_values(rows(b).map(|i| i / 3))))),
        (
            "few integers",
            Box::new(move |b| Arc::new(Int32Array::from_iter_values(rows(b).map(|i| mixed(i) as i32 % 50)))),
        ),
        (
            "many integers",
            Box::new(move |b| Arc::new(Int64Array::from_iter_values(rows(b).map(|i| mixed(i) % 200_000)))),
        ),
        ("dates", Box::new(move |b| Arc::new(Date32Array::from_iter_values(rows(b).map(|i| mixed(i) as i32 % 2500))))),
        (
            "floats",
            Box::new(move |b| Arc::new(Float64Array::from_iter_values(rows(b).map(|i| mixed(i) as f64 * 0.01)))),
        ),
        (
            "decimals",
            Box::new(move |b| {
                Arc::new(Decimal128Array::from_iter_values(rows(b).map(|i| i128::from(mixed(i) % 5000))))
            }),
        ),
        (
            "few strings",
            Box::new(move |b| {
                Arc::new(StringViewArray::from_iter_values(rows(b).map(|i| format!("MODE {}", mixed(i) % 7))))
            }),
        ),
        (
            "many strings",
            Box::new(move |b| {
                Arc::new(StringViewArray::from_iter_values(rows(b).map(|i| format!("{} furiously even", mixed(i)))))
            }),
        ),
    ]
}

fn profile(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("profile");
    group.sample_size(10).throughput(Throughput::Elements((BATCH * BATCHES) as u64));
    for (name, column) in columns() {
        let batches: Vec<RecordBatch> = (0..BATCHES)
            .map(|batch| RecordBatch::try_from_iter([("x", column(batch))]).unwrap_or_else(|error| panic!("{error}")))
            .collect();
        let schema = batches[0].schema();
        group.bench_function(BenchmarkId::new("build", name), |bencher| {
            bencher
                .iter(|| TableProfile::of_batches(Arc::clone(&schema), black_box(&batches), &ProfileConfig::default()));
        });
        group.bench_function(BenchmarkId::new("copy", name), |bencher| {
            bencher.iter(|| concat_batches(&schema, black_box(&batches)));
        });
    }
}

criterion_group!(benches, profile);
criterion_main!(benches);
