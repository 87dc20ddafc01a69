//! `relata-bench prior`: databases of the relational prior as folders of Parquet files with a `schema.json`.
//!
//! A table is written as soon as it is drawn and then dropped, so the memory needed is that of the largest table while
//! it grows (about 60 bytes per row and 15 per value: 0.9 GB for five million rows of 12 columns) and the keys of the
//! tables that are still referred to, however many tables and databases there are. A database appears under its name when it is complete; what is left of an
//! interrupted run is drawn again.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Args;
use datafusion::arrow::array::RecordBatch;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::basic::Compression;
use datafusion::parquet::file::properties::WriterProperties;
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use relata_experts::prior::{Description, PriorConfig, Tables};
use serde::{Deserialize, Serialize};

use crate::manifest;
use crate::trace::parse_range;

/// File beside the databases that says how they were drawn.
const MANIFEST: &str = "prior.json";

/// Rows of a row group.
const GROUP_ROWS: usize = 1 << 17;

/// Write databases of the relational prior as folders of Parquet files
#[derive(Debug, Clone, Args)]
pub struct PriorOptions {
    /// Seed of the first database
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Number of databases, with consecutive seeds
    #[arg(long, default_value_t = 1)]
    pub databases: u64,
    /// Folder for them, one folder per database
    #[arg(long)]
    pub output: PathBuf,
    /// Number of their tables [default: that of the prior]
    #[arg(long, value_parser = parse_range)]
    pub tables: Option<(usize, usize)>,
    /// Rows of their largest tables [default: that of the prior]
    #[arg(long, value_parser = parse_range)]
    pub rows: Option<(usize, usize)>,
}

/// What decides the content of a folder beside its seed.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Manifest {
    relata: String,
    tables: (usize, usize),
    rows: (usize, usize),
}

/// What a run did.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct PriorReport {
    /// Databases written.
    pub databases: u64,
    /// Databases that were complete already.
    pub complete: u64,
    /// Tables written.
    pub tables: usize,
    /// Rows written.
    pub rows: usize,
    /// Time taken.
    pub seconds: f64,
}

/// Writes every database that is not complete yet.
///
/// # Errors
/// When the options contradict themselves, when the output holds databases of other options, or when a file cannot be
/// written.
pub fn run(options: &PriorOptions) -> Result<PriorReport> {
    ensure!(options.databases > 0, "nothing to do");
    let mut config = PriorConfig::default();
    if let Some((least, most)) = options.tables {
        config.tables = least..=most;
    }
    if let Some((least, most)) = options.rows {
        config.rows = least..=most;
    }
    // Refuses a contradiction before anything is written.
    Tables::new(&config, options.seed)?;
    let manifest = Manifest {
        relata: env!("CARGO_PKG_VERSION").to_owned(),
        tables: (*config.tables.start(), *config.tables.end()),
        rows: (*config.rows.start(), *config.rows.end()),
    };
    manifest::check(&options.output, MANIFEST, &manifest, PartialEq::eq)?;

    let start = Instant::now();
    let mut report = PriorReport::default();
    let bar = ProgressBar::new(options.databases);
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} databases  {elapsed} (+{eta})  {msg}")?);
    bar.enable_steady_tick(std::time::Duration::from_millis(500));
    for index in 0..options.databases {
        let tables = Tables::new(&config, options.seed.wrapping_add(index))?;
        let folder = options.output.join(tables.name());
        if folder.is_dir() {
            report.complete += 1;
        } else {
            write_database(tables, &folder, &bar, &mut report).with_context(|| folder.display().to_string())?;
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    report.seconds = start.elapsed().as_secs_f64();
    Ok(report)
}

/// Writes a database beside its place and moves it there when it is complete.
fn write_database(tables: Tables, folder: &Path, bar: &ProgressBar, report: &mut PriorReport) -> Result<()> {
    let name = tables.name();
    let partial = folder.with_file_name(format!(".{name}.partial"));
    if partial.exists() {
        std::fs::remove_dir_all(&partial)?;
    }
    std::fs::create_dir(&partial)?;
    let mut description = Description::new(&name);
    for table in tables {
        let table = table?;
        let rows = table.batch.num_rows();
        description.add(&table);
        write_table(&table.batch, &partial.join(format!("{}.parquet", table.name)))?;
        report.tables += 1;
        report.rows += rows;
        bar.set_message(format!("{name}: {}, {} rows so far", table.name, HumanCount(report.rows as u64)));
    }
    std::fs::write(partial.join("schema.json"), serde_json::to_string_pretty(&description.into_json())? + "\n")?;
    std::fs::rename(&partial, folder)?;
    report.databases += 1;
    Ok(())
}

/// The same bytes for the same rows: nothing in the file names a time or a machine.
fn write_table(batch: &RecordBatch, path: &Path) -> Result<()> {
    let properties = WriterProperties::builder()
        .set_created_by("relata".to_owned())
        .set_compression(Compression::SNAPPY)
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .build();
    let mut writer = ArrowWriter::try_new(File::create(path)?, batch.schema(), Some(properties))?;
    for start in (0..batch.num_rows()).step_by(GROUP_ROWS) {
        writer.write(&batch.slice(start, GROUP_ROWS.min(batch.num_rows() - start)))?;
    }
    writer.close()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use relata_experts::prior::generate;

    use super::*;
    use crate::database::Database;

    fn options(output: &Path) -> PriorOptions {
        PriorOptions { seed: 3, databases: 2, output: output.to_owned(), tables: Some((3, 5)), rows: Some((50, 400)) }
    }

    /// Names and bytes of the files of a folder.
    fn bytes(folder: &Path) -> Vec<(String, Vec<u8>)> {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
        let read = |entry: std::fs::DirEntry| {
            (entry.file_name().to_string_lossy().into_owned(), std::fs::read(entry.path()).unwrap())
        };
        let mut files: Vec<(String, Vec<u8>)> = entries.map(read).collect();
        files.sort();
        files
    }

    #[test]
    fn what_is_read_is_what_was_drawn() {
        let output = tempfile::tempdir().unwrap();
        let report = run(&options(output.path())).unwrap();
        let config = PriorConfig { tables: 3..=5, rows: 50..=400, ..PriorConfig::default() };
        let mut rows = 0;
        for seed in [3, 4] {
            let drawn = Database::from_synthetic(&generate(&config, seed).unwrap()).unwrap();
            let read = Database::from_folder(&output.path().join(format!("prior_{seed}"))).unwrap();
            assert_eq!(read.foreign_keys, drawn.foreign_keys);
            for (read, drawn) in read.tables.iter().zip(&drawn.tables) {
                assert_eq!((&read.name, &read.primary_key), (&drawn.name, &drawn.primary_key));
                assert_eq!(read.batch.columns(), drawn.batch.columns());
            }
            rows += drawn.rows();
        }
        assert_eq!((report.databases, report.complete, report.rows), (2, 0, rows));
    }

    #[test]
    fn bytes_are_the_same_and_runs_are_resumed() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        run(&options(one.path())).unwrap();
        // As an interrupted run leaves it.
        std::fs::create_dir(two.path().join(".prior_4.partial")).unwrap();
        std::fs::write(two.path().join(".prior_4.partial").join("stale.parquet"), "x").unwrap();
        let first = PriorOptions { databases: 1, ..options(two.path()) };
        run(&first).unwrap();
        let report = run(&options(two.path())).unwrap();
        assert_eq!((report.databases, report.complete), (1, 1));
        for name in ["prior_3", "prior_4"] {
            assert_eq!(bytes(&one.path().join(name)), bytes(&two.path().join(name)));
        }
        assert!(!two.path().join(".prior_4.partial").exists());
        let other = run(&PriorOptions { rows: None, ..options(two.path()) });
        assert!(other.unwrap_err().to_string().contains("other options"));
    }

    #[test]
    fn contradictions_write_nothing() {
        let output = tempfile::tempdir().unwrap();
        let refused = run(&PriorOptions { tables: Some((3, 100)), ..options(&output.path().join("new")) });
        assert!(refused.unwrap_err().to_string().contains("tables"));
        assert!(!output.path().join("new").exists());
    }
}
