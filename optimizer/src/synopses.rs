//! Join synopses of the profiled tables, in memory and beside the profiles on disk.
//!
//! A synopsis belongs to the profiles it was made of: with another profile of one of its tables it is not used any more. On
//! disk its file is named after the table and a hash of everything it depends on, the files of all its tables among it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use datafusion::catalog::TableProvider;
use datafusion::common::TableReference;
use datafusion::execution::session_state::SessionState;
use relata_featurize::foreign_key::{self, foreign_keys};
use relata_featurize::profile::TableProfile;
use relata_featurize::synopsis::{JoinSynopsis, SynopsisBuilder, SynopsisPlan};

use crate::counters::{Counters, count};
use crate::profiles::{ProfileStore, ProfiledTable, others};

/// Extension of the files of synopses.
const EXTENSION: &str = "synopsis";

/// A hint that the values of some columns of one table are found in those of another.
///
/// A wrong one does no harm: the rows are looked up, and what is not found counts as not found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignKey {
    /// The referencing table.
    pub table: TableReference,
    /// Its columns.
    pub columns: Vec<String>,
    /// The referenced table.
    pub references: TableReference,
    /// The referenced columns, one for each of `columns`.
    pub referenced: Vec<String>,
}

/// What joining the sample of one table with its parents took.
#[derive(Debug, Clone)]
pub struct SynopsisReport {
    /// The table.
    pub table: TableReference,
    /// Sampled rows.
    pub rows: usize,
    /// The tables above it, and the share of the sampled rows that have a partner there.
    pub parents: Vec<(TableReference, f64)>,
    /// Size in memory, in bytes.
    pub bytes: usize,
    /// Whether it was there already, in memory or in the profile directory.
    pub loaded: bool,
}

/// What joining the samples of a database took.
#[derive(Debug, Clone, Default)]
pub struct SynopsesReport {
    /// The tables that have a synopsis.
    pub synopses: Vec<SynopsisReport>,
    /// Tables that were scanned.
    pub scanned: usize,
    /// What went wrong, in words.
    pub errors: Vec<String>,
    /// Time it took.
    pub elapsed: Duration,
}

/// A table with its name and profile.
struct Member {
    name: TableReference,
    provider: Arc<dyn TableProvider>,
    table: Arc<ProfiledTable>,
}

impl ProfileStore {
    /// Joins the samples of those of `tables` that are profiled, unless that is done.
    pub(crate) async fn join_samples(
        &self,
        session: &SessionState,
        tables: Vec<(TableReference, Arc<dyn TableProvider>)>,
        declared: &[ForeignKey],
        counters: &Counters,
    ) -> SynopsesReport {
        let start = Instant::now();
        let members = tables.into_iter().filter_map(|(name, provider)| {
            let table = self.get(&provider)?;
            Some(Member { name, provider, table })
        });
        let members: Vec<Member> = members.collect();
        let profiles: Vec<Arc<TableProfile>> = members.iter().map(|member| Arc::clone(&member.table.profile)).collect();
        let declared: Vec<foreign_key::ForeignKey> =
            declared.iter().filter_map(|key| in_members(key, &members, session)).collect();
        let plans = SynopsisPlan::of_tables(&profiles, &foreign_keys(&profiles, &declared), &self.config.synopsis);

        let mut report = SynopsesReport::default();
        let mut wanted: Vec<(SynopsisPlan, Option<StoredSynopsis>)> = vec![];
        for plan in plans.into_iter().flatten() {
            if let Some(known) = in_memory(&plan, &members) {
                report.synopses.push(describe(&members, &plan, &known, true));
                continue;
            }
            let stored = self.stored_synopsis(&plan, &members, &profiles);
            if let Some(stored) = stored.as_ref().filter(|stored| stored.file.exists()) {
                if let Ok(synopsis) = JoinSynopsis::load(&plan, &profiles, &stored.file) {
                    count(&counters.synopses_loaded);
                    report.synopses.push(describe(&members, &plan, &synopsis, true));
                    keep(&members[plan.root].table, synopsis);
                    continue;
                }
                count(&counters.synopses_damaged);
            }
            wanted.push((plan, stored));
        }

        let mut builder = SynopsisBuilder::new(profiles.clone(), wanted.iter().map(|(plan, _)| plan.clone()));
        let built = loop {
            let mut scan = match builder.next_scan() {
                Ok(Some(scan)) => scan,
                Ok(None) => break builder.finish(),
                Err(error) => {
                    report.errors.push(error.to_string());
                    break vec![];
                }
            };
            let parent = &members[scan.table];
            report.scanned += 1;
            let mut outcome = scan.run(session, parent.provider.as_ref()).await;
            if outcome.is_ok() {
                outcome = builder.end_scan(&scan);
            }
            if let Err(error) = outcome {
                report.errors.push(format!("table {}: {error}", parent.name));
                builder.give_up(&scan);
            }
        };
        for synopsis in built {
            let root = |plan: &SynopsisPlan| Arc::ptr_eq(&profiles[plan.root], synopsis.root());
            let Some((plan, stored)) = wanted.iter().find(|(plan, _)| root(plan)) else { continue };
            count(&counters.synopses_built);
            let member = &members[plan.root];
            if let Some(stored) = stored {
                let stale = others(&stored.file, &stored.prefix);
                match save(&synopsis, plan, &profiles, &stored.file) {
                    Ok(()) => stale.iter().for_each(|file| drop(std::fs::remove_file(file))),
                    Err(error) => report.errors.push(format!("table {}: {error}", member.name)),
                }
            }
            report.synopses.push(describe(&members, plan, &synopsis, false));
            keep(&member.table, synopsis);
        }
        report.synopses.sort_by_cached_key(|synopsis| synopsis.table.to_string());
        report.elapsed = start.elapsed();
        report
    }

    /// Where a synopsis is kept; `None` where the profile of one of its tables is not.
    fn stored_synopsis(
        &self,
        plan: &SynopsisPlan,
        members: &[Member],
        profiles: &[Arc<TableProfile>],
    ) -> Option<StoredSynopsis> {
        let mut depends_on = format!("{:016x}", plan.signature(profiles));
        for table in plan.tables() {
            let member = &members[table];
            let stored = self.stored(&member.name, &member.provider)?;
            depends_on.push_str(&format!("|{}", stored.file.file_name()?.to_str()?));
        }
        let root = &members[plan.root];
        let prefix = self.stored(&root.name, &root.provider)?.prefix;
        let hash = xxhash_rust::xxh3::xxh3_64(depends_on.as_bytes());
        let file = self.directory.as_ref()?.join(format!("{prefix}{hash:016x}.{EXTENSION}"));
        Some(StoredSynopsis { file, prefix })
    }
}

/// The place of one table's synopsis on disk.
struct StoredSynopsis {
    file: PathBuf,
    /// What the names of all synopses of this table begin with.
    prefix: String,
}

/// A declared key in terms of the members; `None` where it names a table or column that is not there.
fn in_members(key: &ForeignKey, members: &[Member], session: &SessionState) -> Option<foreign_key::ForeignKey> {
    let catalog = &session.config().options().catalog;
    let resolved = |name: &TableReference| name.clone().resolve(&catalog.default_catalog, &catalog.default_schema);
    let place = |name: &TableReference| members.iter().position(|member| resolved(&member.name) == resolved(name));
    let (table, references) = (place(&key.table)?, place(&key.references)?);
    let columns = |table: usize, names: &[String]| {
        let schema = members[table].table.profile.schema();
        names.iter().map(|name| schema.index_of(name).ok()).collect::<Option<Vec<usize>>>()
    };
    let (columns, referenced) = (columns(table, &key.columns)?, columns(references, &key.referenced)?);
    Some(foreign_key::ForeignKey { table, columns, references, referenced })
}

/// The synopsis that a table has, where it is what the plan would make of today's profiles.
fn in_memory(plan: &SynopsisPlan, members: &[Member]) -> Option<Arc<JoinSynopsis>> {
    let synopsis = members[plan.root].table.synopsis.read().unwrap_or_else(PoisonError::into_inner).clone()?;
    let planned = plan.tables();
    let same =
        |profile: &Arc<TableProfile>| planned.iter().any(|table| Arc::ptr_eq(&members[*table].table.profile, profile));
    (synopsis.rows() == plan.rows && synopsis.parents().iter().all(|parent| same(&parent.table))).then_some(synopsis)
}

fn keep(table: &ProfiledTable, synopsis: JoinSynopsis) {
    *table.synopsis.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(synopsis));
}

fn save(synopsis: &JoinSynopsis, plan: &SynopsisPlan, tables: &[Arc<TableProfile>], file: &Path) -> Result<(), String> {
    if let Some(directory) = file.parent() {
        std::fs::create_dir_all(directory).map_err(|e| format!("{}: {e}", directory.display()))?;
    }
    synopsis.save(plan, tables, file).map_err(|e| e.to_string())
}

fn describe(members: &[Member], plan: &SynopsisPlan, synopsis: &JoinSynopsis, loaded: bool) -> SynopsisReport {
    let name_of = |profile: &Arc<TableProfile>| {
        members.iter().find(|member| Arc::ptr_eq(&member.table.profile, profile)).map(|member| member.name.clone())
    };
    let parents = synopsis.parents().iter();
    SynopsisReport {
        table: members[plan.root].name.clone(),
        rows: synopsis.rows(),
        parents: parents.filter_map(|parent| Some((name_of(&parent.table)?, parent.partner_share()))).collect(),
        bytes: synopsis.bytes(),
        loaded,
    }
}
