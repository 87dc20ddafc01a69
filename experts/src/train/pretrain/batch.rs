//! One step's input as plain arrays: stacked tables, buckets to restore, and masked cells.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::index;
use relata_featurize::relative::{BINS, CELL_FEATURES, COLUMN_STATISTICS, RowSample, TableInput};
use relata_featurize::restoration::CountedHistogram;

use super::tasks::PreparedTable;
use crate::data::cells::{TARGETS, is_target, target_of};
use crate::data::context::{DISTANCES, PAIR_FEATURES, RowContext};
use crate::data::histogram::bucket_matrix;

/// Weight of an empty bucket that stands for many at most.
const MOST_WEIGHT: f32 = 4.0;

/// Some tables stacked by column: T tables, C columns of all tables, R rows (tables of fewer groups are padded).
#[derive(Debug, Clone, Default)]
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
    /// Share of each bin in the whole column. `[C, BINS]`
    pub whole: Vec<f32>,
    /// `[T, TABLE_STATISTICS]`
    pub table_statistics: Vec<f32>,
    /// `[T, R]`
    pub shares: Vec<f32>,
    /// Table of each column. `[C]`
    pub table_of: Vec<u32>,
    /// Mean over the columns of a table. `[T, C]`
    pub table_columns: Vec<f32>,
}

impl TableBatch {
    /// Stacks whole tables.
    pub fn new(inputs: &[&TableInput]) -> Self {
        let columns: usize = inputs.iter().map(|input| input.columns).sum();
        let rows = inputs.iter().map(|input| input.rows).max().unwrap_or(0);
        let mut batch = Self {
            tables: inputs.len(),
            columns,
            rows,
            cells: vec![0.0; columns * rows * CELL_FEATURES],
            shares: vec![0.0; inputs.len() * rows],
            table_columns: vec![0.0; inputs.len() * columns],
            ..Self::default()
        };
        for (number, input) in inputs.iter().enumerate() {
            let first = batch.table_of.len();
            batch.shares[number * rows..][..input.rows].copy_from_slice(&input.shares);
            batch.table_columns[number * columns + first..][..input.columns].fill(1.0 / input.columns as f32);
            batch.table_statistics.extend_from_slice(&input.table_statistics);
            for column in 0..input.columns {
                let cells = &mut batch.cells[(first + column) * rows * CELL_FEATURES..];
                for (row, cell) in cells.chunks_exact_mut(CELL_FEATURES).take(input.rows).enumerate() {
                    cell.copy_from_slice(
                        &input.cells[(row * input.columns + column) * CELL_FEATURES..][..CELL_FEATURES],
                    );
                }
                batch.whole.extend(input.log_shares(0, column).map(f32::exp));
                let statistics = &input.column_statistics[column * COLUMN_STATISTICS..][..COLUMN_STATISTICS];
                batch.column_statistics.extend_from_slice(statistics);
                batch.table_of.push(number as u32);
            }
        }
        debug_assert_eq!(batch.whole.len(), columns * BINS);
        batch
    }
}

/// Buckets to restore: E of them.
#[derive(Debug, Clone, Default)]
pub struct BucketBatch {
    /// The interval of each of up to five columns, as a row of the matrix of all intervals of all columns (see
    /// [`IntervalRows`]); the row after the last where a histogram has fewer columns. `[5][E]`
    pub intervals: [Vec<u32>; 5],
    /// Table of each bucket. `[E]`
    pub table_of: Vec<u32>,
    /// Mean over the columns of a bucket, as up to five (column, weight) pairs. `[5][E]`
    pub columns: [Vec<u32>; 5],
    /// One over the number of columns, for the columns it has; else 0. `[5][E]`
    pub column_weights: [Vec<f32>; 5],
    /// Number of columns. `[E]`
    pub dimensions: Vec<f32>,
    /// `ln(1 + rows)`. `[E]`
    pub targets: Vec<f32>,
    /// Weights with a sum of 1. `[E]`
    pub weights: Vec<f32>,
}

/// Where the intervals of a column start in the matrix of all intervals.
#[derive(Debug, Clone, Copy)]
pub struct IntervalRows {
    columns: usize,
}

impl IntervalRows {
    /// Numbers of buckets that occur, each once, in the order of the matrix.
    pub const RESOLUTIONS: [usize; 3] = [10, 5, 4];

    /// The matrix of `columns` columns.
    pub fn new(columns: usize) -> Self {
        Self { columns }
    }

    /// Bins -> buckets of every resolution: `[BINS, sum of (buckets + 1)]` as one matrix per resolution.
    pub fn matrices() -> [(usize, Vec<f32>); 3] {
        Self::RESOLUTIONS.map(|buckets| (buckets + 1, bucket_matrix(buckets)))
    }

    /// Row of a bucket of a column.
    fn row(self, column: usize, buckets: usize, bucket: usize) -> u32 {
        let before = Self::RESOLUTIONS.iter().take_while(|&&other| other != buckets);
        let first: usize = before.map(|other| (other + 1) * self.columns).sum();
        (first + column * (buckets + 1) + bucket) as u32
    }

    /// The row after the last, which is all ones.
    pub fn none(self) -> u32 {
        Self::RESOLUTIONS.iter().map(|buckets| (buckets + 1) * self.columns).sum::<usize>() as u32
    }
}

impl BucketBatch {
    /// Draws buckets of each table: of up to `histograms` histograms, up to `buckets` that have rows and as many that have
    /// none.
    pub fn draw(tables: &[&PreparedTable], histograms: usize, buckets: usize, random: &mut StdRng) -> Self {
        let mut batch = Self::default();
        let rows = IntervalRows::new(tables.iter().map(|table| table.task.input.columns).sum());
        let mut first_column = 0;
        for (number, table) in tables.iter().enumerate() {
            let all = &table.task.histograms;
            for chosen in index::sample(random, all.len(), histograms.min(all.len())) {
                let (histogram, empty) = (&all[chosen], &table.empty[chosen]);
                let filled = index::sample(random, histogram.counts.len(), buckets.min(histogram.counts.len()));
                let filled: Vec<(u32, u32)> = filled.into_iter().map(|index| histogram.counts[index]).collect();
                let weight = (histogram.counts.len() as f32 / filled.len().max(1) as f32).min(MOST_WEIGHT);
                let gaps = index::sample(random, empty.len(), buckets.min(empty.len()));
                let gaps: Vec<u32> = gaps.into_iter().map(|index| empty[index]).collect();
                let gap_weight = (empty.len() as f32 / gaps.len().max(1) as f32).min(MOST_WEIGHT);
                for (code, count) in filled {
                    batch.push(rows, number, first_column, histogram, code, (count as f32, weight));
                }
                for code in gaps {
                    batch.push(rows, number, first_column, histogram, code, (0.0, gap_weight));
                }
            }
            first_column += table.task.input.columns;
        }
        let total: f32 = batch.weights.iter().sum::<f32>().max(1e-6);
        batch.weights.iter_mut().for_each(|weight| *weight /= total);
        batch
    }

    fn push(
        &mut self,
        rows: IntervalRows,
        table: usize,
        first_column: usize,
        histogram: &CountedHistogram,
        code: u32,
        (count, weight): (f32, f32),
    ) {
        let dimensions = histogram.columns.len();
        let mut own = histogram.columns.iter().map(|&column| first_column + column as usize).zip(histogram.split(code));
        for position in 0..self.intervals.len() {
            let (interval, column, weight) = match own.next() {
                Some((column, bucket)) => {
                    (rows.row(column, histogram.buckets(), bucket), column as u32, 1.0 / dimensions as f32)
                }
                None => (rows.none(), 0, 0.0),
            };
            self.intervals[position].push(interval);
            self.columns[position].push(column);
            self.column_weights[position].push(weight);
        }
        self.table_of.push(table as u32);
        self.dimensions.push(dimensions as f32);
        self.targets.push(count.ln_1p());
        self.weights.push(weight);
    }
}

/// Masked cells of one column of one table: Q rows among R others.
#[derive(Debug, Clone, Default)]
pub struct CellBatch {
    /// Q.
    pub masked: usize,
    /// R.
    pub rows: usize,
    /// V: visible columns.
    pub visible: usize,
    /// `[V, PAIR_FEATURES]`
    pub pairs: Vec<f32>,
    /// `[Q, R, V * DISTANCES]`
    pub distances: Vec<f32>,
    /// One where a row's cell lies in an interval. `[R, TARGETS]`
    pub values: Vec<f32>,
    /// One for the intervals that are right. `[Q, TARGETS]`
    pub right: Vec<f32>,
    /// What the plane through the rows says. `[Q, TARGETS]`
    pub line: Vec<f32>,
    /// How sure it is, as the gate reads it.
    pub line_confidence: f32,
    /// Size of the context, as the gate reads it. `[2]`
    pub size: [f32; 2],
}

impl CellBatch {
    /// Masks a column of a table in `masked` rows, among at most `rows` others and with at most `visible` other columns;
    /// columns that follow from others are the likelier ones. `None` where a table has too few rows or columns.
    pub fn draw(
        table: &PreparedTable,
        masked: usize,
        rows: usize,
        visible: usize,
        random: &mut StdRng,
    ) -> Option<Self> {
        let weights: Vec<f32> = table.predictable.iter().map(|share| 0.02 + share.powi(4)).collect();
        let mut left = random.random::<f32>() * weights.iter().sum::<f32>();
        let target = weights.iter().position(|weight| {
            left -= weight;
            left < 0.0
        })?;
        let sample = &table.task.sample;
        if sample.rows < 20 || sample.columns < 2 {
            return None;
        }
        let masked = masked.min(sample.rows / 5);
        let order = index::sample(random, sample.rows, sample.rows.min(rows + masked)).into_vec();
        let (queries, others) = order.split_at(masked);
        let mut shown: Vec<usize> = (0..sample.columns).filter(|&column| column != target).collect();
        while shown.len() > visible {
            shown.swap_remove(random.random_range(0..shown.len()));
        }
        let kept: Vec<usize> = std::iter::once(target).chain(shown).collect();
        let take = |rows: &[usize]| RowSample {
            rows: rows.len(),
            columns: kept.len(),
            values: kept.iter().flat_map(|&c| rows.iter().map(move |&row| sample.column(c)[row])).collect(),
        };
        Some(Self::new(&RowContext::new(take(others)), &take(queries)))
    }

    /// The first column of `queries`, masked, among the rows of `context`.
    pub fn new(context: &RowContext, queries: &RowSample) -> Self {
        let (rows, visible) = (context.rows(), context.columns() - 1);
        let mut batch = Self {
            masked: queries.rows,
            rows,
            visible,
            pairs: context.pairs(0)[PAIR_FEATURES..].to_vec(),
            distances: vec![0.0; queries.rows * rows * visible * DISTANCES],
            values: vec![0.0; rows * TARGETS],
            right: vec![0.0; queries.rows * TARGETS],
            line: Vec::with_capacity(queries.rows * TARGETS),
            line_confidence: context.line_confidence(),
            size: [0.1 * (rows as f32).ln_1p(), 0.05 * context.columns() as f32],
        };
        for (row, &value) in context.values(0).iter().enumerate() {
            batch.values[row * TARGETS + target_of(value)] = 1.0;
        }
        let line = context.line(0).line;
        for query in 0..queries.rows {
            let predicted = line.predict((1..context.columns()).map(|column| queries.column(column)[query]));
            batch.line.extend(line.distribution(predicted));
            let value = queries.column(0)[query];
            for (target, right) in batch.right[query * TARGETS..][..TARGETS].iter_mut().enumerate() {
                *right = f32::from(u8::from(is_target(target, value)));
            }
            for column in 1..context.columns() {
                context.distances(column, queries.column(column)[query], |row, distances| {
                    let at = ((query * rows + row) * visible + column - 1) * DISTANCES;
                    batch.distances[at..at + DISTANCES].copy_from_slice(&distances);
                });
            }
        }
        batch
    }
}
