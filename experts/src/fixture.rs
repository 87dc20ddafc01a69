//! Random but valid tables, graphs and weights, for tests, benches and the golden forward pass.

use relata_featurize::graph::{Edge, EmbeddingRef, FeatureGraph, Node, NodeKind};
use relata_featurize::relative::{BINS, CELL_FEATURES, COLUMN_STATISTICS, LOG_SCALE, TABLE_STATISTICS, TableInput};

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::config::{DataConfig, ExpertConfig, ParameterShape};
use crate::data::DataExpert;
use crate::heads::CardinalityQuantiles;
use crate::in_context::{Column, InContextPredictor, Labels, Prediction};
use crate::stack::ExpertStack;

/// A small deterministic stream of numbers (SplitMix64, Steele et al., OOPSLA 2014), the same on every platform.
#[derive(Debug, Clone)]
pub struct Noise(u64);

impl Noise {
    /// The stream of seed `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// Uniform in [0, 1).
    pub fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u64 << 24) as f32
    }

    /// Uniform below `bound`, which must not be 0.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.bits() % bound as u64) as usize
    }

    /// Uniform in [-1, 1), `[count]`.
    pub fn vector(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.unit() * 2.0 - 1.0).collect()
    }
}

/// A flat parameter vector of the scale of a trained one; no layer is zero.
pub fn parameters(shapes: &[ParameterShape], seed: u64) -> Vec<f32> {
    let mut noise = Noise::new(seed);
    let mut values = Vec::new();
    for parameter in shapes {
        let scale = (2.0 / parameter.shape[0] as f32).sqrt() * if parameter.shape.len() == 1 { 0.1 } else { 1.0 };
        values.extend(noise.vector(parameter.len()).into_iter().map(|value| value * scale));
    }
    values
}

/// A data expert whose embeddings have width `width`.
///
/// # Errors
///
/// None for a width that is not 0.
pub fn data_expert(width: usize, seed: u64) -> Result<DataExpert> {
    let config = DataConfig { width, ..DataConfig::default() };
    DataExpert::from_parameters(&config, &parameters(&config.parameters(), seed))
}

/// A stack whose states have width `width`, above a data expert of half that width.
///
/// # Errors
///
/// None for a width above 1.
pub fn stack(width: usize, seed: u64) -> Result<ExpertStack> {
    let config = ExpertConfig { embedding: width / 2, ..ExpertConfig::with_width(width) };
    let parameters = parameters(&config.parameters(), seed);
    ExpertStack::from_parameters(data_expert(width / 2, seed)?, &config, &parameters, &[])
}

/// A table of `columns` columns with `rows` - 1 groups of rows.
pub fn table(rows: usize, columns: usize, seed: u64) -> TableInput {
    let mut noise = Noise::new(seed);
    let mut unit = |count: usize| (0..count).map(|_| noise.unit()).collect::<Vec<_>>();
    let mut cells = unit(rows * columns * CELL_FEATURES);
    for cell in cells.chunks_exact_mut(CELL_FEATURES) {
        let total: f32 = cell[..BINS].iter().sum();
        cell[..BINS].iter_mut().for_each(|share| *share = (*share / total).max(1e-7).ln() / LOG_SCALE);
    }
    let mut shares = unit(rows);
    shares.iter_mut().take(1).for_each(|whole| *whole = 0.0);
    let total: f32 = shares.iter().sum::<f32>().max(1e-6);
    shares.iter_mut().for_each(|share| *share /= total);
    TableInput {
        rows,
        columns,
        cells,
        shares,
        column_statistics: unit(columns * COLUMN_STATISTICS),
        table_statistics: unit(TABLE_STATISTICS),
    }
}

/// The graph of a query that joins `relations` tables in a line, with one or two predicates on each, and groups the result.
///
/// Table `t` of the graph is table `t % tables.len()` of `tables`.
pub fn graph(relations: usize, tables: &[TableInput], seed: u64) -> FeatureGraph {
    let mut noise = Noise::new(seed);
    let mut graph = FeatureGraph::default();
    let mut add = |graph: &mut FeatureGraph, kind: NodeKind, inputs: &[(u32, u8)], embedding: EmbeddingRef| {
        let features = noise.vector(kind.features()).into_iter().collect();
        let inputs = inputs.iter().map(|&(input, role)| Edge { input, role }).collect();
        let base = kind.estimated().then(|| noise.unit() * 12.0);
        graph.push(Node { kind, features, inputs, embedding, base })
    };
    let mut relation_nodes = Vec::new();
    let mut keys = Vec::new();
    for relation in 0..relations {
        let table = relation % tables.len();
        let columns = tables[table].columns;
        let column = |index: usize| EmbeddingRef::Column { table: table as u32, column: (index % columns) as u32 };
        let input = add(&mut graph, NodeKind::Table, &[], EmbeddingRef::Table { table: table as u32 });
        let mut filter = vec![(input, 0)];
        for predicate in 0..=relation % 2 {
            let first = add(&mut graph, NodeKind::Column, &[], column(predicate));
            let second = add(&mut graph, NodeKind::Column, &[], column(predicate + 1));
            let inputs = [(first, 0), (second, 0)];
            filter.push((add(&mut graph, NodeKind::Predicate, &inputs[..=predicate], EmbeddingRef::None), 1));
        }
        relation_nodes.push(add(&mut graph, NodeKind::Filter, &filter, EmbeddingRef::None));
        keys.push(add(&mut graph, NodeKind::Column, &[], column(relation)));
    }
    let mut root = relation_nodes.first().copied().unwrap_or(0);
    for relation in 1..relations {
        let inputs = [(root, 0), (relation_nodes[relation], 1), (keys[relation - 1], 2), (keys[relation], 2)];
        root = add(&mut graph, NodeKind::Join, &inputs, EmbeddingRef::None);
    }
    if let Some(&key) = keys.first() {
        root = add(&mut graph, NodeKind::Aggregate, &[(root, 0), (key, 1)], EmbeddingRef::None);
        add(&mut graph, NodeKind::Limit, &[(root, 0)], EmbeddingRef::None);
    }
    graph
}

/// What an in-context predictor says of a fixed random table, as classes and as numbers: the golden forward pass of its weights.
///
/// # Errors
///
/// What [`InContextPredictor::prefill`] and [`crate::in_context::Prefilled::predict`] refuse.
pub fn golden_predictions(predictor: &InContextPredictor) -> Result<Vec<f32>> {
    let mut noise = Noise::new(11);
    let mut columns = |rows: usize| {
        let codes = noise.vector(rows).into_iter().map(|x| (x > -0.9).then_some((x.abs() * 4.0) as u32)).collect();
        vec![Column::Number(noise.vector(rows)), Column::Category(codes), Column::Number(noise.vector(rows))]
    };
    let (examples, rows) = (columns(24), columns(4));
    let numbers = match &examples[0] {
        Column::Number(numbers) => numbers.clone(),
        Column::Category(_) => vec![],
    };
    let classes = numbers.iter().map(|number| u32::from(*number > 0.1) + u32::from(*number > 0.6)).collect();
    let mut golden = vec![];
    for labels in [Labels::Classes { labels: classes, count: 3 }, Labels::Numbers(numbers)] {
        for prediction in predictor.prefill(&examples, &labels)?.predict(&rows)? {
            match prediction {
                Prediction::Classes(shares) => golden.extend(shares),
                Prediction::Numbers(quantiles) => golden.extend(quantiles),
            }
        }
    }
    Ok(golden)
}

/// What a stack says about a fixed random database and plan: the golden forward pass of a weight file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Golden {
    /// Embedding of the first table: `[D]`.
    pub table: Vec<f32>,
    /// Estimates of the nodes that have one.
    pub cardinalities: Vec<CardinalityQuantiles>,
}

impl Golden {
    /// Largest difference to another golden forward pass; infinite if they differ in shape.
    pub fn distance(&self, other: &Self) -> f32 {
        if (self.table.len(), self.cardinalities.len()) != (other.table.len(), other.cardinalities.len()) {
            return f32::INFINITY;
        }
        let numbers = |golden: &Self| {
            let quantiles = golden.cardinalities.iter().flat_map(|q| [q.lower, q.median, q.upper]);
            golden.table.iter().copied().chain(quantiles).collect::<Vec<f32>>()
        };
        let pairs = numbers(self).into_iter().zip(numbers(other));
        pairs.map(|(left, right)| (left - right).abs()).fold(0.0, f32::max)
    }
}

/// The golden forward pass of a stack.
///
/// # Errors
///
/// None for a stack of finite weights.
pub fn golden(stack: &ExpertStack) -> Result<Golden> {
    let tables = [table(40, 5, 1), table(7, 2, 2), table(100, 3, 3)];
    let embeddings = tables.iter().map(|table| stack.embed_table(table)).collect::<Result<Vec<_>>>()?;
    let estimates = stack.forward(&graph(3, &tables, 4), &embeddings)?;
    let cardinalities = estimates.cardinalities.into_iter().flatten().collect();
    Ok(Golden { table: embeddings[0].table.clone(), cardinalities })
}
