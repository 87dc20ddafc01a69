//! Foreign keys between profiled tables, declared or inferred from the profiles alone.
//!
//! They are hints about where a table's rows find their partners, never facts: [`crate::synopsis`] looks the partners up and
//! records what it finds, so a wrong key costs space and nothing else.

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use hashbrown::HashSet;

use crate::profile::TableProfile;
use crate::sample::mix;
use crate::sketch::{ColumnSketch, Domain, Reading, key_hash};

/// Columns of one table whose values are found in columns of another, by the places of the tables in a list.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ForeignKey {
    /// The table that refers.
    pub table: usize,
    /// Its columns.
    pub columns: Vec<usize>,
    /// The table that is referred to.
    pub references: usize,
    /// Its columns, one for each of `columns`.
    pub referenced: Vec<usize>,
}

/// Parents that are inferred for one column: the best one, and one more that is about as good.
const MOST_PARENTS_OF_COLUMN: usize = 2;

/// Sampled values of a column that have to be looked up in a parent's sample of keys before they speak for a reference.
const FEWEST_LOOKED_UP: usize = 3;

/// Share of them that has to be found.
const CONTAINED: f64 = 0.95;

/// Share of a parent's keys that a reference by numbers uses at least: any small numbers are among those of a large table.
const LEAST_COVERAGE: f64 = 0.05;

/// A second parent's coverage is at least this part of the first one's.
const NEXT_BEST: f64 = 0.5;

impl ForeignKey {
    /// Whether partners can be looked up: the columns exist, are compared by the same values on both sides, and the
    /// referenced ones identify a row as far as the profiles know.
    pub fn is_usable(&self, tables: &[Arc<TableProfile>]) -> bool {
        let (Some(table), Some(parent)) = (tables.get(self.table), tables.get(self.references)) else { return false };
        let pairs = self.columns.iter().zip(&self.referenced);
        let same_values = pairs.clone().all(|(&own, &theirs)| are_comparable(table, own, parent, theirs));
        let identifies = || match self.referenced[..] {
            [column] => parent.columns[column].is_unique(),
            // Uniqueness of several columns shows when the partners are looked up.
            _ => !self.referenced.is_empty(),
        };
        self.columns.len() == self.referenced.len() && same_values && identifies()
    }

    /// Whether the key refers from a row to itself.
    fn is_identity(&self) -> bool {
        self.table == self.references && self.columns == self.referenced
    }

    /// Share of the parent's keys that the child's rows can use at most, in [0, 1].
    pub(crate) fn coverage(&self, tables: &[Arc<TableProfile>]) -> f64 {
        let distinct = |table: usize, columns: &[usize]| {
            columns.iter().map(|&column| tables[table].columns[column].distinct()).product::<f64>()
        };
        let parent = distinct(self.references, &self.referenced).min(tables[self.references].rows).max(1.0);
        (distinct(self.table, &self.columns) / parent).min(1.0)
    }
}

/// Whether equal values of two columns have equal hashes.
fn are_comparable(table: &TableProfile, column: usize, other: &TableProfile, theirs: usize) -> bool {
    let (Some(a), Some(b)) = (table.columns.get(column), other.columns.get(theirs)) else { return false };
    match (a.domain, b.domain) {
        (Domain::Integer, Domain::Integer) | (Domain::Text, Domain::Text) => true,
        // Units of time differ between types.
        (Domain::Time, Domain::Time) => {
            table.schema().field(column).data_type() == other.schema().field(theirs).data_type()
        }
        _ => false,
    }
}

/// The usable ones of the declared keys; without any, those that the profiles suggest, the best covered parents first.
pub fn foreign_keys(tables: &[Arc<TableProfile>], declared: &[ForeignKey]) -> Vec<ForeignKey> {
    let mut keys: Vec<ForeignKey> = vec![];
    for key in declared {
        if key.is_usable(tables) && !key.is_identity() && !keys.contains(key) {
            keys.push(key.clone());
        }
    }
    if keys.is_empty() { inferred(tables) } else { keys }
}

/// Keys of one column that the profiles suggest: the parent's column is unique and holds the child's sampled values.
fn inferred(tables: &[Arc<TableProfile>]) -> Vec<ForeignKey> {
    // Of several unique columns of a table the first is the one to refer to.
    let primary = |profile: &TableProfile| {
        profile.columns.iter().position(|sketch| sketch.is_unique() && sketch.distinct() >= 2.0)
    };
    let with_key = tables.iter().enumerate().filter_map(|(table, profile)| Some((table, primary(profile)?)));
    let parents: Vec<(usize, usize)> = with_key.collect();
    let mut keys = vec![];
    for (table, profile) in tables.iter().enumerate() {
        for (column, sketch) in profile.columns.iter().enumerate() {
            if sketch.degrees.distinct < 1.0 || sketch.domain == Domain::Time {
                continue;
            }
            let mut hashes: Option<HashSet<u64>> = None;
            let mut found: Vec<(f64, ForeignKey)> = vec![];
            for &(references, referenced) in &parents {
                let parent = &tables[references];
                let key = ForeignKey { table, columns: vec![column], references, referenced: vec![referenced] };
                if key.is_identity()
                    || !are_comparable(profile, column, parent, referenced)
                    || !may_refer((table, sketch), (references, &parent.columns[referenced]))
                {
                    continue;
                }
                let hashes =
                    hashes.get_or_insert_with(|| row_keys(&profile.sample, &[column]).into_iter().flatten().collect());
                // Numbers that begin far from 0 are among a table's own for a reason, however few of them are used.
                let within = lies_within(sketch, &parent.columns[referenced]);
                let coverage = if within { 1.0 } else { key.coverage(tables) };
                let chance = sketch.domain == Domain::Integer && coverage < LEAST_COVERAGE;
                if !chance && is_contained(hashes, parent, referenced, within) {
                    found.push((coverage, key));
                }
            }
            // Ties go to the smaller table: it has fewer values that have nothing to do with the column.
            found.sort_by(|a, b| {
                b.0.total_cmp(&a.0).then(tables[a.1.references].rows.total_cmp(&tables[b.1.references].rows))
            });
            let best = found.first().map_or(0.0, |(coverage, _)| *coverage);
            found.retain(|(coverage, _)| *coverage >= best * NEXT_BEST);
            found.truncate(MOST_PARENTS_OF_COLUMN);
            keys.extend(found);
        }
    }
    keys.sort_by(|a, b| b.0.total_cmp(&a.0));
    keys.into_iter().map(|(_, key)| key).collect()
}

/// Whether counts and ranges allow a reference. Of two unique columns with the same values one refers to the other.
fn may_refer(own: (usize, &ColumnSketch), parent: (usize, &ColumnSketch)) -> bool {
    let ((table, child), (references, parent)) = (own, parent);
    let both_unique = child.is_unique() && child.distinct() >= parent.distinct();
    child.distinct() <= parent.distinct() && (!both_unique || table > references)
}

/// Whether a column's numbers are all within the range of another one's, and that begins farther from 0 than if its numbers
/// were counted from there.
fn lies_within(own: &ColumnSketch, parent: &ColumnSketch) -> bool {
    let (Domain::Integer, Some((least, most)), Some(own)) = (parent.domain, parent.number_range(), own.number_range())
    else {
        return false;
    };
    least > 2.0 * parent.distinct() && own.0 >= least && own.1 <= most
}

/// Whether a parent's sampled keys hold (nearly) all of these values that they would hold; `speaks` where no lookup is needed
/// to think so.
fn is_contained(hashes: &HashSet<u64>, parent: &TableProfile, referenced: usize, speaks: bool) -> bool {
    let Some(sample) = parent.key_sample(referenced) else { return false };
    let looked_up = hashes.iter().filter(|hash| **hash <= sample.threshold);
    let (mut all, mut found) = (0usize, 0usize);
    looked_up.for_each(|hash| {
        all += 1;
        found += usize::from(sample.hashes.binary_search(hash).is_ok());
    });
    let everything = sample.threshold == u64::MAX;
    (speaks || all >= FEWEST_LOOKED_UP || (everything && all > 0)) && found as f64 >= CONTAINED * all as f64
}

/// The hash of each row's key: equal for equal keys in whatever table; `None` where a column is NULL or of no hashable
/// type. `[rows]`
pub(crate) fn row_keys(rows: &RecordBatch, columns: &[usize]) -> Vec<Option<u64>> {
    let mut keys: Vec<Option<u64>> = vec![];
    for (place, &column) in columns.iter().enumerate() {
        let array = rows.column(column);
        let mut own: Vec<Option<u64>> = vec![None; rows.num_rows()];
        if Domain::of(array.data_type()) != Domain::Float {
            let reading = Reading::new(array);
            for (index, key) in reading.keys.iter().enumerate() {
                own[reading.row(index) as usize] = Some(key_hash(*key));
            }
        }
        let both = |(so_far, own): (u64, u64)| mix(so_far.rotate_left(23) ^ own);
        keys = if place == 0 { own } else { keys.into_iter().zip(own).map(|(a, b)| a.zip(b).map(both)).collect() };
    }
    keys
}
