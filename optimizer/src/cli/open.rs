//! The start of every command: open the folder, load or build the profiles, report what does not work.

use std::future::Future;
use std::path::{Path, PathBuf};

use datafusion::prelude::SessionContext;
use xxhash_rust::xxh3::xxh3_64;

use super::database::Database;
use super::error::{CliError, Result};
use super::session::SessionOptions;
use super::terminal::Terminal;
use crate::{ExpertStack, Relata, SynopsesReport, TableReport};

/// The database a command works on.
#[derive(Debug, Clone, clap::Args)]
pub struct DatabaseArgs {
    /// Folder of Parquet or CSV files, one table each, with an optional schema.json that declares keys
    #[arg(long, value_name = "DIR")]
    pub database: PathBuf,
    /// Folder that profiles are kept in [default: a folder per database in the user's cache]
    #[arg(long, value_name = "DIR")]
    pub profiles: Option<PathBuf>,
}

impl DatabaseArgs {
    /// Opens the folder and tells about what was left out.
    ///
    /// # Errors
    /// See [`Database::open`].
    pub async fn open(&self, options: &SessionOptions, terminal: &Terminal) -> Result<Database> {
        let database = Database::open(&self.database, options).await?;
        for skipped in &database.skipped {
            terminal.warning(format_args!("skipped {}: {}", skipped.path.display(), skipped.reason));
        }
        for note in &database.notes {
            terminal.warning(note);
        }
        Ok(database)
    }

    /// Opens the folder with relata installed and every table profiled.
    ///
    /// # Errors
    /// See [`Database::open`]; relata's weights do not load.
    pub async fn open_profiled(&self, options: &SessionOptions, terminal: &Terminal) -> Result<Profiled> {
        let database = self.open(options, terminal).await?;
        Profiled::new(database, self.profiles.as_deref(), terminal).await
    }

    /// The same with the pretrained weights, whether there are tuned ones or not.
    ///
    /// # Errors
    /// See [`Self::open_profiled`].
    pub async fn open_pretrained(&self, options: &SessionOptions, terminal: &Terminal) -> Result<Profiled> {
        let database = self.open(options, terminal).await?;
        let relata = self.relata(&database)?;
        Profiled::with(relata, database, terminal).await
    }

    /// relata with the pretrained weights for a database, without profiles.
    ///
    /// # Errors
    /// The weights do not load.
    pub fn relata(&self, database: &Database) -> Result<Relata> {
        pretrained(database, self.profiles.as_deref())
    }
}

/// A database with relata installed and its tables profiled.
pub struct Profiled {
    /// The folder.
    pub database: Database,
    /// The optimizer, which holds the profiles.
    pub relata: Relata,
    /// A session with relata installed.
    pub ctx: SessionContext,
    /// What profiling each table took, in the order of the tables.
    pub reports: Vec<TableReport>,
    /// What joining their samples took.
    pub synopses: SynopsesReport,
}

impl std::fmt::Debug for Profiled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Profiled").field("database", &self.database).finish_non_exhaustive()
    }
}

impl Profiled {
    /// Loads or builds the profiles of `database`, kept in `profiles` or else in the user's cache, and loads the weights that
    /// were tuned on it. A table that cannot be profiled is reported; queries over it are left to DataFusion.
    ///
    /// # Errors
    /// relata's weights do not load, or the session cannot be built.
    pub async fn new(database: Database, profiles: Option<&Path>, terminal: &Terminal) -> Result<Profiled> {
        let relata = pretrained(&database, profiles)?;
        let relata = match relata.tuned() {
            Ok(Some(tuned)) => {
                let queries = tuned.experts().and_then(ExpertStack::tuned).map_or(0, |tuned| tuned.queries);
                terminal.note(format_args!("the weights are tuned on {queries} queries of this database"));
                tuned
            }
            Ok(None) => relata,
            Err(error) => {
                terminal.warning(format_args!("{error}; the pretrained weights are used"));
                relata
            }
        };
        Self::with(relata, database, terminal).await
    }

    async fn with(relata: Relata, database: Database, terminal: &Terminal) -> Result<Profiled> {
        let ctx = database.context(Some(&relata))?;
        let progress = terminal.progress(database.tables.len(), "profiling");
        let mut reports = Vec::with_capacity(database.tables.len());
        for table in &database.tables {
            progress.set_message(table.name.clone());
            match relata.profile_table(&ctx, table.reference()).await {
                Ok(report) => {
                    if let Some(error) = &report.error {
                        progress.suspend(|| terminal.warning(format_args!("table {}: {error}", table.name)));
                    }
                    reports.push(report);
                }
                Err(error) => progress.suspend(|| terminal.warning(format_args!("table {}: {error}", table.name))),
            }
            progress.inc(1);
        }
        progress.finish_and_clear();
        let progress = terminal.progress(1, "joining samples");
        let synopses = relata.join_samples(&ctx).await?;
        progress.finish_and_clear();
        for error in &synopses.errors {
            terminal.warning(error);
        }
        Ok(Profiled { database, relata, ctx, reports, synopses })
    }
}

/// relata with the pretrained weights, and the profiles of a database in `profiles` or else in the user's cache.
fn pretrained(database: &Database, profiles: Option<&Path>) -> Result<Relata> {
    let directory = profiles.map_or_else(|| profile_directory(&database.directory), Path::to_path_buf);
    Ok(Relata::pretrained()?.with_profile_directory(directory).with_foreign_keys(database.foreign_keys()))
}

/// `relata` in the user's cache, or beside other temporary files where there is none.
pub fn cache_directory() -> PathBuf {
    dirs::cache_dir().unwrap_or_else(std::env::temp_dir).join("relata")
}

/// The folder in the user's cache for the profiles of a database; databases are told apart by their paths, and a profile
/// by the data it describes.
pub fn profile_directory(database: &Path) -> PathBuf {
    let path = std::fs::canonicalize(database).unwrap_or_else(|_| database.to_path_buf());
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let hash = xxh3_64(path.as_os_str().as_encoded_bytes());
    cache_directory().join("profiles").join(format!("{name}-{hash:016x}"))
}

/// Runs one query's work as a task of its own, so that a panic in it becomes an error of that query.
///
/// # Errors
/// What the work returns, or [`CliError::Panic`].
pub async fn isolated<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    // Aborts the task with this future, as a timeout around it expects.
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(work);
    match tasks.join_next().await {
        Some(Ok(result)) => result,
        Some(Err(error)) => Err(CliError::Panic(error.to_string())),
        None => Err(CliError::Panic("the task did not start".to_owned())),
    }
}
