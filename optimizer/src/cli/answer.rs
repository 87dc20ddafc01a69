//! `relata answer`: approximate answers with intervals for a file of aggregating queries, none of which is run.

use std::path::PathBuf;

use datafusion::arrow::array::{ArrayRef, RecordBatch};
use datafusion::arrow::datatypes::FieldRef;
use datafusion::common::ScalarValue;
use serde::Serialize;
use serde_json::{Map, Value};

use super::error::{Outcome, Result};
use super::open::{DatabaseArgs, isolated};
use super::output::Answers;
use super::queries;
use super::session::SessionOptions;
use super::terminal::Terminal;

/// Arguments of `relata answer`.
#[derive(Debug, Clone, clap::Args)]
pub struct AnswerArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    /// File of queries: JSON lines with "id" and "sql", or plain SQL, one query a line; - is standard input
    #[arg(long, value_name = "FILE")]
    queries: PathBuf,
    /// File to write the answers to [default: standard output]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// One line of answer.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Answer<'a> {
    /// Of a query with one aggregate and no groups.
    Value { id: &'a Value, value: Value, lower: Value, upper: Value },
    /// Of any other: a map of the columns per row.
    Rows { id: &'a Value, rows: Vec<Map<String, Value>> },
}

/// Runs the command: one line per query, in the order of the file.
///
/// # Errors
/// The database or the queries do not open, or the output cannot be written. A query that fails is part of the output.
pub async fn answer(args: &AnswerArgs, options: &SessionOptions, terminal: &mut Terminal) -> Result<Outcome> {
    let queries = queries::read(&args.queries)?;
    let profiled = args.database.open_profiled(options, terminal).await?;
    let mut output = Answers::create(args.output.as_deref(), queries.len(), "answering", terminal)?;
    for query in &queries {
        let id = &query.id;
        let found = match &query.sql {
            Err(reason) => Err(reason.clone()),
            Ok(sql) => {
                let (relata, ctx, sql) = (profiled.relata.clone(), profiled.ctx.clone(), sql.clone());
                let work = async move { Ok(relata.answer(&ctx, &sql).await?) };
                isolated(work).await.map_err(|error| error.to_string())
            }
        };
        let answer = found.and_then(|batches| rows(&batches)).map(|rows| shown(id, rows));
        output.write(terminal, id, answer)?;
    }
    output.finish(terminal)
}

/// The rows of an answer, each the columns' names and values in order.
fn rows(batches: &[RecordBatch]) -> Result<Vec<Vec<(String, Value)>>, String> {
    let mut rows = vec![];
    for batch in batches {
        let schema = batch.schema();
        for row in 0..batch.num_rows() {
            let cell = |(field, array): (&FieldRef, &ArrayRef)| {
                let value = ScalarValue::try_from_array(array, row).map_err(|error| error.to_string())?;
                Ok((field.name().clone(), json(&value)))
            };
            let cells = schema.fields().iter().zip(batch.columns()).map(cell);
            rows.push(cells.collect::<Result<Vec<_>, String>>()?);
        }
    }
    Ok(rows)
}

fn shown(id: &Value, mut rows: Vec<Vec<(String, Value)>>) -> Answer<'_> {
    if let [row] = &mut rows[..]
        && let [(_, value), (lower_name, lower), (upper_name, upper)] = &mut row[..]
        && lower_name.ends_with("_lower")
        && upper_name.ends_with("_upper")
    {
        return Answer::Value { id, value: value.take(), lower: lower.take(), upper: upper.take() };
    }
    Answer::Rows { id, rows: rows.into_iter().map(|row| row.into_iter().collect()).collect() }
}

/// A value as JSON: numbers and NULL as they are, anything else as text.
fn json(value: &ScalarValue) -> Value {
    if value.is_null() {
        return Value::Null;
    }
    match value {
        ScalarValue::Boolean(Some(value)) => Value::Bool(*value),
        ScalarValue::Int64(Some(value)) => (*value).into(),
        ScalarValue::UInt64(Some(value)) => (*value).into(),
        ScalarValue::Float64(Some(value)) => (*value).into(),
        value if value.data_type().is_numeric() => {
            let number: Option<f64> = value.to_string().parse().ok();
            number.map_or_else(|| value.to_string().into(), Value::from)
        }
        value => value.to_string().into(),
    }
}
