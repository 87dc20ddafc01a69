//! Prediction tasks over databases: features by Deep Feature Synthesis, with labels.
//!
//! [`synthetic`] draws tasks over databases of the relational prior, to train the in-context predictor on.

use std::sync::Arc;

use anyhow::Result;
use datafusion::arrow::array::{ArrayRef, RecordBatch, TimestampMicrosecondArray, UInt32Array, UInt64Array};
use datafusion::arrow::compute::take;
use datafusion::catalog::MemTable;
use datafusion::common::TableReference;
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::LogicalPlanBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use relata_featurize::synthesis::{
    Entities, FeatureTable, Reference, Relation, Relations, SynthesisConfig, Task, infer_time, synthesize,
};

use crate::database::Database;

pub mod synthetic;

/// Rows of a table of a database that are to be described.
#[derive(Debug, Clone)]
pub(crate) struct Rows {
    /// The table.
    pub(crate) table: usize,
    /// Columns that tell its rows apart.
    pub(crate) key: Vec<usize>,
    /// Columns, by table and place, that give the labels away.
    pub(crate) hidden: Vec<(usize, usize)>,
    /// The rows.
    pub(crate) rows: Vec<u32>,
    /// For each row, the time that its features are known at, in microseconds since 1970-01-01.
    pub(crate) at: Option<Vec<i64>>,
}

/// One thread for each query: tasks are made side by side.
fn config() -> SessionConfig {
    SessionConfig::new().with_target_partitions(1)
}

/// The tables of a database with their keys, as features are made from them.
pub(crate) fn relations(database: &Database) -> Result<Relations> {
    let mut relations = Relations::default();
    let name = |table: usize, column: usize| database.tables[table].batch.schema().field(column).name().clone();
    for (place, table) in database.tables.iter().enumerate() {
        let schema = table.batch.schema();
        relations.tables.push(Relation {
            reference: TableReference::bare(table.name.as_str()),
            time: infer_time(&schema),
            source: provider_as_source(Arc::new(MemTable::try_new(schema, vec![vec![table.batch.clone()]])?)),
            key: table.primary_key.iter().map(|column| name(place, *column)).collect(),
        });
    }
    let names = |table: usize, columns: &[usize]| columns.iter().map(|column| name(table, *column)).collect();
    relations.references.extend(database.foreign_keys.iter().map(|key| Reference {
        table: key.table,
        columns: names(key.table, &key.columns),
        references: key.references,
        referenced: names(key.references, &key.references_columns),
    }));
    Ok(relations)
}

/// The rows as a table: their number, their keys, and the time. Named `row`, `key_0` and so on, `at`.
pub(crate) fn entities(database: &Database, rows: &Rows) -> Result<RecordBatch> {
    let batch = &database.tables[rows.table].batch;
    let places = UInt32Array::from(rows.rows.clone());
    let numbers: ArrayRef = Arc::new(UInt64Array::from_iter_values(0..rows.rows.len() as u64));
    let mut columns = vec![("row".to_owned(), numbers)];
    for (place, column) in rows.key.iter().enumerate() {
        columns.push((format!("key_{place}"), take(batch.column(*column), &places, None)?));
    }
    if let Some(at) = &rows.at {
        columns.push(("at".to_owned(), Arc::new(TimestampMicrosecondArray::from(at.clone()))));
    }
    Ok(RecordBatch::try_from_iter(columns)?)
}

/// The features of rows of a database.
pub(crate) async fn features(
    context: &SessionContext,
    database: &Database,
    relations: &Relations,
    rows: &Rows,
    config: &SynthesisConfig,
) -> Result<FeatureTable> {
    let name = |table: usize, column: usize| database.tables[table].batch.schema().field(column).name().clone();
    let task = Task {
        entity: rows.table,
        entity_key: rows.key.iter().map(|column| name(rows.table, *column)).collect(),
        hidden: rows.hidden.iter().map(|(table, column)| (*table, name(*table, *column))).collect(),
    };
    let batch = entities(database, rows)?;
    let table = provider_as_source(Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]])?));
    let entities = Entities {
        plan: LogicalPlanBuilder::scan("entities_to_describe", table, None)?.build()?,
        row: "row".to_owned(),
        keys: (0..rows.key.len()).map(|place| format!("key_{place}")).collect(),
        at: rows.at.as_ref().map(|_| "at".to_owned()),
    };
    let plan = synthesize(relations, &task, &entities, config)?;
    let batches = context.execute_logical_plan(plan.plan.clone()).await?.collect().await?;
    Ok(FeatureTable::read(&plan, &batches)?)
}
