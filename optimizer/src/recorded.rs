//! Executed queries, kept for `relata tune` and for predicted runtimes: with `relata.record` every query that runs to its end leaves a line in the profile
//! directory, with its plan, the rows that were estimated, and the rows and times of its operators. No names, no constants and no
//! data are in it.

use std::fs::OpenOptions;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::Poll;
use std::time::Instant;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::metrics::MetricsSet;
use datafusion::physical_plan::statistics::ChildStats;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties,
    ReplaceChildrenOptions, SendableRecordBatchStream, Statistics, StatisticsArgs,
};
use futures::StreamExt;
use relata_featurize::physical::observe;
use relata_featurize::resources::Resources;
use relata_featurize::trace::Execution;

use crate::Relata;
use crate::counters::{Counters, count};
use crate::runtime::EstimatedPlan;

/// The file in the profile directory, one JSON object a line.
const RECORD_FILE: &str = "executions.jsonl";

/// The record of one profile directory.
#[derive(Debug, Default)]
pub(crate) struct Record {
    /// Lines of the file, once they were counted.
    lines: Mutex<Option<usize>>,
    /// Lines that were added.
    added: AtomicUsize,
}

impl Record {
    /// Adds a line; where there are twice as many as `most` the first ones go.
    fn add(&self, directory: &Path, execution: &Execution, most: usize) -> io::Result<()> {
        let mut line = serde_json::to_vec(execution)?;
        line.push(b'\n');
        let path = directory.join(RECORD_FILE);
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        std::fs::create_dir_all(directory)?;
        let before = match *lines {
            Some(lines) => lines,
            None => read(&path)?.lines().count(),
        };
        // One write, so that lines of several processes do not mix.
        OpenOptions::new().create(true).append(true).open(&path)?.write_all(&line)?;
        *lines = Some(before + 1);
        self.added.fetch_add(1, Ordering::Relaxed);
        if before + 1 >= 2 * most {
            let text = read(&path)?;
            let all: Vec<&str> = text.split_inclusive('\n').collect();
            let partial = path.with_extension("partial");
            std::fs::write(&partial, all[all.len().saturating_sub(most)..].concat())?;
            std::fs::rename(&partial, &path)?;
            *lines = Some(most.min(all.len()));
        }
        Ok(())
    }

    /// Executions that were recorded since this was made.
    pub(crate) fn added(&self) -> usize {
        self.added.load(Ordering::Relaxed)
    }
}

fn read(path: &Path) -> io::Result<String> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error),
    }
}

impl Relata {
    /// The executed queries that are recorded in the profile directory, the oldest first; damaged lines are left out.
    ///
    /// # Errors
    /// The record cannot be read.
    pub fn recorded(&self) -> io::Result<Vec<Execution>> {
        self.last_recorded(usize::MAX)
    }

    /// The last of them, from so many lines.
    pub(crate) fn last_recorded(&self, lines: usize) -> io::Result<Vec<Execution>> {
        let Some(directory) = &self.profiles.directory else { return Ok(vec![]) };
        let text = read(&directory.join(RECORD_FILE))?;
        let skipped = text.lines().count().saturating_sub(lines);
        let whole = |execution: &Execution| {
            let operators = execution.graph.operators.len();
            let lengths = [execution.estimated.len(), execution.observed.len()];
            operators > 0 && execution.graph.is_valid() && execution.machine.is_valid() && lengths == [operators; 2]
        };
        Ok(text.lines().skip(skipped).filter_map(|line| serde_json::from_str(line).ok()).filter(whole).collect())
    }

    /// The plan, of a query whose operators show their estimates, as a plan that is recorded when it has run.
    pub(crate) async fn recording(
        &self,
        query: &LogicalPlan,
        plan: EstimatedPlan,
        most: usize,
    ) -> Option<Arc<dyn ExecutionPlan>> {
        let directory = self.profiles.directory.clone()?;
        let machine = self.machine().await?.clone();
        let mut hasher = DefaultHasher::new();
        query.hash(&mut hasher);
        let run = Run {
            query: hasher.finish() as u32,
            directory,
            most,
            machine,
            record: Arc::clone(&self.record),
            counters: Arc::clone(&self.counters),
            left: AtomicUsize::new(plan.plan.output_partitioning().partition_count()),
            plan,
            start: OnceLock::new(),
        };
        Some(Arc::new(RecordedExec { input: Arc::clone(&run.plan.plan), run: Arc::new(run) }))
    }
}

/// One execution of a plan.
#[derive(Debug)]
struct Run {
    query: u32,
    plan: EstimatedPlan,
    directory: PathBuf,
    most: usize,
    machine: Resources,
    record: Arc<Record>,
    counters: Arc<Counters>,
    start: OnceLock<Instant>,
    /// Partitions that have not been read to their end.
    left: AtomicUsize,
}

impl Run {
    /// A partition was read to its end; after the last one the execution is recorded. A second execution of the plan is not: the
    /// metrics of its operators are those of both.
    fn finished(&self) {
        let one_less = |left: usize| left.checked_sub(1);
        if self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less) != Ok(1) {
            return;
        }
        let Some(start) = self.start.get() else { return };
        let execution = Execution {
            query: self.query,
            machine: self.machine.clone(),
            planning_us: vec![],
            execution_us: vec![start.elapsed().as_secs_f32() * 1e6],
            // The pool is the engine's.
            peak_bytes: 0,
            graph: self.plan.graph.clone(),
            estimated: self.plan.rows.clone(),
            observed: observe(self.plan.plan.as_ref()),
        };
        if self.record.add(&self.directory, &execution, self.most).is_err() {
            count(&self.counters.failures);
        }
    }
}

/// Stands for the root of a plan, has it do the work, and records when it is done.
#[derive(Debug)]
struct RecordedExec {
    input: Arc<dyn ExecutionPlan>,
    run: Arc<Run>,
}

impl DisplayAs for RecordedExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RecordedExec")
    }
}

impl ExecutionPlan for RecordedExec {
    fn name(&self) -> &str {
        "RecordedExec"
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

    /// A plan that was changed is no longer the one whose operators were estimated.
    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match children.pop() {
            Some(input) if !Arc::ptr_eq(&input, &self.input) => Ok(input),
            _ => Ok(self),
        }
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        self.run.start.get_or_init(Instant::now);
        let input = self.input.execute(partition, context)?;
        let run = Arc::clone(&self.run);
        let seen = input.inspect(move |batch| {
            if batch.is_err() {
                run.left.store(0, Ordering::Relaxed);
            }
        });
        let run = Arc::clone(&self.run);
        let end = futures::stream::poll_fn(move |_| {
            run.finished();
            Poll::Ready(None)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), seen.chain(end.fuse()))))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        self.input.metrics()
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

#[cfg(test)]
mod tests;
