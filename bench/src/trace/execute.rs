//! Executing queries for labels of runtimes.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use datafusion::common::TableReference;
use datafusion::error::DataFusionError;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::memory_pool::{
    GreedyMemoryPool, MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation, UnboundedMemoryPool,
};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::physical_plan::collect;
use datafusion::prelude::{SessionConfig, SessionContext};
use relata::cli::session::SessionOptions;
use relata::{EstimatedPlan, ForeignKey, Relata, RelataConfig};
use relata_featurize::physical::{Observed, observe};
use relata_featurize::resources::Resources;
use relata_featurize::trace::Execution;

use crate::database::Database;

/// How long a measurement of the machine holds: what else its host does makes it faster and slower by the minute.
const MEASURED_FOR: Duration = Duration::from_secs(5);

/// How queries are executed.
#[derive(Debug, Clone)]
pub struct ExecuteOptions {
    /// Numbers of threads, each with a runtime of its own.
    pub threads: Vec<usize>,
    /// Rows of a batch.
    pub batch_sizes: Vec<usize>,
    /// Bytes that the operators of a query may hold at a time, and spill beyond it; a query that does not do with them is left out.
    pub memory_limit: Option<usize>,
    /// Repetitions of each query, after one that is not measured.
    pub repeat: usize,
    /// A query that takes longer is left out.
    pub timeout: Duration,
    /// Who plans.
    pub planners: Planners,
}

/// Who plans the queries that are executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planners {
    /// Relata.
    Relata,
    /// Relata and DataFusion, every query and setting.
    Both,
    /// Relata or DataFusion, by turns.
    Turns,
}

/// Executes queries over the Parquet files of one database.
pub struct Executor {
    settings: Vec<Setting>,
    options: ExecuteOptions,
    relata: Relata,
    /// What the machine is measured on.
    runtime: tokio::runtime::Runtime,
    /// When it was measured last.
    machine: Mutex<(Instant, Resources)>,
}

struct Setting {
    runtime: tokio::runtime::Runtime,
    /// Planned by relata, and by DataFusion.
    contexts: [SessionContext; 2],
    pool: Arc<PeakPool>,
}

impl std::fmt::Debug for Executor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Executor").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Executor {
    /// Writes the tables of a database to `folder` as Parquet files, to execute queries over these.
    ///
    /// # Errors
    /// When a file cannot be written, and those of [`Self::over`].
    pub fn new(database: &Database, folder: &Path, options: &ExecuteOptions) -> Result<Self> {
        for table in &database.tables {
            let path = folder.join(&table.name).with_extension("parquet");
            let file = std::fs::File::create(&path).with_context(|| path.display().to_string())?;
            let mut writer = ArrowWriter::try_new(file, table.batch.schema(), None)?;
            writer.write(&table.batch)?;
            writer.close()?;
        }
        let names = |table: usize, columns: &[usize]| {
            let schema = database.tables[table].batch.schema();
            columns.iter().map(|column| schema.field(*column).name().clone()).collect()
        };
        let keys = database.foreign_keys.iter().map(|key| ForeignKey {
            table: TableReference::bare(database.tables[key.table].name.as_str()),
            columns: names(key.table, &key.columns),
            references: TableReference::bare(database.tables[key.references].name.as_str()),
            referenced: names(key.references, &key.references_columns),
        });
        Self::over(folder, Some(keys.collect()), options)
    }

    /// Profiles the tables of a folder along these keys, or those that its schema.json declares, and measures the machine.
    ///
    /// # Errors
    /// When the folder cannot be opened or profiled, or the machine cannot be measured.
    pub fn over(folder: &Path, keys: Option<Vec<ForeignKey>>, options: &ExecuteOptions) -> Result<Self> {
        let runtime = tokio::runtime::Runtime::new()?;
        let session = SessionOptions::default();
        let opened = runtime.block_on(relata::cli::Database::open(folder, &session))?;
        let relata = Relata::pretrained()?.with_foreign_keys(keys.unwrap_or_else(|| opened.foreign_keys()));
        runtime
            .block_on(async { relata.profile(&opened.context(Some(&relata))?).await.map_err(anyhow::Error::from) })?;
        let machine = runtime.block_on(Resources::measure())?;
        let relata = relata.with_machine(machine.clone());
        let machine = Mutex::new((Instant::now(), machine));
        let mut as_datafusion = RelataConfig::default();
        (as_datafusion.join_reordering, as_datafusion.statistics) = (false, false);
        let planners = [relata.clone(), relata.clone().with_config(as_datafusion)];
        let mut settings = vec![];
        for &threads in &options.threads {
            for &batch_size in &options.batch_sizes {
                let runtime =
                    tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
                let pool = Arc::new(PeakPool::new(options.memory_limit));
                let context = |relata: &Relata| -> Result<SessionContext> {
                    let config = SessionConfig::new().with_target_partitions(threads).with_batch_size(batch_size);
                    let environment = RuntimeEnvBuilder::new().with_memory_pool(Arc::clone(&pool) as _).build_arc()?;
                    let builder = SessionStateBuilder::new().with_default_features().with_config(config);
                    let state = relata.install(builder.with_runtime_env(environment)).build();
                    let context = SessionContext::new_with_state(state);
                    for table in &opened.tables {
                        context.register_table(table.reference(), Arc::clone(&table.provider))?;
                    }
                    Ok(context)
                };
                let contexts = [context(&planners[0])?, context(&planners[1])?];
                settings.push(Setting { runtime, contexts, pool });
            }
        }
        Ok(Self { settings, options: options.clone(), relata, runtime, machine })
    }

    /// The machine as it was within the last seconds.
    fn machine(&self) -> Result<Resources> {
        let mut last = self.machine.lock().unwrap_or_else(PoisonError::into_inner);
        if last.0.elapsed() > MEASURED_FOR {
            *last = (Instant::now(), self.runtime.block_on(Resources::measure())?);
        }
        Ok(last.1.clone())
    }

    /// How long a query is predicted to take under the first setting; `None` where that cannot be said.
    pub fn predicted(&self, sql: &str) -> Option<Duration> {
        let setting = self.settings.first()?;
        let estimate = self.relata.estimate_runtime(&setting.contexts[0], sql);
        Some(setting.runtime.block_on(estimate).ok()?.elapsed[1])
    }

    /// Executes a query under every setting; those under which it takes too long are left out.
    ///
    /// # Errors
    /// When DataFusion cannot plan or run it.
    pub fn execute(&self, query: u32, sql: &str) -> Result<Vec<Execution>> {
        let mut executions = vec![];
        for (turn, setting) in self.settings.iter().enumerate() {
            let planners = match self.options.planners {
                Planners::Relata => 0..1,
                Planners::Both => 0..2,
                Planners::Turns => {
                    let planner = (query as usize + turn) % 2;
                    planner..planner + 1
                }
            };
            for planner in planners {
                executions.extend(self.measured(query, sql, setting, &setting.contexts[planner])?);
            }
        }
        Ok(executions)
    }

    /// The execution under one setting and planner; `None` where it takes too long.
    fn measured(
        &self,
        query: u32,
        sql: &str,
        setting: &Setting,
        context: &SessionContext,
    ) -> Result<Option<Execution>> {
        let machine = self.machine()?;
        let mut measured: Vec<Measured> = vec![];
        setting.pool.peak.store(0, Ordering::Relaxed);
        for repetition in 0..=self.options.repeat {
            let (context, relata, sql) = (context.clone(), self.relata.clone(), sql.to_owned());
            let limit = self.options.timeout;
            let run = async move { tokio::time::timeout(limit, measure(&relata, &context, &sql)).await };
            let Ok(outcome) = setting.runtime.block_on(setting.runtime.spawn(run))? else { return Ok(None) };
            if self.options.memory_limit.is_some() && outcome.as_ref().is_err_and(lacks_memory) {
                return Ok(None);
            }
            let outcome = outcome?;
            // The first one warms caches up.
            if repetition > 0 {
                measured.push(outcome);
            }
        }
        Ok(summary(query, setting, machine, measured))
    }
}

/// An execution of several repetitions; `None` without any.
fn summary(query: u32, setting: &Setting, machine: Resources, mut measured: Vec<Measured>) -> Option<Execution> {
    let microseconds = |duration: Duration| duration.as_secs_f64() as f32 * 1e6;
    let planning_us = measured.iter().map(|one| microseconds(one.planning)).collect();
    let execution_us = measured.iter().map(|one| microseconds(one.execution)).collect();
    measured.sort_by_key(|one| one.execution);
    let median = measured.len() / 2;
    let Measured { plan, observed, .. } = measured.into_iter().nth(median)?;
    Some(Execution {
        query,
        machine,
        planning_us,
        execution_us,
        peak_bytes: setting.pool.peak.load(Ordering::Relaxed) as u64,
        graph: plan.graph,
        estimated: plan.rows,
        observed,
    })
}

struct Measured {
    planning: Duration,
    execution: Duration,
    plan: EstimatedPlan,
    observed: Vec<Observed>,
}

async fn measure(relata: &Relata, context: &SessionContext, sql: &str) -> Result<Measured> {
    let start = Instant::now();
    let plan = relata.estimated_plan(&context.state(), sql).await?;
    let planning = start.elapsed();
    let start = Instant::now();
    collect(Arc::clone(&plan.plan), context.task_ctx()).await?;
    let execution = start.elapsed();
    let observed = observe(plan.plan.as_ref());
    Ok(Measured { planning, execution, plan, observed })
}

/// Whether a query failed for want of memory.
fn lacks_memory(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<DataFusionError>();
    error.is_some_and(|error| matches!(error.find_root(), DataFusionError::ResourcesExhausted(_)))
}

/// Remembers the most that was reserved of another pool at a time.
#[derive(Debug)]
struct PeakPool {
    inner: Box<dyn MemoryPool>,
    peak: AtomicUsize,
}

impl PeakPool {
    /// Of so many bytes, or all there are.
    fn new(limit: Option<usize>) -> Self {
        let inner: Box<dyn MemoryPool> = match limit {
            None => Box::new(UnboundedMemoryPool::default()),
            Some(limit) => Box::new(GreedyMemoryPool::new(limit)),
        };
        Self { inner, peak: AtomicUsize::new(0) }
    }

    fn remember(&self) {
        self.peak.fetch_max(self.inner.reserved(), Ordering::Relaxed);
    }
}

impl std::fmt::Display for PeakPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl MemoryPool for PeakPool {
    fn name(&self) -> &str {
        "peak"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.inner.register(consumer);
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.inner.unregister(consumer);
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.inner.grow(reservation, additional);
        self.remember();
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.inner.shrink(reservation, shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> datafusion::error::Result<()> {
        self.inner.try_grow(reservation, additional)?;
        self.remember();
        Ok(())
    }

    fn reserved(&self) -> usize {
        self.inner.reserved()
    }

    fn memory_limit(&self) -> MemoryLimit {
        self.inner.memory_limit()
    }
}
