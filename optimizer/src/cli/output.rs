//! JSON lines to a file or to standard output.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use indicatif::ProgressBar;
use serde::Serialize;
use serde_json::Value;

use super::error::{CliError, Outcome, Result};
use super::terminal::Terminal;

/// Where a command writes its JSON lines: the file of `--output`, or else its results.
#[derive(Debug, Default)]
pub struct JsonLines {
    file: Option<(BufWriter<File>, PathBuf)>,
}

impl JsonLines {
    /// Creates the file, if one is asked for.
    ///
    /// # Errors
    /// The file cannot be created.
    pub fn create(path: Option<&Path>) -> Result<Self> {
        let Some(path) = path else { return Ok(JsonLines::default()) };
        let file = File::create(path).map_err(|error| CliError::io(path, error))?;
        Ok(JsonLines { file: Some((BufWriter::new(file), path.to_path_buf())) })
    }

    /// Writes one line.
    ///
    /// # Errors
    /// The file or standard output cannot be written.
    pub fn write(&mut self, terminal: &mut Terminal, line: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string(line).map_err(|error| CliError::Output(error.into()))?;
        match &mut self.file {
            Some((file, path)) => writeln!(file, "{text}").map_err(|error| CliError::io(&*path, error)),
            None => terminal.line(text),
        }
    }

    /// Writes everything out.
    ///
    /// # Errors
    /// The file or standard output cannot be written.
    pub fn finish(self, terminal: &mut Terminal) -> Result<()> {
        match self.file {
            Some((mut file, path)) => file.flush().map_err(|error| CliError::io(path, error)),
            None => terminal.flush(),
        }
    }
}

/// The output of a command that answers a file of queries: a line for each, in their order, with progress.
#[derive(Debug)]
pub(super) struct Answers {
    lines: JsonLines,
    pub(super) progress: ProgressBar,
    queries: usize,
    failures: usize,
}

/// The line of a query that failed.
#[derive(Debug, Serialize)]
struct Failed<'a> {
    id: &'a Value,
    error: String,
}

impl Answers {
    /// For so many queries, to the file `path` or to standard output.
    pub(super) fn create(
        path: Option<&Path>,
        queries: usize,
        label: &'static str,
        terminal: &Terminal,
    ) -> Result<Self> {
        let lines = JsonLines::create(path)?;
        Ok(Self { lines, progress: terminal.progress(queries, label), queries, failures: 0 })
    }

    /// The line of one query, or why it failed.
    pub(super) fn write(
        &mut self,
        terminal: &mut Terminal,
        id: &Value,
        answer: Result<impl Serialize, String>,
    ) -> Result<()> {
        match answer {
            Ok(answer) => self.lines.write(terminal, &answer)?,
            Err(error) => {
                self.failures += 1;
                self.lines.write(terminal, &Failed { id, error })?;
            }
        }
        self.progress.inc(1);
        Ok(())
    }

    /// Writes everything out and says how many queries failed.
    pub(super) fn finish(self, terminal: &mut Terminal) -> Result<Outcome> {
        self.progress.finish_and_clear();
        self.lines.finish(terminal)?;
        if self.failures > 0 {
            terminal.note(format_args!("{} of {} queries failed", self.failures, self.queries));
        }
        Ok(Outcome::from_failures(self.failures))
    }
}
