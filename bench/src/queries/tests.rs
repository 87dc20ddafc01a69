//! Queries of every kind, run.

use std::sync::Arc;

use clap::ValueEnum;
use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Date32Array, Float64Array, Int64Array, RecordBatch, StringArray,
};
use datafusion::arrow::datatypes::Int64Type;
use datafusion::prelude::SessionContext;

use super::*;
use crate::database::{ForeignKey, Role, Table};

/// Two referring tables, one of them to itself as well, and one that they refer to.
fn shop() -> Database {
    let integers =
        |rows: i64, f: &dyn Fn(i64) -> Option<i64>| Arc::new((0..rows).map(f).collect::<Int64Array>()) as ArrayRef;
    let customer = RecordBatch::try_from_iter_with_nullable([
        ("customer_id", integers(50, &Some), false),
        (
            "name",
            Arc::new((0..50).map(|i| Some(format!("Customer o'{} of {}", i, i % 7))).collect::<StringArray>())
                as ArrayRef,
            true,
        ),
        ("vip", Arc::new((0..50).map(|i| Some(i % 9 == 0)).collect::<BooleanArray>()) as ArrayRef, true),
        ("order", Arc::new((0..50).map(|i| Some(f64::from(i % 13) / 4.0)).collect::<Float64Array>()) as ArrayRef, true),
    ]);
    let orders = RecordBatch::try_from_iter_with_nullable([
        ("order_id", integers(300, &Some), false),
        ("customer_id", integers(300, &|i| (i % 11 != 0).then_some(i * i % 50)), true),
        ("previous_id", integers(300, &|i| (i > 3).then_some(i / 2)), true),
        ("day", Arc::new((0..300).map(|i| Some(15_000 + i)).collect::<Date32Array>()) as ArrayRef, true),
        ("month", integers(300, &|i| Some(i / 30)), true),
    ]);
    let visits = RecordBatch::try_from_iter_with_nullable([
        ("customer_id", integers(200, &|i| Some(i % 37)), true),
        ("order_id", integers(200, &|i| Some(i)), true),
        ("page", integers(200, &|i| (i % 5 != 0).then_some(i % 17)), true),
    ]);
    let table = |name: &str, batch: RecordBatch, key: &[&str]| {
        Table::new(name, batch, &key.iter().map(|&k| k.to_owned()).collect::<Vec<_>>()).unwrap()
    };
    let foreign_key = |table, column, references| ForeignKey {
        table,
        columns: vec![column],
        references,
        references_columns: vec![0],
    };
    Database {
        name: "shop".to_owned(),
        role: Role::Train,
        tables: vec![
            table("customer", customer.unwrap(), &["customer_id"]),
            table("orders", orders.unwrap(), &["order_id"]),
            table("visits", visits.unwrap(), &[]),
        ],
        foreign_keys: vec![foreign_key(1, 1, 0), foreign_key(1, 2, 1), foreign_key(2, 0, 0), foreign_key(2, 1, 1)],
    }
}

fn workload(database: &Database, kind: Kind, count: usize) -> Vec<Query> {
    let mut generator = Generator::new(database, 3);
    let mut queries = vec![];
    for _ in 0..20 * count {
        queries.extend(generator.query(kind));
        if queries.len() == count {
            return queries;
        }
    }
    panic!("only {} of {count} queries", queries.len());
}

#[tokio::test]
async fn queries_run_and_most_find_something() {
    let database = shop();
    let context = SessionContext::new();
    database.register(&context).unwrap();
    for kind in Kind::value_variants().iter().copied() {
        let queries = workload(&database, kind, 40);
        let mut found = 0;
        for query in &queries {
            let batches = context.sql(&query.sql).await.expect(&query.sql).collect().await.expect(&query.sql);
            found += usize::from(match kind {
                Kind::Group | Kind::Distinct | Kind::Having | Kind::Top => batches.iter().any(|b| b.num_rows() > 0),
                Kind::Aqp => batches[0].column(0).is_valid(0),
                _ => batches[0].column(0).as_primitive::<Int64Type>().value(0) > 0,
            });
            assert_eq!(query.tables.len(), query.joins + 1);
        }
        // Few groups meet a condition drawn at random.
        let least = if kind == Kind::Having { 20 } else { 65 };
        assert!(found * 100 > least * queries.len(), "{kind}: {found} of {}", queries.len());
    }
}

#[tokio::test]
async fn reports_of_every_form_run() {
    let database = shop();
    let context = SessionContext::new();
    database.register(&context).unwrap();
    let queries = workload(&database, Kind::Seed, 100);
    let mut generator = Generator::new(&database, 5);
    let reports: Vec<String> = queries.iter().filter_map(|query| generator.report(query)).collect();
    assert!(reports.len() > 80);
    for report in &reports {
        context.sql(report).await.expect(report).collect().await.expect(report);
    }
    for part in ["ORDER BY", "OVER (PARTITION", "place <= 3", "ROLLUP", "UNION", "grouped", "DISTINCT", "CASE", "WITH"]
    {
        assert!(reports.iter().any(|report| report.contains(part)), "{part}");
    }
}

#[test]
fn workloads_have_their_shapes() {
    let database = shop();
    let hard = workload(&database, Kind::Hard, 300);
    assert!(hard.iter().all(|query| (3..=6).contains(&query.joins) && (1..=7).contains(&query.filters)));
    for feature in [
        Feature::Composite,
        Feature::Corr,
        Feature::In,
        Feature::Like,
        Feature::M2n,
        Feature::Ne,
        Feature::Null,
        Feature::Or,
        Feature::SelfJoin,
    ] {
        let count = hard.iter().filter(|query| query.features.contains(&feature)).count();
        assert!(count > 10, "{feature:?}: {count}");
    }
    let seed = workload(&database, Kind::Seed, 100);
    assert!(seed.iter().all(|query| query.joins <= 2 && (1..=5).contains(&query.filters)));
    assert!(seed.iter().any(|query| query.sql.contains(" JOIN ")) && seed.iter().any(|query| query.sql.contains(", ")));
    assert!(workload(&database, Kind::Group, 20).iter().all(|query| query.sql.contains(" GROUP BY ")));
}

#[test]
fn the_last_join_is_written_in_every_form() {
    let database = shop();
    let queries = workload(&database, Kind::Outer, 200);
    for (feature, text) in [
        (Feature::Left, " LEFT JOIN "),
        (Feature::Full, " FULL JOIN "),
        (Feature::Semi, " IN (SELECT "),
        (Feature::Semi, " EXISTS (SELECT 1 "),
        (Feature::Anti, " NOT EXISTS (SELECT 1 "),
    ] {
        let found = queries.iter().filter(|query| query.features.contains(&feature) && query.sql.contains(text));
        assert!(found.count() > 10, "{text}");
    }
    let expressions = workload(&database, Kind::Expression, 200);
    for text in ["LENGTH(", "SUBSTR(", "UPPER(", "EXTRACT(YEAR", "EXTRACT(MONTH", "ABS(", " % ", " * ", " + ", " - "] {
        assert!(expressions.iter().any(|query| query.sql.contains(text)), "{text}");
    }
}

#[test]
fn the_same_seed_gives_the_same_queries() {
    let database = shop();
    assert_eq!(workload(&database, Kind::Hard, 30), workload(&database, Kind::Hard, 30));
}

#[test]
fn a_database_without_keys_gives_single_tables() {
    let mut database = shop();
    database.foreign_keys.clear();
    let mut generator = Generator::new(&database, 1);
    assert!(!generator.can_write(Kind::Hard));
    assert!((0..50).filter_map(|_| generator.query(Kind::Seed)).all(|query| query.joins == 0));
    for table in &mut database.tables {
        table.batch = table.batch.slice(0, 0);
    }
    assert!(!Generator::new(&database, 1).can_write(Kind::Seed));
}

#[test]
fn aliases_are_plain_and_unique() {
    let mut database = shop();
    database.tables = ["order_items", "options", "other_items", "in", "as", "o"]
        .iter()
        .map(|name| Table::new(name, RecordBatch::new_empty(database.tables[0].batch.schema()), &[]).unwrap())
        .collect();
    assert_eq!(aliases(&database), ["oi", "o", "ot", "i", "a", "o_a"]);
}
