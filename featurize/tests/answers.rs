//! Aggregates from samples: exact where everything is known, within provable ranges elsewhere, and residuals that invert.
#![expect(
    clippy::unwrap_used,
    clippy::float_cmp,
    reason = "a test stops at the first surprise; ends of ranges are copied"
)]

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch};
use datafusion::prelude::SessionContext;
use datafusion_expr::{LogicalPlan, TableScan, col};
use proptest::prelude::*;
use relata_featurize::analytical::{JoinEstimator, Profiles, ValueExpr};
use relata_featurize::answer::{AggregateFunction, AnswerEstimate, estimate_answer};
use relata_featurize::join_graph::JoinGraph;
use relata_featurize::profile::{ProfileConfig, TableProfile};

struct OneTable(Arc<TableProfile>);

impl Profiles for OneTable {
    fn profile(&self, _: &TableScan) -> Option<Arc<TableProfile>> {
        Some(Arc::clone(&self.0))
    }
}

const FUNCTIONS: [AggregateFunction; 4] =
    [AggregateFunction::Avg, AggregateFunction::Sum, AggregateFunction::Min, AggregateFunction::Max];

/// The aggregates of `v` among the rows that pass `condition`, of a table of `rows` rows, and the values that pass.
fn estimates(rows: i64, seed: i64, condition: &str) -> (Vec<AnswerEstimate>, Vec<f64>) {
    let value = |i: i64| ((i * (7919 + seed) + i * i) % 1009) as f64 / 4.0 - 50.0;
    let columns: [(&str, ArrayRef); 2] = [
        ("k", Arc::new(Int64Array::from_iter_values((0..rows).map(|i| (i * (seed + 3)) % 97)))),
        ("v", Arc::new(Float64Array::from_iter((0..rows).map(|i| (i % 13 > 0).then(|| value(i)))))),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let profile =
        TableProfile::of_batches(batch.schema(), std::slice::from_ref(&batch), &ProfileConfig::default()).unwrap();
    let ctx = SessionContext::new();
    ctx.register_batch("t", batch).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let sql = format!("SELECT v FROM t WHERE {condition}");
    let (plan, passing) = runtime.block_on(async {
        let data = ctx.sql(&sql).await.unwrap();
        let batches = data.clone().collect().await.unwrap();
        (data.into_optimized_plan().unwrap(), batches)
    });
    let passing: Vec<f64> = passing
        .iter()
        .flat_map(|batch| {
            let values = batch.column(0).as_any().downcast_ref::<Float64Array>().unwrap();
            values.iter().flatten().collect::<Vec<_>>()
        })
        .collect();
    let graph = JoinGraph::from_plan(&plan).unwrap_or_else(|| panic!("{plan}"));
    let profiles = OneTable(Arc::new(profile));
    let estimator = JoinEstimator::new(&graph, &profiles);
    let name = graph.relations[0].plan.schema().columns().into_iter().find(|column| column.name == "v").unwrap();
    let value = ValueExpr::new(&graph, col(name)).unwrap();
    let estimate =
        |function| estimate_answer(&estimator, graph.all(), estimator.single(0).rows, function, &value).unwrap();
    assert!(!matches!(plan, LogicalPlan::Aggregate(_)));
    (FUNCTIONS.map(estimate).into(), passing)
}

fn exact(function: AggregateFunction, values: &[f64]) -> Option<f64> {
    let sum: f64 = values.iter().sum();
    (!values.is_empty()).then(|| match function {
        AggregateFunction::Avg => sum / values.len() as f64,
        AggregateFunction::Sum => sum,
        AggregateFunction::Min => values.iter().copied().fold(f64::INFINITY, f64::min),
        AggregateFunction::Max => values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
    })
}

#[test]
fn of_rows_that_are_all_known_and_have_no_value_the_answer_is_null() {
    // The first row's value is NULL.
    let (estimates, passing) = estimates(1, 0, "k >= 0 AND v < 10");
    assert!(passing.is_empty());
    assert!(estimates.iter().all(|estimate| estimate.exact == Some(None)), "{estimates:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_table_that_is_known_whole_is_answered_exactly(rows in 1i64..900, seed in 0i64..50, k in 0i64..100, v in -60i64..210) {
        let (estimates, passing) = estimates(rows, seed, &format!("k <= {k} AND v < {v}"));
        for estimate in estimates {
            let (found, truth) = (estimate.exact.unwrap(), exact(estimate.function, &passing));
            let equal = match (found, truth) {
                (Some(found), Some(truth)) => (found - truth).abs() <= 1e-9 * truth.abs().max(1.0),
                (found, truth) => found == truth,
            };
            prop_assert!(equal, "{:?}: {found:?}, not {truth:?}", estimate.function);
        }
    }

    #[test]
    fn residuals_invert_and_stay_in_the_provable_range(seed in 0i64..20, k in 2i64..60, low in -60i64..100, width in 1i64..200) {
        let condition = format!("k BETWEEN {} AND {k} AND v > {low} AND v <= {}", k / 2, low + width);
        let (estimates, passing) = estimates(30_000, seed, &condition);
        for estimate in estimates {
            prop_assert!(estimate.exact.is_none());
            prop_assert!(estimate.features().iter().all(|feature| feature.is_finite()));
            let (least, most) = estimate.range;
            prop_assert!(passing.iter().all(|value| (least..=most).contains(value)), "{:?}", estimate.range);
            let answers: Vec<f64> = (-12..=12).map(|residual| estimate.at(f64::from(residual))).collect();
            prop_assert!(answers.iter().all(|answer| (least..=most).contains(answer)), "{answers:?}");
            let ascending = estimate.function != AggregateFunction::Max;
            prop_assert!(answers.windows(2).all(|two| two[0] == two[1] || (two[0] < two[1]) == ascending), "{answers:?}");
            let mean = matches!(estimate.function, AggregateFunction::Avg | AggregateFunction::Sum);
            let function = if mean { AggregateFunction::Avg } else { estimate.function };
            if let Some(truth) = exact(function, &passing) {
                let residual = estimate.residual(truth);
                // What is far beyond the sample is cut off.
                if residual.abs() < 11.9 {
                    let again = estimate.at(residual);
                    // An extreme between two sampled values becomes one of them.
                    let same = if mean {
                        (again - truth).abs() <= 1e-6 * truth.abs().max(1.0)
                    } else {
                        estimate.residual(again).abs() <= residual.abs() + 1e-6
                    };
                    prop_assert!(same, "{function:?}: {again}, not {truth}");
                }
            }
        }
    }
}
