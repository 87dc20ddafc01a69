//! A physical node that shows an estimate of its rows.

use std::any::Any;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::physical_expr::{Distribution, OrderingRequirements, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{CardinalityEffect, InvariantLevel};
use datafusion::physical_plan::metrics::{
    Count, CustomMetricValue, Metric, MetricCategory, MetricType, MetricValue, MetricsSet,
};
use datafusion::physical_plan::statistics::ChildStats;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, InputDistributionRequirements, PlanProperties,
    ReplaceChildrenOptions, SendableRecordBatchStream, Statistics, StatisticsArgs,
};

use super::{interval, rows_of};
use crate::estimate::Estimate;

/// Stands for a node wherever a plan is looked at, and has it do the work.
///
/// The node keeps its own inputs: what runs is the plan as it was, every dynamic filter included. What is looked at are
/// `inputs`, which stand for them. It is the last rule that makes these nodes, so what rewrites a plan is left to the
/// defaults, which refuse.
#[derive(Debug)]
pub(super) struct EstimatedExec {
    node: Arc<dyn ExecutionPlan>,
    inputs: Vec<Arc<dyn ExecutionPlan>>,
    estimate: Option<Estimate>,
    /// How long it takes, in words.
    runtime: OnceLock<String>,
}

impl EstimatedExec {
    pub(super) fn new(
        node: Arc<dyn ExecutionPlan>,
        inputs: Vec<Arc<dyn ExecutionPlan>>,
        estimate: Option<Estimate>,
    ) -> Self {
        Self { node, inputs, estimate, runtime: OnceLock::new() }
    }

    /// Shows how long it takes as well; the first word stays.
    pub(super) fn set_runtime(&self, runtime: String) {
        let _ = self.runtime.set(runtime);
    }

    pub(super) fn node(&self) -> &Arc<dyn ExecutionPlan> {
        &self.node
    }

    pub(super) fn estimate(&self) -> Option<Estimate> {
        self.estimate
    }
}

impl DisplayAs for EstimatedExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.estimate.map(|estimate| (rows_of(&estimate), interval(&estimate), estimate.origin));
        match format {
            DisplayFormatType::Default | DisplayFormatType::Verbose => {
                self.node.fmt_as(format, f)?;
                if let Some((rows, interval, origin)) = shown {
                    write!(f, ", relata_rows={rows}{interval} {origin}")?;
                }
                self.runtime.get().map_or(Ok(()), |runtime| write!(f, ", relata_time={runtime}"))
            }
            DisplayFormatType::TreeRender => {
                // Lines end in different ways, and an empty one is drawn.
                let own = Displayed(self.node.as_ref(), format).to_string();
                own.lines().try_for_each(|line| writeln!(f, "{line}"))?;
                if let Some((rows, interval, origin)) = shown {
                    writeln!(f, "relata_rows={rows}{interval}")?;
                    writeln!(f, "relata_origin={origin}")?;
                }
                self.runtime.get().map_or(Ok(()), |runtime| writeln!(f, "relata_time={runtime}"))
            }
        }
    }
}

/// A node alone, as it displays itself.
pub(super) struct Displayed<'a>(pub(super) &'a dyn ExecutionPlan, pub(super) DisplayFormatType);

impl fmt::Display for Displayed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt_as(self.1, f)
    }
}

impl ExecutionPlan for EstimatedExec {
    fn name(&self) -> &str {
        self.node.name()
    }

    fn downcast_delegate(&self) -> Option<&dyn ExecutionPlan> {
        Some(self.node.as_ref())
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.node.properties()
    }

    fn check_invariants(&self, check: InvariantLevel) -> Result<()> {
        self.node.check_invariants(check)
    }

    fn dynamic_expressions_produced(&self) -> Vec<Arc<dyn PhysicalExpr>> {
        self.node.dynamic_expressions_produced()
    }

    fn required_input_distribution(&self) -> Vec<Distribution> {
        self.input_distribution_requirements().into_per_child()
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        self.node.input_distribution_requirements()
    }

    fn required_input_ordering(&self) -> Vec<Option<OrderingRequirements>> {
        self.node.required_input_ordering()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        self.node.maintains_input_order()
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        self.node.benefits_from_input_partitioning()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.inputs.iter().collect()
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.node.apply_expressions(f)
    }

    fn replace_children(
        self: Arc<Self>,
        inputs: Vec<Arc<dyn ExecutionPlan>>,
        options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let node = Arc::clone(&self.node).replace_children(inputs.clone(), options)?;
        Ok(Arc::new(Self { node, inputs, estimate: self.estimate, runtime: self.runtime.clone() }))
    }

    fn with_new_children(self: Arc<Self>, inputs: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(inputs, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn reset_state(self: Arc<Self>) -> Result<Arc<dyn ExecutionPlan>> {
        let node = Arc::clone(&self.node).reset_state()?;
        let (inputs, runtime) = (self.inputs.clone(), self.runtime.clone());
        Ok(Arc::new(Self { node, inputs, estimate: self.estimate, runtime }))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        self.node.execute(partition, context)
    }

    fn metrics(&self) -> Option<MetricsSet> {
        let mut metrics = self.node.metrics()?;
        if let Some(estimate) = self.estimate.filter(Estimate::is_known) {
            let rows = Count::new();
            rows.add(estimate.rows.round() as usize);
            let rows = MetricValue::Count { name: "relata_rows".into(), count: rows };
            let compared = metrics.output_rows().map(|actual| QError::new(estimate.rows, actual as f64));
            let q_error = |q_error| MetricValue::Custom { name: "relata_q_error".into(), value: Arc::new(q_error) };
            for value in std::iter::once(rows).chain(compared.map(q_error)) {
                let metric = Metric::new(value, None).with_type(MetricType::Summary);
                metrics.push(Arc::new(metric.with_category(MetricCategory::Rows)));
            }
        }
        Some(metrics)
    }

    fn statistics_from_inputs(&self, inputs: &[Arc<Statistics>], args: &StatisticsArgs) -> Result<Arc<Statistics>> {
        self.node.statistics_from_inputs(inputs, args)
    }

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        self.node.child_stats_requests(partition)
    }

    fn supports_limit_pushdown(&self) -> bool {
        self.node.supports_limit_pushdown()
    }

    fn fetch(&self) -> Option<usize> {
        self.node.fetch()
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        self.node.cardinality_effect()
    }
}

/// How many times too large or too small an estimate was, as the bits of a positive number.
#[derive(Debug, Default)]
pub(super) struct QError(AtomicU64);

impl QError {
    /// Of estimated and actual rows, both at least one.
    pub(super) fn new(estimated: f64, actual: f64) -> Self {
        let (estimated, actual) = (estimated.max(1.0), actual.max(1.0));
        Self(AtomicU64::new((estimated / actual).max(actual / estimated).to_bits()))
    }

    fn value(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}

impl fmt::Display for QError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2}", self.value())
    }
}

impl CustomMetricValue for QError {
    fn new_empty(&self) -> Arc<dyn CustomMetricValue> {
        Arc::new(Self::default())
    }

    /// The larger one: positive numbers are in the order of their bits.
    fn aggregate(&self, other: Arc<dyn CustomMetricValue>) {
        if let Some(other) = other.as_any().downcast_ref::<Self>() {
            self.0.fetch_max(other.0.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn is_eq(&self, other: &Arc<dyn CustomMetricValue>) -> bool {
        other.as_any().downcast_ref::<Self>().is_some_and(|other| other.value().total_cmp(&self.value()).is_eq())
    }
}
