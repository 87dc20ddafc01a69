//! How long profiling takes beside reading, what the profiles weigh and how fast they are loaded.
//!
//! Per table, in turns: a scan of all columns whose rows are dropped, a profile built by the same scan, and the stored profile
//! read back.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Args;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::runtime::SpawnedTask;
use datafusion::physical_plan::execute_stream_partitioned;
use futures::StreamExt;
use indicatif::ProgressBar;
use relata::cli::database::Database;
use relata::cli::session::SessionOptions;
use relata_featurize::profile::{ProfileConfig, TableProfile, scan};
use serde::{Deserialize, Serialize};

use crate::machine::Provenance;
use crate::tpch;

/// Options of `relata-bench profile`.
#[derive(Debug, Clone, Args)]
pub struct ProfilingOptions {
    /// Folders of databases
    #[arg(long, num_args = 1.., required_unless_present = "tpch")]
    pub database: Vec<PathBuf>,
    /// Scale factor of a TPC-H database
    #[arg(long)]
    pub tpch: Option<f64>,
    /// Repetitions, of which the fastest counts
    #[arg(long, default_value_t = 3)]
    pub repeat: usize,
    /// Parts of a table that are read at a time
    #[arg(long, default_value_t = 2)]
    pub parts: usize,
    /// File for the figures (JSON)
    #[arg(long)]
    pub output: Option<PathBuf>,
}

/// The figures of one table or the sums of several.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Profiled {
    /// The database, and the table where it is one.
    pub name: String,
    /// Rows.
    pub rows: f64,
    /// Columns.
    pub columns: usize,
    /// Bytes of the table in memory.
    pub data_bytes: f64,
    /// Bytes of the stored profiles.
    pub profile_bytes: f64,
    /// Bytes that the profiles may take: 1% of the data, at least 256 KiB for each table.
    pub budget_bytes: f64,
    /// Seconds of the scan.
    pub scan_s: f64,
    /// Seconds of building the profile, its scan included.
    pub build_s: f64,
    /// Seconds of reading the stored profile.
    pub load_s: f64,
}

impl Profiled {
    fn add(&mut self, other: &Self) {
        self.rows += other.rows;
        self.columns += other.columns;
        self.data_bytes += other.data_bytes;
        self.profile_bytes += other.profile_bytes;
        self.budget_bytes += other.budget_bytes;
        self.scan_s += other.scan_s;
        self.build_s += other.build_s;
        self.load_s += other.load_s;
    }
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProfilingReport {
    /// Where and from what.
    pub provenance: Provenance,
    /// Every table.
    pub tables: Vec<Profiled>,
    /// The sums over the tables of each database.
    pub databases: Vec<Profiled>,
}

/// Measures every table of the databases.
///
/// # Errors
/// When a database cannot be read or profiled.
pub async fn run(options: &ProfilingOptions) -> Result<ProfilingReport> {
    let mut folders = options.database.clone();
    if let Some(scale) = options.tpch {
        folders.push(tpch::tables(scale)?);
    }
    let config = ProfileConfig { parts: options.parts, ..ProfileConfig::default() };
    let session = SessionOptions::new(Some(options.parts), None)?;
    let mut report = ProfilingReport { provenance: Provenance::collect(None), tables: vec![], databases: vec![] };
    let progress = ProgressBar::new(folders.len() as u64);
    for folder in progress.wrap_iter(folders.iter()) {
        let database = Database::open(folder, &session).await?;
        let ctx = database.context(None)?;
        let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let mut sum = Profiled { name: name.clone(), ..Profiled::default() };
        for table in &database.tables {
            let provider = ctx.table_provider(table.reference()).await?;
            let mut measured = measure(&ctx.state(), provider.as_ref(), &config, options.repeat).await?;
            measured.name = format!("{name}.{}", table.name);
            sum.add(&measured);
            report.tables.push(measured);
        }
        report.databases.push(sum);
    }
    if let Some(output) = &options.output {
        let text = serde_json::to_string_pretty(&report)?;
        std::fs::write(output, text).with_context(|| output.display().to_string())?;
    }
    Ok(report)
}

async fn measure(
    session: &dyn Session,
    table: &dyn TableProvider,
    config: &ProfileConfig,
    repeat: usize,
) -> Result<Profiled> {
    let mut measured = Profiled { scan_s: f64::INFINITY, build_s: f64::INFINITY, ..Profiled::default() };
    let mut stored = vec![];
    for _ in 0..repeat.max(1) {
        let start = Instant::now();
        let plan = scan(session, table, config.parts).await?;
        let parts = execute_stream_partitioned(plan, session.task_ctx())?.into_iter().map(|mut rows| {
            SpawnedTask::spawn(async move {
                while let Some(batch) = rows.next().await {
                    drop(batch?);
                }
                anyhow::Ok(())
            })
        });
        for part in parts.collect::<Vec<_>>() {
            part.join().await??;
        }
        measured.scan_s = measured.scan_s.min(start.elapsed().as_secs_f64());
        let start = Instant::now();
        let profile = TableProfile::build(session, table, config).await?;
        measured.build_s = measured.build_s.min(start.elapsed().as_secs_f64());
        stored = profile.to_bytes()?;
        let start = Instant::now();
        let loaded = TableProfile::from_bytes(&stored, "measured".as_ref())?;
        measured.load_s = start.elapsed().as_secs_f64();
        measured.rows = loaded.rows;
        measured.columns = loaded.columns.len();
        measured.data_bytes = loaded.rows * loaded.row_bytes;
    }
    measured.profile_bytes = stored.len() as f64;
    measured.budget_bytes = (config.share_of_data * measured.data_bytes).max(config.least_bytes as f64);
    Ok(measured)
}

/// The databases as a table.
pub fn print(report: &ProfilingReport) -> String {
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::UTF8_HORIZONTAL_ONLY);
    table.set_header([
        "database",
        "rows",
        "columns",
        "data",
        "profiles",
        "of budget",
        "scan",
        "profile",
        "ratio",
        "load/100 columns",
    ]);
    let mut all = Profiled { name: "all".to_owned(), ..Profiled::default() };
    report.databases.iter().for_each(|database| all.add(database));
    for one in report.databases.iter().chain([&all]) {
        table.add_row([
            one.name.clone(),
            format!("{}", one.rows),
            one.columns.to_string(),
            format!("{:.1} MB", one.data_bytes / 1e6),
            format!("{:.2} MB", one.profile_bytes / 1e6),
            format!("{:.0}%", 100.0 * one.profile_bytes / one.budget_bytes.max(1.0)),
            format!("{:.0} ms", 1e3 * one.scan_s),
            format!("{:.0} ms", 1e3 * one.build_s),
            format!("{:.2}x", one.build_s / one.scan_s.max(1e-9)),
            format!("{:.1} ms", 1e5 * one.load_s / one.columns.max(1) as f64),
        ]);
    }
    let over = report.tables.iter().filter(|table| table.profile_bytes > table.budget_bytes).count();
    format!("{table}\n{over} of {} tables over their budget\n", report.tables.len())
}
