//! One training step's input as plain arrays: the embeddings of the tables of a few databases, and their graphs as one
//! schedule.

use std::collections::BTreeMap;

use rand::Rng;
use rand::rngs::StdRng;
use relata_featurize::graph::EmbeddingRef;
use relata_featurize::trace::{DatabaseTrace, LabelledGraph};

use crate::Result;
use crate::data::TableEmbedding;
use crate::error::ExpertsError;
use crate::heads::{JOIN_BUCKETS, RESIDUAL_LIMIT, join_bucket};
use crate::message_passing::Schedule;
use crate::stack::embedding;
use crate::train::data::{Chunk, targets};

/// One training step's input.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Batch {
    /// The embeddings that the graphs refer to, a row each; the first is zero. `[rows, D of the data expert]`
    pub embeddings: Vec<f32>,
    /// The graphs.
    pub schedule: Schedule,
    /// Rows of the state matrix that carry a label. `[L]`
    pub labelled: Vec<u32>,
    /// Label minus analytical estimate, in `ln` units, cut off at [`RESIDUAL_LIMIT`]. `[L]`
    pub residuals: Vec<f32>,
    /// Weights of the labels, with a sum of 1. `[L]`
    pub weights: Vec<f32>,
}

impl Batch {
    /// Assembles the batch of `chunks` of databases whose embedded tables are `tables`; a share `withheld` of the nodes, drawn by `random`, goes without an embedding.
    ///
    /// # Errors
    ///
    /// [`ExpertsError::Graph`] if a graph refers to a table or column that is not there.
    pub fn new(
        corpus: &[DatabaseTrace],
        tables: &[Vec<TableEmbedding>],
        chunks: &[Chunk],
        bucket_weights: &[f32; JOIN_BUCKETS],
        withheld: f32,
        random: &mut StdRng,
    ) -> Result<Self> {
        let members: Vec<(usize, &LabelledGraph)> = chunks
            .iter()
            .flat_map(|chunk| {
                let graphs = &corpus[chunk.database].graphs;
                chunk.graphs.iter().map(|&graph| (chunk.database, &graphs[graph]))
            })
            .collect();
        let width = tables.iter().flatten().map(|table| table.table.len()).next();
        let mut embeddings = Embeddings::new(width.unwrap_or(1));
        let schedule = Schedule::new(members.iter().map(|(_, graph)| &graph.graph), |graph, reference| {
            let database = members[graph].0;
            if random.random::<f32>() < withheld {
                return Ok(0);
            }
            embeddings.row(database, &tables[database], reference)
        })?;
        let mut batch = Self { embeddings: embeddings.values, schedule, ..Self::default() };
        for ((_, graph), positions) in members.iter().zip(&batch.schedule.positions) {
            for target in targets(graph) {
                batch.labelled.push(positions[target.node]);
                batch.residuals.push((target.label - target.base).clamp(-RESIDUAL_LIMIT, RESIDUAL_LIMIT));
                batch.weights.push(bucket_weights[join_bucket(target.joins as usize)]);
            }
        }
        let total: f32 = batch.weights.iter().sum();
        batch.weights.iter_mut().for_each(|weight| *weight /= total);
        Ok(batch)
    }
}

/// The matrix of the embeddings that are read, each once.
struct Embeddings {
    width: usize,
    values: Vec<f32>,
    /// By database, table, and column or the table itself.
    rows: BTreeMap<(usize, u32, Option<u32>), u32>,
}

impl Embeddings {
    fn new(width: usize) -> Self {
        Self { width, values: vec![0.0; width], rows: BTreeMap::new() }
    }

    fn row(&mut self, database: usize, tables: &[TableEmbedding], reference: EmbeddingRef) -> Result<u32> {
        let key = match reference {
            EmbeddingRef::None => return Ok(0),
            EmbeddingRef::Table { table } => (database, table, None),
            EmbeddingRef::Column { table, column } => (database, table, Some(column)),
        };
        if let Some(row) = self.rows.get(&key) {
            return Ok(*row);
        }
        let values = embedding(tables, reference)?
            .ok_or_else(|| ExpertsError::Graph("a reference without an embedding".to_owned()))?;
        let row = (self.values.len() / self.width) as u32;
        self.values.extend_from_slice(values);
        self.rows.insert(key, row);
        Ok(row)
    }
}
