//! Join ordering: join graph -> estimates -> cheapest tree -> logical plan.
//!
//! Every region of inner joins is ordered on its own; what stands between regions stays where it is. A region keeps the
//! order of the query when the predicted gain is small, when a relation is unknown or when the rebuilt plan does not have
//! exactly the schema of the original.

mod cost;
mod enumerate;
mod rebuild;

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result;
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::optimize_projections::OptimizeProjections;
use datafusion::optimizer::{OptimizerContext, OptimizerRule};
use relata_featurize::join_graph::{JoinGraph, RelationSet};

use crate::config::RelataConfig;
use crate::counters::count;
use crate::estimate::{Estimator, Region};

pub use cost::{CostModel, HashJoinCost, OutputCost};
use enumerate::JoinTree;

/// The plan with its inner joins in the order the estimates favour under `model`.
pub(crate) fn reorder(
    estimator: &Estimator<'_>,
    config: &RelataConfig,
    model: &dyn CostModel,
    plan: LogicalPlan,
) -> Result<LogicalPlan> {
    let ordered = Reorder { estimator, config, model }.node(plan)?;
    if !ordered.transformed {
        return Ok(ordered.data);
    }
    // The new order has lost the projections between its joins.
    Ok(OptimizeProjections::new().rewrite(ordered.data, &OptimizerContext::new())?.data)
}

struct Reorder<'a> {
    estimator: &'a Estimator<'a>,
    config: &'a RelataConfig,
    model: &'a dyn CostModel,
}

impl Reorder<'_> {
    fn node(&self, plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        if !JoinGraph::is_transparent(&plan) {
            return plan.map_children(|input| self.node(input));
        }
        match self.region(&plan)? {
            Some(ordered) => Ok(Transformed::yes(ordered)),
            None => self.inputs_of_region(plan),
        }
    }

    /// Orders the regions below a region that stays as it is.
    fn inputs_of_region(&self, plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        plan.map_children(|input| {
            if JoinGraph::is_transparent(&input) { self.inputs_of_region(input) } else { self.node(input) }
        })
    }

    fn region(&self, plan: &LogicalPlan) -> Result<Option<LogicalPlan>> {
        let Some(graph) = JoinGraph::from_plan(plan).map(Arc::new) else { return Ok(None) };
        let orderable = graph.relations.len() > 2
            && graph.is_connected(graph.all())
            && graph.residuals.iter().all(|residual| residual.relations.len() > 1);
        if !orderable {
            return Ok(None);
        }
        let counters = self.estimator.counters;
        let Some(tree) = self.estimator.region(&graph, |region| self.best_tree(region, &graph, plan)) else {
            return Ok(None);
        };
        let mut graph = Arc::unwrap_or_clone(graph);
        for relation in &mut graph.relations {
            relation.plan = self.node(relation.plan.clone())?.data;
        }
        let rebuilt = rebuild::plan(&graph, &tree, plan.schema())?;
        if !rebuilt.schema().logically_equivalent_names_and_types(plan.schema()) {
            count(&counters.rejected);
            return Ok(None);
        }
        count(&counters.reordered);
        Ok(Some(rebuilt))
    }

    /// The cheapest tree, if it is enough cheaper than the query's own.
    fn best_tree(&self, region: &mut Region<'_>, graph: &JoinGraph, plan: &LogicalPlan) -> Option<JoinTree> {
        let known = (0..graph.relations.len()).all(|r| region.set(RelationSet::single(r)).is_known());
        if !known {
            count(&self.estimator.counters.unestimated);
            return None;
        }
        let scanned: f64 = (0..graph.relations.len()).map(|r| region.estimator.single(r).unfiltered).sum();
        let mut rows = |set: RelationSet| region.set(set).rows;
        let own = enumerate::original(graph, plan, &mut rows, self.model)?;
        let best = enumerate::cheapest(graph, &mut rows, self.model, self.config.enumeration_budget)?;
        if (scanned + own.cost) / (scanned + best.cost).max(1.0) < self.config.minimum_gain {
            count(&self.estimator.counters.kept);
            return None;
        }
        Some(best)
    }
}

#[cfg(test)]
mod tests;
