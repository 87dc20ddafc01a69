//! Cholesky's decomposition of small positive definite matrices, row-major, of which only the lower triangle is read.

/// In place: the lower triangle of a positive definite matrix -> its Cholesky factor.
pub(crate) fn decompose(matrix: &mut [f64], width: usize) {
    for i in 0..width {
        for j in 0..=i {
            let dot: f64 = (0..j).map(|k| matrix[i * width + k] * matrix[j * width + k]).sum();
            let rest = matrix[i * width + j] - dot;
            matrix[i * width + j] = if i == j { rest.max(1e-12).sqrt() } else { rest / matrix[j * width + j] };
        }
    }
}

/// In place: solves `L x = b`.
pub(crate) fn forward(factor: &[f64], width: usize, b: &mut [f64]) {
    for i in 0..width {
        let dot: f64 = factor[i * width..i * width + i].iter().zip(&b[..i]).map(|(l, x)| l * x).sum();
        b[i] = (b[i] - dot) / factor[i * width + i];
    }
}

/// In place: solves `L' x = b`.
pub(crate) fn backward(factor: &[f64], width: usize, b: &mut [f64]) {
    for i in (0..width).rev() {
        let dot: f64 = (i + 1..width).map(|k| factor[k * width + i] * b[k]).sum();
        b[i] = (b[i] - dot) / factor[i * width + i];
    }
}

/// The lower triangle of `x' x` for `x: [R, width]`.
pub(crate) fn products(x: &[f64], width: usize) -> Vec<f64> {
    let mut products = vec![0.0; width * width];
    for row in x.chunks_exact(width.max(1)) {
        for (i, left) in row.iter().enumerate() {
            let sums = &mut products[i * width..=i * width + i];
            sums.iter_mut().zip(row).for_each(|(sum, right)| *sum += left * right);
        }
    }
    products
}

/// How much a row of `x` weighs in its own prediction, by the factor of `x' x`.
pub(crate) fn leverage(factor: &[f64], row: &[f64]) -> f64 {
    let mut solved = row.to_vec();
    forward(factor, row.len(), &mut solved);
    solved.iter().map(|value| value * value).sum()
}
