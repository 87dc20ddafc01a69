//! JSON lines to a file or to standard output.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::error::{CliError, Result};
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
