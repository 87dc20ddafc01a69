//! One training step's input as plain arrays: the tables of a few databases stacked, and their graphs as one schedule.

use std::collections::BTreeMap;

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::index;
use relata_featurize::graph::EmbeddingRef;
use relata_featurize::relative::{CELL_FEATURES, COLUMN_STATISTICS, TableInput};
use relata_featurize::trace::{DatabaseTrace, LabelledGraph};

use crate::Result;
use crate::error::ExpertsError;
use crate::heads::{JOIN_BUCKETS, RESIDUAL_LIMIT, join_bucket};
use crate::message_passing::Schedule;
use crate::train::data::{Chunk, targets};

/// How much of a table one step sees.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TableSample {
    /// R: rows drawn from the table's sample.
    pub rows: usize,
    /// Columns drawn besides those that the graphs read, up to this number in all.
    pub columns: usize,
    /// Share of nodes whose embedding is withheld, below 1: dropout of whole embeddings. It is no ablation of the data
    /// expert, whose embeddings evaluation always reads.
    pub withheld: f32,
}

/// Tables stacked by column: T tables, C columns of all tables, R rows (short tables are padded).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TableBatch {
    /// T.
    pub tables: usize,
    /// C.
    pub columns: usize,
    /// R.
    pub rows: usize,
    /// `[C, R, CELL_FEATURES]`
    pub cells: Vec<f32>,
    /// `[C, COLUMN_STATISTICS]`
    pub column_statistics: Vec<f32>,
    /// `[T, TABLE_STATISTICS]`
    pub table_statistics: Vec<f32>,
    /// Mean over the rows of a column: one over its rows, zero where padded. `[C, R]`
    pub column_rows: Vec<f32>,
    /// Mean over the rows of a table. `[T, R]`
    pub table_rows: Vec<f32>,
    /// Mean over the columns of a table. `[T, C]`
    pub table_columns: Vec<f32>,
}

/// One training step's input.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Batch {
    /// The tables that the graphs refer to. Row `t` of the embedding matrix is table `t`, row `T + c` column `c`, and row
    /// `T + C` is zero.
    pub tables: TableBatch,
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
    /// Assembles the batch of `chunks`, drawing rows and columns of the tables by `random`.
    ///
    /// # Errors
    ///
    /// [`ExpertsError::Graph`] if a graph refers to a table or column that is not there.
    pub fn new(
        corpus: &[DatabaseTrace],
        chunks: &[Chunk],
        bucket_weights: &[f32; JOIN_BUCKETS],
        sample: TableSample,
        random: &mut StdRng,
    ) -> Result<Self> {
        let members: Vec<(usize, &LabelledGraph)> = chunks
            .iter()
            .flat_map(|chunk| chunk.graphs.iter().map(|&graph| (chunk.database, &corpus[chunk.database].graphs[graph])))
            .collect();
        let (tables, rows) = stack_tables(corpus, &members, sample, random)?;
        let zero = (tables.tables + tables.columns) as u32;
        let schedule = Schedule::new(members.iter().map(|(_, graph)| &graph.graph), |graph, reference| {
            let database = members[graph].0;
            if random.random::<f32>() < sample.withheld {
                return Ok(zero);
            }
            Ok(key(database, reference).and_then(|key| rows.get(&key).copied()).unwrap_or(zero))
        })?;
        let mut batch = Self { tables, schedule, ..Self::default() };
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

/// Database, table, and column or the table itself.
type Key = (usize, u32, Option<u32>);

fn key(database: usize, reference: EmbeddingRef) -> Option<Key> {
    match reference {
        EmbeddingRef::None => None,
        EmbeddingRef::Table { table } => Some((database, table, None)),
        EmbeddingRef::Column { table, column } => Some((database, table, Some(column))),
    }
}

/// Stacks the tables that `members` refer to; also the row of the embedding matrix of each table and column.
fn stack_tables(
    corpus: &[DatabaseTrace],
    members: &[(usize, &LabelledGraph)],
    sample: TableSample,
    random: &mut StdRng,
) -> Result<(TableBatch, BTreeMap<Key, u32>)> {
    // Columns that are read, per table; also of tables of which only a column is read.
    let mut read: BTreeMap<(usize, u32), Vec<u32>> = BTreeMap::new();
    for (database, graph) in members {
        for (database, table, column) in graph.graph.nodes.iter().filter_map(|node| key(*database, node.embedding)) {
            read.entry((database, table)).or_default().extend(column);
        }
    }
    let mut drawn: Vec<(&TableInput, Vec<u32>, Vec<usize>)> = Vec::with_capacity(read.len());
    let mut rows = BTreeMap::new();
    for (&(database, number), read) in &mut read {
        let missing = || ExpertsError::Graph(format!("{} has no table {number}", corpus[database].name));
        let table = corpus[database].tables.get(number as usize).ok_or_else(missing)?;
        let columns = draw_columns(table, read, sample.columns, random)?;
        rows.insert((database, number, None), drawn.len() as u32);
        drawn.push((table, columns, draw_rows(table.rows, sample.rows, random)));
    }
    let mut columns_before = drawn.len() as u32;
    for (&(database, number), (_, columns, _)) in read.keys().zip(&drawn) {
        for &column in columns {
            rows.insert((database, number, Some(column)), columns_before);
            columns_before += 1;
        }
    }
    Ok((TableBatch::new(&drawn), rows))
}

/// The columns in `read`, and random others up to `count` in all, in ascending order.
fn draw_columns(table: &TableInput, read: &mut Vec<u32>, count: usize, random: &mut StdRng) -> Result<Vec<u32>> {
    read.sort_unstable();
    read.dedup();
    if read.last().is_some_and(|&last| last as usize >= table.columns) {
        return Err(ExpertsError::Graph(format!("a column is read of a table with {}", table.columns)));
    }
    let mut others: Vec<u32> = (0..table.columns as u32).filter(|column| read.binary_search(column).is_err()).collect();
    while read.len() + others.len() > count.max(read.len()) {
        others.swap_remove(random.random_range(0..others.len()));
    }
    let mut columns = others;
    columns.extend_from_slice(read);
    columns.sort_unstable();
    Ok(columns)
}

fn draw_rows(rows: usize, count: usize, random: &mut StdRng) -> Vec<usize> {
    if rows <= count { (0..rows).collect() } else { index::sample(random, rows, count).into_vec() }
}

impl TableBatch {
    /// Stacks tables of which some columns and rows are drawn.
    fn new(drawn: &[(&TableInput, Vec<u32>, Vec<usize>)]) -> Self {
        let tables = drawn.len();
        let columns: usize = drawn.iter().map(|(_, columns, _)| columns.len()).sum();
        let rows = drawn.iter().map(|(.., rows)| rows.len()).max().unwrap_or(0);
        let mut batch = Self {
            tables,
            columns,
            rows,
            cells: vec![0.0; columns * rows * CELL_FEATURES],
            column_rows: vec![0.0; columns * rows],
            table_rows: vec![0.0; tables * rows],
            table_columns: vec![0.0; tables * columns],
            ..Self::default()
        };
        let mut position = 0;
        for (number, (table, drawn_columns, drawn_rows)) in drawn.iter().enumerate() {
            batch.table_statistics.extend_from_slice(&table.table_statistics);
            let mean = 1.0 / drawn_rows.len() as f32;
            batch.table_rows[number * rows..][..drawn_rows.len()].fill(mean);
            batch.table_columns[number * columns + position..][..drawn_columns.len()]
                .fill(1.0 / drawn_columns.len() as f32);
            for &column in drawn_columns {
                let column = column as usize;
                let statistics = &table.column_statistics[column * COLUMN_STATISTICS..][..COLUMN_STATISTICS];
                batch.column_statistics.extend_from_slice(statistics);
                batch.column_rows[position * rows..][..drawn_rows.len()].fill(mean);
                let cells = &mut batch.cells[position * rows * CELL_FEATURES..];
                for (cell, &row) in cells.chunks_exact_mut(CELL_FEATURES).zip(drawn_rows) {
                    cell.copy_from_slice(
                        &table.cells[(row * table.columns + column) * CELL_FEATURES..][..CELL_FEATURES],
                    );
                }
                position += 1;
            }
        }
        batch
    }
}
