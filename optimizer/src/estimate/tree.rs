//! A whole plan: regions of inner joins, and the nodes above and between them.

use std::marker::PhantomData;

use datafusion::common::Column;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Distinct, Join, JoinType, LogicalPlan, TableScan};
use hashbrown::HashMap;
use relata_featurize::groups::GroupColumn;
use relata_featurize::join_graph::{JoinGraph, column_of};

use super::{Estimate, Estimator, JoinRows, Origin};
use crate::join_order::{JoinHypergraph, address};

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
    PlanRows::new(estimator).of(plan)
}

/// The estimates of every node of a plan.
pub(crate) fn tree(estimator: &Estimator<'_>, plan: &LogicalPlan) -> PlanEstimate {
    fn node<'p>(rows: &mut PlanRows<'p, '_>, plan: &'p LogicalPlan) -> PlanEstimate {
        PlanEstimate {
            node: plan.display().to_string(),
            estimate: rows.of(plan),
            inputs: plan.inputs().into_iter().map(|input| node(rows, input)).collect(),
        }
    }
    node(&mut PlanRows::new(estimator), plan)
}

/// Rows of the nodes of one plan. Asked from the root downwards, it builds the graph of each region once: the root of a
/// region brings the rows of every join within.
#[derive(Debug)]
pub(crate) struct PlanRows<'p, 'e> {
    estimator: &'e Estimator<'e>,
    /// By the address of the node; no other node has it while the plan is borrowed.
    known: HashMap<usize, Estimate>,
    plan: PhantomData<&'p LogicalPlan>,
}

impl<'p, 'e> PlanRows<'p, 'e> {
    pub(crate) fn new(estimator: &'e Estimator<'e>) -> Self {
        Self { estimator, known: HashMap::new(), plan: PhantomData }
    }

    /// Rows of a node.
    pub(crate) fn of(&mut self, plan: &'p LogicalPlan) -> Estimate {
        if let Some(known) = self.known.get(&address(plan)) {
            return *known;
        }
        let estimate = self.estimate(plan);
        self.known.insert(address(plan), estimate);
        estimate
    }

    /// Rows of a table, whatever its filters.
    pub(crate) fn table_rows(&self, scan: &TableScan) -> Option<f64> {
        Some(self.estimator.profiles.of_scan(scan)?.profile.rows)
    }

    fn estimate(&mut self, plan: &'p LogicalPlan) -> Estimate {
        match plan {
            LogicalPlan::TableScan(scan) if scan.filters.is_empty() || scan.fetch.is_some() => self.scan(scan),
            _ if is_region(plan) || JoinHypergraph::looks_into(plan) => self.region(plan, None).0,
            LogicalPlan::Aggregate(aggregate) if aggregate.group_expr.is_empty() => Estimate::exact(1.0),
            LogicalPlan::Aggregate(aggregate) => {
                let columns: Vec<_> = aggregate.group_expr.iter().map(column_of).collect();
                self.groups(&aggregate.input, &columns)
            }
            LogicalPlan::Distinct(Distinct::All(input)) => {
                let columns = input.schema().columns();
                self.groups(input, &columns.iter().map(Some).collect::<Vec<_>>())
            }
            LogicalPlan::Join(join) if join.join_type == JoinType::Full => {
                let inner = inner_join(join);
                if !JoinGraph::is_transparent(&inner) {
                    return Estimate::fallback("join on volatile or NULL-equal keys");
                }
                let matched = rows(self.estimator, &inner);
                let sides = self.of(&join.left).zip(self.of(&join.right), f64::max);
                matched.zip(sides, f64::max)
            }
            LogicalPlan::Join(_) => Estimate::fallback("join on volatile or NULL-equal keys"),
            _ => {
                let inputs: Vec<Estimate> = plan.inputs().into_iter().map(|input| self.of(input)).collect();
                combine(plan, &inputs)
            }
        }
    }

    /// A base table without filters, or with a limit.
    fn scan(&self, scan: &TableScan) -> Estimate {
        if let Some(fetch) = scan.fetch {
            let all = LogicalPlan::TableScan(TableScan { fetch: None, ..scan.clone() });
            return rows(self.estimator, &all).map(|rows| rows.min(fetch as f64));
        }
        match self.estimator.profiles.of_scan(scan) {
            Some(table) => Estimate::exact(table.profile.rows),
            None => Estimate::fallback("no profile"),
        }
    }

    /// Rows of the region at `root` and of the nodes within, and its groups by `columns`; no groups where one of the columns
    /// is none of a base table.
    fn region(&mut self, root: &'p LogicalPlan, columns: Option<&[Option<&Column>]>) -> (Estimate, Option<Estimate>) {
        let Some(graph) = JoinHypergraph::from_plan(root) else {
            let estimate = Estimate::fallback("too many relations");
            self.forget_joins(root, estimate);
            return (estimate, None);
        };
        let columns = columns.and_then(|columns| columns.iter().map(|c| group_column(&graph.inner, *c)).collect());
        self.estimator.region(&graph.inner, |region| {
            let mut rows = JoinRows::new(self.estimator, region, &graph);
            self.known.extend(graph.plan_nodes.iter().map(|&(node, set)| (node, rows.set(set))));
            let all = rows.set(graph.all());
            let groups = columns.map(|columns: Vec<GroupColumn>| {
                let groups = rows.region.groups(graph.inner.all(), &columns);
                // Semi and anti joins drop rows, and with them groups.
                if graph.dependents.is_empty() { groups } else { groups.zip(all, f64::min) }
            });
            (all, groups)
        })
    }

    /// The same estimate for every join of a region.
    fn forget_joins(&mut self, plan: &LogicalPlan, estimate: Estimate) {
        if JoinHypergraph::looks_into(plan) {
            self.known.insert(address(plan), estimate);
            plan.inputs().into_iter().for_each(|input| self.forget_joins(input, estimate));
        }
    }

    /// Groups of the rows of `input` by `columns`; an expression that is no column is worth nothing.
    fn groups(&mut self, input: &'p LogicalPlan, columns: &[Option<&Column>]) -> Estimate {
        let mut below = input;
        while let LogicalPlan::Projection(_) | LogicalPlan::Sort(_) = below {
            if is_region(below) {
                break;
            }
            let [inner] = below.inputs()[..] else { break };
            below = inner;
        }
        let known = match with_inner_joins(below) {
            Some(inner) => PlanRows::new(self.estimator).groups_of_region(&inner, columns),
            None => self.groups_of_region(below, columns),
        };
        known.unwrap_or_else(|| self.of(input).map(f64::sqrt))
    }

    fn groups_of_region(&mut self, root: &'p LogicalPlan, columns: &[Option<&Column>]) -> Option<Estimate> {
        let known = is_region(root) || JoinHypergraph::looks_into(root) || JoinGraph::is_base_table(root);
        if known { self.region(root, Some(columns)).1 } else { None }
    }
}

pub(crate) fn group_column(graph: &JoinGraph, column: Option<&Column>) -> Option<GroupColumn> {
    let column = column?;
    let relation = graph.relations.iter().position(|r| r.plan.schema().has_column(column))?;
    Some(GroupColumn { relation, column: graph.relations[relation].table_column(column)? })
}

/// Whether a plan is estimated as a set of relations.
pub(crate) fn is_region(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::TableScan(scan) => scan.fetch.is_none(),
        LogicalPlan::Filter(filter) => JoinGraph::is_base_table(&filter.input) || JoinGraph::is_transparent(plan),
        _ => JoinGraph::is_transparent(plan),
    }
}

/// A plan with inner joins for semi joins, which keeps every group of it: DataFusion makes semi joins of the joins below
/// DISTINCT. `None` without semi joins.
fn with_inner_joins(plan: &LogicalPlan) -> Option<LogicalPlan> {
    if !has_semi_join(plan) {
        return None;
    }
    let converted = plan.clone().transform_down(|node| {
        Ok(match node {
            LogicalPlan::Join(join) if is_semi(&join) => Transformed::yes(inner_join(&join)),
            LogicalPlan::Join(_) | LogicalPlan::Filter(_) | LogicalPlan::Projection(_) => Transformed::no(node),
            leaf => Transformed::new(leaf, false, TreeNodeRecursion::Jump),
        })
    });
    converted.ok().map(|converted| converted.data)
}

fn has_semi_join(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Join(join) => is_semi(join) || has_semi_join(&join.left) || has_semi_join(&join.right),
        LogicalPlan::Filter(filter) => has_semi_join(&filter.input),
        LogicalPlan::Projection(projection) => has_semi_join(&projection.input),
        _ => false,
    }
}

fn is_semi(join: &Join) -> bool {
    matches!(join.join_type, JoinType::LeftSemi | JoinType::RightSemi)
}

fn inner_join(join: &Join) -> LogicalPlan {
    LogicalPlan::Join(Join { join_type: JoinType::Inner, ..join.clone() })
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
        // A guess, whatever is known of the input.
        (LogicalPlan::Filter(_), [input]) => {
            let origin = if input.is_known() { Origin::Analytical } else { input.origin };
            Estimate { rows: 0.2 * input.rows, lower: 0.0, upper: input.upper, origin }
        }
        (LogicalPlan::Union(_), [first, rest @ ..]) => rest.iter().fold(*first, |sum, one| sum.zip(*one, |a, b| a + b)),
        _ => Estimate::fallback("unknown operator"),
    }
}
