//! `relata tune`: adapts the experts to a database by a file of queries, each of which is run once.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use indicatif::ProgressBar;
use relata_experts::train::physical::tune::{PhysicalTuneConfig, TunedPhysical};
use relata_experts::tuned::QErrors;

use super::error::{Outcome, Result};
use super::open::DatabaseArgs;
use super::profile::duration;
use super::queries;
use super::run::seconds;
use super::session::SessionOptions;
use super::terminal::{Terminal, table};
use crate::Relata;
use crate::tune::{TuneConfig, TuneProgress, TuneReport};

/// Arguments of `relata tune`.
#[derive(Debug, Clone, clap::Args)]
pub struct TuneArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    /// File of queries like those to come, the first 512 of which are run: JSON lines with "sql", or plain SQL, one query a
    /// line; - is standard input
    #[arg(long, value_name = "FILE", required_unless_present = "drop", conflicts_with = "drop")]
    queries: Option<PathBuf>,
    /// Seconds after which a query is given up
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "5")]
    timeout: Duration,
    /// Steps of training [default: chosen by measurement]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(..=100_000))]
    steps: Option<u64>,
    /// Remove the tuned weights of the database instead
    #[arg(long)]
    drop: bool,
}

/// Runs the command.
///
/// # Errors
/// The database or the queries do not open, too few queries can be learned from, or the weights cannot be kept.
pub async fn tune(args: &TuneArgs, options: &SessionOptions, terminal: &mut Terminal) -> Result<Outcome> {
    let Some(queries) = &args.queries else {
        let removed = args.database.relata(&args.database.open(options, terminal).await?)?.remove_tuned()?;
        terminal.line(if removed { "the tuned weights are removed" } else { "there are no tuned weights" })?;
        terminal.flush()?;
        return Ok(Outcome::Success);
    };
    let queries = queries::read(queries)?;
    let unreadable = queries.iter().filter(|query| query.sql.is_err()).count();
    let statements: Vec<String> = queries.into_iter().filter_map(|query| query.sql.ok()).collect();
    let profiled = args.database.open_pretrained(options, terminal).await?;
    let config = TuneConfig { timeout: args.timeout, steps: args.steps, ..TuneConfig::default() };
    let progress = terminal.progress(statements.len().min(config.queries), "executing");
    let shown = progress.clone();
    let show = Arc::new(move |at: TuneProgress| show(&shown, at));
    let tuning = profiled.relata.tune(&profiled.ctx, &statements, &config, Arc::clone(&show) as _).await;
    progress.finish_and_clear();
    let tuning = tuning?;
    print(&tuning.report, unreadable, terminal)?;
    if tuning.report.accepted() {
        profiled.relata.keep_tuning(&tuning)?;
        terminal.line("accepted: the tuned weights are kept beside the profiles")?;
    } else {
        terminal.line("rejected: tuning does not help on held-out queries, the weights stay as they were")?;
    }
    let progress = terminal.progress(statements.len().min(config.queries), "timing");
    let shown = progress.clone();
    let show = move |at: TuneProgress| self::show(&shown, at);
    profiled.relata.record(&profiled.ctx, &statements, &config, &show).await;
    let mut settings = PhysicalTuneConfig::default();
    settings.steps = args.steps.unwrap_or(settings.steps);
    let tuned = profiled.relata.tune_runtimes(settings, show).await;
    progress.finish_and_clear();
    match tuned {
        Ok(tuned) => runtimes(&profiled.relata, &tuned, terminal)?,
        Err(error) => terminal.line(format_args!("\nthe runtimes stay as they were: {error}"))?,
    }
    terminal.flush()?;
    Ok(Outcome::Success)
}

/// Keeps tuned runtimes where they help, and says so.
fn runtimes(relata: &Relata, tuned: &TunedPhysical, terminal: &mut Terminal) -> Result<()> {
    let text = compared("q-error of runtimes", &tuned.before, &tuned.after);
    terminal.line(format_args!("\n{} recorded executions\n{text}\n", tuned.executions))?;
    if tuned.accepted() {
        relata.keep_runtimes(tuned)?;
        terminal.line("accepted: the tuned runtimes are kept beside the profiles")
    } else {
        terminal.line("rejected: tuning does not help on held-out queries, the runtimes stay as they were")
    }
}

/// The errors before and after tuning.
fn compared(of: &str, before: &QErrors, after: &QErrors) -> String {
    let row = |name: &str, errors: &QErrors| {
        let figures = errors.percentiles.into_iter().chain([errors.mean]);
        std::iter::once(name.to_owned()).chain(figures.map(|figure| format!("{figure:.2}"))).collect::<Vec<_>>()
    };
    table(&[of, "50%", "90%", "95%", "99%", "mean"], &[row("before", before)], row("tuned", after), 5)
}

fn show(bar: &ProgressBar, at: TuneProgress) {
    let (label, position, length) = match at {
        TuneProgress::Executed(done, all) => ("executing", done as u64, all as u64),
        TuneProgress::Trained(done, all) => ("tuning", done, all),
    };
    bar.set_prefix(label);
    bar.set_length(length);
    bar.set_position(position);
}

fn print(report: &TuneReport, unreadable: usize, terminal: &mut Terminal) -> Result<()> {
    let skipped = report.skipped + unreadable;
    let because = report.first_skipped.as_ref().map_or_else(String::new, |reason| format!(" (the first: {reason})"));
    let late = if report.left > 0 { format!(", {} left for want of time", report.left) } else { String::new() };
    terminal.line(format_args!("{} queries learned from, {skipped} skipped{because}{late}", report.queries))?;
    let text = compared("q-error", &report.before, &report.after);
    terminal.line(format_args!("\n{} held-out queries\n{text}\n", report.validated))?;
    let (executing, training) = (duration(report.executing), duration(report.training));
    terminal.line(format_args!("{executing} executing, {training} training"))
}
