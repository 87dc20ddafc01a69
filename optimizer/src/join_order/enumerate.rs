//! Enumeration of join trees: dynamic programming over pairs of connected sets (DPccp; Moerkotte and Neumann, "Analysis of
//! two existing and one new dynamic programming algorithm", VLDB 2006) while they are few, greedy operator ordering
//! (Fegaras, DEXA 1998) beyond.

use datafusion::logical_expr::LogicalPlan;
use hashbrown::HashMap;
use relata_featurize::join_graph::{JoinGraph, RelationSet};

use super::CostModel;

/// A join tree with its cost.
#[derive(Debug, Clone)]
pub(super) struct JoinTree {
    pub(super) set: RelationSet,
    pub(super) rows: f64,
    pub(super) cost: f64,
    /// Build side and probe side; `None` for a relation.
    pub(super) sides: Option<Box<(JoinTree, JoinTree)>>,
}

impl JoinTree {
    fn leaf(relation: usize, rows: &mut dyn FnMut(RelationSet) -> f64) -> Self {
        let set = RelationSet::single(relation);
        Self { set, rows: rows(set), cost: 0.0, sides: None }
    }

    /// The join of two trees, the smaller one on the build side.
    fn join(self, other: Self, rows: &mut dyn FnMut(RelationSet) -> f64, model: &dyn CostModel) -> Self {
        let set = self.set.union(other.set);
        let output = rows(set);
        let cost = self.cost + other.cost + join_cost(self.rows, other.rows, output, model);
        let sides = if self.rows <= other.rows { (self, other) } else { (other, self) };
        Self { set, rows: output, cost, sides: Some(Box::new(sides)) }
    }
}

fn join_cost(left: f64, right: f64, output: f64, model: &dyn CostModel) -> f64 {
    model.join(left.min(right), left.max(right), output)
}

/// The query's own tree; `None` when the plan and the graph do not agree.
pub(super) fn original(
    graph: &JoinGraph,
    plan: &LogicalPlan,
    rows: &mut dyn FnMut(RelationSet) -> f64,
    model: &dyn CostModel,
) -> Option<JoinTree> {
    fn walk(
        plan: &LogicalPlan,
        next: &mut usize,
        of_position: &[usize],
        rows: &mut dyn FnMut(RelationSet) -> f64,
        model: &dyn CostModel,
    ) -> Option<JoinTree> {
        if !JoinGraph::is_transparent(plan) {
            let relation = *of_position.get(*next)?;
            *next += 1;
            return Some(JoinTree::leaf(relation, rows));
        }
        match plan.inputs()[..] {
            [input] => walk(input, next, of_position, rows, model),
            [left, right] => {
                let left = walk(left, next, of_position, rows, model)?;
                let right = walk(right, next, of_position, rows, model)?;
                Some(left.join(right, rows, model))
            }
            _ => None,
        }
    }
    let mut of_position = vec![0; graph.relations.len()];
    for (index, relation) in graph.relations.iter().enumerate() {
        of_position[relation.position] = index;
    }
    walk(plan, &mut 0, &of_position, rows, model)
}

/// The cheapest tree without cross products; the graph must be connected. Beyond `budget` pairs it is only a good one.
pub(super) fn cheapest(
    graph: &JoinGraph,
    rows: &mut dyn FnMut(RelationSet) -> f64,
    model: &dyn CostModel,
    budget: usize,
) -> Option<JoinTree> {
    match Pairs::of(graph, budget) {
        Some(pairs) => dynamic(graph, &pairs, rows, model),
        None => greedy(graph, rows, model),
    }
}

/// Two disjoint connected sets with a join key between them.
type Pair = (RelationSet, RelationSet);

/// Enumerates the pairs of a graph (`EnumerateCsg` and `EnumerateCmp` of DPccp): each once, and those that make up a set
/// before those that the set is part of.
struct Pairs<'g> {
    graph: &'g JoinGraph,
    budget: usize,
    found: Vec<Pair>,
}

impl<'g> Pairs<'g> {
    /// All pairs; `None` when there are more than `budget`.
    fn of(graph: &'g JoinGraph, budget: usize) -> Option<Vec<Pair>> {
        let mut pairs = Self { graph, budget, found: Vec::new() };
        for start in (0..graph.relations.len()).rev() {
            let set = RelationSet::single(start);
            pairs.partners(set)?;
            pairs.grow(set, RelationSet::all(start + 1), &mut |pairs, set| pairs.partners(set))?;
        }
        Some(pairs.found)
    }

    /// Every connected set that contains `set` and, beyond it, nothing of `excluded`.
    fn grow(
        &mut self,
        set: RelationSet,
        excluded: RelationSet,
        emit: &mut dyn FnMut(&mut Self, RelationSet) -> Option<()>,
    ) -> Option<()> {
        let around = self.graph.neighbours(set).minus(excluded);
        for part in parts(around) {
            emit(self, set.union(part))?;
        }
        for part in parts(around) {
            self.grow(set.union(part), excluded.union(around), emit)?;
        }
        Some(())
    }

    /// The pairs of `set` with sets of relations above its lowest one, so that no pair is seen from both sides.
    fn partners(&mut self, set: RelationSet) -> Option<()> {
        let lowest = set.iter().next()?;
        let excluded = set.union(RelationSet::all(lowest + 1));
        let around = self.graph.neighbours(set).minus(excluded);
        for start in around.iter().rev() {
            let partner = RelationSet::single(start);
            self.push((set, partner))?;
            let lower = RelationSet::all(start + 1).intersection(around);
            self.grow(partner, excluded.union(lower), &mut |pairs, partner| pairs.push((set, partner)))?;
        }
        Some(())
    }

    fn push(&mut self, pair: Pair) -> Option<()> {
        self.found.push(pair);
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

/// The cheapest tree of every set, smaller sets first.
fn dynamic(
    graph: &JoinGraph,
    pairs: &[Pair],
    rows: &mut dyn FnMut(RelationSet) -> f64,
    model: &dyn CostModel,
) -> Option<JoinTree> {
    /// Best split of a set, by cost; rows are kept so that each is asked for once.
    #[derive(Clone, Copy)]
    struct Best {
        rows: f64,
        cost: f64,
        left: RelationSet,
    }
    let mut best: HashMap<RelationSet, Best> = HashMap::new();
    for relation in 0..graph.relations.len() {
        let set = RelationSet::single(relation);
        best.insert(set, Best { rows: rows(set), cost: 0.0, left: set });
    }
    for &(left, right) in pairs {
        let set = left.union(right);
        let (l, r) = (*best.get(&left)?, *best.get(&right)?);
        let known = best.get(&set);
        let output = known.map_or_else(|| rows(set), |known| known.rows);
        let cost = l.cost + r.cost + join_cost(l.rows, r.rows, output, model);
        if known.is_none_or(|known| cost < known.cost) {
            best.insert(set, Best { rows: output, cost, left });
        }
    }
    fn build(set: RelationSet, best: &HashMap<RelationSet, Best>) -> Option<JoinTree> {
        let own = best.get(&set)?;
        if own.left == set {
            return Some(JoinTree { set, rows: own.rows, cost: 0.0, sides: None });
        }
        let (left, right) = (build(own.left, best)?, build(set.minus(own.left), best)?);
        let sides = if left.rows <= right.rows { (left, right) } else { (right, left) };
        Some(JoinTree { set, rows: own.rows, cost: own.cost, sides: Some(Box::new(sides)) })
    }
    build(graph.all(), &best)
}

/// Joins the two neighbouring trees whose join is cheapest, again and again.
fn greedy(graph: &JoinGraph, rows: &mut dyn FnMut(RelationSet) -> f64, model: &dyn CostModel) -> Option<JoinTree> {
    let mut trees: Vec<JoinTree> = (0..graph.relations.len()).map(|r| JoinTree::leaf(r, rows)).collect();
    let mut costs: HashMap<(RelationSet, RelationSet), f64> = HashMap::new();
    while trees.len() > 1 {
        let mut cheapest: Option<(usize, usize, f64)> = None;
        for i in 0..trees.len() {
            let neighbours = graph.neighbours(trees[i].set);
            for j in i + 1..trees.len() {
                if neighbours.intersection(trees[j].set).is_empty() {
                    continue;
                }
                let (left, right) = (&trees[i], &trees[j]);
                let cost = *costs
                    .entry((left.set, right.set))
                    .or_insert_with(|| join_cost(left.rows, right.rows, rows(left.set.union(right.set)), model));
                if cheapest.is_none_or(|c| cost < c.2) {
                    cheapest = Some((i, j, cost));
                }
            }
        }
        let (i, j, _) = cheapest?;
        let right = trees.remove(j);
        let left = trees.remove(i);
        trees.push(left.join(right, rows, model));
    }
    trees.pop()
}

#[cfg(test)]
mod tests;
