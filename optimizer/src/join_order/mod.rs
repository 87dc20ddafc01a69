//! Join ordering: plan -> hypergraph -> estimates -> cheapest tree -> plan.
//!
//! Every region of joins is ordered on its own; what stands between regions stays where it is. A region keeps the order of
//! the query when the predicted gain is small, when a node is unknown or when the rebuilt plan does not have exactly the
//! schema of the original.

mod considered;
mod cost;
mod enumerate;
mod graph;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result;
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::optimize_projections::OptimizeProjections;
use datafusion::optimizer::{OptimizerContext, OptimizerRule};
use relata_featurize::join_graph::RelationSet;

use crate::config::RelataConfig;
use crate::counters::count;
use crate::estimate::{Estimate, Estimator, JoinRows};

pub(crate) use considered::Considered;
use considered::Notes;
pub use cost::{CostModel, ExecutionTime, JoinMethod, JoinShape, JoinSide, OutputCost};
use enumerate::{Enumerator, JoinTree};
use graph::Shape;
pub(crate) use graph::{Dependent, JoinHypergraph, address};

/// The plan with its joins in the order the estimates favour under `model`, for execution in so many partitions.
pub(crate) fn reorder(
    estimator: &Estimator<'_>,
    config: &RelataConfig,
    model: &dyn CostModel,
    partitions: usize,
    plan: LogicalPlan,
) -> Result<LogicalPlan> {
    let ordered = Reorder { estimator, config, model, partitions, notes: None }.node(plan)?;
    if !ordered.transformed {
        return Ok(ordered.data);
    }
    // The new order has lost the projections between its joins.
    Ok(OptimizeProjections::new().rewrite(ordered.data, &OptimizerContext::new())?.data)
}

/// What [`reorder`] considers, region by region.
pub(crate) fn considered(
    estimator: &Estimator<'_>,
    config: &RelataConfig,
    model: &dyn CostModel,
    partitions: usize,
    plan: LogicalPlan,
) -> Result<Vec<Considered>> {
    let notes = Notes::default();
    Reorder { estimator, config, model, partitions, notes: Some(&notes) }.node(plan)?;
    Ok(notes.into_considered())
}

struct Reorder<'a> {
    estimator: &'a Estimator<'a>,
    config: &'a RelataConfig,
    model: &'a dyn CostModel,
    partitions: usize,
    notes: Option<&'a Notes>,
}

impl Reorder<'_> {
    fn node(&self, plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        if !JoinHypergraph::looks_into(&plan) {
            return plan.map_children(|input| self.node(input));
        }
        let Some(graph) = JoinHypergraph::from_plan(&plan) else { return self.below_all_joins(plan) };
        if let Some(tree) = self.tree(&graph) {
            let graph = graph.map_plans(|plan| Ok(self.node(plan)?.data))?;
            let rebuilt = graph.into_plan(&tree, plan.schema())?;
            if rebuilt.schema().logically_equivalent_names_and_types(plan.schema()) {
                count(&self.estimator.counters.reordered);
                return Ok(Transformed::yes(rebuilt));
            }
            count(&self.estimator.counters.rejected);
            return self.below_all_joins(plan);
        }
        match &graph.shape {
            Shape::Node(_) => plan.map_children(|input| self.node(input)),
            shape => self.below(plan, shape),
        }
    }

    /// Orders the regions below a region that stays as it is.
    fn below(&self, plan: LogicalPlan, shape: &Shape) -> Result<Transformed<LogicalPlan>> {
        match (shape, &plan) {
            (Shape::Node(_), _) => self.node(plan),
            (Shape::Join(sides), LogicalPlan::Join(join)) => {
                let mut sides = match graph::is_turned(join) {
                    true => [&sides.1, &sides.0],
                    false => [&sides.0, &sides.1],
                }
                .into_iter();
                plan.map_children(|input| match sides.next() {
                    Some(side) => self.below(input, side),
                    None => Ok(Transformed::no(input)),
                })
            }
            _ => plan.map_children(|input| self.below(input, shape)),
        }
    }

    /// The same where there is no graph.
    fn below_all_joins(&self, plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        plan.map_children(|input| {
            if JoinHypergraph::looks_into(&input) { self.below_all_joins(input) } else { self.node(input) }
        })
    }

    /// The cheapest tree of a region, if it is enough cheaper than the query's own.
    fn tree(&self, graph: &JoinHypergraph) -> Option<JoinTree> {
        if !graph.is_orderable() {
            return None;
        }
        self.estimator.region(&graph.inner, |region| {
            let counters = self.estimator.counters;
            let mut rows = JoinRows::new(self.estimator, region, graph);
            let noted = |set, estimate: Estimate| {
                if let Some(notes) = self.notes {
                    notes.set(set, estimate);
                }
                estimate
            };
            let note = |own: Option<&JoinTree>, best: Option<&JoinTree>, reordered| {
                if let Some(notes) = self.notes {
                    notes.region(graph, own, best, reordered);
                }
            };
            let known = |rows: &mut JoinRows<'_, '_>, node| {
                let set = RelationSet::single(node);
                noted(set, rows.set(set)).is_known()
            };
            if !rows.are_known() || !(0..graph.len()).all(|node| known(&mut rows, node)) {
                count(&counters.unestimated);
                note(None, None, false);
                return None;
            }
            let tables = (0..graph.inner.relations.len()).map(|relation| JoinSide {
                rows: rows.region.estimator.single(relation).unfiltered,
                width: graph.width(relation),
            });
            let scanned: f64 = tables.map(|table| self.model.scan(table, self.partitions)).sum();
            let expected = self.config.expected_cost;
            let mut rows = |set: RelationSet| {
                let estimate = noted(set, rows.set(set));
                if expected { estimate.expected() } else { estimate.rows }
            };
            let mut enumerator = Enumerator { graph, model: self.model, partitions: self.partitions, rows: &mut rows };
            let own = enumerator.original();
            let cost = scanned + own.cost;
            if cost < self.config.minimum_cost {
                count(&counters.kept);
                note(Some(&own), None, false);
                return None;
            }
            let best = enumerator.cheapest(self.config.enumeration_budget)?;
            let reordered = cost / (scanned + best.cost).max(1.0) >= self.config.minimum_gain;
            note(Some(&own), Some(&best), reordered);
            if !reordered {
                count(&counters.kept);
                return None;
            }
            Some(best)
        })
    }
}

#[cfg(test)]
mod tests;
