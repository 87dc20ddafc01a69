//! What can go wrong in a command.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use datafusion::arrow::error::ArrowError;
use datafusion::error::DataFusionError;

use crate::RelataError;

/// Errors of the command line. Each message names the file, folder or query it is about.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CliError {
    /// The database folder does not exist, is not a folder or cannot be listed.
    #[error("database folder {}: {reason}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file that is not a table (queries, `schema.json`, demo data) cannot be used.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        #[source]
        source: io::Error,
    },
    /// Standard output is closed or full.
    #[error("writing the output: {0}")]
    Output(#[source] io::Error),
    /// DataFusion could not plan or run a query.
    #[error("{0}")]
    DataFusion(#[from] DataFusionError),
    /// relata itself failed.
    #[error(transparent)]
    Relata(#[from] RelataError),
    /// A query panicked; the commands that run many queries go on with the next one.
    #[error("internal error: {0}")]
    Panic(String),
    /// The threads of a query could not be started.
    #[error("cannot start the worker threads: {0}")]
    Threads(#[source] io::Error),
    /// A query ran longer than `--timeout`.
    #[error("timed out after {seconds} s")]
    Timeout {
        /// The limit.
        seconds: f64,
    },
}

impl CliError {
    /// An operating-system error about `path`.
    pub fn io(path: impl Into<PathBuf>, source: io::Error) -> Self {
        CliError::Io { path: path.into(), source }
    }

    /// A file with unusable content.
    pub fn file(path: &Path, reason: &impl ToString) -> Self {
        CliError::File { path: path.to_path_buf(), reason: reason.to_string() }
    }

    /// Whether the reader of standard output went away, which ends a command quietly.
    pub fn is_broken_pipe(&self) -> bool {
        // Arrow's writers of CSV and JSON wrap the error.
        let mut cause: Option<&(dyn Error + 'static)> = Some(self);
        while let Some(error) = cause {
            if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
                return true;
            }
            cause = error.source();
        }
        false
    }
}

impl From<ArrowError> for CliError {
    fn from(error: ArrowError) -> Self {
        CliError::DataFusion(DataFusionError::from(error))
    }
}

/// Result of a command.
pub type Result<T, E = CliError> = std::result::Result<T, E>;

/// How a command that ran to its end went; becomes the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Everything asked for was done: exit code 0.
    Success,
    /// Some queries or tables failed, or results differ: exit code 1.
    Failures,
}

impl Outcome {
    /// [`Outcome::Failures`] if there were any.
    pub fn from_failures(failures: usize) -> Self {
        if failures == 0 { Outcome::Success } else { Outcome::Failures }
    }
}
