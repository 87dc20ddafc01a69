//! `relata-bench tune`: what tuning on a database's own queries gains.
//!
//! For each database: queries to tune on and held-out ones of another seed, both with exact answers, and the queries of the
//! corpus; none that was tuned on is scored. Databases whose tuning is rejected keep the pretrained weights, and count with
//! them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Args;
use datafusion::prelude::SessionContext;
use hashbrown::HashSet;
use indicatif::{ProgressBar, ProgressStyle};
use relata::Relata;
use relata::cli::database::Database;
use relata::cli::session::SessionOptions;
use relata::tune::TuneConfig;
use serde::Serialize;

use crate::corpus::{CorpusQuery, Source};
use crate::machine::Provenance;
use crate::metrics::{Scored, Summary, summarize};
use crate::queries::Kind;
use crate::score::figures::{short, table};
use crate::score::weights;
use crate::workload::{self, WorkloadOptions};

/// Measure what tuning on a database's own queries gains
#[derive(Debug, Clone, Args)]
pub struct TuneOptions {
    /// Folder of the corpus
    #[arg(long, default_value = "../shared/corpus")]
    pub corpus: PathBuf,
    /// Databases of the corpus [default: every one with a workload]
    #[arg(long, num_args = 1..)]
    pub database: Vec<String>,
    /// Kind of the queries
    #[arg(long, value_enum, default_value_t = Kind::Seed)]
    pub kind: Kind,
    /// Queries to tune on
    #[arg(long, default_value_t = 512)]
    pub queries: usize,
    /// Held-out queries to score
    #[arg(long, default_value_t = 256)]
    pub held_out: usize,
    /// Seed of the queries
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// File for the figures (JSON)
    #[arg(long)]
    pub output: Option<PathBuf>,
}

/// One query's estimates.
#[derive(Debug, Clone, Copy, Serialize)]
struct Pair {
    before: Scored,
    after: Scored,
}

/// One database.
#[derive(Debug, Serialize)]
pub struct TunedDatabase {
    /// Its name.
    pub name: String,
    /// Whether the tuned weights were kept.
    pub accepted: bool,
    /// The share of the way that was kept.
    pub share: f32,
    /// Queries learned from.
    pub queries: usize,
    /// Seconds of executing and training.
    pub seconds: f64,
    /// The held-out queries, and those of the corpus.
    #[serde(skip)]
    pairs: [Vec<Pair>; 2],
}

/// What was measured.
#[derive(Debug, Serialize)]
pub struct TuneReport {
    /// Where and from what.
    pub provenance: Provenance,
    /// By database.
    pub databases: Vec<TunedDatabase>,
    /// By queries and weights, over all databases.
    pub figures: Vec<(String, String, Summary)>,
}

/// Tunes on every database, and scores what comes out.
///
/// # Errors
/// When the corpus cannot be read, a database cannot be opened or tuned, or a file cannot be written.
pub async fn run(options: &TuneOptions) -> Result<TuneReport> {
    let mut names = options.database.clone();
    if names.is_empty() {
        let all =
            Source { corpus: options.corpus.clone(), database: vec![], folder: None, queries: None, workloads: None };
        names = all.read(&[])?.into_iter().map(|workload| workload.database).collect();
    }
    let bar = ProgressBar::new(names.len() as u64);
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} databases  {elapsed}  {msg}")?);
    let mut databases = vec![];
    for name in names {
        bar.set_message(name.clone());
        databases.push(tuned(options, &name).await.with_context(|| name)?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    let report = TuneReport { provenance: Provenance::collect(weights()), figures: figures(&databases), databases };
    if let Some(path) = &options.output {
        let text = serde_json::to_string_pretty(&report)? + "\n";
        std::fs::write(path, text).with_context(|| path.display().to_string())?;
    }
    Ok(report)
}

async fn tuned(options: &TuneOptions, name: &str) -> Result<TunedDatabase> {
    let folder = options.corpus.join(name);
    let training = generated(options, &folder, options.seed, options.queries).await?;
    let held_out = generated(options, &folder, options.seed + 1000, options.held_out).await?;
    let corpus = if folder.join("workload").is_dir() {
        let (corpus, database) = (options.corpus.clone(), vec![name.to_owned()]);
        let workloads = Source { corpus, database, folder: None, queries: None, workloads: None }
            .read(&[options.kind.to_string()])?;
        workloads.into_iter().flat_map(|workload| workload.queries).collect()
    } else {
        vec![]
    };
    let database = Database::open(&folder, &SessionOptions::default()).await?;
    let relata = Relata::pretrained()?.with_foreign_keys(database.foreign_keys());
    let ctx = database.context(Some(&relata))?;
    relata.profile(&ctx).await?;

    let statements: Vec<String> = training.into_iter().map(|query| query.sql).collect();
    let start = Instant::now();
    let tuning = relata.tune(&ctx, &statements, &TuneConfig::default(), Arc::new(|_| ())).await?;
    let seconds = start.elapsed().as_secs_f64();
    let accepted = tuning.report.accepted();
    let after = if accepted { relata.clone().with_experts(tuning.experts) } else { relata.clone() };
    let seen: HashSet<String> = statements.into_iter().collect();
    let mut pairs = [vec![], vec![]];
    for (pairs, queries) in pairs.iter_mut().zip([held_out, corpus]) {
        for query in queries.iter().filter(|query| !seen.contains(&query.sql)) {
            let (before, after) = (scored(&relata, &ctx, query).await?, scored(&after, &ctx, query).await?);
            pairs.push(Pair { before, after });
        }
    }
    let (share, queries) = (tuning.report.share, tuning.report.queries);
    Ok(TunedDatabase { name: name.to_owned(), accepted, share, queries, seconds, pairs })
}

/// By queries and weights, over all databases.
fn figures(databases: &[TunedDatabase]) -> Vec<(String, String, Summary)> {
    let mut figures = vec![];
    for (index, queries) in ["held-out", "corpus"].into_iter().enumerate() {
        let pairs = databases.iter().flat_map(|database| &database.pairs[index]);
        let (before, after): (Vec<_>, Vec<_>) = pairs.map(|pair| (Some(pair.before), Some(pair.after))).unzip();
        for (weights, scored) in [("zero-shot", before), ("tuned", after)] {
            figures.extend(summarize(&scored).map(|summary| (queries.to_owned(), weights.to_owned(), summary)));
        }
    }
    figures
}

/// Queries over a database with exact answers.
async fn generated(options: &TuneOptions, folder: &Path, seed: u64, queries: usize) -> Result<Vec<CorpusQuery>> {
    let directory = tempfile::tempdir()?;
    let output = directory.path().join("queries.jsonl");
    let (database, kinds) = (Some(folder.to_owned()), vec![options.kind]);
    let written = WorkloadOptions {
        database,
        synthetic: None,
        seed,
        queries,
        kinds,
        joins: None,
        output: output.clone(),
        subplans: None,
    };
    workload::run(&written).await?;
    let (corpus, folder, queries) = (options.corpus.clone(), Some(folder.to_owned()), Some(output));
    let read = Source { corpus, database: vec![], folder, queries, workloads: None }.read(&[])?;
    Ok(read.into_iter().flat_map(|workload| workload.queries).collect())
}

async fn scored(relata: &Relata, ctx: &SessionContext, query: &CorpusQuery) -> Result<Scored> {
    let found = relata.estimate_sql(ctx, &query.sql).await.with_context(|| query.id.clone())?;
    Ok(Scored { estimate: found.estimate, truth: query.truth, interval: Some((found.lower, found.upper)) })
}

/// The figures as tables, the databases first.
pub fn print(report: &TuneReport) -> String {
    let figures = |summary: &Summary| {
        let Summary { median, p90, p95, p99, geometric_mean, .. } = summary;
        let tail = [p90, p95, p99].map(|figure| short(*figure));
        std::iter::once(format!("{median:.3}")).chain(tail).chain([format!("{geometric_mean:.3}")])
    };
    let mut rows = vec![];
    for database in &report.databases {
        for (weights, pairs) in [("zero-shot", false), ("tuned", true)] {
            let all = database.pairs.iter().flatten();
            let scored: Vec<_> = all.map(|pair| Some(if pairs { pair.after } else { pair.before })).collect();
            let Some(summary) = summarize(&scored) else { continue };
            let mut row = vec![database.name.clone(), weights.to_owned(), summary.n.to_string()];
            row.extend(figures(&summary));
            let kept =
                if database.accepted { format!("{:.0}%", 100.0 * database.share) } else { "rejected".to_owned() };
            row.extend(if pairs { [kept, format!("{:.1}", database.seconds)] } else { [String::new(), String::new()] });
            rows.push(row);
        }
    }
    let header = ["database", "weights", "n", "median", "90%", "95%", "99%", "geo-mean", "kept", "seconds"];
    let mut text = format!("{}\n\n", table(&[&header], rows));
    let rows = report.figures.iter().map(|(queries, weights, summary)| {
        let mut row = vec![queries.clone(), weights.clone(), summary.n.to_string()];
        row.extend(figures(summary));
        let coverage = summary.coverage.map_or_else(String::new, |coverage| format!("{:.1}%", 100.0 * coverage));
        row.extend([coverage, summary.width.map_or_else(String::new, short)]);
        row
    });
    let header = ["queries", "weights", "n", "median", "90%", "95%", "99%", "geo-mean", "coverage", "width"];
    text += &table(&[&header], rows.collect());
    let rejected = report.databases.iter().filter(|database| !database.accepted).count();
    let longest = report.databases.iter().map(|database| database.seconds).fold(0.0, f64::max);
    text + &format!("\n\n{} databases, {rejected} rejected; {longest:.1} s at most\n", report.databases.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejected_databases_count_with_the_weights_they_keep() {
        let scored = |estimate| Scored { estimate, truth: 10.0, interval: None };
        let database = |name: &str, accepted, after| TunedDatabase {
            name: name.to_owned(),
            accepted,
            share: 0.5,
            queries: 512,
            seconds: 7.25,
            pairs: [vec![Pair { before: scored(40.0), after: scored(after) }], vec![]],
        };
        let databases = vec![database("shop", true, 20.0), database("library", false, 40.0)];
        let figures = figures(&databases);
        let figures_of =
            |weights: &str| figures.iter().find(|figure| figure.1 == weights).map(|figure| figure.2.median);
        assert_eq!((figures.len(), figures_of("zero-shot"), figures_of("tuned")), (2, Some(4.0), Some(3.0)));
        let text = print(&TuneReport { provenance: Provenance::collect(None), databases, figures });
        assert!(text.contains("50%") && text.contains("rejected"), "{text}");
        assert!(text.ends_with("2 databases, 1 rejected; 7.2 s at most\n"), "{text}");
    }
}
