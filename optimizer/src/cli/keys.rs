//! Primary and foreign keys of a database, declared in its `schema.json`.
//!
//! Declared keys are hints about the data. They are not handed to DataFusion as constraints: it would take them as facts
//! and rewrite plans on them, so one stale line in a file could change an answer.

use std::fmt;
use std::path::Path;

use serde::Deserialize;

use super::error::{CliError, Result};

/// The columns that identify a row of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrimaryKey {
    /// The table.
    pub table: String,
    /// Its key columns.
    pub columns: Vec<String>,
}

/// Columns of one table whose values are found in key columns of another.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ForeignKey {
    /// The referencing table.
    pub table: String,
    /// Its columns.
    pub columns: Vec<String>,
    /// The referenced table.
    pub references: String,
    /// The referenced columns, one for each of `columns`.
    pub ref_columns: Vec<String>,
}

impl fmt::Display for PrimaryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", self.table, self.columns.join(", "))
    }
}

impl fmt::Display for ForeignKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ForeignKey { table, columns, references, ref_columns } = self;
        write!(f, "{table}({}) -> {references}({})", columns.join(", "), ref_columns.join(", "))
    }
}

/// All keys of a database.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Keys {
    /// At most one per table.
    pub primary: Vec<PrimaryKey>,
    /// In the order they were declared or found.
    pub foreign: Vec<ForeignKey>,
}

#[derive(Deserialize)]
struct SchemaFile {
    #[serde(default)]
    tables: Vec<TableEntry>,
    #[serde(default)]
    foreign_keys: Vec<ForeignKey>,
}

#[derive(Deserialize)]
struct TableEntry {
    name: String,
    #[serde(default)]
    primary_key: Option<Vec<String>>,
}

impl Keys {
    /// Reads the keys that `path`, a `schema.json`, declares; other content of the file is ignored.
    ///
    /// # Errors
    /// The file cannot be read, is not the JSON it should be, or declares a foreign key between unequal numbers of
    /// columns.
    pub fn read(path: &Path) -> Result<Keys> {
        let text = std::fs::read_to_string(path).map_err(|error| CliError::io(path, error))?;
        let file: SchemaFile = serde_json::from_str(&text).map_err(|error| CliError::file(path, &error))?;
        let keyed = file.tables.into_iter().filter_map(|entry| Some((entry.name, entry.primary_key?)));
        let keys = Keys {
            primary: keyed
                .filter(|(_, columns)| !columns.is_empty())
                .map(|(table, columns)| PrimaryKey { table, columns })
                .collect(),
            foreign: file.foreign_keys,
        };
        match keys.foreign.iter().find(|key| key.columns.is_empty() || key.columns.len() != key.ref_columns.len()) {
            Some(key) => Err(CliError::file(path, &format!("foreign key {key} does not pair up its columns"))),
            None => Ok(keys),
        }
    }

    /// Splits off the keys of tables that `columns_of` does not know, and checks that the others name existing columns.
    ///
    /// # Errors
    /// The first key that names a missing column, in words.
    pub fn checked<'a>(self, columns_of: impl Fn(&str) -> Option<Vec<&'a str>>) -> Result<(Keys, Keys), String> {
        let missing = |table: &str, columns: &[String]| -> Result<bool, String> {
            let Some(known) = columns_of(table) else { return Ok(true) };
            match columns.iter().find(|column| !known.contains(&column.as_str())) {
                Some(column) => Err(format!("table {table} has no column {column:?}, which a key names")),
                None => Ok(false),
            }
        };
        let (mut known, mut unknown) = (Keys::default(), Keys::default());
        for key in self.primary {
            let side = if missing(&key.table, &key.columns)? { &mut unknown } else { &mut known };
            side.primary.push(key);
        }
        for key in self.foreign {
            let absent = missing(&key.table, &key.columns)? | missing(&key.references, &key.ref_columns)?;
            let side = if absent { &mut unknown } else { &mut known };
            side.foreign.push(key);
        }
        Ok((known, unknown))
    }

    /// The primary key of `table`.
    pub fn primary_of(&self, table: &str) -> Option<&PrimaryKey> {
        self.primary.iter().find(|key| key.table == table)
    }
}
