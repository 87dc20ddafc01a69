//! sqllogictest files under DataFusion alone, under relata, and under relata with random estimates.
//!
//! Those in `tests/slt` are our own, with results that can be checked by hand; those in `tests/slt/datafusion` come from the
//! crate `datafusion-sqllogictest` 55.2.0 (Apache License 2.0), less what looks at plans or reads files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{ArrayRef, AsArray, RecordBatch};
use datafusion::arrow::datatypes::Float64Type;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::SessionStateBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use relata::{RandomRows, Relata};
use sqllogictest::{AsyncDB, DBOutput, DefaultColumnType, Normalizer, Record, Runner, parse_file};

use crate::pretrained;

/// Where DataFusion's files write to.
const SCRATCH: &str = "test_files/scratch";

/// An error in the words that files expect.
#[derive(Debug, thiserror::Error)]
#[error("DataFusion error: {0}")]
struct Failure(#[from] DataFusionError);

/// A session that the runner asks, and a folder for the files that it writes.
struct Engine(SessionContext, PathBuf);

#[async_trait]
impl AsyncDB for Engine {
    type Error = Failure;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Failure> {
        let sql = sql.replace(SCRATCH, &self.1.to_string_lossy());
        let batches = self.0.sql(&sql).await?.collect().await?;
        let columns = batches.first().map_or(0, RecordBatch::num_columns);
        let rows = batches.iter().map(rows).collect::<Result<Vec<_>>>()?.concat();
        if rows.is_empty() {
            return Ok(DBOutput::StatementComplete(0));
        }
        Ok(DBOutput::Rows { types: vec![DefaultColumnType::Any; columns], rows })
    }

    async fn shutdown(&mut self) {}
}

/// The rows in the words of sqllogictest files.
fn rows(batch: &RecordBatch) -> Result<Vec<Vec<String>>> {
    let columns = batch.columns().iter().map(cells).collect::<Result<Vec<_>>>()?;
    Ok((0..batch.num_rows()).map(|row| columns.iter().map(|column| column[row].clone()).collect()).collect())
}

fn cells(column: &ArrayRef) -> Result<Vec<String>> {
    let number = |text: String| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    };
    if let Some(doubles) = column.as_primitive_opt::<Float64Type>() {
        let cell = |value: Option<f64>| value.map_or_else(|| "NULL".to_owned(), |value| number(format!("{value:.12}")));
        return Ok(doubles.iter().map(cell).collect());
    }
    let options = FormatOptions::default().with_null("NULL");
    let formatter = ArrayFormatter::try_new(column, &options)?;
    let cell = |row: usize| match formatter.value(row).to_string() {
        text if text.is_empty() => "(empty)".to_owned(),
        text if column.data_type().is_numeric() => number(text),
        text => text,
    };
    Ok((0..column.len()).map(cell).collect())
}

/// Rows that are the same in the same order.
fn in_order(normalizer: Normalizer, actual: &[Vec<String>], expected: &[String]) -> bool {
    let actual: Vec<String> = actual.iter().map(|row| normalizer(&row.join(" "))).collect();
    actual.iter().eq(expected.iter().map(normalizer).collect::<Vec<_>>().iter())
}

/// Rows that are the same: without ORDER BY, files say in which order DataFusion alone happens to give them.
fn in_any_order(normalizer: Normalizer, actual: &[Vec<String>], expected: &[String]) -> bool {
    let mut actual: Vec<String> = actual.iter().map(|row| normalizer(&row.join(" "))).collect();
    let mut expected: Vec<String> = expected.iter().map(normalizer).collect();
    actual.sort();
    expected.sort();
    actual == expected
}

/// Whether the whole result has an order: the ORDER BY of a subquery gives it none.
fn is_ordered(sql: &str) -> bool {
    let after = |(_, after): (&str, &str)| after.matches('(').count() >= after.matches(')').count();
    sql.to_ascii_lowercase().rsplit_once("order by").is_some_and(after)
}

/// Runs the records of a file, and says which failed.
async fn failures(path: &Path, ctx: &SessionContext) -> Vec<String> {
    let scratch = tempfile::tempdir().unwrap();
    let mut runner = Runner::new(|| async { Ok(Engine(ctx.clone(), scratch.path().to_owned())) });
    let mut failures = vec![];
    for record in parse_file::<DefaultColumnType>(path).unwrap() {
        if let Record::Query { sql, .. } = &record {
            runner.with_validator(if is_ordered(sql) { in_order } else { in_any_order });
        }
        if let Err(error) = runner.run_async(record).await {
            failures.push(error.display(false).to_string());
        }
    }
    failures
}

fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slt").join(folder);
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|ending| ending == "slt")).collect();
    files.sort();
    files
}

/// Runs every file of a folder in every session; relata must have reordered so many regions of joins.
async fn check(folder: &str, reordered: u64) {
    let misled = pretrained().with_known_rows(Arc::new(RandomRows::new(1)));
    let sessions: [(&str, Option<Relata>); 3] =
        [("DataFusion alone", None), ("relata", Some(pretrained())), ("random estimates", Some(misled))];
    let (mut failed, mut seen) = (vec![], 0);
    for (name, relata) in sessions {
        for file in files(folder) {
            let config = SessionConfig::new().with_target_partitions(4);
            let builder = SessionStateBuilder::new_with_default_features().with_config(config);
            let builder = relata.as_ref().map_or(builder.clone(), |relata| relata.install(builder));
            let ctx = SessionContext::new_with_state(builder.build());
            failed.extend(failures(&file, &ctx).await.into_iter().map(|failure| format!("{name}: {failure}")));
        }
        let Some(relata) = relata else { continue };
        let counters = relata.counters();
        seen += counters.reordered;
        assert_eq!((counters.failures, counters.rejected), (0, 0), "{name}: {counters:?}");
    }
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n\n"));
    assert!(seen >= reordered, "{seen} regions reordered");
}

#[tokio::test]
async fn files_of_our_own() {
    check("", 20).await;
}

#[tokio::test]
async fn files_of_datafusion() {
    check("datafusion", 20).await;
}
