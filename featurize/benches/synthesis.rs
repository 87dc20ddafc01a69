//! Features of 1,000 entities along foreign keys, with and without a time for each, against reading every row once.
//!
//! The database: 20,000 customers of 200 cities with 200,000 orders of 2,000 products.
#![expect(clippy::unwrap_used, reason = "a bench may panic")]

use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use datafusion::arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampSecondArray};
use datafusion::catalog::MemTable;
use datafusion::common::TableReference;
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder, TableSource};
use datafusion::prelude::{SessionConfig, SessionContext};
use relata_featurize::synthesis::{
    Entities, FeatureTable, Reference, Relation, Relations, SynthesisConfig, Task, synthesize,
};

const CUSTOMERS: i64 = 20_000;
const ORDERS: i64 = 200_000;
const ENTITIES: i64 = 1_000;

/// A number below `most` that looks random.
fn mixed(i: i64, most: i64) -> i64 {
    let x = (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((x ^ (x >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 33) as i64 % most
}

fn whole(values: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values))
}

fn numbers(values: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(Float64Array::from_iter_values(values.map(|value| value as f64 * 0.01)))
}

fn days(values: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(TimestampSecondArray::from_iter_values(values.map(|day| day * 86_400)))
}

fn texts(values: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values.map(|value| format!("kind {value}"))))
}

fn source(columns: Vec<(&str, ArrayRef)>) -> Arc<dyn TableSource> {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    provider_as_source(Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]]).unwrap()))
}

fn relation(name: &str, columns: Vec<(&str, ArrayRef)>, time: Option<&str>) -> Relation {
    Relation {
        reference: TableReference::bare(name),
        source: source(columns),
        key: vec!["id".to_owned()],
        time: time.map(str::to_owned),
    }
}

fn refers(table: usize, column: &str, references: usize) -> Reference {
    Reference { table, columns: vec![column.to_owned()], references, referenced: vec!["id".to_owned()] }
}

fn shop() -> Relations {
    let customers = vec![
        ("id", whole(0..CUSTOMERS)),
        ("city", whole((0..CUSTOMERS).map(|i| mixed(i, 200)))),
        ("age", whole((0..CUSTOMERS).map(|i| mixed(3 * i, 80)))),
    ];
    let cities = vec![("id", whole(0..200)), ("size", numbers((0..200).map(|i| mixed(i, 1_000_000))))];
    let products = vec![
        ("id", whole(0..2_000)),
        ("price", numbers((0..2_000).map(|i| mixed(i, 10_000)))),
        ("kind", texts((0..2_000).map(|i| mixed(i, 12)))),
    ];
    let orders = vec![
        ("id", whole(0..ORDERS)),
        ("customer", whole((0..ORDERS).map(|i| mixed(i, CUSTOMERS)))),
        ("product", whole((0..ORDERS).map(|i| mixed(7 * i, 2_000)))),
        ("amount", numbers((0..ORDERS).map(|i| mixed(11 * i, 100_000)))),
        ("way", texts((0..ORDERS).map(|i| mixed(13 * i, 5)))),
        ("day", days((0..ORDERS).map(|i| mixed(17 * i, 1_000)))),
    ];
    Relations {
        tables: vec![
            relation("customers", customers, None),
            relation("cities", cities, None),
            relation("products", products, None),
            relation("orders", orders, Some("day")),
        ],
        references: vec![refers(0, "city", 1), refers(3, "customer", 0), refers(3, "product", 2)],
    }
}

fn run(context: &SessionContext, runtime: &tokio::runtime::Runtime, plan: LogicalPlan) -> Vec<RecordBatch> {
    runtime.block_on(async { context.execute_logical_plan(plan).await?.collect().await }).unwrap()
}

fn synthesis(criterion: &mut Criterion) {
    let relations = shop();
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(2));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let task = Task { entity: 0, entity_key: vec!["id".to_owned()], hidden: vec![(0, "age".to_owned())] };
    let asked = source(vec![
        ("row", whole(0..ENTITIES)),
        ("id", whole((0..ENTITIES).map(|i| mixed(19 * i, CUSTOMERS)))),
        ("at", days((0..ENTITIES).map(|i| 500 + mixed(23 * i, 500)))),
    ]);
    let mut group = criterion.benchmark_group("synthesis");
    group.sample_size(10);
    group.bench_function("read", |bencher| {
        let scan = |table: &Relation| LogicalPlanBuilder::scan("t", Arc::clone(&table.source), None).unwrap();
        bencher.iter(|| {
            for table in &relations.tables {
                run(&context, &runtime, scan(table).build().unwrap());
            }
        });
    });
    for (name, at) in [("without times", None), ("a time for each", Some("at"))] {
        for depth in 1..=3 {
            let entities = Entities {
                plan: LogicalPlanBuilder::scan("entities", Arc::clone(&asked), None).unwrap().build().unwrap(),
                row: "row".to_owned(),
                keys: vec!["id".to_owned()],
                at: at.map(str::to_owned),
            };
            let config = SynthesisConfig { depth, max_features: 120 };
            group.bench_function(BenchmarkId::new(name, format!("depth {depth}")), |bencher| {
                bencher.iter(|| {
                    let plan = synthesize(&relations, &task, &entities, &config).unwrap();
                    let batches = run(&context, &runtime, plan.plan.clone());
                    FeatureTable::read(&plan, &batches).unwrap()
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, synthesis);
criterion_main!(benches);
