//! Enumeration against every tree there is, on random graphs with random rows.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::logical_expr::{Expr, JoinType, LogicalPlan, LogicalPlanBuilder, LogicalTableSource, col};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::*;
use crate::join_order::{ExecutionTime, OutputCost};

/// What joins two relations.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Edge {
    Key,
    Inequality,
}

/// A join of other than inner type with the relations and earlier left joins that it reads.
type Other = (JoinType, Vec<String>);

fn scan(name: &str, columns: usize) -> LogicalPlan {
    let fields: Vec<Field> = (0..columns).map(|i| Field::new(format!("c{i}"), DataType::Int64, true)).collect();
    let source = Arc::new(LogicalTableSource::new(Arc::new(Schema::new(fields))));
    LogicalPlanBuilder::scan(name, source, None).unwrap().build().unwrap()
}

fn relation(index: usize) -> String {
    format!("r{index:03}")
}

/// A plan of so many relations with these edges, each over columns of its own, under other joins.
fn plan(relations: usize, edges: &[(usize, usize, Edge)], others: &[Other]) -> LogicalPlan {
    let columns = edges.len().max(1);
    let mut plan = LogicalPlanBuilder::from(scan(&relation(0), columns));
    for right in 1..relations {
        let earlier = edges.iter().enumerate().filter(|(_, edge)| edge.0.max(edge.1) == right);
        let conditions = earlier.map(|(i, edge)| {
            let (one, other) = (col(format!("{}.c{i}", relation(edge.0))), col(format!("{}.c{i}", relation(edge.1))));
            if edge.2 == Edge::Key { one.eq(other) } else { one.lt(other) }
        });
        let conditions: Vec<Expr> = conditions.collect();
        plan = match conditions.is_empty() {
            true => plan.cross_join(scan(&relation(right), columns)).unwrap(),
            false => plan.join_on(scan(&relation(right), columns), JoinType::Inner, conditions).unwrap(),
        };
    }
    for (index, (join_type, reads)) in others.iter().enumerate() {
        let name = format!("other{index}");
        let keys = reads.iter().map(|read| col(format!("{read}.c0")).eq(col(format!("{name}.c0"))));
        plan = plan.join_on(scan(&name, 1), *join_type, keys).unwrap();
    }
    plan.build().unwrap()
}

fn graph(relations: usize, edges: &[(usize, usize)]) -> JoinHypergraph {
    let edges: Vec<_> = edges.iter().map(|&(one, other)| (one, other, Edge::Key)).collect();
    let graph = JoinHypergraph::from_plan(&plan(relations, &edges, &[])).unwrap();
    assert_eq!(graph.len(), relations);
    graph
}

fn chain(relations: usize) -> JoinHypergraph {
    graph(relations, &(1..relations).map(|i| (i - 1, i)).collect::<Vec<_>>())
}

fn star(relations: usize) -> JoinHypergraph {
    graph(relations, &(1..relations).map(|i| (0, i)).collect::<Vec<_>>())
}

fn cycle(relations: usize) -> JoinHypergraph {
    graph(relations, &(0..relations).map(|i| (i, (i + 1) % relations)).collect::<Vec<_>>())
}

fn clique(relations: usize) -> JoinHypergraph {
    graph(relations, &(0..relations).flat_map(|i| (0..i).map(move |j| (j, i))).collect::<Vec<_>>())
}

/// A graph of 2 to 6 relations, most of them joined by keys, some by other conditions or not at all, under up to three joins of
/// other types.
fn random_graph(seed: u64) -> JoinHypergraph {
    let mut state = seed;
    let mut below = |end: usize| {
        state = xxh3_64_with_seed(b"edge", state);
        (state % end as u64) as usize
    };
    let relations = 2 + below(5);
    let mut edges: Vec<(usize, usize, Edge)> = Vec::new();
    for right in 1..relations {
        match below(10) {
            0 => {}
            1 => edges.push((below(right), right, Edge::Inequality)),
            _ => edges.push((below(right), right, Edge::Key)),
        }
    }
    for _ in 0..below(relations) {
        let (one, other) = (below(relations), below(relations));
        if one != other && edges.iter().all(|edge| (edge.0, edge.1) != (one.min(other), one.max(other))) {
            edges.push((one.min(other), one.max(other), Edge::Key));
        }
    }
    let types = [JoinType::Left, JoinType::LeftSemi, JoinType::LeftAnti, JoinType::LeftMark];
    let mut columns: Vec<String> = (0..relations).map(relation).collect();
    let mut others: Vec<Other> = Vec::new();
    for index in 0..below(4) {
        let reads = (0..1 + below(2)).map(|_| columns[below(columns.len())].clone());
        let mut reads: Vec<String> = reads.collect();
        reads.dedup();
        let join_type = types[below(4)];
        if join_type == JoinType::Left {
            columns.push(format!("other{index}"));
        }
        others.push((join_type, reads));
    }
    let graph = JoinHypergraph::from_plan(&plan(relations, &edges, &others)).unwrap();
    assert_eq!(graph.len(), relations + others.len());
    graph
}

/// Rows between 1 and a million that depend on the set alone.
fn random_rows(seed: u64) -> impl Fn(RelationSet) -> f64 + Copy {
    move |set| {
        let hash = xxh3_64_with_seed(&set.0.to_le_bytes(), seed);
        10f64.powf(6.0 * (hash >> 11) as f64 / (1u64 << 53) as f64)
    }
}

/// Runs an enumerator over random rows.
fn with<T>(
    graph: &JoinHypergraph,
    rows: impl Fn(RelationSet) -> f64,
    model: &dyn CostModel,
    run: impl FnOnce(&mut Enumerator<'_>) -> T,
) -> T {
    let mut rows = |set| rows(set);
    run(&mut Enumerator { graph, model, partitions: 4, rows: &mut rows })
}

/// The least cost of all trees of `set`, by looking at every one; `None` where no tree joins it.
fn least_cost(
    enumerator: &mut Enumerator<'_>,
    set: RelationSet,
    known: &mut HashMap<RelationSet, Option<(f64, JoinSide)>>,
) -> Option<(f64, JoinSide)> {
    if let Some(known) = known.get(&set) {
        return *known;
    }
    let mut least: Option<(f64, JoinSide)> = None;
    if set.len() == 1 {
        least = set.iter().next().map(|node| (0.0, enumerator.leaf(node).side));
    }
    for left in parts(set).filter(|left| left.0 < set.minus(*left).0) {
        let right = set.minus(left);
        if !enumerator.graph.joins(left, right) {
            continue;
        }
        let sides = (least_cost(enumerator, left, known), least_cost(enumerator, right, known));
        let (Some((left_cost, left_side)), Some((right_cost, right_side))) = sides else { continue };
        let output = enumerator.output(set, left_side, right_side);
        let cost = enumerator.join_cost((left, left_side), (right, right_side), output).0;
        let cost = left_cost + right_cost + cost;
        if least.is_none_or(|least| cost < least.0) {
            least = Some((cost, output));
        }
    }
    known.insert(set, least);
    least
}

/// Asserts that a tree has every node once, joins along edges, the better build side first, and costs what it says.
fn assert_valid(enumerator: &mut Enumerator<'_>, tree: &JoinTree) {
    fn cost(enumerator: &mut Enumerator<'_>, tree: &JoinTree) -> f64 {
        assert_eq!(tree.side.rows.to_bits(), (enumerator.rows)(tree.set).to_bits());
        let Some(sides) = &tree.sides else {
            assert_eq!(tree.set.len(), 1);
            return 0.0;
        };
        let (build, probe) = (&sides.0, &sides.1);
        assert_eq!(build.set.union(probe.set), tree.set);
        assert!(build.set.intersection(probe.set).is_empty());
        assert!(enumerator.graph.joins(build.set, probe.set), "a cross product of {build:?} and {probe:?}");
        let below = cost(enumerator, build) + cost(enumerator, probe);
        let (own, in_order) = enumerator.join_cost((build.set, build.side), (probe.set, probe.side), tree.side);
        assert!(in_order);
        below + own
    }
    assert_eq!(tree.set, enumerator.graph.all());
    let computed = cost(enumerator, tree);
    assert!((computed - tree.cost).abs() <= 1e-9 * computed, "{computed} and {}", tree.cost);
}

#[test]
fn dynamic_programming_finds_the_cheapest_of_all_trees() {
    let models: [&dyn CostModel; 2] = [&ExecutionTime::default(), &OutputCost];
    let (mut bushy, mut hyperedges, mut others) = (0, 0, 0);
    for seed in 0..400 {
        let graph = random_graph(seed);
        hyperedges += usize::from(graph.has_hyperedges());
        others += usize::from(!graph.dependents.is_empty());
        for model in models {
            with(&graph, random_rows(seed), model, |enumerator| {
                let tree = enumerator.cheapest(usize::MAX).unwrap();
                assert_valid(enumerator, &tree);
                let (least, _) = least_cost(enumerator, graph.all(), &mut HashMap::new()).unwrap();
                assert!((tree.cost - least).abs() <= 1e-9 * least, "seed {seed}: {} instead of {least}", tree.cost);
                bushy += usize::from(tree.sides.is_some_and(|sides| sides.0.set.len().min(sides.1.set.len()) > 1));
            });
        }
    }
    assert!(bushy > 50 && hyperedges > 50 && others > 200, "{bushy} bushy, {hyperedges} and {others} graphs");
}

#[test]
fn every_tree_gives_a_plan_with_the_same_columns() {
    for seed in 0..200 {
        let graph = random_graph(seed);
        let tree = with(&graph, random_rows(seed), &OutputCost, |enumerator| enumerator.cheapest(usize::MAX).unwrap());
        let original = with(&graph, random_rows(seed), &OutputCost, |enumerator| enumerator.original());
        let schema = graph.clone().into_plan(&original, &Arc::new(datafusion::common::DFSchema::empty()));
        // The schema that is asked for cannot be had of other columns, so the plan's own is read from the error's absence.
        let Ok(own) = schema else { panic!("seed {seed}: {schema:?}") };
        let LogicalPlan::Projection(own) = own else { panic!("seed {seed}: {own:?}") };
        let rebuilt = graph.clone().into_plan(&tree, own.input.schema()).unwrap();
        assert_eq!(rebuilt.schema(), own.input.schema(), "seed {seed}");
        let again = JoinHypergraph::from_plan(&rebuilt).unwrap();
        assert_eq!((again.len(), again.dependents.len()), (graph.len(), graph.dependents.len()), "seed {seed}");
    }
}

#[test]
fn greedy_ordering_gives_a_valid_tree_and_linearizing_no_worse_one() {
    let model = ExecutionTime::default();
    let mut better = 0;
    for seed in 0..300 {
        let graph = random_graph(seed);
        with(&graph, random_rows(seed), &model, |enumerator| {
            let greedy = enumerator.greedy().unwrap();
            let linearized = enumerator.linearized(&greedy);
            let best = enumerator.cheapest(usize::MAX).unwrap();
            [&greedy, &linearized, &best].into_iter().for_each(|tree| assert_valid(enumerator, tree));
            assert!(best.cost <= linearized.cost * (1.0 + 1e-9), "seed {seed}");
            assert!(linearized.cost <= greedy.cost * (1.0 + 1e-9), "seed {seed}");
            better += usize::from(linearized.cost < 0.99 * greedy.cost);
        });
    }
    assert!(better > 10, "better {better} times");
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
fn no_pair_of_a_hypergraph_is_found_twice() {
    for seed in 0..300 {
        let graph = random_graph(seed);
        let pairs = Pairs::of(&graph, usize::MAX).unwrap();
        let mut once: Vec<Pair> = pairs.iter().map(|pair| (pair.0.min(pair.1), pair.0.max(pair.1))).collect();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), pairs.len(), "seed {seed}");
    }
}

#[test]
fn a_hundred_relations_are_ordered() {
    let model = ExecutionTime::default();
    for graph in [chain(100), star(100), cycle(100)] {
        with(&graph, random_rows(7), &model, |enumerator| {
            assert!(Pairs::of(enumerator.graph, 10_000).is_none());
            let tree = enumerator.cheapest(10_000).unwrap();
            assert_valid(enumerator, &tree);
        });
    }
}

#[test]
fn parts_that_nothing_joins_are_crossed_as_wholes() {
    let graph = graph(4, &[(0, 1), (2, 3)]);
    for budget in [0, usize::MAX] {
        let rows = |set: RelationSet| 10f64.powi(set.len() as i32);
        let tree = with(&graph, rows, &OutputCost, |enumerator| enumerator.cheapest(budget).unwrap());
        assert!(tree.sides.is_some_and(|sides| sides.0.set.len() == 2 && sides.1.set.len() == 2));
    }
}

#[test]
fn the_tree_of_the_query_is_found_again() {
    let pair = |l: usize, r: usize, key: usize| {
        let condition = col(format!("{}.c{key}", relation(l))).eq(col(format!("{}.c{key}", relation(r))));
        LogicalPlanBuilder::from(scan(&relation(l), 3)).join_on(scan(&relation(r), 3), JoinType::Inner, [condition])
    };
    let right = pair(2, 3, 2).unwrap().build().unwrap();
    let condition = col("r001.c1").eq(col("r002.c1"));
    let plan = pair(0, 1, 0).unwrap().join_on(right, JoinType::Inner, [condition]).unwrap().build().unwrap();
    let graph = JoinHypergraph::from_plan(&plan).unwrap();
    with(&graph, random_rows(3), &OutputCost, |enumerator| {
        let tree = enumerator.original();
        assert_valid(enumerator, &tree);
        assert!(tree.sides.is_some_and(|sides| sides.0.set.len() == 2 && sides.1.set.len() == 2));
    });
}

#[test]
fn other_joins_keep_what_they_read_below_them() {
    // r0 - r1, a left join that reads r1, and one that reads the first's columns.
    let others = [(JoinType::Left, vec![relation(1)]), (JoinType::Left, vec!["other0".to_owned()])];
    let graph = JoinHypergraph::from_plan(&plan(2, &[(0, 1, Edge::Key)], &others)).unwrap();
    let (one, first, second) = (RelationSet::single(1), RelationSet::single(2), RelationSet::single(3));
    assert!(graph.joins(one, first) && graph.joins(one.union(first), second));
    assert!(!graph.joins(one, second) && !graph.joins(RelationSet::single(0), first));
    assert_eq!(graph.dependents[1].base, RelationSet::all(3).minus(RelationSet::single(0)));
}

#[test]
fn keys_on_the_columns_of_a_left_join_make_it_a_relation() {
    let left = plan(1, &[], &[(JoinType::Left, vec![relation(0)])]);
    let condition = col("other0.c0").eq(col("r001.c0"));
    let right = scan(&relation(1), 1);
    let plan = LogicalPlanBuilder::from(left).join_on(right, JoinType::Inner, [condition]).unwrap().build().unwrap();
    let graph = JoinHypergraph::from_plan(&plan).unwrap();
    assert_eq!((graph.inner.relations.len(), graph.dependents.len()), (2, 0));
    assert!(graph.joins(RelationSet::single(0), RelationSet::single(1)));
}
