//! What relata adds to the planning of a query, and how many queries it estimates per second.
#![expect(clippy::unwrap_used, reason = "a bench may panic")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use datafusion::execution::SessionStateBuilder;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionContext;
use relata::Relata;
use tokio::runtime::Runtime;

const TABLES: i64 = 10;
const ROWS: i64 = 4000;

/// A chain of tables: `t0` has a key of `t1`, which has a key of `t2`, and so on; later tables are smaller.
fn register(ctx: &SessionContext) {
    for table in 0..TABLES {
        let rows = ROWS / (table + 1);
        let next = ROWS / (table + 2);
        let columns: [(&str, ArrayRef); 4] = [
            ("id", Arc::new(Int64Array::from_iter_values(0..rows))),
            ("next", Arc::new(Int64Array::from_iter_values((0..rows).map(|i| i * i % next)))),
            ("number", Arc::new(Int64Array::from_iter_values((0..rows).map(|i| i * 31 % 100)))),
            ("word", Arc::new(StringArray::from_iter_values((0..rows).map(|i| format!("word {}", i % 37))))),
        ];
        ctx.register_batch(format!("t{table}"), RecordBatch::try_from_iter(columns).unwrap()).unwrap();
    }
}

/// The first `tables` of the chain, joined, each with a filter.
fn query(tables: i64) -> String {
    let from: Vec<String> = (0..tables).map(|t| format!("t{t}")).collect();
    let joins = (1..tables).map(|t| format!("t{}.next = t{t}.id", t - 1));
    let filters = (0..tables).map(|t| format!("t{t}.number < {}", 50 + 5 * t));
    let conditions: Vec<String> = joins.chain(filters).collect();
    format!("SELECT COUNT(*), MAX(t0.word) FROM {} WHERE {}", from.join(", "), conditions.join(" AND "))
}

fn planning(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let default = SessionContext::new();
    let relata = Relata::pretrained().unwrap();
    let learned =
        SessionContext::new_with_state(relata.install(SessionStateBuilder::new_with_default_features()).build());
    for ctx in [&default, &learned] {
        register(ctx);
    }
    runtime.block_on(relata.profile(&learned)).unwrap();

    for tables in [1, 3, 6, 10] {
        let sql = query(tables);
        let mut group = criterion.benchmark_group(format!("physical plan of {tables} tables"));
        for (name, ctx) in [("default", &default), ("relata", &learned)] {
            let state = ctx.state();
            let plan = runtime.block_on(state.create_logical_plan(&sql)).unwrap();
            group.bench_function(name, |bench| {
                bench.to_async(&runtime).iter(|| async { state.create_physical_plan(black_box(&plan)).await.unwrap() });
            });
        }
        group.finish();
    }

    let state = learned.state();
    let optimized = |tables| -> LogicalPlan {
        let plan = runtime.block_on(state.create_logical_plan(&query(tables))).unwrap();
        state.optimize(&plan).unwrap()
    };
    let mut group = criterion.benchmark_group("estimate every node of a plan");
    group.throughput(Throughput::Elements(1));
    for tables in [1, 3, 6, 10] {
        let plan = optimized(tables);
        group.bench_function(format!("{tables} tables"), |bench| bench.iter(|| relata.estimate(black_box(&plan))));
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(Duration::from_secs(2));
    targets = planning
}
criterion_main!(benches);
