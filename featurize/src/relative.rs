//! Values -> relative encoding in [0, 1].
//!
//! Numbers and dates are scaled by their minimum and maximum, strings and categories by their lexicographic rank, as in
//! the seed paper (section 3.1). No names, identifiers or raw constants pass this door: renaming columns, permuting rows
//! or rescaling numbers does not change what comes out.

use datafusion::arrow::array::Array;

use crate::profile::TableProfile;
use crate::sketch::{ColumnSketch, Slots, Value};

/// Statistics of a column that the data expert and [`crate::graph::NodeKind::Column`] nodes read.
pub const COLUMN_STATISTICS: usize = crate::graph::NodeKind::Column.features();

/// Statistics of a table that the data expert and [`crate::graph::NodeKind::Table`] nodes read.
pub const TABLE_STATISTICS: usize = crate::graph::NodeKind::Table.features();

/// Features of a cell: relative value (0 where NULL), NULL flag, relative frequency of the value in the sample.
pub const CELL_FEATURES: usize = 3;

/// What the data expert reads of one table.
///
/// # Shapes
///
/// R rows of the sample (at most 256), C columns.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TableInput {
    /// R.
    pub rows: usize,
    /// C.
    pub columns: usize,
    /// `[R, C, CELL_FEATURES]`, row-major.
    pub cells: Vec<f32>,
    /// `[C, COLUMN_STATISTICS]`, row-major.
    pub column_statistics: Vec<f32>,
    /// `[TABLE_STATISTICS]`
    pub table_statistics: Vec<f32>,
}

/// Rows of the sample that the data expert reads at most.
pub const INPUT_ROWS: usize = 256;

/// Deciles of the histogram among the column statistics.
const DECILES: usize = 9;

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
    histogram.bounds.get(index).map_or(0.0, |bound| relative_value(sketch, bound))
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

/// A value in [0, 1]: min-max for numbers and dates, rank for text.
fn relative_value(sketch: &ColumnSketch, value: &Value) -> f32 {
    match (value, &sketch.min, &sketch.max) {
        (Value::Number(v), Some(Value::Number(min)), Some(Value::Number(max))) => {
            if max > min {
                ((v - min) / (max - min)).clamp(0.0, 1.0) as f32
            } else {
                0.5
            }
        }
        _ => sketch.histogram.share_up_to(value) as f32,
    }
}

impl TableInput {
    /// The relative encoding of a profile.
    pub fn new(profile: &TableProfile) -> Self {
        let rows = profile.sample.num_rows().min(INPUT_ROWS);
        let columns = profile.columns.len();
        let mut cells = vec![0.0; rows * columns * CELL_FEATURES];
        let mut statistics = Vec::with_capacity(columns * COLUMN_STATISTICS);
        for (c, (sketch, array)) in profile.columns.iter().zip(profile.sample.columns()).enumerate() {
            let values = Slots::new(&array.slice(0, rows)).values();
            for (row, value) in values.iter().enumerate() {
                let cell = &mut cells[(row * columns + c) * CELL_FEATURES..][..CELL_FEATURES];
                if let Some(value) = value {
                    cell[0] = relative_value(sketch, value);
                    cell[2] = (sketch.equality(value) as f32).sqrt();
                } else {
                    cell[1] = f32::from(u8::from(array.is_null(row)));
                }
            }
            statistics.extend(column_statistics(sketch));
        }
        Self {
            rows,
            columns,
            cells,
            column_statistics: statistics,
            table_statistics: table_statistics(profile).to_vec(),
        }
    }
}
