//! Enumeration of join trees: dynamic programming over connected sets (DPsub; Moerkotte and Neumann, VLDB 2006) while there
//! are few, greedy operator ordering (Fegaras, DEXA 1998) beyond.

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

/// The cheapest tree without cross products; the graph must be connected.
pub(super) fn cheapest(
    graph: &JoinGraph,
    rows: &mut dyn FnMut(RelationSet) -> f64,
    model: &dyn CostModel,
    budget: usize,
) -> Option<JoinTree> {
    // Pairs that dynamic programming looks at: two to the power of its size for every set.
    let sets = graph.connected_sets(budget);
    let pairs = |sets: &Vec<RelationSet>| sets.iter().map(|set| 1usize << set.len().min(40)).sum::<usize>();
    match sets.filter(|sets| pairs(sets) <= 8 * budget) {
        Some(sets) => dynamic(graph, &sets, rows, model),
        None => greedy(graph, rows, model),
    }
}

fn dynamic(
    graph: &JoinGraph,
    sets: &[RelationSet],
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
    let mut best: HashMap<RelationSet, Best> = HashMap::with_capacity(sets.len());
    for &set in sets {
        let own_rows = rows(set);
        if set.len() == 1 {
            best.insert(set, Best { rows: own_rows, cost: 0.0, left: set });
            continue;
        }
        let lowest = set.0 & set.0.wrapping_neg();
        let mut found: Option<Best> = None;
        // Every proper part that holds the lowest relation, so that each split is seen once.
        let mut part = (set.0 - 1) & set.0;
        while part != 0 {
            if part & lowest != 0 {
                let (left, right) = (RelationSet(part), RelationSet(set.0 & !part));
                if let (Some(l), Some(r)) = (best.get(&left), best.get(&right)) {
                    let cost = l.cost + r.cost + join_cost(l.rows, r.rows, own_rows, model);
                    let connected = !graph.neighbours(left).intersection(right).is_empty();
                    if connected && found.is_none_or(|f| cost < f.cost) {
                        found = Some(Best { rows: own_rows, cost, left });
                    }
                }
            }
            part = (part - 1) & set.0;
        }
        best.insert(set, found?);
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
