//! A folder of Parquet or CSV files as a database: one table per file, called like the file without its ending.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt::Write as _;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::common::TableReference;
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::csv::CsvFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig};
use datafusion::prelude::SessionContext;

use super::error::{CliError, Result};
use super::keys::Keys;
use super::session::{SessionOptions, session};
use crate::profiles::stored::file_url;
use crate::{ForeignKey, Relata};

/// The file that declares keys.
pub const SCHEMA_FILE: &str = "schema.json";
/// Rows of a CSV file that its column types are inferred from.
const CSV_TYPE_ROWS: usize = 100_000;
/// Bytes of a CSV file that are looked at to see whether it is text.
const CSV_PROBE_BYTES: u64 = 1 << 16;

/// One table of a database.
#[derive(Debug, Clone)]
pub struct DatabaseTable {
    /// Its name: the file's stem.
    pub name: String,
    /// Its file.
    pub path: PathBuf,
    /// Its rows, for any session under the same [`SessionOptions`].
    pub provider: Arc<dyn TableProvider>,
}

impl DatabaseTable {
    /// The name as DataFusion takes it: as it is, whatever its case.
    pub fn reference(&self) -> TableReference {
        TableReference::bare(self.name.as_str())
    }

    /// Names and types of its columns.
    pub fn schema(&self) -> SchemaRef {
        self.provider.schema()
    }
}

/// A file that looks like a table by its ending but could not be opened as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkippedFile {
    /// The file.
    pub path: PathBuf,
    /// Why it was left out.
    pub reason: String,
}

/// An opened database folder.
#[derive(Debug, Clone)]
pub struct Database {
    /// The folder.
    pub directory: PathBuf,
    /// Its tables, by name.
    pub tables: Vec<DatabaseTable>,
    /// Files that were left out, and why.
    pub skipped: Vec<SkippedFile>,
    /// Keys declared in `schema.json`; `None` without the file.
    pub keys: Option<Keys>,
    /// Remarks about what was found.
    pub notes: Vec<String>,
    options: SessionOptions,
}

/// The formats a table can have, in the order in which they win a shared name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Format {
    Parquet,
    Csv,
}

impl Database {
    /// Opens the tables of `directory`. A file that is damaged or not what its ending says is reported in
    /// [`Database::skipped`]; the others work.
    ///
    /// # Errors
    /// The folder is missing or holds no usable table, or its `schema.json` is broken.
    pub async fn open(directory: &Path, options: &SessionOptions) -> Result<Database> {
        let (files, mut skipped) = list(directory)?;
        let ctx = session(options, None)?;
        let mut tables: Vec<DatabaseTable> = Vec::with_capacity(files.len());
        for ((name, format), path) in files {
            if let Some(other) = tables.last().filter(|table| table.name == name) {
                skipped.push(same_name(path, &other.path));
                continue;
            }
            match open_table(&ctx, &path, format).await {
                Ok(provider) => tables.push(DatabaseTable { name, path, provider }),
                Err(reason) => skipped.push(SkippedFile { path, reason }),
            }
        }
        let mut database = Database {
            directory: directory.to_path_buf(),
            tables,
            skipped,
            keys: None,
            notes: Vec::new(),
            options: options.clone(),
        };
        if database.tables.is_empty() {
            return Err(database.no_tables());
        }
        database.read_keys()?;
        Ok(database)
    }

    /// A session with every table registered, and relata installed where given.
    ///
    /// # Errors
    /// A `DATAFUSION_*` environment variable is not understood, or a table cannot be registered.
    pub fn context(&self, relata: Option<&Relata>) -> Result<SessionContext> {
        let ctx = session(&self.options, relata)?;
        for table in &self.tables {
            ctx.register_table(table.reference(), Arc::clone(&table.provider))?;
        }
        Ok(ctx)
    }

    /// The declared foreign keys, to be followed when samples are joined.
    pub fn foreign_keys(&self) -> Vec<ForeignKey> {
        let declared = self.keys.iter().flat_map(|keys| &keys.foreign);
        let in_session = declared.map(|key| ForeignKey {
            table: TableReference::bare(key.table.as_str()),
            columns: key.columns.clone(),
            references: TableReference::bare(key.references.as_str()),
            referenced: key.ref_columns.clone(),
        });
        in_session.collect()
    }

    /// The table of this name.
    pub fn table(&self, name: &str) -> Option<&DatabaseTable> {
        self.tables.iter().find(|table| table.name == name)
    }

    fn no_tables(&self) -> CliError {
        let mut reason = "holds no Parquet or CSV file that can be read".to_owned();
        for SkippedFile { path, reason: why } in &self.skipped {
            let _ = write!(reason, "\n  {}: {why}", path.display());
        }
        CliError::Folder { path: self.directory.clone(), reason }
    }

    fn read_keys(&mut self) -> Result<()> {
        let path = self.directory.join(SCHEMA_FILE);
        if !path.try_exists().map_err(|error| CliError::io(&path, error))? {
            return Ok(());
        }
        let schemas: BTreeMap<String, SchemaRef> =
            self.tables.iter().map(|table| (table.name.clone(), table.schema())).collect();
        let columns_of = |table: &str| {
            let schema = schemas.get(table)?;
            Some(schema.fields().iter().map(|field| field.name().as_str()).collect())
        };
        let (keys, unknown) = Keys::read(&path)?.checked(columns_of).map_err(|error| CliError::file(&path, &error))?;
        let unknown = unknown.primary.len() + unknown.foreign.len();
        if unknown > 0 {
            self.notes.push(format!("{}: {unknown} keys are about tables that are not open", path.display()));
        }
        self.keys = Some(keys);
        Ok(())
    }
}

/// Files by table name and format, in that order, and files whose names cannot be table names.
type Listing = (BTreeMap<(String, Format), PathBuf>, Vec<SkippedFile>);

/// The table files of a folder. Hidden files, folders and other endings are no tables.
fn list(directory: &Path) -> Result<Listing> {
    let folder_error = |reason: String| CliError::Folder { path: directory.to_path_buf(), reason };
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(folder_error("does not exist".to_owned()));
        }
        Err(error) => return Err(folder_error(error.to_string())),
    };
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry.map_err(|error| folder_error(error.to_string()))?.path());
    }
    paths.sort();
    let (mut files, mut skipped) = (BTreeMap::new(), Vec::new());
    for path in paths {
        let format = match path.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase()).as_deref() {
            Some("parquet") => Format::Parquet,
            Some("csv") => Format::Csv,
            _ => continue,
        };
        if path.is_dir() {
            continue;
        }
        let Some(name) = path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned) else {
            skipped.push(SkippedFile { path, reason: "its name is not valid Unicode".to_owned() });
            continue;
        };
        if name.starts_with('.') {
            continue;
        }
        match files.entry((name, format)) {
            Entry::Vacant(entry) => {
                entry.insert(path);
            }
            // The endings differ in case only ("a.csv", "a.CSV").
            Entry::Occupied(entry) => skipped.push(same_name(path, entry.get())),
        }
    }
    Ok((files, skipped))
}

fn same_name(path: PathBuf, other: &Path) -> SkippedFile {
    SkippedFile { path, reason: format!("the table of this name is read from {}", other.display()) }
}

/// Opens one file as a table; errors are told in words, they end up in a report.
async fn open_table(ctx: &SessionContext, path: &Path, format: Format) -> Result<Arc<dyn TableProvider>, String> {
    let file_format: Arc<dyn FileFormat> = match format {
        Format::Parquet => Arc::new(ParquetFormat::default()),
        Format::Csv => {
            probe_csv(path)?;
            let options = ctx.copied_table_options().csv;
            let csv = CsvFormat::default().with_options(options).with_has_header(true);
            Arc::new(csv.with_newlines_in_values(true).with_schema_infer_max_rec(CSV_TYPE_ROWS))
        }
    };
    let listing = ListingOptions::new(file_format).with_file_extension("");
    let in_words = |error: datafusion::error::DataFusionError| one_line(&error.strip_backtrace());
    let url = file_url(path).ok_or("its path is not valid Unicode")?;
    let schema = listing.infer_schema(&ctx.state(), &url).await.map_err(in_words)?;
    if schema.fields().is_empty() {
        return Err("is empty".to_owned());
    }
    let config = ListingTableConfig::new(url).with_listing_options(listing).with_schema(schema);
    let cache = ctx.runtime_env().cache_manager.get_file_statistic_cache();
    Ok(Arc::new(ListingTable::try_new(config).map_err(in_words)?.with_cache(cache)))
}

/// Refuses a CSV file that is no text: DataFusion would read a Parquet file as one column of garbage.
fn probe_csv(path: &Path) -> Result<(), String> {
    let mut start = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    file.take(CSV_PROBE_BYTES).read_to_end(&mut start).map_err(|error| error.to_string())?;
    match std::str::from_utf8(&start) {
        // The probe may end inside a character.
        Err(error) if error.error_len().is_some() => Err(format!("is not CSV: {error}")),
        _ if start.contains(&0) => Err("is not CSV: it holds zero bytes".to_owned()),
        _ => Ok(()),
    }
}

/// A message without line breaks.
fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}
