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

use super::context::{DISTANCES, RowContext};
use super::line::{FittedLine, Line};
use super::{DataExpert, softmax};
use crate::Result;
use crate::error::{ExpertsError, check_length};

/// What the gate knows of a kernel: mass of its best window, mass of NULL, effective number of rows, and how much of the
/// distributions of sampled rows that are left out is right.
pub const GATE_FEATURES: usize = 4;

/// Intervals that the distribution of a masked cell has.
pub const TARGET_BINS: usize = 40;

/// These and one for no value.
pub const TARGETS: usize = TARGET_BINS + 1;

/// A restored value this close to the actual one counts as right, in units of the relative encoding.
pub const TOLERANCE: f32 = 0.1;

/// Logarithm of a kernel's weight of a distance that the MLP says nothing about, and how far the MLP can move it.
pub(crate) const SHARPNESS: (f32, f32) = (2.0, 4.0);

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
    use relata_featurize::relative::RowSample;

    use super::*;
    use crate::config::DataConfig;
    use crate::data::context::tests::{context, sample};
    use crate::fixture;

    #[test]
    fn order_of_sampled_rows_does_not_matter() {
        let config = DataConfig::default();
        let expert = DataExpert::from_parameters(&config, &fixture::parameters(&config.parameters(), 3)).unwrap();
        let context = context(80);
        let mut reversed = sample(80);
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
