//! Tables, graphs and queries as the columns of one record batch each.

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, ListArray, PrimitiveArray, RecordBatch, StringArray, UInt32Array,
};
use datafusion::arrow::buffer::{OffsetBuffer, ScalarBuffer};
use datafusion::arrow::datatypes::{ArrowPrimitiveType, Field, Float32Type, Float64Type, UInt8Type, UInt32Type};
use datafusion::error::DataFusionError;
use smallvec::SmallVec;

use super::{LabelledGraph, TracedQuery};
use crate::Result;
use crate::graph::{Edge, EmbeddingRef, FeatureGraph, Node, NodeKind};
use crate::relative::{CELL_FEATURES, COLUMN_STATISTICS, TABLE_STATISTICS, TableInput};

/// A list column, one list per row.
pub(crate) struct Lists<T: ArrowPrimitiveType> {
    values: Vec<T::Native>,
    lengths: Vec<usize>,
}

impl<T: ArrowPrimitiveType> Lists<T> {
    pub(crate) fn new() -> Self {
        Self { values: Vec::new(), lengths: Vec::new() }
    }

    pub(crate) fn push(&mut self, values: impl IntoIterator<Item = T::Native>) {
        let before = self.values.len();
        self.values.extend(values);
        self.lengths.push(self.values.len() - before);
    }

    pub(crate) fn finish(self) -> ArrayRef {
        let field = Arc::new(Field::new_list_field(T::DATA_TYPE, false));
        let values = PrimitiveArray::<T>::new(ScalarBuffer::from(self.values), None);
        Arc::new(ListArray::new(field, OffsetBuffer::from_lengths(self.lengths), Arc::new(values), None))
    }
}

/// The lists of a column that [`Lists`] wrote.
pub(crate) fn lists<T: ArrowPrimitiveType>(batch: &RecordBatch, name: &str) -> Option<Vec<Vec<T::Native>>> {
    let array = batch.column_by_name(name)?.as_list_opt::<i32>()?;
    array.iter().map(|list| Some(list?.as_primitive_opt::<T>()?.values().to_vec())).collect()
}

pub(crate) fn numbers(batch: &RecordBatch, name: &str) -> Option<Vec<u32>> {
    Some(batch.column_by_name(name)?.as_primitive_opt::<UInt32Type>()?.values().to_vec())
}

pub(crate) fn batch(columns: Vec<(&str, ArrayRef)>) -> Result<RecordBatch> {
    Ok(RecordBatch::try_from_iter(columns).map_err(DataFusionError::from)?)
}

pub(crate) fn tables(tables: &[TableInput]) -> Result<RecordBatch> {
    let (mut cells, mut shares) = (Lists::<Float32Type>::new(), Lists::<Float32Type>::new());
    let (mut columns, mut table) = (Lists::<Float32Type>::new(), Lists::<Float32Type>::new());
    for input in tables {
        cells.push(input.cells.iter().copied());
        shares.push(input.shares.iter().copied());
        columns.push(input.column_statistics.iter().copied());
        table.push(input.table_statistics.iter().copied());
    }
    let sizes =
        |size: fn(&TableInput) -> usize| Arc::new(UInt32Array::from_iter_values(tables.iter().map(|t| size(t) as u32)));
    batch(vec![
        ("rows", sizes(|t| t.rows)),
        ("columns", sizes(|t| t.columns)),
        ("cells", cells.finish()),
        ("shares", shares.finish()),
        ("column_statistics", columns.finish()),
        ("table_statistics", table.finish()),
    ])
}

pub(crate) fn read_tables(batch: &RecordBatch) -> Option<Vec<TableInput>> {
    let (rows, columns) = (numbers(batch, "rows")?, numbers(batch, "columns")?);
    let mut cells = lists::<Float32Type>(batch, "cells")?;
    let mut shares = lists::<Float32Type>(batch, "shares")?;
    let mut statistics = lists::<Float32Type>(batch, "column_statistics")?;
    let mut table = lists::<Float32Type>(batch, "table_statistics")?;
    (0..batch.num_rows())
        .map(|i| {
            let (rows, columns) = (rows[i] as usize, columns[i] as usize);
            let input = TableInput {
                rows,
                columns,
                cells: std::mem::take(&mut cells[i]),
                shares: std::mem::take(&mut shares[i]),
                column_statistics: std::mem::take(&mut statistics[i]),
                table_statistics: std::mem::take(&mut table[i]),
            };
            let fits = input.cells.len() == rows * columns * CELL_FEATURES
                && input.shares.len() == rows
                && input.column_statistics.len() == columns * COLUMN_STATISTICS
                && input.table_statistics.len() == TABLE_STATISTICS;
            fits.then_some(input)
        })
        .collect()
}

/// The kinds of embeddings in the `embedding` column: none, table, column.
const NO_EMBEDDING: u32 = u32::MAX;

pub(super) fn graphs(graphs: &[LabelledGraph]) -> Result<RecordBatch> {
    let mut kinds = Lists::<UInt8Type>::new();
    let mut features = Lists::<Float32Type>::new();
    let (mut tables, mut columns) = (Lists::<UInt32Type>::new(), Lists::<UInt32Type>::new());
    let (mut degrees, mut inputs, mut roles) =
        (Lists::<UInt32Type>::new(), Lists::<UInt32Type>::new(), Lists::<UInt8Type>::new());
    let (mut bases, mut labels) = (Lists::<Float32Type>::new(), Lists::<Float32Type>::new());
    for labelled in graphs {
        let nodes = &labelled.graph.nodes;
        kinds.push(nodes.iter().map(|n| n.kind as u8));
        features.push(nodes.iter().flat_map(|n| n.features.iter().copied()));
        tables.push(nodes.iter().map(|n| match n.embedding {
            EmbeddingRef::None => NO_EMBEDDING,
            EmbeddingRef::Table { table } | EmbeddingRef::Column { table, .. } => table,
        }));
        columns.push(nodes.iter().map(|n| match n.embedding {
            EmbeddingRef::Column { column, .. } => column,
            _ => NO_EMBEDDING,
        }));
        degrees.push(nodes.iter().map(|n| n.inputs.len() as u32));
        inputs.push(nodes.iter().flat_map(|n| n.inputs.iter().map(|e| e.input)));
        roles.push(nodes.iter().flat_map(|n| n.inputs.iter().map(|e| e.role)));
        bases.push(nodes.iter().map(|n| n.base.unwrap_or(f32::NAN)));
        labels.push(labelled.labels.iter().map(|label| label.unwrap_or(f32::NAN)));
    }
    let relations = UInt32Array::from_iter_values(graphs.iter().map(|g| g.relations));
    batch(vec![
        ("kinds", kinds.finish()),
        ("features", features.finish()),
        ("tables", tables.finish()),
        ("columns", columns.finish()),
        ("degrees", degrees.finish()),
        ("inputs", inputs.finish()),
        ("roles", roles.finish()),
        ("bases", bases.finish()),
        ("labels", labels.finish()),
        ("relations", Arc::new(relations)),
    ])
}

pub(super) fn read_graphs(batch: &RecordBatch) -> Option<Vec<LabelledGraph>> {
    let kinds = lists::<UInt8Type>(batch, "kinds")?;
    let features = lists::<Float32Type>(batch, "features")?;
    let tables = lists::<UInt32Type>(batch, "tables")?;
    let columns = lists::<UInt32Type>(batch, "columns")?;
    let degrees = lists::<UInt32Type>(batch, "degrees")?;
    let inputs = lists::<UInt32Type>(batch, "inputs")?;
    let roles = lists::<UInt8Type>(batch, "roles")?;
    let bases = lists::<Float32Type>(batch, "bases")?;
    let labels = lists::<Float32Type>(batch, "labels")?;
    let relations = numbers(batch, "relations")?;
    let known = |value: &f32| (!value.is_nan()).then_some(*value);
    (0..batch.num_rows())
        .map(|i| {
            let mut graph = FeatureGraph::default();
            let (mut feature, mut edge) = (0, 0);
            for (n, &kind) in kinds[i].iter().enumerate() {
                let kind = NodeKind::from_u8(kind)?;
                let own = features[i].get(feature..feature + kind.features())?;
                feature += kind.features();
                let end = edge + *degrees[i].get(n)? as usize;
                let edges: SmallVec<[Edge; 4]> = inputs[i]
                    .get(edge..end)?
                    .iter()
                    .zip(roles[i].get(edge..end)?)
                    .map(|(&input, &role)| Edge { input, role })
                    .collect();
                edge = end;
                let (table, column) = (*tables[i].get(n)?, *columns[i].get(n)?);
                let embedding = match (table, column) {
                    (NO_EMBEDDING, _) => EmbeddingRef::None,
                    (table, NO_EMBEDDING) => EmbeddingRef::Table { table },
                    (table, column) => EmbeddingRef::Column { table, column },
                };
                let base = bases[i].get(n).and_then(known);
                graph.nodes.push(Node { kind, features: SmallVec::from_slice(own), inputs: edges, embedding, base });
            }
            let labels: Vec<Option<f32>> = labels[i].iter().map(known).collect();
            (graph.is_valid() && labels.len() == graph.nodes.len()).then_some(LabelledGraph {
                graph,
                labels,
                relations: relations[i],
            })
        })
        .collect()
}

pub(super) fn queries(queries: &[TracedQuery]) -> Result<RecordBatch> {
    let texts =
        |text: fn(&TracedQuery) -> &str| Arc::new(StringArray::from_iter_values(queries.iter().map(text))) as ArrayRef;
    let rows = |rows: fn(&TracedQuery) -> f64| Arc::new(Float64Array::from_iter_values(queries.iter().map(rows)));
    let fields = vec![
        ("kind", texts(|query| &query.kind), false),
        ("sql", texts(|query| &query.sql), false),
        ("joined", rows(|query| query.joined) as ArrayRef, false),
        ("rows", rows(|query| query.rows), false),
        ("answer", Arc::new(queries.iter().map(|query| query.answer).collect::<Float64Array>()), true),
    ];
    Ok(RecordBatch::try_from_iter_with_nullable(fields).map_err(DataFusionError::from)?)
}

pub(super) fn read_queries(batch: &RecordBatch) -> Option<Vec<TracedQuery>> {
    let texts = |name: &str| batch.column_by_name(name)?.as_string_opt::<i32>();
    let numbers = |name: &str| batch.column_by_name(name)?.as_primitive_opt::<Float64Type>();
    let (kinds, statements) = (texts("kind")?, texts("sql")?);
    let (joined, rows, answers) = (numbers("joined")?, numbers("rows")?, numbers("answer")?);
    let query = |i: usize| TracedQuery {
        kind: kinds.value(i).to_owned(),
        sql: statements.value(i).to_owned(),
        joined: joined.value(i),
        rows: rows.value(i),
        answer: answers.is_valid(i).then(|| answers.value(i)),
    };
    Some((0..batch.num_rows()).map(query).collect())
}
