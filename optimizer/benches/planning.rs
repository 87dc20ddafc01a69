//! What relata adds to the planning of a query, how many queries it estimates per second, and how long an answer takes.
#![expect(clippy::unwrap_used, reason = "a bench may panic")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use datafusion::execution::SessionStateBuilder;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionContext;
use relata::{Relata, RelataConfig};
use tokio::runtime::Runtime;

const TABLES: i64 = 60;
const ROWS: i64 = 4000;
/// Tables around the first one in the largest star.
const SATELLITES: i64 = 9;

/// How a query joins its tables.
#[derive(Debug, Clone, Copy)]
enum Shape {
    /// Each table has a key of the next one.
    Chain,
    /// The first table has a key of every other one.
    Star,
    /// All tables have the same key.
    Clique,
}

/// A chain of tables: `t0` has a key of `t1`, which has a key of `t2`, and so on; later tables are smaller.
fn register(ctx: &SessionContext) {
    let numbers = |rows: i64, number: fn(i64) -> i64| Arc::new(Int64Array::from_iter_values((0..rows).map(number)));
    for table in 0..TABLES {
        let rows = ROWS / (table + 1);
        let next = ROWS / (table + 2);
        let mut columns: Vec<(String, ArrayRef)> = vec![
            ("id".to_owned(), numbers(rows, |i| i)),
            ("next".to_owned(), Arc::new(Int64Array::from_iter_values((0..rows).map(|i| i * i % next)))),
            ("number".to_owned(), numbers(rows, |i| i * 31 % 100)),
            ("word".to_owned(), Arc::new(StringArray::from_iter_values((0..rows).map(|i| format!("word {}", i % 37))))),
        ];
        if table == 0 {
            columns.extend((1..=SATELLITES).map(|key| (format!("k{key}"), numbers(rows, |i| i * 7 % 300) as ArrayRef)));
        }
        ctx.register_batch(format!("t{table}"), RecordBatch::try_from_iter(columns).unwrap()).unwrap();
    }
}

/// The first `tables`, joined, each with a filter.
fn query(shape: Shape, tables: i64) -> String {
    let from: Vec<String> = (0..tables).map(|t| format!("t{t}")).collect();
    let joins = (1..tables).map(|t| match shape {
        Shape::Chain => format!("t{}.next = t{t}.id", t - 1),
        Shape::Star => format!("t0.k{t} = t{t}.id"),
        Shape::Clique => format!("t{}.id = t{t}.id", t - 1),
    });
    let filters = (0..tables).map(|t| format!("t{t}.number < {}", 50 + t % 10 * 5));
    let conditions: Vec<String> = joins.chain(filters).collect();
    format!("SELECT COUNT(*), MAX(t0.word) FROM {} WHERE {}", from.join(", "), conditions.join(" AND "))
}

fn planning(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let default = SessionContext::new();
    // The tables are small, and every order is to be looked for.
    let mut config = RelataConfig::default();
    (config.minimum_cost, config.partition_cost) = (0.0, 0.0);
    let relata = Relata::pretrained().unwrap().with_config(config);
    let learned =
        SessionContext::new_with_state(relata.install(SessionStateBuilder::new_with_default_features()).build());
    for ctx in [&default, &learned] {
        register(ctx);
    }
    runtime.block_on(relata.profile(&learned)).unwrap();

    let chains = [1, 3, 6, 10, 30, 60].map(|tables| (Shape::Chain, tables));
    let others = [(Shape::Star, 6), (Shape::Star, 10), (Shape::Clique, 6), (Shape::Clique, 10)];
    for (shape, tables) in chains.into_iter().chain(others) {
        let sql = query(shape, tables);
        let mut group = criterion.benchmark_group(format!("physical plan of {shape:?} {tables}"));
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
        let plan = runtime.block_on(state.create_logical_plan(&query(Shape::Chain, tables))).unwrap();
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

fn answering(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let relata = Relata::pretrained().unwrap();
    let ctx = SessionContext::new_with_state(relata.install(SessionStateBuilder::new_with_default_features()).build());
    register(&ctx);
    runtime.block_on(relata.profile(&ctx)).unwrap();
    let mut group = criterion.benchmark_group("approximate answer");
    let average = |tables: i64| query(Shape::Chain, tables).replace("COUNT(*), MAX(t0.word)", "AVG(t0.number)");
    let groups = "SELECT word, AVG(number), COUNT(*) FROM t0 GROUP BY word".to_owned();
    for (name, sql) in [("1 table", average(1)), ("3 tables", average(3)), ("37 groups", groups)] {
        group.bench_function(name, |bench| {
            bench.to_async(&runtime).iter(|| async { relata.answer(&ctx, black_box(&sql)).await.unwrap() });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(Duration::from_secs(2));
    targets = planning, answering
}
criterion_main!(benches);
