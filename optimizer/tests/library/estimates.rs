//! Estimates of queries and EXPLAIN.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, Float64Array, StringArray, TimestampSecondArray};
use datafusion::arrow::datatypes::Float64Type;
use relata::{Origin, PlanEstimate, Relata, RelataError};

use crate::{Sessions, batch, pretrained, sources};

const JOIN: &str = "FROM customer c JOIN town t ON c.town = t.id JOIN orders o ON o.customer = c.id WHERE t.region = 1";

async fn profiled(relata: Relata) -> Sessions {
    let sessions = Sessions::new(relata);
    sources::memory(&sessions);
    sessions.relata.profile(&sessions.learned).await.unwrap();
    sessions
}

#[tokio::test]
async fn a_count_stands_for_the_rows_it_counts() {
    let sessions = profiled(pretrained()).await;
    let estimate = async |select: &str, rest: &str| {
        let sql = format!("SELECT {select} {JOIN} {rest}");
        sessions.relata.estimate_sql(&sessions.learned, &sql).await.unwrap()
    };
    let rows = estimate("c.id", "").await;
    assert!(rows.lower <= rows.estimate && rows.estimate <= rows.upper, "{rows:?}");
    assert!(rows.estimate > 1.0 && rows.estimate < 2000.0, "{rows:?}");
    assert!(rows.default.is_some_and(|default| default > 0.0), "{rows:?}");
    assert!(!rows.planning.is_zero());
    for counted in ["COUNT(*)", "COUNT(*) AS n", "SUM(o.amount), MIN(c.id)", "1 + COUNT(*)"] {
        let aggregate = estimate(counted, "").await;
        assert!((aggregate.estimate / rows.estimate - 1.0).abs() < 1e-6, "{counted}: {aggregate:?}, {rows:?}");
    }
    let groups = estimate("c.id, COUNT(*)", "GROUP BY c.id").await;
    assert!(groups.estimate <= 60.0, "{groups:?}");
    // DataFusion makes a semi join of it.
    let distinct = estimate("DISTINCT c.id", "").await;
    assert!((distinct.estimate / groups.estimate - 1.0).abs() < 1e-6, "{distinct:?}, {groups:?}");
    let limited = estimate("c.id", "LIMIT 3").await;
    assert!(limited.estimate <= 3.0 && limited.upper <= 3.0, "{limited:?}");
}

#[tokio::test]
async fn whole_tables_are_known() {
    let sessions = profiled(pretrained()).await;
    for (table, rows) in [("region", 4.0), ("orders", 300.0)] {
        for select in ["*", "COUNT(*)"] {
            let sql = format!("SELECT {select} FROM {table}");
            let estimate = sessions.relata.estimate_sql(&sessions.learned, &sql).await.unwrap();
            assert!((estimate.estimate - rows).abs() < 1e-6, "{sql}: {estimate:?}");
        }
    }
}

#[tokio::test]
async fn casts_are_not_taken_for_their_columns() {
    let sessions = Sessions::new(pretrained());
    let prices = Float64Array::from_iter_values((0..3000).map(|i| f64::from(i % 100) / 10.0));
    let texts =
        StringArray::from_iter_values((0..3000).map(|i| if i % 4 == 0 { "x".into() } else { (i % 9).to_string() }));
    let times = TimestampSecondArray::from_iter_values((0..3000).map(|i| 1_704_067_200 + i * 1800));
    let columns: [(&str, ArrayRef); 3] =
        [("price", Arc::new(prices)), ("text", Arc::new(texts)), ("at", Arc::new(times))];
    sessions.register("sold", &batch(columns));
    sessions.relata.profile(&sessions.learned).await.unwrap();
    for filter in [
        "CAST(price AS BIGINT) = 3",
        "CAST(price AS INT) IN (3, 4, 5)",
        "TRY_CAST(text AS INT) IS NULL",
        "TRY_CAST(text AS INT) = 3",
        "CAST(at AS DATE) = DATE '2024-01-05'",
        "price = 1 OR (price >= 5 AND price IS NOT NULL) OR price = 2",
    ] {
        let sql = format!("SELECT * FROM sold WHERE {filter}");
        let truth = sessions.same(&sql).await as f64;
        let estimate = sessions.relata.estimate_sql(&sessions.learned, &sql).await.unwrap();
        let off = (estimate.estimate / truth).max(truth / estimate.estimate);
        assert!(off < 1.5 && estimate.upper >= truth, "{filter}: {truth}, {estimate:?}");
    }
    let sql = "SELECT AVG(CAST(CAST(price AS INT) AS DOUBLE)) FROM sold WHERE price BETWEEN 4.5 AND 4.6";
    let answers = sessions.relata.answer(&sessions.learned, sql).await.unwrap();
    let answer = answers[0].column(0).as_primitive::<Float64Type>().value(0);
    assert!((answer - 4.0).abs() < 1e-9, "{answer}");
}

#[tokio::test]
async fn what_is_no_query_is_an_error() {
    let sessions = profiled(pretrained()).await;
    let estimate = async |sql| sessions.relata.estimate_sql(&sessions.learned, sql).await;
    assert!(matches!(estimate("CREATE TABLE x AS SELECT 1").await, Err(RelataError::NoQuery(_))));
    assert!(matches!(estimate("SET relata.enabled = false").await, Err(RelataError::NoQuery(_))));
    assert!(matches!(estimate("SELECT FROM WHERE").await, Err(RelataError::DataFusion(_))));
    assert!(matches!(estimate("SELECT * FROM nowhere").await, Err(RelataError::DataFusion(_))));
    assert!(matches!(estimate("SELECT nothing FROM town").await, Err(RelataError::DataFusion(_))));
}

#[tokio::test]
async fn explain_names_the_origin_of_every_node() {
    for (relata, origin) in [(pretrained(), "] expert, default="), (Relata::new(None), "] analytical, default=")] {
        let sessions = profiled(relata).await;
        let sql = format!("SELECT COUNT(*) {JOIN}");
        let text = sessions.relata.explain(&sessions.learned, &sql).await.unwrap();
        assert!(text.contains(origin) && text.contains("rows=1 [1, 1] exact"), "{text}");
        for line in text.lines() {
            assert!(line.contains("rows=") && line.contains("default="), "{line}");
        }
    }
}

#[tokio::test]
async fn every_node_of_a_plan_has_an_estimate() {
    fn check(node: &PlanEstimate) -> usize {
        let estimate = node.estimate;
        assert!(estimate.rows.is_finite() && estimate.rows >= 0.0, "{node:?}");
        assert!(estimate.lower <= estimate.rows && estimate.rows <= estimate.upper, "{node:?}");
        assert!(!matches!(estimate.origin, Origin::Fallback(_)), "{node:?}");
        1 + node.inputs.iter().map(check).sum::<usize>()
    }
    let sessions = profiled(pretrained()).await;
    let state = sessions.learned.state();
    for rest in ["", "GROUP BY t.name ORDER BY t.name LIMIT 2"] {
        let select = if rest.is_empty() { "o.id" } else { "t.name, COUNT(*)" };
        let plan = state.create_logical_plan(&format!("SELECT {select} {JOIN} {rest}")).await.unwrap();
        assert!(check(&sessions.relata.estimate(&state.optimize(&plan).unwrap())) > 4);
    }
}
