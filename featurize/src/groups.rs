//! How many groups GROUP BY or DISTINCT makes.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, BooleanArray};
use datafusion::arrow::compute::filter;
use datafusion::arrow::row::{RowConverter, SortField};
use hashbrown::HashMap;

use crate::analytical::JoinEstimator;
use crate::foreign_key::row_keys;
use crate::profile::TableProfile;

/// A column of a base table that rows are grouped by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupColumn {
    /// The relation of the join graph.
    pub relation: usize,
    /// The column of its table.
    pub column: usize,
}

/// Number of groups.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GroupEstimate {
    /// Groups among the input's rows.
    pub rows: f64,
    /// Product of the columns' distinct counts.
    pub product: f64,
    /// Distinct combinations in the relations before the joins, from their samples.
    pub combinations: f64,
    /// Upper bound.
    pub bound: f64,
}

/// Groups among `rows` joined rows by `columns`.
///
/// Columns of one relation are counted together on the filtered sample and scaled up by the Duj1 estimator (Haas, Naughton,
/// Seshadri, Stokes, VLDB 1995); relations are taken as independent; of D equally likely groups, n rows hit D (1 - e^(-n/D)).
pub fn estimate_groups(estimator: &JoinEstimator<'_>, rows: f64, columns: &[GroupColumn]) -> GroupEstimate {
    let mut columns = columns.to_vec();
    columns.sort_unstable();
    columns.dedup();
    let (mut product, mut combinations, mut bound) = (1.0, 1.0, 1.0);
    for of_relation in columns.chunk_by(|a, b| a.relation == b.relation) {
        let relation = &estimator.relations[of_relation[0].relation];
        let Some(profile) = &relation.profile else {
            product *= relation.rows.max(1.0);
            combinations *= relation.rows.max(1.0);
            bound *= relation.bound;
            continue;
        };
        let mut distinct = 1.0;
        let mut exact = true;
        for group in of_relation {
            let sketch = &profile.columns[group.column];
            distinct *= (sketch.degrees.distinct + if sketch.nulls > 0.0 { 1.0 } else { 0.0 }).max(1.0);
            exact &= sketch.degrees.exact && sketch.non_finite <= 0.0;
        }
        product *= distinct;
        bound *= if exact { distinct.min(relation.bound) } else { relation.bound };
        let mask = relation.filter.as_ref().and_then(|f| f.mask.as_ref());
        let unfiltered_single = mask.is_none() && of_relation.len() == 1;
        let sampled = if unfiltered_single { None } else { sampled(profile, mask, of_relation, relation.rows) };
        combinations *= sampled.unwrap_or(distinct).min(distinct).min(relation.rows.max(1.0));
    }
    let bound = bound.max(0.0);
    let hit = combinations * (1.0 - (-rows / combinations.max(1.0)).exp());
    let rows = if columns.is_empty() { 1.0 } else { hit.min(rows).min(bound).max(rows.min(1.0)) };
    GroupEstimate { rows, product, combinations, bound: if columns.is_empty() { 1.0 } else { bound } }
}

/// Distinct combinations among the `rows` filtered rows of a table by its sample; `None` when too few rows match.
fn sampled(
    profile: &Arc<TableProfile>,
    mask: Option<&BooleanArray>,
    columns: &[GroupColumn],
    rows: f64,
) -> Option<f64> {
    let arrays: Vec<ArrayRef> = columns
        .iter()
        .map(|group| {
            let array = profile.sample.column(group.column);
            mask.map_or_else(|| Some(ArrayRef::clone(array)), |mask| filter(array, mask).ok())
        })
        .collect::<Option<_>>()?;
    let matches = arrays.first()?.len();
    if matches < 16 && !profile.is_complete() {
        return None;
    }
    let fields = arrays.iter().map(|array| SortField::new(array.data_type().clone())).collect();
    let keys = RowConverter::new(fields).ok()?.convert_columns(&arrays).ok()?;
    let mut counts: HashMap<_, u32> = HashMap::with_capacity(matches);
    for key in &keys {
        *counts.entry(key).or_default() += 1;
    }
    Some(if profile.is_complete() { counts.len() as f64 } else { scaled_up(counts.values(), rows) })
}

/// Combinations of the values of some columns among the rows of a table where none of them is NULL.
pub(crate) fn key_combinations(profile: &TableProfile, columns: &[usize]) -> f64 {
    let keys = row_keys(&profile.sample, columns);
    let mut counts: HashMap<u64, u32> = HashMap::with_capacity(keys.len());
    for key in keys.iter().flatten() {
        *counts.entry(*key).or_default() += 1;
    }
    scaled_up(counts.values(), profile.rows)
}

/// Distinct values among `rows` by how often each was sampled: the Duj1 estimator.
fn scaled_up<'a>(counts: impl ExactSizeIterator<Item = &'a u32> + Clone, rows: f64) -> f64 {
    let distinct = counts.len() as f64;
    let n = f64::from(counts.clone().sum::<u32>());
    let once = counts.filter(|count| **count == 1).count() as f64;
    if rows <= n || n <= 0.0 {
        return distinct;
    }
    (n * distinct / (n - once + once * n / rows)).clamp(distinct, rows)
}
