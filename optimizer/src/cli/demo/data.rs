//! The demo database on disk: generated once, kept in a cache folder.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use relata_experts::prior::{SyntheticDatabase, SyntheticTable, demo_database};
use serde_json::json;

use super::QUERIES;
use crate::cli::database::{Database, SCHEMA_FILE};
use crate::cli::error::{CliError, Result};
use crate::cli::session::SessionOptions;
use crate::cli::terminal::Terminal;

/// The demo's queries, beside its tables.
pub(super) const QUERY_FILE: &str = "queries.jsonl";
/// Counts up when the generated database or its files change.
const REVISION: u32 = 1;
/// Rows of a row group: enough groups for every thread to have some.
const ROW_GROUP: usize = 64 * 1024;

/// Opens the demo database of this seed and size in `cache`, and generates it first unless it is there whole.
pub(super) async fn prepare(
    cache: &Path,
    seed: u64,
    rows: u64,
    options: &SessionOptions,
    terminal: &Terminal,
) -> Result<(PathBuf, Database)> {
    let directory = cache.join(format!("retail-{REVISION}-{rows}-{seed}"));
    if directory.exists() {
        match Database::open(&directory, options).await {
            Ok(database) if database.skipped.is_empty() && database.notes.is_empty() => {
                write_queries(&directory)?;
                return Ok((directory, database));
            }
            _ => {
                terminal.warning(format_args!("{} is damaged and made anew", directory.display()));
                fs::remove_dir_all(&directory).map_err(|error| CliError::io(&directory, error))?;
            }
        }
    }
    generate(cache, &directory, seed, rows, terminal).await?;
    write_queries(&directory)?;
    let database = Database::open(&directory, options).await?;
    Ok((directory, database))
}

/// Writes the database to a temporary folder and renames that, so that `directory` is whole whenever it exists.
async fn generate(cache: &Path, directory: &Path, seed: u64, rows: u64, terminal: &Terminal) -> Result<()> {
    terminal.note(format_args!("generating about {rows} rows in {}", directory.display()));
    let failed = |reason: String| CliError::file(directory, &reason);
    let database = tokio::task::spawn_blocking(move || demo_database(seed, rows as usize))
        .await
        .map_err(|error| failed(error.to_string()))?
        .map_err(|error| failed(error.to_string()))?;
    fs::create_dir_all(cache).map_err(|error| CliError::io(cache, error))?;
    let temporary = cache.join(format!(".retail-{}", std::process::id()));
    let written = write(&database, &temporary, terminal).and_then(|()| match fs::rename(&temporary, directory) {
        // Another process was faster; its database is the same.
        Err(_) if directory.exists() => Ok(()),
        renamed => renamed.map_err(|error| CliError::io(directory, error)),
    });
    if temporary.exists() {
        // What is left over is only in the way of the disk.
        let _ = fs::remove_dir_all(&temporary);
    }
    written
}

fn write(database: &SyntheticDatabase, directory: &Path, terminal: &Terminal) -> Result<()> {
    fs::create_dir_all(directory).map_err(|error| CliError::io(directory, error))?;
    let progress = terminal.progress(database.tables.len(), "writing");
    for table in &database.tables {
        progress.set_message(table.name.clone());
        write_table(table, &directory.join(format!("{}.parquet", table.name)))?;
        progress.inc(1);
    }
    progress.finish_and_clear();
    write_text(&directory.join(SCHEMA_FILE), &format!("{:#}\n", database.schema_json()))
}

/// Written on every start: the queries may be newer than the data.
fn write_queries(directory: &Path) -> Result<()> {
    let lines = QUERIES.iter().map(|query| json!({ "id": query.question, "sql": query.sql }).to_string() + "\n");
    write_text(&directory.join(QUERY_FILE), &lines.collect::<String>())
}

fn write_text(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(|error| CliError::io(path, error))
}

fn write_table(table: &SyntheticTable, path: &Path) -> Result<()> {
    let failed = |error: parquet::errors::ParquetError| CliError::file(path, &error);
    let file = File::create(path).map_err(|error| CliError::io(path, error))?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(ROW_GROUP))
        .build();
    let mut writer = ArrowWriter::try_new(file, table.batch.schema(), Some(properties)).map_err(failed)?;
    writer.write(&table.batch).map_err(failed)?;
    writer.close().map_err(failed)?;
    Ok(())
}
