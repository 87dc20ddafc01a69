//! `relata-bench marginals`: how close the databases of the relational prior come to real ones.
//!
//! Measures the same [`Statistic`]s of the corpus' databases of role `train` and of draws of the prior with its
//! defaults, and says of each how far the two distributions are apart (Kolmogorov and Smirnov) beside how far as many
//! draws as there are real databases would be from all draws: where the first is not larger, the corpus could be a
//! set of draws as far as this statistic can tell.

mod measure;
mod plot;
mod report;
mod statistic;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::index::sample;
use relata_experts::prior::{PriorConfig, generate};
use serde::Serialize;

use crate::database::{Database, Role};
pub use measure::measure;
pub use report::markdown;
pub use statistic::{Distribution, Measured, Share, Statistic, mean_share};

/// Sets of draws that stand for the corpus.
const RESAMPLES: usize = 200;

/// Compare the relational prior with the corpus' databases of role `train`
#[derive(Debug, Clone, Args)]
pub struct MarginalsOptions {
    /// Folder of the corpus
    #[arg(long, default_value = "../shared/corpus")]
    pub corpus: PathBuf,
    /// Databases of the prior
    #[arg(long, default_value_t = 200)]
    pub draws: usize,
    /// Seed of the first of them
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Folder for the report: table (Markdown), figures (JSON) and plot (SVG)
    #[arg(long)]
    pub output: PathBuf,
}

/// One statistic on both sides.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Compared {
    /// What is compared.
    pub statistic: Statistic,
    /// Lower quartile, median and upper quartile in the corpus,
    pub corpus: [f64; 3],
    /// and in the draws.
    pub prior: [f64; 3],
    /// Kolmogorov-Smirnov distance of the corpus to all draws.
    pub distance: f64,
    /// Median and 95th percentile of that distance for sets of as many draws as the corpus has databases.
    pub expected: [f64; 2],
}

/// One share on both sides: means over the databases.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ComparedShare {
    /// What is compared.
    pub share: Share,
    /// In the corpus,
    pub corpus: f64,
    /// and in the draws.
    pub prior: f64,
    /// 5th and 95th percentile for sets of as many draws as the corpus has databases.
    pub expected: [f64; 2],
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MarginalsReport {
    /// Names of the real databases.
    pub databases: Vec<String>,
    /// Draws of the prior.
    pub draws: usize,
    /// Seed of the first.
    pub seed: u64,
    /// Distributions.
    pub statistics: Vec<Compared>,
    /// Shares.
    pub shares: Vec<ComparedShare>,
}

/// Measures both sides and writes the report.
///
/// # Errors
/// When the corpus cannot be read or holds no database of role `train`, or when the report cannot be written.
pub fn run(options: &MarginalsOptions) -> Result<MarginalsReport> {
    ensure!(options.draws > 1, "at least two draws are needed");
    let folders = train_folders(options)?;
    let bar = ProgressBar::new((folders.len() + options.draws) as u64);
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} databases  {elapsed} (+{eta})  {msg}")?);
    let (mut names, mut corpus, mut draws) = (vec![], vec![], vec![]);
    for folder in &folders {
        let database = Database::from_folder(folder)?;
        bar.set_message(database.name.clone());
        corpus.push(measure(&database));
        names.push(database.name);
        bar.inc(1);
    }
    let config = PriorConfig::default();
    for index in 0..options.draws as u64 {
        let database = generate(&config, options.seed.wrapping_add(index))?;
        bar.set_message(database.name.clone());
        draws.push(measure(&Database::from_synthetic(&database)?));
        bar.inc(1);
    }
    bar.finish_and_clear();
    let report = compare(names, &corpus, &draws, options.seed);
    let write = |name: &str, text: String| {
        let path = options.output.join(name);
        std::fs::write(&path, text).with_context(|| path.display().to_string())
    };
    std::fs::create_dir_all(&options.output).with_context(|| options.output.display().to_string())?;
    write("marginals.json", serde_json::to_string_pretty(&report)? + "\n")?;
    write("marginals.md", markdown(&report))?;
    plot::draw(&corpus, &draws, &options.output.join("marginals.svg"))?;
    Ok(report)
}

fn train_folders(options: &MarginalsOptions) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(&options.corpus)
        .with_context(|| format!("no corpus at {}: give its folder with --corpus", options.corpus.display()))?;
    let mut folders = vec![];
    for entry in entries {
        let folder = entry?.path();
        if folder.join("schema.json").is_file() && Database::role_of_folder(&folder)? == Role::Train {
            folders.push(folder);
        }
    }
    ensure!(!folders.is_empty(), "{} holds no database of role train", options.corpus.display());
    folders.sort();
    Ok(folders)
}

/// Sets the measured databases of the corpus against the draws.
pub fn compare(databases: Vec<String>, corpus: &[Measured], draws: &[Measured], seed: u64) -> MarginalsReport {
    let mut random = StdRng::seed_from_u64(1);
    let size = corpus.len().min(draws.len());
    let sets: Vec<Vec<usize>> = (0..RESAMPLES).map(|_| sample(&mut random, draws.len(), size).into_vec()).collect();
    let percentile = |mut values: Vec<f64>, share: f64| {
        values.sort_unstable_by(f64::total_cmp);
        values.get((values.len() as f64 * share) as usize).copied().unwrap_or(f64::NAN)
    };
    let statistics = Statistic::ALL.map(|statistic| {
        let (real, all) = (Distribution::new(corpus, statistic), Distribution::new(draws, statistic));
        let distance = |set: &Vec<usize>| all.distance(&Distribution::new(set.iter().map(|&i| &draws[i]), statistic));
        let distances: Vec<f64> = sets.iter().map(distance).collect();
        let quartiles = |of: &Distribution| [0.25, 0.5, 0.75].map(|u| of.quantile(u));
        Compared {
            statistic,
            corpus: quartiles(&real),
            prior: quartiles(&all),
            distance: real.distance(&all),
            expected: [0.5, 0.95].map(|share| percentile(distances.clone(), share)),
        }
    });
    let shares = Share::ALL.map(|share| {
        let means: Vec<f64> = sets.iter().map(|set| mean_share(set.iter().map(|&i| &draws[i]), share)).collect();
        ComparedShare {
            share,
            corpus: mean_share(corpus, share),
            prior: mean_share(draws, share),
            expected: [0.05, 0.95].map(|share| percentile(means.clone(), share)),
        }
    });
    MarginalsReport { databases, draws: draws.len(), seed, statistics: statistics.into(), shares: shares.into() }
}
