//! `relata run`: runs a file of queries under one optimizer, or compares both.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::compare::{self, Comparison, Summary};
use super::error::{Outcome, Result};
use super::measure::{Runs, measure};
use super::open::DatabaseArgs;
use super::output::{Answers, JsonLines};
use super::queries::{self, Query};
use super::session::{OptimizerKind, SessionOptions};
use super::terminal::Terminal;

/// Arguments of `relata run`.
#[derive(Debug, Clone, clap::Args)]
pub struct RunArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    /// File of queries: JSON lines with "id" and "sql", or plain SQL, one query a line; - is standard input
    #[arg(long, value_name = "FILE")]
    queries: PathBuf,
    /// Which optimizer plans the queries
    #[arg(long, value_enum, default_value_t = OptimizerKind::Relata, conflicts_with = "compare")]
    optimizer: OptimizerKind,
    /// Runs every query under both optimizers in turns, compares their results, and prints the ratios of their times
    #[arg(long)]
    compare: bool,
    /// Repetitions of each query
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// Seconds after which a query is given up; its threads may stay busy, so that later queries take longer
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    timeout: Option<Duration>,
    /// File to write a line per query to [default: standard output, and nowhere with --compare]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// The repetitions of a query as they are written.
#[derive(Debug, Serialize)]
struct Times {
    planning_us: Vec<u64>,
    execution_us: Vec<u64>,
    rows: u64,
    digest: String,
    /// Only written where repetitions gave different results.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    unstable: bool,
}

/// A line of output.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Answer<'a> {
    Ran {
        id: &'a Value,
        #[serde(flatten)]
        times: Times,
    },
    Compared {
        id: &'a Value,
        default: Times,
        relata: Times,
        speedup: f64,
        same: bool,
    },
    Error {
        id: &'a Value,
        error: String,
    },
}

/// Runs the command.
///
/// # Errors
/// The database or the queries do not open, or the output cannot be written. A query that fails is part of the output.
pub async fn run(args: &RunArgs, options: &SessionOptions, terminal: &mut Terminal) -> Result<Outcome> {
    let queries = queries::read(&args.queries)?;
    if args.compare {
        run_both(args, &queries, options, terminal).await
    } else {
        run_one(args, &queries, options, terminal).await
    }
}

async fn run_one(
    args: &RunArgs,
    queries: &[Query],
    options: &SessionOptions,
    terminal: &mut Terminal,
) -> Result<Outcome> {
    let ctx = match args.optimizer {
        OptimizerKind::Default => args.database.open(options, terminal).await?.context(None)?,
        OptimizerKind::Relata => args.database.open_profiled(options, terminal).await?.ctx,
    };
    let mut output = Answers::create(args.output.as_deref(), queries.len(), "running", terminal)?;
    for query in queries {
        output.progress.set_message(query.name());
        let id = &query.id;
        let ran = async {
            let sql = query.sql.as_ref().map_err(ToString::to_string)?;
            let mut runs = Runs::default();
            for _ in 0..args.repeat {
                runs.push(measure(&ctx, sql, args.timeout).await.map_err(|error| error.to_string())?);
            }
            Ok::<Runs, String>(runs)
        };
        let answer = ran.await.map(|runs| Answer::Ran { id, times: Times::from(&runs) });
        output.write(terminal, id, answer)?;
    }
    output.finish(terminal)
}

async fn run_both(
    args: &RunArgs,
    queries: &[Query],
    options: &SessionOptions,
    terminal: &mut Terminal,
) -> Result<Outcome> {
    let profiled = args.database.open_profiled(options, terminal).await?;
    let contexts = [profiled.database.context(None)?, profiled.ctx];
    let mut output = args.output.as_deref().map(|path| JsonLines::create(Some(path))).transpose()?;
    let progress = terminal.progress(queries.len(), "comparing");
    let mut summary = Summary::default();
    for (index, query) in queries.iter().enumerate() {
        progress.set_message(query.name());
        let id = &query.id;
        let compared = match &query.sql {
            Ok(sql) => compare::compare(&contexts, sql, args.repeat, index, args.timeout).await,
            Err(reason) => Err(reason.clone()),
        };
        let answer = match compared {
            Ok(comparison) => {
                if let Some(difference) = comparison.difference() {
                    progress.suspend(|| terminal.error(format_args!("query {}: {difference}", query.name())));
                }
                let Comparison { default, relata } = &comparison;
                let (default, relata) = (Times::from(default), Times::from(relata));
                let line =
                    Answer::Compared { id, default, relata, speedup: comparison.speedup(), same: comparison.same() };
                summary.push(query.name(), &comparison);
                line
            }
            Err(error) => {
                progress.suspend(|| terminal.error(format_args!("query {}: {error}", query.name())));
                summary.failed += 1;
                Answer::Error { id, error }
            }
        };
        if let Some(output) = &mut output {
            output.write(terminal, &answer)?;
        }
        progress.inc(1);
    }
    progress.finish_and_clear();
    if let Some(output) = output {
        output.finish(terminal)?;
    }
    terminal.line(&summary)?;
    terminal.flush()?;
    Ok(Outcome::from_failures(summary.failed + summary.different))
}

impl From<&Runs> for Times {
    fn from(runs: &Runs) -> Self {
        let micros = |times: &[Duration]| times.iter().map(|time| time.as_micros() as u64).collect();
        Times {
            planning_us: micros(&runs.planning),
            execution_us: micros(&runs.execution),
            rows: runs.digest.rows(),
            digest: runs.digest.to_string(),
            unstable: runs.unstable,
        }
    }
}

/// Parses a positive number of seconds.
pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|error| format!("{error}"))?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err("must be a positive number of seconds".to_owned()),
    }
}
