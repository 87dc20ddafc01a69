//! The data expert: the sample and statistics of a table -> embeddings of the table and of each column.
//!
//! After the data expert of the foundation database model (seed paper, section 3.1, figure 3): a cell MLP, mean over the
//! rows of a column and over the cells of a row, an MLP for each, and a final MLP for the table. Two differences: rows pool
//! their cells by a mean instead of concatenating them, so that a table may have any number of columns in any order, and the
//! column embeddings are kept, because predicates and joins read columns.

use ndarray::Array2;
use relata_featurize::relative::{CELL_FEATURES, COLUMN_STATISTICS, TABLE_STATISTICS, TableInput};

use crate::Result;
use crate::config::{ExpertConfig, Module};
use crate::error::{ExpertsError, check_finite, check_length};
use crate::mlp::{Mlp, normalise};

/// What the data expert knows about a table.
#[derive(Debug, Clone, PartialEq)]
pub struct TableEmbedding {
    /// The table: `[D]`.
    pub table: Vec<f32>,
    /// Its columns in the order of its schema: `[C, D]`.
    pub columns: Array2<f32>,
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
    width: usize,
    cell: Mlp,
    column: Mlp,
    row: Mlp,
    table: Mlp,
}

impl DataExpert {
    /// Takes its models out of a stack of sizes `config`; `mlp` builds one of them.
    pub(crate) fn new(config: &ExpertConfig, mlp: impl Fn(Module) -> Mlp) -> Self {
        Self {
            width: config.width,
            cell: mlp(Module::Cell),
            column: mlp(Module::Column),
            row: mlp(Module::Row),
            table: mlp(Module::Table),
        }
    }

    /// Embeds a table.
    ///
    /// The order of rows does not matter (up to rounding), and permuting columns permutes their embeddings. A table without
    /// rows or columns has an embedding too: its means are zero.
    ///
    /// # Shapes
    ///
    /// `cells: [R, C, CELL_FEATURES]` -> table `[D]`, columns `[C, D]`.
    ///
    /// # Errors
    ///
    /// [`ExpertsError::Shape`] if the arrays do not have the shapes that the input states, [`ExpertsError::NotFinite`] if
    /// one of them holds NaN or infinity.
    pub fn embed(&self, input: &TableInput) -> Result<TableEmbedding> {
        let (rows, columns, width) = (input.rows, input.columns, self.width);
        check_length("cells of a table", rows * columns * CELL_FEATURES, input.cells.len())?;
        check_length("column statistics of a table", columns * COLUMN_STATISTICS, input.column_statistics.len())?;
        check_length("table statistics", TABLE_STATISTICS, input.table_statistics.len())?;
        check_finite("the sample of a table", &input.cells)?;
        check_finite("the column statistics of a table", &input.column_statistics)?;
        check_finite("the table statistics", &input.table_statistics)?;

        let hidden = self.cell.hidden_width();
        let mut row_means = vec![0.0; rows * hidden];
        let mut embeddings = vec![0.0; columns * width];
        let mut cells = vec![0.0; rows * CELL_FEATURES];
        let mut column_input = vec![0.0; width + COLUMN_STATISTICS];
        for column in 0..columns {
            let statistics = &input.column_statistics[column * COLUMN_STATISTICS..(column + 1) * COLUMN_STATISTICS];
            for (row, cell) in cells.chunks_exact_mut(CELL_FEATURES).enumerate() {
                cell.copy_from_slice(&input.cells[(row * columns + column) * CELL_FEATURES..][..CELL_FEATURES]);
            }
            let shared = self.cell.first_of_shared(CELL_FEATURES, statistics);
            let states = self.cell.hidden_with_shared(CELL_FEATURES, &cells, &shared); // [R, hidden]
            add_scaled(&mut row_means, &states, 1.0 / columns as f32);
            self.cell.last(&mean(&states, hidden), &mut column_input[..width]);
            column_input[width..].copy_from_slice(statistics);
            let embedding = &mut embeddings[column * width..(column + 1) * width];
            self.column.forward(&column_input, embedding);
            normalise(embedding);
        }

        let mut row_inputs = vec![0.0; rows * width];
        self.cell.last(&row_means, &mut row_inputs);
        let row_states = self.row.hidden(&row_inputs); // [R, hidden]
        let mut table_input = vec![0.0; 2 * width];
        self.row.last(&mean(&row_states, self.row.hidden_width()), &mut table_input[..width]);
        table_input[width..].copy_from_slice(&mean(&embeddings, width));
        table_input.extend_from_slice(&input.table_statistics);
        let mut table = vec![0.0; width];
        self.table.forward(&table_input, &mut table);
        normalise(&mut table);

        check_finite("a table embedding", &table)?;
        check_finite("a column embedding", &embeddings)?;
        let columns = Array2::from_shape_vec((columns, width), embeddings)
            .map_err(|error| ExpertsError::Config(error.to_string()))?;
        Ok(TableEmbedding { table, columns })
    }
}

/// Mean over rows: `[R, width]` -> `[width]`, zero without rows.
fn mean(values: &[f32], width: usize) -> Vec<f32> {
    let mut mean = vec![0.0; width];
    let rows = values.len() / width.max(1);
    for row in values.chunks_exact(width.max(1)) {
        add_scaled(&mut mean, row, 1.0 / rows as f32);
    }
    mean
}

/// `sum += scale * values`
fn add_scaled(sum: &mut [f32], values: &[f32], scale: f32) {
    sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += scale * value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use crate::stack::ExpertStack;

    fn stack() -> ExpertStack {
        let config = ExpertConfig { width: 16, ..ExpertConfig::with_width(16) };
        ExpertStack::from_parameters(&config, &fixture::parameters(&config, 1), &[]).unwrap()
    }

    fn close(left: &[f32], right: &[f32]) -> bool {
        left.len() == right.len() && left.iter().zip(right).all(|(left, right)| (left - right).abs() < 1e-4)
    }

    #[test]
    fn order_of_rows_does_not_matter() {
        let table = fixture::table(9, 4, 5);
        let mut reversed = table.clone();
        reversed.cells = table.cells.chunks(4 * CELL_FEATURES).rev().flatten().copied().collect();
        let (left, right) = (stack().embed_table(&table).unwrap(), stack().embed_table(&reversed).unwrap());
        assert!(close(&left.table, &right.table));
        assert!(close(left.columns.as_slice().unwrap(), right.columns.as_slice().unwrap()));
    }

    #[test]
    fn permuting_columns_permutes_their_embeddings() {
        let table = fixture::table(6, 3, 5);
        let mut reversed = table.clone();
        reversed.cells = table
            .cells
            .chunks(3 * CELL_FEATURES)
            .flat_map(|row| row.chunks(CELL_FEATURES).rev().flatten().copied().collect::<Vec<_>>())
            .collect();
        reversed.column_statistics =
            table.column_statistics.chunks(COLUMN_STATISTICS).rev().flatten().copied().collect();
        let (left, right) = (stack().embed_table(&table).unwrap(), stack().embed_table(&reversed).unwrap());
        assert!(close(&left.table, &right.table));
        for column in 0..3 {
            assert!(close(left.column(column).unwrap(), right.column(2 - column).unwrap()));
        }
        assert!(left.column(3).is_none());
    }

    #[test]
    fn embeds_tables_of_any_size() {
        for (rows, columns) in [(0, 0), (0, 3), (5, 0), (1, 1), (2, 500)] {
            let embedding = stack().embed_table(&fixture::table(rows, columns, 2)).unwrap();
            assert_eq!(embedding.columns.dim(), (columns, 16));
            assert!(embedding.table.iter().all(|value| value.is_finite()), "{rows} x {columns}");
        }
    }

    #[test]
    fn refuses_what_is_not_finite_or_misshaped() {
        let mut table = fixture::table(3, 2, 2);
        table.cells[4] = f32::NAN;
        assert!(matches!(stack().embed_table(&table), Err(ExpertsError::NotFinite { .. })));
        let mut table = fixture::table(3, 2, 2);
        table.column_statistics[1] = f32::INFINITY;
        assert!(matches!(stack().embed_table(&table), Err(ExpertsError::NotFinite { .. })));
        let mut table = fixture::table(3, 2, 2);
        table.rows = 4;
        assert!(matches!(stack().embed_table(&table), Err(ExpertsError::Shape { .. })));
    }
}
