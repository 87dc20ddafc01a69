//! EXPLAIN with relata's rows.
//!
//! EXPLAIN shows them on the nodes of the physical plan, and EXPLAIN ANALYZE beside what the nodes returned: `places` knows
//! the estimates of a plan, `rules` finds the physical nodes that they belong to and `exec` stands for those. `pgjson` adds them
//! to the logical plan that EXPLAIN FORMAT PGJSON shows. For `relata explain`, [`render`] has them next to DataFusion's,
//! `analyzed` next to the actual rows, and `picture` draws them.

use std::any::Any;
use std::fmt::Write;
use std::sync::Arc;

use datafusion::common::format::ExplainFormat;
use datafusion::execution::memory_pool::human_readable_size;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;

use crate::Result;
use crate::estimate::{Estimate, Estimator, PlanRows};
use crate::optimizer::default_rows;
use crate::runtime::{Clock, RuntimeEstimate};
use places::PlaceEstimates;

pub(crate) mod analyzed;
mod exec;
mod pgjson;
pub(crate) mod picture;
mod places;
mod rules;

/// The statement that a statement explains.
pub(crate) fn explained(plan: &LogicalPlan) -> Option<&Arc<LogicalPlan>> {
    match plan {
        LogicalPlan::Explain(explain) => Some(&explain.plan),
        LogicalPlan::Analyze(analyze) => Some(&analyze.input),
        _ => None,
    }
}

/// Physical rules, with those among them that show the estimates of a query, and what `clock` says of it where its operators may
/// hold so many bytes.
pub(crate) fn rules(
    estimator: &Estimator<'_>,
    query: &LogicalPlan,
    clock: Option<Clock>,
    memory_limit: Option<usize>,
    rules: Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>>,
) -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    rules::showing(PlaceEstimates::new(estimator, query), clock, memory_limit, rules)
}

/// The estimates of an explained plan's operators, inputs before what reads them.
pub(crate) fn estimates(plan: &dyn ExecutionPlan) -> Vec<Option<Estimate>> {
    fn read(plan: &dyn ExecutionPlan, estimates: &mut Vec<Option<Estimate>>) {
        plan.children().into_iter().for_each(|input| read(input.as_ref(), estimates));
        let any: &dyn Any = plan;
        let own = any.downcast_ref::<exec::EstimatedExec>().and_then(exec::EstimatedExec::estimate);
        estimates.push(own.filter(Estimate::is_known));
    }
    let mut estimates = vec![];
    read(plan, &mut estimates);
    estimates
}

/// Has the operators of an explained plan show how long they take, and the root how long and how much memory all takes.
fn show_runtime(plan: &dyn ExecutionPlan, runtime: &RuntimeEstimate) {
    fn show(plan: &dyn ExecutionPlan, runtime: &RuntimeEstimate, next: &mut usize) {
        plan.children().into_iter().for_each(|input| show(input.as_ref(), runtime, next));
        let any: &dyn Any = plan;
        let elapsed = runtime.operators.get(*next);
        *next += 1;
        if let (Some(shown), Some(elapsed)) = (any.downcast_ref::<exec::EstimatedExec>(), elapsed) {
            let whole = (*next == runtime.operators.len()).then_some(runtime);
            shown.set_runtime(match whole {
                None => format!("{elapsed:.1?}"),
                Some(RuntimeEstimate { elapsed: [lower, median, upper], peak_bytes, executions, .. }) => {
                    let [_, memory, most] = peak_bytes.map(|bytes| human_readable_size(bytes as usize));
                    let corrected = match executions {
                        0 => String::new(),
                        executions => format!(" corrected by {executions} executions"),
                    };
                    format!(
                        "{median:.1?} [{lower:.1?}, {upper:.1?}]{corrected}, relata_memory={memory} [at most {most}]"
                    )
                }
            });
        }
    }
    show(plan, runtime, &mut 0);
}

/// The answer to an explained statement, with the estimates where it has a logical plan in JSON.
pub(crate) fn answered(
    estimator: &Estimator<'_>,
    plan: &LogicalPlan,
    physical: Arc<dyn ExecutionPlan>,
) -> Arc<dyn ExecutionPlan> {
    match plan {
        LogicalPlan::Explain(explain) if explain.explain_format == ExplainFormat::PostgresJSON => {
            pgjson::with_estimates(estimator, &explain.plan, physical)
        }
        _ => physical,
    }
}

/// The plan as an indented tree; each line ends with relata's rows, their interval and origin, and DataFusion's rows.
pub(crate) async fn render(estimator: &Estimator<'_>, state: &SessionState, plan: &LogicalPlan) -> Result<String> {
    let mut text = String::new();
    let mut rows = PlanRows::new(estimator);
    let mut stack = vec![(plan, 0)];
    while let Some((node, depth)) = stack.pop() {
        let estimate = rows.of(node);
        let default = match default_rows(state, node).await {
            Some(rows) => number(rows),
            None => "unknown".into(),
        };
        let _ = writeln!(
            text,
            "{:indent$}{}  rows={}{} {}, default={default}",
            "",
            node.display(),
            rows_of(&estimate),
            interval(&estimate),
            estimate.origin,
            indent = 2 * depth,
        );
        stack.extend(node.inputs().into_iter().rev().map(|input| (input, depth + 1)));
    }
    Ok(text)
}

/// The rows of an estimate as people read them.
fn rows_of(estimate: &Estimate) -> String {
    if estimate.is_known() { number(estimate.rows) } else { "unknown".to_owned() }
}

/// Its interval, with a space before; nothing where nothing is known.
fn interval(estimate: &Estimate) -> String {
    let Estimate { lower, upper, .. } = estimate;
    if estimate.is_known() { format!(" [{}, {}]", number(*lower), number(*upper)) } else { String::new() }
}

fn number(rows: f64) -> String {
    if rows >= 1e15 || !rows.is_finite() { format!("{rows:e}") } else { format!("{rows:.0}") }
}

/// A text in one line of so many characters.
fn short(text: &str, characters: usize) -> String {
    let mut all = text.chars().map(|character| if character.is_whitespace() { ' ' } else { character });
    let mut short: String = all.by_ref().take(characters).collect();
    if all.next().is_some() {
        short.pop();
        short.push('…');
    }
    short
}
