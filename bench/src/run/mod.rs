//! `relata-bench run`: times of queries under DataFusion's default, under relata, and under other optimizers.
//!
//! The optimizers take turns within every repetition, so that a machine that is busy with something else slows all of them.
//! [`contender`] is who takes part, [`mod@record`] what is kept of it, [`mod@summary`] what it comes to.

pub mod contender;
pub mod record;
pub mod summary;
pub mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::datatypes::Int64Type;
use datafusion::prelude::SessionContext;
use indicatif::{ProgressBar, ProgressStyle};
use relata::cli::CliError;
use relata::cli::measure::{Runs, measure};
use relata::cli::session::{SessionOptions, parse_bytes};
use serde::{Deserialize, Serialize};

use crate::arguments::{at_least_one, seconds};
use crate::corpus::Source;
use crate::machine::Provenance;
use crate::score::contender::NamedPath;
use crate::score::weights;
use crate::tpch;
use contender::{Contender, sessions};
use record::{Record, Settings};
use summary::{SLOWER, speedup};

pub use record::RunReport;

/// DataFusion as it comes.
pub const DEFAULT: &str = "default";
/// relata.
pub const RELATA: &str = "relata";

/// Time queries under DataFusion's default and under relata, in turns
///
/// Every query is written to --output as soon as it is timed: the same command goes on where an earlier one stopped.
#[derive(Debug, Clone, Args)]
pub struct RunOptions {
    /// Where the queries come from.
    #[command(flatten)]
    pub source: Source,
    /// TPC-H at this scale factor instead of the corpus
    #[arg(long, value_name = "SCALE", conflicts_with_all = ["corpus", "database", "folder"])]
    pub tpch: Option<f64>,
    /// Kinds of queries
    #[arg(long, value_delimiter = ',', default_values = ["hard"])]
    pub kinds: Vec<String>,
    /// Queries of each database, from the first
    #[arg(long)]
    pub limit: Option<usize>,
    /// Optimizers to time beside those two
    #[arg(long, value_enum, value_delimiter = ',')]
    pub with: Vec<Contender>,
    /// Repetitions of each query
    #[arg(long, default_value_t = 3, value_parser = at_least_one)]
    pub repeat: usize,
    /// Further repetitions of the queries that look more than 1.2 times slower under relata than by default
    #[arg(long, value_name = "REPETITIONS", default_value_t = 0)]
    pub confirm: usize,
    /// Seconds after which a query is given up [default: none]
    #[arg(long, value_parser = seconds)]
    pub timeout: Option<f64>,
    /// Partitions a query runs in [default: one per core]
    #[arg(long, value_parser = at_least_one)]
    pub threads: Option<usize>,
    /// Read the tables into memory first
    #[arg(long)]
    pub in_memory: bool,
    /// Memory that the operators of a query may hold, as in 8g
    #[arg(long, value_parser = parse_bytes)]
    pub memory_limit: Option<usize>,
    /// Milliseconds: figures are also given of the queries that take more by default
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 10.0)]
    pub above: f64,
    /// Another system's times of the same queries, from the JSON lines of `bench/anchors/duckdb-times`
    #[arg(long, value_name = "NAME=FILE")]
    pub beside: Vec<NamedPath>,
    /// File for every repetition (JSON lines)
    #[arg(long)]
    pub output: Option<PathBuf>,
}

/// The repetitions of one query under one optimizer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// From SQL to physical plan, of each repetition.
    pub planning_us: Vec<u64>,
    /// From physical plan to the last row, of each repetition.
    pub execution_us: Vec<u64>,
    /// Digest of the result, whatever the order of its rows.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub digest: String,
    /// Whether repetitions gave different results.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unstable: bool,
    /// Whether the result is not the known answer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub wrong: bool,
    /// Whether a repetition was given up; there are no more after it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub timeout: bool,
    /// Why the query failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// One query under every optimizer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QueryRun {
    /// The query.
    pub id: String,
    /// The database.
    pub database: String,
    /// Its one number, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<f64>,
    /// The optimizers by name.
    pub optimizers: BTreeMap<String, Timing>,
    /// Further repetitions of the default and of relata, where the query looked slower.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub confirmed: BTreeMap<String, Timing>,
}

/// Kinds of queries whose result is the one number that is known of them.
const COUNTED: [&str; 4] = ["seed", "hard", "expression", "outer"];

/// Queries over one folder of tables.
#[derive(Debug, Clone)]
struct Job {
    name: String,
    folder: PathBuf,
    queries: Vec<JobQuery>,
}

#[derive(Debug, Clone)]
struct JobQuery {
    id: String,
    sql: String,
    /// Its one number, where that is known.
    answer: Option<f64>,
}

/// Runs every query under every optimizer.
///
/// # Errors
/// When the queries or a database cannot be read, or the result cannot be written. Failed queries are part of the report.
pub async fn run(options: &RunOptions) -> Result<RunReport> {
    let jobs = jobs(options)?;
    let settings = Settings {
        provenance: Provenance::collect(weights()),
        optimizers: [RELATA].into_iter().chain(options.with.iter().map(|one| one.name())).map(str::to_owned).collect(),
        repeat: options.repeat,
        confirm: options.confirm,
        timeout: options.timeout,
        partitions: options.threads,
        memory_limit: options.memory_limit,
        in_memory: options.in_memory,
    };
    let mut record = Record::open(options.output.as_deref(), &settings)?;
    let bar = ProgressBar::new(jobs.iter().map(|job| job.queries.len() as u64).sum());
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} queries  {elapsed}  {msg}")?);
    bar.enable_steady_tick(Duration::from_millis(500));
    let session = SessionOptions::new(options.threads, options.memory_limit)?;
    let mut queries = std::mem::take(&mut record.done);
    for job in &jobs {
        let done = |query: &&JobQuery| queries.iter().any(|run| run.database == job.name && run.id == query.id);
        let (done, left): (Vec<&JobQuery>, Vec<&JobQuery>) = job.queries.iter().partition(done);
        bar.inc(done.len() as u64);
        if left.is_empty() {
            continue;
        }
        let sessions = sessions(&job.folder, &session, options.in_memory, &options.with)
            .await
            .with_context(|| job.name.clone())?;
        for query in left {
            bar.set_message(query.id.clone());
            let run = time(&sessions, &job.name, query, queries.len(), options).await;
            record.write(&run)?;
            queries.push(run);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    let mut report = RunReport::new(settings, queries);
    for system in &options.beside {
        ensure!(
            report.beside(system)?,
            "{} has none of these queries over tables read in the same way",
            system.path.display()
        );
    }
    Ok(report)
}

fn jobs(options: &RunOptions) -> Result<Vec<Job>> {
    if let Some(scale) = options.tpch {
        let queries = tpch::queries(scale).into_iter().take(options.limit.unwrap_or(usize::MAX));
        let queries = queries.map(|(id, sql)| JobQuery { id, sql, answer: None }).collect();
        return Ok(vec![Job { name: format!("tpch-sf{scale}"), folder: tpch::tables(scale)?, queries }]);
    }
    let workloads = options.source.read(&options.kinds)?;
    let jobs = workloads.into_iter().map(|workload| {
        let queries = workload.queries.into_iter().take(options.limit.unwrap_or(usize::MAX)).map(|query| {
            // Of groups, and of sub-joins, the truth is about the rows.
            let answer = COUNTED.contains(&query.kind.as_str()).then_some(query.truth);
            JobQuery { id: query.id, sql: query.sql, answer }
        });
        Job { name: workload.database, folder: workload.folder, queries: queries.collect() }
    });
    Ok(jobs.collect())
}

/// Times one query under every optimizer, and again where it looks slower under relata.
async fn time(
    sessions: &[(&str, SessionContext)],
    database: &str,
    query: &JobQuery,
    index: usize,
    options: &RunOptions,
) -> QueryRun {
    let limit = options.timeout.map(Duration::from_secs_f64);
    for (name, context) in sessions.iter().filter(|(name, _)| *name == Contender::Oracle.name()) {
        // Counting happens at the first planning and is no part of its time.
        let planned = async { context.sql(&query.sql).await?.create_physical_plan().await };
        if let Err(error) = planned.await {
            eprintln!("{}, {name}: {error}", query.id);
        }
    }
    let sessions: Vec<&(&str, SessionContext)> = sessions.iter().collect();
    let optimizers = take_turns(&sessions, query, index, options.repeat, limit).await;
    let (id, database) = (query.id.clone(), database.to_owned());
    let mut run = QueryRun { id, database, answer: query.answer, optimizers, confirmed: BTreeMap::new() };
    let suspect = speedup(&run, RELATA, options.timeout).is_some_and(|speedup| speedup * SLOWER < 1.0);
    if suspect && options.confirm > 0 {
        let both: Vec<_> = sessions.into_iter().filter(|(name, _)| [DEFAULT, RELATA].contains(name)).collect();
        run.confirmed = take_turns(&both, query, index, options.confirm, limit).await;
    }
    run
}

/// Times one query under every optimizer; who begins changes with every repetition and with `index`.
async fn take_turns(
    sessions: &[&(&str, SessionContext)],
    query: &JobQuery,
    index: usize,
    repeat: usize,
    limit: Option<Duration>,
) -> BTreeMap<String, Timing> {
    let mut all: Vec<(Runs, Timing)> = sessions.iter().map(|_| Default::default()).collect();
    for repetition in 0..repeat {
        for turn in 0..sessions.len() {
            let place = (index + repetition + turn) % sessions.len();
            let (runs, timing) = &mut all[place];
            if timing.timeout || timing.error.is_some() {
                continue;
            }
            match measure(&sessions[place].1, &query.sql, limit).await {
                Ok(measured) => {
                    timing.wrong |= wrong(query.answer, measured.first.as_ref());
                    runs.push(measured);
                }
                Err(CliError::Timeout { .. }) => timing.timeout = true,
                Err(error) => timing.error = Some(error.to_string()),
            }
        }
    }
    let finish = |((name, _), (runs, timing)): (&&(&str, SessionContext), (Runs, Timing))| {
        let micros = |times: &[Duration]| times.iter().map(|time| time.as_micros() as u64).collect();
        let digest = if runs.planning.is_empty() { String::new() } else { runs.digest.to_string() };
        let (planning_us, execution_us) = (micros(&runs.planning), micros(&runs.execution));
        ((*name).to_owned(), Timing { planning_us, execution_us, digest, unstable: runs.unstable, ..timing })
    };
    sessions.iter().zip(all).map(finish).collect()
}

/// Whether a result of one number is another than the known one.
fn wrong(answer: Option<f64>, first: Option<&RecordBatch>) -> bool {
    let Some(answer) = answer else { return false };
    let number = first.and_then(|batch| batch.columns().first()?.as_primitive_opt::<Int64Type>());
    number.is_none_or(|number| (number.value(0) as f64 - answer).abs() > 0.5)
}

#[cfg(test)]
impl RunOptions {
    /// One repetition of the queries of a source in one partition.
    pub(crate) fn of(source: Source) -> Self {
        Self {
            source,
            tpch: None,
            kinds: vec![],
            limit: None,
            with: vec![],
            repeat: 1,
            confirm: 0,
            timeout: None,
            threads: Some(1),
            in_memory: false,
            memory_limit: None,
            above: 10.0,
            beside: vec![],
            output: None,
        }
    }
}
