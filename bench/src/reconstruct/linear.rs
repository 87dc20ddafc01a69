//! Ridge regression through linfa.

use anyhow::{Result, anyhow};
use linfa::Dataset;
use linfa::traits::Fit;
use linfa_linear::LinearRegression;
use ndarray::{Array1, Array2};

/// A plane through standardised features.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ridge {
    intercept: f64,
    means: Vec<f64>,
    slopes: Vec<f64>,
}

impl Ridge {
    /// Least squares with a row `sqrt(penalty * n)` per feature below the samples (Hoerl and Kennard, Technometrics 1970,
    /// section 2). Features that do not vary have no slope.
    pub(super) fn fit(x: &[Vec<f64>], y: &[f64], penalty: f64) -> Result<Self> {
        let (n, width) = (x.len(), x.first().map_or(0, Vec::len));
        let mean = |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>() / n.max(1) as f64;
        let intercept = mean(&mut y.iter().copied());
        let means: Vec<f64> = (0..width).map(|f| mean(&mut x.iter().map(|row| row[f]))).collect();
        let spreads: Vec<f64> =
            (0..width).map(|f| mean(&mut x.iter().map(|row| (row[f] - means[f]).powi(2))).sqrt()).collect();
        let varying: Vec<usize> = (0..width).filter(|&f| spreads[f] > 1e-9).collect();
        let mut slopes = vec![0.0; width];
        if !varying.is_empty() {
            let weight = (penalty * n as f64).sqrt();
            let records = Array2::from_shape_fn((n + varying.len(), varying.len()), |(row, column)| {
                let f = varying[column];
                match row.checked_sub(n) {
                    None => (x[row][f] - means[f]) / spreads[f],
                    Some(diagonal) => weight * f64::from(u8::from(diagonal == column)),
                }
            });
            let targets = Array1::from_shape_fn(n + varying.len(), |row| y.get(row).map_or(0.0, |y| y - intercept));
            let model = LinearRegression::new().with_intercept(false).fit(&Dataset::new(records, targets));
            let model = model.map_err(|error| anyhow!("{error}"))?;
            for (&f, slope) in varying.iter().zip(model.params()) {
                slopes[f] = slope / spreads[f];
            }
        }
        Ok(Self { intercept, means, slopes })
    }

    pub(super) fn predict(&self, x: &[f64]) -> f64 {
        self.intercept
            + x.iter().zip(&self.means).zip(&self.slopes).map(|((x, mean), slope)| (x - mean) * slope).sum::<f64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fit_recovers_a_plane() {
        let x: Vec<Vec<f64>> = (0..200).map(|i| vec![f64::from(i % 17), f64::from(i % 5), 3.0]).collect();
        let y: Vec<f64> = x.iter().map(|x| 0.5 + 2.0 * x[0] - x[1]).collect();
        let ridge = Ridge::fit(&x, &y, 1e-9).unwrap();
        assert!((ridge.predict(&[10.0, 4.0, 3.0]) - 16.5).abs() < 1e-3);
    }
}
