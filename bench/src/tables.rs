//! `relata-bench tables`: tables to pre-train the data expert on.
//!
//! Per table what its profile says, some of its rows, and histograms over one to five random columns counted on all rows
//! ([`relata_featurize::restoration`]). One folder per database, as `relata-bench trace` writes them; a database that is
//! there is left as it is.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::index;
use relata_experts::prior::{PriorConfig, generate};
use relata_featurize::graph::LAYOUT_VERSION;
use relata_featurize::profile::{ProfileConfig, TableProfile};
use relata_featurize::relative::{RowSample, TableInput, bin_of};
use relata_featurize::restoration::{self, CountedHistogram, TableTask};
use relata_featurize::sketch::{ColumnSketch, Domain};
use serde::{Deserialize, Serialize};

use crate::database::{Database, Role, Table};
use crate::manifest;
use crate::trace::parse_range;

/// File beside the tables that says how they were made.
const MANIFEST: &str = "tables.json";

/// Histograms over one, two, ... columns that are drawn of a table to train on, if it has so many.
const TRAINING_HISTOGRAMS: [usize; 5] = [3, 6, 6, 6, 6];

/// Histograms over as many columns that are drawn of a table at most; over one column each is counted once.
const MOST_HISTOGRAMS: usize = 1000;

/// Rows of a table that are kept.
const SAMPLE_ROWS: usize = 640;

/// Rows that a table must have.
const LEAST_ROWS: usize = 20;

/// Write tables for the pre-training of the data expert
#[derive(Debug, Clone, Args)]
pub struct TablesOptions {
    /// Folder of the tables, one folder per database
    #[arg(long)]
    pub output: PathBuf,
    /// Number of databases of the relational prior
    #[arg(long, default_value_t = 0)]
    pub synthetic: usize,
    /// Seed of the first of them, and of what is drawn
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Rows of their largest tables
    #[arg(long, default_value = "500..60000", value_parser = parse_range)]
    pub rows: (usize, usize),
    /// Folder of Parquet files with a schema.json; refused if its role is "eval"
    #[arg(long)]
    pub database: Vec<PathBuf>,
}

/// What decides the content of a folder.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Manifest {
    layout: u32,
    seed: u64,
    rows: (usize, usize),
}

/// What a run did.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct TablesReport {
    /// Databases written.
    pub databases: usize,
    /// Databases that were there already.
    pub complete: usize,
    /// Tables written.
    pub tables: usize,
    /// Histograms counted.
    pub histograms: usize,
    /// Time taken.
    pub seconds: f64,
}

/// Writes the tables of every database that is not there yet.
///
/// # Errors
/// When a database is for measuring only, when the output holds tables of other options, or when a database cannot be read or
/// written.
pub fn run(options: &TablesOptions) -> Result<TablesReport> {
    for folder in &options.database {
        if Database::role_of_folder(folder)? == Role::Eval {
            bail!("{} is a database to measure on (role \"eval\"): nothing is trained on it", folder.display());
        }
    }
    let count = options.synthetic + options.database.len();
    ensure!(count > 0, "no database: give --synthetic N or --database DIR");
    let manifest = Manifest { layout: LAYOUT_VERSION, seed: options.seed, rows: options.rows };
    manifest::check(&options.output, MANIFEST, &manifest, PartialEq::eq)?;
    let start = Instant::now();
    let bar = ProgressBar::new(count as u64);
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} databases  {elapsed} (+{eta})  {msg}")?);
    bar.enable_steady_tick(Duration::from_millis(500));
    let mut report = TablesReport::default();
    let mut write = |name: String, seed: u64, database: &dyn Fn() -> Result<Database>| -> Result<()> {
        let folder = options.output.join(&name);
        bar.set_message(name.clone());
        if folder.join(restoration::FILE).is_file() {
            report.complete += 1;
        } else {
            let tasks = tasks(&database()?, seed).with_context(|| name)?;
            report.tables += tasks.len();
            report.histograms += tasks.iter().map(|task| task.histograms.len()).sum::<usize>();
            report.databases += 1;
            restoration::write(&folder, &tasks)?;
        }
        bar.inc(1);
        Ok(())
    };
    let config = PriorConfig { rows: options.rows.0..=options.rows.1, ..PriorConfig::default() };
    for index in 0..options.synthetic as u64 {
        let seed = options.seed.wrapping_add(index);
        write(format!("prior_{seed:06}"), seed, &|| Database::from_synthetic(&generate(&config, seed)?))?;
    }
    for folder in &options.database {
        let name = folder.canonicalize().with_context(|| folder.display().to_string())?;
        let name = name.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        write(name, options.seed, &|| Database::from_folder(folder))?;
    }
    bar.finish_and_clear();
    report.seconds = start.elapsed().as_secs_f64();
    Ok(report)
}

/// What is to be restored of the tables of a database.
fn tasks(database: &Database, seed: u64) -> Result<Vec<TableTask>> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut tasks = vec![];
    for table in &database.tables {
        if let Some((task, _)) = task(table, &ProfileConfig::default(), TRAINING_HISTOGRAMS, SAMPLE_ROWS, &mut random)?
        {
            tasks.push(task);
        }
    }
    Ok(tasks)
}

/// What is to be restored of a table, and its profile; `None` if it has too few rows or no column that varies. Of
/// histograms over one, two, ... columns up to `histograms` are drawn.
///
/// # Errors
/// When the table cannot be profiled.
pub fn task(
    table: &Table,
    config: &ProfileConfig,
    histograms: [usize; 5],
    sample_rows: usize,
    random: &mut StdRng,
) -> Result<Option<(TableTask, TableProfile)>> {
    let batch = &table.batch;
    if batch.num_rows() < LEAST_ROWS {
        return Ok(None);
    }
    let profile = TableProfile::of_batches(batch.schema(), std::slice::from_ref(batch), config)?;
    let varying: Vec<u32> = (0..profile.columns.len())
        .filter(|&column| varies(&profile.columns[column]))
        .map(|column| column as u32)
        .collect();
    if varying.is_empty() {
        return Ok(None);
    }
    let bins: Vec<Vec<u8>> = profile
        .columns
        .iter()
        .zip(batch.columns())
        .map(|(sketch, array)| sketch.relative_values(array).into_iter().map(|value| bin_of(value) as u8).collect())
        .collect();
    let mut counted = vec![];
    for (dimensions, &wanted) in (1..).zip(&histograms) {
        let mut sets: Vec<Vec<u32>> = vec![];
        if dimensions == 1 && wanted >= varying.len() {
            sets = varying.iter().map(|&column| vec![column]).collect();
        }
        for _ in 0..2 * wanted.min(MOST_HISTOGRAMS) {
            if dimensions > varying.len() || (dimensions == 1 && sets.len() == varying.len()) || sets.len() >= wanted {
                break;
            }
            let mut set: Vec<u32> =
                index::sample(random, varying.len(), dimensions).into_iter().map(|index| varying[index]).collect();
            set.sort_unstable();
            if !sets.contains(&set) {
                sets.push(set);
            }
        }
        counted.extend(sets.into_iter().map(|set| CountedHistogram::count(set, &bins)));
    }
    let task = TableTask {
        input: TableInput::new(&profile),
        rows: profile.rows,
        sample: RowSample::new(&profile, sample_rows),
        histograms: counted,
    };
    Ok(Some((task, profile)))
}

/// Whether a column has more than one value, NULL among them.
pub fn varies(sketch: &ColumnSketch) -> bool {
    let null = f64::from(u8::from(sketch.nulls > 0.0));
    sketch.domain != Domain::Opaque && sketch.degrees.distinct + null >= 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_written_once() {
        let output = tempfile::tempdir().unwrap();
        let options = TablesOptions {
            output: output.path().to_owned(),
            synthetic: 2,
            seed: 5,
            rows: (100, 400),
            database: vec![],
        };
        let report = run(&options).unwrap();
        assert_eq!((report.databases, report.complete), (2, 0));
        assert!(report.histograms > 5 * report.tables);
        let tasks = restoration::read(&output.path().join("prior_000005")).unwrap();
        for task in &tasks {
            let rows =
                |histogram: &CountedHistogram| histogram.counts.iter().map(|count| f64::from(count.1)).sum::<f64>();
            assert!(task.histograms.iter().all(|histogram| (rows(histogram) - task.rows).abs() < 0.5));
        }
        assert_eq!(run(&options).unwrap().complete, 2);
        let other = run(&TablesOptions { rows: (100, 500), ..options });
        assert!(other.unwrap_err().to_string().contains("other options"));
    }

    #[test]
    fn databases_to_measure_on_are_refused() {
        let (output, database) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let schema = r#"{"name": "d", "role": "eval", "tables": [], "foreign_keys": []}"#;
        std::fs::write(database.path().join("schema.json"), schema).unwrap();
        let options = TablesOptions {
            output: output.path().to_owned(),
            synthetic: 0,
            seed: 1,
            rows: (100, 400),
            database: vec![database.path().to_owned()],
        };
        assert!(run(&options).unwrap_err().to_string().contains("eval"));
    }
}
