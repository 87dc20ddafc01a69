//! `relata-bench estimate`: estimates of the corpus' queries against their exact answers.
//!
//! Contenders: DataFusion's own estimate, relata's analytical estimate (sketches and samples, no model), relata, and the
//! estimates of PostgreSQL and DuckDB that come with the corpus. The figures are those of the corpus' `tools/score.py`,
//! and the estimates those of `relata estimate`.

mod plot;
mod report;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use datafusion::prelude::SessionContext;
use futures::StreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use relata::cli::database::Database;
use relata::cli::session::SessionOptions;
use relata::{QueryEstimate, Relata};
use serde::Serialize;

use crate::corpus::{CorpusQuery, Part, Workload, read_workloads};
use crate::machine::Provenance;
use crate::metrics::Scored;
pub use report::{Figure, figures, print};

/// Score the estimates of the corpus' queries
#[derive(Debug, Clone, Args)]
pub struct ScoreOptions {
    /// Folder of the corpus
    #[arg(long, default_value = "../shared/corpus")]
    pub corpus: PathBuf,
    /// Databases [default: every one with a workload]
    #[arg(long, num_args = 1..)]
    pub database: Vec<String>,
    /// Kinds of queries
    #[arg(long, value_delimiter = ',', default_values = ["seed", "hard", "group"])]
    pub kinds: Vec<String>,
    /// The connected sub-joins of the hard queries instead of whole queries
    #[arg(long)]
    pub subplans: bool,
    /// Folder for the figures (JSON), every estimate (JSON lines) and the plot (SVG)
    #[arg(long)]
    pub output: Option<PathBuf>,
    /// Databases worked on at a time
    #[arg(long, default_value_t = 2)]
    pub jobs: usize,
}

/// Who estimates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Contender {
    /// DataFusion's own statistics.
    DataFusion,
    /// relata without its experts.
    Analytical,
    /// relata.
    Relata,
    /// PostgreSQL 15.
    Postgres,
    /// DuckDB 2.0.
    DuckDb,
}

impl Contender {
    /// All of them, in the order of the tables.
    pub const ALL: [Contender; 5] =
        [Contender::DataFusion, Contender::Analytical, Contender::Relata, Contender::Postgres, Contender::DuckDb];

    /// The name in tables and plots.
    pub const fn name(self) -> &'static str {
        match self {
            Contender::DataFusion => "datafusion",
            Contender::Analytical => "analytical",
            Contender::Relata => "relata",
            Contender::Postgres => "postgres",
            Contender::DuckDb => "duckdb",
        }
    }
}

/// One query with everyone's estimate; serialized as a line of predictions of `tools/score.py`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Estimated {
    /// The query.
    pub id: String,
    /// The database.
    #[serde(skip)]
    pub database: String,
    /// The kind, or the number of tables.
    #[serde(skip)]
    pub group: String,
    /// The exact answer.
    #[serde(rename = "true_value")]
    pub truth: f64,
    /// relata's estimate,
    pub estimate: Option<f64>,
    /// the lower
    pub lower: Option<f64>,
    /// and the upper end of its 90% interval.
    pub upper: Option<f64>,
    /// DataFusion's estimate.
    pub default: Option<f64>,
    /// relata's analytical estimate.
    pub analytical: Option<f64>,
    /// PostgreSQL's estimate.
    pub postgres: Option<f64>,
    /// DuckDB's estimate.
    pub duckdb: Option<f64>,
    /// Time relata took from SQL to estimate.
    pub planning_us: Option<u64>,
    /// Why relata has no estimate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Estimated {
    /// A contender's estimate with what it is to be scored against.
    pub fn scored(&self, contender: Contender) -> Option<Scored> {
        let estimate = match contender {
            Contender::DataFusion => self.default,
            Contender::Analytical => self.analytical,
            Contender::Relata => self.estimate,
            Contender::Postgres => self.postgres,
            Contender::DuckDb => self.duckdb,
        }?;
        let interval = if contender == Contender::Relata { self.lower.zip(self.upper) } else { None };
        Some(Scored { estimate, truth: self.truth, interval })
    }
}

/// What was measured.
#[derive(Debug, Serialize)]
pub struct ScoreReport {
    /// Where and from what.
    pub provenance: Provenance,
    /// Seconds to profile each database.
    pub profile_seconds: Vec<(String, f64)>,
    /// Median planning time with relata's estimate, in microseconds.
    pub median_planning_us: f64,
    /// Every row of the table, and of a table per database.
    pub figures: Vec<Figure>,
    /// Every query; written to a file of its own.
    #[serde(skip)]
    pub estimates: Vec<Estimated>,
}

/// Estimates every query of the corpus.
///
/// # Errors
/// When the corpus cannot be read, a database cannot be opened, or a result cannot be written. Queries that relata cannot
/// estimate count as missing.
pub async fn run(options: &ScoreOptions) -> Result<ScoreReport> {
    ensure!(options.jobs > 0, "--jobs must be at least 1");
    let part = if options.subplans { Part::Subplans } else { Part::Queries(options.kinds.clone()) };
    let workloads = read_workloads(&options.corpus, &options.database, &part)?;
    let queries: usize = workloads.iter().map(|workload| workload.queries.len()).sum();
    let bar = ProgressBar::new(queries as u64);
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} queries  {per_sec}  {elapsed}  {msg}")?);
    bar.enable_steady_tick(Duration::from_millis(500));

    let tasks = workloads.into_iter().map(|workload| {
        let bar = bar.clone();
        async move {
            let name = workload.database.clone();
            let work = tokio::spawn(async move { estimate_workload(&workload, &bar).await });
            work.await?.with_context(|| name)
        }
    });
    let mut finished: Vec<Result<(String, f64, Vec<Estimated>)>> =
        futures::stream::iter(tasks).buffer_unordered(options.jobs).collect().await;
    bar.finish_and_clear();
    let mut databases = finished.drain(..).collect::<Result<Vec<_>>>()?;
    databases.sort_by(|left, right| left.0.cmp(&right.0));

    let profile_seconds = databases.iter().map(|(name, seconds, _)| (name.clone(), *seconds)).collect();
    let estimates: Vec<Estimated> = databases.into_iter().flat_map(|(_, _, estimates)| estimates).collect();
    let planning = crate::metrics::sorted(estimates.iter().filter_map(|e| e.planning_us.map(|us| us as f64)).collect());
    let report = ScoreReport {
        provenance: Provenance::collect(weights()),
        profile_seconds,
        median_planning_us: crate::metrics::percentile(&planning, 50.0),
        figures: figures(&estimates),
        estimates,
    };
    if let Some(folder) = &options.output {
        write(&report, folder, if options.subplans { "subplans" } else { "queries" })?;
    }
    Ok(report)
}

async fn estimate_workload(workload: &Workload, bar: &ProgressBar) -> Result<(String, f64, Vec<Estimated>)> {
    bar.set_message(workload.database.clone());
    let database = Database::open(&workload.folder, &SessionOptions::default()).await?;
    let start = Instant::now();
    let learned = Profiled::new(&database, Relata::pretrained()?).await?;
    let seconds = start.elapsed().as_secs_f64();
    let analytical = Profiled::new(&database, Relata::new(None)).await?;
    let mut estimates = Vec::with_capacity(workload.queries.len());
    for query in &workload.queries {
        let found = learned.estimate(query).await;
        let base = analytical.estimate(query).await.ok().map(|estimate| estimate.estimate);
        estimates.push(estimated(workload, query, found, base));
        bar.inc(1);
    }
    Ok((workload.database.clone(), seconds, estimates))
}

fn estimated(
    workload: &Workload,
    query: &CorpusQuery,
    found: Result<QueryEstimate>,
    analytical: Option<f64>,
) -> Estimated {
    let (found, error) = match found {
        Ok(found) => (Some(found), None),
        Err(error) => (None, Some(format!("{error:#}"))),
    };
    Estimated {
        id: query.id.clone(),
        database: workload.database.clone(),
        group: query.group.clone(),
        truth: query.truth,
        estimate: found.as_ref().map(|found| found.estimate),
        lower: found.as_ref().map(|found| found.lower),
        upper: found.as_ref().map(|found| found.upper),
        default: found.as_ref().and_then(|found| found.default),
        analytical,
        postgres: query.postgres,
        duckdb: query.duckdb,
        planning_us: found.as_ref().map(|found| found.planning.as_micros() as u64),
        error,
    }
}

/// A session over a profiled database.
struct Profiled {
    relata: Arc<Relata>,
    context: SessionContext,
}

impl Profiled {
    async fn new(database: &Database, relata: Relata) -> Result<Self> {
        let context = database.context(Some(&relata))?;
        for report in relata.profile(&context).await? {
            if let Some(error) = report.error {
                eprintln!("{}: {error}", report.table);
            }
        }
        Ok(Self { relata: Arc::new(relata), context })
    }

    /// Runs as a task of its own, so that a panic is one query's error.
    async fn estimate(&self, query: &CorpusQuery) -> Result<QueryEstimate> {
        let (relata, context, sql) = (Arc::clone(&self.relata), self.context.clone(), query.sql.clone());
        Ok(tokio::spawn(async move { relata.estimate_sql(&context, &sql).await }).await??)
    }
}

/// The hash of the weights that [`Relata::pretrained`] uses.
fn weights() -> Option<String> {
    relata::ExpertStack::pretrained().ok()?.manifest().map(|manifest| manifest.sha256.clone())
}

fn write(report: &ScoreReport, folder: &Path, name: &str) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let save = |file: String, text: String| {
        let path = folder.join(file);
        std::fs::write(&path, text).with_context(|| path.display().to_string())
    };
    save(format!("{name}.json"), serde_json::to_string_pretty(report)? + "\n")?;
    let lines = report.estimates.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>()?;
    save(format!("{name}.jsonl"), lines.join("\n") + "\n")?;
    plot::draw(&report.estimates, &folder.join(format!("{name}.svg")))
}

#[cfg(test)]
mod tests;
