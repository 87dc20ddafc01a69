//! The profiles of the tables, in memory and, where a directory is given, on disk.
//!
//! A profile belongs to one table provider: a table that is registered anew counts as unprofiled. On disk its file is named
//! after the table, its paths with the profile's settings, and the sizes and times of its files, so that a stale profile is
//! not found; once the new one is saved the stale one is deleted. A damaged one is counted and built again.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};

use datafusion::catalog::{Session, TableProvider};
use datafusion::common::TableReference;
use datafusion::datasource::listing::ListingTable;
use datafusion::datasource::source_as_provider;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::TableScan;
use hashbrown::HashMap;
use relata_experts::ExpertStack;
use relata_experts::data::TableEmbedding;
use relata_featurize::graph::NodeKind;
use relata_featurize::logical::column_features;
use relata_featurize::profile::{ProfileConfig, TableProfile};
use relata_featurize::relative::TableInput;
use relata_featurize::synopsis::JoinSynopsis;

use crate::counters::{Counters, count};

/// A profile and what the data expert makes of it.
#[derive(Debug)]
pub(crate) struct ProfiledTable {
    pub(crate) profile: Arc<TableProfile>,
    /// Its rows joined with those of its parents, once that is made.
    pub(crate) synopsis: RwLock<Option<Arc<JoinSynopsis>>>,
    embedding: OnceLock<Option<TableEmbedding>>,
    column_states: Vec<OnceLock<Option<Vec<f32>>>>,
}

impl ProfiledTable {
    fn new(profile: TableProfile) -> Self {
        let column_states = profile.columns.iter().map(|_| OnceLock::new()).collect();
        Self { profile: Arc::new(profile), synopsis: RwLock::default(), embedding: OnceLock::new(), column_states }
    }

    /// The embedding, made at the first call; `None` when the data expert refuses the table.
    pub(crate) fn embedding(&self, experts: &ExpertStack) -> Option<&TableEmbedding> {
        self.embedding.get_or_init(|| experts.embed_table(&TableInput::new(&self.profile)).ok()).as_ref()
    }

    /// The logical expert's state of a column as a key, made at the first call; `None` when it refuses the column.
    pub(crate) fn column_state(&self, experts: &ExpertStack, column: usize) -> Option<&[f32]> {
        let make = || {
            let mut state = vec![0.0; experts.width()];
            let embedding = self.embedding(experts)?.column(column)?;
            let features = column_features(&self.profile, column);
            experts.step(NodeKind::Column, &features, Some(embedding), &[], &mut state).ok()?;
            Some(state)
        };
        self.column_states.get(column)?.get_or_init(make).as_deref()
    }
}

#[derive(Debug)]
struct Entry {
    provider: Weak<dyn TableProvider>,
    table: Arc<ProfiledTable>,
}

/// What profiling one table took.
#[derive(Debug)]
pub struct TableReport {
    /// The table.
    pub table: TableReference,
    /// Its rows.
    pub rows: u64,
    /// Its columns.
    pub columns: usize,
    /// Size of the profile in memory, in bytes.
    pub bytes: usize,
    /// Time it took.
    pub elapsed: Duration,
    /// Whether the profile was there already, in memory or in the profile directory.
    pub loaded: bool,
    /// Why the table could not be profiled.
    pub error: Option<String>,
}

/// The profiles of one [`crate::Relata`].
#[derive(Debug, Default)]
pub(crate) struct ProfileStore {
    /// By the address of the provider.
    entries: RwLock<HashMap<usize, Entry>>,
    pub(crate) directory: Option<PathBuf>,
    pub(crate) config: ProfileConfig,
}

impl ProfileStore {
    pub(crate) fn new(directory: Option<PathBuf>, config: ProfileConfig) -> Self {
        Self { entries: RwLock::default(), directory, config }
    }

    /// The profile of the table that `scan` reads.
    pub(crate) fn of_scan(&self, scan: &TableScan) -> Option<Arc<ProfiledTable>> {
        self.get(&source_as_provider(&scan.source).ok()?)
    }

    /// The profile of a table.
    pub(crate) fn get(&self, provider: &Arc<dyn TableProvider>) -> Option<Arc<ProfiledTable>> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.get(&address(provider))?;
        // An entry whose provider is gone may have left its address to another.
        entry.provider.upgrade().is_some_and(|own| Arc::ptr_eq(&own, provider)).then(|| Arc::clone(&entry.table))
    }

    fn insert(&self, provider: &Arc<dyn TableProvider>, profile: TableProfile) {
        let table = Arc::new(ProfiledTable::new(profile));
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|_, entry| entry.provider.strong_count() > 0);
        entries.insert(address(provider), Entry { provider: Arc::downgrade(provider), table });
    }

    /// Profiles a table unless that is done; what goes wrong is in the report.
    pub(crate) async fn ensure(
        &self,
        session: &SessionState,
        name: TableReference,
        provider: &Arc<dyn TableProvider>,
        counters: &Counters,
    ) -> TableReport {
        let start = Instant::now();
        let report = |profile: &TableProfile, loaded| TableReport {
            table: name.clone(),
            rows: profile.rows as u64,
            columns: profile.columns.len(),
            bytes: profile.bytes(),
            elapsed: start.elapsed(),
            loaded,
            error: None,
        };
        if let Some(found) = self.get(provider) {
            return report(&found.profile, true);
        }
        let stored = self.stored(&name, provider);
        if let Some(stored) = stored.as_ref().filter(|stored| stored.file.exists()) {
            match TableProfile::load(&stored.file) {
                Ok(profile) if *profile.schema().fields() == *provider.schema().fields() => {
                    count(&counters.loaded);
                    let report = report(&profile, true);
                    self.insert(provider, profile);
                    return report;
                }
                _ => count(&counters.damaged),
            }
        }
        match TableProfile::build(session, provider.as_ref(), &self.config).await {
            Ok(profile) => {
                count(&counters.profiled);
                let mut report = report(&profile, false);
                if let Some(stored) = stored {
                    let stale = stored.stale();
                    if !stale.is_empty() {
                        count(&counters.stale);
                    }
                    match save(&profile, &stored.file) {
                        // One that another process has deleted meanwhile is gone as well.
                        Ok(()) => stale.iter().for_each(|file| drop(std::fs::remove_file(file))),
                        Err(error) => report.error = Some(format!("the profile is in memory only: {error}")),
                    }
                }
                self.insert(provider, profile);
                report
            }
            Err(error) => {
                count(&counters.unprofiled);
                let columns = provider.schema().fields().len();
                let (elapsed, error) = (start.elapsed(), Some(error.to_string()));
                TableReport { table: name, rows: 0, columns, bytes: 0, elapsed, loaded: false, error }
            }
        }
    }

    /// Where the profile of a table is kept; `None` without a directory or for data that has no local files.
    pub(crate) fn stored(&self, name: &TableReference, provider: &Arc<dyn TableProvider>) -> Option<StoredProfile> {
        let directory = self.directory.as_ref()?;
        let (table, files) = fingerprints(provider.downcast_ref::<ListingTable>()?, &self.config)?;
        let mut plain = String::new();
        for character in name.to_string().chars() {
            match character {
                '_' | '.' => plain.push(character),
                _ if character.is_ascii_alphanumeric() => plain.push(character),
                _ => plain.push_str(&format!("%{:x}", u32::from(character))),
            }
        }
        let prefix = format!("{plain}-{table:016x}-");
        Some(StoredProfile { file: directory.join(format!("{prefix}{files:016x}.{EXTENSION}")), prefix })
    }
}

/// Extension of the files of profiles.
const EXTENSION: &str = "profile";

/// The place of one table's profile on disk.
#[derive(Debug)]
pub(crate) struct StoredProfile {
    pub(crate) file: PathBuf,
    /// What the names of all profiles of this table begin with.
    pub(crate) prefix: String,
}

impl StoredProfile {
    /// The profiles of this table as it was before its files changed.
    fn stale(&self) -> Vec<PathBuf> {
        others(&self.file, &self.prefix)
    }
}

/// The other files beside `file` with its extension whose names begin with `prefix`.
pub(crate) fn others(file: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = file.parent().and_then(|directory| directory.read_dir().ok());
    let files = entries.into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let alike = |other: &PathBuf| {
        other.extension() == file.extension()
            && other.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(prefix))
    };
    files.filter(|other| *other != file && alike(other)).collect()
}

fn address(provider: &Arc<dyn TableProvider>) -> usize {
    Arc::as_ptr(provider).cast::<()>() as usize
}

fn save(profile: &TableProfile, file: &Path) -> Result<(), String> {
    if let Some(directory) = file.parent() {
        std::fs::create_dir_all(directory).map_err(|e| format!("{}: {e}", directory.display()))?;
    }
    profile.save(file).map_err(|e| e.to_string())
}

/// Hash of a table's paths and the profile's settings, and hash of the names, sizes and times of its local files; `None` for
/// other stores.
fn fingerprints(table: &ListingTable, config: &ProfileConfig) -> Option<(u64, u64)> {
    let (mut identity, mut files) = (format!("{config:?}"), String::new());
    for url in table.table_paths() {
        if url.scheme() != "file" {
            return None;
        }
        let path = url.get_url().to_file_path().ok()?;
        identity.push_str(&format!("|{}", path.display()));
        describe(&path, &mut files)?;
    }
    Some((xxhash_rust::xxh3::xxh3_64(identity.as_bytes()), xxhash_rust::xxh3::xxh3_64(files.as_bytes())))
}

fn describe(path: &Path, text: &mut String) -> Option<()> {
    let metadata = path.metadata().ok()?;
    if metadata.is_dir() {
        let mut inside: Vec<PathBuf> = path.read_dir().ok()?.map(|e| Some(e.ok()?.path())).collect::<Option<_>>()?;
        inside.sort();
        return inside.iter().try_for_each(|path| describe(path, text));
    }
    text.push_str(&format!("|{} {} {:?}", path.display(), metadata.len(), metadata.modified().ok()?));
    Some(())
}

/// A session like this one that scans with one partition, so that a sample is the same each time it is taken.
pub(crate) fn profiling_session(session: &dyn Session) -> Option<SessionState> {
    let mut state = session.as_any().downcast_ref::<SessionState>()?.clone();
    state.config_mut().options_mut().execution.target_partitions = 1;
    Some(state)
}
