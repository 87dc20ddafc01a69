//! Plans as a schedule: which nodes of which graphs one MLP call serves, and from where each role gathers its inputs.
//!
//! Nodes of many graphs are ordered by (level, kind). A group reads only states of earlier groups, so a forward pass over
//! the groups is bottom-up message passing (seed paper, section 3.1) in a handful of large products instead of one per node.
//! Inference and training walk the same schedule.

use relata_featurize::graph::{EmbeddingRef, FeatureGraph, NodeKind};

use crate::Result;
use crate::error::ExpertsError;

/// The inputs of one role: state `sources[e]` of the schedule is added to row `targets[e]` of the group. `[E]` each.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Gather {
    /// Rows of the state matrix `[N, D]`.
    pub sources: Vec<u32>,
    /// Rows of the group.
    pub targets: Vec<u32>,
}

impl Gather {
    /// Whether each of the `rows` rows of the group has exactly one input, in order, so that nothing needs adding up.
    pub fn is_one_to_one(&self, rows: usize) -> bool {
        self.targets.len() == rows && self.targets.iter().enumerate().all(|(row, &target)| row == target as usize)
    }
}

/// Nodes of one kind and level.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// Their kind.
    pub kind: NodeKind,
    /// Their level; groups of the same level do not read each other.
    pub level: u32,
    /// Row of the first of them in the state matrix.
    pub first: usize,
    /// Number of nodes.
    pub rows: usize,
    /// `[rows, F]`
    pub features: Vec<f32>,
    /// Row of the embedding matrix of each node, empty unless the kind is embedded. `[rows]`
    pub embeddings: Vec<u32>,
    /// One per role of the kind.
    pub roles: Vec<Gather>,
}

/// The groups of some graphs, in an order in which they can be computed.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Schedule {
    /// The groups, by level and kind.
    pub groups: Vec<Group>,
    /// Row in the state matrix of each node of each graph.
    pub positions: Vec<Vec<u32>>,
    /// N: number of nodes of all graphs.
    pub nodes: usize,
}

impl Schedule {
    /// Orders the nodes of `graphs`; `embedding_row` gives the row of the embedding matrix that initialises a node of graph
    /// number `.0`.
    ///
    /// # Errors
    ///
    /// [`ExpertsError::Graph`] if a graph is malformed, and any error of `embedding_row`.
    pub fn new<'a>(
        graphs: impl IntoIterator<Item = &'a FeatureGraph>,
        mut embedding_row: impl FnMut(usize, EmbeddingRef) -> Result<u32>,
    ) -> Result<Self> {
        let graphs: Vec<&FeatureGraph> = graphs.into_iter().collect();
        let mut order: Vec<(u32, NodeKind, u32, u32)> = Vec::new();
        for (number, graph) in graphs.iter().enumerate() {
            if !graph.is_valid() {
                return Err(ExpertsError::Graph(format!("graph {number} has misshaped nodes or forward edges")));
            }
            let levels = levels(graph);
            let nodes = graph.nodes.iter().zip(levels).enumerate();
            order.extend(nodes.map(|(index, (node, level))| (level, node.kind, number as u32, index as u32)));
        }
        order.sort_unstable();

        let mut positions: Vec<Vec<u32>> = graphs.iter().map(|graph| vec![0; graph.nodes.len()]).collect();
        for (position, &(_, _, graph, node)) in order.iter().enumerate() {
            positions[graph as usize][node as usize] = position as u32;
        }
        let mut schedule = Self { groups: Vec::new(), nodes: order.len(), positions };
        let mut first = 0;
        for members in order.chunk_by(|left, right| (left.0, left.1) == (right.0, right.1)) {
            let (level, kind, ..) = members[0];
            let mut group = Group {
                kind,
                level,
                first,
                rows: members.len(),
                features: Vec::with_capacity(members.len() * kind.features()),
                embeddings: Vec::new(),
                roles: vec![Gather::default(); kind.roles()],
            };
            for (row, &(_, _, graph, node)) in members.iter().enumerate() {
                let positions = &schedule.positions[graph as usize];
                let node = &graphs[graph as usize].nodes[node as usize];
                group.features.extend_from_slice(&node.features);
                if kind.embedded() {
                    group.embeddings.push(embedding_row(graph as usize, node.embedding)?);
                }
                for edge in &node.inputs {
                    let role = &mut group.roles[usize::from(edge.role)];
                    role.sources.push(positions[edge.input as usize]);
                    role.targets.push(row as u32);
                }
            }
            first += group.rows;
            schedule.groups.push(group);
        }
        Ok(schedule)
    }
}

/// The level of each node for scheduling: above all its inputs, and not below the place of its kind in a plan, so that for
/// instance all filters share a level whether or not they have predicates. `[N]`
fn levels(graph: &FeatureGraph) -> Vec<u32> {
    let mut levels: Vec<u32> = Vec::with_capacity(graph.nodes.len());
    for node in &graph.nodes {
        let place = match node.kind {
            NodeKind::Table | NodeKind::Column => 0,
            NodeKind::Predicate => 1,
            NodeKind::Filter => 2,
            NodeKind::Join | NodeKind::Aggregate | NodeKind::Limit => 3,
        };
        let above = node.inputs.iter().map(|edge| levels[edge.input as usize] + 1).max();
        levels.push(place.max(above.unwrap_or(0)));
    }
    levels
}

/// Number of joins at and below each node of a valid graph. `[N]`
pub fn joins(graph: &FeatureGraph) -> Vec<u32> {
    let mut joins: Vec<u32> = Vec::with_capacity(graph.nodes.len());
    for node in &graph.nodes {
        let below = node.inputs.iter().map(|edge| joins[edge.input as usize]);
        joins.push(if node.kind == NodeKind::Join {
            1 + below.fold(0, u32::saturating_add)
        } else {
            below.max().unwrap_or(0)
        });
    }
    joins
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn groups_read_only_earlier_groups() {
        let tables = [fixture::table(4, 3, 1), fixture::table(4, 2, 2)];
        let graphs = [fixture::graph(4, &tables, 1), fixture::graph(1, &tables, 2), FeatureGraph::default()];
        let schedule = Schedule::new(&graphs, |_, _| Ok(0)).unwrap();
        assert_eq!(schedule.nodes, graphs.iter().map(|graph| graph.nodes.len()).sum::<usize>());
        let mut first = 0;
        for group in &schedule.groups {
            assert_eq!(group.first, first);
            first += group.rows;
            assert_eq!(group.features.len(), group.rows * group.kind.features());
            assert!(group.roles.iter().flat_map(|role| &role.sources).all(|&source| (source as usize) < group.first));
        }
        assert_eq!(schedule.groups.iter().filter(|group| group.kind == NodeKind::Filter).count(), 1);
    }

    #[test]
    fn counts_joins() {
        let graph = fixture::graph(4, &[fixture::table(4, 3, 1)], 1);
        let joins = joins(&graph);
        assert_eq!(joins.last(), Some(&3));
        let of_kind =
            |kind| graph.nodes.iter().zip(&joins).filter(move |(node, _)| node.kind == kind).map(|(_, joins)| *joins);
        assert_eq!(of_kind(NodeKind::Join).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(of_kind(NodeKind::Filter).max(), Some(0));
    }

    #[test]
    fn refuses_malformed_graphs() {
        let mut graph = fixture::graph(2, &[fixture::table(4, 3, 1)], 1);
        graph.nodes[0].features[0] = f32::NAN;
        assert!(matches!(Schedule::new([&graph], |_, _| Ok(0)), Err(ExpertsError::Graph(_))));
    }
}
