//! `relata predict`: a column predicted from labelled examples, without training.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::{Column, ScalarValue, TableReference};
use datafusion::error::DataFusionError;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use serde::Deserialize;

use super::error::{CliError, Outcome, Result};
use super::open::{DatabaseArgs, isolated};
use super::session::SessionOptions;
use super::sql::{Printer, ResultFormat};
use super::terminal::Terminal;
use crate::PredictTask;

/// Arguments of `relata predict`.
#[derive(Debug, Clone, clap::Args)]
pub struct PredictArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    /// File that says what to predict: a JSON object with "target", "entities" and, where wanted, what the other options are
    /// called; an option on the command line wins
    #[arg(long, value_name = "FILE", required_unless_present_all = ["target", "entities"])]
    task: Option<PathBuf>,
    #[command(flatten)]
    own: TaskArgs,
    /// How the predictions are written
    #[arg(long, value_enum, default_value_t = ResultFormat::Table)]
    format: ResultFormat,
    /// Most rows a table shows, 0 for all of them [default: 40 on a terminal, else all]
    #[arg(long, value_name = "N")]
    maxrows: Option<usize>,
}

/// What to predict, on the command line or in a file.
#[derive(Debug, Clone, Default, clap::Args, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TaskArgs {
    /// Query of the examples: the key of an entity, the time of the example if it has one, and as the last column the label
    #[arg(long, value_name = "SQL")]
    target: Option<String>,
    /// Query of what to predict for: the key of an entity, and a time of its own if it has one
    #[arg(long, value_name = "SQL")]
    entities: Option<String>,
    /// Time to predict at: only what was before it is seen
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// Steps along foreign keys that features come from, 1 to 3 [default: 2]
    #[arg(long, value_name = "N")]
    depth: Option<usize>,
    /// Examples that are read at most, 10 to 1024 [default: 512]
    #[arg(long, value_name = "N")]
    context: Option<usize>,
    /// Features that are read at most [default: 30]
    #[arg(long, value_name = "N")]
    features: Option<usize>,
    /// Table that the entities are rows of [default: the one that the key of the target query comes from or refers to]
    #[arg(long, value_name = "TABLE")]
    entity: Option<String>,
    /// Column that would give the label away, beside those it is computed from; may be given several times
    #[arg(long, value_name = "TABLE.COLUMN")]
    hide: Vec<String>,
    /// Column that says when a row came to be, instead of the table's first date or timestamp; may be given several times
    #[arg(long, value_name = "TABLE.COLUMN")]
    time: Vec<String>,
    /// Table whose dates and timestamps do not say when a row came to be; may be given several times
    #[arg(long, value_name = "TABLE")]
    timeless: Vec<String>,
    /// Whether labels are classes or numbers [default: texts, booleans and integers of at most 10 values are classes]
    #[arg(long, value_name = "BOOL")]
    classes: Option<bool>,
    /// Seed of the draw of examples [default: 0]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

/// Runs the command.
///
/// # Errors
/// The database or the task do not open, the task cannot be predicted, or the output cannot be written.
pub async fn predict(args: &PredictArgs, options: &SessionOptions, terminal: &mut Terminal) -> Result<Outcome> {
    let file = match &args.task {
        Some(path) => read(path)?,
        None => TaskArgs::default(),
    };
    let task = args.own.clone().or(file).task().map_err(|missing| {
        let path = args.task.clone().unwrap_or_default();
        CliError::File { path, reason: format!("names no {missing} query") }
    })?;
    let profiled = args.database.open_profiled(options, terminal).await?;
    let (relata, ctx) = (profiled.relata.clone(), profiled.ctx.clone());
    let found = isolated(async move { Ok(relata.predict(&ctx, &task).await?) }).await?;
    let mut batches = found.batches;
    let mut schema = found.schema;
    if args.format == ResultFormat::Csv {
        batches = batches.iter().map(flat).collect::<Result<_>>()?;
        schema = batches.first().map_or(schema, RecordBatch::schema);
    }
    let stream = futures::stream::iter(batches.into_iter().map(Ok::<_, DataFusionError>));
    let stream = Box::pin(RecordBatchStreamAdapter::new(schema, stream));
    Printer::new(args.format, args.maxrows, terminal).write(stream, terminal).await?;
    let (examples, names) = (found.examples, found.features);
    terminal.note(format_args!("from {examples} examples and {} features: {}", names.len(), names.join(", ")));
    Ok(Outcome::Success)
}

fn read(path: &Path) -> Result<TaskArgs> {
    let text = std::fs::read_to_string(path).map_err(|error| CliError::io(path, error))?;
    serde_json::from_str(&text).map_err(|error| CliError::file(path, &error))
}

impl TaskArgs {
    /// These, and the other ones where there is none.
    fn or(self, other: Self) -> Self {
        let list = |own: Vec<String>, other: Vec<String>| if own.is_empty() { other } else { own };
        Self {
            target: self.target.or(other.target),
            entities: self.entities.or(other.entities),
            at: self.at.or(other.at),
            depth: self.depth.or(other.depth),
            context: self.context.or(other.context),
            features: self.features.or(other.features),
            entity: self.entity.or(other.entity),
            hide: list(self.hide, other.hide),
            time: list(self.time, other.time),
            timeless: list(self.timeless, other.timeless),
            classes: self.classes.or(other.classes),
            seed: self.seed.or(other.seed),
        }
    }

    /// The task, or the query that is missing.
    fn task(self) -> Result<PredictTask, &'static str> {
        let plain = PredictTask::new(self.target.ok_or("target")?, self.entities.ok_or("entities")?);
        let columns = |names: Vec<String>| names.into_iter().map(Column::from_qualified_name).collect();
        Ok(PredictTask {
            at: self.at.map(ScalarValue::from),
            depth: self.depth.unwrap_or(plain.depth),
            context: self.context.unwrap_or(plain.context),
            features: self.features.unwrap_or(plain.features),
            entity: self.entity.map(TableReference::from),
            hide: columns(self.hide),
            time: columns(self.time),
            timeless: self.timeless.into_iter().map(TableReference::from).collect(),
            classes: self.classes,
            seed: self.seed.unwrap_or(plain.seed),
            ..plain
        })
    }
}

/// The batch with its maps and lists as text, for CSV has none.
fn flat(batch: &RecordBatch) -> Result<RecordBatch> {
    let (mut fields, mut columns): (Vec<Field>, Vec<ArrayRef>) = (vec![], vec![]);
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        if !field.data_type().is_nested() {
            fields.push(field.as_ref().clone());
            columns.push(Arc::clone(column));
            continue;
        }
        let options = FormatOptions::default();
        let formatter = ArrayFormatter::try_new(column.as_ref(), &options)?;
        let texts = (0..column.len()).map(|row| formatter.value(row).to_string());
        fields.push(field.as_ref().clone().with_data_type(DataType::Utf8));
        columns.push(Arc::new(StringArray::from_iter_values(texts)));
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}
