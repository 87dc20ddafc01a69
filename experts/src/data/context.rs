//! Sampled rows of a table as the row encoder reads them: values, ranks, and what columns say about each other.

use relata_featurize::relative::{RowSample, bin_of};

use super::cells::target_of;
use super::line::{FittedLine, Line};

/// What is known of a pair of columns; see [`RowContext::pairs`].
pub const PAIR_FEATURES: usize = 14;

/// Distances of two cells: of their values, of their ranks, and whether they differ.
pub const DISTANCES: usize = 3;

/// Sampled rows that are left out to see how well the kernels restore them.
const VALIDATION: usize = 48;

/// Intervals of ranks among which a correlation ratio is taken.
const RANK_BINS: usize = 16;

/// Sampled rows of a table, prepared for the row encoder.
#[derive(Debug, Clone, PartialEq)]
pub struct RowContext {
    sample: RowSample,
    /// Rank of each value in its column, in [0, 1]; NaN where there is none. `[C, R]`
    ranks: Vec<f32>,
    /// The values of each column, ascending. `[C][..R]`
    sorted: Vec<Vec<f32>>,
}

impl RowContext {
    /// Prepares sampled rows.
    pub fn new(sample: RowSample) -> Self {
        let sorted: Vec<Vec<f32>> = (0..sample.columns)
            .map(|column| {
                let mut values: Vec<f32> = sample.column(column).iter().copied().filter(|v| !v.is_nan()).collect();
                values.sort_unstable_by(f32::total_cmp);
                values
            })
            .collect();
        let ranks = (0..sample.columns)
            .flat_map(|column| {
                sample.column(column).iter().map(|&value| rank(&sorted[column], value)).collect::<Vec<_>>()
            })
            .collect();
        Self { sample, ranks, sorted }
    }

    /// R: number of sampled rows.
    pub fn rows(&self) -> usize {
        self.sample.rows
    }

    /// C.
    pub fn columns(&self) -> usize {
        self.sample.columns
    }

    /// The values of a column. `[R]`
    pub fn values(&self, column: usize) -> &[f32] {
        self.sample.column(column)
    }

    /// The plane of column `masked` over the others.
    pub(crate) fn line(&self, masked: usize) -> FittedLine {
        let others: Vec<&[f32]> = (0..self.columns()).filter(|&c| c != masked).map(|c| self.values(c)).collect();
        Line::fit(&others, self.values(masked))
    }

    /// `ln` of the effective number of rows that the plane stands on, scaled as that of the kernels.
    pub(crate) fn line_confidence(&self) -> f32 {
        0.1 * (self.rows() as f32 / self.columns() as f32).ln()
    }

    /// The sampled rows that are left out to see how well the kernels restore them: by their values, so that their order
    /// does not matter.
    pub(super) fn validation(&self) -> Vec<usize> {
        let key = |row: usize| {
            let bits = (0..self.columns()).map(|column| target_of(self.values(column)[row]) as u64);
            bits.fold(0, |key: u64, bits| (key ^ bits).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29))
        };
        let mut rows: Vec<(u64, usize)> = (0..self.rows()).map(|row| (key(row), row)).collect();
        rows.sort_unstable();
        rows.truncate(VALIDATION);
        rows.into_iter().map(|(_, row)| row).collect()
    }

    fn ranks(&self, column: usize) -> &[f32] {
        &self.ranks[column * self.rows()..][..self.rows()]
    }

    /// What every column says about column `masked`; zero for itself. `[C, PAIR_FEATURES]`
    ///
    /// Features: correlation of values and of ranks, correlation ratio (the share of the masked column's variance that goes
    /// away, adjusted for chance) within intervals of the values, of the ranks and within equal values, correlation of the
    /// NULLs, NULL and distinct shares of both, spread of the masked column, how far the best ratio is below that of the
    /// best column, size of the context.
    pub fn pairs(&self, masked: usize) -> Vec<f32> {
        let target = self.values(masked);
        let distinct = |column: usize| {
            let values = &self.sorted[column];
            let distinct = values.chunk_by(|a, b| a.total_cmp(b).is_eq()).count();
            distinct as f32 / values.len().max(1) as f32
        };
        let none = |column: usize| 1.0 - self.sorted[column].len() as f32 / self.rows().max(1) as f32;
        let (_, spread) = moments(self.sorted[masked].iter().copied());
        let mut features = vec![0.0; self.columns() * PAIR_FEATURES];
        let mut best = 0.0f32;
        for (column, out) in features.chunks_exact_mut(PAIR_FEATURES).enumerate() {
            if column == masked {
                continue;
            }
            let own = self.values(column);
            let pairs = |x: &[f32], y: &[f32]| -> Vec<(f32, f32)> {
                x.iter().copied().zip(y.iter().copied()).filter(|(x, y)| !x.is_nan() && !y.is_nan()).collect()
            };
            let values = pairs(own, target);
            let ranks = pairs(self.ranks(column), self.ranks(masked));
            let by_rank: Vec<(f32, f32)> = pairs(self.ranks(column), target);
            let by_rank = by_rank.iter().map(|&(rank, y)| (((rank * RANK_BINS as f32) as usize).min(RANK_BINS - 1), y));
            let empty = |values: &[f32]| values.iter().map(|v| f32::from(u8::from(v.is_nan()))).collect::<Vec<_>>();
            out[..12].copy_from_slice(&[
                correlation(&values).abs(),
                correlation(&ranks).abs(),
                ratio(values.iter().map(|&(x, y)| (bin_of(x), y)).collect()),
                ratio(by_rank.collect()),
                ratio(values.iter().map(|&(x, y)| (x.to_bits() as usize, y)).collect()),
                correlation(&pairs(&empty(own), &empty(target))).abs(),
                none(column),
                none(masked),
                distinct(column),
                distinct(masked),
                spread,
                0.1 * (self.rows() as f32).ln_1p(),
            ]);
            best = out[2..5].iter().copied().fold(best, f32::max);
        }
        let columns = self.columns();
        for (column, out) in features.chunks_exact_mut(PAIR_FEATURES).enumerate() {
            if column != masked {
                out[12] = best - out[2..5].iter().copied().fold(0.0, f32::max);
                out[13] = 0.05 * columns as f32;
            }
        }
        features
    }

    /// Distances of a cell with `value` in `column` to the cells of the sample: `[DISTANCES][R]`, given to `visit` one after
    /// the other.
    pub(crate) fn distances(&self, column: usize, value: f32, mut visit: impl FnMut(usize, [f32; DISTANCES])) {
        let own_rank = rank(&self.sorted[column], value);
        for (row, (&other, &other_rank)) in self.values(column).iter().zip(self.ranks(column)).enumerate() {
            let distances = match (value.is_nan(), other.is_nan()) {
                (true, true) => [0.0; DISTANCES],
                (false, false) => {
                    let apart = (value - other).abs();
                    [apart, (own_rank - other_rank).abs(), f32::from(u8::from(apart > 1e-6))]
                }
                _ => [1.0; DISTANCES],
            };
            visit(row, distances);
        }
    }
}

/// The rank of a value among sorted ones, in [0, 1]; equal values share the middle one.
fn rank(sorted: &[f32], value: f32) -> f32 {
    if value.is_nan() {
        return f32::NAN;
    }
    let below = sorted.partition_point(|&other| other < value);
    let up_to = sorted.partition_point(|&other| other <= value);
    0.5 * (below + up_to) as f32 / sorted.len().max(1) as f32
}

/// Mean and standard deviation.
fn moments(values: impl Iterator<Item = f32> + Clone) -> (f32, f32) {
    let count = values.clone().count().max(1) as f32;
    let mean = values.clone().sum::<f32>() / count;
    (mean, (values.map(|v| (v - mean) * (v - mean)).sum::<f32>() / count).sqrt())
}

/// Pearson's correlation; 0 where one side does not vary.
pub fn correlation(pairs: &[(f32, f32)]) -> f32 {
    let (x_mean, x_spread) = moments(pairs.iter().map(|pair| pair.0));
    let (y_mean, y_spread) = moments(pairs.iter().map(|pair| pair.1));
    if pairs.len() < 3 || x_spread < 1e-9 || y_spread < 1e-9 {
        return 0.0;
    }
    let covariance = pairs.iter().map(|(x, y)| (x - x_mean) * (y - y_mean)).sum::<f32>() / pairs.len() as f32;
    (covariance / (x_spread * y_spread)).clamp(-1.0, 1.0)
}

/// The share of the variance of the second that goes away within equal values of the first, adjusted for the number of
/// groups (the correlation ratio, Pearson 1905, with Kelley's correction, PNAS 1935); within [0, 1].
pub fn ratio(mut pairs: Vec<(usize, f32)>) -> f32 {
    pairs.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let (_, spread) = moments(pairs.iter().map(|pair| pair.1));
    let groups: Vec<&[(usize, f32)]> = pairs.chunk_by(|a, b| a.0 == b.0).collect();
    let free = pairs.len().saturating_sub(groups.len());
    if spread < 1e-9 || free == 0 {
        return 0.0;
    }
    let within: f32 =
        groups.iter().map(|group| group.len() as f32 * moments(group.iter().map(|pair| pair.1)).1.powi(2)).sum();
    let total = spread * spread * pairs.len() as f32;
    (1.0 - within / free as f32 * (pairs.len() - 1) as f32 / total).clamp(0.0, 1.0)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::fixture::Noise;

    /// A column, its square and noise.
    pub(crate) fn sample(rows: usize) -> RowSample {
        let mut noise = Noise::new(1);
        let x: Vec<f32> = (0..rows).map(|_| noise.unit()).collect();
        let squares = x.iter().map(|x| x * x);
        let free: Vec<f32> = (0..rows).map(|row| if row % 5 == 0 { f32::NAN } else { noise.unit() }).collect();
        let values = x.iter().copied().chain(squares).chain(free).collect();
        RowSample { rows, columns: 3, values }
    }

    pub(crate) fn context(rows: usize) -> RowContext {
        RowContext::new(sample(rows))
    }

    #[test]
    fn pairs_tell_dependent_columns_from_independent_ones() {
        let pairs = context(500).pairs(1);
        let (x, free) = (&pairs[..PAIR_FEATURES], &pairs[2 * PAIR_FEATURES..]);
        assert!(x[0] > 0.95 && x[1] > 0.999 && x[2] > 0.95 && x[3] > 0.95, "{x:?}");
        assert!(free[..6].iter().all(|feature| *feature < 0.2), "{free:?}");
        assert!((free[6] - 0.2).abs() < 1e-3 && pairs[PAIR_FEATURES..2 * PAIR_FEATURES].iter().all(|f| *f == 0.0));
    }

    #[test]
    fn ratio_is_adjusted_for_chance() {
        let mut noise = Noise::new(4);
        let unrelated: Vec<(usize, f32)> = (0..400).map(|_| (noise.below(100), noise.unit())).collect();
        assert!(ratio(unrelated) < 0.15);
        assert!((ratio((0..100).map(|i| (i % 4, (i % 4) as f32)).collect()) - 1.0).abs() < 1e-6);
        assert!(ratio(vec![(1, 1.0), (2, 2.0)]).abs() < 1e-6);
    }
}
