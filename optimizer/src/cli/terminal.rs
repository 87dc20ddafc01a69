//! Where commands write: results to standard output, everything else to standard error.

use std::fmt::Display;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::time::Duration;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::error::{CliError, Result};

/// The output of one command. Results go through [`Terminal::line`], so a closed pipe is an error that the binary can
/// recognise, never a panic.
pub struct Terminal {
    results: Box<dyn Write + Send + Sync>,
    quiet: bool,
    /// Whether a person reads the results.
    pub interactive: bool,
}

impl std::fmt::Debug for Terminal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Terminal").field("quiet", &self.quiet).field("interactive", &self.interactive).finish()
    }
}

impl Terminal {
    /// Standard output and standard error of the process; `quiet` leaves out notes and progress.
    pub fn standard(quiet: bool) -> Self {
        let interactive = io::stdout().is_terminal();
        Terminal { results: Box::new(BufWriter::new(io::stdout())), quiet, interactive }
    }

    /// Results go to `results`; notes and progress are left out.
    pub fn to_writer(results: impl Write + Send + Sync + 'static) -> Self {
        Terminal { results: Box::new(results), quiet: true, interactive: false }
    }

    /// Writes one line of results.
    ///
    /// # Errors
    /// [`CliError::Output`] if standard output is closed.
    pub fn line(&mut self, text: impl Display) -> Result<()> {
        writeln!(self.results, "{text}").map_err(CliError::Output)
    }

    /// The writer of results, for formats that write bytes.
    pub fn results(&mut self) -> &mut (dyn Write + Send + Sync) {
        &mut *self.results
    }

    /// Hands everything written so far to the reader.
    ///
    /// # Errors
    /// [`CliError::Output`] if standard output is closed.
    pub fn flush(&mut self) -> Result<()> {
        self.results.flush().map_err(CliError::Output)
    }

    /// A remark on standard error; none with `--quiet`.
    pub fn note(&self, text: impl Display) {
        if !self.quiet {
            eprintln!("{text}");
        }
    }

    /// Something the user should know even with `--quiet`.
    pub fn warning(&self, text: impl Display) {
        eprintln!("warning: {text}");
    }

    /// Something that failed without ending the command.
    pub fn error(&self, text: impl Display) {
        eprintln!("error: {text}");
    }

    /// A progress bar over `steps` on standard error; hidden with `--quiet` and where standard error is no terminal.
    pub fn progress(&self, steps: usize, label: &'static str) -> ProgressBar {
        let target = if self.quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(Some(steps as u64), target).with_prefix(label);
        if let Ok(style) = ProgressStyle::with_template("{prefix:>10} [{bar:32}] {pos}/{len} {wide_msg}") {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        bar
    }
}

/// A drawn table of these rows, the last one set apart as their total: text at the left, then `numbers` columns of numbers.
pub(super) fn table(header: &[&str], rows: &[Vec<String>], total: Vec<String>, numbers: usize) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    let width = |column: usize| {
        let cells = rows.iter().chain([&total]).filter_map(|row| row.get(column)).map(String::as_str);
        let lines = cells.chain(header.get(column).copied()).flat_map(str::lines);
        lines.map(|line| line.chars().count()).max().unwrap_or(0)
    };
    let rule: Vec<String> = (0..header.len()).map(|column| "─".repeat(width(column))).collect();
    table.add_row(header).add_row(&rule).add_rows(rows).add_row(&rule).add_row(total);
    for column in table.column_iter_mut().skip(1).take(numbers) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.trim_fmt()
}
