//! `relata explain`: the plan with relata's rows and intervals next to DataFusion's.

use super::error::{Outcome, Result};
use super::open::DatabaseArgs;
use super::session::SessionOptions;
use super::terminal::Terminal;

/// Arguments of `relata explain`.
#[derive(Debug, Clone, clap::Args)]
pub struct ExplainArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    /// The query
    #[arg(value_name = "SQL")]
    sql: String,
}

/// Runs the command.
///
/// # Errors
/// The database does not open, or the query cannot be planned.
pub async fn explain(args: &ExplainArgs, options: &SessionOptions, terminal: &mut Terminal) -> Result<Outcome> {
    let profiled = args.database.open_profiled(options, terminal).await?;
    let text = profiled.relata.explain(&profiled.ctx, &args.sql).await?;
    terminal.line(text.trim_end())?;
    terminal.flush()?;
    Ok(Outcome::Success)
}
