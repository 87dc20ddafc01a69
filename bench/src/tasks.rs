//! Prediction tasks over databases: features by Deep Feature Synthesis, with labels.
//!
//! [`synthetic`] draws tasks over databases of the relational prior, to train the in-context predictor on.

use std::sync::Arc;

use anyhow::Result;
use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, RecordBatch, TimestampMicrosecondArray, UInt32Array, UInt64Array,
};
use datafusion::arrow::compute::{cast, take};
use datafusion::arrow::datatypes::{DataType, Float64Type, Int64Type, TimeUnit};
use datafusion::catalog::MemTable;
use datafusion::common::TableReference;
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::LogicalPlanBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use hashbrown::HashMap;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use relata_featurize::synthesis::{
    Entities, FeatureTable, FeatureValues, Reference, Relation, Relations, SynthesisConfig, Task, infer_time,
    synthesize,
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

/// Some rows of a column.
pub(crate) fn take_rows(column: &ArrayRef, rows: &[u32]) -> Result<ArrayRef> {
    Ok(take(column, &UInt32Array::from(rows.to_vec()), None)?)
}

/// Microseconds of times; `None` where one is missing.
pub(crate) fn times(column: &ArrayRef) -> Result<Option<Vec<i64>>> {
    let micros = cast(&cast(column, &DataType::Timestamp(TimeUnit::Microsecond, None))?, &DataType::Int64)?;
    Ok((micros.null_count() == 0).then(|| micros.as_primitive::<Int64Type>().values().to_vec()))
}

/// A column as labels: numbers, or categories, `as_classes` for every type; `None` for other types and for texts that hardly
/// repeat.
pub(crate) fn values(column: &ArrayRef, as_classes: bool) -> Result<Option<FeatureValues>> {
    let data_type = column.data_type();
    if data_type.is_numeric() && !as_classes {
        let numbers: Float64Array = cast(column, &DataType::Float64)?.as_primitive::<Float64Type>().clone();
        let number = |value: Option<f64>| value.map_or(f32::NAN, |value| value as f32);
        return Ok(Some(FeatureValues::Number(numbers.iter().map(number).collect())));
    }
    let is_text = matches!(data_type, DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 | DataType::Boolean);
    if !is_text && !as_classes {
        return Ok(None);
    }
    let texts = cast(column, &DataType::Utf8)?;
    let mut places: HashMap<String, u32> = HashMap::new();
    let mut levels = vec![];
    let code = |text: Option<&str>| {
        text.map(|text| {
            *places.entry_ref(text).or_insert_with(|| {
                levels.push(text.to_owned());
                levels.len() as u32 - 1
            })
        })
    };
    let codes: Vec<Option<u32>> = texts.as_string::<i32>().iter().map(code).collect();
    // A text of its own in most rows is no class.
    Ok((as_classes || 4 * levels.len() < codes.len()).then_some(FeatureValues::Category { codes, levels }))
}

/// Deals the values of each foreign key out to other rows, so that rows refer to rows that they have nothing to do with.
pub(crate) fn shuffle_keys(database: &mut Database) -> Result<()> {
    let mut random = StdRng::seed_from_u64(1);
    for key in database.foreign_keys.clone() {
        let batch = &database.tables[key.table].batch;
        let mut order: Vec<u32> = (0..batch.num_rows() as u32).collect();
        order.shuffle(&mut random);
        let mut columns = batch.columns().to_vec();
        for column in key.columns {
            // What identifies the row stays with it.
            if !database.tables[key.table].primary_key.contains(&column) {
                columns[column] = take_rows(&columns[column], &order)?;
            }
        }
        database.tables[key.table].batch = RecordBatch::try_new(batch.schema(), columns)?;
    }
    Ok(())
}
