//! Enumeration against every tree there is, on random graphs with random rows.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::logical_expr::{JoinType, LogicalPlanBuilder, LogicalTableSource};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::*;
use crate::join_order::{HashJoinCost, OutputCost};

/// A graph of so many relations with these edges, each over columns of its own.
fn graph(relations: usize, edges: &[(usize, usize)]) -> JoinGraph {
    let scan = |relation: usize| {
        let columns = edges.iter().enumerate().filter(|(_, edge)| edge.0 == relation || edge.1 == relation);
        let fields: Vec<Field> = columns.map(|(i, _)| Field::new(format!("c{i}"), DataType::Int64, true)).collect();
        let source = Arc::new(LogicalTableSource::new(Arc::new(Schema::new(fields))));
        LogicalPlanBuilder::scan(format!("r{relation:03}"), source, None).unwrap()
    };
    let mut plan = scan(0);
    for relation in 1..relations {
        let earlier = edges.iter().enumerate().filter(|(_, edge)| edge.0.max(edge.1) == relation);
        let keys = earlier.map(|(i, edge)| {
            let other = edge.0.min(edge.1);
            (format!("r{other:03}.c{i}"), format!("r{relation:03}.c{i}"))
        });
        let keys: (Vec<String>, Vec<String>) = keys.unzip();
        plan = match keys.0.is_empty() {
            true => plan.cross_join(scan(relation).build().unwrap()).unwrap(),
            false => plan.join(scan(relation).build().unwrap(), JoinType::Inner, keys, None).unwrap(),
        };
    }
    let graph = JoinGraph::from_plan(&plan.build().unwrap()).unwrap();
    assert_eq!(graph.relations.len(), relations);
    graph
}

fn chain(relations: usize) -> JoinGraph {
    graph(relations, &(1..relations).map(|i| (i - 1, i)).collect::<Vec<_>>())
}

fn star(relations: usize) -> JoinGraph {
    graph(relations, &(1..relations).map(|i| (0, i)).collect::<Vec<_>>())
}

fn cycle(relations: usize) -> JoinGraph {
    graph(relations, &(0..relations).map(|i| (i, (i + 1) % relations)).collect::<Vec<_>>())
}

fn clique(relations: usize) -> JoinGraph {
    graph(relations, &(0..relations).flat_map(|i| (0..i).map(move |j| (j, i))).collect::<Vec<_>>())
}

/// A connected graph of 2 to 7 relations: a random tree and a few more edges.
fn random_graph(seed: u64) -> JoinGraph {
    let mut state = seed;
    let mut below = |end: usize| {
        state = xxh3_64_with_seed(b"edge", state);
        (state % end as u64) as usize
    };
    let relations = 2 + below(6);
    let mut edges: Vec<(usize, usize)> = (1..relations).map(|i| (below(i), i)).collect();
    for _ in 0..below(relations) {
        let (one, other) = (below(relations), below(relations));
        let edge = (one.min(other), one.max(other));
        if one != other && !edges.contains(&edge) {
            edges.push(edge);
        }
    }
    graph(relations, &edges)
}

/// Rows between 1 and a million that depend on the set alone.
fn random_rows(seed: u64) -> impl FnMut(RelationSet) -> f64 {
    move |set| {
        let hash = xxh3_64_with_seed(&set.0.to_le_bytes(), seed);
        10f64.powf(6.0 * (hash >> 11) as f64 / (1u64 << 53) as f64)
    }
}

/// The least cost of all trees of `set` without cross products, by looking at every one.
fn least_cost(
    graph: &JoinGraph,
    set: RelationSet,
    rows: &mut dyn FnMut(RelationSet) -> f64,
    model: &dyn CostModel,
) -> f64 {
    if set.len() == 1 {
        return 0.0;
    }
    let output = rows(set);
    let mut least = f64::INFINITY;
    for left in parts(set).filter(|left| left.0 < set.minus(*left).0) {
        let right = set.minus(left);
        let joined = !graph.neighbours(left).intersection(right).is_empty();
        if joined && graph.is_connected(left) && graph.is_connected(right) {
            let below = least_cost(graph, left, rows, model) + least_cost(graph, right, rows, model);
            least = least.min(below + join_cost(rows(left), rows(right), output, model));
        }
    }
    least
}

/// Asserts that a tree has every relation once, joins along keys, the smaller side first, and costs what it says.
fn assert_valid(graph: &JoinGraph, tree: &JoinTree, rows: &mut dyn FnMut(RelationSet) -> f64, model: &dyn CostModel) {
    fn cost(
        graph: &JoinGraph,
        tree: &JoinTree,
        rows: &mut dyn FnMut(RelationSet) -> f64,
        model: &dyn CostModel,
    ) -> f64 {
        assert_eq!(tree.rows.to_bits(), rows(tree.set).to_bits());
        let Some(sides) = &tree.sides else {
            assert_eq!(tree.set.len(), 1);
            return 0.0;
        };
        let (build, probe) = (&sides.0, &sides.1);
        assert_eq!(build.set.union(probe.set), tree.set);
        assert!(build.set.intersection(probe.set).is_empty());
        assert!(!graph.keys_between(build.set, probe.set).is_empty(), "a cross product of {build:?} and {probe:?}");
        assert!(build.rows <= probe.rows);
        let below = cost(graph, build, rows, model) + cost(graph, probe, rows, model);
        below + join_cost(build.rows, probe.rows, tree.rows, model)
    }
    assert_eq!(tree.set, graph.all());
    let computed = cost(graph, tree, rows, model);
    assert!((computed - tree.cost).abs() <= 1e-9 * computed, "{computed} and {}", tree.cost);
}

#[test]
fn dynamic_programming_finds_the_cheapest_of_all_trees() {
    let (models, mut bushy): ([&dyn CostModel; 2], _) = ([&HashJoinCost, &OutputCost], 0);
    for seed in 0..150 {
        let graph = random_graph(seed);
        let rows = &mut random_rows(seed);
        for model in models {
            let tree = cheapest(&graph, rows, model, usize::MAX).unwrap();
            assert_valid(&graph, &tree, rows, model);
            let least = least_cost(&graph, graph.all(), rows, model);
            assert!((tree.cost - least).abs() <= 1e-9 * least, "seed {seed}: {} instead of {least}", tree.cost);
            bushy += usize::from(tree.sides.is_some_and(|sides| sides.0.set.len().min(sides.1.set.len()) > 1));
        }
    }
    assert!(bushy > 20, "only {bushy} trees are bushy");
}

#[test]
fn greedy_ordering_gives_a_valid_tree() {
    for seed in 0..150 {
        let graph = random_graph(seed);
        let rows = &mut random_rows(seed);
        let tree = greedy(&graph, rows, &HashJoinCost).unwrap();
        assert_valid(&graph, &tree, rows, &HashJoinCost);
        let best = cheapest(&graph, rows, &HashJoinCost, usize::MAX).unwrap();
        assert!(best.cost <= tree.cost * (1.0 + 1e-9), "seed {seed}");
    }
}

/// The counts of the paper's section 2.
#[test]
fn pairs_are_as_many_as_the_shape_has() {
    for n in 2..8usize {
        let power = |base: usize, exponent: usize| base.pow(exponent as u32);
        let counts = [
            (chain(n), (power(n, 3) - n) / 6),
            (star(n), (n - 1) * power(2, n - 2)),
            (clique(n), (power(3, n) + 1 - power(2, n + 1)) / 2),
        ];
        for (graph, count) in counts {
            let mut pairs = Pairs::of(&graph, count).unwrap();
            assert_eq!(pairs.len(), count);
            assert!(Pairs::of(&graph, count - 1).is_none());
            pairs.iter_mut().for_each(|pair| *pair = (pair.0.min(pair.1), pair.0.max(pair.1)));
            pairs.sort_unstable();
            pairs.dedup();
            assert_eq!(pairs.len(), count, "no pair twice");
        }
    }
    assert_eq!(Pairs::of(&cycle(6), usize::MAX).unwrap().len(), (216 - 72 + 6) / 2);
}

#[test]
fn beyond_the_budget_the_order_is_greedy() {
    for seed in 0..20 {
        let graph = random_graph(seed);
        let rows = &mut random_rows(seed);
        let (over, greedy) = (cheapest(&graph, rows, &HashJoinCost, 0), greedy(&graph, rows, &HashJoinCost));
        assert_eq!(format!("{over:?}"), format!("{greedy:?}"));
    }
}

#[test]
fn a_hundred_relations_are_ordered_greedily() {
    for graph in [chain(100), star(100), cycle(100)] {
        let rows = &mut random_rows(7);
        assert!(Pairs::of(&graph, 10_000).is_none());
        let tree = cheapest(&graph, rows, &HashJoinCost, 10_000).unwrap();
        assert_valid(&graph, &tree, rows, &HashJoinCost);
    }
}

#[test]
fn a_graph_in_two_parts_has_no_tree() {
    let graph = graph(4, &[(0, 1), (2, 3)]);
    for budget in [0, usize::MAX] {
        assert!(cheapest(&graph, &mut random_rows(1), &HashJoinCost, budget).is_none());
    }
}

#[test]
fn the_tree_of_the_query_is_found_again() {
    let scans: Vec<_> = (0..4).collect();
    let graph = chain(4);
    let plan = {
        let mut order: Vec<_> = graph.relations.iter().collect();
        order.sort_by_key(|relation| relation.position);
        let leaf = |i: usize| LogicalPlanBuilder::from(order[scans[i]].plan.clone());
        let pair = |l: usize, r: usize, key: usize| {
            let keys = (vec![format!("r{l:03}.c{key}")], vec![format!("r{r:03}.c{key}")]);
            leaf(l).join(leaf(r).build().unwrap(), JoinType::Inner, keys, None).unwrap()
        };
        let keys = (vec!["r001.c1"], vec!["r002.c1"]);
        pair(0, 1, 0).join(pair(2, 3, 2).build().unwrap(), JoinType::Inner, keys, None).unwrap().build().unwrap()
    };
    let graph = JoinGraph::from_plan(&plan).unwrap();
    let rows = &mut random_rows(3);
    let tree = original(&graph, &plan, rows, &HashJoinCost).unwrap();
    assert_valid(&graph, &tree, rows, &HashJoinCost);
    assert!(tree.sides.is_some_and(|sides| sides.0.set.len() == 2 && sides.1.set.len() == 2));
}
