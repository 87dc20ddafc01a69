#![expect(clippy::float_cmp, reason = "flags are exact")]

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use datafusion::physical_plan::{ExecutionPlan, collect};
use datafusion::prelude::{SessionConfig, SessionContext};

use super::*;

async fn plan(sql: &str) -> (SessionContext, Arc<dyn ExecutionPlan>) {
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(2));
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..5000));
    let words: ArrayRef = Arc::new(StringArray::from_iter_values((0..5000).map(|i| format!("word {}", i % 70))));
    let batch = RecordBatch::try_from_iter([("k", numbers), ("w", words)]).unwrap();
    context.register_batch("a", batch.clone()).unwrap();
    context.register_batch("b", batch.slice(0, 500)).unwrap();
    let plan = context.sql(sql).await.unwrap().create_physical_plan().await.unwrap();
    (context, plan)
}

const QUERIES: [&str; 5] = [
    "SELECT w, COUNT(DISTINCT k), SUM(k) FROM a WHERE k % 3 = 1 AND w LIKE '%1%' GROUP BY w ORDER BY 2 DESC LIMIT 5",
    "SELECT COUNT(*) FROM a JOIN b ON a.k = b.k AND a.w <> b.w LEFT JOIN b c ON c.w = b.w",
    "SELECT a.w, RANK() OVER (PARTITION BY w ORDER BY k) FROM a WHERE k NOT IN (SELECT k FROM b) ORDER BY w, k",
    "SELECT k FROM a UNION ALL SELECT k FROM b LIMIT 70",
    "SELECT COUNT(*) FROM a, b WHERE a.k < b.k AND a.k < 40",
];

#[tokio::test]
async fn plans_become_graphs_with_what_was_measured() {
    for sql in QUERIES {
        let (context, plan) = plan(sql).await;
        let graph = PhysicalGraph::new(plan.as_ref(), 2, 8192);
        assert!(graph.is_valid() && !graph.operators.is_empty(), "{sql}");
        collect(Arc::clone(&plan), context.task_ctx()).await.unwrap();
        let observed = observe(plan.as_ref());
        assert_eq!(observed.len(), graph.operators.len());
        assert!(observed.iter().any(|one| one.elapsed_us.is_some()) && observed.last().unwrap().rows.is_some());
        let known: Vec<_> =
            observed.iter().map(|one| one.rows.map(|rows| OperatorRows::exact(f64::from(rows)))).collect();
        let rows = graph.filled(&known);
        for index in 0..graph.operators.len() {
            assert!(graph.features(index, &rows).iter().all(|feature| feature.is_finite()), "{sql}");
            assert!(graph.work(index, &rows).iter().all(|work| work.is_finite() && *work >= 0.0), "{sql}");
            assert!(graph.held(index, &rows) >= 0.0);
        }
        let bytes = postcard::to_stdvec(&graph).unwrap();
        assert_eq!(postcard::from_bytes::<PhysicalGraph>(&bytes).unwrap(), graph);
    }
}

#[tokio::test]
async fn what_a_plan_says_is_read() {
    let (_, plan) = plan(QUERIES[1]).await;
    let graph = PhysicalGraph::new(plan.as_ref(), 2, 8192);
    let of = |kind: OperatorKind| graph.operators.iter().filter(move |operator| operator.kind == kind);
    let joins: Vec<&Facts> = of(OperatorKind::HashJoin).map(|join| &join.facts).collect();
    assert_eq!(joins.len(), 2);
    assert!(joins.iter().any(|join| join.outer == 2.0) && joins.iter().any(|join| join.filtered == 1.0));
    assert!(of(OperatorKind::Scan).all(|scan| scan.facts.table_rows >= 500.0 && scan.facts.file_bytes == 0.0));
    // A build side is read by a pipeline of its own, a probe side goes on with its join.
    for join in of(OperatorKind::HashJoin) {
        let pipeline = |input: usize| graph.operators[join.inputs[input] as usize].pipeline;
        assert!(pipeline(1) == join.pipeline && pipeline(0) != join.pipeline);
    }
    let root = graph.operators.last().unwrap();
    assert!(root.pipeline > 0);
}

#[tokio::test]
async fn more_rows_are_more_work() {
    let (_, plan) = plan(QUERIES[1]).await;
    let graph = PhysicalGraph::new(plan.as_ref(), 2, 8192);
    let total = |rows: f64| {
        let rows = vec![OperatorRows::exact(rows); graph.operators.len()];
        let of = |index: usize| graph.work(index, &rows).iter().sum::<f64>() + graph.held(index, &rows);
        (0..graph.operators.len()).map(of).sum::<f64>()
    };
    assert!(total(1e3) < total(1e4) && total(1e4) < total(1e6));
    // Whatever the estimates are, the numbers stay finite.
    let wild = OperatorRows { rows: f32::INFINITY, lower: 0.0, upper: f32::INFINITY };
    let wild = vec![wild; graph.operators.len()];
    for index in 0..graph.operators.len() {
        assert!(graph.features(index, &wild).iter().all(|feature| feature.is_finite()));
        assert!(graph.work(index, &wild).iter().all(|work| work.is_finite()));
    }
}

#[tokio::test]
async fn arguments_and_grouping_sets_count() {
    let facts = async |sql: &str, kind: OperatorKind| -> Vec<Facts> {
        let (_, plan) = plan(sql).await;
        let operators = PhysicalGraph::new(plan.as_ref(), 2, 8192).operators;
        operators.into_iter().filter(|operator| operator.kind == kind).map(|operator| operator.facts).collect()
    };
    let plain = facts("SELECT w, k, SUM(k) FROM a GROUP BY w, k", OperatorKind::Aggregate).await;
    let computed = facts("SELECT w, k, SUM(k * 3 + 1) FROM a GROUP BY w, k", OperatorKind::Aggregate).await;
    let sets = facts("SELECT w, k, SUM(k) FROM a GROUP BY ROLLUP (w, k)", OperatorKind::Aggregate).await;
    assert!(computed[0].expressions > plain[0].expressions && computed[0].keys == plain[0].keys);
    assert_eq!((plain[0].keys, sets[0].keys), (2.0, 6.0));
    assert!(sets[0].expressions >= 3.0 * plain[0].expressions && sets[0].variable_keys == 3.0 * plain[0].variable_keys);
    let windows = facts("SELECT SUM(k) OVER (PARTITION BY w ORDER BY k) FROM a", OperatorKind::Window).await;
    assert_eq!((windows[0].expressions, windows[0].keys, windows[0].variable_keys), (1.0, 2.0, 1.0));
}

#[tokio::test]
async fn what_does_not_fit_is_spilled() {
    let (_, plan) = plan("SELECT k, w FROM a ORDER BY w").await;
    let graph = PhysicalGraph::new(plan.as_ref(), 2, 8192);
    let rows = vec![OperatorRows::exact(1e6); graph.operators.len()];
    let sort = graph.operators.iter().position(|operator| operator.kind == OperatorKind::Sort).unwrap();
    let (spilled, pressure) = (WORK - 1, OPERATOR_FEATURES - 1);
    let of = |limit: Option<usize>| {
        let graph = graph.clone().with_memory_limit(limit);
        (graph.work(sort, &rows)[spilled], graph.features(sort, &rows)[pressure])
    };
    let (held, small, large) = (graph.held(sort, &rows), of(Some(1 << 20)), of(Some(1 << 30)));
    // A limit that is not felt is none.
    assert_eq!((of(None), large), ((0.0, 0.0), (0.0, 0.0)));
    assert!(small.0 > 0.0 && small.0 <= held && small.1 > 0.0, "{small:?}");
    assert!(of(Some(held as usize * 4)).0 == 0.0 && of(Some(held as usize * 4)).1 > 0.0);
    let wild = vec![OperatorRows::exact(f64::INFINITY); graph.operators.len()];
    let graph = graph.with_memory_limit(Some(0));
    for index in 0..graph.operators.len() {
        assert!(graph.features(index, &wild).iter().all(|feature| feature.is_finite()));
        assert!(graph.work(index, &wild).iter().all(|work| work.is_finite()));
    }
}
