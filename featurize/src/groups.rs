//! How many groups GROUP BY or DISTINCT makes.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, BooleanArray};
use datafusion::arrow::compute::filter;
use datafusion::arrow::row::{RowConverter, SortField};
use datafusion_expr::{BinaryExpr, Expr, Operator};
use hashbrown::HashMap;

use crate::analytical::{JoinEstimator, RelationEstimate};
use crate::foreign_key::row_keys;
use crate::join_graph::{KeyMember, column_of};
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

/// Groups among `rows` joined rows of every relation by `columns`.
///
/// Columns of one relation are counted together on the filtered sample and scaled up by the Duj1 estimator (Haas, Naughton,
/// Seshadri, Stokes, VLDB 1995); relations are taken as independent; of D equally likely groups, n rows hit D (1 - e^(-n/D)).
/// A column that a filter makes constant makes no groups, columns that a join makes equal make those of the one with the fewest
/// values, and where a unique key of a relation is among them, so are all its columns.
pub fn estimate_groups(estimator: &JoinEstimator<'_>, rows: f64, columns: &[GroupColumn]) -> GroupEstimate {
    let mut columns = columns.to_vec();
    columns.sort_unstable();
    columns.dedup();
    let keys = GroupKeys::new(estimator, &columns);
    let mut counted = vec![false; estimator.graph.classes.len()];
    let (mut product, mut combinations, mut bound) = (1.0, 1.0, 1.0);
    for of_relation in columns.chunk_by(|a, b| a.relation == b.relation) {
        let relation = &estimator.relations[of_relation[0].relation];
        let Some(profile) = &relation.profile else {
            product *= relation.rows.max(1.0);
            combinations *= relation.rows.max(1.0);
            bound *= relation.bound;
            continue;
        };
        let (distinct, exact) = distinct(profile, of_relation);
        product *= distinct;
        bound *= if exact { distinct.min(relation.bound) } else { relation.bound };

        let varying: Vec<GroupColumn> = of_relation.iter().copied().filter(|c| !keys.is_constant(*c)).collect();
        let together = values(relation, profile, &varying);
        let others: Vec<GroupColumn> = varying.iter().copied().filter(|c| keys.class(*c).is_none()).collect();
        let mut apart = if keys.determine(of_relation[0].relation) { 1.0 } else { values(relation, profile, &others) };
        let mut is_repeated = false;
        for class in varying.iter().filter_map(|column| keys.class(*column)) {
            if !std::mem::replace(&mut counted[class], true) {
                apart *= keys.values[class];
            } else {
                is_repeated = true;
            }
        }
        combinations *= if is_repeated { apart } else { apart.min(together) };
    }
    let bound = bound.max(0.0);
    let hit = combinations * (1.0 - (-rows / combinations.max(1.0)).exp());
    let rows = if columns.is_empty() { 1.0 } else { hit.min(rows).min(bound).max(rows.min(1.0)) };
    GroupEstimate { rows, product, combinations, bound: if columns.is_empty() { 1.0 } else { bound } }
}

/// Product of the distinct counts of some columns of a table, and whether it is exact.
fn distinct(profile: &TableProfile, columns: &[GroupColumn]) -> (f64, bool) {
    columns.iter().fold((1.0, true), |(product, exact), group| {
        let sketch = &profile.columns[group.column];
        let own = (sketch.degrees.distinct + if sketch.nulls > 0.0 { 1.0 } else { 0.0 }).max(1.0);
        (product * own, exact && sketch.degrees.exact && sketch.non_finite <= 0.0)
    })
}

/// Combinations of columns of one relation under its filters.
fn values(relation: &RelationEstimate, profile: &Arc<TableProfile>, columns: &[GroupColumn]) -> f64 {
    if columns.is_empty() {
        return 1.0;
    }
    let (distinct, _) = distinct(profile, columns);
    let mask = relation.filter.as_ref().and_then(|f| f.mask.as_ref());
    let unfiltered_single = mask.is_none() && columns.len() == 1;
    let sampled = if unfiltered_single { None } else { sampled(profile, mask, columns, relation.rows) };
    sampled.unwrap_or(distinct).min(distinct).min(relation.rows.max(1.0))
}

/// The join keys among the columns of a GROUP BY.
struct GroupKeys<'e, 'g> {
    estimator: &'e JoinEstimator<'g>,
    /// Values of each class of equal columns: those of its member with the fewest.
    values: Vec<f64>,
    grouped: Vec<bool>,
}

impl<'e, 'g> GroupKeys<'e, 'g> {
    fn new(estimator: &'e JoinEstimator<'g>, columns: &[GroupColumn]) -> Self {
        let classes = &estimator.graph.classes;
        let mut made = Self { estimator, values: vec![1.0; classes.len()], grouped: vec![false; classes.len()] };
        for class in columns.iter().filter_map(|column| made.class(*column)).collect::<Vec<_>>() {
            made.grouped[class] = true;
            let members = classes[class].members.iter().filter_map(|member| {
                let relation = &estimator.relations[member.relation];
                let column = GroupColumn { relation: member.relation, column: member.column? };
                Some(values(relation, relation.profile.as_ref()?, &[column]))
            });
            made.values[class] = members.fold(f64::INFINITY, f64::min);
        }
        made
    }

    /// The class of equal columns that a column belongs to; none for a constant.
    fn class(&self, column: GroupColumn) -> Option<usize> {
        let is_member = |member: &KeyMember| member.relation == column.relation && member.column == Some(column.column);
        let class = self.estimator.graph.classes.iter().position(|class| class.members.iter().any(is_member));
        class.filter(|_| !self.is_constant(column))
    }

    /// Whether a filter leaves a column one value.
    fn is_constant(&self, column: GroupColumn) -> bool {
        let relation = &self.estimator.graph.relations[column.relation];
        relation.table_filters.iter().any(|filter| match filter {
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => {
                [(left, right), (right, left)].into_iter().any(|(name, value)| {
                    let named = column_of(name).and_then(|name| relation.table_column(name));
                    matches!(**value, Expr::Literal(..))
                        && matches!(**name, Expr::Column(_))
                        && named == Some(column.column)
                })
            }
            _ => false,
        })
    }

    /// Whether the grouped keys leave a relation one row each.
    fn determine(&self, relation: usize) -> bool {
        let classes = self.estimator.graph.classes.iter().zip(&self.grouped);
        classes.filter(|(_, grouped)| **grouped).flat_map(|(class, _)| &class.members).any(|member| {
            let profile = self.estimator.relations[relation].profile.as_ref();
            let sketch = profile.zip(member.column).and_then(|(profile, column)| profile.columns.get(column));
            member.relation == relation && sketch.is_some_and(|sketch| sketch.degrees.max <= 1.0)
        })
    }
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
