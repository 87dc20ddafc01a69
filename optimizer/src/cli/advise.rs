//! `relata advise`: settings for a query on this machine.

use datafusion::execution::memory_pool::human_readable_size;

use super::error::{Outcome, Result};
use super::open::DatabaseArgs;
use super::session::SessionOptions;
use super::terminal::{Terminal, table};
use crate::SettingAdvice;

/// Arguments of `relata advise`.
#[derive(Debug, Clone, clap::Args)]
pub struct AdviseArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    /// Query to plan; it is not run
    sql: String,
}

/// Runs the command.
///
/// # Errors
/// The database does not open, or the query cannot be planned.
pub async fn advise(args: &AdviseArgs, options: &SessionOptions, terminal: &mut Terminal) -> Result<Outcome> {
    let profiled = args.database.open_profiled(options, terminal).await?;
    let advice = profiled.relata.advise(&profiled.ctx, &args.sql).await?;
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
