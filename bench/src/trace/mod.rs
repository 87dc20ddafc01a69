//! `relata-bench trace`: labelled queries over many databases, for training.
//!
//! One folder per database, written when it is complete: an interrupted run goes on where it stopped. Databases are
//! worked on in parallel, each by one thread, and what is written depends on the options alone.

mod execute;
mod label;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use hashbrown::HashMap;
use indicatif::{ProgressBar, ProgressStyle};
use relata::cli::session::parse_bytes;
use relata_experts::prior::{PriorConfig, generate};
use relata_featurize::graph::LAYOUT_VERSION;
use relata_featurize::trace::{DatabaseTrace, Execution, LabelledAnswer, TracedQuery};
use serde::{Deserialize, Serialize};

use crate::database::{Database, Role};
use crate::manifest;
use crate::profiles::Without;
use crate::queries::{Generator, Kind};
pub use execute::{ExecuteOptions, Executor, Planners};
pub use label::{LabelledQuery, Labeller, Outcome, Skip};

/// File beside the traces that says how they were made.
const MANIFEST: &str = "trace.json";

/// Attempts per wanted query, after which a database has as many as it can give.
const ATTEMPTS: usize = 8;

/// Attempts at one kind in a row before it is the turn of the next.
const PATIENCE: usize = 10;

/// Label queries over synthetic databases and databases in folders.
#[derive(Debug, Clone, Args)]
pub struct TraceOptions {
    /// Folder of the traces, one folder per database
    #[arg(long)]
    pub output: PathBuf,
    /// Number of databases of the relational prior
    #[arg(long, default_value_t = 0)]
    pub synthetic: usize,
    /// Seed of the first of them, and of all queries
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Rows of their largest tables
    #[arg(long, default_value = "500..60000", value_parser = parse_range)]
    pub rows: (usize, usize),
    /// Number of their tables
    #[arg(long, default_value = "2..20", value_parser = parse_range)]
    pub tables: (usize, usize),
    /// Folder of Parquet files with a schema.json; refused if its role is "eval"
    #[arg(long)]
    pub database: Vec<PathBuf>,
    /// Queries per database
    #[arg(long, default_value_t = 500)]
    pub queries: usize,
    /// Kinds of queries, taken by turns
    #[arg(long, value_enum, value_delimiter = ',', default_values = KINDS)]
    pub kinds: Vec<Kind>,
    /// Most sets of relations labelled per query
    #[arg(long, default_value_t = 32)]
    pub subplans: usize,
    /// Estimate without this, to measure what it is worth
    #[arg(long, value_enum)]
    pub without: Option<Without>,
    /// Databases worked on at a time
    #[arg(long, default_value_t = 2)]
    pub jobs: usize,
    /// Queries per database that are executed as well, to measure how long they take; needs --jobs 1
    #[arg(long, default_value_t = 0)]
    pub execute: usize,
    /// Execute every second of them as a report over the same rows: in an order, with windows, subtotals, unions
    #[arg(long)]
    pub reports: bool,
    /// Repetitions of an execution
    #[arg(long, default_value_t = 3)]
    pub repeat: usize,
    /// Numbers of threads to execute with
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2])]
    pub threads: Vec<usize>,
    /// Rows of a batch to execute with
    #[arg(long, value_delimiter = ',', default_values_t = [8192])]
    pub batch_size: Vec<usize>,
    /// Memory that the operators of a query may hold when it is executed, as in 40m, and spill beyond it
    #[arg(long, value_parser = parse_bytes)]
    pub memory_limit: Option<usize>,
    /// Seconds after which an execution is given up
    #[arg(long, default_value_t = 10.0)]
    pub timeout: f64,
}

/// The turns of a training set: what the model estimates most, and some of everything that has inner joins in it.
const KINDS: [&str; 10] = ["seed", "hard", "seed", "hard", "group", "seed", "hard", "expression", "outer", "distinct"];

/// The kind of reports, and the joined rows that one is over at most.
const REPORT: &str = "report";
const MOST_REPORTED_ROWS: f64 = 2e6;

/// Version of the queries and labels that a seed stands for.
const WORKLOAD_VERSION: u32 = 4;

/// What decides the content of a trace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Manifest {
    #[serde(default)]
    workload: u32,
    layout: u32,
    seed: u64,
    rows: (usize, usize),
    tables: (usize, usize),
    queries: usize,
    kinds: Vec<Kind>,
    subplans: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    without: Option<Without>,
    #[serde(default)]
    execute: usize,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    reports: bool,
    #[serde(default)]
    repeat: usize,
    #[serde(default)]
    threads: Vec<usize>,
    #[serde(default)]
    batch_size: Vec<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    memory_limit: Option<usize>,
    /// Of executions; not said of older traces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timeout: Option<f64>,
}

impl Manifest {
    fn new(options: &TraceOptions) -> Self {
        Self {
            workload: WORKLOAD_VERSION,
            layout: LAYOUT_VERSION,
            seed: options.seed,
            rows: options.rows,
            tables: options.tables,
            queries: options.queries,
            kinds: options.kinds.clone(),
            subplans: options.subplans,
            without: options.without,
            execute: options.execute,
            reports: options.reports,
            repeat: options.repeat,
            threads: options.threads.clone(),
            batch_size: options.batch_size.clone(),
            memory_limit: options.memory_limit,
            timeout: (options.execute > 0).then_some(options.timeout),
        }
    }

    /// Whether what was found was made as is wanted.
    fn agree(found: &Self, wanted: &Self) -> bool {
        let timeout = found.timeout.or(wanted.timeout);
        *wanted == Self { timeout, ..found.clone() }
    }
}

/// A database to trace.
#[derive(Debug)]
enum Source {
    Synthetic(u64),
    Folder(PathBuf),
}

/// What a run did.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct TraceReport {
    /// Databases traced.
    pub databases: usize,
    /// Databases that were complete already.
    pub complete: usize,
    /// Queries labelled.
    pub queries: usize,
    /// Labels of sets of relations and groups.
    pub labels: usize,
    /// Executions measured.
    pub executions: usize,
    /// Queries without labels, by reason.
    pub skipped: HashMap<Skip, usize>,
    /// Time taken.
    pub seconds: f64,
}

/// Traces every database that is not complete yet.
///
/// # Errors
/// When a database is for measuring only, when the output holds traces of other options, or when a database cannot be
/// read, queried or written.
pub fn run(options: &TraceOptions) -> Result<TraceReport> {
    ensure!(options.execute == 0 || options.jobs == 1, "--execute measures times: it needs --jobs 1");
    ensure!(
        options.repeat > 0 && options.threads.iter().chain(&options.batch_size).all(|&number| number > 0),
        "--repeat, --threads and --batch-size must be at least 1"
    );
    let timeout = Duration::try_from_secs_f64(options.timeout).context("--timeout")?;
    ensure!(!timeout.is_zero(), "--timeout must be above 0");
    ensure!(options.jobs > 0 && options.queries > 0 && !options.kinds.is_empty(), "nothing to do");
    for folder in &options.database {
        if Database::role_of_folder(folder)? == Role::Eval {
            bail!(
                "{} is a database to measure on (role \"eval\"): no trace for training is made of it",
                folder.display()
            );
        }
    }
    manifest::check(&options.output, MANIFEST, &Manifest::new(options), Manifest::agree)?;
    let synthetic = (0..options.synthetic as u64).map(|index| Source::Synthetic(options.seed.wrapping_add(index)));
    let folders = options.database.iter().cloned().map(Source::Folder);
    let sources: Vec<Source> = synthetic.chain(folders).collect();
    ensure!(!sources.is_empty(), "no database: give --synthetic N or --database DIR");

    let start = Instant::now();
    let bar = ProgressBar::new((sources.len() * options.queries) as u64);
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} queries  {per_sec}  {elapsed} (+{eta})  {msg}")?);
    bar.enable_steady_tick(Duration::from_millis(500));
    let next = AtomicUsize::new(0);
    let work = || -> Result<TraceReport> {
        let mut report = TraceReport::default();
        // The index hands out databases; whoever is done takes the next.
        while let Some(source) = sources.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(error) = trace_source(options, source, &bar, &mut report) {
                next.store(sources.len(), Ordering::Relaxed);
                return Err(error);
            }
        }
        Ok(report)
    };
    let reports: Vec<Result<TraceReport>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..options.jobs.min(sources.len())).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|worker| worker.join().unwrap_or_else(|_| bail!("a worker panicked"))).collect()
    });
    bar.finish_and_clear();
    let mut total = TraceReport::default();
    for report in reports {
        total.add(&report?);
    }
    total.seconds = start.elapsed().as_secs_f64();
    Ok(total)
}

fn trace_source(options: &TraceOptions, source: &Source, bar: &ProgressBar, report: &mut TraceReport) -> Result<()> {
    let name = match source {
        Source::Synthetic(seed) => format!("prior_{seed:06}"),
        Source::Folder(folder) => {
            let name = folder.canonicalize().with_context(|| folder.display().to_string())?;
            name.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
        }
    };
    let folder = options.output.join(&name);
    if folder.is_dir() {
        report.complete += 1;
        bar.inc(options.queries as u64);
        return Ok(());
    }
    bar.set_message(name.clone());
    let (mut database, seed) = match source {
        Source::Synthetic(seed) => {
            let config = PriorConfig {
                tables: options.tables.0..=options.tables.1,
                rows: options.rows.0..=options.rows.1,
                ..PriorConfig::default()
            };
            (Database::from_synthetic(&generate(&config, *seed)?)?, *seed)
        }
        Source::Folder(folder) => (Database::from_folder(folder)?, options.seed),
    };
    ensure!(database.role == Role::Train, "{name} is a database to measure on");
    database.name = name;
    trace_database(options, &database, seed, &folder, bar, report).with_context(|| database.name.clone())
}

fn trace_database(
    options: &TraceOptions,
    database: &Database,
    seed: u64,
    folder: &Path,
    bar: &ProgressBar,
    report: &mut TraceReport,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut generator = Generator::new(database, seed);
    let mut labeller = Labeller::new(database, seed, options.subplans, &Without::config(options.without))?;
    let kinds: Vec<Kind> = options.kinds.iter().copied().filter(|kind| generator.can_write(*kind)).collect();
    let mut trace = DatabaseTrace { name: database.name.clone(), ..DatabaseTrace::default() };
    let mut reports: Vec<(usize, TracedQuery)> = vec![];
    let (mut turn, mut failures) = (0, 0);
    for _ in 0..ATTEMPTS * options.queries {
        if trace.graphs.len() == options.queries || kinds.is_empty() {
            break;
        }
        let mut skip = Skip::DeadEnd;
        if let Some(query) = generator.query(kinds[turn % kinds.len()]) {
            match runtime.block_on(labeller.label(&query)) {
                Ok(Outcome::Labelled(labelled)) => {
                    let LabelledQuery { graph, joined, rows, answer, labelled_answer, .. } = *labelled;
                    let index = trace.queries.len() as u32;
                    trace.answers.extend(labelled_answer.map(|answer| LabelledAnswer { query: index, ..answer }));
                    report.labels += graph.labels.iter().flatten().count();
                    trace.graphs.push(graph);
                    let asked = options.reports && trace.queries.len() % 2 == 1 && joined <= MOST_REPORTED_ROWS;
                    if let Some(sql) = asked.then(|| generator.report(&query)).flatten() {
                        let report = TracedQuery { kind: REPORT.to_owned(), sql, joined, rows: joined, answer: None };
                        reports.push((trace.queries.len(), report));
                    }
                    trace.queries.push(TracedQuery {
                        kind: query.kind.to_string(),
                        sql: query.sql,
                        joined,
                        rows,
                        answer,
                    });
                    bar.inc(1);
                    turn += 1;
                    failures = 0;
                    continue;
                }
                Ok(Outcome::Skipped(reason)) => skip = reason,
                Err(error) => {
                    bar.println(format!("{}: {error:#}: {}", database.name, query.sql));
                    skip = Skip::Failed;
                }
            }
        }
        *report.skipped.entry(skip).or_default() += 1;
        failures += 1;
        // Kinds keep their shares, unless the database has too few queries of one.
        if failures % PATIENCE == 0 {
            turn += 1;
        }
    }
    bar.inc((options.queries - trace.graphs.len()) as u64);
    if options.execute > 0 {
        let mut executed: Vec<usize> = (0..trace.queries.len().min(options.execute)).collect();
        for (place, report) in reports.into_iter().filter(|(place, _)| *place < options.execute) {
            executed[place] = trace.queries.len();
            trace.queries.push(report);
        }
        trace.executions = execute(options, database, &trace.queries, &executed, bar)?;
        report.executions += trace.executions.len();
    }
    report.queries += trace.graphs.len();
    report.databases += 1;
    trace.tables = labeller.into_tables();
    trace.write(folder)?;
    Ok(())
}

/// Executes some of the queries.
fn execute(
    options: &TraceOptions,
    database: &Database,
    queries: &[TracedQuery],
    executed: &[usize],
    bar: &ProgressBar,
) -> Result<Vec<Execution>> {
    let folder = tempfile::tempdir()?;
    let how = ExecuteOptions {
        threads: options.threads.clone(),
        batch_sizes: options.batch_size.clone(),
        memory_limit: options.memory_limit,
        repeat: options.repeat,
        timeout: Duration::from_secs_f64(options.timeout),
        planners: Planners::Turns,
    };
    let executor = Executor::new(database, folder.path(), &how)?;
    let mut executions = vec![];
    for (turn, &index) in executed.iter().enumerate() {
        bar.set_message(format!("{}, execution {}", database.name, turn + 1));
        let sql = &queries[index].sql;
        match executor.execute(index as u32, sql) {
            Ok(measured) => executions.extend(measured),
            Err(error) => bar.println(format!("{}: {error:#}: {sql}", database.name)),
        }
    }
    Ok(executions)
}

/// `LO..HI`, both included.
pub(crate) fn parse_range(text: &str) -> Result<(usize, usize)> {
    let (low, high) = text.split_once("..").context("expected LO..HI")?;
    let range = (low.trim().parse()?, high.trim_start_matches('=').trim().parse()?);
    ensure!(range.0 > 0 && range.0 <= range.1, "expected 1 <= LO <= HI");
    Ok(range)
}

impl TraceReport {
    fn add(&mut self, other: &Self) {
        self.databases += other.databases;
        self.complete += other.complete;
        self.queries += other.queries;
        self.labels += other.labels;
        self.executions += other.executions;
        for skip in Skip::ALL {
            *self.skipped.entry(skip).or_default() += other.skipped.get(&skip).copied().unwrap_or(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use relata_featurize::physical::OperatorKind;
    use relata_featurize::trace::read_all;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        options: TraceOptions,
    }

    fn options(output: &Path, more: &[&str]) -> TraceOptions {
        let fixed = ["trace", "--rows", "100..400", "--queries", "12", "--tables", "2..4", "--output"];
        let output = output.display().to_string();
        Command::parse_from(fixed.iter().copied().chain([output.as_str()]).chain(more.iter().copied())).options
    }

    #[test]
    fn traces_are_deterministic_and_resumed() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let report = run(&options(one.path(), &["--synthetic", "3"])).unwrap();
        assert_eq!((report.databases, report.complete), (3, 0));
        assert!(report.queries > 24 && report.labels > report.queries);
        run(&options(two.path(), &["--synthetic", "3", "--jobs", "1"])).unwrap();
        let (left, right) = (read_all(one.path()).unwrap(), read_all(two.path()).unwrap());
        assert_eq!(left.len(), 3);
        assert_eq!(left, right);

        std::fs::remove_dir_all(one.path().join("prior_000002")).unwrap();
        let report = run(&options(one.path(), &["--synthetic", "4"])).unwrap();
        assert_eq!((report.databases, report.complete), (2, 2));
        assert_eq!(DatabaseTrace::read(&one.path().join("prior_000002")).unwrap(), right[1]);
        let other = run(&options(one.path(), &["--synthetic", "3", "--seed", "9"]));
        assert!(other.unwrap_err().to_string().contains("other options"));
    }

    #[test]
    fn executions_have_the_rows_of_their_queries() {
        let output = tempfile::tempdir().unwrap();
        let fixed = ["--synthetic", "1", "--jobs", "1", "--execute", "9", "--repeat", "2", "--kinds", "seed,group,top"];
        let more: Vec<&str> = fixed.into_iter().chain(["--reports"]).collect();
        let report = run(&options(output.path(), &more)).unwrap();
        let trace = read_all(output.path()).unwrap().remove(0);
        assert_eq!((report.executions, trace.executions.len()), (18, 18));
        let reported = |execution: &&Execution| trace.queries[execution.query as usize].kind == REPORT;
        assert!((4..=8).contains(&trace.executions.iter().filter(reported).count()));
        for execution in &trace.executions {
            assert_eq!((execution.planning_us.len(), execution.execution_us.len()), (2, 2));
            assert!(execution.execution_us.iter().all(|time| *time > 0.0));
            let query = &trace.queries[execution.query as usize];
            if query.kind != REPORT {
                let rows = if query.kind == "seed" { 1.0 } else { query.rows as f32 };
                assert_eq!(execution.observed.last().unwrap().rows, Some(rows), "{}", query.sql);
            }
            let operators = execution.graph.operators.iter().zip(&execution.observed).zip(&execution.estimated);
            let scans = operators.filter(|((operator, _), _)| operator.kind == OperatorKind::Scan);
            assert!(scans.clone().count() > 0);
            assert!(scans.clone().all(|((_, observed), estimated)| observed.rows.is_some() && estimated.is_some()));
            assert!(execution.machine.is_valid());
        }
        let resumed = |timeout| run(&options(output.path(), &[more.as_slice(), &["--timeout", timeout]].concat()));
        assert!(resumed("9").unwrap_err().to_string().contains("other options"));
        // As it was written before timeouts were.
        let manifest = output.path().join(MANIFEST);
        let text = std::fs::read_to_string(&manifest).unwrap();
        std::fs::write(&manifest, text.replace(r#","timeout":10.0"#, "")).unwrap();
        assert_eq!(resumed("9").unwrap().complete, 1);
        let busy = run(&options(output.path(), &["--synthetic", "1", "--execute", "9"]));
        assert!(busy.unwrap_err().to_string().contains("--jobs 1"));
    }

    #[test]
    fn databases_to_measure_on_are_refused() {
        let (output, database) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let schema = r#"{"name": "d", "role": "eval", "tables": [], "foreign_keys": []}"#;
        std::fs::write(database.path().join("schema.json"), schema).unwrap();
        let refused = run(&options(output.path(), &["--database", &database.path().display().to_string()]));
        assert!(refused.unwrap_err().to_string().contains("eval"));
        assert!(std::fs::read_dir(output.path()).unwrap().next().is_none());
    }
}
