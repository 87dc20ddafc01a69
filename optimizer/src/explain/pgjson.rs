//! EXPLAIN FORMAT PGJSON: DataFusion shows the logical plan, each node of which gets PostgreSQL's `Plan Rows`.

use std::fmt::Write;
use std::sync::Arc;

use datafusion::common::display::StringifiedPlan;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::explain::ExplainExec;

use super::number;
use crate::estimate::{self, Estimate, Estimator, PlanRows};

/// What every node begins with, in a line of its own; no line within a string of a JSON text begins with it, as these have
/// no line breaks.
const NODE: &str = "\"Node Type\":";

/// The answer of EXPLAIN FORMAT PGJSON with the estimates of the explained `plan`.
pub(super) fn with_estimates(
    estimator: &Estimator<'_>,
    plan: &LogicalPlan,
    answer: Arc<dyn ExecutionPlan>,
) -> Arc<dyn ExecutionPlan> {
    let Some(explain) = answer.downcast_ref::<ExplainExec>() else { return answer };
    let plans = explain.stringified_plans().iter().map(|text| StringifiedPlan {
        plan_type: text.plan_type.clone(),
        plan: Arc::new(annotated(estimator, plan, &text.plan)),
    });
    Arc::new(ExplainExec::new(explain.schema(), plans.collect(), explain.verbose()))
}

/// The text of a plan with the estimates of its nodes, which come in the order in which they are visited.
fn annotated(estimator: &Estimator<'_>, plan: &LogicalPlan, text: &str) -> String {
    let mut estimates = vec![];
    visit(estimator, &mut PlanRows::new(estimator), plan, &mut estimates);
    if text.lines().filter(|line| line.trim_start().starts_with(NODE)).count() != estimates.len() {
        return text.to_owned();
    }
    let mut estimates = estimates.into_iter();
    let mut annotated = String::new();
    for line in text.lines() {
        let _ = writeln!(annotated, "{line}");
        if line.trim_start().starts_with(NODE)
            && let Some(estimate) = estimates.next()
        {
            let indent = &line[..line.len() - line.trim_start().len()];
            fields(&mut annotated, indent, &estimate);
        }
    }
    annotated.truncate(annotated.trim_end().len());
    annotated
}

/// The estimates of a plan's nodes: a node, the subqueries in its expressions, its inputs.
fn visit<'p>(
    estimator: &Estimator<'_>,
    rows: &mut PlanRows<'p, '_>,
    plan: &'p LogicalPlan,
    estimates: &mut Vec<Estimate>,
) {
    estimates.push(rows.of(plan));
    let _ = plan.apply_subqueries(|subquery| {
        subquery.apply_with_subqueries(|node| {
            estimates.push(estimate::rows(estimator, node));
            Ok(TreeNodeRecursion::Continue)
        })
    });
    plan.inputs().into_iter().for_each(|input| visit(estimator, rows, input, estimates));
}

fn fields(text: &mut String, indent: &str, estimate: &Estimate) {
    if estimate.is_known() {
        for (name, rows) in [("", estimate.rows), (" Lower", estimate.lower), (" Upper", estimate.upper)] {
            if rows.is_finite() {
                let _ = writeln!(text, "{indent}\"Plan Rows{name}\": {},", number(rows));
            }
        }
    }
    let _ = writeln!(text, "{indent}\"Plan Rows Origin\": \"{}\",", estimate.origin);
}
