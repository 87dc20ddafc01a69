//! What a run has measured, as JSON lines: its settings, then a line per query, written as soon as the query is timed.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::summary::{Summary, summarize};
use super::{QueryRun, Timing};
use crate::corpus::read_lines;
use crate::machine::Provenance;
use crate::score::contender::NamedPath;

/// How a run measures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Where and from what.
    pub provenance: Provenance,
    /// The optimizers beside the default.
    pub optimizers: Vec<String>,
    /// Repetitions of each query.
    pub repeat: usize,
    /// Further repetitions of queries that look slower under relata.
    pub confirm: usize,
    /// Seconds after which a query is given up.
    pub timeout: Option<f64>,
    /// Partitions a query runs in; one per core if `None`.
    pub partitions: Option<usize>,
    /// Bytes that the operators of a query may hold.
    pub memory_limit: Option<usize>,
    /// Whether the tables were read into memory first.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub in_memory: bool,
}

impl Settings {
    /// Whether times taken under both can stand in one table.
    fn agree(&self, other: &Self) -> bool {
        let command = self.provenance.command.clone();
        *self == Self { provenance: Provenance { command, ..other.provenance.clone() }, ..other.clone() }
    }
}

/// What was measured.
#[derive(Debug, Clone, PartialEq)]
pub struct RunReport {
    /// How.
    pub settings: Settings,
    /// The optimizers beside the default, then the systems measured elsewhere.
    pub optimizers: Vec<String>,
    /// Every query.
    pub queries: Vec<QueryRun>,
}

/// A query that another system has run, as `duckdb-times` and `postgres-times` in `bench/anchors` write it.
#[derive(Debug, Deserialize)]
struct BesideLine {
    id: String,
    /// Every repetition.
    #[serde(default)]
    seconds: Vec<f64>,
    /// The one number of the result.
    answer: Option<f64>,
    #[serde(default)]
    timeout: bool,
    error: Option<String>,
    /// Whether the tables were read into memory first, where the system can do either.
    in_memory: Option<bool>,
}

impl RunReport {
    pub(super) fn new(settings: Settings, queries: Vec<QueryRun>) -> Self {
        Self { optimizers: settings.optimizers.clone(), settings, queries }
    }

    /// Reads what a run wrote, up to a line that it was interrupted in.
    ///
    /// # Errors
    /// When the file is missing or damaged.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let mut lines = complete(&text).lines().enumerate();
        let place = |number: usize| format!("{}, line {}", path.display(), number + 1);
        let (number, first) = lines.next().with_context(|| format!("{} holds no run", path.display()))?;
        let settings: Settings = serde_json::from_str(first).with_context(|| place(number))?;
        let queries = lines.map(|(number, line)| serde_json::from_str(line).with_context(|| place(number)));
        Ok(Self::new(settings, queries.collect::<Result<_>>()?))
    }

    /// Puts another system's times beside those of the optimizers, and says whether it has any of the queries; times over files do
    /// not fit a run in memory, nor the other way round.
    ///
    /// # Errors
    /// When the file is missing or damaged.
    pub fn beside(&mut self, system: &NamedPath) -> Result<bool> {
        let lines: Vec<BesideLine> = read_lines(&system.path)?;
        let mut found = false;
        for line in lines {
            if line.in_memory.is_some_and(|in_memory| in_memory != self.settings.in_memory) {
                continue;
            }
            let Some(query) = self.queries.iter_mut().find(|query| query.id == line.id) else { continue };
            let wrong = query.answer.zip(line.answer).is_some_and(|(known, answer)| (known - answer).abs() > 0.5);
            let execution_us: Vec<u64> = line.seconds.iter().map(|seconds| (1e6 * seconds) as u64).collect();
            let planning_us = vec![0; execution_us.len()];
            let (timeout, error) = (line.timeout, line.error);
            let timing = Timing { planning_us, execution_us, wrong, timeout, error, ..Timing::default() };
            query.optimizers.insert(system.name.clone(), timing);
            found = true;
        }
        if found && !self.optimizers.contains(&system.name) {
            self.optimizers.push(system.name.clone());
        }
        Ok(found)
    }

    /// Every optimizer over all queries, over those that take more than `above` milliseconds by default, and over each
    /// database.
    pub fn summaries(&self, above: f64) -> Vec<Summary> {
        let mut databases: Vec<&str> = self.queries.iter().map(|query| query.database.as_str()).collect();
        databases.sort_unstable();
        databases.dedup();
        let whole = [(None, None), (None, Some(above))];
        let each = databases.into_iter().map(|database| (Some(database), None));
        let groups = whole.into_iter().chain(each);
        let summaries = groups.flat_map(|(database, above)| {
            self.optimizers.iter().map(move |name| summarize(self, database, above, name))
        });
        summaries.collect()
    }
}

/// The file of a run that may go on where an earlier one stopped.
#[derive(Debug)]
pub(super) struct Record {
    file: Option<File>,
    /// Queries that are in the file already.
    pub(super) done: Vec<QueryRun>,
}

impl Record {
    /// Begins or goes on with the file at `path`; without a path nothing is kept.
    pub(super) fn open(path: Option<&Path>, settings: &Settings) -> Result<Self> {
        let Some(path) = path else { return Ok(Self { file: None, done: vec![] }) };
        let before = if path.exists() { std::fs::read_to_string(path) } else { Ok(String::new()) };
        let before = before.with_context(|| path.display().to_string())?;
        let kept = complete(&before).len();
        let done = if kept > 0 {
            let report = RunReport::read(path)?;
            ensure!(
                report.settings.agree(settings),
                "{} holds times under other settings, of another commit or machine: remove it or name another file",
                path.display()
            );
            report.queries
        } else {
            vec![]
        };
        let open = || -> std::io::Result<File> {
            let file = OpenOptions::new().create(true).append(true).open(path)?;
            file.set_len(kept as u64)?;
            Ok(file)
        };
        let mut record = Self { file: Some(open().with_context(|| path.display().to_string())?), done };
        if kept == 0 {
            record.write(settings)?;
        }
        Ok(record)
    }

    /// Adds a line.
    pub(super) fn write(&mut self, line: &impl Serialize) -> Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        // At once, so that an interruption costs one line at most.
        Ok(file.write_all((serde_json::to_string(line)? + "\n").as_bytes())?)
    }
}

/// The lines that were written to their end.
fn complete(text: &str) -> &str {
    &text[..text.rfind('\n').map_or(0, |end| end + 1)]
}
