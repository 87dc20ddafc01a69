//! `relata-bench reconstruct`: what the data expert restores of tables it has never seen.
//!
//! The two tasks of its pre-training (seed paper, section 3.2, Tables 1 and 2) on the corpus' databases of role `eval`,
//! which nothing is trained on. The paper leaves buckets and accuracy open; here they mean:
//!
//! - Histograms: over one column 10 buckets, over two 5 per column, over three to five 4 per column, of equal width in the
//!   relative encoding, and per column one more for NULL where it has some. Rows are counted on the whole table, the expert
//!   reads the profile (statistics of the whole, joint distributions from a sample of at most 4096 rows). q-error with both
//!   sides clipped at one row, over the buckets that have rows or are restored to half a row or more; beside it over those
//!   that have rows. Columns of a single value are left out: they would be right for nothing.
//! - Cells: up to 50 rows of a table, a fifth of small ones, are kept out of its profile; in each of them each cell of a
//!   column that depends on another is masked in turn. Right is a value within 0.1 of the actual one in the relative
//!   encoding, or NULL for NULL. High: a visible column with |Pearson| > 0.8. Low: none, but |Pearson|, |Spearman| or the
//!   correlation ratio (its square, adjusted for chance; in place of RDC) above 0.75.
//!
//! Beside the expert: its mixture of groups without training, the profile (histograms and independence; the column's
//! median), and linear models through linfa (corrected independence, fitted to the databases of role `train`; ridge
//! regression of the masked column on the visible ones, fitted to the sample). [`scatter`] draws the embeddings.

mod cells;
mod histograms;
mod linear;
mod report;
pub mod scatter;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use rand::SeedableRng;
use rand::rngs::StdRng;
use relata_experts::data::DataExpert;
use serde::Serialize;

use crate::database::{Database, Role};
use crate::machine::Provenance;
use crate::metrics::{percentile, sorted};
pub use report::markdown;

/// Name of the expert among the contenders.
pub const EXPERT: &str = "data expert";

/// Restore histograms and masked cells of the corpus' databases of role "eval"
#[derive(Debug, Clone, Args)]
pub struct ReconstructOptions {
    /// Folder of the corpus
    #[arg(long, default_value = "../shared/corpus")]
    pub corpus: PathBuf,
    /// Databases of role "eval" [default: all]
    #[arg(long, num_args = 1..)]
    pub database: Vec<String>,
    /// Folder of the data expert's weights [default: those in the binary]
    #[arg(long)]
    pub weights: Option<PathBuf>,
    /// Histograms of a table over two, three, four and five columns each
    #[arg(long, default_value_t = 10)]
    pub histograms: usize,
    /// Seed of what is drawn
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Databases worked on at a time
    #[arg(long, default_value_t = 2)]
    pub jobs: usize,
    /// Folder for the report: tables (Markdown), figures (JSON) and the embeddings of columns (SVG)
    #[arg(long)]
    pub output: Option<PathBuf>,
}

/// q-errors of one contender on buckets of one kind.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BucketFigure {
    /// "1-d", "2-5-d" or "all".
    pub group: &'static str,
    /// Who restored.
    pub contender: &'static str,
    /// Buckets that have rows or are said to.
    pub buckets: usize,
    /// Median and 95th percentile of their q-errors: mean over the databases,
    pub per_database: [f64; 2],
    /// and over all buckets.
    pub pooled: [f64; 2],
    /// The same of the buckets that have rows.
    pub with_rows: [f64; 2],
}

/// Accuracy of one contender on masked cells of one kind.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CellFigure {
    /// "high" or "low" correlation.
    pub group: &'static str,
    /// Who restored.
    pub contender: &'static str,
    /// Masked cells,
    pub cells: usize,
    /// of so many columns.
    pub columns: usize,
    /// Share restored: mean over the databases that have such cells,
    pub per_database: f64,
    /// and over all cells.
    pub pooled: f64,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub struct ReconstructReport {
    /// Where and from what.
    pub provenance: Provenance,
    /// Names of the databases.
    pub databases: Vec<String>,
    /// Histograms.
    pub histograms: Vec<BucketFigure>,
    /// Masked cells.
    pub cells: Vec<CellFigure>,
    /// Median and 90th percentile of the time to embed a table from its profile, in microseconds.
    pub embedding_us: [f64; 2],
}

/// What was restored of one database.
#[derive(Debug, Default)]
struct Restored {
    buckets: Vec<histograms::RestoredBucket>,
    cells: Vec<cells::RestoredColumn>,
    embedding_us: Vec<f64>,
}

/// Restores every database and writes the report.
///
/// # Errors
/// When the corpus or the weights cannot be read, no database of role `eval` is left, or the report cannot be written.
pub fn run(options: &ReconstructOptions) -> Result<ReconstructReport> {
    ensure!(options.jobs > 0, "--jobs must be at least 1");
    let expert = match &options.weights {
        Some(folder) => {
            let read = |name: &str| {
                let path = folder.join(name);
                std::fs::read(&path).with_context(|| path.display().to_string())
            };
            DataExpert::from_bytes(&read("data.safetensors")?, &read("data.json")?)?
        }
        None => DataExpert::pretrained()?,
    };
    let mut folders = folders_of(&options.corpus, Role::Eval)?;
    if !options.database.is_empty() {
        folders.retain(|folder| {
            folder.file_name().is_some_and(|name| options.database.iter().any(|own| name == own.as_str()))
        });
    }
    ensure!(!folders.is_empty(), "{} holds no such database of role eval", options.corpus.display());
    // Without databases of role `train` there is no linear model of histograms.
    let training = folders_of(&options.corpus, Role::Train)?;

    let bar = ProgressBar::new((folders.len() + training.len()) as u64);
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} databases  {elapsed} (+{eta})  {msg}")?);
    bar.enable_steady_tick(Duration::from_millis(500));
    let samples = each(&training, options.jobs, &bar, |database| histograms::samples(database, options))?;
    let linear = histograms::Linear::fit(&samples.into_iter().flatten().collect::<Vec<_>>())?;
    let restored = each(&folders, options.jobs, &bar, |database| restore(database, options, &expert, linear.as_ref()))?;
    bar.finish_and_clear();

    let report = ReconstructReport {
        provenance: Provenance::collect(expert.manifest().map(|manifest| manifest.sha256.clone())),
        databases: folders.iter().map(|folder| name(folder)).collect(),
        histograms: histograms::figures(&restored),
        cells: cells::figures(&restored),
        embedding_us: {
            let times = sorted(restored.iter().flat_map(|database| &database.embedding_us).copied().collect());
            [percentile(&times, 50.0), percentile(&times, 90.0)]
        },
    };
    if let Some(folder) = &options.output {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let write = |name: &str, text: String| {
            let path = folder.join(name);
            std::fs::write(&path, text).with_context(|| path.display().to_string())
        };
        scatter::draw(&expert, &folder.join("columns.svg"))?;
        write("reconstruct.json", serde_json::to_string_pretty(&report)? + "\n")?;
        write("README.md", markdown(&report))?;
    }
    Ok(report)
}

fn restore(
    database: &Database,
    options: &ReconstructOptions,
    expert: &DataExpert,
    linear: Option<&histograms::Linear>,
) -> Result<Restored> {
    ensure!(database.role == Role::Eval, "{} is not for measuring", database.name);
    let mut random = StdRng::seed_from_u64(options.seed);
    let mut restored = Restored::default();
    for table in &database.tables {
        histograms::restore(table, options, expert, linear, &mut random, &mut restored)?;
        cells::restore(table, expert, &mut random, &mut restored)?;
    }
    Ok(restored)
}

/// Does `work` with the database of every folder, `jobs` at a time; results are in the order of the folders.
fn each<T: Send>(
    folders: &[PathBuf],
    jobs: usize,
    bar: &ProgressBar,
    work: impl Fn(&Database) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let next = AtomicUsize::new(0);
    let worker = || -> Result<Vec<(usize, T)>> {
        let mut done = vec![];
        // The index hands out databases; whoever is done takes the next.
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(folder) = folders.get(index) else { return Ok(done) };
            bar.set_message(name(folder));
            done.push((index, work(&Database::from_folder(folder)?).with_context(|| name(folder))?));
            bar.inc(1);
        }
    };
    let mut done = std::thread::scope(|scope| -> Result<Vec<(usize, T)>> {
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(worker)).collect();
        let mut done = vec![];
        for worker in workers {
            done.extend(worker.join().unwrap_or_else(|_| bail!("a worker panicked"))?);
        }
        Ok(done)
    })?;
    done.sort_by_key(|(index, _)| *index);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}

fn name(folder: &Path) -> String {
    folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The databases of a role, in order of name.
fn folders_of(corpus: &Path, role: Role) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(corpus)
        .with_context(|| format!("no corpus at {}: give its folder with --corpus", corpus.display()))?;
    let mut found = vec![];
    for entry in entries {
        let folder = entry?.path();
        if folder.join("schema.json").is_file() && Database::role_of_folder(&folder)? == role {
            found.push(folder);
        }
    }
    found.sort();
    Ok(found)
}
