//! A query's joins and filters -> [`FeatureGraph`].
//!
//! One definition of every node's features, used twice: [`query_graph`] writes whole graphs for training, and the optimizer
//! asks for one relation ([`relation_graph`]) or one join ([`join_features`]) at a time while it enumerates join orders.

use std::sync::Arc;

use smallvec::{SmallVec, smallvec};

use crate::analytical::{JoinEstimator, JoinKeys, SetEstimate};
use crate::graph::{Edge, EmbeddingRef, FeatureGraph, Node, NodeKind};
use crate::groups::{GroupColumn, GroupEstimate};
use crate::join_graph::RelationSet;
use crate::key_sample::KeyCorrelation;
use crate::profile::TableProfile;
use crate::relative::{column_statistics, table_statistics};
use crate::selectivity::{FilterEstimate, PredicateEstimate, PredicateKind};

/// The tables that a graph's [`EmbeddingRef`] points into.
#[derive(Debug, Clone, Default)]
pub struct Tables {
    /// One entry per distinct profile.
    pub profiles: Vec<Arc<TableProfile>>,
}

impl Tables {
    /// Index of a profile, which is added when it is new.
    pub fn index(&mut self, profile: &Arc<TableProfile>) -> u32 {
        let found = self.profiles.iter().position(|p| Arc::ptr_eq(p, profile));
        found.unwrap_or_else(|| {
            self.profiles.push(Arc::clone(profile));
            self.profiles.len() - 1
        }) as u32
    }
}

/// `ln(max(1, rows))`: the base and label of a node.
pub fn log_rows(rows: f64) -> f32 {
    rows.max(1.0).ln() as f32
}

/// The feature form of a count: `ln(1 + count) / 10`.
pub(crate) fn count(value: f64) -> f32 {
    ((1.0 + value.clamp(0.0, 1e30)).ln() / 10.0) as f32
}

/// The feature form of a share: `ln(share) / 10`, at least -2.
pub(crate) fn share(value: f64) -> f32 {
    (value.clamp(2.1e-9, 1e9).ln() / 10.0) as f32
}

pub(crate) fn flag(value: bool) -> f32 {
    f32::from(u8::from(value))
}

fn features(kind: NodeKind, values: &[f32]) -> SmallVec<[f32; 32]> {
    let mut features: SmallVec<[f32; 32]> =
        values.iter().map(|v| if v.is_finite() { v.clamp(-10.0, 10.0) } else { 0.0 }).collect();
    debug_assert!(features.len() <= kind.features());
    features.resize(kind.features(), 0.0);
    features
}

/// Adds the column node of a profiled table.
fn push_column(graph: &mut FeatureGraph, table: u32, profile: &TableProfile, column: usize) -> u32 {
    let embedding = EmbeddingRef::Column { table, column: column as u32 };
    if let Some(found) = graph.nodes.iter().position(|node| node.embedding == embedding) {
        return found as u32;
    }
    graph.push(Node {
        kind: NodeKind::Column,
        features: column_features(profile, column),
        inputs: SmallVec::new(),
        embedding,
        base: None,
    })
}

/// Features of a column node. `[NodeKind::Column.features()]`
pub fn column_features(profile: &TableProfile, column: usize) -> SmallVec<[f32; 32]> {
    features(NodeKind::Column, &column_statistics(&profile.columns[column]))
}

fn predicate_features(predicate: &PredicateEstimate, sample_rows: usize) -> SmallVec<[f32; 32]> {
    let mut values = [0.0; 24];
    values[predicate.kind as usize] = 1.0;
    let rest = &mut values[PredicateKind::COUNT..];
    if let Some((low, high)) = predicate.literals {
        rest[..3].copy_from_slice(&[1.0, low, high]);
    }
    rest[3] = count(predicate.literal_count as f64);
    if let Some(sketch) = predicate.sketch {
        rest[4] = 1.0;
        rest[5] = share(sketch);
    }
    if let Some(matches) = predicate.matches {
        rest[6] = 1.0;
        rest[7] = count(matches as f64);
        rest[8] = flag(matches == 0);
        rest[9] = share((matches as f64 + 0.5) / (sample_rows as f64 + 1.0));
    }
    rest[10] = share(predicate.selectivity);
    rest[11] = flag(predicate.columns.len() > 1);
    features(NodeKind::Predicate, &values)
}

/// The features of a filter node that say whether its rows are exact, and how many conjuncts it has.
const EXACT: usize = 7;
const PREDICATES: usize = 9;

fn filter_features(filter: &FilterEstimate) -> SmallVec<[f32; 32]> {
    features(
        NodeKind::Filter,
        &[
            count(filter.base_rows),
            count(filter.rows),
            share(filter.rows / filter.base_rows.max(1.0)),
            share(filter.independent),
            share(filter.prior),
            count(filter.matches as f64),
            flag(filter.matches == 0),
            flag(filter.exact),
            count(filter.sample_rows as f64),
            count(filter.predicates.len() as f64),
            count(filter.bound),
            share(filter.rows / filter.bound.max(1e-9)),
        ],
    )
}

/// Whether the rows of a node are known, so that no correction of them is read: those of a filter that ran on a whole table,
/// and of a table without filters.
pub fn is_known(node: &Node) -> bool {
    node.kind == NodeKind::Filter && (node.features[EXACT] > 0.0 || node.features[PREDICATES] <= 0.0)
}

/// The graph of one profiled relation under its filters; the filter node is the last. `None` when it has no profile.
pub fn relation_graph(estimator: &JoinEstimator<'_>, relation: usize, tables: &mut Tables) -> Option<FeatureGraph> {
    let mut graph = FeatureGraph::default();
    push_relation(&mut graph, estimator, relation, tables)?;
    Some(graph)
}

fn push_relation(
    graph: &mut FeatureGraph,
    estimator: &JoinEstimator<'_>,
    relation: usize,
    tables: &mut Tables,
) -> Option<u32> {
    let estimate = &estimator.relations[relation];
    let (profile, filter) = estimate.profile.as_ref().zip(estimate.filter.as_ref())?;
    let table = tables.index(profile);
    let embedding = EmbeddingRef::Table { table };
    let found = graph.nodes.iter().position(|node| node.embedding == embedding);
    let table_node = found.map_or_else(
        || {
            graph.push(Node {
                kind: NodeKind::Table,
                features: features(NodeKind::Table, &table_statistics(profile)),
                inputs: SmallVec::new(),
                embedding,
                base: None,
            })
        },
        |found| found as u32,
    );
    let mut inputs: SmallVec<[Edge; 4]> = smallvec![Edge { input: table_node, role: 0 }];
    for predicate in &filter.predicates {
        let columns = predicate.columns.iter();
        let columns = columns.map(|&c| Edge { input: push_column(graph, table, profile, c), role: 0 }).collect();
        let node = graph.push(Node {
            kind: NodeKind::Predicate,
            features: predicate_features(predicate, filter.sample_rows),
            inputs: columns,
            embedding: EmbeddingRef::None,
            base: None,
        });
        inputs.push(Edge { input: node, role: 1 });
    }
    Some(graph.push(Node {
        kind: NodeKind::Filter,
        features: filter_features(filter),
        inputs,
        embedding: EmbeddingRef::None,
        base: Some(log_rows(estimate.rows)),
    }))
}

/// Features of the join of `set` with `relation`. `[NodeKind::Join.features()]`
pub fn join_features(
    estimator: &JoinEstimator<'_>,
    set: RelationSet,
    left: &SetEstimate,
    relation: usize,
    joined: &SetEstimate,
    keys: &JoinKeys,
) -> SmallVec<[f32; 32]> {
    let right = estimator.single(relation);
    let of_keys = evidence_features(keys.correlation);
    let of_synopsis = evidence_features(keys.synopsis);
    features(
        NodeKind::Join,
        &[
            count(joined.rows),
            count(joined.unfiltered),
            count(joined.bound),
            share(joined.rows / joined.bound.max(1e-9)),
            count(left.rows),
            count(right.rows),
            share(left.rows / left.unfiltered.max(1e-9)),
            share(right.rows / right.unfiltered.max(1e-9)),
            count(keys.distinct_set),
            count(keys.distinct_relation),
            share(keys.distinct_set / keys.distinct_relation.max(1.0)),
            count(keys.max_set),
            count(keys.max_relation),
            count(keys.skew_set),
            count(keys.skew_relation),
            keys.null_set as f32,
            keys.null_relation as f32,
            flag(keys.max_set <= 1.0),
            flag(keys.max_relation <= 1.0),
            keys.count as f32 / 2.0,
            flag(keys.same_table),
            set.len() as f32 / 5.0,
            share(keys.selectivity),
            share(joined.unfiltered / (left.unfiltered.max(right.unfiltered)).max(1.0)),
            of_keys[0],
            of_keys[1],
            of_keys[2],
            of_keys[3],
            of_synopsis[0],
            of_synopsis[1],
            of_synopsis[2],
            of_synopsis[3],
        ],
    )
}

/// Whether there is evidence of how two sides go together, its factor, and the matches found and expected.
fn evidence_features(evidence: Option<KeyCorrelation>) -> [f32; 4] {
    evidence
        .map_or([0.0; 4], |evidence| [1.0, share(evidence.factor), count(evidence.matched), count(evidence.expected)])
}

/// The columns that join `set` with `relation`, as relation and column of its table; role 2 of the join node.
pub fn join_columns(estimator: &JoinEstimator<'_>, set: RelationSet, relation: usize) -> SmallVec<[(usize, usize); 4]> {
    let keys = estimator.graph.keys_between(set, RelationSet::single(relation));
    let both = keys.iter().flat_map(|(left, right)| [left, right]);
    both.filter_map(|member| Some((member.relation, member.column?))).collect()
}

/// Features of an aggregate node. `[NodeKind::Aggregate.features()]`
pub fn aggregate_features(rows: f64, groups: &GroupEstimate, columns: usize) -> SmallVec<[f32; 32]> {
    features(
        NodeKind::Aggregate,
        &[
            count(rows),
            count(groups.rows),
            count(groups.product),
            count(groups.combinations),
            count(groups.bound),
            share(groups.rows / rows.max(1e-9)),
            share(groups.rows / groups.combinations.max(1e-9)),
            columns as f32 / 3.0,
        ],
    )
}

/// Sets of one query's relations and the nodes that stand for them.
#[derive(Debug, Clone)]
pub struct QueryGraph {
    /// The graph.
    pub graph: FeatureGraph,
    /// The node of each set.
    pub sets: Vec<(RelationSet, u32)>,
    /// The aggregate's node.
    pub aggregate: Option<u32>,
}

/// The graph of a query: one filter node per relation, one join node per set of `sets` (connected sets, smaller ones first;
/// the rest of each set's canonical decomposition must come before it), and an aggregate over the whole when
/// `group_columns` are given. `None` when a relation has no profile.
pub fn query_graph(
    estimator: &JoinEstimator<'_>,
    sets: &[RelationSet],
    group_columns: Option<&[GroupColumn]>,
    tables: &mut Tables,
) -> Option<QueryGraph> {
    let mut graph = FeatureGraph::default();
    let mut nodes: Vec<(RelationSet, u32)> = Vec::new();
    let mut estimates: Vec<SetEstimate> = Vec::new();
    for relation in 0..estimator.relations.len() {
        nodes.push((RelationSet::single(relation), push_relation(&mut graph, estimator, relation, tables)?));
        estimates.push(estimator.single(relation));
    }
    for &set in sets.iter().filter(|set| set.len() > 1) {
        let relation = estimator.graph.last(set);
        let rest = set.minus(RelationSet::single(relation));
        let left = nodes.iter().position(|(s, _)| *s == rest)?;
        let (joined, keys) = estimator.extend(rest, &estimates[left], relation);
        let mut inputs: SmallVec<[Edge; 4]> =
            smallvec![Edge { input: nodes[left].1, role: 0 }, Edge { input: nodes[relation].1, role: 1 }];
        for (owner, column) in join_columns(estimator, rest, relation) {
            let profile = estimator.relations[owner].profile.as_ref()?;
            let table = tables.index(profile);
            inputs.push(Edge { input: push_column(&mut graph, table, profile, column), role: 2 });
        }
        let node = graph.push(Node {
            kind: NodeKind::Join,
            features: join_features(estimator, rest, &estimates[left], relation, &joined, &keys),
            inputs,
            embedding: EmbeddingRef::None,
            base: Some(log_rows(joined.rows)),
        });
        nodes.push((set, node));
        estimates.push(joined);
    }
    let aggregate = match group_columns {
        None => None,
        Some(columns) => {
            let whole = nodes.iter().position(|(set, _)| *set == estimator.graph.all())?;
            let rows = estimates[whole].rows;
            let groups = crate::groups::estimate_groups(estimator, rows, columns);
            let mut inputs: SmallVec<[Edge; 4]> = smallvec![Edge { input: nodes[whole].1, role: 0 }];
            for group in columns {
                let profile = estimator.relations[group.relation].profile.as_ref()?;
                let table = tables.index(profile);
                inputs.push(Edge { input: push_column(&mut graph, table, profile, group.column), role: 1 });
            }
            Some(graph.push(Node {
                kind: NodeKind::Aggregate,
                features: aggregate_features(rows, &groups, columns.len()),
                inputs,
                embedding: EmbeddingRef::None,
                base: Some(log_rows(groups.rows)),
            }))
        }
    };
    Some(QueryGraph { graph, sets: nodes, aggregate })
}
