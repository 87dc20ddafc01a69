//! Join ordering as a logical rule, for engines that replace DataFusion's query planner.

use std::fmt;

use datafusion::common::tree_node::Transformed;
use datafusion::error::Result;
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

use super::reorder;
use crate::config::RelataConfig;
use crate::counters::count;
use crate::optimizer::Relata;

/// Orders the joins of a plan over profiled tables. It profiles none: a rule cannot wait.
pub(crate) struct JoinOrder {
    pub(crate) relata: Relata,
}

impl fmt::Debug for JoinOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinOrder").finish_non_exhaustive()
    }
}

impl OptimizerRule for JoinOrder {
    fn name(&self) -> &str {
        "relata_join_order"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        None
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let options = config.options();
        let settings = RelataConfig::of(&options).unwrap_or(&self.relata.config);
        if !settings.enabled || !settings.join_reordering {
            return Ok(Transformed::no(plan));
        }
        let (model, partitions) = (self.relata.cost_model.as_ref(), options.execution.target_partitions);
        match reorder(&self.relata.estimator(), settings, model, partitions, plan.clone()) {
            Ok(ordered) if ordered != plan => Ok(Transformed::yes(ordered)),
            Ok(_) => Ok(Transformed::no(plan)),
            Err(_) => {
                count(&self.relata.counters.failures);
                Ok(Transformed::no(plan))
            }
        }
    }
}
