//! `relata estimate`: row estimates with intervals for a file of queries, none of which is run.

use std::path::PathBuf;

use serde::Serialize;
use serde_json::Value;

use super::error::{Outcome, Result};
use super::open::{DatabaseArgs, isolated};
use super::output::JsonLines;
use super::queries;
use super::session::SessionOptions;
use super::terminal::Terminal;

/// Arguments of `relata estimate`.
#[derive(Debug, Clone, clap::Args)]
pub struct EstimateArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    /// File of queries: JSON lines with "id" and "sql", or plain SQL, one query a line; - is standard input
    #[arg(long, value_name = "FILE")]
    queries: PathBuf,
    /// File to write the answers to [default: standard output]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// One line of answer.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Answer<'a> {
    /// `default` is DataFusion's own estimate of the same node.
    Estimate {
        id: &'a Value,
        estimate: f64,
        lower: f64,
        upper: f64,
        default: Option<f64>,
        planning_us: u64,
    },
    Error {
        id: &'a Value,
        error: String,
    },
}

/// Runs the command: one line per query, in the order of the file.
///
/// # Errors
/// The database or the queries do not open, or the output cannot be written. A query that fails is part of the output.
pub async fn estimate(args: &EstimateArgs, options: &SessionOptions, terminal: &mut Terminal) -> Result<Outcome> {
    let queries = queries::read(&args.queries)?;
    let profiled = args.database.open_profiled(options, terminal).await?;
    let mut output = JsonLines::create(args.output.as_deref())?;
    let progress = terminal.progress(queries.len(), "estimating");
    let mut failures = 0;
    for query in &queries {
        let id = &query.id;
        let answer = match &query.sql {
            Err(reason) => Err(reason.clone()),
            Ok(sql) => {
                let (relata, ctx, sql) = (profiled.relata.clone(), profiled.ctx.clone(), sql.clone());
                let work = async move { Ok(relata.estimate_sql(&ctx, &sql).await?) };
                isolated(work).await.map_err(|error| error.to_string())
            }
        };
        let answer = match answer {
            Ok(found) => Answer::Estimate {
                id,
                estimate: found.estimate,
                lower: found.lower,
                upper: found.upper,
                default: found.default,
                planning_us: found.planning.as_micros() as u64,
            },
            Err(error) => {
                failures += 1;
                Answer::Error { id, error }
            }
        };
        output.write(terminal, &answer)?;
        progress.inc(1);
    }
    progress.finish_and_clear();
    output.finish(terminal)?;
    if failures > 0 {
        terminal.note(format_args!("{failures} of {} queries failed", queries.len()));
    }
    Ok(Outcome::from_failures(failures))
}
