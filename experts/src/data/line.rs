//! A plane through the sampled rows: a masked column as a linear function of the visible ones.
//!
//! Where a column follows from others along a line, a plane fitted in context needs fewer rows than kernels do. Ridge
//! regression on standardised columns (Hoerl and Kennard, Technometrics 1970) by Cholesky's decomposition; NULLs of a
//! visible column stand at its mean, with a flag of their own.

use super::cells::{TARGET_BINS, TARGETS, target_of};
use crate::cholesky::{backward, decompose, forward, leverage, products};

/// Penalty per row.
const PENALTY: f64 = 1e-3;

/// Residuals that are kept, as quantiles.
const RESIDUALS: usize = 32;

/// A column as a plane over others.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Line {
    intercept: f64,
    /// Mean of each feature, and slope. `[2 V]`
    features: Vec<(f64, f64)>,
    /// Quantiles of the residuals, ascending; empty where nothing could be fitted.
    residuals: Vec<f32>,
    /// Share of rows without a value.
    none: f32,
}

/// A fitted line, with the errors of rows that it was not fitted to.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct FittedLine {
    pub(crate) line: Line,
    /// For each row, what is missing from the prediction of a line fitted without it; NaN where it has no value. `[R]`
    pub(crate) left_out: Vec<f32>,
}

/// Value and NULL flag of a visible cell whose column has mean `mean`.
fn pair(value: f32, mean: f64) -> [f64; 2] {
    if value.is_nan() { [mean, 1.0] } else { [f64::from(value), 0.0] }
}

impl Line {
    /// Fits `target: [R]` to `visible: [V][R]`.
    pub(crate) fn fit(visible: &[&[f32]], target: &[f32]) -> FittedLine {
        let mean = |values: &mut dyn Iterator<Item = f64>| {
            let (sum, count) = values.fold((0.0, 0usize), |(sum, count), value| (sum + value, count + 1));
            sum / count.max(1) as f64
        };
        let own: Vec<f64> =
            visible.iter().map(|v| mean(&mut v.iter().filter(|x| !x.is_nan()).map(|&x| f64::from(x)))).collect();
        let rows: Vec<usize> = (0..target.len()).filter(|&row| !target[row].is_nan()).collect();
        let none = 1.0 - rows.len() as f32 / target.len().max(1) as f32;
        let width = 2 * visible.len();
        let mut x: Vec<f64> = Vec::with_capacity(rows.len() * width);
        for &row in &rows {
            x.extend(visible.iter().zip(&own).flat_map(|(values, &mean)| pair(values[row], mean)));
        }
        let n = rows.len().max(1) as f64;
        let intercept = mean(&mut rows.iter().map(|&row| f64::from(target[row])));
        let column = |feature: usize| x.iter().skip(feature).step_by(width.max(1));
        let means: Vec<f64> = (0..width).map(|f| mean(&mut column(f).copied())).collect();
        let spreads: Vec<f64> =
            (0..width).map(|f| mean(&mut column(f).map(|x| (x - means[f]).powi(2))).sqrt().max(1e-9)).collect();
        for row in x.chunks_exact_mut(width.max(1)) {
            row.iter_mut().zip(&means).zip(&spreads).for_each(|((x, mean), spread)| *x = (*x - mean) / spread);
        }
        let mut matrix = products(&x, width);
        let mut slopes = vec![0.0; width];
        for (row, &position) in x.chunks_exact(width.max(1)).zip(&rows) {
            let y = f64::from(target[position]) - intercept;
            slopes.iter_mut().zip(row).for_each(|(sum, left)| *sum += left * y);
        }
        (0..width).for_each(|i| matrix[i * width + i] += PENALTY * n);
        decompose(&mut matrix, width);
        forward(&matrix, width, &mut slopes);
        backward(&matrix, width, &mut slopes);
        let mut left_out = vec![f32::NAN; target.len()];
        for (row, &position) in x.chunks_exact(width.max(1)).zip(&rows) {
            let predicted: f64 = intercept + row.iter().zip(&slopes).map(|(x, slope)| x * slope).sum::<f64>();
            let leverage = leverage(&matrix, row) + 1.0 / n;
            left_out[position] = ((f64::from(target[position]) - predicted) / (1.0 - leverage).max(0.05)) as f32;
        }
        let mut sorted: Vec<f32> = left_out.iter().copied().filter(|residual| !residual.is_nan()).collect();
        sorted.sort_unstable_by(f32::total_cmp);
        let quantile = |i: usize| sorted[((i as f64 + 0.5) / RESIDUALS as f64 * sorted.len() as f64) as usize];
        let residuals = if sorted.is_empty() { vec![] } else { (0..RESIDUALS).map(quantile).collect() };
        let features = means.into_iter().zip(slopes.into_iter().zip(spreads).map(|(slope, spread)| slope / spread));
        FittedLine { line: Self { intercept, features: features.collect(), residuals, none }, left_out }
    }

    /// The value on the line where the visible cells are `visible: [V]`.
    pub(crate) fn predict(&self, visible: impl Iterator<Item = f32>) -> f32 {
        let features = self.features.chunks_exact(2).zip(visible);
        let terms = features.map(|(features, value)| {
            let [x, none] = pair(value, features[0].0);
            (x - features[0].0) * features[0].1 + (none - features[1].0) * features[1].1
        });
        (self.intercept + terms.sum::<f64>()) as f32
    }

    /// The distribution around a predicted value: `[TARGETS]`.
    pub(crate) fn distribution(&self, predicted: f32) -> [f32; TARGETS] {
        let mut distribution = [0.0; TARGETS];
        for residual in &self.residuals {
            let share = (1.0 - self.none) / self.residuals.len() as f32;
            distribution[target_of((predicted + residual).clamp(0.0, 1.0))] += share;
        }
        distribution[TARGET_BINS] = if self.residuals.is_empty() { 1.0 } else { self.none };
        distribution
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Noise;

    #[test]
    fn a_line_is_found_and_its_errors_are_those_of_rows_left_out() {
        let mut noise = Noise::new(2);
        let x: Vec<f32> = (0..60).map(|row| if row % 7 == 0 { f32::NAN } else { noise.unit() }).collect();
        let free: Vec<f32> = noise.vector(60);
        let y: Vec<f32> = x.iter().map(|x| if x.is_nan() { 0.9 } else { 0.2 + 0.5 * x }).collect();
        let FittedLine { line, left_out } = Line::fit(&[&x, &free], &y);
        assert!((line.predict([0.5, 0.3].into_iter()) - 0.45).abs() < 0.01);
        assert!((line.predict([f32::NAN, 0.3].into_iter()) - 0.9).abs() < 0.02);
        assert!(left_out.iter().all(|error| error.abs() < 0.03));
        let distribution = line.distribution(0.51);
        assert!(distribution[18..23].iter().sum::<f32>() > 0.99 && distribution[TARGET_BINS].abs() < 1e-6);
    }

    #[test]
    fn nothing_to_fit_is_null() {
        for target in [&[][..], &[f32::NAN, f32::NAN]] {
            let FittedLine { line, .. } = Line::fit(&[&vec![0.5; target.len()]], target);
            assert!((line.distribution(line.predict([0.5].into_iter()))[TARGET_BINS] - 1.0).abs() < 1e-6);
        }
        let one = Line::fit(&[], &[0.25, 0.25]);
        assert!((one.line.predict(std::iter::empty()) - 0.25).abs() < 1e-6);
    }
}
