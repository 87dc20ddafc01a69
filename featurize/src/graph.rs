//! Feature graphs: typed nodes, edges towards the inputs, plain arrays.
//!
//! A [`FeatureGraph`] is what the logical-plan expert reads. Its nodes are stored in topological order (inputs before the
//! nodes that read them), so one pass from the front is bottom-up message passing.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

/// Version of the node kinds, their features and the relative encoding. Weights and traces of another layout are refused.
pub const LAYOUT_VERSION: u32 = 3;

/// The types of nodes, after the heterogeneous plan graph of the foundation database model (section 3.1 of the seed
/// paper, figure 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(u8)]
pub enum NodeKind {
    /// A base table; initialised by the data expert's table embedding. No inputs.
    Table,
    /// A column that the query reads; initialised by the data expert's column embedding. No inputs.
    Column,
    /// One conjunct of a filter. Role 0: the columns it reads.
    Predicate,
    /// The rows of one relation that pass its filters. Role 0: the table, role 1: the predicates.
    Filter,
    /// An inner equi-join of a set of relations with one more. Role 0: the set, role 1: the relation, role 2: key columns.
    Join,
    /// GROUP BY or DISTINCT. Role 0: the input, role 1: the group columns.
    Aggregate,
    /// ORDER BY and LIMIT. Role 0: the input.
    Limit,
}

impl NodeKind {
    /// Every kind, in the order of its discriminant.
    pub const ALL: [NodeKind; 7] = [
        NodeKind::Table,
        NodeKind::Column,
        NodeKind::Predicate,
        NodeKind::Filter,
        NodeKind::Join,
        NodeKind::Aggregate,
        NodeKind::Limit,
    ];

    /// Number of features of a node of this kind.
    pub const fn features(self) -> usize {
        match self {
            NodeKind::Table => 4,
            NodeKind::Column => 24,
            NodeKind::Predicate => 24,
            NodeKind::Filter => 12,
            NodeKind::Join => 28,
            NodeKind::Aggregate => 10,
            NodeKind::Limit => 4,
        }
    }

    /// Number of roles an input of this kind can have; inputs of one role are summed.
    pub const fn roles(self) -> usize {
        match self {
            NodeKind::Table | NodeKind::Column => 0,
            NodeKind::Predicate | NodeKind::Limit => 1,
            NodeKind::Filter | NodeKind::Aggregate => 2,
            NodeKind::Join => 3,
        }
    }

    /// Whether nodes of this kind are initialised by an embedding of the data expert.
    pub const fn embedded(self) -> bool {
        matches!(self, NodeKind::Table | NodeKind::Column)
    }

    /// Whether the cardinality head reads nodes of this kind.
    pub const fn estimated(self) -> bool {
        matches!(self, NodeKind::Filter | NodeKind::Join | NodeKind::Aggregate)
    }

    /// The kind with this discriminant.
    pub fn from_u8(value: u8) -> Option<Self> {
        Self::ALL.get(usize::from(value)).copied()
    }
}

/// Which embedding of the data expert initialises a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EmbeddingRef {
    /// No embedding.
    None,
    /// The table embedding of table `table` of the graph's table list.
    Table {
        /// Index into the table list.
        table: u32,
    },
    /// The embedding of column `column` of table `table`.
    Column {
        /// Index into the table list.
        table: u32,
        /// Index of the column in the table's schema.
        column: u32,
    },
}

/// An input of a node: the index of the input and its role (see [`NodeKind`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Edge {
    /// Index of the input node; smaller than the index of the node itself.
    pub input: u32,
    /// Role of the input, below [`NodeKind::roles`].
    pub role: u8,
}

/// One node.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Its type.
    pub kind: NodeKind,
    /// `[NodeKind::features]` finite numbers, most of them within a few units of zero.
    pub features: SmallVec<[f32; 28]>,
    /// Its inputs, all of them earlier in the graph.
    pub inputs: SmallVec<[Edge; 4]>,
    /// The embedding that initialises it.
    pub embedding: EmbeddingRef,
    /// `ln(max(1, rows))` of the analytical estimate, which the cardinality head corrects; `None` where the kind has no
    /// estimate.
    pub base: Option<f32>,
}

/// A plan as typed nodes in topological order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FeatureGraph {
    /// The nodes, inputs first.
    pub nodes: Vec<Node>,
}

impl FeatureGraph {
    /// Adds a node and returns its index.
    pub fn push(&mut self, node: Node) -> u32 {
        debug_assert_eq!(node.features.len(), node.kind.features());
        debug_assert!(node.inputs.iter().all(|edge| (edge.input as usize) < self.nodes.len()));
        self.nodes.push(node);
        self.nodes.len() as u32 - 1
    }

    /// The level of each node: 0 without inputs, else one more than its highest input. `[N]`
    pub fn levels(&self) -> Vec<u32> {
        let mut levels: Vec<u32> = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let level = node.inputs.iter().map(|edge| levels[edge.input as usize] + 1).max().unwrap_or(0);
            levels.push(level);
        }
        levels
    }

    /// Whether every node is well formed: feature counts, finite features, roles and edges that point backwards.
    pub fn is_valid(&self) -> bool {
        self.nodes.iter().enumerate().all(|(index, node)| {
            node.features.len() == node.kind.features()
                && node.features.iter().all(|value| value.is_finite())
                && node.base.is_none_or(f32::is_finite)
                && node.inputs.iter().all(|e| (e.input as usize) < index && usize::from(e.role) < node.kind.roles())
        })
    }
}
