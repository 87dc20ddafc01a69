//! `relata-bench estimate`: estimates of the corpus' queries against their exact answers.
//!
//! [`contender`] is who estimates, [`mod@figures`] how well in the definitions of the corpus' `tools/score.py`, and [`p_error`]
//! what join orders chosen from the estimates cost.

pub mod contender;
pub mod figures;
pub mod p_error;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use futures::StreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use relata::ExpertStack;
use serde::{Deserialize, Serialize};

use crate::baseline::Linear;
use crate::corpus::{SUBPLAN, Source, Workload};
use crate::machine::Provenance;
use crate::metrics::{Scored, percentile, sorted};
use crate::profiles::Without;
use contender::{Entrants, Field, NamedPath, Prediction, RELATA, Recorded, read_experts};
pub use figures::{Figure, figures, print};
use p_error::{PlanChoice, PlanFigure};

/// File of the figures in the output folder.
pub const FIGURES: &str = "estimate.json";
/// File of every estimate in the output folder.
pub const ESTIMATES: &str = "estimates.jsonl";
/// File of the join orders chosen in the output folder.
pub const PLANS: &str = "plans.jsonl";

/// Score the estimates of the corpus' queries
#[derive(Debug, Clone, Args)]
pub struct ScoreOptions {
    /// Where the queries come from.
    #[command(flatten)]
    pub source: Source,
    /// Kinds of queries; "subplan" stands for the connected sub-joins of the hard ones
    #[arg(long, value_delimiter = ',', default_values = ["seed", "hard", "group", SUBPLAN])]
    pub kinds: Vec<String>,
    /// Further contender, from JSON lines of "id" and "estimate"
    #[arg(long, value_name = "NAME=FILE")]
    pub estimates: Vec<NamedPath>,
    /// Folder of weights to estimate with instead of those that ship; the first is best called "relata"
    #[arg(long, value_name = "NAME=DIR")]
    pub weights: Vec<NamedPath>,
    /// Estimate without this, to measure what it is worth; relata takes part with --weights only
    #[arg(long, value_enum)]
    pub without: Option<Without>,
    /// Coefficients of the linear baseline [default: those in the repository]
    #[arg(long, value_name = "FILE")]
    pub linear: Option<PathBuf>,
    /// Folder for the figures (JSON) and for every estimate and join order (JSON lines)
    #[arg(long)]
    pub output: Option<PathBuf>,
    /// Databases worked on at a time
    #[arg(long, default_value_t = 2)]
    pub jobs: usize,
}

/// One query with everyone's estimate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Estimated {
    /// The query.
    pub id: String,
    /// The database.
    pub database: String,
    /// The kind.
    pub kind: String,
    /// Number of joined tables.
    pub tables: usize,
    /// The exact answer.
    #[serde(rename = "true_value")]
    pub truth: f64,
    /// The estimates by contender.
    pub predictions: BTreeMap<String, Prediction>,
    /// Why a contender has none, where it failed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub errors: BTreeMap<String, String>,
}

impl Estimated {
    /// A contender's estimate with what it is to be scored against.
    pub fn scored(&self, contender: &str) -> Option<Scored> {
        let prediction = self.predictions.get(contender)?;
        Some(Scored { estimate: prediction.rows, truth: self.truth, interval: prediction.interval })
    }
}

/// What was measured.
#[derive(Debug, Serialize, Deserialize)]
pub struct ScoreReport {
    /// Where and from what.
    pub provenance: Provenance,
    /// The contenders in the order of the tables.
    pub contenders: Vec<String>,
    /// Seconds to profile each database.
    pub profile_seconds: Vec<(String, f64)>,
    /// Median time from SQL to relata's estimate, in microseconds.
    pub median_planning_us: f64,
    /// q-errors and intervals, per group of queries and per database.
    pub figures: Vec<Figure>,
    /// P-errors by number of tables.
    pub p_errors: Vec<PlanFigure>,
    /// Every query; in a file of its own.
    #[serde(skip)]
    pub estimates: Vec<Estimated>,
    /// The join order that each contender's estimates choose for each hard query; in a file of its own.
    #[serde(skip)]
    pub plans: Vec<PlanChoice>,
}

/// The estimates of one database.
#[derive(Debug)]
struct Scores {
    database: String,
    contenders: Vec<String>,
    profile_seconds: f64,
    estimates: Vec<Estimated>,
    plans: Vec<PlanChoice>,
}

/// Estimates every query of the corpus.
///
/// # Errors
/// When the corpus cannot be read, a database cannot be opened, or a result cannot be written. Queries that a contender
/// cannot estimate count as missing.
pub async fn run(options: &ScoreOptions) -> Result<ScoreReport> {
    ensure!(options.jobs > 0, "--jobs must be at least 1");
    let workloads = options.source.read(&options.kinds)?;
    let recorded = options.estimates.iter().map(Recorded::read).collect::<Result<Vec<_>>>()?;
    let linear = match &options.linear {
        Some(file) => Some(Linear::read(file)?),
        None => Linear::stored().inspect_err(|error| eprintln!("no linear baseline: {error:#}")).ok(),
    };
    let experts: Vec<(String, ExpertStack)> = if options.weights.is_empty() && options.without.is_none() {
        // Without weights of this build's features the others can still be measured.
        let shipped = ExpertStack::pretrained().inspect_err(|error| eprintln!("relata is left out: {error}"));
        shipped.ok().into_iter().map(|experts| (RELATA.to_owned(), experts)).collect()
    } else {
        options.weights.iter().map(read_experts).collect::<Result<_>>()?
    };
    let used = experts.iter().find(|(name, _)| name == RELATA).and_then(|(_, experts)| hash(experts));
    let entrants = std::sync::Arc::new(Entrants { recorded, linear, experts, without: options.without });
    let queries: usize = workloads.iter().map(|workload| workload.queries.len()).sum();
    let bar = ProgressBar::new(queries as u64);
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} queries  {per_sec}  {elapsed}  {msg}")?);
    bar.enable_steady_tick(Duration::from_millis(500));

    let tasks = workloads.into_iter().map(|workload| {
        let (bar, entrants) = (bar.clone(), std::sync::Arc::clone(&entrants));
        async move {
            let name = workload.database.clone();
            let work = tokio::spawn(async move { score(&workload, &entrants, &bar).await });
            work.await?.with_context(|| name)
        }
    });
    let finished: Vec<Result<Scores>> = futures::stream::iter(tasks).buffer_unordered(options.jobs).collect().await;
    bar.finish_and_clear();
    let mut databases = finished.into_iter().collect::<Result<Vec<_>>>()?;
    databases.sort_by(|left, right| left.database.cmp(&right.database));
    let report = ScoreReport::new(databases, used);
    if let Some(folder) = &options.output {
        report.write(folder)?;
    }
    Ok(report)
}

async fn score(workload: &Workload, entrants: &Entrants, bar: &ProgressBar) -> Result<Scores> {
    bar.set_message(workload.database.clone());
    let Field { contenders, profile_seconds } = Field::new(workload, entrants).await?;
    let mut estimates = Vec::with_capacity(workload.queries.len());
    for query in &workload.queries {
        let (mut predictions, mut errors) = (BTreeMap::new(), BTreeMap::new());
        for contender in &contenders {
            match contender.estimate(query).await {
                Ok(found) => predictions.extend(found.map(|found| (contender.name().to_owned(), found))),
                Err(error) => drop(errors.insert(contender.name().to_owned(), format!("{error:#}"))),
            }
        }
        estimates.push(Estimated {
            id: query.id.clone(),
            database: workload.database.clone(),
            kind: query.kind.clone(),
            tables: query.tables,
            truth: query.truth,
            predictions,
            errors,
        });
        bar.inc(1);
    }
    let contenders: Vec<String> = contenders.iter().map(|contender| contender.name().to_owned()).collect();
    let plans = p_error::choose(workload, &estimates, &contenders).await?;
    Ok(Scores { database: workload.database.clone(), contenders, profile_seconds, estimates, plans })
}

impl ScoreReport {
    /// The figures of some databases; `weights` is the hash of those that relata used.
    fn new(databases: Vec<Scores>, weights: Option<String>) -> Self {
        let mut contenders: Vec<String> = vec![];
        for name in databases.iter().flat_map(|scores| &scores.contenders) {
            if !contenders.contains(name) {
                contenders.push(name.clone());
            }
        }
        let profile_seconds =
            databases.iter().map(|scores| (scores.database.clone(), scores.profile_seconds)).collect();
        let (mut estimates, mut plans) = (vec![], vec![]);
        for scores in databases {
            estimates.extend(scores.estimates);
            plans.extend(scores.plans);
        }
        let planning = |estimated: &Estimated| Some(estimated.predictions.get(RELATA)?.planning_us? as f64);
        Self {
            provenance: Provenance::collect(weights),
            profile_seconds,
            median_planning_us: percentile(&sorted(estimates.iter().filter_map(planning).collect()), 50.0),
            figures: figures(&estimates, &contenders),
            p_errors: p_error::figures(&plans, &contenders),
            contenders,
            estimates,
            plans,
        }
    }

    /// What some estimates amount to, without plans.
    #[cfg(test)]
    pub(crate) fn of_estimates(estimates: Vec<Estimated>, contenders: Vec<String>) -> Self {
        let database = String::new();
        Self::new(vec![Scores { database, contenders, profile_seconds: 0.0, estimates, plans: vec![] }], None)
    }

    /// Reads what [`Self::write`] wrote; the estimates and plans are empty where their files are missing.
    ///
    /// # Errors
    /// When the folder holds no figures, or a file is damaged.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(FIGURES);
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let mut report: Self = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
        if folder.join(ESTIMATES).is_file() {
            report.estimates = crate::corpus::read_lines(&folder.join(ESTIMATES))?;
        }
        if folder.join(PLANS).is_file() {
            report.plans = crate::corpus::read_lines(&folder.join(PLANS))?;
        }
        Ok(report)
    }

    /// Writes the figures, the estimates and the plans into a folder.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let path = folder.join(FIGURES);
        std::fs::write(&path, serde_json::to_string(self)? + "\n").with_context(|| path.display().to_string())?;
        write_lines(&folder.join(ESTIMATES), &self.estimates)?;
        write_lines(&folder.join(PLANS), &self.plans)
    }
}

/// Writes JSON lines.
fn write_lines<T: Serialize>(path: &Path, lines: &[T]) -> Result<()> {
    let write = || -> Result<()> {
        let mut file = BufWriter::new(std::fs::File::create(path)?);
        for line in lines {
            serde_json::to_writer(&mut file, line)?;
            file.write_all(b"\n")?;
        }
        Ok(file.flush()?)
    };
    write().with_context(|| path.display().to_string())
}

/// The hash of the weights that [`relata::Relata::pretrained`] uses.
pub fn weights() -> Option<String> {
    hash(&ExpertStack::pretrained().ok()?)
}

fn hash(experts: &ExpertStack) -> Option<String> {
    experts.manifest().map(|manifest| manifest.sha256.clone())
}
