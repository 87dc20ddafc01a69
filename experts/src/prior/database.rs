//! A synthetic database: tables, keys, and the `schema.json` that describes them.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use serde_json::{Value, json};

use super::PriorError;

/// Tables that reference one another.
#[derive(Debug, Clone, PartialEq)]
pub struct SyntheticDatabase {
    /// Lower-case and safe in SQL, as are the names of tables and columns.
    pub name: String,
    /// Every table comes after the tables that it references.
    pub tables: Vec<SyntheticTable>,
}

/// One table with its keys.
#[derive(Debug, Clone, PartialEq)]
pub struct SyntheticTable {
    /// Unique in the database.
    pub name: String,
    /// All rows.
    pub batch: RecordBatch,
    /// Columns that identify a row together; empty where none do.
    pub primary_key: Vec<String>,
    /// References to other tables or to the table itself.
    pub foreign_keys: Vec<ForeignKey>,
}

/// Columns whose values are found in the primary key of another table.
#[derive(Debug, Clone, PartialEq)]
pub struct ForeignKey {
    /// The columns of this table.
    pub columns: Vec<String>,
    /// The table they refer to.
    pub references_table: String,
    /// The columns there, in the same order.
    pub references_columns: Vec<String>,
    /// Share of the values other than NULL that the other table has; below one where references dangle.
    pub match_fraction: f64,
    /// Share of the rows without a reference.
    pub null_fraction: f64,
}

impl SyntheticDatabase {
    /// The table called `name`.
    pub fn table(&self, name: &str) -> Option<&SyntheticTable> {
        self.tables.iter().find(|table| table.name == name)
    }

    /// Rows of all tables together.
    pub fn rows(&self) -> usize {
        self.tables.iter().map(|table| table.batch.num_rows()).sum()
    }

    /// The description that belongs beside the files of the tables (`{table}.parquet`), in the format of the corpus.
    pub fn schema_json(&self) -> Value {
        let mut description = Description::new(&self.name);
        self.tables.iter().for_each(|table| description.add(table));
        description.into_json()
    }
}

/// The `schema.json` of a database whose tables are not all there at the same time.
#[derive(Debug, Clone, PartialEq)]
pub struct Description {
    name: String,
    tables: Vec<Value>,
    foreign_keys: Vec<Value>,
}

impl Description {
    /// Describes the database called `name`, so far without tables.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), tables: vec![], foreign_keys: vec![] }
    }

    /// Describes one more table.
    pub fn add(&mut self, table: &SyntheticTable) {
        let schema = table.batch.schema();
        let fields = schema.fields().iter();
        let columns: Vec<Value> =
            fields.map(|field| json!({ "name": field.name(), "type": type_name(field.data_type()) })).collect();
        self.tables.push(json!({
            "name": table.name,
            "file": format!("{}.parquet", table.name),
            "rows": table.batch.num_rows(),
            "primary_key": table.primary_key,
            "columns": columns,
        }));
        self.foreign_keys.extend(table.foreign_keys.iter().map(|key| {
            json!({
                "table": table.name,
                "columns": key.columns,
                "references": key.references_table,
                "ref_columns": key.references_columns,
                "match_fraction": key.match_fraction,
                "null_fraction": key.null_fraction,
            })
        }));
    }

    /// The description of the tables that were added.
    pub fn into_json(self) -> Value {
        json!({
            "name": self.name,
            "domain": "synthetic",
            "family": self.name,
            "role": "train",
            "source": "the relational prior of relata",
            "tables": self.tables,
            "foreign_keys": self.foreign_keys,
            "prediction_tasks": [],
        })
    }
}

/// The corpus spells types as pyarrow does.
fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Boolean => "bool".to_owned(),
        DataType::Int32 => "int32".to_owned(),
        DataType::Int64 => "int64".to_owned(),
        DataType::Float64 => "double".to_owned(),
        DataType::Utf8 => "string".to_owned(),
        DataType::Date32 => "date32[day]".to_owned(),
        DataType::Timestamp(_, None) => "timestamp[us]".to_owned(),
        other => other.to_string(),
    }
}

/// A table under construction.
#[derive(Debug)]
pub(super) struct TableBuilder {
    name: String,
    fields: Vec<Field>,
    arrays: Vec<ArrayRef>,
    primary_key: Vec<String>,
    foreign_keys: Vec<ForeignKey>,
}

impl TableBuilder {
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), fields: vec![], arrays: vec![], primary_key: vec![], foreign_keys: vec![] }
    }

    /// Adds a column of the primary key; a second call makes the key composite.
    pub(super) fn key(&mut self, name: &str, array: ArrayRef) {
        self.primary_key.push(name.to_owned());
        self.push(name, array, false);
    }

    /// Adds an ordinary column.
    pub(super) fn column(&mut self, name: &str, array: ArrayRef) {
        self.push(name, array, true);
    }

    /// Names of the columns so far.
    pub(super) fn column_names(&self) -> Vec<String> {
        self.fields.iter().map(|field| field.name().clone()).collect()
    }

    /// Declares a reference between columns that are added by other calls.
    pub(super) fn reference(&mut self, foreign_key: ForeignKey) {
        self.foreign_keys.push(foreign_key);
    }

    fn push(&mut self, name: &str, array: ArrayRef, nullable: bool) {
        self.fields.push(Field::new(name, array.data_type().clone(), nullable));
        self.arrays.push(array);
    }

    pub(super) fn finish(self) -> Result<SyntheticTable, PriorError> {
        let Self { name, fields, arrays, primary_key, foreign_keys } = self;
        match RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays) {
            Ok(batch) => Ok(SyntheticTable { name, batch, primary_key, foreign_keys }),
            Err(source) => Err(PriorError::Arrow { table: name, source }),
        }
    }
}
