//! One query, planned and run once, with the time of each half.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use datafusion::arrow::array::RecordBatch;
use datafusion::physical_plan::execute_stream;
use datafusion::prelude::{SQLOptions, SessionContext};
use futures::TryStreamExt;
use futures::channel::oneshot;
use futures::future::{Either, select};
use tokio::runtime::{Handle, Runtime};

use super::digest::Digest;
use super::error::{CliError, Result};
use super::open::isolated;
use super::session::STACK_BYTES;

/// Results are digested, off the clock, whenever this much of them has gathered.
const BUFFER_BYTES: usize = 256 << 20;

/// What one run of a query took and gave.
#[derive(Debug, Clone)]
pub struct Measurement {
    /// From SQL text to physical plan.
    pub planning: Duration,
    /// From physical plan to the last batch; the digest is not in it.
    pub execution: Duration,
    /// Rows and digest of the result.
    pub digest: Digest,
    /// The first batch that has rows, for queries with a one-row answer.
    pub first: Option<RecordBatch>,
}

/// Only queries: nothing a measured statement does may change the database it runs on.
pub fn read_only() -> SQLOptions {
    SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false)
}

/// Plans and runs `sql` once, as a task of its own.
///
/// With a `timeout` the query has worker threads of its own. Past it, the query is given up whether it yields or not: a task
/// that yields ends, one that does not (a nested-loop join whose condition is never true, say) keeps its thread, its memory
/// and its share of the processor until it is through or the process ends. Nothing waits for it, but times measured
/// meanwhile are longer for it.
///
/// # Errors
/// The query cannot be planned or run, is no query, or took longer than `timeout`.
pub async fn measure(ctx: &SessionContext, sql: &str, timeout: Option<Duration>) -> Result<Measurement> {
    let work = measure_unlimited(ctx.clone(), sql.to_owned());
    let Some(limit) = timeout else { return isolated(work).await };
    let workers = Workers::new()?;
    let task = workers.handle.spawn(work);
    let (_work_is_done, alarm) = alarm(limit);
    match select(task, alarm).await {
        Either::Left((Ok(measurement), _)) => measurement,
        Either::Left((Err(panicked), _)) => Err(CliError::Panic(panicked.to_string())),
        Either::Right(_) => Err(CliError::Timeout { seconds: limit.as_secs_f64() }),
    }
}

/// Threads for one query, as many as the command has. Dropping a runtime waits for its threads; dropping this does not.
struct Workers {
    handle: Handle,
    runtime: Option<Runtime>,
}

impl Workers {
    fn new() -> Result<Self> {
        let threads = Handle::current().metrics().num_workers();
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(threads).thread_name("query").thread_stack_size(STACK_BYTES).enable_all();
        let runtime = builder.build().map_err(CliError::Threads)?;
        Ok(Self { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A future that is ready after `limit`; its thread ends with the first value returned. The runtime's own timers are looked
/// after by its workers, and wait for as long as all of them are inside a query.
fn alarm(limit: Duration) -> (mpsc::Sender<()>, oneshot::Receiver<()>) {
    let (done, is_done) = mpsc::channel();
    let (ring, alarm) = oneshot::channel();
    std::thread::spawn(move || {
        if is_done.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
            // Nobody listens where the query has just finished.
            let _ = ring.send(());
        }
    });
    (done, alarm)
}

async fn measure_unlimited(ctx: SessionContext, sql: String) -> Result<Measurement> {
    let start = Instant::now();
    let (state, plan) = ctx.sql_with_options(&sql, read_only()).await?.into_parts();
    let plan = state.create_physical_plan(&plan).await?;
    let planning = start.elapsed();

    let mut digest = Digest::default();
    let mut first = None;
    let mut buffered: Vec<RecordBatch> = Vec::new();
    let mut bytes = 0;
    let mut off_clock = Duration::ZERO;

    let start = Instant::now();
    let mut stream = execute_stream(plan, state.task_ctx())?;
    while let Some(batch) = stream.try_next().await? {
        bytes += batch.get_array_memory_size();
        if first.is_none() && batch.num_rows() > 0 {
            first = Some(batch.clone());
        }
        buffered.push(batch);
        if bytes > BUFFER_BYTES {
            let pause = Instant::now();
            buffered.drain(..).try_for_each(|batch| digest.add(&batch))?;
            bytes = 0;
            off_clock += pause.elapsed();
        }
    }
    drop(stream);
    let execution = start.elapsed().saturating_sub(off_clock);
    buffered.iter().try_for_each(|batch| digest.add(batch))?;
    Ok(Measurement { planning, execution, digest, first })
}

/// The repetitions of one query under one optimizer.
#[derive(Debug, Clone, Default)]
pub struct Runs {
    /// Planning time of each repetition.
    pub planning: Vec<Duration>,
    /// Execution time of each repetition.
    pub execution: Vec<Duration>,
    /// Rows and digest of the first repetition's result.
    pub digest: Digest,
    /// Whether a later repetition gave another result.
    pub unstable: bool,
    /// The first batch of the first repetition's result that has rows.
    pub first: Option<RecordBatch>,
}

impl Runs {
    /// Adds a repetition.
    pub fn push(&mut self, measurement: Measurement) {
        if self.planning.is_empty() {
            self.digest = measurement.digest;
            self.first = measurement.first;
        } else {
            self.unstable |= self.digest != measurement.digest;
        }
        self.planning.push(measurement.planning);
        self.execution.push(measurement.execution);
    }

    /// Adds the repetitions of `later`.
    pub fn extend(&mut self, later: Runs) {
        self.unstable |= later.unstable || later.digest != self.digest;
        self.planning.extend(later.planning);
        self.execution.extend(later.execution);
    }

    /// Planning and execution of the fastest repetition: the one that other work on the machine disturbed least.
    pub fn best(&self) -> (Duration, Duration) {
        let repetitions = self.planning.iter().copied().zip(self.execution.iter().copied());
        repetitions.min_by_key(|(planning, execution)| *planning + *execution).unwrap_or_default()
    }

    /// Time of the fastest repetition.
    pub fn best_total(&self) -> Duration {
        let (planning, execution) = self.best();
        planning + execution
    }
}
