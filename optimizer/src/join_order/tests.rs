//! Whole plans through the rewrite.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch};
use datafusion::logical_expr::JoinType;
use datafusion::prelude::SessionContext;

use super::*;
use crate::statistics::QueryRows;
use crate::{Origin, Relata};

/// Five tables of 600, 300, 200, 150 and 120 rows with an own key `id`, a key `next` of the next one and a number.
async fn session() -> (SessionContext, Relata) {
    let ctx = SessionContext::new();
    for table in 0..5 {
        let rows = 600 / (table + 1);
        let column =
            |modulus: i64| Arc::new(Int64Array::from_iter_values((0..rows).map(|i| i * 7 % modulus))) as ArrayRef;
        let columns = [("id", column(rows)), ("next", column(600 / (table + 2))), ("number", column(11))];
        ctx.register_batch(format!("t{table}"), RecordBatch::try_from_iter(columns).unwrap()).unwrap();
    }
    let relata = Relata::pretrained().unwrap();
    relata.profile(&ctx).await.unwrap();
    (ctx, relata)
}

const QUERIES: [&str; 5] = [
    "SELECT t0.number, t3.id FROM t0 JOIN t1 ON t0.next = t1.id JOIN t2 ON t1.next = t2.id JOIN t3 ON t2.next = t3.id
     WHERE t3.number = 3",
    "SELECT a.id, b.number FROM t1 a JOIN t1 b ON a.number = b.number JOIN t2 c ON b.next = c.id JOIN t3 d ON c.next = d.id
     WHERE d.number < 2 AND a.id < d.id",
    "SELECT t0.id FROM t0 JOIN t1 ON t0.number = t1.number JOIN t2 ON t1.number = t2.number JOIN t3 ON t2.id = t3.id
     AND t3.next = t2.next WHERE t3.id < 4",
    "SELECT t0.id, x.n FROM t0 JOIN (SELECT t1.number, COUNT(*) AS n FROM t1 JOIN t2 ON t1.number = t2.number
     JOIN t3 ON t3.id = t2.id WHERE t3.number = 0 GROUP BY t1.number) x ON x.number = t0.number
     JOIN t4 ON t4.number = x.number WHERE t4.id < 3",
    "SELECT t0.id FROM t0 LEFT JOIN t4 ON t0.id = t4.id JOIN t1 ON t0.number = t1.number JOIN t2 ON t1.number = t2.number
     WHERE t2.id < 3",
];

#[tokio::test]
async fn an_ordered_plan_is_not_ordered_again() {
    let (ctx, relata) = session().await;
    let state = ctx.state();
    let mut changed = 0;
    for (sql, minimum_gain) in QUERIES.into_iter().flat_map(|sql| [(sql, 0.0), (sql, 1.5)]) {
        let config = RelataConfig { minimum_gain, minimum_cost: 0.0, ..RelataConfig::default() };
        let reorder = |plan| reorder(&relata.estimator(), &config, &ExecutionTime::default(), 2, plan).unwrap();
        let plan = state.optimize(&state.create_logical_plan(sql).await.unwrap()).unwrap();
        let once = reorder(plan.clone());
        let twice = reorder(once.clone());
        assert_eq!(once.display_indent().to_string(), twice.display_indent().to_string(), "{sql}");
        assert_eq!(once.schema(), plan.schema());
        changed += usize::from(once != plan);
    }
    assert!(changed >= 6, "{changed} plans were given another order");
    assert_eq!(relata.counters().rejected, 0);
}

#[tokio::test]
async fn what_ordering_estimated_is_known_to_the_statistics() {
    let (ctx, relata) = session().await;
    let state = ctx.state();
    for sql in QUERIES {
        let plan = state.optimize(&state.create_logical_plan(sql).await.unwrap()).unwrap();
        let estimator = relata.estimator();
        let ordered = reorder(&estimator, &relata.config, &ExecutionTime::default(), 2, plan).unwrap();
        let fresh = crate::estimate::tree(&relata.estimator(), &ordered);
        assert_eq!(crate::estimate::tree(&estimator, &ordered), fresh, "{sql}");
    }
}

#[tokio::test]
async fn a_region_with_too_many_relations_stays_as_it_is() {
    let (ctx, relata) = session().await;
    let before = relata.counters();
    let mut data = ctx.sql("SELECT id AS id0 FROM t4").await.unwrap();
    for relation in 1..=RelationSet::CAPACITY {
        let own = format!("id{relation}");
        let right = ctx.sql(&format!("SELECT id AS {own} FROM t4 WHERE number = 1")).await.unwrap();
        data = data.join(right, JoinType::Inner, &["id0"], &[&own], None).unwrap();
    }
    let plan = data.into_unoptimized_plan();
    let estimator = relata.estimator();
    assert_eq!(reorder(&estimator, &relata.config, &ExecutionTime::default(), 2, plan.clone()).unwrap(), plan);
    assert!(QueryRows::new(&estimator, &ExecutionTime::default(), &plan).is_none());
    assert_eq!(crate::estimate::rows(&estimator, &plan).origin, Origin::Fallback("too many relations"));
    assert_eq!(relata.counters(), before);
}
