//! Products of matrices and the few functions between them, over plain slices.

use multiversion::multiversion;

use crate::mlp::NORM_EPSILON;

/// A matrix that is read: element (row, column) is `values[row * rows + column * columns]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Matrix<'a> {
    values: &'a [f32],
    rows: usize,
    columns: usize,
}

impl<'a> Matrix<'a> {
    /// Row-major, with rows that start `stride` apart.
    pub(crate) fn strided(values: &'a [f32], stride: usize) -> Self {
        Self { values, rows: stride, columns: 1 }
    }

    /// Rows and columns exchanged.
    pub(crate) fn transposed(self) -> Self {
        Self { values: self.values, rows: self.columns, columns: self.rows }
    }

    /// Whether a matrix of this shape lies within the values.
    fn holds(&self, rows: usize, columns: usize) -> bool {
        rows == 0 || columns == 0 || (rows - 1) * self.rows + (columns - 1) * self.columns < self.values.len()
    }
}

/// `out = left right` of shape `[m, n]`, or `out += left right`; the rows of `out` start `stride` apart.
///
/// # Panics
///
/// If a matrix is smaller than its shape, `left: [m, k]` and `right: [k, n]`.
#[expect(unsafe_code, reason = "the kernel takes pointers; all of them are checked against their slices here")]
pub(crate) fn product(
    [m, k, n]: [usize; 3],
    left: Matrix<'_>,
    right: Matrix<'_>,
    out: &mut [f32],
    stride: usize,
    accumulate: bool,
) {
    let fits = m == 0 || n == 0 || (m - 1) * stride + n <= out.len();
    assert!(fits && n <= stride.max(n) && left.holds(m, k) && right.holds(k, n), "a matrix is smaller than its shape");
    assert!(m <= 1 || stride >= n, "rows of the result overlap");
    // SAFETY: all elements that the shapes and strides name lie within the slices, and rows of `out` do not overlap.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            stride as isize,
            accumulate,
            left.values.as_ptr(),
            left.columns as isize,
            left.rows as isize,
            right.values.as_ptr(),
            right.columns as isize,
            right.rows as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// `e^x` for `x` at most 88, within 3e-6 of it in relative terms; written so that compilers vectorise it.
#[inline(always)]
fn exp(x: f32) -> f32 {
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    // ln 2 in two parts, the first of which has few bits (Cody and Waite, 1980).
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let x = x.max(-87.0);
    // Adding this number rounds to an integer, which then stands in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let shifted = x * LOG2_E + ROUND;
    let whole = shifted - ROUND;
    let rest = x - whole * LN_2_HIGH - whole * LN_2_LOW;
    let series = 1.0
        + rest
            * (1.0
                + rest
                    * (0.5
                        + rest * (0.166_666_6 + rest * (0.041_666_41 + rest * (0.008_333_68 + rest * 0.001_393_3)))));
    let power = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    series * power
}

/// The softmax of every row of `scale * scores`, in place.
///
/// # Shapes
///
/// `scores: [R, columns]`, row-major.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2+fma", "aarch64+neon"))]
pub(crate) fn softmax(scores: &mut [f32], columns: usize, scale: f32) {
    for row in scores.chunks_exact_mut(columns.max(1)) {
        let mut largest = [f32::NEG_INFINITY; LANES];
        let mut blocks = row.chunks_exact(LANES);
        for block in &mut blocks {
            for (largest, value) in largest.iter_mut().zip(block) {
                *largest = if *value > *largest { *value } else { *largest };
            }
        }
        let rest = blocks.remainder().iter().chain(&largest);
        let largest = rest.fold(f32::NEG_INFINITY, |largest, value| largest.max(*value)) * scale;
        let mut sums = [0.0f32; LANES];
        let mut blocks = row.chunks_exact_mut(LANES);
        for block in &mut blocks {
            for (sum, value) in sums.iter_mut().zip(block) {
                *value = exp(*value * scale - largest);
                *sum += *value;
            }
        }
        let mut sum: f32 = sums.iter().sum();
        for value in blocks.into_remainder() {
            *value = exp(*value * scale - largest);
            sum += *value;
        }
        let share = 1.0 / sum;
        row.iter_mut().for_each(|value| *value *= share);
    }
}

/// Sums that are kept apart so that they are added in vectors.
const LANES: usize = 16;

#[inline(always)]
fn sum_of_products(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; LANES];
    let (a_blocks, b_blocks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = a_blocks.remainder().iter().zip(b_blocks.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a_blocks.zip(b_blocks) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += a * b;
        }
    }
    rest + sums.iter().sum::<f32>()
}

/// The gradient of [`softmax`]: `gradient` of the shares -> that of the scores, in place.
#[cfg(feature = "train")]
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2+fma", "aarch64+neon"))]
pub(crate) fn softmax_gradient(shares: &[f32], gradient: &mut [f32], columns: usize, scale: f32) {
    for (shares, gradient) in shares.chunks_exact(columns.max(1)).zip(gradient.chunks_exact_mut(columns.max(1))) {
        let mean = sum_of_products(shares, gradient);
        for (gradient, share) in gradient.iter_mut().zip(shares) {
            *gradient = scale * share * (*gradient - mean);
        }
    }
}

/// Every row of `x: [R, width]` scaled to a root mean square of 1 (RMS norm, Zhang & Sennrich, NeurIPS 2019; a gain would be part of
/// the weights that follow), and the scales `[R]`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2+fma", "aarch64+neon"))]
pub(crate) fn normalise(x: &[f32], width: usize, out: &mut [f32], scales: &mut [f32]) {
    for ((x, out), scale) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)).zip(scales) {
        *scale = 1.0 / (sum_of_products(x, x) / width as f32 + NORM_EPSILON).sqrt();
        for (out, x) in out.iter_mut().zip(x) {
            *out = x * *scale;
        }
    }
}

/// The gradient of [`normalise`], added to `out`: `normalised` is what it returned.
#[cfg(feature = "train")]
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2+fma", "aarch64+neon"))]
pub(crate) fn normalise_gradient(normalised: &[f32], scales: &[f32], width: usize, gradient: &[f32], out: &mut [f32]) {
    let rows = normalised.chunks_exact(width).zip(gradient.chunks_exact(width)).zip(out.chunks_exact_mut(width));
    for (((x, gradient), out), scale) in rows.zip(scales) {
        let mean = sum_of_products(x, gradient) / width as f32;
        for ((out, x), gradient) in out.iter_mut().zip(x).zip(gradient) {
            *out += scale * (gradient - x * mean);
        }
    }
}

/// What the logistic function is stretched by to come close to the normal distribution function.
const GELU: f32 = 1.702;

/// `x` times the logistic function of `1.702 x` (Hendrycks & Gimpel, "Gaussian error linear units", 2016).
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2+fma", "aarch64+neon"))]
pub(crate) fn gelu(x: &[f32], out: &mut [f32]) {
    for (out, x) in out.iter_mut().zip(x) {
        *out = x / (1.0 + exp((-GELU * x).min(80.0)));
    }
}

/// The gradient of [`gelu`] at `x`, in place of that of its result.
#[cfg(feature = "train")]
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2+fma", "aarch64+neon"))]
pub(crate) fn gelu_gradient(x: &[f32], gradient: &mut [f32]) {
    for (gradient, x) in gradient.iter_mut().zip(x) {
        let share = 1.0 / (1.0 + exp((-GELU * x).min(80.0)));
        *gradient *= share * (1.0 + GELU * x * (1.0 - share));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Noise;

    #[test]
    fn products_agree_with_the_definition_under_any_strides() {
        let mut noise = Noise::new(1);
        for [m, k, n] in [[1, 1, 1], [3, 5, 2], [17, 24, 33]] {
            let (left, right) = (noise.vector((m + 1) * (k + 2)), noise.vector(n * (k + 1)));
            let mut out = noise.vector(m * (n + 3));
            let before = out.clone();
            let (a, b) = (Matrix::strided(&left, k + 2), Matrix::strided(&right, k + 1).transposed());
            product([m, k, n], a, b, &mut out, n + 3, true);
            for row in 0..m {
                for column in 0..n + 3 {
                    let place = row * (n + 3) + column;
                    let sum: f32 =
                        (0..k).map(|one| left[row * (k + 2) + one] * right[column.min(n - 1) * (k + 1) + one]).sum();
                    let expected = before[place] + if column < n { sum } else { 0.0 };
                    assert!((out[place] - expected).abs() < 1e-4);
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "smaller than its shape")]
    fn products_stay_within_their_slices() {
        product([2, 2, 2], Matrix::strided(&[0.0; 4], 3), Matrix::strided(&[0.0; 4], 2), &mut [0.0; 4], 2, false);
    }

    #[test]
    fn functions_agree_with_the_platform() {
        for place in -800..800 {
            let x = place as f32 * 0.1;
            assert!((exp(x) / x.exp() - 1.0).abs() < 3e-6, "{x}: {} against {}", exp(x), x.exp());
        }
        let mut scores: Vec<f32> = (0..37).map(|place| (place % 7) as f32 * 30.0).collect();
        let sum: f32 = scores.iter().map(|score| (score * 0.5 - 90.0).exp()).sum();
        let expected: Vec<f32> = scores.iter().map(|score| (score * 0.5 - 90.0).exp() / sum).collect();
        softmax(&mut scores, 37, 0.5);
        assert!(scores.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6));
    }
}
