//! A whole plan: regions of inner joins, and the nodes above and between them.

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Distinct, Join};

use super::{Estimate, Estimator, GroupColumn, JoinGraph, JoinType, LogicalPlan, Region, column_of};

/// The estimate of a plan's root and, below it, of its inputs.
#[derive(Debug, Clone, PartialEq)]
pub struct PlanEstimate {
    /// The root node as DataFusion displays it.
    pub node: String,
    /// Its estimate.
    pub estimate: Estimate,
    /// The inputs, in the order of `LogicalPlan::inputs`.
    pub inputs: Vec<PlanEstimate>,
}

/// Rows of the root of a plan.
pub(crate) fn rows(estimator: &Estimator<'_>, plan: &LogicalPlan) -> Estimate {
    let inputs = || plan.inputs().into_iter().map(|input| rows(estimator, input)).collect::<Vec<_>>();
    match plan {
        _ if is_region(plan) => match JoinGraph::from_plan(plan) {
            Some(graph) => Region::new(estimator, &graph).set(graph.all()),
            None => Estimate::fallback("too many relations"),
        },
        LogicalPlan::Aggregate(aggregate) if aggregate.group_expr.is_empty() => Estimate::exact(1.0),
        LogicalPlan::Aggregate(aggregate) => {
            let columns: Vec<_> = aggregate.group_expr.iter().map(column_of).collect();
            groups(estimator, &aggregate.input, &columns)
        }
        LogicalPlan::Distinct(Distinct::All(input)) => {
            let columns = input.schema().columns();
            groups(estimator, input, &columns.iter().map(Some).collect::<Vec<_>>())
        }
        LogicalPlan::Join(join) => {
            let inner = inner_join(join);
            let matched =
                if JoinGraph::is_transparent(&inner) { rows(estimator, &inner) } else { return unknown_join() };
            outer(join.join_type, matched, rows(estimator, &join.left), rows(estimator, &join.right))
        }
        _ => combine(plan, &inputs()),
    }
}

/// The estimates of every node of a plan.
pub(crate) fn tree(estimator: &Estimator<'_>, plan: &LogicalPlan) -> PlanEstimate {
    PlanEstimate {
        node: plan.display().to_string(),
        estimate: rows(estimator, plan),
        inputs: plan.inputs().into_iter().map(|input| tree(estimator, input)).collect(),
    }
}

/// Whether a plan is estimated as a set of relations.
pub(super) fn is_region(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::TableScan(scan) => scan.fetch.is_none(),
        LogicalPlan::Filter(filter) => JoinGraph::is_base_table(&filter.input) || JoinGraph::is_transparent(plan),
        _ => JoinGraph::is_transparent(plan),
    }
}

/// Groups of the rows of `input` by `columns`; an expression that is no column is worth nothing.
fn groups(estimator: &Estimator<'_>, input: &LogicalPlan, columns: &[Option<&datafusion::common::Column>]) -> Estimate {
    let mut below = input;
    while let LogicalPlan::Projection(_) | LogicalPlan::Sort(_) = below {
        if is_region(below) {
            break;
        }
        let [inner] = below.inputs()[..] else { break };
        below = inner;
    }
    let sqrt = || rows(estimator, input).map(f64::sqrt);
    let inner = with_inner_joins(below);
    let below = inner.as_ref().unwrap_or(below);
    if !is_region(below) && !JoinGraph::is_base_table(below) {
        return sqrt();
    }
    let Some(graph) = JoinGraph::from_plan(below) else { return sqrt() };
    let find = |column: Option<&datafusion::common::Column>| {
        let column = column?;
        let relation = graph.relations.iter().position(|r| r.plan.schema().has_column(column))?;
        Some(GroupColumn { relation, column: graph.relations[relation].table_column(column)? })
    };
    match columns.iter().map(|column| find(*column)).collect::<Option<Vec<_>>>() {
        Some(columns) => Region::new(estimator, &graph).groups(graph.all(), &columns),
        None => sqrt(),
    }
}

/// A plan with inner joins for semi joins, which keeps every group of it: DataFusion makes semi joins of the joins below
/// DISTINCT. `None` without semi joins.
fn with_inner_joins(plan: &LogicalPlan) -> Option<LogicalPlan> {
    let converted = plan.clone().transform_down(|node| {
        Ok(match node {
            LogicalPlan::Join(join) if matches!(join.join_type, JoinType::LeftSemi | JoinType::RightSemi) => {
                Transformed::yes(inner_join(&join))
            }
            LogicalPlan::Join(_) | LogicalPlan::Filter(_) | LogicalPlan::Projection(_) => Transformed::no(node),
            leaf => Transformed::new(leaf, false, TreeNodeRecursion::Jump),
        })
    });
    converted.ok().filter(|converted| converted.transformed).map(|converted| converted.data)
}

fn inner_join(join: &Join) -> LogicalPlan {
    LogicalPlan::Join(Join { join_type: JoinType::Inner, ..join.clone() })
}

fn unknown_join() -> Estimate {
    Estimate::fallback("join on volatile or NULL-equal keys")
}

/// Rows of an outer, semi or anti join from those of the inner join and of both sides.
fn outer(join_type: JoinType, inner: Estimate, left: Estimate, right: Estimate) -> Estimate {
    let at_least = |side: Estimate| inner.zip(side, f64::max);
    let semi = |side: Estimate| inner.zip(side, f64::min);
    let anti = |side: Estimate| side.zip(semi(side), |all, matched| (all - matched).max(0.05 * all));
    match join_type {
        JoinType::Inner => inner,
        JoinType::Left => at_least(left),
        JoinType::Right => at_least(right),
        JoinType::Full => at_least(left.zip(right, f64::max)),
        JoinType::LeftSemi => semi(left),
        JoinType::RightSemi => semi(right),
        JoinType::LeftAnti => anti(left),
        JoinType::RightAnti => anti(right),
        JoinType::LeftMark => left,
        JoinType::RightMark => right,
    }
}

/// Rows of a node from those of its inputs.
fn combine(plan: &LogicalPlan, inputs: &[Estimate]) -> Estimate {
    match (plan, inputs) {
        (LogicalPlan::EmptyRelation(empty), _) => Estimate::exact(f64::from(u8::from(empty.produce_one_row))),
        (LogicalPlan::Values(values), _) => Estimate::exact(values.values.len() as f64),
        (
            LogicalPlan::Projection(_)
            | LogicalPlan::SubqueryAlias(_)
            | LogicalPlan::Window(_)
            | LogicalPlan::Repartition(_),
            [input],
        ) => *input,
        (LogicalPlan::Sort(sort), [input]) => match sort.fetch {
            Some(fetch) => input.map(|rows| rows.min(fetch as f64)),
            None => *input,
        },
        (LogicalPlan::Limit(limit), [input]) => {
            use datafusion::logical_expr::{FetchType, SkipType};
            let skip = match limit.get_skip_type() {
                Ok(SkipType::Literal(skip)) => skip as f64,
                _ => 0.0,
            };
            let fetch = match limit.get_fetch_type() {
                Ok(FetchType::Literal(Some(fetch))) => fetch as f64,
                _ => f64::INFINITY,
            };
            input.map(|rows| (rows - skip).clamp(0.0, fetch))
        }
        (LogicalPlan::TableScan(scan), _) if scan.fetch.is_some() => Estimate::fallback("limited scan"),
        (LogicalPlan::Filter(_), [input]) => input.zip(*input, |rows, _| rows * 0.2),
        (LogicalPlan::Union(_), [first, rest @ ..]) => rest.iter().fold(*first, |sum, one| sum.zip(*one, |a, b| a + b)),
        _ => Estimate::fallback("unknown operator"),
    }
}
