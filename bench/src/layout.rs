//! `relata-bench layout`: the columns that relata advises to sort tables by, against what sorting does.
//!
//! The workload of a database is timed with the table of each advised column written anew: once in the order that it has, once
//! sorted by the column. The other tables stay as they are.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use datafusion::dataframe::DataFrameWriteOptions;
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext, col};
use relata::cli::database::Database;
use relata::cli::session::SessionOptions;
use relata::{LayoutAdvice, Relata};

use crate::arguments::at_least_one;
use crate::corpus::Source;
use crate::score::figures::table;

/// Compare the advised orders of tables with measured times
#[derive(Debug, Clone, Args)]
pub struct LayoutOptions {
    /// Where the queries come from.
    #[command(flatten)]
    pub source: Source,
    /// Kinds of queries
    #[arg(long, value_delimiter = ',', default_values = ["seed"])]
    pub kinds: Vec<String>,
    /// Queries of each database, from the first
    #[arg(long, default_value_t = 40)]
    pub limit: usize,
    /// Columns that are tried per database, from the first that is advised
    #[arg(long, default_value_t = 3)]
    pub columns: usize,
    /// Repetitions of the workload, of which the fastest of each query counts
    #[arg(long, default_value_t = 3, value_parser = at_least_one)]
    pub repeat: usize,
}

/// A column that was tried, and the times of the workload.
#[derive(Debug)]
struct Tried {
    database: String,
    advice: LayoutAdvice,
    unsorted: Duration,
    sorted: Duration,
}

/// Tries what is advised for every database.
///
/// # Errors
/// When the queries or a database cannot be read, or a table cannot be written.
pub async fn run(options: &LayoutOptions) -> Result<String> {
    let mut tried = vec![];
    for workload in options.source.read(&options.kinds)? {
        let queries: Vec<String> = workload.queries.iter().take(options.limit).map(|query| query.sql.clone()).collect();
        let (relata, ctx) = opened(&workload.folder, &Relata::pretrained()?).await?;
        let advice = relata.advise_layout(&ctx, &queries).await?;
        for advice in advice.into_iter().take(options.columns) {
            let mut times = [Duration::ZERO; 2];
            let folders =
                [copied(&workload.folder, &advice, false).await?, copied(&workload.folder, &advice, true).await?];
            let mut sessions = vec![];
            for folder in &folders {
                sessions.push(opened(folder.path(), &relata).await?.1);
            }
            for sql in &queries {
                let mut fastest = [Duration::MAX; 2];
                for turn in 0..2 * options.repeat {
                    let start = Instant::now();
                    sessions[turn % 2].sql(sql).await?.collect().await?;
                    fastest[turn % 2] = fastest[turn % 2].min(start.elapsed());
                }
                times.iter_mut().zip(fastest).for_each(|(sum, one)| *sum += one);
            }
            let [unsorted, sorted] = times;
            tried.push(Tried { database: workload.database.clone(), advice, unsorted, sorted });
        }
    }
    Ok(print(&tried))
}

/// A database with relata like `like`, profiled.
async fn opened(folder: &Path, like: &Relata) -> Result<(Relata, SessionContext)> {
    let database = Database::open(folder, &SessionOptions::default()).await?;
    let mut relata = Relata::pretrained()?.with_foreign_keys(database.foreign_keys());
    if let Some(machine) = like.machine().await {
        relata = relata.with_machine(machine.clone());
    }
    let ctx = database.context(Some(&relata))?;
    relata.profile(&ctx).await?;
    Ok((relata, ctx))
}

/// The files of a database, that of the advised table written anew.
async fn copied(folder: &Path, advice: &LayoutAdvice, sorted: bool) -> Result<tempfile::TempDir> {
    let copy = tempfile::tempdir()?;
    let own = format!("{}.parquet", advice.table.table());
    for entry in std::fs::read_dir(folder)? {
        let from: PathBuf = entry?.path();
        let name = from.file_name().unwrap_or_default().to_owned();
        if from.is_file() && name.to_str() != Some(own.as_str()) {
            std::fs::copy(&from, copy.path().join(name)).with_context(|| from.display().to_string())?;
        }
    }
    let ctx = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    let mut rows = ctx.read_parquet(&*folder.join(&own).to_string_lossy(), ParquetReadOptions::default()).await?;
    if sorted {
        rows = rows.sort(vec![col(format!("\"{}\"", advice.column)).sort(true, true)])?;
    }
    let to = copy.path().join(&own);
    rows.write_parquet(&to.to_string_lossy(), DataFrameWriteOptions::new(), None).await?;
    Ok(copy)
}

fn print(tried: &[Tried]) -> String {
    let milliseconds = |duration: Duration| 1e3 * duration.as_secs_f64();
    let row = |one: &Tried| {
        let Tried { advice, .. } = one;
        let gain = |before: Duration, after: Duration| format!("{:.1}", milliseconds(before) - milliseconds(after));
        vec![
            one.database.clone(),
            format!("{}.{}", advice.table.table(), advice.column),
            advice.queries.to_string(),
            gain(advice.before, advice.after),
            gain(one.unsorted, one.sorted),
            format!("{:.1}", milliseconds(one.unsorted)),
        ]
    };
    let header = ["database", "column", "queries", "predicted gain, ms", "measured gain, ms", "workload, ms"];
    let agreed = tried.iter().filter(|one| one.sorted < one.unsorted).count();
    let sum = |value: fn(&Tried) -> Duration| milliseconds(tried.iter().map(value).sum());
    let (unsorted, sorted) = (sum(|one| one.unsorted), sum(|one| one.sorted));
    format!(
        "{}\n\n{} columns, {agreed} of which are faster sorted; {unsorted:.0} ms as it was, {sorted:.0} ms sorted",
        table(&[&header], tried.iter().map(row).collect()),
        tried.len(),
    )
}
