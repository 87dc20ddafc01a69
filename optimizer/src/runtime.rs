//! How long a query will take: its physical plan with relata's rows, as the physical-plan expert reads it.

use std::sync::Arc;

use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlanBuilder;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::analyze::AnalyzeExec;
use relata_featurize::physical::{OperatorRows, PhysicalGraph};

use crate::estimate::Estimate;
use crate::optimizer::optimized;
use crate::{Relata, Result, explain};

/// A physical plan with the estimated rows of its operators.
#[derive(Debug, Clone)]
pub struct EstimatedPlan {
    /// The plan; it runs like any other.
    pub plan: Arc<dyn ExecutionPlan>,
    /// The same for the experts.
    pub graph: PhysicalGraph,
    /// The rows of its operators, where they are known. `[N]`
    pub rows: Vec<Option<OperatorRows>>,
}

impl Relata {
    /// The physical plan of a query in a session that relata is installed in, with the rows of its operators.
    ///
    /// # Errors
    /// When the statement is no query, or cannot be parsed or planned.
    pub async fn estimated_plan(&self, state: &SessionState, sql: &str) -> Result<EstimatedPlan> {
        let explained = LogicalPlanBuilder::from(optimized(state, sql).await?).explain(false, true)?.build()?;
        let physical = state.query_planner().create_physical_plan(&explained, state).await?;
        let plan = physical.downcast_ref::<AnalyzeExec>().map_or(&physical, AnalyzeExec::input);
        let execution = &state.config_options().execution;
        let graph = PhysicalGraph::new(plan.as_ref(), execution.target_partitions, execution.batch_size.get());
        let rows = explain::estimates(plan.as_ref()).into_iter().map(|estimate| estimate.map(operator_rows)).collect();
        Ok(EstimatedPlan { plan: Arc::clone(plan), graph, rows })
    }
}

fn operator_rows(estimate: Estimate) -> OperatorRows {
    OperatorRows { rows: estimate.rows as f32, lower: estimate.lower as f32, upper: estimate.upper as f32 }
}
