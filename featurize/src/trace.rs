//! Labelled feature graphs on disk: one folder per database, five Arrow IPC files in it.
//!
//! `tables.arrow` holds the [`TableInput`] of each table, `graphs.arrow` one row per labelled graph with list columns,
//! `queries.arrow` what each graph is of, `answers.arrow` aggregates over some of them, `executions.arrow` how long some of
//! the queries took. All carry [`LAYOUT_VERSION`] in their schema metadata; a trace of another layout is refused.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::ipc::reader::FileReader;
use datafusion::arrow::ipc::writer::FileWriter;
use datafusion::error::DataFusionError;
use serde::{Deserialize, Serialize};

use crate::answer::AnswerForm;
use crate::graph::{FeatureGraph, LAYOUT_VERSION};
use crate::physical::{Observed, OperatorRows, PhysicalGraph};
use crate::relative::TableInput;
use crate::resources::Resources;
use crate::{FeaturizeError, Result};

mod answers;
pub(crate) mod columns;
mod executions;

/// A feature graph with the true cardinalities of its nodes.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelledGraph {
    /// The graph.
    pub graph: FeatureGraph,
    /// `ln(max(1, rows))` of each node, `None` where it is not known or has no meaning. `[N]`
    pub labels: Vec<Option<f32>>,
    /// Number of joined relations of the query.
    pub relations: u32,
}

/// The query of a labelled graph with its exact answers; the models see none of it.
#[derive(Debug, Clone, PartialEq)]
pub struct TracedQuery {
    /// The kind of the workload it belongs to.
    pub kind: String,
    /// The query.
    pub sql: String,
    /// Rows of the inner join of its relations.
    pub joined: f64,
    /// Rows of its result, or under an aggregate of everything the rows that are aggregated.
    pub rows: f64,
    /// The aggregate of everything, COUNT aside.
    pub answer: Option<f64>,
}

/// An aggregate over the joined rows of a traced query, as the model reads it, with what it is to say.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelledAnswer {
    /// Index of the query, and of its graph, in the trace.
    pub query: u32,
    /// The node of the graph whose rows are aggregated.
    pub node: u32,
    /// The form of its residual.
    pub form: AnswerForm,
    /// The columns that are aggregated, as table of the trace and column.
    pub columns: Vec<(u32, u32)>,
    /// What the sample says. `[ANSWER_FEATURES]`
    pub features: Vec<f32>,
    /// The residual that gives the exact answer.
    pub residual: f32,
}

/// An executed physical plan with what was measured of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Execution {
    /// Index of the query in the trace, or another number that only executions of the same query have.
    pub query: u32,
    /// The machine, measured shortly before.
    pub machine: Resources,
    /// Time from SQL to physical plan with its estimates, in microseconds, of every repetition.
    pub planning_us: Vec<f32>,
    /// Time from physical plan to the last row, in microseconds, of every repetition.
    pub execution_us: Vec<f32>,
    /// The most bytes that its operators had reserved at a time, over all repetitions; 0 where that is not known.
    pub peak_bytes: u64,
    /// The plan.
    pub graph: PhysicalGraph,
    /// Estimated rows of its operators, where they are known. `[N]`
    pub estimated: Vec<Option<OperatorRows>>,
    /// What was measured of its operators, in the repetition of the median time. `[N]`
    pub observed: Vec<Observed>,
}

/// The labelled graphs of one database.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DatabaseTrace {
    /// Name of the folder.
    pub name: String,
    /// The tables that [`crate::graph::EmbeddingRef`] points into.
    pub tables: Vec<TableInput>,
    /// The graphs.
    pub graphs: Vec<LabelledGraph>,
    /// The query of each graph.
    pub queries: Vec<TracedQuery>,
    /// Aggregates of some of the queries.
    pub answers: Vec<LabelledAnswer>,
    /// Executions of some of the queries.
    pub executions: Vec<Execution>,
}

const TABLES: &str = "tables.arrow";
const GRAPHS: &str = "graphs.arrow";
const QUERIES: &str = "queries.arrow";
const ANSWERS: &str = "answers.arrow";
const EXECUTIONS: &str = "executions.arrow";

impl DatabaseTrace {
    /// Writes the trace as a new folder; the folder appears only when it is complete.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let io = |source| FeaturizeError::Io { path: folder.display().to_string(), source };
        let partial = folder.with_extension("partial");
        if partial.exists() {
            std::fs::remove_dir_all(&partial).map_err(io)?;
        }
        std::fs::create_dir_all(&partial).map_err(io)?;
        write_batch(&partial.join(TABLES), columns::tables(&self.tables)?)?;
        write_batch(&partial.join(GRAPHS), columns::graphs(&self.graphs)?)?;
        write_batch(&partial.join(QUERIES), columns::queries(&self.queries)?)?;
        write_batch(&partial.join(ANSWERS), answers::write(&self.answers)?)?;
        write_batch(&partial.join(EXECUTIONS), executions::write(&self.executions)?)?;
        if folder.exists() {
            std::fs::remove_dir_all(folder).map_err(io)?;
        }
        std::fs::rename(&partial, folder).map_err(io)
    }

    /// Reads a folder that [`Self::write`] wrote.
    ///
    /// # Errors
    /// When a file is missing, damaged or of another layout.
    pub fn read(folder: &Path) -> Result<Self> {
        let tables = folder.join(TABLES);
        let graphs = folder.join(GRAPHS);
        let queries = folder.join(QUERIES);
        let answers = folder.join(ANSWERS);
        let executions = folder.join(EXECUTIONS);
        Ok(Self {
            name: folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
            tables: columns::read_tables(&read_batch(&tables)?)
                .ok_or_else(|| damaged(&tables, "unexpected columns"))?,
            graphs: columns::read_graphs(&read_batch(&graphs)?)
                .ok_or_else(|| damaged(&graphs, "unexpected columns"))?,
            queries: columns::read_queries(&read_batch(&queries)?)
                .ok_or_else(|| damaged(&queries, "unexpected columns"))?,
            answers: answers::read(&read_batch(&answers)?).ok_or_else(|| damaged(&answers, "unexpected columns"))?,
            executions: executions::read(&read_batch(&executions)?)
                .ok_or_else(|| damaged(&executions, "unexpected columns"))?,
        })
    }
}

/// Reads every trace below `folder`, in order of name.
///
/// # Errors
/// When the folder cannot be read or a trace is damaged.
pub fn read_all(folder: &Path) -> Result<Vec<DatabaseTrace>> {
    let io = |source| FeaturizeError::Io { path: folder.display().to_string(), source };
    let mut folders = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.join(GRAPHS).is_file() && path.extension().is_none_or(|extension| extension != "partial") {
            folders.push(path);
        }
    }
    folders.sort();
    folders.iter().map(|folder| DatabaseTrace::read(folder)).collect()
}

pub(crate) fn damaged(path: &Path, reason: impl std::fmt::Display) -> FeaturizeError {
    FeaturizeError::Stored { path: path.display().to_string(), reason: reason.to_string() }
}

pub(crate) fn write_batch(path: &Path, batch: RecordBatch) -> Result<()> {
    let metadata = [("relata.layout".to_string(), LAYOUT_VERSION.to_string())].into();
    let schema = Arc::new(batch.schema().as_ref().clone().with_metadata(metadata));
    let batch = batch.with_schema(Arc::clone(&schema)).map_err(DataFusionError::from)?;
    let file = File::create(path).map_err(|source| FeaturizeError::Io { path: path.display().to_string(), source })?;
    let mut writer = FileWriter::try_new_buffered(file, &schema).map_err(DataFusionError::from)?;
    writer.write(&batch).map_err(DataFusionError::from)?;
    writer.finish().map_err(DataFusionError::from)?;
    Ok(())
}

pub(crate) fn read_batch(path: &Path) -> Result<RecordBatch> {
    let file = File::open(path).map_err(|source| FeaturizeError::Io { path: path.display().to_string(), source })?;
    let reader = FileReader::try_new_buffered(file, None).map_err(|e| damaged(path, e))?;
    let schema = reader.schema();
    let layout = schema.metadata().get("relata.layout").map_or("none", String::as_str);
    if layout != LAYOUT_VERSION.to_string() {
        return Err(damaged(path, format!("feature layout {layout}, this build reads {LAYOUT_VERSION}")));
    }
    let batches = reader.collect::<Result<Vec<_>, _>>().map_err(|e| damaged(path, e))?;
    concat_batches(&schema, &batches).map_err(|e| damaged(path, e))
}
