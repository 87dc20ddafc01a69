//! Databases held in memory: tables as record batches, and the foreign keys between them.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::datatypes::Schema;
use datafusion::catalog::MemTable;
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use datafusion::prelude::SessionContext;
use relata_experts::prior::SyntheticDatabase;
use serde::{Deserialize, Serialize};

/// Rows of the batches that a registered table hands to DataFusion.
const BATCH_ROWS: usize = 8192;

/// What a database may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Weights may be trained on it.
    Train,
    /// For measuring only.
    Eval,
}

/// A table in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// Unique in the database.
    pub name: String,
    /// All rows.
    pub batch: RecordBatch,
    /// Columns that identify a row together; empty where none do.
    pub primary_key: Vec<usize>,
}

/// Columns of one table that refer to columns of another, or of the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignKey {
    /// Index of the table that refers.
    pub table: usize,
    /// Its columns.
    pub columns: Vec<usize>,
    /// Index of the table that is referred to.
    pub references: usize,
    /// The columns there, in the same order.
    pub references_columns: Vec<usize>,
}

/// Tables and the foreign keys between them.
#[derive(Debug, Clone, PartialEq)]
pub struct Database {
    /// Names the database in reports and folders.
    pub name: String,
    /// What it may be used for.
    pub role: Role,
    /// All tables.
    pub tables: Vec<Table>,
    /// All declared references.
    pub foreign_keys: Vec<ForeignKey>,
}

/// The parts of `schema.json` that are read here; the format is that of the corpus.
#[derive(Debug, Deserialize)]
struct SchemaFile {
    name: String,
    /// Absent where nobody has said what the database is for; it is then the user's own and free to train on.
    role: Option<Role>,
    tables: Vec<TableEntry>,
    #[serde(default)]
    foreign_keys: Vec<ForeignKeyEntry>,
}

#[derive(Debug, Deserialize)]
struct TableEntry {
    name: String,
    file: String,
    primary_key: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
struct ForeignKeyEntry {
    table: String,
    columns: Vec<String>,
    references: String,
    ref_columns: Option<Vec<String>>,
}

impl Database {
    /// Takes over a database of the relational prior.
    ///
    /// # Errors
    /// When a key names a table or column that does not exist.
    pub fn from_synthetic(synthetic: &SyntheticDatabase) -> Result<Self> {
        let tables = synthetic
            .tables
            .iter()
            .map(|table| Table::new(&table.name, table.batch.clone(), &table.primary_key))
            .collect::<Result<Vec<_>>>()?;
        let mut database = Self { name: synthetic.name.clone(), role: Role::Train, tables, foreign_keys: vec![] };
        for table in &synthetic.tables {
            for key in &table.foreign_keys {
                database.refer(&table.name, &key.columns, &key.references_table, &key.references_columns)?;
            }
        }
        Ok(database)
    }

    /// What a folder's `schema.json` says it may be used for, without reading its tables.
    ///
    /// # Errors
    /// When the file cannot be read or understood.
    pub fn role_of_folder(folder: &Path) -> Result<Role> {
        Ok(read_schema(folder)?.role.unwrap_or(Role::Train))
    }

    /// Reads a folder of Parquet files with a `schema.json` that lists them and declares their keys.
    ///
    /// # Errors
    /// When a file cannot be read, or a key names a table or column that does not exist.
    pub fn from_folder(folder: &Path) -> Result<Self> {
        let schema = read_schema(folder)?;
        let mut tables = Vec::with_capacity(schema.tables.len());
        for entry in &schema.tables {
            let batch = read_parquet(&folder.join(&entry.file))?;
            tables.push(Table::new(&entry.name, batch, entry.primary_key.as_deref().unwrap_or_default())?);
        }
        let role = schema.role.unwrap_or(Role::Train);
        let mut database = Self { name: schema.name, role, tables, foreign_keys: vec![] };
        for key in &schema.foreign_keys {
            let references_columns = match &key.ref_columns {
                Some(columns) => columns.clone(),
                None => {
                    let parent = &database.tables[database.table_index(&key.references)?];
                    parent.primary_key.iter().map(|&c| parent.batch.schema().field(c).name().clone()).collect()
                }
            };
            database.refer(&key.table, &key.columns, &key.references, &references_columns)?;
        }
        Ok(database)
    }

    /// Rows of all tables together.
    pub fn rows(&self) -> usize {
        self.tables.iter().map(|table| table.batch.num_rows()).sum()
    }

    /// Registers every table with `context`.
    ///
    /// # Errors
    /// When DataFusion refuses a table.
    pub fn register(&self, context: &SessionContext) -> Result<()> {
        for table in &self.tables {
            let rows = table.batch.num_rows();
            let batches = (0..rows)
                .step_by(BATCH_ROWS)
                .map(|start| table.batch.slice(start, BATCH_ROWS.min(rows - start)))
                .collect();
            let provider = MemTable::try_new(table.batch.schema(), vec![batches])?;
            context.register_table(quote(&table.name), Arc::new(provider))?;
        }
        Ok(())
    }

    fn table_index(&self, name: &str) -> Result<usize> {
        self.tables.iter().position(|table| table.name == name).with_context(|| format!("no table {name}"))
    }

    fn refer(
        &mut self,
        table: &str,
        columns: &[String],
        references: &str,
        references_columns: &[String],
    ) -> Result<()> {
        let (table, references) = (self.table_index(table)?, self.table_index(references)?);
        let columns = self.tables[table].column_indices(columns)?;
        let references_columns = self.tables[references].column_indices(references_columns)?;
        if columns.is_empty() || columns.len() != references_columns.len() {
            bail!("a foreign key of {} has columns without a counterpart", self.tables[table].name);
        }
        self.foreign_keys.push(ForeignKey { table, columns, references, references_columns });
        Ok(())
    }
}

impl Table {
    /// A table whose primary key is given by column names.
    ///
    /// # Errors
    /// When a column does not exist.
    pub fn new(name: &str, batch: RecordBatch, primary_key: &[String]) -> Result<Self> {
        let mut table = Self { name: name.to_owned(), batch, primary_key: vec![] };
        table.primary_key = table.column_indices(primary_key)?;
        Ok(table)
    }

    fn column_indices(&self, names: &[String]) -> Result<Vec<usize>> {
        let schema = self.batch.schema();
        names
            .iter()
            .map(|name| {
                let found = schema.fields().iter().position(|field| field.name() == name);
                found.with_context(|| format!("table {} has no column {name}", self.name))
            })
            .collect()
    }
}

/// A name as SQL wants it: bare where every engine reads it the same, quoted elsewhere.
pub fn quote(name: &str) -> String {
    /// Words of the three engines that could be names of tables or columns in our databases.
    const RESERVED: &[&str] = &[
        "all",
        "and",
        "any",
        "array",
        "as",
        "asc",
        "at",
        "between",
        "both",
        "by",
        "case",
        "cast",
        "check",
        "column",
        "cross",
        "current",
        "date",
        "default",
        "desc",
        "distinct",
        "do",
        "else",
        "end",
        "except",
        "exists",
        "false",
        "fetch",
        "filter",
        "for",
        "foreign",
        "from",
        "full",
        "group",
        "having",
        "if",
        "in",
        "index",
        "inner",
        "interval",
        "into",
        "is",
        "join",
        "key",
        "left",
        "like",
        "limit",
        "natural",
        "no",
        "not",
        "null",
        "of",
        "offset",
        "on",
        "or",
        "order",
        "outer",
        "over",
        "partition",
        "primary",
        "references",
        "right",
        "select",
        "set",
        "some",
        "table",
        "then",
        "time",
        "timestamp",
        "to",
        "true",
        "union",
        "unique",
        "user",
        "using",
        "values",
        "when",
        "where",
        "window",
        "with",
        "year",
    ];
    let mut characters = name.chars();
    let plain = characters.next().is_some_and(|c| c.is_ascii_lowercase() || c == '_')
        && characters.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if plain && !RESERVED.contains(&name) { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

fn read_schema(folder: &Path) -> Result<SchemaFile> {
    let path = folder.join("schema.json");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).with_context(|| path.display().to_string())
}

fn read_parquet(path: &Path) -> Result<RecordBatch> {
    let read = || -> Result<RecordBatch> {
        let builder = ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(path)?)?;
        let reader = builder.with_batch_size(1 << 16).build()?;
        let batches = reader.collect::<Result<Vec<_>, _>>()?;
        let Some(first) = batches.first() else {
            let builder = ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(path)?)?;
            return Ok(RecordBatch::new_empty(Arc::new(Schema::new(builder.schema().fields().clone()))));
        };
        Ok(concat_batches(&first.schema(), &batches)?)
    };
    read().with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_what_needs_it() {
        assert_eq!(quote("player_id"), "player_id");
        assert_eq!(quote("order"), "\"order\"");
        assert_eq!(quote("Name"), "\"Name\"");
        assert_eq!(quote("2nd"), "\"2nd\"");
    }

    #[test]
    fn a_folder_round_trips() {
        let folder = tempfile::tempdir().unwrap();
        let schema = r#"{"name": "d", "role": "eval", "tables": [], "foreign_keys": []}"#;
        std::fs::write(folder.path().join("schema.json"), schema).unwrap();
        assert_eq!(Database::role_of_folder(folder.path()).unwrap(), Role::Eval);
        assert_eq!(Database::from_folder(folder.path()).unwrap().rows(), 0);
        assert!(Database::from_folder(Path::new("/nonexistent")).unwrap_err().to_string().contains("schema.json"));
    }
}
