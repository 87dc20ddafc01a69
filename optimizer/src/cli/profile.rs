//! `relata profile`: builds and stores profiles, prints their size and time, and lists the keys.

use std::time::Duration;

use super::error::{Outcome, Result};
use super::inference::infer_keys;
use super::open::{DatabaseArgs, Profiled};
use super::session::SessionOptions;
use super::terminal::{Terminal, table};
use crate::{ProfileSource, SynopsesReport, SynopsisReport, TableReport};

/// Arguments of `relata profile`.
#[derive(Debug, Clone, clap::Args)]
pub struct ProfileArgs {
    #[command(flatten)]
    database: DatabaseArgs,
}

/// Runs the command.
///
/// # Errors
/// The database does not open, or its keys cannot be inferred.
pub async fn profile(args: &ProfileArgs, options: &SessionOptions, terminal: &mut Terminal) -> Result<Outcome> {
    let profiled = args.database.open_profiled(options, terminal).await?;
    terminal.line(table_of(&profiled.reports))?;
    print_synopses(&profiled.synopses, terminal)?;
    print_keys(&profiled, terminal).await?;
    terminal.flush()?;
    let failed = profiled.reports.iter().filter(|report| report.error.is_some()).count();
    Ok(Outcome::from_failures(failed + profiled.database.tables.len() - profiled.reports.len()))
}

async fn print_keys(profiled: &Profiled, terminal: &mut Terminal) -> Result<()> {
    let (origin, keys) = match &profiled.database.keys {
        Some(keys) => ("declared", keys.clone()),
        None => ("inferred from the data", infer_keys(&profiled.ctx, &profiled.database).await?),
    };
    terminal.line(format_args!("\nprimary keys, {origin}: {}", keys.primary.len()))?;
    for key in &keys.primary {
        terminal.line(format_args!("  {key}"))?;
    }
    terminal.line(format_args!("foreign keys, {origin}: {}", keys.foreign.len()))?;
    for key in &keys.foreign {
        terminal.line(format_args!("  {key}"))?;
    }
    Ok(())
}

fn print_synopses(report: &SynopsesReport, terminal: &mut Terminal) -> Result<()> {
    let row = |synopsis: &SynopsisReport| {
        let parents = synopsis.parents.iter().map(|(table, share)| format!("{} {:.0}%", table.table(), share * 100.0));
        let state = if synopsis.loaded { "loaded" } else { "built" };
        vec![
            synopsis.table.table().to_owned(),
            synopsis.rows.to_string(),
            bytes(synopsis.bytes),
            state.to_owned(),
            parents.collect::<Vec<_>>().join(", "),
        ]
    };
    let total = vec![
        format!("{} synopses", report.synopses.len()),
        report.synopses.iter().map(|synopsis| synopsis.rows).sum::<usize>().to_string(),
        bytes(report.synopses.iter().map(|synopsis| synopsis.bytes).sum()),
        format!("{}, {} scans", duration(report.elapsed), report.scanned),
        String::new(),
    ];
    let rows: Vec<_> = report.synopses.iter().map(row).collect();
    terminal.line(format_args!("\nsamples joined with parents, and the share of rows that have one"))?;
    terminal.line(table(&["table", "rows", "size", "", "parents"], &rows, total, 2))?;
    Ok(())
}

fn table_of(reports: &[TableReport]) -> String {
    let row = |report: &TableReport| {
        let state = match (&report.error, report.source) {
            (Some(error), _) => error.clone(),
            (None, ProfileSource::Loaded) => "loaded".to_owned(),
            (None, ProfileSource::Updated) => "updated".to_owned(),
            (None, ProfileSource::Built) => "built".to_owned(),
        };
        vec![
            report.table.to_string(),
            report.rows.to_string(),
            report.columns.to_string(),
            bytes(report.bytes),
            duration(report.elapsed),
            state,
        ]
    };
    let total = vec![
        format!("{} tables", reports.len()),
        reports.iter().map(|report| report.rows).sum::<u64>().to_string(),
        reports.iter().map(|report| report.columns).sum::<usize>().to_string(),
        bytes(reports.iter().map(|report| report.bytes).sum()),
        duration(reports.iter().map(|report| report.elapsed).sum()),
        String::new(),
    ];
    let rows: Vec<_> = reports.iter().map(row).collect();
    table(&["table", "rows", "columns", "profile", "time", ""], &rows, total, 4)
}

/// A number of bytes for people.
pub fn bytes(bytes: usize) -> String {
    match bytes {
        0..=9_999 => format!("{bytes} B"),
        10_000..=9_999_999 => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

/// A duration for people, in milliseconds below ten seconds.
pub fn duration(duration: Duration) -> String {
    let milliseconds = duration.as_secs_f64() * 1e3;
    match milliseconds {
        ..10.0 => format!("{milliseconds:.2} ms"),
        ..10_000.0 => format!("{milliseconds:.0} ms"),
        _ => format!("{:.1} s", duration.as_secs_f64()),
    }
}
