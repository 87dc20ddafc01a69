//! How long a query will take, and how much memory: its physical plan with relata's rows -> the physical-plan expert -> what
//! recorded executions correct it by.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use datafusion::common::config::ConfigOptions;
use datafusion::execution::memory_pool::MemoryLimit;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlanBuilder;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::analyze::AnalyzeExec;
use datafusion::prelude::SessionContext;
use relata_experts::{PhysicalExpert, ResidualPredictor};
use relata_featurize::physical::{OperatorRows, PhysicalGraph};
use relata_featurize::resources::Resources;

use crate::counters::{Counters, count};
use crate::estimate::Estimate;
use crate::optimizer::optimized;
use crate::{Relata, RelataError, Result, explain};

/// The file in the profile directory that the machine is kept in.
const MACHINE_FILE: &str = "machine.json";

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

/// How long a query takes and how much memory it holds, each as 5% quantile, median and 95% quantile.
#[derive(Debug, Clone, PartialEq)]
pub struct RuntimeEstimate {
    /// From physical plan to the last row.
    pub elapsed: [Duration; 3],
    /// The most bytes that the operators have reserved at a time.
    pub peak_bytes: [u64; 3],
    /// Of every operator on one thread, inputs before what reads them.
    pub operators: Vec<Duration>,
    /// Recorded executions that the times were corrected by; 0 where they are the expert's own.
    pub executions: usize,
}

/// What predicts runtimes: the expert, the machine it speaks of, and what recorded executions say of it where that helps.
#[derive(Debug, Clone)]
pub(crate) struct Clock {
    expert: Arc<PhysicalExpert>,
    machine: Resources,
    residuals: Option<Arc<ResidualPredictor>>,
    counters: Arc<Counters>,
}

/// What the times of a query are corrected by: 5% quantile, median and 95% quantile, in `ln` units.
pub(crate) type Residual = [f32; 3];

impl Clock {
    /// What a plan takes whose operators show their estimates; `None` where the expert refuses it.
    pub(crate) fn runtime(&self, plan: &EstimatedPlan) -> Option<RuntimeEstimate> {
        self.corrected(plan, self.residual(plan))
    }

    /// What recorded executions say of a plan, for the other plans of its query as well: they are compared by the expert.
    pub(crate) fn residual(&self, plan: &EstimatedPlan) -> Option<Residual> {
        let residual = self.residuals.as_ref()?.residual(&self.expert, &plan.graph, &plan.rows, &self.machine);
        residual.inspect_err(|_| count(&self.counters.failures)).ok()
    }

    /// What a plan takes, corrected by a residual where there is one.
    pub(crate) fn corrected(&self, plan: &EstimatedPlan, residual: Option<Residual>) -> Option<RuntimeEstimate> {
        let rows = plan.graph.filled(&plan.rows);
        let mut runtime = self.expert.runtime(&plan.graph, &rows, &self.machine).ok()?;
        let mut executions = 0;
        if let (Some(residuals), Some(residual)) = (&self.residuals, residual) {
            (runtime, executions) = (runtime.corrected(residual), residuals.executions());
        }
        let duration = |microseconds: f64| Duration::try_from_secs_f64(microseconds / 1e6).unwrap_or(Duration::MAX);
        Some(RuntimeEstimate {
            elapsed: runtime.elapsed_us.map(duration),
            peak_bytes: runtime.peak_bytes.map(|bytes| bytes as u64),
            operators: runtime.operators_us.into_iter().map(duration).collect(),
            executions,
        })
    }
}

impl EstimatedPlan {
    /// The plan whose operators show their estimates, under the settings of a session whose operators may hold so many bytes.
    pub(crate) fn new(plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions, memory_limit: Option<usize>) -> Self {
        let ConfigOptions { execution, .. } = config;
        let graph = PhysicalGraph::new(plan.as_ref(), execution.target_partitions, execution.batch_size.get());
        let rows = explain::estimates(plan.as_ref()).into_iter();
        let rows = rows.map(|estimate| estimate.map(operator_rows)).collect();
        Self { graph: graph.with_memory_limit(memory_limit), plan, rows }
    }
}

impl Relata {
    /// Predicts for this machine from now on, instead of measuring the one it runs on.
    #[must_use]
    pub fn with_machine(mut self, machine: Resources) -> Self {
        self.machine = Arc::new(Some(machine).into());
        self
    }

    /// The machine: measured at the first call, in about half a second, and kept beside the profiles; `None` where that fails.
    pub async fn machine(&self) -> Option<&Resources> {
        let directory = self.profiles.directory.as_deref();
        let machine = self.machine.get_or_init(|| async {
            let machine = measured(directory).await;
            machine.inspect_err(|_| count(&self.counters.failures)).ok()
        });
        machine.await.as_ref()
    }

    pub(crate) async fn clock(&self) -> Option<Clock> {
        let expert = Arc::clone(self.physical.as_ref()?);
        let machine = self.machine().await?.clone();
        let residuals = self.residuals(&expert).await;
        Some(Clock { expert, machine, residuals, counters: Arc::clone(&self.counters) })
    }

    /// The physical plan of a query in a session that relata is installed in, with the rows of its operators.
    ///
    /// # Errors
    /// When the statement is no query, or cannot be parsed or planned.
    pub async fn estimated_plan(&self, state: &SessionState, sql: &str) -> Result<EstimatedPlan> {
        let explained = LogicalPlanBuilder::from(optimized(state, sql).await?).explain(false, true)?.build()?;
        let physical = state.query_planner().create_physical_plan(&explained, state).await?;
        let plan = physical.downcast_ref::<AnalyzeExec>().map_or(&physical, AnalyzeExec::input);
        let memory_limit = memory_limit(state.runtime_env());
        Ok(EstimatedPlan::new(Arc::clone(plan), state.config_options(), memory_limit))
    }

    /// How long a query will take in a session that relata is installed in, and how much memory, without running it: for admission
    /// control, schedules and timeouts. Where `relata.record` keeps executed queries that help, they correct the times; they are
    /// read at the first call, and again when there are a quarter more of them.
    ///
    /// # Errors
    /// When the statement is no query, cannot be parsed or planned, or nothing predicts its runtime.
    pub async fn estimate_runtime(&self, ctx: &SessionContext, sql: &str) -> Result<RuntimeEstimate> {
        let clock = self.clock().await.ok_or_else(|| RelataError::NoRuntime("no expert or no machine".to_owned()))?;
        let plan = self.estimated_plan(&ctx.state(), sql).await?;
        clock.runtime(&plan).ok_or_else(|| RelataError::NoRuntime("the expert refuses the plan".to_owned()))
    }
}

/// Bytes that the operators of a session may hold at a time; `None` without a limit.
pub(crate) fn memory_limit(environment: &RuntimeEnv) -> Option<usize> {
    match environment.memory_pool.memory_limit() {
        MemoryLimit::Finite(bytes) => Some(bytes),
        _ => None,
    }
}

/// The machine that is kept in a directory, or a new measurement of this one.
async fn measured(directory: Option<&Path>) -> Result<Resources> {
    let file = directory.map(|directory| directory.join(MACHINE_FILE));
    if let Some(kept) = file.as_ref().and_then(|file| Resources::load(file).ok()) {
        return Ok(kept);
    }
    let machine = Resources::measure().await?;
    if let Some(file) = file {
        // It is measured again next time.
        let _ = machine.save(&file);
    }
    Ok(machine)
}

fn operator_rows(estimate: Estimate) -> OperatorRows {
    OperatorRows { rows: estimate.rows as f32, lower: estimate.lower as f32, upper: estimate.upper as f32 }
}
