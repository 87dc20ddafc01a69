//! The rows that DataFusion's physical planning sees, node by node.

use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch};
use datafusion::execution::SessionStateBuilder;
use datafusion::physical_plan::operator_statistics::StatisticsRegistry;
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};
use datafusion::prelude::{SessionConfig, SessionContext};

use super::*;
use crate::Relata;
use crate::join_order::ExecutionTime;

/// 1000 rows in `big` and 200 in `small`, each with a key `k` and a number `v`.
async fn session() -> (SessionContext, Relata) {
    let state = SessionStateBuilder::new_with_default_features()
        .with_config(SessionConfig::new().with_target_partitions(2))
        .with_physical_optimizer_rules(Vec::new());
    let ctx = SessionContext::new_with_state(state.build());
    for (table, rows) in [("big", 1000), ("small", 200)] {
        let column = |modulus: i64| Arc::new(Int64Array::from_iter_values((0..rows).map(|i| i % modulus))) as ArrayRef;
        let columns = [("k", column(rows)), ("v", column(10))];
        ctx.register_batch(table, RecordBatch::try_from_iter(columns).unwrap()).unwrap();
    }
    let relata = Relata::new(None);
    relata.profile(&ctx).await.unwrap();
    (ctx, relata)
}

/// The name and the rows of every node of the initial physical plan, inputs before the node.
async fn nodes(sql: &str) -> Vec<(String, usize)> {
    let (ctx, relata) = session().await;
    let state = ctx.state();
    let plan = state.optimize(&state.create_logical_plan(sql).await.unwrap()).unwrap();
    let known = QueryRows::new(&relata.estimator(), &ExecutionTime::default(), &plan).unwrap();
    let rows = Arc::new(NodeRows::new(known, Arc::clone(&relata.counters)));
    let (identify, provider) = (IdentifyScans(Arc::clone(&rows)), RelataStatistics(rows));
    let planner = DefaultPhysicalPlanner::default();
    let physical = planner.create_physical_plan(&plan, &state).await.unwrap();
    let physical = identify.optimize(physical, state.config_options()).unwrap();
    assert_eq!(relata.counters().unidentified, 0);
    let registry = StatisticsRegistry::with_providers(vec![Arc::new(provider)]);
    let mut found = Vec::new();
    visit(&registry, physical.as_ref(), &mut found);
    found
}

fn visit(registry: &StatisticsRegistry, plan: &dyn ExecutionPlan, found: &mut Vec<(String, usize)>) {
    plan.children().into_iter().for_each(|input| visit(registry, input.as_ref(), found));
    let rows = registry.compute(plan).unwrap().base().num_rows;
    found.push((plan.name().to_owned(), *rows.get_value().unwrap()));
}

#[track_caller]
fn rows_of<'a>(nodes: &'a [(String, usize)], name: &'a str) -> Vec<usize> {
    let rows: Vec<usize> = nodes.iter().filter(|node| node.0 == name).map(|node| node.1).collect();
    assert!(!rows.is_empty(), "no {name} in {nodes:?}");
    rows
}

#[tokio::test]
async fn scans_filters_joins_and_aggregates_have_their_rows() {
    let sql = "SELECT s.v, COUNT(*) FROM big b JOIN small s ON b.k = s.k WHERE b.v = 3 GROUP BY s.v";
    let nodes = nodes(sql).await;
    assert_eq!(rows_of(&nodes, "FilterExec"), [100], "{nodes:?}");
    let joined = rows_of(&nodes, "HashJoinExec")[0];
    assert!((18..=22).contains(&joined), "{nodes:?}");
    let groups = nodes.last().unwrap().1;
    assert!((1..=10).contains(&groups), "{nodes:?}");
}

#[tokio::test]
async fn a_limit_lowers_the_rows_from_there_on() {
    let sql = "SELECT b.v, s.v FROM big b JOIN (SELECT k, v FROM small ORDER BY v LIMIT 5) s ON b.k = s.k";
    let nodes = nodes(sql).await;
    assert_eq!(rows_of(&nodes, "DataSourceExec"), [1000, 200], "{nodes:?}");
    let top = nodes.iter().position(|node| node.0.starts_with("Sort")).unwrap();
    let join = nodes.iter().position(|node| node.0 == "HashJoinExec").unwrap();
    assert!(nodes[top..join].iter().all(|node| node.1 == 5), "{nodes:?}");
    assert!(nodes[join].1 <= 6, "{nodes:?}");
}

#[tokio::test]
async fn a_limit_of_a_scan_lowers_its_rows() {
    let sql = "SELECT b.v, s.v FROM big b JOIN (SELECT k, v FROM small LIMIT 5) s ON b.k = s.k";
    let nodes = nodes(sql).await;
    let sides = nodes.iter().position(|node| node.0 == "HashJoinExec").unwrap();
    assert!(nodes[..sides].iter().any(|node| node.1 == 5), "{nodes:?}");
    assert!(nodes[..sides].iter().all(|node| [5, 1000].contains(&node.1)), "{nodes:?}");
    assert!(nodes[sides].1 <= 6, "{nodes:?}");
}

#[tokio::test]
async fn rows_that_are_skipped_are_left_out() {
    let sql = "SELECT b.v, s.v FROM big b JOIN (SELECT k, v FROM small LIMIT 500 OFFSET 190) s ON b.k = s.k";
    let nodes = nodes(sql).await;
    assert_eq!(rows_of(&nodes, "GlobalLimitExec"), [10], "{nodes:?}");
}

#[tokio::test]
async fn a_plan_with_more_scans_than_a_place_holds_is_left_alone() {
    let (ctx, relata) = session().await;
    let scan = ctx.table("small").await.unwrap().select_columns(&["k"]).unwrap();
    let mut data = scan.clone();
    for _ in 0..RelationSet::CAPACITY {
        data = data.union(scan.clone()).unwrap();
    }
    assert!(QueryRows::new(&relata.estimator(), &ExecutionTime::default(), data.logical_plan()).is_none());
}
