//! The data expert: the sample and statistics of a table -> embeddings of the table, of each column and of its cells.
//!
//! After the data expert of the foundation database model (seed paper, section 3.1, figure 3): a cell MLP, pooled over the
//! rows of a column and over the cells of a row, an MLP for each, and a final MLP for the table. Differences:
//!
//! - A row stands for a group of similar rows of the sample ([`relata_featurize::row_groups`]), so that 4096 rows are read
//!   for the price of 64, and what a cell embedding says of a group is what its rows have in common.
//! - Rows pool their cells by a mean instead of concatenating them: a table may have any number of columns.
//! - The embeddings of columns are kept, because predicates and joins read columns, and so are those of the cells, the
//!   *slots*: slot `k` of two columns speaks of the same rows, which is how joint distributions survive.
//!
//! [`histogram`] restores bucket counts from the embeddings; [`cells`] encodes single rows, in the [`context`] of others, and
//! restores masked cells: the two tasks of the pre-training.

pub mod cells;
pub mod context;
pub mod histogram;
mod line;

use ndarray::Array2;
use relata_featurize::relative::{BINS, CELL_FEATURES, COLUMN_STATISTICS, TABLE_STATISTICS, TableInput};

use crate::Result;
use crate::config::{DataConfig, Module};
use crate::error::{ExpertsError, check_finite, check_length};
use crate::mlp::{Mlp, normalise};
use crate::weights::{self, DataManifest};

/// What the data expert knows about a table.
#[derive(Debug, Clone, PartialEq)]
pub struct TableEmbedding {
    /// The table: `[D]`.
    pub table: Vec<f32>,
    /// Its columns in the order of its schema: `[C, D]`.
    pub columns: Array2<f32>,
    /// R: groups of rows, and before them the whole table.
    pub rows: usize,
    /// The cells: `[C, R, S]`.
    pub slots: Vec<f32>,
    /// Share of the table in each group; zero for the whole table. `[R]`
    pub shares: Vec<f32>,
    /// `ln(1 + rows)` of the table.
    pub log_rows: f32,
    /// `ln(1 + rows)` of its sample.
    pub log_sampled: f32,
}

impl TableEmbedding {
    /// The embedding of column `column`, if there is one: `[D]`.
    pub fn column(&self, column: usize) -> Option<&[f32]> {
        let width = self.columns.ncols();
        self.columns.as_slice()?.get(column * width..(column + 1) * width)
    }
}

/// The models of the data expert.
#[derive(Debug, Clone)]
pub struct DataExpert {
    config: DataConfig,
    manifest: Option<DataManifest>,
    cell: Mlp,
    column: Mlp,
    row: Mlp,
    table: Mlp,
    factor: Mlp,
    marginal: Mlp,
    bucket: Mlp,
    relevance: Mlp,
    gate: Mlp,
}

impl DataExpert {
    /// The data expert with the weights that ship with this crate.
    ///
    /// # Errors
    ///
    /// See [`Self::from_bytes`]; a released crate has none.
    pub fn pretrained() -> Result<Self> {
        Self::from_bytes(weights::DATA_WEIGHTS, weights::DATA_MANIFEST)
    }

    /// The data expert of a weight file and its manifest.
    ///
    /// # Errors
    ///
    /// Whatever makes the weights unusable: damage, another checksum than the manifest's, another feature layout, tensors
    /// that do not fit the configuration or are not finite.
    pub fn from_bytes(weights: &[u8], manifest: &[u8]) -> Result<Self> {
        let (manifest, parameters) = weights::load_data(weights, manifest)?;
        let mut expert = Self::from_parameters(&manifest.config, &parameters)?;
        expert.manifest = Some(manifest);
        Ok(expert)
    }

    /// The data expert of a flat parameter vector, in the order of [`DataConfig::parameters`].
    ///
    /// # Errors
    ///
    /// [`ExpertsError::Config`], [`ExpertsError::Shape`] or [`ExpertsError::NotFinite`].
    pub fn from_parameters(config: &DataConfig, parameters: &[f32]) -> Result<Self> {
        config.validate()?;
        check_length("parameters of the data expert", config.parameter_count(), parameters.len())?;
        check_finite("the parameters of the data expert", parameters)?;
        let shapes = config.shapes();
        let mlp = |module: Module| Mlp::of(module, &shapes, parameters);
        Ok(Self {
            config: config.clone(),
            manifest: None,
            cell: mlp(Module::Cell),
            column: mlp(Module::Column),
            row: mlp(Module::Row),
            table: mlp(Module::Table),
            factor: mlp(Module::Factor),
            marginal: mlp(Module::Marginal),
            bucket: mlp(Module::Bucket),
            relevance: mlp(Module::Relevance),
            gate: mlp(Module::Gate),
        })
    }

    /// The sizes.
    pub fn config(&self) -> &DataConfig {
        &self.config
    }

    /// Where the weights come from, if they were loaded from a file.
    pub fn manifest(&self) -> Option<&DataManifest> {
        self.manifest.as_ref()
    }

    /// Embeds a table.
    ///
    /// The order of groups does not matter to the table and its columns (up to rounding), and permuting columns permutes
    /// their embeddings. A table without rows or columns has an embedding too: its means are zero.
    ///
    /// # Shapes
    ///
    /// `cells: [R, C, CELL_FEATURES]` -> table `[D]`, columns `[C, D]`, slots `[C, R, S]`.
    ///
    /// # Errors
    ///
    /// [`ExpertsError::Shape`] if the arrays do not have the shapes that the input states, [`ExpertsError::NotFinite`] if
    /// one of them holds NaN or infinity.
    pub fn embed(&self, input: &TableInput) -> Result<TableEmbedding> {
        check(input)?;
        let (rows, columns, width) = (input.rows, input.columns, self.config.width);
        let hidden = self.cell.hidden_width();
        let mut row_means = vec![0.0; rows * hidden];
        let mut embeddings = vec![0.0; columns * width];
        let mut slots = vec![0.0; columns * rows * self.config.slot];
        let mut cells = vec![0.0; rows * CELL_FEATURES];
        for column in 0..columns {
            let statistics = &input.column_statistics[column * COLUMN_STATISTICS..(column + 1) * COLUMN_STATISTICS];
            for (row, cell) in cells.chunks_exact_mut(CELL_FEATURES).enumerate() {
                cell.copy_from_slice(&input.cells[(row * columns + column) * CELL_FEATURES..][..CELL_FEATURES]);
            }
            let shared = self.cell.first_of_shared(CELL_FEATURES, statistics);
            let states = self.cell.hidden_with_shared(CELL_FEATURES, &cells, &shared); // [R, hidden]
            add_scaled(&mut row_means, &states, 1.0 / columns as f32);
            let own = &mut slots[column * rows * self.config.slot..][..rows * self.config.slot];
            self.cell.last(&states, own);
            for (slot, cell) in own.chunks_exact_mut(self.config.slot).zip(cells.chunks_exact(CELL_FEATURES)) {
                add_scaled(&mut slot[..BINS], &cell[..BINS], 1.0);
            }
            let mut column_input = pool(&states, &input.shares);
            column_input.extend_from_slice(cells.get(..CELL_FEATURES).unwrap_or(&[0.0; CELL_FEATURES]));
            column_input.extend_from_slice(statistics);
            let embedding = &mut embeddings[column * width..(column + 1) * width];
            self.column.forward(&column_input, embedding);
            normalise(embedding);
        }

        let row_states = self.row.hidden(&row_means); // [R, hidden]
        let mut table_input = vec![0.0; 2 * width];
        self.row.last(&pool(&row_states, &input.shares), &mut table_input[..width]);
        table_input[width..].copy_from_slice(&mean(&embeddings, width));
        table_input.extend_from_slice(&input.table_statistics);
        let mut table = vec![0.0; width];
        self.table.forward(&table_input, &mut table);
        normalise(&mut table);

        check_finite("a table embedding", &table)?;
        check_finite("a column embedding", &embeddings)?;
        check_finite("the slots of a table", &slots)?;
        let columns = Array2::from_shape_vec((columns, width), embeddings)
            .map_err(|error| ExpertsError::Config(error.to_string()))?;
        let [log_rows, log_sampled] = log_rows(&input.table_statistics);
        Ok(TableEmbedding { table, columns, rows, slots, shares: input.shares.clone(), log_rows, log_sampled })
    }
}

/// Fails unless an input is what the data expert can read.
///
/// # Errors
///
/// [`ExpertsError::Shape`] or [`ExpertsError::NotFinite`].
pub fn check(input: &TableInput) -> Result<()> {
    let (rows, columns) = (input.rows, input.columns);
    if rows == 0 {
        return Err(ExpertsError::Shape { what: "rows of a table", expected: 1, found: 0 });
    }
    check_length("cells of a table", rows * columns * CELL_FEATURES, input.cells.len())?;
    check_length("shares of a table", rows, input.shares.len())?;
    check_length("column statistics of a table", columns * COLUMN_STATISTICS, input.column_statistics.len())?;
    check_length("table statistics", TABLE_STATISTICS, input.table_statistics.len())?;
    check_finite("the cells of a table", &input.cells)?;
    check_finite("the shares of a table", &input.shares)?;
    check_finite("the column statistics of a table", &input.column_statistics)?;
    check_finite("the table statistics", &input.table_statistics)
}

/// `ln(1 + rows)` of a table and of its sample, from its statistics.
pub(crate) fn log_rows(statistics: &[f32]) -> [f32; 2] {
    [statistics[0] * 10.0, statistics[2] * 10.0]
}

/// Sum over rows, weighted: `[R, width]`, `[R]` -> `[width]`.
fn pool(values: &[f32], weights: &[f32]) -> Vec<f32> {
    let width = values.len() / weights.len().max(1);
    let mut sum = vec![0.0; width];
    for (row, &weight) in values.chunks_exact(width.max(1)).zip(weights) {
        add_scaled(&mut sum, row, weight);
    }
    sum
}

/// Mean over rows: `[R, width]` -> `[width]`, zero without rows.
fn mean(values: &[f32], width: usize) -> Vec<f32> {
    let rows = values.len() / width.max(1);
    if rows == 0 { vec![0.0; width] } else { pool(values, &vec![1.0 / rows as f32; rows]) }
}

/// `sum += scale * values`
fn add_scaled(sum: &mut [f32], values: &[f32], scale: f32) {
    sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += scale * value);
}

/// In place: logits -> shares that sum to 1.
pub(crate) fn softmax(logits: &mut [f32]) {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    logits.iter_mut().for_each(|logit| *logit = (*logit - highest).exp());
    let sum: f32 = logits.iter().sum();
    logits.iter_mut().for_each(|logit| *logit /= sum);
}

#[cfg(test)]
mod tests;
