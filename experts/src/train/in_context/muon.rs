//! Muon for the matrices of the layers and AdamW for the rest, over one flat parameter vector.
//!
//! Muon (Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024) takes steps whose singular values are all
//! about the same; scaled as in Liu et al. ("Muon is scalable for LLM training", arXiv 2502.16982, 2025) both halves share a
//! learning rate.

use crate::config::ParameterShape;
use crate::in_context::kernels::{Matrix, product};
use crate::train::optimizer::AdamW;

/// Decay of the momentum of matrices.
const MOMENTUM: f32 = 0.95;

/// Decays of the moments of the rest.
const DECAYS: [f32; 2] = [0.9, 0.98];

/// Decoupled weight decay of matrices.
const WEIGHT_DECAY: f32 = 0.01;

/// Largest global norm of a gradient.
const CLIP: f32 = 1.0;

/// Decay of the moving average of the parameters.
const AVERAGE: f32 = 0.998;

/// Takes a step of a run down `gradient` at learning rate `rate`; a gradient that is not finite is skipped. Returns its norm.
pub(crate) fn update(run: &mut AdamW, shapes: &[ParameterShape], rate: f32, gradient: &[f32]) -> f32 {
    let norm = gradient.iter().map(|value| value * value).sum::<f32>().sqrt();
    run.step += 1;
    if !norm.is_finite() {
        return norm;
    }
    let clip = if norm > CLIP { CLIP / norm } else { 1.0 };
    for shape in shapes {
        let gradient: Vec<f32> = gradient[shape.range()].iter().map(|slope| clip * slope).collect();
        match shape.shape[..] {
            [rows, columns] if shape.name.starts_with("layer.") => {
                let update = orthogonal(&momentum(&mut run.first[shape.range()], &gradient), [rows, columns]);
                let scale = 0.2 * (rows.max(columns) as f32).sqrt();
                for (parameter, update) in run.parameters[shape.range()].iter_mut().zip(update) {
                    *parameter -= rate * (scale * update + WEIGHT_DECAY * *parameter);
                }
            }
            _ => adam(run, shape, &gradient, rate),
        }
    }
    // The average follows quickly at first, and forgets the random start.
    let average = AVERAGE.min((1 + run.step) as f32 / (10 + run.step) as f32);
    for (mean, parameter) in run.average.iter_mut().zip(&run.parameters) {
        *mean = average * *mean + (1.0 - average) * parameter;
    }
    norm
}

/// The direction of a matrix, after Nesterov.
fn momentum(momentum: &mut [f32], gradient: &[f32]) -> Vec<f32> {
    let ahead = momentum.iter_mut().zip(gradient).map(|(momentum, slope)| {
        *momentum = MOMENTUM * *momentum + (1.0 - MOMENTUM) * slope;
        MOMENTUM * *momentum + (1.0 - MOMENTUM) * slope
    });
    ahead.collect()
}

fn adam(run: &mut AdamW, shape: &ParameterShape, gradient: &[f32], rate: f32) {
    let time = run.step.min(1 << 20) as i32;
    let [bias_1, bias_2] = DECAYS.map(|decay| 1.0 - decay.powi(time));
    for (place, slope) in shape.range().zip(gradient) {
        let first = DECAYS[0] * run.first[place] + (1.0 - DECAYS[0]) * slope;
        let second = DECAYS[1] * run.second[place] + (1.0 - DECAYS[1]) * slope * slope;
        (run.first[place], run.second[place]) = (first, second);
        run.parameters[place] -= rate * first / bias_1 / ((second / bias_2).sqrt() + 1e-8);
    }
}

/// A matrix with the singular vectors of `matrix: [rows, columns]` and singular values near 1, by Newton-Schulz iterations.
fn orthogonal(matrix: &[f32], [rows, columns]: [usize; 2]) -> Vec<f32> {
    // The smaller side is multiplied out.
    let (small, large, flip) = if rows <= columns { (rows, columns, false) } else { (columns, rows, true) };
    let scale = 1.0 / (matrix.iter().map(|value| value * value).sum::<f32>().sqrt() + 1e-7);
    let at =
        |row: usize, column: usize| if flip { matrix[column * columns + row] } else { matrix[row * columns + column] };
    let mut x: Vec<f32> = (0..small)
        .flat_map(|row| (0..large).map(move |column| (row, column)))
        .map(|(row, column)| scale * at(row, column))
        .collect();
    let (mut gram, mut square, mut next) = (vec![0.0; small * small], vec![0.0; small * small], vec![0.0; x.len()]);
    for _ in 0..5 {
        let own = Matrix::strided(&x, large);
        product([small, large, small], own, own.transposed(), &mut gram, small, false);
        let of_gram = Matrix::strided(&gram, small);
        product([small, small, small], of_gram, of_gram, &mut square, small, false);
        // The coefficients of the source.
        let mixed: Vec<f32> = gram.iter().zip(&square).map(|(gram, square)| -4.775 * gram + 2.0315 * square).collect();
        next.iter_mut().zip(&x).for_each(|(next, x)| *next = 3.4445 * x);
        product(
            [small, small, large],
            Matrix::strided(&mixed, small),
            Matrix::strided(&x, large),
            &mut next,
            large,
            true,
        );
        std::mem::swap(&mut x, &mut next);
    }
    let back = |row: usize, column: usize| if flip { x[column * large + row] } else { x[row * large + column] };
    (0..rows)
        .flat_map(|row| (0..columns).map(move |column| (row, column)))
        .map(|(row, column)| back(row, column))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Noise;

    #[test]
    fn singular_values_come_close_to_one() {
        let mut noise = Noise::new(2);
        for [rows, columns] in [[5, 9], [9, 5], [6, 6]] {
            let x = orthogonal(&noise.vector(rows * columns), [rows, columns]);
            let small = rows.min(columns);
            let at = |row: usize, column: usize| {
                if rows <= columns { x[row * columns + column] } else { x[column * columns + row] }
            };
            let trace: f32 =
                (0..small).map(|row| (0..rows.max(columns)).map(|column| at(row, column).powi(2)).sum::<f32>()).sum();
            assert!((0.5..1.4).contains(&(trace / small as f32)), "{trace}");
        }
    }

    #[test]
    fn finds_the_minimum_of_a_parabola() {
        let shape = |name: &str, offset, shape| ParameterShape { name: name.to_owned(), shape, offset, last: false };
        let shapes = [shape("layer.0.weight", 0, vec![3, 2]), shape("bias", 6, vec![2])];
        let mut run = AdamW::new(&shapes, vec![0.0; 8]);
        for step in 0..600 {
            let gradient: Vec<f32> = run.parameters.iter().map(|value| value - 0.5).collect();
            update(&mut run, &shapes, 0.05 * (1.0 - step as f32 / 600.0), &gradient);
        }
        assert!(run.parameters.iter().all(|value| (value - 0.5).abs() < 0.1), "{:?}", run.parameters);
        let before = run.clone();
        assert!(update(&mut run, &shapes, 1.0, &[f32::NAN; 8]).is_nan() && run.parameters == before.parameters);
    }
}
