//! What the synopses of a database hold: which parents, how far up, of how many rows.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::foreign_key::{ForeignKey, row_keys};
use crate::profile::TableProfile;
use crate::sample::mix;

/// How synopses are built.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SynopsisConfig {
    /// Foreign keys that are followed one after the other (default 3); 0 builds no synopses.
    pub depth: usize,
    /// Parents of one synopsis (default 12).
    pub parents: usize,
    /// Bytes that the parents' rows of one synopsis may take in memory (default 256 KiB), unless `share` allows more. Parents
    /// whose samples are complete take none.
    pub bytes: usize,
    /// Share of the bytes of the table that they may take (default 0.01).
    pub share: f64,
}

impl Default for SynopsisConfig {
    fn default() -> Self {
        Self { depth: 3, parents: 12, bytes: 256 << 10, share: 0.01 }
    }
}

/// A synopsis has at least so many rows, or fewer parents.
const FEWEST_ROWS: usize = 512;

/// The synopsis of one table, before its partners are looked up.
#[derive(Debug, Clone, PartialEq)]
pub struct SynopsisPlan {
    /// The table, as its place in the list of tables.
    pub root: usize,
    /// Sampled rows.
    pub rows: usize,
    /// The foreign keys that are followed, each after the one whose parent refers, with the place of that one; `None` where
    /// the root refers.
    pub keys: Vec<(Option<usize>, ForeignKey)>,
}

impl SynopsisPlan {
    /// The synopses of `tables` along `keys`, the keys that matter most first; `None` of a table that refers to nothing.
    pub fn of_tables(tables: &[Arc<TableProfile>], keys: &[ForeignKey], config: &SynopsisConfig) -> Vec<Option<Self>> {
        (0..tables.len()).map(|root| Self::of_table(root, tables, keys, config)).collect()
    }

    fn of_table(
        root: usize,
        tables: &[Arc<TableProfile>],
        keys: &[ForeignKey],
        config: &SynopsisConfig,
    ) -> Option<Self> {
        let mut plan = Self { root, rows: tables[root].sample.num_rows(), keys: vec![] };
        let mut level: Vec<Option<usize>> = vec![None];
        for _ in 0..config.depth {
            let mut next = vec![];
            for from in level {
                let table = plan.table(from);
                for key in keys.iter().filter(|key| key.table == table) {
                    if plan.keys.len() < config.parents && !plan.is_above(from, key.references) {
                        plan.keys.push((from, key.clone()));
                        next.push(Some(plan.keys.len() - 1));
                    }
                }
            }
            level = next;
        }
        let table = &tables[root];
        plan.shorten(tables, config.bytes.max((table.rows * table.row_bytes * config.share) as usize));
        (plan.rows > 0 && !plan.keys.is_empty()).then_some(plan)
    }

    /// The table that the key at this place refers to.
    fn table(&self, place: Option<usize>) -> usize {
        place.map_or(self.root, |place| self.keys[place].1.references)
    }

    /// Whether the way from the root to `place` leads through a table, the root itself aside: a row may refer to its like.
    fn is_above(&self, mut place: Option<usize>, table: usize) -> bool {
        while let Some(at) = place {
            if self.keys[at].1.references == table {
                return true;
            }
            place = self.keys[at].0;
        }
        false
    }

    /// Takes fewer rows, or leaves parents out from the last, until the parents' rows fit.
    fn shorten(&mut self, tables: &[Arc<TableProfile>], bytes: usize) {
        let all = self.rows;
        let fewest = all.min(FEWEST_ROWS);
        while self.bytes(tables) > bytes as f64 {
            if self.rows > fewest {
                self.rows = (self.rows * 9 / 10).max(fewest);
                continue;
            }
            let in_sample = |key: &ForeignKey| tables[key.references].is_complete();
            let Some(last) = self.keys.iter().rposition(|(_, key)| !in_sample(key)) else { return };
            self.remove(last);
            self.rows = all;
        }
    }

    /// Bytes that the parents' rows will take, those of complete samples aside: of `d` keys, `n` rows hit `d (1 - e^(-n/d))`.
    fn bytes(&self, tables: &[Arc<TableProfile>]) -> f64 {
        let own = self.keys.iter().filter(|(_, key)| !tables[key.references].is_complete());
        let rows = self.rows as f64;
        let of_key = own.map(|(_, key)| {
            let distinct = tables[key.references].rows * key.coverage(tables).max(f64::EPSILON);
            distinct * (1.0 - (-rows / distinct.max(1.0)).exp()) * tables[key.references].row_bytes
        });
        of_key.sum()
    }

    /// Leaves out a key and what is reached through it.
    fn remove(&mut self, place: usize) {
        let mut new_place: Vec<Option<usize>> = Vec::with_capacity(self.keys.len());
        let mut kept = vec![];
        for (old, (from, key)) in self.keys.drain(..).enumerate() {
            let from = from.map(|from| new_place[from]);
            match from {
                _ if old == place => new_place.push(None),
                Some(None) => new_place.push(None),
                from => {
                    new_place.push(Some(kept.len()));
                    kept.push((from.flatten(), key));
                }
            }
        }
        self.keys = kept;
    }

    /// The tables of the synopsis, the root first, each once.
    pub fn tables(&self) -> SmallVec<[usize; 8]> {
        let mut tables = SmallVec::new();
        for table in std::iter::once(self.root).chain(self.keys.iter().map(|(_, key)| key.references)) {
            if !tables.contains(&table) {
                tables.push(table);
            }
        }
        tables
    }

    /// A number that changes with the plan and with what the profiles say of its tables: a stored synopsis of another number
    /// is not the one that would be built. It does not depend on the other tables of the database.
    pub fn signature(&self, tables: &[Arc<TableProfile>]) -> u64 {
        let members = self.tables();
        let place = |table: usize| members.iter().position(|member| *member == table).unwrap_or(0);
        let mut sum = mix(self.rows as u64);
        let mut add = |value: u64| sum = mix(sum.rotate_left(17) ^ value);
        for &table in &members {
            add(summary_hash(&tables[table]));
        }
        for (from, key) in &self.keys {
            add(from.map_or(0, |from| from as u64 + 1));
            add(place(key.references) as u64);
            key.columns.iter().chain(&key.referenced).for_each(|column| add(*column as u64));
            for hash in row_keys(&tables[key.table].sample, &key.columns) {
                add(hash.unwrap_or_default());
            }
        }
        sum
    }
}

/// Hash of what the sketches of a table say.
fn summary_hash(table: &TableProfile) -> u64 {
    // Writing into memory fails for no sketch.
    let summary = postcard::to_stdvec(&(table.rows, table.row_bytes, &table.columns)).unwrap_or_default();
    xxhash_rust::xxh3::xxh3_64(&summary)
}
