//! `relata-bench run`: times of queries under DataFusion's default, under relata, and under relata with true cardinalities.
//!
//! The optimizers take turns within every repetition, so that a machine that is busy with something else slows all of them.

pub mod summary;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::datatypes::Int64Type;
use datafusion::prelude::SessionContext;
use indicatif::{ProgressBar, ProgressStyle};
use relata::Relata;
use relata::cli::CliError;
use relata::cli::database::Database;
use relata::cli::measure::{Runs, measure};
use relata::cli::session::{SessionOptions, parse_bytes};
use serde::{Deserialize, Serialize};

use crate::corpus::Source;
use crate::machine::Provenance;
use crate::oracle::Oracle;
use crate::score::figures::{short, table};
use crate::score::weights;
use crate::tpch;
use summary::{Summary, summarize};

/// DataFusion as it comes.
pub const DEFAULT: &str = "default";
/// relata.
pub const RELATA: &str = "relata";
/// relata with true cardinalities in place of its estimates.
pub const ORACLE: &str = "oracle";

/// Time queries under DataFusion's default and under relata, in turns
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
    /// Also time relata with true cardinalities in place of its estimates
    #[arg(long)]
    pub oracle: bool,
    /// Repetitions of each query
    #[arg(long, default_value_t = 3)]
    pub repeat: usize,
    /// Seconds after which a query is given up
    #[arg(long, value_parser = positive)]
    pub timeout: Option<f64>,
    /// Partitions a query runs in [default: one per core]
    #[arg(long)]
    pub threads: Option<usize>,
    /// Memory that the operators of a query may hold, as in 8g
    #[arg(long, value_parser = parse_bytes)]
    pub memory_limit: Option<usize>,
    /// File for every repetition and the figures (JSON)
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
    /// The optimizers by name.
    pub optimizers: BTreeMap<String, Timing>,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunReport {
    /// Where and from what.
    pub provenance: Provenance,
    /// The optimizers beside the default.
    pub optimizers: Vec<String>,
    /// Repetitions of each query.
    pub repeat: usize,
    /// Seconds after which a query was given up.
    pub timeout: Option<f64>,
    /// Every optimizer over all databases, then over each.
    pub summaries: Vec<Summary>,
    /// Every query.
    pub queries: Vec<QueryRun>,
}

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
    ensure!(options.repeat > 0, "--repeat must be at least 1");
    let jobs = jobs(options)?;
    let bar = ProgressBar::new(jobs.iter().map(|job| job.queries.len() as u64).sum());
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} queries  {elapsed}  {msg}")?);
    bar.enable_steady_tick(Duration::from_millis(500));
    let session = SessionOptions::new(options.threads, options.memory_limit)?;
    let mut queries = vec![];
    for job in &jobs {
        let optimizers = optimizers(&job.folder, &session, options.oracle).await.with_context(|| job.name.clone())?;
        for query in &job.queries {
            bar.set_message(query.id.clone());
            let timings = time(&optimizers, query, queries.len(), options).await;
            queries.push(QueryRun { id: query.id.clone(), database: job.name.clone(), optimizers: timings });
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    let report = RunReport::new(options, queries);
    if let Some(path) = &options.output {
        let text = serde_json::to_string(&report)? + "\n";
        std::fs::write(path, text).with_context(|| path.display().to_string())?;
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
            let answer = ["seed", "hard"].contains(&query.kind.as_str()).then_some(query.truth);
            JobQuery { id: query.id, sql: query.sql, answer }
        });
        Job { name: workload.database, folder: workload.folder, queries: queries.collect() }
    });
    Ok(jobs.collect())
}

/// A session per optimizer over the same folder.
async fn optimizers(
    folder: &Path,
    options: &SessionOptions,
    oracle: bool,
) -> Result<Vec<(&'static str, SessionContext)>> {
    let database = Database::open(folder, options).await?;
    let relata = Relata::pretrained()?.with_foreign_keys(database.foreign_keys());
    let context = database.context(Some(&relata))?;
    for report in relata.profile(&context).await? {
        if let Some(error) = report.error {
            eprintln!("{}: {error}", report.table);
        }
    }
    let mut optimizers = vec![(DEFAULT, database.context(None)?), (RELATA, context)];
    if oracle {
        let truth = Oracle::new(crate::database::Database::from_folder(folder)?)?;
        let relata = relata.with_known_rows(Arc::new(truth));
        optimizers.push((ORACLE, database.context(Some(&relata))?));
    }
    Ok(optimizers)
}

/// Times one query under every optimizer; who begins changes with every repetition and with `index`.
async fn time(
    optimizers: &[(&str, SessionContext)],
    query: &JobQuery,
    index: usize,
    options: &RunOptions,
) -> BTreeMap<String, Timing> {
    let limit = options.timeout.map(Duration::from_secs_f64);
    let mut all: Vec<(Runs, Timing)> = optimizers.iter().map(|_| Default::default()).collect();
    for (name, context) in optimizers.iter().filter(|(name, _)| *name == ORACLE) {
        // Counting happens at the first planning and is no part of its time.
        let planned = async { context.sql(&query.sql).await?.create_physical_plan().await };
        if let Err(error) = planned.await {
            eprintln!("{}, {name}: {error}", query.id);
        }
    }
    for repetition in 0..options.repeat {
        for turn in 0..optimizers.len() {
            let place = (index + repetition + turn) % optimizers.len();
            let (runs, timing) = &mut all[place];
            if timing.timeout || timing.error.is_some() {
                continue;
            }
            match measure(&optimizers[place].1, &query.sql, limit).await {
                Ok(measured) => {
                    timing.wrong |= wrong(query.answer, measured.first.as_ref());
                    runs.push(measured);
                }
                Err(CliError::Timeout { .. }) => timing.timeout = true,
                Err(error) => timing.error = Some(error.to_string()),
            }
        }
    }
    let finish = |((name, _), (runs, timing)): (&(&str, SessionContext), (Runs, Timing))| {
        let micros = |times: &[Duration]| times.iter().map(|time| time.as_micros() as u64).collect();
        let digest = if runs.planning.is_empty() { String::new() } else { runs.digest.to_string() };
        let (planning_us, execution_us) = (micros(&runs.planning), micros(&runs.execution));
        ((*name).to_owned(), Timing { planning_us, execution_us, digest, unstable: runs.unstable, ..timing })
    };
    optimizers.iter().zip(all).map(finish).collect()
}

/// Whether a result of one number is another than the known one.
fn wrong(answer: Option<f64>, first: Option<&RecordBatch>) -> bool {
    let Some(answer) = answer else { return false };
    let number = first.and_then(|batch| batch.columns().first()?.as_primitive_opt::<Int64Type>());
    number.is_none_or(|number| (number.value(0) as f64 - answer).abs() > 0.5)
}

impl RunReport {
    fn new(options: &RunOptions, queries: Vec<QueryRun>) -> Self {
        let optimizers: Vec<String> = [RELATA, ORACLE]
            .iter()
            .filter(|name| **name != ORACLE || options.oracle)
            .map(|&name| name.into())
            .collect();
        let mut databases: Vec<&str> = queries.iter().map(|query| query.database.as_str()).collect();
        databases.dedup();
        let mut summaries = vec![];
        for database in std::iter::once(None).chain(databases.into_iter().map(Some)) {
            let here: Vec<&QueryRun> =
                queries.iter().filter(|query| database.is_none_or(|name| query.database == name)).collect();
            summaries.extend(optimizers.iter().map(|name| summarize(&here, database, name, options.timeout)));
        }
        let (repeat, timeout) = (options.repeat, options.timeout);
        Self { provenance: Provenance::collect(weights()), optimizers, repeat, timeout, summaries, queries }
    }

    /// Reads what [`run`] wrote.
    ///
    /// # Errors
    /// When the file is missing or damaged.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        serde_json::from_str(&text).with_context(|| path.display().to_string())
    }
}

/// The columns of the table of summaries.
pub const COLUMNS: [&str; 14] = [
    "database",
    "optimizer",
    "n",
    "failed",
    "timeouts",
    "different",
    "wrong",
    "planning",
    "execution",
    "total",
    "geo-mean",
    "> 1.1x slower",
    "> 2x slower",
    "> 2x faster",
];

/// The cells of a summary under [`COLUMNS`]; pairs are default / optimizer.
pub fn cells(summary: &Summary) -> Vec<String> {
    let percent = |share: f64| format!("{:.1}%", 100.0 * share);
    let seconds = |default: f64, other: f64| format!("{default:.2} / {other:.2} s");
    vec![
        summary.database.clone().unwrap_or_else(|| "all".to_owned()),
        summary.optimizer.clone(),
        summary.n.to_string(),
        summary.failed.to_string(),
        format!("{} / {}", summary.default_timeouts, summary.timeouts),
        summary.different.to_string(),
        format!("{} / {}", summary.default_wrong, summary.wrong),
        seconds(summary.default_planning, summary.planning),
        seconds(summary.default_execution, summary.execution),
        format!("{:.2}x", summary.total_speedup),
        format!("{:.2}x", summary.geometric_mean),
        percent(summary.slower),
        percent(summary.much_slower),
        percent(summary.much_faster),
    ]
}

/// The summaries as a table, with the best and worst query of each optimizer.
pub fn print(report: &RunReport) -> String {
    let mut text = table(&[&COLUMNS], report.summaries.iter().map(cells).collect());
    for summary in report.summaries.iter().filter(|summary| summary.database.is_none()) {
        for (label, extreme) in [("worst", &summary.worst), ("best", &summary.best)] {
            if let Some(extreme) = extreme {
                let (default, other) = (1e3 * extreme.default_seconds, 1e3 * extreme.seconds);
                text += &format!(
                    "\n{}, {label}: {} default {default:.1} ms, {other:.1} ms: {}x",
                    summary.optimizer,
                    extreme.id,
                    short(extreme.speedup)
                );
            }
        }
    }
    text + "\n"
}

/// Parses a positive number of seconds.
fn positive(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|error| format!("{error}"))?;
    Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|duration| !duration.is_zero())
        .map(|_| seconds)
        .ok_or_else(|| "must be a positive number of seconds".to_owned())
}
