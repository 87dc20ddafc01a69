//! Values -> relative encoding in [0, 1].
//!
//! Numbers and dates are scaled by their minimum and maximum, strings and categories by their lexicographic rank, as in
//! the seed paper (section 3.1). No names, identifiers or raw constants pass this door: renaming columns, permuting rows
//! or rescaling numbers does not change what comes out.

use datafusion::arrow::array::{Array, ArrayRef};

use crate::profile::TableProfile;
use crate::sketch::{ColumnSketch, Domain, Slots, Value};

/// Statistics of a column that the data expert and [`crate::graph::NodeKind::Column`] nodes read.
pub const COLUMN_STATISTICS: usize = crate::graph::NodeKind::Column.features();

/// Statistics of a table that the data expert and [`crate::graph::NodeKind::Table`] nodes read.
pub const TABLE_STATISTICS: usize = crate::graph::NodeKind::Table.features();

/// Intervals of equal width in the relative encoding, in which values are counted.
pub const VALUE_BINS: usize = 20;

/// These, and one bin for rows without a value.
pub const BINS: usize = VALUE_BINS + 1;

/// Features of a cell: `ln(share)` of each bin over [`LOG_SCALE`], mean and spread of the values, `ln` of the group's share
/// over [`LOG_SCALE`].
pub const CELL_FEATURES: usize = BINS + 3;

/// Units of `ln` that a logarithmic feature of a cell counts in.
pub const LOG_SCALE: f32 = 8.0;

/// Shares below this are taken for it.
const LEAST_SHARE: f64 = 1e-7;

/// Rows of the column's own distribution that the counts of a group are smoothed with.
const PSEUDO_ROWS: f64 = 1.0;

/// What the data expert reads of one table.
///
/// A row stands for a group of similar rows of the sample ([`crate::row_groups`]), a cell for the values of one column in
/// it; the first row stands for the whole table.
///
/// # Shapes
///
/// R rows, C columns.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TableInput {
    /// R: one more than groups.
    pub rows: usize,
    /// C.
    pub columns: usize,
    /// `[R, C, CELL_FEATURES]`, row-major.
    pub cells: Vec<f32>,
    /// Share of the table in each group; zero for the first row, so that all sum to 1. `[R]`
    pub shares: Vec<f32>,
    /// `[C, COLUMN_STATISTICS]`, row-major.
    pub column_statistics: Vec<f32>,
    /// `[TABLE_STATISTICS]`
    pub table_statistics: Vec<f32>,
}

/// Deciles of the histogram among the column statistics.
const DECILES: usize = 9;

/// The bin of a relative value: [`VALUE_BINS`] intervals of equal width, and the last for no value (NaN).
pub fn bin_of(relative: f32) -> usize {
    // The tolerance keeps a value on the edge of a bin there when its column is rescaled.
    if relative.is_nan() { VALUE_BINS } else { ((relative * VALUE_BINS as f32 + 1e-4) as usize).min(VALUE_BINS - 1) }
}

impl ColumnSketch {
    /// A value in [0, 1]: min-max for numbers and dates, rank for text.
    pub fn relative(&self, value: &Value) -> f32 {
        match (value, &self.min, &self.max) {
            (Value::Number(v), Some(Value::Number(min)), Some(Value::Number(max))) => {
                if max > min {
                    ((v - min) / (max - min)).clamp(0.0, 1.0) as f32
                } else {
                    0.5
                }
            }
            _ => self.histogram.share_up_to(value) as f32,
        }
    }

    /// The values of `array` in [0, 1]; NaN where there is none, one half where it cannot be read.
    pub fn relative_values(&self, array: &ArrayRef) -> Vec<f32> {
        let opaque = self.domain == Domain::Opaque;
        let values = Slots::new(array).values().into_iter().enumerate();
        values
            .map(|(row, value)| match value {
                Some(value) => self.relative(&value),
                None if opaque && array.is_valid(row) => 0.5,
                None => f32::NAN,
            })
            .collect()
    }
}

/// The statistics of a column. `[COLUMN_STATISTICS]`
pub fn column_statistics(sketch: &ColumnSketch) -> [f32; COLUMN_STATISTICS] {
    let mut out = [0.0; COLUMN_STATISTICS];
    let present = (sketch.rows - sketch.nulls).max(1.0);
    let top = |n: usize| {
        let mut rows: Vec<f64> = sketch.common.iter().map(|c| c.rows).collect();
        rows.sort_unstable_by(|a, b| b.total_cmp(a));
        rows.iter().take(n).sum::<f64>() / present
    };
    let distinct = sketch.degrees.distinct;
    let skew = sketch.degrees.sum_of_squares * distinct / (present * present);
    out[sketch.domain as usize] = 1.0;
    let rest = &mut out[6..];
    rest[..9].copy_from_slice(&[
        ((1.0 + distinct).ln() / 10.0) as f32,
        (distinct / present).clamp(0.0, 1.0) as f32,
        sketch.null_share() as f32,
        top(1) as f32,
        top(10) as f32,
        f32::from(u8::from(sketch.is_unique())),
        ((1.0 + sketch.degrees.max).ln() / 10.0) as f32,
        (skew.max(1.0).ln() / 5.0) as f32,
        f32::from(u8::from(sketch.common_is_complete)),
    ]);
    for (i, decile) in rest[9..9 + DECILES].iter_mut().enumerate() {
        *decile = relative_quantile(sketch, (i + 1) as f64 / (DECILES + 1) as f64);
    }
    out
}

/// The value below which a share `q` of the column lies, in the relative encoding; for text its own rank, which is `q`.
fn relative_quantile(sketch: &ColumnSketch, q: f64) -> f32 {
    let histogram = &sketch.histogram;
    let index = histogram.cumulative.partition_point(|&c| c < q).min(histogram.bounds.len().saturating_sub(1));
    histogram.bounds.get(index).map_or(0.0, |bound| sketch.relative(bound))
}

/// The statistics of a table. `[TABLE_STATISTICS]`
pub fn table_statistics(profile: &TableProfile) -> [f32; TABLE_STATISTICS] {
    [
        ((1.0 + profile.rows).ln() / 10.0) as f32,
        ((1.0 + profile.columns.len() as f64).ln() / 5.0) as f32,
        ((1.0 + profile.sample.num_rows() as f64).ln() / 10.0) as f32,
        f32::from(u8::from(profile.is_complete())),
    ]
}

impl TableInput {
    /// The relative encoding of a profile.
    pub fn new(profile: &TableProfile) -> Self {
        let (groups, columns) = (&profile.groups, profile.columns.len());
        let rows = groups.len() + 1;
        let sampled: f64 = groups.rows.iter().map(|&rows| f64::from(rows)).sum();
        let shares = groups.rows.iter().map(|&rows| (f64::from(rows) / sampled) as f32);
        let mut cells = vec![0.0; rows * columns * CELL_FEATURES];
        let mut statistics = Vec::with_capacity(columns * COLUMN_STATISTICS);
        for (c, sketch) in profile.columns.iter().enumerate() {
            let whole = distribution(sketch);
            write_cell(&mut cells[c * CELL_FEATURES..][..CELL_FEATURES], &whole, 1.0);
            for group in 0..groups.len() {
                let members = f64::from(groups.rows[group]);
                let mut shares = whole;
                for (share, &count) in shares.iter_mut().zip(groups.counts(c, group)) {
                    *share = (f64::from(count) + PSEUDO_ROWS * *share) / (members + PSEUDO_ROWS);
                }
                let cell = &mut cells[((group + 1) * columns + c) * CELL_FEATURES..][..CELL_FEATURES];
                write_cell(cell, &shares, members / sampled);
            }
            statistics.extend(column_statistics(sketch));
        }
        Self {
            rows,
            columns,
            cells,
            shares: std::iter::once(0.0).chain(shares).collect(),
            column_statistics: statistics,
            table_statistics: table_statistics(profile).to_vec(),
        }
    }

    /// The logarithms of the shares of the bins of a cell.
    pub fn log_shares(&self, row: usize, column: usize) -> impl Iterator<Item = f32> {
        self.cells[(row * self.columns + column) * CELL_FEATURES..][..BINS].iter().map(|feature| feature * LOG_SCALE)
    }
}

/// Share of the rows of a column in each bin.
fn distribution(sketch: &ColumnSketch) -> [f64; BINS] {
    let total: f64 = sketch.bins.iter().sum();
    sketch.bins.map(|rows| if total > 0.0 { rows / total } else { 0.0 })
}

/// The features of a cell whose group has a share of `group` of the table.
fn write_cell(cell: &mut [f32], shares: &[f64; BINS], group: f64) {
    for (feature, share) in cell.iter_mut().zip(shares) {
        *feature = share.max(LEAST_SHARE).ln() as f32 / LOG_SCALE;
    }
    let centre = |bin: usize| (bin as f64 + 0.5) / VALUE_BINS as f64;
    let values = &shares[..VALUE_BINS];
    let present = values.iter().sum::<f64>().max(LEAST_SHARE);
    let mean = values.iter().enumerate().map(|(bin, share)| share * centre(bin)).sum::<f64>() / present;
    let variance =
        values.iter().enumerate().map(|(bin, share)| share * (centre(bin) - mean).powi(2)).sum::<f64>() / present;
    cell[BINS] = mean as f32;
    cell[BINS + 1] = variance.sqrt() as f32;
    cell[BINS + 2] = group.max(LEAST_SHARE).ln() as f32 / LOG_SCALE;
}

/// Rows of a table in the relative encoding, for the row encoder of the data expert.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RowSample {
    /// R.
    pub rows: usize,
    /// C.
    pub columns: usize,
    /// Values in [0, 1], NaN where there is none. `[C, R]`
    pub values: Vec<f32>,
}

impl RowSample {
    /// The first `most` rows of a profile's sample.
    pub fn new(profile: &TableProfile, most: usize) -> Self {
        let rows = profile.sample.num_rows().min(most);
        let columns = profile.columns.iter().zip(profile.sample.columns());
        let values = columns.flat_map(|(sketch, array)| sketch.relative_values(&array.slice(0, rows))).collect();
        Self { rows, columns: profile.columns.len(), values }
    }

    /// The values of a column. `[R]`
    pub fn column(&self, column: usize) -> &[f32] {
        &self.values[column * self.rows..][..self.rows]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_are_of_equal_width() {
        assert_eq!([0.0, 0.049, 0.05, 0.5, 0.95, 1.0, f32::NAN].map(bin_of), [0, 0, 1, 10, 19, 19, 20]);
    }
}
