//! `relata advise`: settings for a query on this machine, or the columns to sort tables by for a file of queries.

use std::path::PathBuf;

use datafusion::execution::memory_pool::human_readable_size;

use super::error::{Outcome, Result};
use super::open::DatabaseArgs;
use super::queries;
use super::session::SessionOptions;
use super::terminal::{Terminal, table};
use crate::{LayoutAdvice, SettingAdvice};

/// Arguments of `relata advise`.
#[derive(Debug, Clone, clap::Args)]
pub struct AdviseArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    /// Query to compare settings for; it is planned and not run
    #[arg(required_unless_present = "queries", conflicts_with = "queries")]
    sql: Option<String>,
    /// File of queries to compare orders of tables for, none of which is run: JSON lines with "sql", or plain SQL, one query a
    /// line; - is standard input
    #[arg(long, value_name = "FILE")]
    queries: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// The database or the queries do not open, or the query cannot be planned.
pub async fn advise(args: &AdviseArgs, options: &SessionOptions, terminal: &mut Terminal) -> Result<Outcome> {
    let queries = args.queries.as_deref().map(queries::read).transpose()?;
    let profiled = args.database.open_profiled(options, terminal).await?;
    if let Some(queries) = queries {
        let statements: Vec<String> = queries.into_iter().filter_map(|query| query.sql.ok()).collect();
        let advice = profiled.relata.advise_layout(&profiled.ctx, &statements).await?;
        if advice.is_empty() {
            terminal.line("no table is predicted to be faster sorted")?;
        }
        for LayoutAdvice { table, column, queries, before, after } in advice {
            terminal.line(format_args!(
                "sort {table} by {column}: {before:.1?} -> {after:.1?}, predicted for the {queries} queries that filter it"
            ))?;
        }
        terminal.flush()?;
        return Ok(Outcome::Success);
    }
    let advice = profiled.relata.advise(&profiled.ctx, args.sql.as_deref().unwrap_or_default()).await?;
    let row = |name: String, one: &SettingAdvice| {
        let [lower, median, upper] = one.runtime.elapsed.map(|elapsed| format!("{elapsed:.1?}"));
        let [_, memory, most] = one.runtime.peak_bytes.map(|bytes| human_readable_size(bytes as usize));
        let setting = [one.target_partitions, one.batch_size].map(|value| value.to_string());
        [vec![name], setting.to_vec(), vec![median, lower, upper, memory, most]].concat()
    };
    let rows: Vec<_> = advice.iter().zip(1..).map(|(one, place)| row(format!("{place}."), one)).collect();
    let current = advice.iter().find(|one| one.current).map_or_else(Vec::new, |one| row("current".to_owned(), one));
    let header = ["", "target_partitions", "batch_size", "time", "at least", "at most", "memory", "at most"];
    terminal.line(table(&header, &rows, current, 7))?;
    terminal.flush()?;
    Ok(Outcome::Success)
}
