//! Enumeration of join trees: dynamic programming over pairs of connected sets of a hypergraph (DPhyp; Moerkotte and Neumann,
//! "Dynamic programming strikes back", SIGMOD 2008) while they are few. Beyond, greedy operator ordering (Fegaras, DEXA 1998)
//! and dynamic programming over the intervals of its order of relations (after Neumann and Radke, "Adaptive optimization of
//! very large join queries", SIGMOD 2018, where the order is that of IKKBZ), which is never worse than the greedy tree.

use hashbrown::{HashMap, HashSet};
use relata_featurize::join_graph::RelationSet;

use super::graph::{JoinHypergraph, Shape};
use super::{CostModel, JoinMethod, JoinShape, JoinSide};

/// A join tree with its cost.
#[derive(Debug, Clone)]
pub(super) struct JoinTree {
    pub(super) set: RelationSet,
    pub(super) side: JoinSide,
    pub(super) cost: f64,
    /// Build side and probe side; `None` for a node of the graph.
    pub(super) sides: Option<Box<(JoinTree, JoinTree)>>,
}

/// Rows of any set of nodes.
pub(super) type Rows<'a> = dyn FnMut(RelationSet) -> f64 + 'a;

/// Two disjoint connected sets with an edge between them.
type Pair = (RelationSet, RelationSet);

/// Orders the joins of one graph.
pub(super) struct Enumerator<'a> {
    pub(super) graph: &'a JoinHypergraph,
    pub(super) model: &'a dyn CostModel,
    pub(super) partitions: usize,
    pub(super) rows: &'a mut Rows<'a>,
}

impl Enumerator<'_> {
    fn leaf(&mut self, node: usize) -> JoinTree {
        let set = RelationSet::single(node);
        let side = JoinSide { rows: (self.rows)(set), width: self.graph.width(node) };
        JoinTree { set, side, cost: 0.0, sides: None }
    }

    fn output(&mut self, set: RelationSet, left: JoinSide, right: JoinSide) -> JoinSide {
        JoinSide { rows: (self.rows)(set), width: left.width + right.width }
    }

    /// Cost of a join, and whether the left side is the better build side.
    fn join_cost(
        &self,
        (left, left_side): (RelationSet, JoinSide),
        (right, right_side): (RelationSet, JoinSide),
        output: JoinSide,
    ) -> (f64, bool) {
        let shape = JoinShape { build: left_side, probe: right_side, output, partitions: self.partitions };
        let swapped = JoinShape { build: right_side, probe: left_side, ..shape };
        let keyed = self.graph.is_keyed(left, right);
        let cost = |shape: &JoinShape| match keyed {
            true => self.model.hash_join(shape).1,
            false => self.model.join(JoinMethod::NestedLoop, shape),
        };
        let (own, other) = (cost(&shape), cost(&swapped));
        (own.min(other), own <= other)
    }

    /// The join of two trees, the better build side first.
    fn join(&mut self, left: JoinTree, right: JoinTree) -> JoinTree {
        let set = left.set.union(right.set);
        let side = self.output(set, left.side, right.side);
        let (cost, in_order) = self.join_cost((left.set, left.side), (right.set, right.side), side);
        let cost = left.cost + right.cost + cost;
        let sides = if in_order { (left, right) } else { (right, left) };
        JoinTree { set, side, cost, sides: Some(Box::new(sides)) }
    }

    /// The query's own tree.
    pub(super) fn original(&mut self) -> JoinTree {
        fn tree(enumerator: &mut Enumerator<'_>, shape: &Shape) -> JoinTree {
            match shape {
                Shape::Node(node) => enumerator.leaf(*node),
                Shape::Join(sides) => {
                    let left = tree(enumerator, &sides.0);
                    let right = tree(enumerator, &sides.1);
                    enumerator.join(left, right)
                }
            }
        }
        tree(self, &self.graph.shape)
    }

    /// The cheapest tree without avoidable cross products. Beyond `budget` pairs it is only a good one.
    pub(super) fn cheapest(&mut self, budget: usize) -> Option<JoinTree> {
        match Pairs::of(self.graph, budget) {
            Some(pairs) => self.dynamic(&pairs),
            None => {
                let greedy = self.greedy()?;
                Some(self.linearized(&greedy))
            }
        }
    }

    /// The cheapest tree of every set, smaller sets first.
    fn dynamic(&mut self, pairs: &[Pair]) -> Option<JoinTree> {
        /// Best split of a set; its side is kept so that its rows are asked for once.
        #[derive(Clone, Copy)]
        struct Best {
            side: JoinSide,
            cost: f64,
            build: RelationSet,
        }
        let mut best: HashMap<RelationSet, Best> = HashMap::new();
        for node in 0..self.graph.len() {
            let leaf = self.leaf(node);
            best.insert(leaf.set, Best { side: leaf.side, cost: 0.0, build: leaf.set });
        }
        for &(left, right) in pairs {
            let set = left.union(right);
            let (l, r) = (*best.get(&left)?, *best.get(&right)?);
            let known = best.get(&set).copied();
            let side = known.map_or_else(|| self.output(set, l.side, r.side), |known| known.side);
            let (cost, in_order) = self.join_cost((left, l.side), (right, r.side), side);
            let cost = l.cost + r.cost + cost;
            if known.is_none_or(|known| cost < known.cost) {
                best.insert(set, Best { side, cost, build: if in_order { left } else { right } });
            }
        }
        fn build(set: RelationSet, best: &HashMap<RelationSet, Best>) -> Option<JoinTree> {
            let own = best.get(&set)?;
            let sides = match own.build == set {
                true => None,
                false => Some(Box::new((build(own.build, best)?, build(set.minus(own.build), best)?))),
            };
            Some(JoinTree { set, side: own.side, cost: own.cost, sides })
        }
        build(self.graph.all(), &best)
    }

    /// Joins the two neighbouring trees whose join is cheapest, again and again.
    fn greedy(&mut self) -> Option<JoinTree> {
        let mut trees: Vec<JoinTree> = (0..self.graph.len()).map(|node| self.leaf(node)).collect();
        let mut costs: HashMap<Pair, f64> = HashMap::new();
        while trees.len() > 1 {
            let mut cheapest: Option<(usize, usize, f64)> = None;
            for i in 0..trees.len() {
                for j in i + 1..trees.len() {
                    let (left, right) = (&trees[i], &trees[j]);
                    let pair = (left.set, right.set);
                    let cost = match costs.get(&pair) {
                        Some(cost) => *cost,
                        None => {
                            let cost = match self.graph.joins(left.set, right.set) {
                                true => {
                                    let output = self.output(left.set.union(right.set), left.side, right.side);
                                    self.join_cost((left.set, left.side), (right.set, right.side), output).0
                                }
                                false => f64::INFINITY,
                            };
                            costs.insert(pair, cost);
                            cost
                        }
                    };
                    if cost < cheapest.map_or(f64::INFINITY, |cheapest| cheapest.2) {
                        cheapest = Some((i, j, cost));
                    }
                }
            }
            let (i, j, _) = cheapest?;
            let right = trees.remove(j);
            let left = trees.remove(i);
            let joined = self.join(left, right);
            trees.push(joined);
        }
        trees.pop()
    }

    /// The cheapest tree whose sets are intervals of the order in which `tree` has its nodes.
    fn linearized(&mut self, tree: &JoinTree) -> JoinTree {
        fn nodes(tree: &JoinTree, order: &mut Vec<JoinTree>) {
            match &tree.sides {
                Some(sides) => {
                    nodes(&sides.0, order);
                    nodes(&sides.1, order);
                }
                None => order.push(tree.clone()),
            }
        }
        let mut order = Vec::new();
        nodes(tree, &mut order);
        let count = order.len();
        // The tree of the interval from one node on, by its last.
        let mut best: Vec<Vec<Option<JoinTree>>> = Vec::with_capacity(count);
        for leaf in order {
            let mut row = vec![None; count];
            row[best.len()] = Some(leaf);
            best.push(row);
        }
        for length in 2..=count {
            for first in 0..=count - length {
                let last = first + length - 1;
                let mut cheapest: Option<(f64, usize, JoinSide, bool)> = None;
                for split in first..last {
                    let (Some(left), Some(right)) = (&best[first][split], &best[split + 1][last]) else { continue };
                    if !self.graph.joins(left.set, right.set) {
                        continue;
                    }
                    let side = match cheapest {
                        Some((_, _, side, _)) => side,
                        None => JoinSide {
                            rows: (self.rows)(left.set.union(right.set)),
                            width: left.side.width + right.side.width,
                        },
                    };
                    let (cost, in_order) = self.join_cost((left.set, left.side), (right.set, right.side), side);
                    let cost = left.cost + right.cost + cost;
                    if cheapest.is_none_or(|cheapest| cost < cheapest.0) {
                        cheapest = Some((cost, split, side, in_order));
                    }
                }
                let Some((cost, split, side, in_order)) = cheapest else { continue };
                let (Some(left), Some(right)) = (best[first][split].clone(), best[split + 1][last].clone()) else {
                    continue;
                };
                let set = left.set.union(right.set);
                let sides = if in_order { (left, right) } else { (right, left) };
                best[first][last] = Some(JoinTree { set, side, cost, sides: Some(Box::new(sides)) });
            }
        }
        best.swap_remove(0).pop().flatten().unwrap_or_else(|| tree.clone())
    }
}

/// Enumerates the pairs of a graph: each once, and those that make up a set before those that the set is part of.
struct Pairs<'g> {
    graph: &'g JoinHypergraph,
    budget: usize,
    found: Vec<Pair>,
    /// The sets that a tree joins; empty where every set of neighbours is one.
    joined: HashSet<RelationSet>,
}

impl<'g> Pairs<'g> {
    /// All pairs; `None` when there are more than `budget`.
    fn of(graph: &'g JoinHypergraph, budget: usize) -> Option<Vec<Pair>> {
        let joined = match graph.has_hyperedges() {
            true => (0..graph.len()).map(RelationSet::single).collect(),
            false => HashSet::new(),
        };
        let mut pairs = Self { graph, budget, found: Vec::new(), joined };
        for start in (0..graph.len()).rev() {
            let set = RelationSet::single(start);
            pairs.partners(set)?;
            pairs.grow(set, RelationSet::all(start + 1), &mut |pairs, set| pairs.partners(set))?;
        }
        Some(pairs.found)
    }

    fn is_joined(&self, set: RelationSet) -> bool {
        self.joined.is_empty() || self.joined.contains(&set)
    }

    /// Every connected set that contains `set` and, beyond it, nothing of `excluded`.
    fn grow(
        &mut self,
        set: RelationSet,
        excluded: RelationSet,
        emit: &mut dyn FnMut(&mut Self, RelationSet) -> Option<()>,
    ) -> Option<()> {
        let around = self.graph.neighbours(set, excluded);
        for part in parts(around) {
            let grown = set.union(part);
            if self.is_joined(grown) {
                emit(self, grown)?;
            }
        }
        for part in parts(around) {
            self.grow(set.union(part), excluded.union(around), emit)?;
        }
        Some(())
    }

    /// The pairs of `set` with sets of nodes above its lowest one, so that no pair is seen from both sides.
    fn partners(&mut self, set: RelationSet) -> Option<()> {
        let lowest = set.iter().next()?;
        let excluded = set.union(RelationSet::all(lowest + 1));
        let around = self.graph.neighbours(set, excluded);
        for start in around.iter().rev() {
            let partner = RelationSet::single(start);
            self.pair(set, partner)?;
            let lower = RelationSet::all(start + 1).intersection(around);
            self.grow(partner, excluded.union(lower), &mut |pairs, partner| pairs.pair(set, partner))?;
        }
        Some(())
    }

    fn pair(&mut self, one: RelationSet, other: RelationSet) -> Option<()> {
        if !self.joined.is_empty() {
            if !self.graph.joins(one, other) {
                return Some(());
            }
            self.joined.insert(one.union(other));
        }
        self.found.push((one, other));
        (self.found.len() <= self.budget).then_some(())
    }
}

/// The non-empty parts of a set, each after its own parts.
fn parts(set: RelationSet) -> impl Iterator<Item = RelationSet> {
    let mut part = 0u128;
    std::iter::from_fn(move || {
        part = part.wrapping_sub(set.0) & set.0;
        (part != 0).then_some(RelationSet(part))
    })
}

#[cfg(test)]
mod tests;
