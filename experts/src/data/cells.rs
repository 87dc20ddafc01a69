//! The row encoder: a row with a masked cell, among sampled rows of its table -> an embedding that restores the cell.
//!
//! Rows are encoded in context, by attention over the sampled rows: several kernels weigh them by their distance to the
//! row, column by column, with weights that an MLP derives from how the column and the masked one depend on each other
//! (correlations, correlation ratios, ranks). Nothing is tied to a column's place or name, so it works on tables never
//! seen. The embedding is what the kernels pool: per kernel the distribution of the masked column among the rows it looks
//! at, and how sure it is; a plane through the sampled rows stands beside the kernels as one more. A gate mixes them into
//! one distribution; it knows how well each restores sampled rows that are left out.
//!
//! After the row-wise task of the seed paper (section 3.2); the kernels follow Nadaraya and Watson (1964) with learned
//! metrics, as in-context learners do (TabPFN, Hollmann et al., Nature 2025) without their transformer.

use relata_featurize::relative::{RowSample, bin_of};

use super::line::{FittedLine, Line};
use super::{DataExpert, softmax};
use crate::Result;
use crate::error::{ExpertsError, check_length};

/// What is known of a pair of columns; see [`RowContext::pairs`].
pub const PAIR_FEATURES: usize = 14;

/// Distances of two cells: of their values, of their ranks, and whether they differ.
pub const DISTANCES: usize = 3;

/// What the gate knows of a kernel: mass of its best window, mass of NULL, effective number of rows, and how much of the
/// distributions of sampled rows that are left out is right.
pub const GATE_FEATURES: usize = 4;

/// Sampled rows that are left out to see how well the kernels restore them.
const VALIDATION: usize = 48;

/// Intervals that the distribution of a masked cell has.
pub const TARGET_BINS: usize = 40;

/// These and one for no value.
pub const TARGETS: usize = TARGET_BINS + 1;

/// A restored value this close to the actual one counts as right, in units of the relative encoding.
pub const TOLERANCE: f32 = 0.1;

/// Logarithm of a kernel's weight of a distance that the MLP says nothing about, and how far the MLP can move it.
pub(crate) const SHARPNESS: (f32, f32) = (2.0, 4.0);

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

/// How the kernels weigh the columns for one masked column.
#[derive(Debug, Clone, PartialEq)]
pub struct Relevance {
    masked: usize,
    /// `[C, DISTANCES, H]`; zero for the masked column.
    weights: Vec<f32>,
    /// The plane.
    line: Line,
    /// Share of what each kernel and the plane say of rows left out that is right. `[H + 1]`
    scores: Vec<f32>,
}

/// The embedding of a row with a masked cell.
#[derive(Debug, Clone, PartialEq)]
pub struct RowEmbedding {
    /// Per kernel, and by the plane, the distribution of the masked column: `[H + 1, TARGETS]`.
    pub pooled: Vec<f32>,
    /// How sure each is, and the size of the context: `[GATE_FEATURES * (H + 1) + 2]`.
    pub confidence: Vec<f32>,
}

/// A restored cell.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RestoredCell {
    /// The relative value; `None` for NULL.
    pub value: Option<f32>,
    /// Share of the distribution within [`TOLERANCE`] of it.
    pub confidence: f32,
}

/// The interval of a masked value; the last for none.
pub fn target_of(value: f32) -> usize {
    if value.is_nan() { TARGET_BINS } else { ((value * TARGET_BINS as f32 + 1e-4) as usize).min(TARGET_BINS - 1) }
}

/// How much of interval `other` is within [`TOLERANCE`] of the centre of interval `target`.
pub fn window(target: usize, other: usize) -> f32 {
    match (target.abs_diff(other), target.max(other) < TARGET_BINS) {
        (0, _) | (1..=3, true) => 1.0,
        (4, true) => 0.5,
        _ => 0.0,
    }
}

/// Whether a distribution's interval is right for a cell with `value`.
pub(crate) fn is_target(target: usize, value: f32) -> bool {
    let centre = (target as f32 + 0.5) / TARGET_BINS as f32;
    if target == TARGET_BINS { value.is_nan() } else { (centre - value).abs() <= TOLERANCE }
}

/// The share of a distribution that is right for a cell with `value`.
fn right_share(distribution: &[f32], value: f32) -> f32 {
    distribution.iter().enumerate().filter(|(target, _)| is_target(*target, value)).map(|(_, share)| share).sum()
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
    fn validation(&self) -> Vec<usize> {
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

impl DataExpert {
    /// How the kernels weigh the columns for a masked one.
    pub fn relevance(&self, context: &RowContext, masked: usize) -> Relevance {
        let per_column = DISTANCES * self.config.kernels;
        let mut weights = vec![0.0; context.columns() * per_column];
        self.relevance.forward(&context.pairs(masked), &mut weights);
        for (column, weights) in weights.chunks_exact_mut(per_column).enumerate() {
            for weight in weights {
                let (middle, range) = SHARPNESS;
                *weight = if column == masked { 0.0 } else { (middle + weight.clamp(-range, range)).exp() };
            }
        }
        let FittedLine { line, left_out } = context.line(masked);
        let mut relevance = Relevance { masked, weights, line, scores: vec![0.0; self.config.kernels + 1] };
        let validation = context.validation();
        for &left in &validation {
            let row: Vec<f32> = (0..context.columns()).map(|column| context.values(column)[left]).collect();
            let actual = row[masked];
            let (pooled, _) = self.pool(context, &relevance, &row, Some(left));
            let by_kernels = pooled.chunks_exact(TARGETS).map(|pooled| right_share(pooled, actual));
            let centre = actual - left_out[left];
            let by_line = right_share(&relevance.line.distribution(if centre.is_nan() { 0.5 } else { centre }), actual);
            for (score, share) in relevance.scores.iter_mut().zip(by_kernels.chain([by_line]).collect::<Vec<_>>()) {
                *score += share / validation.len() as f32;
            }
        }
        relevance
    }

    /// Embeds a row, whose values are `row: [C]` (NaN where there is none); that of the masked column is not read.
    ///
    /// # Errors
    ///
    /// [`ExpertsError::Shape`] if the row has another number of columns, [`ExpertsError::Graph`] without sampled rows.
    pub fn embed_row(&self, context: &RowContext, relevance: &Relevance, row: &[f32]) -> Result<RowEmbedding> {
        check_length("cells of a row", context.columns(), row.len())?;
        if context.rows() == 0 {
            return Err(ExpertsError::Graph("no sampled rows to restore a cell from".to_owned()));
        }
        let (mut pooled, effective) = self.pool(context, relevance, row, None);
        let masked = relevance.masked;
        let visible = row.iter().enumerate().filter(|(column, _)| *column != masked).map(|(_, &value)| value);
        pooled.extend(relevance.line.distribution(relevance.line.predict(visible)));
        let mut confidence = Vec::with_capacity(GATE_FEATURES * effective.len() + GATE_FEATURES + 2);
        let effective = effective.into_iter().chain([context.line_confidence()]);
        for ((pooled, effective), score) in pooled.chunks_exact(TARGETS).zip(effective).zip(&relevance.scores) {
            confidence.extend([best_window(pooled).1, pooled[TARGET_BINS], effective, *score]);
        }
        confidence.extend([0.1 * (context.rows() as f32).ln_1p(), 0.05 * context.columns() as f32]);
        Ok(RowEmbedding { pooled, confidence })
    }

    /// What the kernels pool for a row, and the scaled `ln` of the effective number of rows of each; without sampled row
    /// `left_out`. `[H, TARGETS]`, `[H]`
    fn pool(
        &self,
        context: &RowContext,
        relevance: &Relevance,
        row: &[f32],
        left_out: Option<usize>,
    ) -> (Vec<f32>, Vec<f32>) {
        let (kernels, rows) = (self.config.kernels, context.rows());
        let mut logits = vec![0.0; kernels * rows];
        let mut distances: [Vec<f32>; DISTANCES] = std::array::from_fn(|_| vec![0.0; rows]);
        for (column, &value) in row.iter().enumerate().filter(|(column, _)| *column != relevance.masked) {
            let weights = &relevance.weights[column * DISTANCES * kernels..][..DISTANCES * kernels];
            context.distances(column, value, |row, own| {
                distances.iter_mut().zip(own).for_each(|(all, own)| all[row] = own);
            });
            let [of_values, of_ranks, differ] = &distances;
            for (kernel, logits) in logits.chunks_exact_mut(rows).enumerate() {
                let weight = |distance: usize| weights[distance * kernels + kernel];
                let (by_value, by_rank, by_match) = (weight(0), weight(1), weight(2));
                let distances = of_values.iter().zip(of_ranks).zip(differ);
                for (logit, ((value, rank), differs)) in logits.iter_mut().zip(distances) {
                    *logit -= by_value * value + by_rank * rank + by_match * differs;
                }
            }
        }
        let mut pooled = vec![0.0; kernels * TARGETS];
        let mut effective = Vec::with_capacity(kernels);
        for (weights, pooled) in logits.chunks_exact_mut(rows).zip(pooled.chunks_exact_mut(TARGETS)) {
            if let Some(row) = left_out {
                weights[row] = -1e9;
            }
            softmax(weights);
            for (weight, &value) in weights.iter().zip(context.values(relevance.masked)) {
                pooled[target_of(value)] += weight;
            }
            let squares: f32 = weights.iter().map(|weight| weight * weight).sum();
            effective.push(-0.1 * squares.ln());
        }
        (pooled, effective)
    }

    /// The distribution of the masked cell of a row: `[TARGETS]`.
    pub fn distribution(&self, row: &RowEmbedding) -> [f32; TARGETS] {
        let mut gates = vec![0.0; self.config.kernels + 1];
        self.gate.forward(&row.confidence, &mut gates);
        softmax(&mut gates);
        let mut distribution = [0.0; TARGETS];
        for (gate, pooled) in gates.iter().zip(row.pooled.chunks_exact(TARGETS)) {
            super::add_scaled(&mut distribution, pooled, *gate);
        }
        distribution
    }

    /// The value that most of the distribution of a row's masked cell is close to.
    pub fn restore_cell(&self, row: &RowEmbedding) -> RestoredCell {
        let distribution = self.distribution(row);
        let (target, confidence) = best_window(&distribution);
        let value = (target < TARGET_BINS).then(|| (target as f32 + 0.5) / TARGET_BINS as f32);
        RestoredCell { value, confidence }
    }
}

/// The interval with most of the distribution close to it, and how much that is; the middle one of equals in a row.
fn best_window(distribution: &[f32]) -> (usize, f32) {
    let mass = |target: usize| -> f32 {
        let near = target.saturating_sub(4)..(target + 5).min(TARGETS);
        near.map(|other| window(target, other) * distribution[other]).sum()
    };
    let masses: Vec<f32> = (0..TARGETS).map(mass).collect();
    let highest = masses.iter().copied().fold(0.0, f32::max);
    let first = masses.iter().position(|&mass| mass >= highest - 1e-6).unwrap_or(0);
    let run = masses[first..].iter().take_while(|&&mass| mass >= highest - 1e-6).count();
    if first + run > TARGET_BINS { (first, highest) } else { (first + run.saturating_sub(1) / 2, highest) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DataConfig;
    use crate::fixture::{self, Noise};

    /// A column, its square and noise.
    fn context(rows: usize) -> RowContext {
        let mut noise = Noise::new(1);
        let x: Vec<f32> = (0..rows).map(|_| noise.unit()).collect();
        let squares = x.iter().map(|x| x * x);
        let free: Vec<f32> = (0..rows).map(|row| if row % 5 == 0 { f32::NAN } else { noise.unit() }).collect();
        let values = x.iter().copied().chain(squares).chain(free).collect();
        RowContext::new(RowSample { rows, columns: 3, values })
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

    #[test]
    fn order_of_sampled_rows_does_not_matter() {
        let config = DataConfig::default();
        let expert = DataExpert::from_parameters(&config, &fixture::parameters(&config.parameters(), 3)).unwrap();
        let context = context(80);
        let mut reversed = context.sample.clone();
        reversed.values.chunks_mut(80).for_each(<[f32]>::reverse);
        let restore = |context: &RowContext| {
            let row = expert.embed_row(context, &expert.relevance(context, 1), &[0.5, f32::NAN, 0.1]).unwrap();
            expert.distribution(&row)
        };
        let (left, right) = (restore(&context), restore(&RowContext::new(reversed)));
        assert!((left.iter().sum::<f32>() - 1.0).abs() < 1e-4);
        assert!(left.iter().zip(&right).all(|(left, right)| (left - right).abs() < 1e-2));
    }

    #[test]
    fn windows_hold_what_counts_as_right() {
        assert_eq!((target_of(0.0), target_of(1.0), target_of(f32::NAN)), (0, TARGET_BINS - 1, TARGET_BINS));
        assert!((window(TARGET_BINS, TARGET_BINS) - 1.0).abs() < 1e-6);
        assert!(window(TARGET_BINS, TARGET_BINS - 1).abs() < 1e-6);
        let mut distribution = [0.0; TARGETS];
        distribution[20] = 0.6;
        distribution[TARGET_BINS] = 0.4;
        assert_eq!(best_window(&distribution).0, 20);
        distribution[20] = 0.3;
        distribution[0] = 0.3;
        assert_eq!(best_window(&distribution).0, TARGET_BINS);
    }

    #[test]
    fn refuses_rows_of_another_table() {
        let config = DataConfig::default();
        let expert = DataExpert::from_parameters(&config, &fixture::parameters(&config.parameters(), 3)).unwrap();
        let context = context(10);
        let relevance = expert.relevance(&context, 0);
        assert!(expert.embed_row(&context, &relevance, &[0.0; 2]).is_err());
        let empty = RowContext::new(RowSample { rows: 0, columns: 3, values: vec![] });
        assert!(expert.embed_row(&empty, &relevance, &[0.0; 3]).is_err());
    }
}
