//! Executing queries for labels of runtimes.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use datafusion::execution::SessionStateBuilder;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::physical_plan::display::DisplayableExecutionPlan;
use datafusion::physical_plan::metrics::MetricValue;
use datafusion::physical_plan::{ExecutionPlan, collect};
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};
use relata_featurize::trace::{ExecutedOperator, Execution};

use crate::database::Database;
use crate::metrics::{percentile, sorted};

/// How queries are executed.
#[derive(Debug, Clone)]
pub struct ExecuteOptions {
    /// Numbers of threads, each with a runtime of its own.
    pub threads: Vec<usize>,
    /// Rows of a batch.
    pub batch_sizes: Vec<usize>,
    /// Repetitions of each query, after one that is not measured.
    pub repeat: usize,
    /// A query that takes longer is left out.
    pub timeout: Duration,
}

/// Executes queries over the Parquet files of one database.
pub struct Executor {
    settings: Vec<Setting>,
    options: ExecuteOptions,
    processor: String,
}

struct Setting {
    threads: usize,
    batch_size: usize,
    runtime: tokio::runtime::Runtime,
    context: SessionContext,
}

impl std::fmt::Debug for Executor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Executor").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Executor {
    /// Writes the tables of a database to `folder` as Parquet files and registers them with every setting.
    ///
    /// # Errors
    /// When a file cannot be written or registered.
    pub fn new(database: &Database, folder: &Path, options: &ExecuteOptions) -> Result<Self> {
        for table in &database.tables {
            let path = folder.join(&table.name).with_extension("parquet");
            let file = std::fs::File::create(&path).with_context(|| path.display().to_string())?;
            let mut writer = ArrowWriter::try_new(file, table.batch.schema(), None)?;
            writer.write(&table.batch)?;
            writer.close()?;
        }
        let mut settings = vec![];
        for &threads in &options.threads {
            for &batch_size in &options.batch_sizes {
                let runtime =
                    tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
                let config = SessionConfig::new().with_target_partitions(threads).with_batch_size(batch_size);
                let state = SessionStateBuilder::new().with_default_features().with_config(config).build();
                let context = SessionContext::new_with_state(state);
                for table in &database.tables {
                    let path = folder.join(&table.name).with_extension("parquet").display().to_string();
                    let options = ParquetReadOptions::default();
                    runtime.block_on(context.register_parquet(table.name.as_str(), path, options))?;
                }
                settings.push(Setting { threads, batch_size, runtime, context });
            }
        }
        let processor = crate::machine::processor().unwrap_or_else(|| "unknown".to_owned());
        Ok(Self { settings, options: options.clone(), processor })
    }

    /// Executes a query under every setting; those under which it takes too long are left out.
    ///
    /// # Errors
    /// When DataFusion cannot plan or run it.
    pub fn execute(&self, query: u32, sql: &str) -> Result<Vec<Execution>> {
        let mut executions = vec![];
        for setting in &self.settings {
            let mut measured: Vec<Measured> = vec![];
            for repetition in 0..=self.options.repeat {
                let context = setting.context.clone();
                let sql = sql.to_owned();
                let limit = self.options.timeout;
                let run = async move { tokio::time::timeout(limit, measure(&context, &sql)).await };
                let Ok(outcome) = setting.runtime.block_on(setting.runtime.spawn(run))? else { break };
                let outcome = outcome?;
                // The first one warms caches up.
                if repetition > 0 {
                    measured.push(outcome);
                }
            }
            if measured.len() == self.options.repeat {
                executions.extend(self.summary(query, setting, &measured));
            }
        }
        Ok(executions)
    }

    fn summary(&self, query: u32, setting: &Setting, measured: &[Measured]) -> Option<Execution> {
        let microseconds = |duration: Duration| duration.as_secs_f64() as f32 * 1e6;
        let mut operators = measured.first()?.operators.clone();
        for (index, operator) in operators.iter_mut().enumerate() {
            let elapsed = measured.iter().filter_map(|one| one.operators.get(index)?.elapsed_us);
            let elapsed = sorted(elapsed.map(f64::from).collect());
            operator.elapsed_us = (!elapsed.is_empty()).then(|| percentile(&elapsed, 50.0) as f32);
        }
        Some(Execution {
            query,
            threads: setting.threads as u32,
            batch_size: setting.batch_size as u32,
            processor: self.processor.clone(),
            planning_us: measured.iter().map(|one| microseconds(one.planning)).collect(),
            execution_us: measured.iter().map(|one| microseconds(one.execution)).collect(),
            operators,
        })
    }
}

struct Measured {
    planning: Duration,
    execution: Duration,
    operators: Vec<ExecutedOperator>,
}

async fn measure(context: &SessionContext, sql: &str) -> Result<Measured> {
    let start = Instant::now();
    let plan = context.sql(sql).await?.create_physical_plan().await?;
    let planning = start.elapsed();
    let start = Instant::now();
    collect(Arc::clone(&plan), context.task_ctx()).await?;
    let execution = start.elapsed();
    let mut operators = vec![];
    read(&plan, None, &mut operators);
    Ok(Measured { planning, execution, operators })
}

/// The nodes of an executed plan, parents first.
fn read(plan: &Arc<dyn ExecutionPlan>, parent: Option<u32>, operators: &mut Vec<ExecutedOperator>) {
    let metrics = plan.metrics();
    let bytes = metrics.as_ref().and_then(|metrics| {
        metrics.sum(|metric| matches!(metric.value(), MetricValue::OutputBytes(_))).map(|value| value.as_usize() as u64)
    });
    let index = operators.len() as u32;
    operators.push(ExecutedOperator {
        parent,
        display: DisplayableExecutionPlan::new(plan.as_ref()).one_line().to_string().trim_end().to_owned(),
        rows: metrics.as_ref().and_then(|metrics| metrics.output_rows()).map(|rows| rows as u64),
        bytes,
        elapsed_us: metrics.and_then(|metrics| metrics.elapsed_compute()).map(|nanoseconds| nanoseconds as f32 / 1e3),
    });
    plan.children().into_iter().for_each(|child| read(child, Some(index), operators));
}
