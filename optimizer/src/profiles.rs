//! The profiles of the tables, in memory and, where a directory is given, on disk.
//!
//! A profile belongs to one table provider: a table that is registered anew counts as unprofiled. What is kept on disk, and
//! how a table that was appended to is found there, is in `stored`. A damaged profile is counted and built again.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant, SystemTime};

use datafusion::catalog::{Session, TableProvider};
use datafusion::common::TableReference;
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
use tokio::sync::watch;

use crate::counters::{Counters, count};

pub(crate) mod stored;

pub(crate) use stored::{StoredProfile, others};

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

    /// The same for experts above the same data expert.
    fn for_other_experts(&self) -> Self {
        let column_states = self.profile.columns.iter().map(|_| OnceLock::new()).collect();
        let synopsis = self.synopsis.read().unwrap_or_else(PoisonError::into_inner).clone();
        let (profile, embedding) = (Arc::clone(&self.profile), self.embedding.clone());
        Self { profile, synopsis: RwLock::new(synopsis), embedding, column_states }
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
pub(crate) struct Entry {
    provider: Weak<dyn TableProvider>,
    pub(crate) table: Arc<ProfiledTable>,
    pub(crate) source: ProfileSource,
    /// When the table was scanned for it; `None` where the file system does not say.
    pub(crate) made: Option<SystemTime>,
}

/// Where a profile came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProfileSource {
    /// A scan of the table.
    Built,
    /// A stored profile of the table as it was, and a scan of the files that were added since.
    Updated,
    /// It was there already, in memory or in the profile directory.
    Loaded,
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
    /// Where the profile came from.
    pub source: ProfileSource,
    /// Why the table could not be profiled.
    pub error: Option<String>,
}

/// The profiles of one [`crate::Relata`].
#[derive(Debug, Default)]
pub(crate) struct ProfileStore {
    /// By the address of the provider.
    pub(crate) entries: RwLock<HashMap<usize, Entry>>,
    pub(crate) directory: Option<PathBuf>,
    pub(crate) config: ProfileConfig,
    pub(crate) versions: Option<Arc<dyn DataVersions>>,
    /// The tables that queries are having profiled, by the address of the provider.
    pub(crate) running: Arc<Mutex<HashMap<usize, Earlier>>>,
}

/// The profiling of a table that another query has begun.
#[derive(Debug, Clone)]
pub(crate) struct Earlier {
    pub(crate) since: Instant,
    ended: watch::Receiver<()>,
}

impl Earlier {
    /// Waits for its end.
    pub(crate) async fn finished(mut self) {
        // The sender is gone once it is dropped.
        while self.ended.changed().await.is_ok() {}
    }
}

/// The profiling of a table, until it is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    all: Arc<Mutex<HashMap<usize, Earlier>>>,
    /// It keeps its address for as long.
    provider: Arc<dyn TableProvider>,
    _ended: watch::Sender<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).remove(&address(&self.provider));
    }
}

/// Says which version of a table's data there is, for tables whose data is not in local files.
pub trait DataVersions: fmt::Debug + Send + Sync {
    /// A token that changes whenever the data of a table does, such as an `ETag` or the number of a snapshot; with it the
    /// profile of any table can be kept in the profile directory. `None` leaves it to the table's files.
    fn version(&self, table: &TableReference, provider: &dyn TableProvider) -> Option<String>;
}

impl ProfileStore {
    /// An empty store with the settings of this one.
    pub(crate) fn emptied(&self) -> Self {
        let (directory, config, versions) = (self.directory.clone(), self.config.clone(), self.versions.clone());
        Self { entries: RwLock::default(), directory, config, versions, running: Arc::default() }
    }

    /// Begins to profile a table for a query.
    ///
    /// # Errors
    /// With the earlier begin of another query that has not ended.
    pub(crate) fn begin(&self, provider: &Arc<dyn TableProvider>) -> Result<Running, Earlier> {
        let mut all = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(earlier) = all.get(&address(provider)) {
            return Err(earlier.clone());
        }
        let (sender, ended) = watch::channel(());
        all.insert(address(provider), Earlier { since: Instant::now(), ended });
        Ok(Running { all: Arc::clone(&self.running), provider: Arc::clone(provider), _ended: sender })
    }

    /// The store for other experts above the same data expert: without what the experts made of the columns.
    pub(crate) fn for_other_experts(&self) -> Self {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let entry = |entry: &Entry| Entry {
            provider: Weak::clone(&entry.provider),
            table: Arc::new(entry.table.for_other_experts()),
            ..*entry
        };
        let entries = entries.iter().map(|(address, known)| (*address, entry(known))).collect();
        Self { entries: RwLock::new(entries), ..self.emptied() }
    }

    /// The profile of the table that `scan` reads.
    pub(crate) fn of_scan(&self, scan: &TableScan) -> Option<Arc<ProfiledTable>> {
        self.get(&source_as_provider(&scan.source).ok()?)
    }

    /// The profile of a table.
    pub(crate) fn get(&self, provider: &Arc<dyn TableProvider>) -> Option<Arc<ProfiledTable>> {
        self.read(provider, |entry| Arc::clone(&entry.table))
    }

    /// What is known of the profile of a table.
    pub(crate) fn read<T>(&self, provider: &Arc<dyn TableProvider>, read: impl FnOnce(&Entry) -> T) -> Option<T> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.get(&address(provider))?;
        // An entry whose provider is gone may have left its address to another.
        entry.provider.upgrade().is_some_and(|own| Arc::ptr_eq(&own, provider)).then(|| read(entry))
    }

    /// Forgets the profile of a table; its files stay.
    pub(crate) fn remove(&self, provider: &Arc<dyn TableProvider>) {
        self.entries.write().unwrap_or_else(PoisonError::into_inner).remove(&address(provider));
    }

    /// Where the profile of a table is kept; `None` without a directory, or for data without a version and local files.
    pub(crate) fn stored(&self, name: &TableReference, provider: &Arc<dyn TableProvider>) -> Option<StoredProfile> {
        let directory = self.directory.as_deref()?;
        match self.versions.as_ref().and_then(|versions| versions.version(name, provider.as_ref())) {
            Some(version) => Some(StoredProfile::of_version(directory, name, &version, &self.config)),
            None => StoredProfile::of(directory, name, provider, &self.config),
        }
    }

    fn insert(
        &self,
        provider: &Arc<dyn TableProvider>,
        profile: TableProfile,
        source: ProfileSource,
        made: Option<SystemTime>,
    ) {
        let table = Arc::new(ProfiledTable::new(profile));
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|_, entry| entry.provider.strong_count() > 0);
        entries.insert(address(provider), Entry { provider: Arc::downgrade(provider), table, source, made });
    }

    /// Profiles a table, `anew` or unless that is done; what goes wrong is in the report.
    pub(crate) async fn ensure(
        &self,
        session: &SessionState,
        name: TableReference,
        provider: &Arc<dyn TableProvider>,
        anew: bool,
        counters: &Counters,
    ) -> TableReport {
        let start = Instant::now();
        let report = |profile: &TableProfile, source| TableReport {
            table: name.clone(),
            rows: profile.rows as u64,
            columns: profile.columns.len(),
            bytes: profile.bytes(),
            elapsed: start.elapsed(),
            source,
            error: None,
        };
        if let Some(found) = self.get(provider).filter(|_| !anew) {
            return report(&found.profile, ProfileSource::Loaded);
        }
        let stored = self.stored(&name, provider);
        if let Some(stored) = stored.as_ref().filter(|stored| !anew && stored.file.exists()) {
            match TableProfile::load(&stored.file) {
                Ok(profile) if *profile.schema().fields() == *provider.schema().fields() => {
                    count(&counters.loaded);
                    let report = report(&profile, ProfileSource::Loaded);
                    self.insert(provider, profile, ProfileSource::Loaded, stored.made());
                    return report;
                }
                _ => count(&counters.damaged),
            }
        }
        let appended = match &stored {
            Some(stored) if !anew => stored.with_appended(session, provider, &self.config).await,
            _ => None,
        };
        let (source, counter) = match appended {
            Some(_) => (ProfileSource::Updated, &counters.updated),
            None => (ProfileSource::Built, &counters.profiled),
        };
        let built = match appended {
            Some(profile) => Ok(profile),
            None => TableProfile::build(session, provider.as_ref(), &self.config).await,
        };
        match built {
            Ok(mut profile) => {
                count(counter);
                if let Some(stored) = &stored {
                    profile.files.clone_from(&stored.files);
                }
                let mut report = report(&profile, source);
                if let Some(stored) = stored {
                    let stale = stored.stale();
                    if !stale.is_empty() {
                        count(&counters.stale);
                    }
                    match stored.save(&profile) {
                        // One that another process has deleted meanwhile is gone as well.
                        Ok(()) => stale.iter().for_each(|file| drop(std::fs::remove_file(file))),
                        Err(error) => report.error = Some(format!("the profile is in memory only: {error}")),
                    }
                }
                self.insert(provider, profile, source, Some(SystemTime::now()));
                report
            }
            Err(error) => {
                count(&counters.unprofiled);
                let columns = provider.schema().fields().len();
                let (elapsed, error) = (start.elapsed(), Some(error.to_string()));
                TableReport { table: name, rows: 0, columns, bytes: 0, elapsed, source: ProfileSource::Built, error }
            }
        }
    }
}

fn address(provider: &Arc<dyn TableProvider>) -> usize {
    Arc::as_ptr(provider).cast::<()>() as usize
}

impl ProfileStore {
    /// A session like this one that reads as many parts of a table at a time as the profiles are made of, each part by its own
    /// stream, so that a sample is the same each time it is taken.
    pub(crate) fn session(&self, session: &dyn Session) -> Option<SessionState> {
        let mut state = session.as_any().downcast_ref::<SessionState>()?.clone();
        let execution = &mut state.config_mut().options_mut().execution;
        execution.target_partitions = self.config.parts.max(1);
        execution.enable_file_stream_work_stealing = false;
        Some(state)
    }
}
