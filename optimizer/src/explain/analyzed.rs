//! A plan that ran, with the estimated and the actual rows of every node.

use std::any::Any;
use std::fmt::Write;

use datafusion::physical_plan::{DisplayFormatType, ExecutionPlan};

use super::exec::{Displayed, EstimatedExec, QError};
use super::{interval, rows_of, short};
use crate::estimate::Estimate;

/// Characters of a node: the predicates of scans, dynamic filters included, fill pages.
const CHARACTERS: usize = 160;

/// The plan as an indented tree; each line ends with what is known of estimated and actual rows.
pub(crate) fn render(plan: &dyn ExecutionPlan) -> String {
    let mut text = String::new();
    let mut stack = vec![(plan, 0)];
    while let Some((node, depth)) = stack.pop() {
        let any: &dyn Any = node;
        let (shown, estimate) = match any.downcast_ref::<EstimatedExec>() {
            Some(estimated) => (estimated.node().as_ref(), estimated.estimate()),
            None => (node, None),
        };
        let actual = shown.metrics().and_then(|metrics| metrics.output_rows());
        let mut rows = vec![];
        if let Some(estimate) = &estimate {
            rows.push(format!("rows={}{} {}", rows_of(estimate), interval(estimate), estimate.origin));
        }
        rows.extend(actual.map(|actual| format!("actual={actual}")));
        if let Some((estimate, actual)) = estimate.filter(Estimate::is_known).zip(actual) {
            rows.push(format!("q_error={}", QError::new(estimate.rows, actual as f64)));
        }
        let node_text = short(&Displayed(shown, DisplayFormatType::Default).to_string(), CHARACTERS);
        let line = format!("{:indent$}{node_text}  {}", "", rows.join(", "), indent = 2 * depth);
        let _ = writeln!(text, "{}", line.trim_end());
        stack.extend(node.children().into_iter().rev().map(|input| (input.as_ref(), depth + 1)));
    }
    text
}
