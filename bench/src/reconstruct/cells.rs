//! Masked cells: what every contender puts in their place.

use anyhow::Result;
use datafusion::arrow::array::UInt32Array;
use datafusion::arrow::compute::take_record_batch;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use relata_experts::data::DataExpert;
use relata_experts::data::context::{PAIR_FEATURES, RowContext};
use relata_experts::train::pretrain::evaluate::is_right;
use relata_featurize::profile::{ProfileConfig, TableProfile};
use relata_featurize::relative::RowSample;

use super::linear::Ridge;
use super::{CellFigure, EXPERT, Restored};
use crate::database::Table;
use crate::tables::varies;

/// The contenders, in the order of the tables.
pub(super) const CONTENDERS: [&str; 3] = [EXPERT, "profile: median", "ridge regression (linfa)"];

/// Rows that a table must have.
const LEAST_ROWS: usize = 50;

/// Rows of a table whose cells are masked.
const MASKED: usize = 50;

/// Sampled rows among which a row is encoded.
const CONTEXT: usize = 4096;

/// |Pearson| of a high correlation.
const HIGH: f32 = 0.8;

/// |Pearson|, |Spearman| or correlation ratio of a low one.
const LOW: f32 = 0.75;

/// The masked cells of one column.
#[derive(Debug)]
pub(super) struct RestoredColumn {
    high: bool,
    cells: usize,
    /// Cells that each contender restored. `[CONTENDERS]`
    right: [usize; CONTENDERS.len()],
}

/// Masks cells of a table and restores them.
pub(super) fn restore(table: &Table, expert: &DataExpert, random: &mut StdRng, restored: &mut Restored) -> Result<()> {
    let rows = table.batch.num_rows();
    if rows < LEAST_ROWS || table.batch.num_columns() < 2 {
        return Ok(());
    }
    let mut order: Vec<u32> = (0..rows as u32).collect();
    order.shuffle(random);
    let (masked, rest) = order.split_at(MASKED.min(rows / 5));
    let take = |rows: &[u32]| take_record_batch(&table.batch, &UInt32Array::from(rows.to_vec()));
    let (masked, rest) = (take(masked)?, take(rest)?);
    let profile = TableProfile::of_batches(rest.schema(), &[rest], &ProfileConfig::default())?;
    let context = RowContext::new(RowSample::new(&profile, CONTEXT));
    let columns = profile.columns.iter().zip(masked.columns());
    let values: Vec<Vec<f32>> = columns.map(|(sketch, array)| sketch.relative_values(array)).collect();
    for column in (0..values.len()).filter(|&column| varies(&profile.columns[column])) {
        let Some(high) = correlation(&context, column) else { continue };
        let relevance = expert.relevance(&context, column);
        let (median, ridge) = (median(context.values(column)), Regression::fit(&context, column)?);
        let mut right = [0; CONTENDERS.len()];
        for row in 0..masked.num_rows() {
            let cells: Vec<f32> = values.iter().map(|values| values[row]).collect();
            let by_expert = expert.restore_cell(&expert.embed_row(&context, &relevance, &cells)?).value;
            let answers = [by_expert, median, median.and_then(|_| Some(ridge.as_ref()?.predict(&cells)))];
            for (right, answer) in right.iter_mut().zip(answers) {
                *right += usize::from(is_right(answer, cells[column]));
            }
        }
        restored.cells.push(RestoredColumn { high, cells: masked.num_rows(), right });
    }
    Ok(())
}

/// Whether a column depends highly on another; `None` if it does not even a little.
fn correlation(context: &RowContext, column: usize) -> Option<bool> {
    let pairs = context.pairs(column);
    let strongest = |features: std::ops::Range<usize>| {
        pairs.chunks_exact(PAIR_FEATURES).flat_map(|pair| &pair[features.clone()]).copied().fold(0.0, f32::max)
    };
    if strongest(0..1) > HIGH { Some(true) } else { (strongest(0..5) > LOW).then_some(false) }
}

/// The median of a column, `None` if most of it is NULL.
fn median(values: &[f32]) -> Option<f32> {
    let mut present: Vec<f32> = values.iter().copied().filter(|value| !value.is_nan()).collect();
    present.sort_unstable_by(f32::total_cmp);
    if 2 * present.len() < values.len() { None } else { present.get(present.len() / 2).copied() }
}

/// A masked column as a plane over the visible ones; NULLs are means with a flag.
struct Regression {
    ridge: Ridge,
    means: Vec<f32>,
    column: usize,
}

impl Regression {
    /// Fits the rows with a value; `None` if there are too few.
    fn fit(context: &RowContext, column: usize) -> Result<Option<Self>> {
        let means = (0..context.columns())
            .map(|column| {
                let present: Vec<f32> = context.values(column).iter().copied().filter(|v| !v.is_nan()).collect();
                present.iter().sum::<f32>() / present.len().max(1) as f32
            })
            .collect();
        let mut regression = Self { ridge: Ridge::fit(&[], &[], 0.0)?, means, column };
        let rows = (0..context.rows()).filter(|&row| !context.values(column)[row].is_nan());
        let (x, y): (Vec<Vec<f64>>, Vec<f64>) = rows
            .map(|row| {
                let cells: Vec<f32> = (0..context.columns()).map(|column| context.values(column)[row]).collect();
                (regression.features(&cells), f64::from(cells[column]))
            })
            .unzip();
        if x.len() < 5 {
            return Ok(None);
        }
        regression.ridge = Ridge::fit(&x, &y, 1e-3)?;
        Ok(Some(regression))
    }

    fn features(&self, row: &[f32]) -> Vec<f64> {
        let visible = row.iter().zip(&self.means).enumerate().filter(|(column, _)| *column != self.column);
        visible
            .flat_map(|(_, (&value, &mean))| {
                let none = value.is_nan();
                [f64::from(if none { mean } else { value }), f64::from(u8::from(none))]
            })
            .collect()
    }

    fn predict(&self, row: &[f32]) -> f32 {
        (self.ridge.predict(&self.features(row)) as f32).clamp(0.0, 1.0)
    }
}

/// The figures over all databases.
pub(super) fn figures(databases: &[Restored]) -> Vec<CellFigure> {
    let mut figures = vec![];
    for (group, high) in [("high", true), ("low", false)] {
        for (index, contender) in CONTENDERS.into_iter().enumerate() {
            let each: Vec<(usize, usize, usize)> = databases
                .iter()
                .map(|database| {
                    let own = database.cells.iter().filter(|column| column.high == high);
                    own.fold((0, 0, 0), |(columns, cells, right), column| {
                        (columns + 1, cells + column.cells, right + column.right[index])
                    })
                })
                .filter(|(columns, ..)| *columns > 0)
                .collect();
            if each.is_empty() {
                continue;
            }
            let sum = |of: fn(&(usize, usize, usize)) -> usize| each.iter().map(of).sum::<usize>();
            let (columns, cells, right) = (sum(|own| own.0), sum(|own| own.1), sum(|own| own.2));
            let share = |cells: usize, right: usize| right as f64 / cells.max(1) as f64;
            let mean = each.iter().map(|own| share(own.1, own.2)).sum::<f64>() / each.len() as f64;
            figures.push(CellFigure {
                group,
                contender,
                cells,
                columns,
                per_database: mean,
                pooled: share(cells, right),
            });
        }
    }
    figures
}
