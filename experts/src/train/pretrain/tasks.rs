//! Tables to pre-train on and tables held out, and what is drawn of them for one step.

use std::path::{Path, PathBuf};

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::index;
use relata_featurize::relative::{BINS, RowSample, TableInput};
use relata_featurize::restoration::{self, CountedHistogram, TableTask, bucket_of};

use crate::Result;
use crate::data::cells::{DISTANCES, PAIR_FEATURES, RowContext, TARGETS, is_target, target_of};
use crate::data::{check, histogram::bucket_matrix};
use crate::error::ExpertsError;

/// Empty buckets whose expected rows, if columns were independent, are below this are never wrong and left out.
const LEAST_EXPECTED: f32 = 0.05;

/// Weight of an empty bucket that stands for many at most.
const MOST_WEIGHT: f32 = 4.0;

/// The tables of a pre-training run.
#[derive(Debug, Clone, Default)]
pub struct Tables {
    /// Tables that are trained on, by the folder they were read from; folders are drawn from equally often.
    pub training: Vec<Vec<PreparedTable>>,
    /// Names of their databases.
    pub databases: Vec<String>,
    /// Tables that are held out to choose the step.
    pub held_out: Vec<PreparedTable>,
    /// Names of their databases.
    pub held_out_databases: Vec<String>,
}

/// A table with what training needs of it at every step.
#[derive(Debug, Clone)]
pub struct PreparedTable {
    /// The task.
    pub task: TableTask,
    /// For each histogram, the codes of its empty buckets that could be taken for others.
    pub empty: Vec<Vec<u32>>,
    /// Its sampled rows.
    pub context: RowContext,
    /// How well each column follows from another, in [0, 1]. `[C]`
    pub predictable: Vec<f32>,
}

impl PreparedTable {
    /// Prepares a table; `None` if it is malformed.
    pub fn new(task: TableTask) -> Option<Self> {
        check(&task.input).ok()?;
        let empty = task.histograms.iter().map(|histogram| empty_codes(&task, histogram)).collect();
        let context = RowContext::new(task.sample.clone());
        let predictable = (0..context.columns())
            .map(|column| {
                let pairs = context.pairs(column);
                pairs.chunks_exact(PAIR_FEATURES).flat_map(|pair| &pair[..5]).copied().fold(0.0, f32::max)
            })
            .collect();
        Some(Self { task, empty, context, predictable })
    }
}

/// The empty buckets of a histogram that its columns, if independent, would fill.
fn empty_codes(task: &TableTask, histogram: &CountedHistogram) -> Vec<u32> {
    let buckets = histogram.buckets();
    let whole = |column: &u32| {
        let mut shares = vec![0.0f32; buckets + 1];
        for (bin, log_share) in task.input.log_shares(0, *column as usize).enumerate() {
            shares[bucket_of(bin, buckets)] += log_share.exp();
        }
        shares
    };
    let columns: Vec<Vec<f32>> = histogram.columns.iter().map(whole).collect();
    let mut counted = histogram.counts.iter().map(|count| count.0).peekable();
    let mut empty = vec![];
    for code in 0..histogram.codes() {
        if counted.next_if_eq(&code).is_some() {
            continue;
        }
        let share: f32 = columns.iter().zip(histogram.split(code)).map(|(column, bucket)| column[bucket]).product();
        if share * task.rows as f32 >= LEAST_EXPECTED {
            empty.push(code);
        }
    }
    empty
}

impl Tables {
    /// Reads every database below `folders`; those named in `held_out` are held out.
    ///
    /// # Errors
    ///
    /// [`ExpertsError::Featurize`] if a file cannot be read, [`ExpertsError::Training`] if no table is left to train on or
    /// a name is not found.
    pub fn read(folders: &[PathBuf], held_out: &[String]) -> Result<Self> {
        let mut tables = Self::default();
        for folder in folders {
            let mut training = vec![];
            for database in databases(folder)? {
                let name = database.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                let prepared = restoration::read(&database)?.into_iter().filter_map(PreparedTable::new);
                if held_out.contains(&name) {
                    tables.held_out.extend(prepared);
                    tables.held_out_databases.push(name);
                } else {
                    training.extend(prepared);
                    tables.databases.push(name);
                }
            }
            if !training.is_empty() {
                tables.training.push(training);
            }
        }
        if let Some(name) = held_out.iter().find(|&name| !tables.held_out_databases.contains(name)) {
            return Err(ExpertsError::Training(format!("no database is called {name}")));
        }
        if tables.training.is_empty() {
            return Err(ExpertsError::Training("no table is left to train on".to_owned()));
        }
        Ok(tables)
    }
}

/// The folders with tasks below `folder`, in order of name.
fn databases(folder: &Path) -> Result<Vec<PathBuf>> {
    let io = |source| ExpertsError::Io { path: folder.to_owned(), source };
    let mut found = vec![];
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.join(restoration::FILE).is_file() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

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
        use relata_featurize::relative::{CELL_FEATURES, COLUMN_STATISTICS};
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
        let buckets: Vec<usize> = histogram.split(code).collect();
        let dimensions = histogram.columns.len();
        for position in 0..self.intervals.len() {
            let column = histogram.columns.get(position).map(|&column| first_column + column as usize);
            let interval = column.map(|column| rows.row(column, histogram.buckets(), buckets[position]));
            self.intervals[position].push(interval.unwrap_or(rows.none()));
            self.columns[position].push(column.unwrap_or(0) as u32);
            self.column_weights[position].push(if column.is_some() { 1.0 / dimensions as f32 } else { 0.0 });
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
