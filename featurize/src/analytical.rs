//! Row estimates and upper bounds of sets of joined relations from the profiles alone.
//!
//! The estimate of a set is built along its canonical decomposition ([`JoinGraph::last`]), so that a set has one estimate
//! however the plan joins it: rows of the rest, times rows of the last relation, times the share of pairs that match. The
//! share comes from common values matched with each other and uniform remainders (PostgreSQL's `eqjoinsel`, Selinger et al.
//! SIGMOD 1979 for the remainders), corrected by what samples of the keys and join synopses say of their filters and fanouts;
//! the bound is that of `bound.rs`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use datafusion_expr::{BinaryExpr, Expr, LogicalPlan, Operator, TableScan};
use smallvec::SmallVec;

use crate::bound::{BoundedKey, JoinBounds, keeps_values};
use crate::groups::key_combinations;
use crate::join_graph::{JoinGraph, KeyMember, RelationSet, Residual};
use crate::key_sample::{KeyCorrelation, KeySample, SampledSide, key_correlation};
use crate::profile::TableProfile;
use crate::selectivity::{FilterEstimate, estimate_filters};
use crate::sketch::ColumnSketch;
use crate::synopsis::JoinSynopsis;

mod key_filters;
mod trees;
mod values;

use key_filters::KeyFilter;
use trees::{Classes, Tree};
pub use values::{Factor, SampledValues, ValueExpr, effective};

/// Where the estimator finds the profile of a scanned table.
pub trait Profiles {
    /// The profile of the table that `scan` reads.
    fn profile(&self, scan: &TableScan) -> Option<Arc<TableProfile>>;

    /// The estimate of a table's filters; an implementation may remember it.
    fn filters(&self, profile: &Arc<TableProfile>, filters: &[Expr]) -> Arc<FilterEstimate> {
        Arc::new(estimate_filters(profile, filters))
    }

    /// The synopsis of the table that `scan` reads.
    fn synopsis(&self, _scan: &TableScan) -> Option<Arc<JoinSynopsis>> {
        None
    }

    /// Whether provable bounds are known.
    fn bounded(&self) -> bool {
        true
    }

    /// Rows of a plan that is no base table; `None` when unknown.
    fn derived_rows(&self, _plan: &LogicalPlan) -> Option<f64> {
        None
    }
}

/// Rows of one relation.
#[derive(Debug, Clone)]
pub struct RelationEstimate {
    /// The profile, of a profiled base table.
    pub profile: Option<Arc<TableProfile>>,
    /// The filters, of a profiled base table.
    pub filter: Option<Arc<FilterEstimate>>,
    /// Rows without filters; `None` when nothing is known.
    pub base_rows: Option<f64>,
    /// Rows that pass the filters.
    pub rows: f64,
    /// Upper bound of `rows`.
    pub bound: f64,
}

/// Rows of a set of joined relations.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SetEstimate {
    /// Rows.
    pub rows: f64,
    /// Rows without any filter.
    pub unfiltered: f64,
    /// Upper bound of the rows.
    pub bound: f64,
}

/// Statistics of the keys that join a set with one more relation.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct JoinKeys {
    /// Key classes shared by both sides.
    pub count: usize,
    /// Share of the pairs of rows that match.
    pub selectivity: f64,
    /// Share of the pairs of filtered rows that match, where filters on the keys of both sides are the same.
    pub filtered_selectivity: f64,
    /// Distinct keys on the set's side.
    pub distinct_set: f64,
    /// Distinct keys of the relation.
    pub distinct_relation: f64,
    /// Largest degree of the key in the set's base table.
    pub max_set: f64,
    /// Largest degree of the key in the relation.
    pub max_relation: f64,
    /// Mean degree of a row's own key in the set's base table: sum of squares / rows.
    pub skew_set: f64,
    /// Mean degree of a row's own key in the relation.
    pub skew_relation: f64,
    /// Share of NULL keys on the set's side.
    pub null_set: f64,
    /// Share of NULL keys in the relation.
    pub null_relation: f64,
    /// Whether the statistics of the keys are counts, not estimates.
    pub provable: bool,
    /// Whether both sides are the same base table.
    pub same_table: bool,
    /// How the filters and fanouts of both sides go together, where samples by key say.
    pub correlation: Option<KeyCorrelation>,
    /// How the filters of both sides and of what foreign keys join them with go together, where a synopsis says.
    pub synopsis: Option<KeyCorrelation>,
    /// What the rows of the join are corrected by, from both.
    pub factor: f64,
}

/// Rows assumed of a relation nothing is known about.
const UNKNOWN_ROWS: f64 = 1000.0;

/// Beyond so many relations samples by key are left out.
const MOST_CORRELATED: usize = 20;

/// Relations of a set whose keys are looked at together.
const MOST_SIDES: usize = 3;

/// Two keys, by relation and column.
type KeyPair = [(usize, Option<usize>); 2];

/// Estimates the sets of relations of one join graph.
#[derive(Debug)]
pub struct JoinEstimator<'a> {
    /// The graph.
    pub graph: &'a JoinGraph,
    /// Its relations.
    pub relations: Vec<RelationEstimate>,
    bounds: JoinBounds,
    /// What [`key_selectivity`] said of pairs of keys.
    selectivities: Mutex<HashMap<KeyPair, f64>>,
    /// Rows of each sampled key that pass the filters, by class and member of the graph's keys.
    passing: Vec<Vec<Option<Vec<f64>>>>,
    /// Filters that keys of several relations have to pass, by class and member of the graph's keys.
    key_filters: Vec<Vec<Option<KeyFilter>>>,
    /// What [`key_correlation`] said, by class, its members in the set, and relation.
    correlations: Mutex<HashMap<(usize, RelationSet, usize), Option<KeyCorrelation>>>,
    /// The foreign-key joins that synopses cover.
    trees: Vec<Tree>,
    /// Combinations of the values of some columns of a relation.
    combinations: Mutex<HashMap<(usize, Vec<usize>), f64>>,
    /// Estimates of sets that others are held against.
    canonical: Mutex<HashMap<RelationSet, SetEstimate>>,
}

impl<'a> JoinEstimator<'a> {
    /// Runs the filters of every relation on its sample.
    pub fn new(graph: &'a JoinGraph, profiles: &dyn Profiles) -> Self {
        let relations = graph.relations.iter().map(|relation| {
            let profile = relation.scan.as_ref().and_then(|scan| profiles.profile(scan));
            match profile {
                Some(profile) => {
                    let filter = profiles.filters(&profile, &relation.table_filters);
                    RelationEstimate {
                        base_rows: Some(profile.rows),
                        rows: filter.rows,
                        bound: filter.bound,
                        filter: Some(filter),
                        profile: Some(profile),
                    }
                }
                None => {
                    let base_rows = profiles.derived_rows(&relation.plan);
                    let selectivity = 0.2f64.powi(relation.filters.len() as i32);
                    let rows = base_rows.unwrap_or(UNKNOWN_ROWS) * selectivity;
                    RelationEstimate { profile: None, filter: None, base_rows, rows, bound: f64::INFINITY }
                }
            }
        });
        let mut estimator = Self {
            graph,
            relations: relations.collect(),
            bounds: JoinBounds::default(),
            selectivities: Mutex::default(),
            passing: vec![],
            key_filters: vec![],
            correlations: Mutex::default(),
            trees: vec![],
            combinations: Mutex::default(),
            canonical: Mutex::default(),
        };
        if (2..=MOST_CORRELATED).contains(&graph.relations.len()) {
            let passing = |member: &KeyMember| {
                let filter = estimator.relations[member.relation].filter.as_ref()?;
                Some(filter.passing(estimator.key_sample(member)?))
            };
            let classes = graph.classes.iter();
            estimator.passing = classes.map(|class| class.members.iter().map(passing).collect()).collect();
            estimator.key_filters = estimator.find_key_filters();
            estimator.trees = estimator.find_trees(profiles);
        }
        estimator.bounds = if profiles.bounded() {
            estimator.bounds()
        } else {
            estimator.relations.iter_mut().for_each(|relation| relation.bound = f64::INFINITY);
            JoinBounds::new(vec![f64::INFINITY; graph.relations.len()], &[])
        };
        estimator
    }

    fn bounds(&self) -> JoinBounds {
        let key = |class: usize, place: usize, member: &KeyMember| {
            let relation = &self.relations[member.relation];
            // A cast may make one value of several, of which nothing is counted.
            let counted =
                |sketch: &&ColumnSketch| keeps_values(&member.expr, sketch.domain, sketch.number_range()).is_some();
            let Some(sketch) = self.sketch(member).filter(counted) else {
                return BoundedKey { relation: member.relation, max: relation.bound, sequence: None };
            };
            let max = sketch.max_degree();
            // Of a table that is complete in its sample, the rows of each key that pass the filters are known.
            let exact = relation.filter.as_ref().is_some_and(|filter| filter.exact);
            let passing = self.passing.get(class).and_then(|class| class[place].as_ref()).filter(|_| exact);
            let passing = passing.map_or(max, |passing| passing.iter().copied().fold(0.0, f64::max));
            BoundedKey { relation: member.relation, max: max.min(passing), sequence: sketch.degree_sequence() }
        };
        let classes = self.graph.classes.iter().enumerate().map(|(class, keys)| {
            keys.members.iter().enumerate().map(|(place, member)| key(class, place, member)).collect()
        });
        let rows = self.relations.iter().map(|relation| relation.bound).collect();
        JoinBounds::new(rows, &classes.collect::<Vec<_>>())
    }

    fn key_sample(&self, member: &KeyMember) -> Option<&KeySample> {
        self.relations[member.relation].profile.as_ref()?.sample_by(member.column?)
    }

    /// How the keys of a class go together in `set` and in `relation`, and the relations of the set that are looked at.
    fn correlation(&self, class: usize, set: RelationSet, relation: usize) -> Option<(KeyCorrelation, RelationSet)> {
        let members = self.graph.classes[class].members.iter().zip(self.passing.get(class)?).enumerate();
        let filtered = self.shared_filter(class, set, relation);
        let sides = members.filter_map(|(place, (member, passing))| {
            let (sample, passing) = (self.key_sample(member)?, passing.as_deref()?);
            let filter = self.key_filter_of(class, place).filter(|_| filtered.is_some());
            let counts = filter.and_then(|filter| filter.counts.as_deref()).unwrap_or(&sample.counts);
            Some((member.relation, filter.is_none(), SampledSide { sample, counts, passing }))
        });
        let mut sides: SmallVec<[_; 8]> = sides.collect();
        // The keys that are left are those of a side with a filter on them.
        sides.sort_by_key(|(_, unfiltered, _)| *unfiltered);
        let (mut of_set, mut own) = (SmallVec::<[SampledSide<'_>; MOST_SIDES]>::new(), None);
        let mut owners = RelationSet::default();
        for (owner, _, side) in sides {
            if set.contains(owner) && of_set.len() < MOST_SIDES {
                of_set.push(side);
                owners = owners.union(RelationSet::single(owner));
            } else if owner == relation {
                own = own.or(Some(side));
            }
        }
        let own = own?;
        let members = self.graph.classes[class].members.iter().map(|member| RelationSet::single(member.relation));
        let all = members.fold(RelationSet::default(), RelationSet::union).intersection(set);
        let mut known = self.correlations.lock().unwrap_or_else(PoisonError::into_inner);
        let correlation = *known.entry((class, all, relation)).or_insert_with(|| key_correlation(&of_set, own));
        Some((correlation?, owners))
    }

    fn key_filter_of(&self, class: usize, member: usize) -> Option<&KeyFilter> {
        self.key_filters.get(class)?.get(member)?.as_ref()
    }

    /// The keys of a class in `set` and in `relation` that pass the filters on them; `None` where the two share no filter on
    /// the key.
    fn shared_filter(&self, class: usize, set: RelationSet, relation: usize) -> Option<(&KeyFilter, &KeyFilter)> {
        let members = || self.graph.classes[class].members.iter().enumerate();
        let of_set = members().filter(|(_, member)| set.contains(member.relation));
        let of_set = of_set.filter_map(|(place, _)| self.key_filter_of(class, place));
        let (own, _) = members().find(|(_, member)| member.relation == relation)?;
        Some((of_set.min_by(|a, b| a.distinct.total_cmp(&b.distinct))?, self.key_filter_of(class, own)?))
    }

    /// What samples by key and synopses say together of `set` and `relation`.
    ///
    /// Both see a part of the set. Where both see something, the one that rests on more rows speaks; what the other sees
    /// beyond that comes in by the change it makes to the other's own word: `f(A, B) = f(A) g(A, B) / g(A)`.
    fn correct(
        &self,
        keys: &mut JoinKeys,
        by_key: Option<(usize, RelationSet)>,
        classes: &Classes,
        set: RelationSet,
        relation: usize,
    ) {
        let tree = self.tree_evidence(set, relation, classes);
        keys.synopsis = tree.as_ref().map(|tree| tree.correlation);
        keys.factor = match (keys.correlation, by_key, tree) {
            (Some(correlation), Some((class, sampled)), Some(tree)) => {
                let both = sampled.intersection(tree.relations);
                let of_both = self.correlation(class, both, relation).map(|(correlation, _)| correlation);
                if tree.correlation.strength() >= of_both.map_or(0.0, |both| both.strength()) {
                    tree.correlation.factor * correlation.factor / of_both.map_or(1.0, |both| both.factor)
                } else {
                    let of_both = self.evidence_of(tree.tree, both, relation, classes);
                    correlation.factor * of_both.map_or(1.0, |both| tree.correlation.factor / both.correlation.factor)
                }
            }
            (correlation, _, tree) => tree.map(|tree| tree.correlation).or(correlation).map_or(1.0, |one| one.factor),
        };
    }

    /// Whether every relation is a profiled base table.
    pub fn is_complete(&self) -> bool {
        self.relations.iter().all(|relation| relation.profile.is_some())
    }

    /// The estimate of one relation.
    pub fn single(&self, relation: usize) -> SetEstimate {
        let one = &self.relations[relation];
        SetEstimate { rows: one.rows, unfiltered: one.base_rows.unwrap_or(UNKNOWN_ROWS), bound: one.bound }
    }

    /// How many rows of `relation` a row of `set` is joined with at most; provable.
    pub fn most_matches(&self, set: RelationSet, relation: usize) -> f64 {
        self.bounds.factor(set, relation)
    }

    /// The estimate of `set` and `relation` joined, from that of `set`, and the keys between them.
    pub fn extend(&self, set: RelationSet, estimate: &SetEstimate, relation: usize) -> (SetEstimate, JoinKeys) {
        let keys = self.keys(set, relation);
        let one = self.single(relation);
        let both = set.union(RelationSet::single(relation));
        let applies = |r: &&Residual| r.relations.is_subset(both) && !r.relations.is_subset(set);
        let residual: f64 =
            self.graph.residuals.iter().filter(applies).map(|r| residual_selectivity(&r.expr)).product();
        let along = if estimate.bound > 0.0 { estimate.bound * self.bounds.factor(set, relation) } else { 0.0 };
        let bound = along.min(self.bounds.set(both));
        let estimated = || estimate.rows * one.rows * keys.filtered_selectivity * keys.factor * residual;
        let rows = self.counted(both).unwrap_or_else(estimated).min(bound);
        let unfiltered = estimate.unfiltered * one.unfiltered * keys.selectivity;
        (SetEstimate { rows, unfiltered, bound }, keys)
    }

    /// The keys between `set` and `relation`.
    fn keys(&self, set: RelationSet, relation: usize) -> JoinKeys {
        let mut keys = JoinKeys {
            selectivity: 1.0,
            filtered_selectivity: 1.0,
            provable: true,
            factor: 1.0,
            ..JoinKeys::default()
        };
        let mut caps = (f64::INFINITY, f64::INFINITY);
        let mut classes = Classes { set, ..Classes::default() };
        let mut by_key = None;
        let mut composite = Composite::default();
        let mut survived = 1.0;
        for (index, class) in self.graph.classes.iter().enumerate() {
            // Of a class with several members on the set's side, the one with the fewest distinct values has survived.
            let of_set = class
                .members
                .iter()
                .filter(|m| set.contains(m.relation))
                .min_by(|a, b| self.distinct(a).total_cmp(&self.distinct(b)));
            let own = class.members.iter().find(|m| m.relation == relation);
            let (Some(left), Some(right)) = (of_set, own) else { continue };
            let (l, r) = (self.key(left), self.key(right));
            let (selectivity, filtered) = (self.plain(left, right), self.filtered(index, set, left, right));
            classes.shares.push((index, filtered));
            // Keys by which rows of the set were joined already are not NULL.
            if class.members.iter().filter(|member| set.contains(member.relation)).count() > 1 {
                let known = self.shared_filter(index, set, relation).is_some();
                survived *= if known { 1.0 } else { (1.0 - l.null).max(f64::EPSILON) };
            }
            // Several keys tell much the same: the one with most matches counts.
            if let Some((correlation, relations)) = self.correlation(index, set, relation)
                && correlation.strength() > keys.correlation.map_or(0.0, |known| known.strength())
            {
                keys.correlation = Some(correlation);
                by_key = Some((index, relations));
            }
            keys.same_table |= self.same_table(left.relation, relation);
            caps = (caps.0.min(self.base_rows(left.relation)), caps.1.min(self.base_rows(relation)));
            let dependence = self.dependence(&mut composite, left, right);
            if keys.count == 0 {
                keys = JoinKeys {
                    selectivity,
                    filtered_selectivity: filtered,
                    distinct_set: l.distinct,
                    distinct_relation: r.distinct,
                    max_set: l.max,
                    max_relation: r.max,
                    skew_set: l.skew,
                    skew_relation: r.skew,
                    null_set: l.null,
                    null_relation: r.null,
                    provable: l.exact && r.exact,
                    ..keys
                };
            } else {
                // A composite key has no more distinct values than its table has rows.
                let least = 1.0 / caps.0.max(caps.1).max(1.0);
                let both = |one: f64, other: f64| (one * other * dependence).max(least).min(one.min(other));
                keys.selectivity = both(keys.selectivity, selectivity);
                keys.filtered_selectivity = both(keys.filtered_selectivity, filtered);
                keys.distinct_set = (keys.distinct_set * l.distinct).min(caps.0);
                keys.distinct_relation = (keys.distinct_relation * r.distinct).min(caps.1);
                keys.max_set = keys.max_set.min(l.max);
                keys.max_relation = keys.max_relation.min(r.max);
                keys.skew_set = keys.skew_set.min(l.skew);
                keys.skew_relation = keys.skew_relation.min(r.skew);
                keys.null_set = keys.null_set.max(l.null);
                keys.null_relation = keys.null_relation.max(r.null);
                keys.provable &= l.exact && r.exact;
            }
            keys.count += 1;
        }
        classes.together = keys.filtered_selectivity;
        keys.selectivity = (keys.selectivity / survived).min(1.0);
        keys.filtered_selectivity = (keys.filtered_selectivity / survived).min(1.0);
        self.correct(&mut keys, by_key, &classes, set, relation);
        keys
    }

    /// Share of the pairs of rows of two relations whose keys are equal.
    fn plain(&self, left: &KeyMember, right: &KeyMember) -> f64 {
        self.key_selectivity(left, right).unwrap_or_else(|| {
            let (l, r) = (self.key(left), self.key(right));
            (1.0 - l.null) * (1.0 - r.null) / l.distinct.max(r.distinct).max(1.0)
        })
    }

    /// The same among the rows that pass the filters of `set` and of the relation on the right: where both filter the key of
    /// the class alike, one in the number of keys that are left.
    fn filtered(&self, class: usize, set: RelationSet, left: &KeyMember, right: &KeyMember) -> f64 {
        match self.shared_filter(class, set, right.relation) {
            Some((of_set, own)) => 1.0 / of_set.distinct.max(own.distinct),
            None => self.plain(left, right),
        }
    }

    /// How many times fewer combinations there are of a further pair of columns with those before than if the columns were
    /// independent: a key that another one determines does not select any more.
    fn dependence(&self, composite: &mut Composite, left: &KeyMember, right: &KeyMember) -> f64 {
        let before = composite.distinct;
        let alone = self.distinct(left).max(self.distinct(right));
        let same_side = *composite.side.get_or_insert(left.relation) == left.relation;
        composite.columns =
            composite.columns.take().zip(left.column.zip(right.column)).and_then(|(mut columns, pair)| {
                columns.push(pair);
                same_side.then_some(columns)
            });
        let Some(columns) = composite.columns.as_ref().filter(|columns| columns.len() > 1) else {
            composite.distinct = alone;
            return 1.0;
        };
        let (own, theirs): (SmallVec<[usize; 4]>, SmallVec<[usize; 4]>) = columns.iter().copied().unzip();
        let combinations = |relation: usize, columns: SmallVec<[usize; 4]>| {
            let profile = self.relations[relation].profile.as_ref()?;
            let mut known = self.combinations.lock().unwrap_or_else(PoisonError::into_inner);
            Some(*known.entry((relation, columns.to_vec())).or_insert_with(|| key_combinations(profile, &columns)))
        };
        let of_both = combinations(left.relation, own).zip(combinations(right.relation, theirs));
        composite.distinct = of_both.map_or(before * alone, |(left, right)| left.max(right).max(before).max(alone));
        (before * alone / composite.distinct.max(1.0)).max(1.0)
    }

    /// [`key_selectivity`] of two keys, once: the same keys join many sets. `None` where one of them has no sketch.
    fn key_selectivity(&self, left: &KeyMember, right: &KeyMember) -> Option<f64> {
        let (a, b) = (self.sketch(left)?, self.sketch(right)?);
        let keys = [left, right].map(|member| (member.relation, member.column));
        let mut known = self.selectivities.lock().unwrap_or_else(PoisonError::into_inner);
        Some(*known.entry(keys).or_insert_with(|| key_selectivity(a, b)))
    }

    fn sketch(&self, member: &KeyMember) -> Option<&ColumnSketch> {
        self.relations[member.relation].profile.as_ref()?.columns.get(member.column?)
    }

    fn distinct(&self, member: &KeyMember) -> f64 {
        self.key(member).distinct
    }

    fn base_rows(&self, relation: usize) -> f64 {
        self.relations[relation].base_rows.unwrap_or(UNKNOWN_ROWS)
    }

    fn same_table(&self, a: usize, b: usize) -> bool {
        match (&self.relations[a].profile, &self.relations[b].profile) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }

    fn key(&self, member: &KeyMember) -> Key {
        match self.sketch(member) {
            Some(sketch) => Key {
                distinct: sketch.distinct(),
                max: sketch.degrees.max,
                skew: sketch.degrees.sum_of_squares / (sketch.rows - sketch.nulls).max(1.0),
                null: sketch.null_share(),
                exact: sketch.degrees.exact,
            },
            None => {
                let rows = self.base_rows(member.relation).max(1.0);
                Key { distinct: rows, max: rows, skew: 1.0, null: 0.0, exact: false }
            }
        }
    }
}

/// The columns of a key of several columns, as far as they are of one relation on the set's side.
struct Composite {
    side: Option<usize>,
    columns: Option<Vec<(usize, usize)>>,
    /// Combinations of their values.
    distinct: f64,
}

impl Default for Composite {
    fn default() -> Self {
        Self { side: None, columns: Some(vec![]), distinct: 1.0 }
    }
}

struct Key {
    distinct: f64,
    max: f64,
    skew: f64,
    null: f64,
    exact: bool,
}

/// Share of the pairs of rows of two columns whose values are equal.
pub fn key_selectivity(a: &ColumnSketch, b: &ColumnSketch) -> f64 {
    if a.rows <= 0.0 || b.rows <= 0.0 {
        return 0.0;
    }
    let mut matched = 0.0;
    let (mut only_a, mut only_b) = (0.0, 0.0);
    let (mut i, mut j) = (0, 0);
    while i < a.common.len() || j < b.common.len() {
        let order = match (a.common.get(i), b.common.get(j)) {
            (Some(x), Some(y)) => x.value.order(&y.value),
            (Some(_), None) => std::cmp::Ordering::Less,
            _ => std::cmp::Ordering::Greater,
        };
        if order.is_le() {
            i += 1;
        }
        if order.is_ge() {
            j += 1;
        }
        match order {
            std::cmp::Ordering::Equal => matched += a.common[i - 1].rows * b.common[j - 1].rows,
            std::cmp::Ordering::Less => only_a += a.common[i - 1].rows,
            std::cmp::Ordering::Greater => only_b += b.common[j - 1].rows,
        }
    }
    let (rest_a, distinct_a) = a.remainder();
    let (rest_b, distinct_b) = b.remainder();
    // A common value of one side that is not common on the other meets an average value of the other's remainder.
    let pairs = matched
        + only_a * rest_b / distinct_b.max(1.0)
        + only_b * rest_a / distinct_a.max(1.0)
        + rest_a * rest_b / distinct_a.max(distinct_b).max(1.0);
    pairs / a.rows / b.rows
}

/// Selectivity of a condition over several relations that is no equi-join key: System R's constants.
fn residual_selectivity(expr: &Expr) -> f64 {
    match expr {
        Expr::BinaryExpr(BinaryExpr { op: Operator::Eq, .. }) => 0.1,
        Expr::BinaryExpr(BinaryExpr { op: Operator::NotEq, .. }) => 0.9,
        _ => 1.0 / 3.0,
    }
}
