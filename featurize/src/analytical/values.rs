//! Sampled values of an expression over joined relations, and how much each counts under which condition.
//!
//! The values are those of the rows that see most of the join: the root rows of a tree of foreign keys with their partners, or
//! the sample of the one table that is read. A relation of the join that no row sees counts by the rows that each row's
//! key finds in it, where a sample by key says.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, UInt32Array};
use datafusion::arrow::compute::{cast, take};
use datafusion::arrow::datatypes::{DataType, Field, Float64Type, Schema};
use datafusion::arrow::record_batch::RecordBatchOptions;
use datafusion::arrow::row::{RowConverter, SortField};
use datafusion::common::cast::as_float64_array;
use datafusion::common::{Column, DFSchema, ExprSchema};
use datafusion_expr::{Expr, ExprSchemable};
use hashbrown::HashMap;
use smallvec::SmallVec;

use super::JoinEstimator;
use super::trees::Tree;
use crate::join_graph::{JoinGraph, RelationSet, keeps_values_in_order};
use crate::key_sample::KeySample;
use crate::selectivity::physical;
use crate::sketch::{Domain, Reading, key_hash};
use crate::synopsis::NO_PARTNER;

/// Sampled rows beyond which those without a known partner are left out.
const ENOUGH_ROWS: f64 = 24.0;

/// An expression over columns of joined relations, each of a base table.
#[derive(Debug, Clone)]
pub struct ValueExpr {
    /// The expression.
    pub expr: Expr,
    /// The columns it reads: relation, column of its table, and what the expression calls it.
    columns: SmallVec<[(usize, usize, Column); 2]>,
    /// Whether it is one of them, under casts that change no number.
    is_column: bool,
}

impl ValueExpr {
    /// An expression over the relations of `graph`; `None` if it reads anything but columns of base tables.
    pub fn new(graph: &JoinGraph, expr: Expr) -> Option<Self> {
        let mut names: Vec<_> = expr.column_refs().into_iter().cloned().collect();
        names.sort();
        let columns = names.into_iter().map(|name| {
            let relation = graph.relations.iter().position(|r| r.plan.schema().has_column(&name))?;
            Some((relation, graph.relations[relation].table_column(&name)?, name))
        });
        let columns: SmallVec<[(usize, usize, Column); 2]> = columns.collect::<Option<_>>()?;
        let is_column = columns.first().is_some_and(|(relation, _, name)| {
            let schema = graph.relations[*relation].plan.schema();
            // Times of another unit are other numbers.
            let same = |own: &DataType| expr.get_type(schema.as_ref()).is_ok_and(|t| t == *own || !t.is_temporal());
            ExprSchema::data_type(schema.as_ref(), name).is_ok_and(|own| same(own) && keeps_values_in_order(&expr, own))
        });
        Some(Self { columns, expr, is_column })
    }

    /// The relations it reads.
    pub fn relations(&self) -> RelationSet {
        let relations = self.columns.iter().map(|(relation, ..)| RelationSet::single(*relation));
        relations.fold(RelationSet::default(), RelationSet::union)
    }

    /// The columns it reads, as relation and column of its table.
    pub fn columns(&self) -> impl Iterator<Item = (usize, usize)> {
        self.columns.iter().map(|(relation, column, _)| (*relation, *column))
    }

    /// The one column whose numbers it has, as relation and column of its table.
    pub fn column(&self) -> Option<(usize, usize)> {
        self.columns().next().filter(|_| self.is_column)
    }
}

/// What a condition makes of each sampled row.
#[derive(Debug, Clone)]
pub struct Factor {
    /// Whether it is a filter on just the columns of the value.
    pub of_value: bool,
    /// What each row counts under it. `[rows]`
    pub weights: Vec<f64>,
}

/// Values of sampled rows of a join.
#[derive(Debug, Clone)]
pub struct SampledValues {
    /// The value of each row; NaN for NULL. `[rows]`
    pub values: Vec<f64>,
    /// The conditions of the join.
    pub factors: Vec<Factor>,
    /// The relations whose filters and keys are among the factors.
    pub relations: RelationSet,
    /// Whether the rows are all there are and the factors all conditions.
    pub exact: bool,
}

impl SampledValues {
    /// What each row counts under some of the factors. `[rows]`
    pub fn weights<'f>(&self, factors: impl Iterator<Item = &'f Factor>) -> Vec<f64> {
        let mut weights = vec![1.0; self.values.len()];
        for factor in factors {
            weights.iter_mut().zip(&factor.weights).for_each(|(weight, factor)| *weight *= factor);
        }
        weights
    }
}

/// Effective number of weighted rows: the square of the sum over the sum of the squares (Kish, "Survey Sampling", 1965).
pub fn effective(weights: impl Iterator<Item = f64>) -> f64 {
    let (sum, squares) = weights.fold((0.0, 0.0), |(sum, squares), w| (sum + w, squares + w * w));
    if squares > 0.0 { sum * sum / squares } else { 0.0 }
}

/// Sampled rows, each of which stands for one row of every relation that is seen.
struct Source<'e> {
    rows: usize,
    seen: SmallVec<[Seen<'e>; 4]>,
    complete: bool,
}

/// A relation that sampled rows see.
struct Seen<'e> {
    relation: usize,
    rows: &'e RecordBatch,
    /// Place of each sampled row's own one; `None` where it is the same.
    links: Option<&'e [u32]>,
}

impl Seen<'_> {
    /// What is known of this relation's rows, by sampled row. `[rows]`
    fn spread<T: Copy>(&self, of_rows: &[T], missing: T, rows: usize) -> Vec<T> {
        let at = |place: usize| of_rows.get(place).copied().unwrap_or(missing);
        match self.links {
            None => (0..rows).map(at).collect(),
            Some(links) => {
                links.iter().map(|link| if *link == NO_PARTNER { missing } else { at(*link as usize) }).collect()
            }
        }
    }
}

impl JoinEstimator<'_> {
    /// Values of `value` in the join of `set` by the rows that see most of it, and by the rows of its own table where that is
    /// another sample; `None` where no sample has them or they are no numbers.
    pub fn sampled_values(
        &self,
        set: RelationSet,
        value: &ValueExpr,
    ) -> Option<(SampledValues, Option<SampledValues>)> {
        let of_trees = self.trees.iter().filter_map(|tree| self.tree_source(tree, set));
        let usable = of_trees.filter(|source| value.relations().is_subset(source.relations()));
        let joined = usable.filter_map(|source| self.sampled(&source, set, value));
        let table = self.table_source(set, value).and_then(|source| self.sampled(&source, set, value));
        // The more relations are seen the better; of the same, the more rows that pass.
        let strength = |one: &SampledValues| {
            (one.exact, one.relations.len(), effective(one.weights(one.factors.iter()).into_iter()))
        };
        let weaker = |a: &SampledValues, b: &SampledValues| {
            let (a, b) = (strength(a), strength(b));
            a.0.cmp(&b.0).then(a.1.cmp(&b.1)).then(a.2.total_cmp(&b.2))
        };
        match (joined.max_by(weaker), table) {
            (Some(joined), Some(table)) if weaker(&joined, &table).is_gt() => Some((joined, Some(table))),
            (joined, table) => Some((table.or(joined)?, None)),
        }
    }

    /// The combinations of the values of `exprs` in the join of `set` that samples find, those with most rows first: an array
    /// per expression, of at most `limit` values. `None` where no sample has all their columns.
    pub fn sampled_groups(&self, set: RelationSet, exprs: &[ValueExpr], limit: usize) -> Option<Vec<ArrayRef>> {
        let read = exprs.iter().fold(RelationSet::default(), |all, expr| all.union(expr.relations()));
        let of_trees = self.trees.iter().filter_map(|tree| self.tree_source(tree, set));
        let of_tables = exprs.iter().filter_map(|expr| self.table_source(set, expr));
        let usable = of_trees.chain(of_tables).filter(|source| read.is_subset(source.relations()));
        let weighted = usable.filter_map(|source| {
            let weights = self.factors(&source, set, &[])?.0;
            let weights = weights.iter().fold(vec![1.0; source.rows], |mut all: Vec<f64>, factor| {
                all.iter_mut().zip(&factor.weights).for_each(|(weight, factor)| *weight *= factor);
                all
            });
            Some((effective(weights.iter().copied()), weights, source))
        });
        let (_, weights, source) = weighted.max_by(|a, b| a.0.total_cmp(&b.0))?;
        let arrays: Vec<ArrayRef> = exprs.iter().map(|expr| source.evaluate(expr)).collect::<Option<_>>()?;
        let fields = arrays.iter().map(|array| SortField::new(array.data_type().clone())).collect();
        let keys = RowConverter::new(fields).ok()?.convert_columns(&arrays).ok()?;
        let mut groups: HashMap<_, (f64, u32)> = HashMap::new();
        for (row, (key, weight)) in keys.iter().zip(&weights).enumerate().filter(|(_, (_, weight))| **weight > 0.0) {
            groups.entry(key.owned()).or_insert((0.0, row as u32)).0 += weight;
        }
        let mut groups: Vec<(f64, u32)> = groups.into_values().collect();
        groups.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let rows: UInt32Array = groups.iter().take(limit).map(|(_, row)| Some(*row)).collect();
        arrays.iter().map(|array| take(array, &rows, None).ok()).collect()
    }

    /// The smallest and the largest value of the rows of a table that pass its filters, where all its rows are known.
    pub(crate) fn passing_range(&self, relation: usize, value: &ValueExpr) -> Option<(f64, f64)> {
        let source = self.table_source(RelationSet::single(relation), value).filter(|source| source.complete)?;
        let sampled = self.sampled(&source, RelationSet::single(relation), value).filter(|sampled| sampled.exact)?;
        let weights = sampled.weights(sampled.factors.iter());
        let passing = weights.iter().zip(&sampled.values).filter(|(weight, value)| **weight > 0.0 && !value.is_nan());
        let range = passing.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, m), (_, v)| (l.min(*v), m.max(*v)));
        (range.0 <= range.1).then_some(range)
    }

    fn tree_source<'e>(&'e self, tree: &'e Tree, set: RelationSet) -> Option<Source<'e>> {
        let synopsis = tree.synopsis();
        let members = tree.members_in(set)?;
        let root = Seen { relation: tree.root(), rows: &synopsis.root().sample, links: None };
        let partners =
            members.map(|(relation, parent)| Seen { relation, rows: parent.rows(), links: Some(parent.links()) });
        let seen: SmallVec<[Seen<'e>; 4]> = std::iter::once(root).chain(partners).collect();
        let seen_set =
            seen.iter().fold(RelationSet::default(), |set, one| set.union(RelationSet::single(one.relation)));
        let complete = synopsis.is_complete() && seen_set == set && self.is_all_of(tree, set);
        Some(Source { rows: synopsis.rows(), seen, complete })
    }

    fn table_source(&self, set: RelationSet, value: &ValueExpr) -> Option<Source<'_>> {
        let relation = value.relations().union(set).iter().next()?;
        let relation = value.columns().next().map_or(relation, |(relation, _)| relation);
        if value.relations().len() > 1 {
            return None;
        }
        let profile = self.relations[relation].profile.as_ref()?;
        let seen = SmallVec::from_iter([Seen { relation, rows: &profile.sample, links: None }]);
        Some(Source { rows: profile.sample.num_rows(), seen, complete: profile.is_complete() && set.len() == 1 })
    }

    fn sampled(&self, source: &Source<'_>, set: RelationSet, value: &ValueExpr) -> Option<SampledValues> {
        let values = source.values(value)?;
        let columns: SmallVec<[(usize, usize); 2]> = value.columns().collect();
        let (factors, relations, ran) = self.factors(source, set, &columns)?;
        Some(SampledValues { values, factors, relations, exact: source.complete && ran })
    }

    /// The conditions of the join of `set` on the rows of a source, the relations that they are of, and whether all filters
    /// of those could run. `value` are the columns of the value, as relation and column.
    fn factors(
        &self,
        source: &Source<'_>,
        set: RelationSet,
        value: &[(usize, usize)],
    ) -> Option<(Vec<Factor>, RelationSet, bool)> {
        let mut factors = vec![];
        let mut ran = true;
        for seen in &source.seen {
            let filter = self.relations[seen.relation].filter.as_ref()?;
            if seen.links.is_some() {
                let partner = seen.spread(&vec![1.0; seen.rows.num_rows()], 0.0, source.rows);
                if partner.contains(&0.0) {
                    factors.push(Factor { of_value: false, weights: partner });
                }
            }
            ran &= filter.runs();
            for (columns_read, mask) in filter.masks_of(seen.rows) {
                let of_value = !columns_read.is_empty()
                    && columns_read.iter().all(|column| value.contains(&(seen.relation, *column)));
                factors.push(Factor { of_value, weights: seen.spread(&shares(&mask), 0.0, source.rows) });
            }
        }
        let mut relations = source.relations();
        let mut grown = true;
        while std::mem::take(&mut grown) {
            for relation in set.minus(relations).iter() {
                if let Some(factor) = self.fanout(source, relation) {
                    factors.push(factor);
                    relations = relations.union(RelationSet::single(relation));
                    grown = true;
                }
            }
        }
        Some((factors, relations, ran))
    }

    /// How many rows of `relation` each sampled row's key finds.
    fn fanout(&self, source: &Source<'_>, relation: usize) -> Option<Factor> {
        self.graph.classes.iter().enumerate().find_map(|(class, keys)| {
            let place = keys.members.iter().position(|member| member.relation == relation)?;
            let passing = self.passing.get(class)?[place].as_ref()?;
            let sample = self.key_sample(&keys.members[place]).filter(|sample| !sample.is_scaled)?;
            let (seen, column) = keys.members.iter().find_map(|member| {
                let seen = source.seen.iter().find(|seen| seen.relation == member.relation)?;
                Some((seen, member.column?))
            })?;
            let hashes = seen.spread(&hashes(seen.rows.column(column)), None, source.rows);
            Some(Factor { of_value: false, weights: partners(&hashes, sample, passing)? })
        })
    }
}

impl Source<'_> {
    fn relations(&self) -> RelationSet {
        self.seen.iter().fold(RelationSet::default(), |set, seen| set.union(RelationSet::single(seen.relation)))
    }

    /// The value of each sampled row, NaN for NULL; `None` where it is no number. `[rows]`
    fn values(&self, value: &ValueExpr) -> Option<Vec<f64>> {
        let numbers = numbers(&self.evaluate(value)?)?;
        let numbers = as_float64_array(&numbers).ok()?;
        Some(numbers.iter().map(|value| value.unwrap_or(f64::NAN)).collect())
    }

    /// The value of each sampled row. `[rows]`
    fn evaluate(&self, value: &ValueExpr) -> Option<ArrayRef> {
        let mut fields = vec![];
        let mut arrays: Vec<ArrayRef> = vec![];
        for (relation, column, name) in &value.columns {
            let seen = self.seen.iter().find(|seen| seen.relation == *relation)?;
            let places = match seen.links {
                None => UInt32Array::from_iter_values(0..self.rows as u32),
                Some(links) => links.iter().map(|link| (*link != NO_PARTNER).then_some(*link)).collect(),
            };
            let array = take(seen.rows.column(*column), &places, None).ok()?;
            fields.push((name.relation.clone(), Arc::new(Field::new(&name.name, array.data_type().clone(), true))));
            arrays.push(array);
        }
        let plain: Vec<_> = fields.iter().map(|(_, field)| Arc::clone(field)).collect();
        let schema = DFSchema::new_with_metadata(fields, Default::default()).ok()?;
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        let batch = RecordBatch::try_new_with_options(Arc::new(Schema::new(plain)), arrays, &options).ok()?;
        physical(&value.expr, &schema)?.evaluate(&batch).ok()?.into_array(self.rows).ok()
    }
}

/// An array as numbers in the unit of its type: days or ticks of a time. `None` where it has none.
fn numbers(array: &ArrayRef) -> Option<ArrayRef> {
    let array = match Domain::of(array.data_type()) {
        Domain::Time => match array.data_type().primitive_width() {
            Some(4) => cast(array, &DataType::Int32).ok()?,
            _ => cast(array, &DataType::Int64).ok()?,
        },
        Domain::Integer | Domain::Float => ArrayRef::clone(array),
        _ => return None,
    };
    cast(&array, &<Float64Type as datafusion::arrow::datatypes::ArrowPrimitiveType>::DATA_TYPE).ok()
}

fn shares(mask: &BooleanArray) -> Vec<f64> {
    mask.iter().map(|passes| f64::from(u8::from(passes == Some(true)))).collect()
}

/// The hash of each row's key; `None` for rows without one. `[rows]`
fn hashes(array: &ArrayRef) -> Vec<Option<u64>> {
    let reading = Reading::new(array);
    let mut hashes = vec![None; array.len()];
    for (index, key) in reading.keys.iter().enumerate() {
        hashes[reading.row(index) as usize] = Some(key_hash(*key));
    }
    hashes
}

/// Rows that the keys find among the sampled ones, of which `passing` pass. Keys that the sample does not hold count
/// nothing; `None` where too few others are known for that. `[rows]`
fn partners(hashes: &[Option<u64>], sample: &KeySample, passing: &[f64]) -> Option<Vec<f64>> {
    let found = |hash: u64| sample.hashes.binary_search(&hash).map_or(0.0, |place| passing[place]);
    let unknown = |hash: &&u64| **hash > sample.threshold;
    let weights: Vec<f64> = hashes.iter().map(|hash| hash.map_or(0.0, found)).collect();
    let known = effective(weights.iter().copied());
    (known >= ENOUGH_ROWS || hashes.iter().flatten().find(unknown).is_none()).then_some(weights)
}
