//! `relata demo`: multi-join queries over a generated retail database, under DataFusion's defaults and with relata.

mod data;
mod queries;
mod report;

use std::path::PathBuf;
use std::time::Duration;

use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::datatypes::Int64Type;

use super::compare::{Comparison, compare};
use super::error::{Outcome, Result};
use super::open::{Profiled, cache_directory};
use super::profile::{bytes, duration};
use super::session::SessionOptions;
use super::terminal::Terminal;
use crate::{ProfileSource, TableReport};
pub use queries::{Answer, DemoQuery, QUERIES};
use report::{Report, ReportRow};

/// Repetitions of a query, of which the fastest counts.
const REPETITIONS: u32 = 3;
/// A query that takes longer than this is not repeated: its time is well above the noise.
const LONG: Duration = Duration::from_millis(700);

/// Arguments of `relata demo`.
#[derive(Debug, Clone, clap::Args)]
pub struct DemoArgs {
    /// Rows of all tables together
    #[arg(long, value_name = "N", default_value_t = DemoArgs::default().rows,
        value_parser = clap::value_parser!(u64).range(2_000..=1 << 30))]
    rows: u64,
    /// Seed of the generated data
    #[arg(long, value_name = "N", default_value_t = DemoArgs::default().seed)]
    seed: u64,
    /// Folder the generated database is kept in [default: the user's cache]
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
}

impl Default for DemoArgs {
    fn default() -> Self {
        DemoArgs { rows: 1_000_000, seed: 1, cache: None }
    }
}

impl DemoArgs {
    /// Sets the number of rows, the seed and the cache folder.
    pub fn new(rows: u64, seed: u64, cache: impl Into<PathBuf>) -> Self {
        DemoArgs { rows, seed, cache: Some(cache.into()) }
    }
}

/// Runs the command.
///
/// # Errors
/// The database cannot be generated, stored or opened. A query that fails, or whose results differ, is reported and makes
/// the outcome a failure.
pub async fn demo(args: &DemoArgs, options: &SessionOptions, terminal: &mut Terminal) -> Result<Outcome> {
    let cache = args.cache.clone().unwrap_or_else(|| cache_directory().join("demo"));
    let (directory, database) = data::prepare(&cache, args.seed, args.rows, options, terminal).await?;
    let profiled = Profiled::new(database, Some(&directory.join("profiles")), terminal).await?;
    terminal.line(profile_summary(&profiled.reports))?;
    let contexts = [profiled.database.context(None)?, profiled.ctx.clone()];

    let progress = terminal.progress(QUERIES.len(), "running");
    let mut report = Report::default();
    for (index, query) in QUERIES.iter().enumerate() {
        progress.set_message(query.question);
        let estimate = profiled.relata.estimate_sql(&profiled.ctx, query.sql).await;
        let compared = async {
            let estimate = estimate.map_err(|error| error.to_string())?;
            let once = compare(&contexts, query.sql, 1, index, None).await?;
            let long = once.default.best_total().max(once.relata.best_total()) > LONG;
            let repeated =
                if long { None } else { Some(compare(&contexts, query.sql, REPETITIONS - 1, index + 1, None).await?) };
            Ok::<_, String>((estimate, merged(once, repeated)))
        };
        match compared.await {
            Ok((estimate, comparison)) => {
                if let Some(difference) = comparison.difference() {
                    progress.suspend(|| terminal.error(format_args!("{}: {difference}", query.question)));
                }
                let actual = actual_rows(query, &comparison);
                report.push(ReportRow { query, actual, estimate, comparison });
            }
            Err(error) => {
                progress.suspend(|| terminal.error(format_args!("{}: {error}", query.question)));
                report.failed += 1;
            }
        }
        progress.inc(1);
    }
    progress.finish_and_clear();
    terminal.line(&report)?;
    terminal.flush()?;
    terminal.note(format_args!(
        "\ntry: relata sql --database {0}\n     relata run --compare --database {0} --queries {0}/{1}",
        directory.display(),
        data::QUERY_FILE,
    ));
    Ok(Outcome::from_failures(report.failed + report.different()))
}

/// What profiling took, in one line.
fn profile_summary(reports: &[TableReport]) -> String {
    let rows: u64 = reports.iter().map(|report| report.rows).sum();
    let size: usize = reports.iter().map(|report| report.bytes).sum();
    let time = duration(reports.iter().map(|report| report.elapsed).sum());
    let loaded = if reports.iter().all(|report| report.source == ProfileSource::Loaded) { "loaded" } else { "built" };
    format!("{} tables with {rows} rows; profiles of {} {loaded} in {time}", reports.len(), bytes(size))
}

/// All repetitions of a query, those of `first` before those of `rest`.
fn merged(mut first: Comparison, rest: Option<Comparison>) -> Comparison {
    if let Some(rest) = rest {
        first.default.extend(rest.default);
        first.relata.extend(rest.relata);
    }
    first
}

/// The rows that the estimates are about: those of the result, or those that an ungrouped aggregate counts.
fn actual_rows(query: &DemoQuery, comparison: &Comparison) -> f64 {
    match query.answer {
        Answer::Rows => comparison.default.digest.rows() as f64,
        Answer::Count => comparison.default.first.as_ref().and_then(first_count).unwrap_or(f64::NAN),
    }
}

fn first_count(batch: &RecordBatch) -> Option<f64> {
    let counts = batch.columns().first()?.as_primitive_opt::<Int64Type>()?;
    (!counts.is_empty()).then(|| counts.value(0) as f64)
}
