//! The rows that pass through the nodes of an executed plan.
//!
//! A physical rule that runs before all others puts a counting node above every scan, filter, join and aggregate. The nodes
//! are told apart by their [`Place`], so it does not matter which side of a join is built. Nothing is pushed through a counting
//! node, so that no dynamic filter of a join thins out what is counted below it.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, Statistics};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::CrossJoinExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildStats, ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties,
    PhysicalExpr, PlanProperties, ReplaceChildrenOptions, StatisticsArgs,
};
use futures::StreamExt;
use hashbrown::HashMap;

use crate::statistics::{Place, QueryRows};

/// What one counting node has seen.
#[derive(Debug, Default)]
struct Count {
    rows: AtomicUsize,
    /// Partitions there are, and partitions that were read to their end.
    partitions: AtomicUsize,
    finished: AtomicUsize,
}

/// Counts the rows of a query's nodes while it is executed.
#[derive(Debug)]
pub(super) struct CountRows {
    known: QueryRows,
    counts: Mutex<HashMap<Place, Arc<Count>>>,
}

impl CountRows {
    /// Of the plan that `known` is about.
    pub(super) fn new(known: QueryRows) -> Self {
        Self { known, counts: Mutex::default() }
    }

    /// The rows of each place that was read to its end.
    pub(super) fn rows(&self) -> HashMap<Place, f64> {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let complete = |count: &&Arc<Count>| {
            let [partitions, finished] = [&count.partitions, &count.finished].map(|n| n.load(Ordering::Relaxed));
            partitions > 0 && partitions == finished
        };
        let counted = counts.iter().map(|(place, count)| (*place, count));
        let counted = counted.filter(|(_, count)| complete(count));
        counted.map(|(place, count)| (place, count.rows.load(Ordering::Relaxed) as f64)).collect()
    }

    fn count(&self, place: Place, plan: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
        let count = Arc::new(Count::default());
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).insert(place, Arc::clone(&count));
        Arc::new(CountedExec { input: plan, count })
    }

    /// The plan with counting nodes, its place, and whether it is made of scans, joins and filters only since the last
    /// aggregate, limit or the like below it.
    fn counted(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        next_scan: &mut usize,
    ) -> Result<(Arc<dyn ExecutionPlan>, Place, bool)> {
        let inputs: Vec<Arc<dyn ExecutionPlan>> = plan.children().into_iter().map(Arc::clone).collect();
        if inputs.is_empty() {
            let place = Place::scan(*next_scan);
            *next_scan += 1;
            return Ok((self.count(place, plan), place, true));
        }
        let mut places = Vec::with_capacity(inputs.len());
        let mut counted = Vec::with_capacity(inputs.len());
        let mut open = true;
        for input in inputs {
            let (input, place, input_open) = self.counted(input, next_scan)?;
            counted.push(input);
            places.push(place);
            open &= input_open;
        }
        let aggregates = plan.downcast_ref::<AggregateExec>().is_some_and(|a| *a.mode() != AggregateMode::Partial);
        let place = Place::over(&places, aggregates);
        let is_join = counted.len() == 2 && plan.downcast_ref::<CrossJoinExec>().is_none();
        let is_filter = open && plan.downcast_ref::<FilterExec>().is_some();
        let passes = open && plan.downcast_ref::<ProjectionExec>().is_some();
        let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
        let plan = plan.replace_children(counted, options)?;
        Ok(if is_join || is_filter || aggregates {
            (self.count(place, plan), place, !aggregates)
        } else {
            (plan, place, passes)
        })
    }
}

impl PhysicalOptimizerRule for CountRows {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        if self.known.leaves(&plan).is_none() {
            return Ok(plan);
        }
        Ok(self.counted(plan, &mut 0)?.0)
    }

    fn name(&self) -> &str {
        "relata_count_rows"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Passes its input on and counts it.
#[derive(Debug, Clone)]
struct CountedExec {
    input: Arc<dyn ExecutionPlan>,
    count: Arc<Count>,
}

impl DisplayAs for CountedExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CountedExec")
    }
}

impl ExecutionPlan for CountedExec {
    fn name(&self) -> &str {
        "CountedExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let input = children.pop().unwrap_or_else(|| Arc::clone(&self.input));
        Ok(Arc::new(Self { input, count: Arc::clone(&self.count) }))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        self.count.partitions.store(self.input.output_partitioning().partition_count(), Ordering::Relaxed);
        let input = self.input.execute(partition, context)?;
        let count = Arc::clone(&self.count);
        let seen = input.inspect(move |batch| {
            if let Ok(batch) = batch {
                count.rows.fetch_add(batch.num_rows(), Ordering::Relaxed);
            }
        });
        let count = Arc::clone(&self.count);
        let end = futures::stream::poll_fn(move |_| {
            count.finished.fetch_add(1, Ordering::Relaxed);
            std::task::Poll::Ready(None)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), seen.chain(end.fuse()))))
    }

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        vec![ChildStats::At(partition)]
    }

    fn statistics_from_inputs(&self, inputs: &[Arc<Statistics>], _: &StatisticsArgs) -> Result<Arc<Statistics>> {
        match inputs {
            [input] => Ok(Arc::clone(input)),
            _ => Ok(Arc::new(Statistics::new_unknown(&self.schema()))),
        }
    }
}
