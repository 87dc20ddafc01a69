//! EXPLAIN with relata's rows next to DataFusion's.

use std::fmt::Write;

use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlan;

use crate::Result;
use crate::estimate::{Estimator, PlanRows};
use crate::optimizer::default_rows;

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
            "{:indent$}{}  rows={} [{}, {}] {}, default={default}",
            "",
            node.display(),
            number(estimate.rows),
            number(estimate.lower),
            number(estimate.upper),
            estimate.origin,
            indent = 2 * depth,
        );
        stack.extend(node.inputs().into_iter().rev().map(|input| (input, depth + 1)));
    }
    Ok(text)
}

/// Rows as people read them.
fn number(rows: f64) -> String {
    if rows >= 1e15 || !rows.is_finite() { format!("{rows:e}") } else { format!("{:.0}", rows) }
}
