//! Finds the partners of the sampled rows: at most one scan per parent table, children before parents.
//!
//! When a parent is scanned, the rows that refer to it are known, so their keys are: each row of the scan is looked up among
//! them. A parent that is complete in its sample is not scanned at all.

use std::sync::Arc;

use datafusion::arrow::array::{RecordBatch, UInt32Array};
use datafusion::arrow::compute::{concat_batches, take_record_batch};
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::DataFusionError;
use datafusion::physical_plan::execute_stream;
use futures::StreamExt;
use hashbrown::HashMap;

use super::plan::SynopsisPlan;
use super::{JoinSynopsis, NO_PARTNER, SynopsisParent};
use crate::Result;
use crate::foreign_key::row_keys;
use crate::profile::TableProfile;
use crate::sample::compacted;

/// Builds the synopses of a database, one parent table after the other.
#[derive(Debug)]
pub struct SynopsisBuilder {
    tables: Vec<Arc<TableProfile>>,
    growing: Vec<Growing>,
}

/// A synopsis whose partners are being looked up.
#[derive(Debug)]
struct Growing {
    plan: SynopsisPlan,
    /// The rows of the root.
    rows: RecordBatch,
    /// One for each key of the plan.
    parents: Vec<Partners>,
}

/// What is known of the partners in one parent.
#[derive(Debug)]
enum Partners {
    Wanted,
    Known(SynopsisParent),
    /// The parent's keys repeat, or its rows could not be had.
    Dropped,
}

/// Rows of a key: how many, and where the first of them is.
#[derive(Debug, Clone, Copy, Default)]
struct Found {
    rows: u32,
    place: u32,
}

impl SynopsisBuilder {
    /// A builder of `plans` over the profiled `tables`.
    pub fn new(tables: Vec<Arc<TableProfile>>, plans: impl IntoIterator<Item = SynopsisPlan>) -> Self {
        let growing = plans.into_iter().map(|plan| {
            let rows = tables[plan.root].sample.slice(0, plan.rows);
            let parents = plan.keys.iter().map(|_| Partners::Wanted).collect();
            Growing { plan, rows, parents }
        });
        let growing = growing.collect();
        Self { tables, growing }
    }

    /// Builds the synopses of tables in memory, with a list of batches for each table.
    ///
    /// # Errors
    /// When the batches are not those of the tables.
    pub fn of_batches(mut self, batches: &[&[RecordBatch]]) -> Result<Vec<JoinSynopsis>> {
        while let Some(mut scan) = self.next_scan()? {
            for batch in batches.get(scan.table).copied().unwrap_or_default() {
                scan.push(batch)?;
            }
            self.end_scan(&scan)?;
        }
        Ok(self.finish())
    }

    /// What to look for in the next parent table; `None` when every partner is known that can be.
    ///
    /// # Errors
    /// When Arrow cannot gather rows.
    pub fn next_scan(&mut self) -> Result<Option<ParentScan>> {
        for growing in &mut self.growing {
            growing.look_into_samples(&self.tables)?;
        }
        // A table is ready when nothing that refers to it waits for another scan; in a cycle the one with most to find is.
        let mut best: Option<((bool, usize), usize)> = None;
        for table in 0..self.tables.len() {
            let (ready, waiting): (Vec<_>, Vec<_>) =
                self.wanted(table).partition(|(growing, place)| growing.is_ready(*place));
            let order = (waiting.is_empty(), ready.len());
            if !ready.is_empty() && best.is_none_or(|(best, _)| order > best) {
                best = Some((order, table));
            }
        }
        let Some((_, table)) = best else { return Ok(None) };
        let mut lookups: Vec<(Vec<usize>, HashMap<u64, Found>)> = vec![];
        for (growing, place) in self.wanted(table) {
            let Some(keys) = growing.keys(place) else { continue };
            let referenced = &growing.plan.keys[place].1.referenced;
            let lookup = lookups.iter().position(|(known, _)| known == referenced).unwrap_or_else(|| {
                lookups.push((referenced.clone(), HashMap::new()));
                lookups.len() - 1
            });
            for key in keys.into_iter().flatten() {
                lookups[lookup].1.entry(key).or_default();
            }
        }
        Ok(Some(ParentScan { table, lookups, kept: vec![], rows: 0 }))
    }

    /// Takes over what a scan has found; what else is wanted of its table is given up.
    ///
    /// # Errors
    /// When Arrow cannot gather rows.
    pub fn end_scan(&mut self, scan: &ParentScan) -> Result<()> {
        let table = &self.tables[scan.table];
        let rows = concat_batches(&table.schema(), &scan.kept).map_err(DataFusionError::from)?;
        for growing in &mut self.growing {
            for place in 0..growing.parents.len() {
                let key = &growing.plan.keys[place].1;
                if key.references == scan.table && growing.is_wanted(place) {
                    let found = scan.lookups.iter().find(|(referenced, _)| *referenced == key.referenced);
                    growing.parents[place] = match found {
                        Some((_, found)) => growing.partners(place, table, found, Some(&rows))?,
                        None => Partners::Dropped,
                    };
                }
            }
        }
        Ok(())
    }

    /// Gives up what is wanted of a table whose rows cannot be had.
    pub fn give_up(&mut self, scan: &ParentScan) {
        for growing in &mut self.growing {
            for place in 0..growing.parents.len() {
                if growing.plan.keys[place].1.references == scan.table && growing.is_wanted(place) {
                    growing.parents[place] = Partners::Dropped;
                }
            }
        }
    }

    /// The synopses that have a parent, in the order of the plans.
    pub fn finish(self) -> Vec<JoinSynopsis> {
        let tables = self.tables;
        self.growing.into_iter().filter_map(|growing| growing.finish(&tables)).collect()
    }

    /// Where partners in `table` are wanted.
    fn wanted(&self, table: usize) -> impl Iterator<Item = (&Growing, usize)> {
        self.growing.iter().flat_map(move |growing| {
            let places = 0..growing.parents.len();
            let of_table = move |place: &usize| growing.plan.keys[*place].1.references == table;
            places.filter(of_table).filter(|place| growing.is_wanted(*place)).map(move |place| (growing, place))
        })
    }
}

impl Growing {
    fn is_wanted(&self, place: usize) -> bool {
        matches!(self.parents[place], Partners::Wanted)
    }

    /// Whether the rows that refer to a parent are known.
    fn is_ready(&self, place: usize) -> bool {
        self.plan.keys[place].0.is_none_or(|from| matches!(self.parents[from], Partners::Known(_)))
    }

    /// The key of each root row in a parent; `None` while the rows that refer to it are not known. `[rows]`
    fn keys(&self, place: usize) -> Option<Vec<Option<u64>>> {
        let (from, key) = &self.plan.keys[place];
        let Some(from) = from else { return Some(row_keys(&self.rows, &key.columns)) };
        let Partners::Known(parent) = &self.parents[*from] else { return None };
        let keys = row_keys(parent.rows(), &key.columns);
        Some(parent.links.iter().map(|link| keys.get(*link as usize).copied().flatten()).collect())
    }

    /// Finds the partners in parents whose samples are complete, and gives up those that cannot be found.
    fn look_into_samples(&mut self, tables: &[Arc<TableProfile>]) -> Result<()> {
        // A parent's own parents come after it.
        for place in 0..self.parents.len() {
            let (from, key) = &self.plan.keys[place];
            let table = &tables[key.references];
            if from.is_some_and(|from| matches!(self.parents[from], Partners::Dropped)) {
                self.parents[place] = Partners::Dropped;
            } else if self.is_wanted(place) && self.is_ready(place) && table.is_complete() {
                let mut found: HashMap<u64, Found> = HashMap::new();
                for (row, hash) in row_keys(&table.sample, &key.referenced).into_iter().enumerate() {
                    let Some(hash) = hash else { continue };
                    found.entry(hash).or_insert(Found { rows: 0, place: row as u32 }).rows += 1;
                }
                self.parents[place] = self.partners(place, table, &found, None)?;
            }
        }
        Ok(())
    }

    /// Links the root rows with those of a parent by what was found of its keys; `rows` are those that the places are of,
    /// `None` for the table's sample.
    fn partners(
        &self,
        place: usize,
        table: &Arc<TableProfile>,
        found: &HashMap<u64, Found>,
        rows: Option<&RecordBatch>,
    ) -> Result<Partners> {
        let Some(keys) = self.keys(place) else { return Ok(Partners::Dropped) };
        let mut links = Vec::with_capacity(keys.len());
        let mut own_place: HashMap<u32, u32> = HashMap::new();
        let mut used: Vec<u32> = vec![];
        for key in keys {
            let found = key.and_then(|key| found.get(&key)).filter(|found| found.rows > 0);
            if found.is_some_and(|found| found.rows > 1) {
                return Ok(Partners::Dropped);
            }
            links.push(match (found, rows) {
                (None, _) => NO_PARTNER,
                (Some(found), None) => found.place,
                (Some(found), Some(_)) => *own_place.entry(found.place).or_insert_with(|| {
                    used.push(found.place);
                    used.len() as u32 - 1
                }),
            });
        }
        let take = |rows| take_record_batch(rows, &UInt32Array::from(used)).map_err(DataFusionError::from);
        let own = rows.map(take).transpose()?.map(|rows| compacted(&rows)).transpose()?;
        let (from, key) = self.plan.keys[place].clone();
        let (columns, referenced, table) = (key.columns, key.referenced, Arc::clone(table));
        Ok(Partners::Known(SynopsisParent { table, from, columns, referenced, own, links }))
    }

    fn finish(self, tables: &[Arc<TableProfile>]) -> Option<JoinSynopsis> {
        let mut new_place: Vec<Option<usize>> = Vec::with_capacity(self.parents.len());
        let mut parents = vec![];
        for partners in self.parents {
            let known = match partners {
                Partners::Known(parent) => Some(parent),
                Partners::Wanted | Partners::Dropped => None,
            };
            // One whose referring rows were given up has been so too.
            let placed = known.and_then(|mut parent| {
                if let Some(from) = parent.from {
                    parent.from = Some(new_place[from]?);
                }
                parents.push(parent);
                Some(parents.len() - 1)
            });
            new_place.push(placed);
        }
        let root = Arc::clone(&tables[self.plan.root]);
        (!parents.is_empty()).then_some(JoinSynopsis { root, rows: self.plan.rows, parents })
    }
}

/// The scan of one parent table for the partners of rows in its children.
#[derive(Debug)]
pub struct ParentScan {
    /// The table, as its place in the list of tables.
    pub table: usize,
    /// The wanted keys by the columns that hold them.
    lookups: Vec<(Vec<usize>, HashMap<u64, Found>)>,
    kept: Vec<RecordBatch>,
    rows: u32,
}

impl ParentScan {
    /// Looks for partners among rows of the table, which come with all of its columns.
    ///
    /// # Errors
    /// When Arrow cannot gather rows.
    pub fn push(&mut self, batch: &RecordBatch) -> Result<()> {
        let mut chosen: Vec<u32> = vec![];
        let mut place_of: HashMap<u32, u32> = HashMap::new();
        for (referenced, wanted) in &mut self.lookups {
            for (row, key) in row_keys(batch, referenced).into_iter().enumerate() {
                let Some(found) = key.and_then(|key| wanted.get_mut(&key)) else { continue };
                found.rows = found.rows.saturating_add(1);
                if found.rows == 1 {
                    found.place = *place_of.entry(row as u32).or_insert_with(|| {
                        chosen.push(row as u32);
                        self.rows += 1;
                        self.rows - 1
                    });
                }
            }
        }
        if !chosen.is_empty() {
            let rows = take_record_batch(batch, &UInt32Array::from(chosen)).map_err(DataFusionError::from)?;
            self.kept.push(compacted(&rows)?);
        }
        Ok(())
    }

    /// Scans the table through DataFusion.
    ///
    /// # Errors
    /// When the scan fails.
    pub async fn run(&mut self, session: &dyn Session, table: &dyn TableProvider) -> Result<()> {
        let plan = table.scan(session, None, &[], None).await?;
        let mut stream = execute_stream(plan, session.task_ctx())?;
        while let Some(batch) = stream.next().await {
            self.push(&batch?)?;
        }
        Ok(())
    }
}
