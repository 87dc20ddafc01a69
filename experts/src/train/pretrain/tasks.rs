//! Tables to pre-train on and tables held out.

use std::path::{Path, PathBuf};

use relata_featurize::restoration::{self, CountedHistogram, TableTask, bucket_of};

use crate::Result;
use crate::data::check;
use crate::data::context::{PAIR_FEATURES, RowContext};
use crate::error::ExpertsError;

/// Empty buckets whose expected rows, if columns were independent, are below this are never wrong and left out.
const LEAST_EXPECTED: f32 = 0.05;

/// The tables of a pre-training run.
#[derive(Debug, Clone, Default)]
pub struct Tables {
    /// Tables that are trained on, by the folder they were read from; folders are drawn from equally often.
    pub training: Vec<Vec<PreparedTable>>,
    /// Names of their databases.
    pub databases: Vec<String>,
    /// Tables that are held out to choose the step.
    pub held_out: Vec<PreparedTable>,
    /// Names of their databases.
    pub held_out_databases: Vec<String>,
}

/// A table with what training needs of it at every step.
#[derive(Debug, Clone)]
pub struct PreparedTable {
    /// The task.
    pub task: TableTask,
    /// For each histogram, the codes of its empty buckets that could be taken for others.
    pub empty: Vec<Vec<u32>>,
    /// Its sampled rows.
    pub context: RowContext,
    /// How well each column follows from another, in [0, 1]. `[C]`
    pub predictable: Vec<f32>,
}

impl PreparedTable {
    /// Prepares a table; `None` if it is malformed.
    pub fn new(task: TableTask) -> Option<Self> {
        check(&task.input).ok()?;
        let empty = task.histograms.iter().map(|histogram| empty_codes(&task, histogram)).collect();
        let context = RowContext::new(task.sample.clone());
        let predictable = (0..context.columns())
            .map(|column| {
                let pairs = context.pairs(column);
                pairs.chunks_exact(PAIR_FEATURES).flat_map(|pair| &pair[..5]).copied().fold(0.0, f32::max)
            })
            .collect();
        Some(Self { task, empty, context, predictable })
    }
}

/// The empty buckets of a histogram that its columns, if independent, would fill.
fn empty_codes(task: &TableTask, histogram: &CountedHistogram) -> Vec<u32> {
    let buckets = histogram.buckets();
    let whole = |column: &u32| {
        let mut shares = vec![0.0f32; buckets + 1];
        for (bin, log_share) in task.input.log_shares(0, *column as usize).enumerate() {
            shares[bucket_of(bin, buckets)] += log_share.exp();
        }
        shares
    };
    let columns: Vec<Vec<f32>> = histogram.columns.iter().map(whole).collect();
    let mut counted = histogram.counts.iter().map(|count| count.0).peekable();
    let mut empty = vec![];
    for code in 0..histogram.codes() {
        if counted.next_if_eq(&code).is_some() {
            continue;
        }
        let share: f32 = columns.iter().zip(histogram.split(code)).map(|(column, bucket)| column[bucket]).product();
        if share * task.rows as f32 >= LEAST_EXPECTED {
            empty.push(code);
        }
    }
    empty
}

impl Tables {
    /// Reads every database below `folders`; those named in `held_out` are held out.
    ///
    /// # Errors
    ///
    /// [`ExpertsError::Featurize`] if a file cannot be read, [`ExpertsError::Training`] if no table is left to train on or
    /// a name is not found.
    pub fn read(folders: &[PathBuf], held_out: &[String]) -> Result<Self> {
        let mut tables = Self::default();
        for folder in folders {
            let mut training = vec![];
            for database in databases(folder)? {
                let name = database.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                let prepared = restoration::read(&database)?.into_iter().filter_map(PreparedTable::new);
                if held_out.contains(&name) {
                    tables.held_out.extend(prepared);
                    tables.held_out_databases.push(name);
                } else {
                    training.extend(prepared);
                    tables.databases.push(name);
                }
            }
            if !training.is_empty() {
                tables.training.push(training);
            }
        }
        if let Some(name) = held_out.iter().find(|&name| !tables.held_out_databases.contains(name)) {
            return Err(ExpertsError::Training(format!("no database is called {name}")));
        }
        if tables.training.is_empty() {
            return Err(ExpertsError::Training("no table is left to train on".to_owned()));
        }
        Ok(tables)
    }
}

/// The folders with tasks below `folder`, in order of name.
fn databases(folder: &Path) -> Result<Vec<PathBuf>> {
    let io = |source| ExpertsError::Io { path: folder.to_owned(), source };
    let mut found = vec![];
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.join(restoration::FILE).is_file() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
