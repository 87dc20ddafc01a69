//! Build sides and partitioning of the joins of a physical plan, by relata's rows and the cost model.
//!
//! DataFusion's `join_selection` builds on the side with fewer bytes and partitions a join whose build side is over a
//! threshold, whatever the number of partitions and however much larger the probe side is. Where relata knows the rows of
//! every join of a plan this rule takes its place; otherwise `join_selection` runs, with relata's rows as statistics.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::physical_optimizer::{PhysicalOptimizerContext, PhysicalOptimizerRule};
use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec, PartitionMode};
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, replace_children_if_necessary};

use relata_featurize::physical::row_width;

use crate::join_order::{CostModel, JoinMethod, JoinShape, JoinSide};
use crate::statistics::{Known, NodeRows, Rows};

/// The name of the rule that this one stands in for.
pub(crate) const REPLACED: &str = "join_selection";

/// The rule.
#[derive(Debug)]
pub(crate) struct JoinMethods {
    rows: Arc<NodeRows>,
    model: Arc<dyn CostModel>,
    replaced: Arc<dyn PhysicalOptimizerRule + Send + Sync>,
}

impl JoinMethods {
    pub(crate) fn new(
        rows: Arc<NodeRows>,
        model: Arc<dyn CostModel>,
        replaced: Arc<dyn PhysicalOptimizerRule + Send + Sync>,
    ) -> Self {
        Self { rows, model, replaced }
    }
}

impl PhysicalOptimizerRule for JoinMethods {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        match self.choose(&plan, config)? {
            Some(chosen) => Ok(chosen),
            None => self.replaced.optimize(plan, config),
        }
    }

    fn optimize_with_context(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        context: &dyn PhysicalOptimizerContext,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match self.choose(&plan, context.config_options())? {
            Some(chosen) => Ok(chosen),
            None => self.replaced.optimize_with_context(plan, context),
        }
    }

    fn name(&self) -> &str {
        REPLACED
    }

    fn schema_check(&self) -> bool {
        true
    }
}

impl JoinMethods {
    /// The plan with a method for every join; `None` where the rows of one are unknown, or an input never ends.
    fn choose(&self, plan: &Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        if !self.rows.is_identified() || !config.optimizer.join_reordering {
            return Ok(None);
        }
        let choice = Choice { rows: &self.rows, model: self.model.as_ref(), config };
        Ok(choice.node(plan)?.map(|(chosen, _)| chosen))
    }
}

struct Choice<'a> {
    rows: &'a NodeRows,
    model: &'a dyn CostModel,
    config: &'a ConfigOptions,
}

/// A node with its rows and its place, where they are known.
type Chosen = (Arc<dyn ExecutionPlan>, Option<(Rows, Known)>);

impl Choice<'_> {
    fn node(&self, plan: &Arc<dyn ExecutionPlan>) -> Result<Option<Chosen>> {
        let children = plan.children();
        if children.is_empty() {
            let ends = !plan.boundedness().is_unbounded();
            return Ok(ends.then(|| (Arc::clone(plan), self.rows.leaf(plan.as_ref()))));
        }
        let mut inputs = Vec::with_capacity(children.len());
        let mut known = Vec::with_capacity(children.len());
        for child in children {
            let Some((input, rows)) = self.node(child)? else { return Ok(None) };
            inputs.push(input);
            known.push(rows);
        }
        let own = known.iter().map(|rows| rows.map(|(_, known)| known)).collect::<Option<Vec<Known>>>();
        let own = own.and_then(|inputs| self.rows.node(plan.as_ref(), &inputs));
        let plan = replace_children_if_necessary(Arc::clone(plan), inputs)?;
        let is_join = plan.is::<HashJoinExec>() || plan.is::<CrossJoinExec>() || plan.is::<NestedLoopJoinExec>();
        if !is_join {
            return Ok(Some((plan, own)));
        }
        let ([Some((left, _)), Some((right, _))], Some((output, _))) = (&known[..], own) else { return Ok(None) };
        Ok(Some((self.join(&plan, left.mean, right.mean, output.mean)?, own)))
    }

    /// The join by its cheapest method.
    fn join(
        &self,
        plan: &Arc<dyn ExecutionPlan>,
        left: f64,
        right: f64,
        output: f64,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let side =
            |plan: &Arc<dyn ExecutionPlan>, rows: f64| JoinSide { rows, width: row_width(&plan.schema()) as f64 };
        let children = plan.children();
        let (left, right) = (side(children[0], left), side(children[1], right));
        let partitions = self.config.execution.target_partitions;
        let shape = JoinShape { build: left, probe: right, output: side(plan, output), partitions };
        let swapped = JoinShape { build: right, probe: left, ..shape };
        if let Some(join) = plan.downcast_ref::<HashJoinExec>() {
            return self.hash_join(join, &shape, &swapped);
        }
        let loops = |shape: &JoinShape| self.model.join(JoinMethod::NestedLoop, shape);
        if loops(&shape) <= loops(&swapped) {
            return Ok(Arc::clone(plan));
        }
        match (plan.downcast_ref::<CrossJoinExec>(), plan.downcast_ref::<NestedLoopJoinExec>()) {
            (Some(join), _) => join.swap_inputs(),
            (_, Some(join)) if join.join_type().supports_swap() => join.swap_inputs(),
            _ => Ok(Arc::clone(plan)),
        }
    }

    fn hash_join(&self, join: &HashJoinExec, shape: &JoinShape, swapped: &JoinShape) -> Result<Arc<dyn ExecutionPlan>> {
        // NOT IN asks for one table of all its values.
        let partitioned = *join.partition_mode() != PartitionMode::CollectLeft && !join.null_aware;
        let cheapest = |shape: &JoinShape| match partitioned {
            true => self.model.hash_join(shape),
            false => (JoinMethod::BroadcastHash, self.model.join(JoinMethod::BroadcastHash, shape)),
        };
        let mode = |method: JoinMethod| match method {
            JoinMethod::PartitionedHash => PartitionMode::Partitioned,
            _ => PartitionMode::CollectLeft,
        };
        let (own, other) = (cheapest(shape), cheapest(swapped));
        if join.join_type().supports_swap() && !join.null_aware && other.1 < own.1 {
            return join.swap_inputs(mode(other.0));
        }
        Ok(Arc::new(join.builder().with_partition_mode(mode(own.0)).build()?))
    }
}
