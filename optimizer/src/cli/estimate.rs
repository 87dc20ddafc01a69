//! `relata estimate`: row estimates with intervals for a file of queries, none of which is run, and how long they would take.

use std::path::PathBuf;

use serde::Serialize;
use serde_json::Value;

use super::error::{Outcome, Result};
use super::open::{DatabaseArgs, isolated};
use super::output::Answers;
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
    /// Predict time and memory of each query on this machine as well
    #[arg(long)]
    runtimes: bool,
    /// File to write the answers to [default: standard output]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// One line of answer.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    id: &'a Value,
    estimate: f64,
    lower: f64,
    upper: f64,
    /// DataFusion's own estimate of the same node.
    default: Option<f64>,
    planning_us: u64,
    #[serde(flatten)]
    runtime: Option<Runtime>,
}

/// What a query takes: 5% quantile, median and 95% quantile.
#[derive(Debug, Serialize)]
struct Runtime {
    elapsed_us: [u64; 3],
    peak_bytes: [u64; 3],
}

/// Runs the command: one line per query, in the order of the file.
///
/// # Errors
/// The database or the queries do not open, or the output cannot be written. A query that fails is part of the output.
pub async fn estimate(args: &EstimateArgs, options: &SessionOptions, terminal: &mut Terminal) -> Result<Outcome> {
    let queries = queries::read(&args.queries)?;
    let profiled = args.database.open_profiled(options, terminal).await?;
    let mut output = Answers::create(args.output.as_deref(), queries.len(), "estimating", terminal)?;
    for query in &queries {
        let id = &query.id;
        let found = match &query.sql {
            Err(reason) => Err(reason.clone()),
            Ok(sql) => {
                let (relata, ctx, sql) = (profiled.relata.clone(), profiled.ctx.clone(), sql.clone());
                let runtimes = args.runtimes;
                let work = async move {
                    let found = relata.estimate_sql(&ctx, &sql).await?;
                    let runtime = if runtimes { Some(relata.estimate_runtime(&ctx, &sql).await?) } else { None };
                    Ok((found, runtime))
                };
                isolated(work).await.map_err(|error| error.to_string())
            }
        };
        let answer = found.map(|(found, runtime)| Answer {
            id,
            estimate: found.estimate,
            lower: found.lower,
            upper: found.upper,
            default: found.default,
            planning_us: found.planning.as_micros() as u64,
            runtime: runtime.map(|runtime| Runtime {
                elapsed_us: runtime.elapsed.map(|elapsed| elapsed.as_micros() as u64),
                peak_bytes: runtime.peak_bytes,
            }),
        });
        output.write(terminal, id, answer)?;
    }
    output.finish(terminal)
}
