//! Join ordering: join graph -> estimates -> cheapest tree -> logical plan.
//!
//! Every region of inner joins is ordered on its own; what stands between regions stays where it is. A region keeps the
//! order of the query when the predicted gain is small, when a relation is unknown or when the rebuilt plan does not have
//! exactly the schema of the original.

mod cost;
mod enumerate;
mod rebuild;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result;
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::optimize_projections::OptimizeProjections;
use datafusion::optimizer::{OptimizerContext, OptimizerRule};
use relata_featurize::join_graph::{JoinGraph, RelationSet};

use crate::config::RelataConfig;
use crate::counters::count;
use crate::estimate::{Estimator, Region};

pub use cost::{CostModel, HashJoinCost};
use enumerate::JoinTree;

/// Relations beyond which the experts are left out of enumeration.
const LARGE_REGION: usize = 20;

/// The plan with its inner joins in the order the estimates favour.
pub(crate) fn reorder(estimator: &Estimator<'_>, config: &RelataConfig, plan: LogicalPlan) -> Result<LogicalPlan> {
    let ordered = reorder_node(estimator, config, plan)?;
    if !ordered.transformed {
        return Ok(ordered.data);
    }
    // The new order has lost the projections between its joins.
    Ok(OptimizeProjections::new().rewrite(ordered.data, &OptimizerContext::new())?.data)
}

fn reorder_node(
    estimator: &Estimator<'_>,
    config: &RelataConfig,
    plan: LogicalPlan,
) -> Result<Transformed<LogicalPlan>> {
    if !JoinGraph::is_transparent(&plan) {
        return plan.map_children(|input| reorder_node(estimator, config, input));
    }
    match reorder_region(estimator, config, &plan)? {
        Some(ordered) => Ok(Transformed::yes(ordered)),
        None => inputs_of_region(estimator, config, plan),
    }
}

/// Orders the regions below a region that stays as it is.
fn inputs_of_region(
    estimator: &Estimator<'_>,
    config: &RelataConfig,
    plan: LogicalPlan,
) -> Result<Transformed<LogicalPlan>> {
    plan.map_children(|input| {
        if JoinGraph::is_transparent(&input) {
            inputs_of_region(estimator, config, input)
        } else {
            reorder_node(estimator, config, input)
        }
    })
}

fn reorder_region(estimator: &Estimator<'_>, config: &RelataConfig, plan: &LogicalPlan) -> Result<Option<LogicalPlan>> {
    let Some(mut graph) = JoinGraph::from_plan(plan) else { return Ok(None) };
    let orderable = graph.relations.len() > 2
        && graph.is_connected(graph.all())
        && graph.residuals.iter().all(|residual| residual.relations.len() > 1);
    if !orderable {
        return Ok(None);
    }
    let Some(tree) = best_tree(estimator, config, &graph, plan) else { return Ok(None) };
    for relation in &mut graph.relations {
        relation.plan = reorder_node(estimator, config, relation.plan.clone())?.data;
    }
    let rebuilt = rebuild::plan(&graph, &tree, plan.schema())?;
    if !rebuilt.schema().logically_equivalent_names_and_types(plan.schema()) {
        count(&estimator.counters.rejected);
        return Ok(None);
    }
    count(&estimator.counters.reordered);
    Ok(Some(rebuilt))
}

/// The cheapest tree, if it is enough cheaper than the query's own.
fn best_tree(
    estimator: &Estimator<'_>,
    config: &RelataConfig,
    graph: &JoinGraph,
    plan: &LogicalPlan,
) -> Option<JoinTree> {
    let experts = estimator.experts.filter(|_| graph.relations.len() <= LARGE_REGION);
    let estimator = &Estimator::new(experts, estimator.profiles, estimator.counters);
    let mut region = Region::new(estimator, graph);
    let known = (0..graph.relations.len()).all(|r| region.set(RelationSet::single(r)).is_known());
    if !known {
        count(&estimator.counters.unestimated);
        return None;
    }
    let mut rows = |set: RelationSet| region.set(set).rows;
    let model = HashJoinCost;
    let own = enumerate::original(graph, plan, &mut rows, &model)?;
    let best = enumerate::cheapest(graph, &mut rows, &model, config.enumeration_budget)?;
    let scanned: f64 = (0..graph.relations.len()).map(|r| region.estimator.single(r).unfiltered).sum();
    if (scanned + own.cost) / (scanned + best.cost).max(1.0) < config.minimum_gain {
        count(&estimator.counters.kept);
        return None;
    }
    Some(best)
}
