//! `relata explain`: the plan with relata's rows and intervals next to DataFusion's, next to the actual ones, or as a picture.

use std::path::PathBuf;

use super::error::{CliError, Outcome, Result};
use super::open::DatabaseArgs;
use super::session::SessionOptions;
use super::terminal::Terminal;

/// Arguments of `relata explain`.
#[derive(Debug, Clone, clap::Args)]
pub struct ExplainArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    /// Run the query and show the actual rows of every node, with the q-errors
    #[arg(long)]
    analyze: bool,
    /// Draw the plan into this file (SVG)
    #[arg(long, value_name = "FILE", conflicts_with = "analyze")]
    svg: Option<PathBuf>,
    /// The query
    #[arg(value_name = "SQL")]
    sql: String,
}

/// Runs the command.
///
/// # Errors
/// The database does not open, the query cannot be planned or run, or the picture cannot be written.
pub async fn explain(args: &ExplainArgs, options: &SessionOptions, terminal: &mut Terminal) -> Result<Outcome> {
    let profiled = args.database.open_profiled(options, terminal).await?;
    let (relata, ctx, sql) = (&profiled.relata, &profiled.ctx, &args.sql);
    if let Some(file) = &args.svg {
        let svg = relata.explain_svg(ctx, sql).await?;
        std::fs::write(file, svg).map_err(|error| CliError::io(file, error))?;
        return Ok(Outcome::Success);
    }
    let text = if args.analyze { relata.explain_analyze(ctx, sql).await? } else { relata.explain(ctx, sql).await? };
    terminal.line(text.trim_end())?;
    terminal.flush()?;
    Ok(Outcome::Success)
}
