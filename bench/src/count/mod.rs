//! Exact cardinalities of joins without enumerating their results.
//!
//! A relation is a batch with the mask of the rows that pass its filters. Inner equi-joins whose keys form an acyclic
//! hypergraph are counted by passing messages over a join tree (Yannakakis, "Algorithms for acyclic database schemes",
//! VLDB 1981, with counts for semijoins): the weight of a row is the number of results of its subtree it takes part in,
//! and a message sums weights by key. That is linear in the input however large the result. Weights are shared between
//! the connected subsets of one query. Cyclic joins are left out (`None`).
//!
//! Counts are floats: exact up to 2^53, and good to sixteen digits above.

mod aggregate;
mod codes;
mod filter;
mod groups;
mod join_tree;
mod outer;
mod read;
mod subsets;
#[cfg(test)]
mod tests;

use std::rc::Rc;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch};
use hashbrown::HashMap;

pub use aggregate::aggregate;
pub use codes::KeyCodes;
pub(crate) use codes::NULL as NULL_CODE;
pub use filter::filter_mask;
pub use groups::count_groups;
pub use outer::count_outer;
pub use read::GraphReader;
pub use subsets::connected_subsets;

use codes::{Codes, NULL};
use join_tree::{Classes, JoinTree};

/// Weights and messages of one query are dropped when they take more memory than this.
const MEMO_BYTES: usize = 1 << 30;

/// The rows of a table that pass the filters on it.
#[derive(Debug, Clone)]
pub struct Relation {
    /// All rows.
    pub batch: RecordBatch,
    /// Which of them stay; `None` if all do. NULL counts as false.
    pub mask: Option<BooleanArray>,
}

/// An equi-join between two relations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    /// Index of a relation.
    pub left: usize,
    /// Index of another.
    pub right: usize,
    /// Pairs of equal columns, one of the left relation and one of the right.
    pub keys: Vec<(usize, usize)>,
}

/// The number of rows of each connected subset of `relations`, at most `max_subsets` of them: every single relation, the
/// whole if it is connected, then by size. The subsets are bit sets over the indices of the relations.
///
/// ```
/// use std::sync::Arc;
/// use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch};
/// use relata_bench::count::{Edge, Relation, count_connected_subsets};
///
/// let table = |keys: Vec<Option<i64>>| -> Relation {
///     let column: ArrayRef = Arc::new(Int64Array::from(keys));
///     Relation { batch: RecordBatch::try_from_iter([("k", column)]).unwrap(), mask: None }
/// };
/// let relations = [table(vec![Some(1), Some(1), None]), table(vec![Some(1), Some(1), Some(2), None])];
/// let edges = [Edge { left: 0, right: 1, keys: vec![(0, 0)] }];
/// let counts = count_connected_subsets(&relations, &edges, 100);
/// assert_eq!(counts, [(0b01, Some(3.0)), (0b10, Some(4.0)), (0b11, Some(4.0))]);
/// ```
pub fn count_connected_subsets(relations: &[Relation], edges: &[Edge], max_subsets: usize) -> Vec<(u128, Option<f64>)> {
    let mut codes = KeyCodes::default();
    let mut counter = Counter::new(relations, edges, &mut codes);
    let subsets = connected_subsets(relations.len(), edges, max_subsets);
    subsets.into_iter().map(|subset| (subset, counter.count(subset))).collect()
}

/// One number per selected row of a relation. `[rows]`
type Weights = Rc<[f64]>;

/// Selected rows of a relation.
type Rows = Rc<[u32]>;

/// Counts subsets of the joins of one query.
#[derive(Debug)]
pub struct Counter<'a> {
    relations: &'a [Relation],
    edges: Vec<Edge>,
    keys: &'a mut KeyCodes,
    /// Which columns are equal once all relations are joined.
    classes: Classes,
    /// Rows of each relation that pass its mask. `[relations]`
    masked: Vec<Rows>,
    /// Those that pass the equalities between columns of their own relation as well. `[relations]`
    rows: Vec<Rows>,
    /// The codes of `rows` by relation and key columns.
    codes: HashMap<(usize, Vec<usize>), Option<Rc<Codes>>>,
    /// See [`Counter::weights`].
    weights: HashMap<(u128, usize), Option<Weights>>,
    /// See [`Counter::multiplier`].
    multipliers: HashMap<(u128, usize, usize), Option<Weights>>,
    memo_bytes: usize,
    /// Sums by code, all zero between uses.
    sums: Vec<f64>,
}

impl<'a> Counter<'a> {
    /// Prepares the count of joins of `relations`; `keys` remembers codes from one query of a database to the next.
    pub fn new(relations: &'a [Relation], edges: &[Edge], keys: &'a mut KeyCodes) -> Self {
        let masked = relations.iter().map(selected_rows).collect();
        Self::with_rows(relations, edges.to_vec(), keys, masked)
    }

    fn with_rows(relations: &'a [Relation], edges: Vec<Edge>, keys: &'a mut KeyCodes, masked: Vec<Rows>) -> Self {
        let classes = Classes::new(relations.len(), &edges);
        let mut rows = masked.clone();
        for (relation, one, other) in classes.within() {
            let mut encode = |column: usize| keys.encode(&[Arc::clone(relations[relation].batch.column(column))]);
            rows[relation] = match (encode(one), encode(other)) {
                (Some(one), Some(other)) => {
                    let equal = |row: usize| one.values[row] == other.values[row] && one.values[row] != NULL;
                    rows[relation].iter().copied().filter(|&row| equal(row as usize)).collect()
                }
                // `codes` will find the same and give up.
                _ => Rc::clone(&rows[relation]),
            };
        }
        Self {
            relations,
            edges,
            keys,
            classes,
            masked,
            rows,
            codes: HashMap::new(),
            weights: HashMap::new(),
            multipliers: HashMap::new(),
            memo_bytes: 0,
            sums: vec![],
        }
    }

    /// The number of rows of the join of `subset`, a product over its connected parts. `None` if a part is cyclic or a
    /// key has a type that cannot be compared here.
    pub fn count(&mut self, subset: u128) -> Option<f64> {
        let mut product = 1.0;
        for part in subsets::components(subset, &self.edges) {
            product *= self.count_connected(part)?;
        }
        Some(product)
    }

    fn count_connected(&mut self, subset: u128) -> Option<f64> {
        if subset.is_power_of_two() {
            return Some(self.masked[subset.trailing_zeros() as usize].len() as f64);
        }
        let (_, weights) = self.root_weights(subset)?;
        Some(weights.iter().sum())
    }

    /// How often each row of one relation occurs in the join of `subset`, a connected set: the relation, its rows, and
    /// their weights.
    pub(crate) fn occurrences(&mut self, subset: u128, relation: usize) -> Option<(Rows, Weights)> {
        if subset.is_power_of_two() {
            let rows = Rc::clone(&self.masked[relation]);
            let ones = rows.iter().map(|_| 1.0).collect();
            return Some((rows, ones));
        }
        if !self.classes.implied_by(subset, &self.edges) {
            return self.restricted(subset).occurrences(subset, relation);
        }
        let weights = self.weights(subset, relation)?;
        Some((Rc::clone(&self.rows[relation]), weights))
    }

    /// The weights of the relation of a connected subset that is cheapest to count from.
    fn root_weights(&mut self, subset: u128) -> Option<(usize, Weights)> {
        if !self.classes.implied_by(subset, &self.edges) {
            return self.restricted(subset).root_weights(subset);
        }
        let root = JoinTree::new(subset, &self.classes)?.hub();
        Some((root, self.weights(subset, root)?))
    }

    /// A counter that knows the edges within `subset` only: relations outside can imply equalities that do not hold
    /// without them.
    fn restricted(&mut self, subset: u128) -> Counter<'_> {
        let edges = self.edges.iter().filter(|edge| subsets::inside(subset, edge)).cloned().collect();
        Counter::with_rows(self.relations, edges, self.keys, self.masked.clone())
    }

    /// For each selected row of `root`, the number of results of the join of `subset` that contain it. `[rows]`
    fn weights(&mut self, subset: u128, root: usize) -> Option<Weights> {
        if let Some(known) = self.weights.get(&(subset, root)) {
            return known.clone();
        }
        let weights = self.compute_weights(subset, root);
        self.remember(weights.as_ref());
        self.weights.insert((subset, root), weights.clone());
        weights
    }

    fn compute_weights(&mut self, subset: u128, root: usize) -> Option<Weights> {
        if subset.is_power_of_two() {
            return Some(self.rows[root].iter().map(|_| 1.0).collect());
        }
        let tree = JoinTree::new(subset, &self.classes)?;
        let (child, branch) = tree.last_branch(root);
        let rest = subset & !branch;
        let multiplier = self.multiplier(branch, child, root)?;
        if rest.is_power_of_two() {
            return Some(multiplier);
        }
        let weights = self.weights(rest, root)?;
        Some(weights.iter().zip(multiplier.iter()).map(|(weight, factor)| weight * factor).collect())
    }

    /// For each selected row of `parent`, the number of results of the join of `branch` that match it through `child`.
    fn multiplier(&mut self, branch: u128, child: usize, parent: usize) -> Option<Weights> {
        if let Some(known) = self.multipliers.get(&(branch, child, parent)) {
            return known.clone();
        }
        let multiplier = self.compute_multiplier(branch, child, parent);
        self.remember(multiplier.as_ref());
        self.multipliers.insert((branch, child, parent), multiplier.clone());
        multiplier
    }

    fn compute_multiplier(&mut self, branch: u128, child: usize, parent: usize) -> Option<Weights> {
        let shared = self.classes.shared(child, parent).to_vec();
        let child_codes = self.codes(child, &shared)?;
        let parent_codes = self.codes(parent, &shared)?;
        if child_codes.domain != parent_codes.domain {
            return None;
        }
        let weights = if branch.is_power_of_two() { None } else { Some(self.weights(branch, child)?) };
        self.sums.resize(self.keys.limit(), 0.0);
        for (index, &code) in child_codes.values.iter().enumerate() {
            if code != NULL {
                self.sums[code as usize] += weights.as_ref().map_or(1.0, |weights| weights[index]);
            }
        }
        let sums = &self.sums;
        let multiplier =
            parent_codes.values.iter().map(|&code| if code == NULL { 0.0 } else { sums[code as usize] }).collect();
        for &code in child_codes.values.iter() {
            if code != NULL {
                self.sums[code as usize] = 0.0;
            }
        }
        Some(multiplier)
    }

    /// The codes of the selected rows of a relation in its columns of the `shared` classes.
    fn codes(&mut self, relation: usize, shared: &[usize]) -> Option<Rc<Codes>> {
        let columns: Vec<usize> = shared.iter().map(|&class| self.classes.column(relation, class)).collect();
        let place = (relation, columns);
        if let Some(known) = self.codes.get(&place) {
            return known.clone();
        }
        let arrays: Vec<ArrayRef> =
            place.1.iter().map(|&column| Arc::clone(self.relations[relation].batch.column(column))).collect();
        let codes = self.keys.encode(&arrays).map(|all| {
            let values = self.rows[relation].iter().map(|&row| all.values[row as usize]).collect();
            Rc::new(Codes { domain: all.domain, values })
        });
        self.codes.insert(place, codes.clone());
        codes
    }

    fn remember(&mut self, weights: Option<&Weights>) {
        self.memo_bytes += weights.map_or(0, |weights| size_of_val::<[f64]>(weights));
        if self.memo_bytes > MEMO_BYTES {
            self.weights.clear();
            self.multipliers.clear();
            self.memo_bytes = 0;
        }
    }
}

/// The rows of a relation that pass its mask.
fn selected_rows(relation: &Relation) -> Rows {
    let rows = relation.batch.num_rows() as u32;
    match &relation.mask {
        None => (0..rows).collect(),
        Some(mask) => {
            let bits = match mask.nulls() {
                Some(valid) => mask.values() & valid.inner(),
                None => mask.values().clone(),
            };
            bits.set_indices().map(|row| row as u32).collect()
        }
    }
}
