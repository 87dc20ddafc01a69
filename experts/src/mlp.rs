//! Multi-layer perceptrons over plain slices, batched over rows, and the one hot kernel behind them.
//!
//! `h = relu(x W0 + b0)`, then `h = h + relu(h Wi + bi)` for the middle layers, then `h Wn + bn`. ReLU costs one
//! instruction per lane; the residual keeps gradients alive without it being smooth.

use multiversion::multiversion;

use crate::config::{MlpShape, Module};

/// Columns of the register tile of [`affine`]: one AVX-512 register, two AVX2 registers.
const LANES: usize = 16;

/// Rows of a matrix product that share one load of the weights.
const ROWS: usize = 4;

/// One layer: `y = x W + b`.
#[derive(Debug, Clone, PartialEq)]
pub struct Linear {
    /// Length of the input.
    pub input: usize,
    /// Length of the output.
    pub output: usize,
    /// `[input, output]`, row-major.
    pub weight: Vec<f32>,
    /// `[output]`
    pub bias: Vec<f32>,
}

/// A multi-layer perceptron (see [`crate::mlp`] for its form).
#[derive(Debug, Clone, PartialEq)]
pub struct Mlp {
    layers: Vec<Linear>,
}

impl Mlp {
    /// Cuts the MLP of shape `shape` out of its flat parameters: weight and bias of each layer in turn.
    ///
    /// # Panics
    ///
    /// If `parameters` is shorter than the shape says; [`crate::weights`] checks this before.
    pub fn new(shape: MlpShape, parameters: &[f32]) -> Self {
        let mut rest = parameters;
        let mut take = |count: usize| {
            let (head, tail) = rest.split_at(count);
            rest = tail;
            head.to_vec()
        };
        let layers = (0..shape.layers)
            .map(|layer| {
                let (input, output) = shape.layer(layer);
                Linear { input, output, weight: take(input * output), bias: take(output) }
            })
            .collect();
        Self { layers }
    }

    /// The MLP `module` of an expert with MLPs `shapes` and the flat vector `parameters`.
    ///
    /// # Panics
    ///
    /// If `parameters` is shorter than the shapes say, or none of them is of `module`.
    pub(crate) fn of(module: Module, shapes: &[MlpShape], parameters: &[f32]) -> Self {
        let index = shapes.iter().position(|shape| shape.module == module).unwrap_or(shapes.len());
        let first: usize = shapes[..index].iter().map(MlpShape::parameter_count).sum();
        Self::new(shapes[index], &parameters[first..])
    }

    /// The flat parameters, as [`Self::new`] takes them.
    pub(crate) fn parameters(&self) -> impl Iterator<Item = f32> {
        self.layers.iter().flat_map(|layer| layer.weight.iter().chain(&layer.bias).copied())
    }

    /// F: length of the input.
    pub fn input(&self) -> usize {
        self.layers.first().map_or(0, |layer| layer.input)
    }

    /// Width of the hidden layers.
    pub fn hidden_width(&self) -> usize {
        self.layers.first().map_or(0, |layer| layer.output)
    }

    /// Length of the output.
    pub fn output(&self) -> usize {
        self.layers.last().map_or(0, |layer| layer.output)
    }

    /// The whole MLP.
    ///
    /// # Shapes
    ///
    /// `x: [R, input]` -> `out: [R, output]`, row-major.
    pub fn forward(&self, x: &[f32], out: &mut [f32]) {
        let rows = x.len() / self.input().max(1);
        let first = &self.layers[0];
        let mut hidden = vec![0.0; rows * self.hidden_width()];
        affine(x, &first.weight, &first.bias, &mut hidden);
        relu(&mut hidden);
        self.middle(&mut hidden);
        self.last(&hidden, out);
    }

    /// The first layer of inputs whose leading features differ from row to row while the rest is shared: `shared` is the
    /// output of [`Self::first_of_shared`].
    ///
    /// # Shapes
    ///
    /// `x: [R, leading]`, `shared: [hidden]` -> hidden state `[R, hidden]` after the last middle layer.
    pub fn hidden_with_shared(&self, leading: usize, x: &[f32], shared: &[f32]) -> Vec<f32> {
        let first = &self.layers[0];
        let mut hidden = vec![0.0; x.len() / leading.max(1) * first.output];
        affine(x, &first.weight[..leading * first.output], shared, &mut hidden);
        relu(&mut hidden);
        self.middle(&mut hidden);
        hidden
    }

    /// What the features from `leading` on contribute to the first layer, bias included: `[hidden]`.
    pub fn first_of_shared(&self, leading: usize, features: &[f32]) -> Vec<f32> {
        let first = &self.layers[0];
        let mut shared = vec![0.0; first.output];
        affine(features, &first.weight[leading * first.output..], &first.bias, &mut shared);
        shared
    }

    /// Hidden state after the last middle layer: `x: [R, input]` -> `[R, hidden]`.
    pub fn hidden(&self, x: &[f32]) -> Vec<f32> {
        let first = &self.layers[0];
        self.hidden_with_shared(first.input, x, &first.bias)
    }

    /// The linear last layer: `hidden: [R, hidden]` -> `out: [R, output]`. Being linear, it may follow a mean instead of
    /// preceding it.
    pub fn last(&self, hidden: &[f32], out: &mut [f32]) {
        if let Some(last) = self.layers.last() {
            affine(hidden, &last.weight, &last.bias, out);
        }
    }

    fn middle(&self, hidden: &mut [f32]) {
        let Some(middle) = self.layers.get(1..self.layers.len() - 1).filter(|middle| !middle.is_empty()) else {
            return;
        };
        let mut next = vec![0.0; hidden.len()];
        for layer in middle {
            affine(hidden, &layer.weight, &layer.bias, &mut next);
            hidden.iter_mut().zip(&next).for_each(|(state, update)| *state += update.max(0.0));
        }
    }
}

fn relu(values: &mut [f32]) {
    values.iter_mut().for_each(|value| *value = value.max(0.0));
}

/// Scales `state` to a root mean square of 1, so that states stay in range however deep the plan is (RMS norm, Zhang &
/// Sennrich, NeurIPS 2019, without a learned gain).
pub fn normalise(state: &mut [f32]) {
    let mean_square = state.iter().map(|value| value * value).sum::<f32>() / state.len().max(1) as f32;
    let scale = (mean_square + NORM_EPSILON).sqrt().recip();
    state.iter_mut().for_each(|value| *value *= scale);
}

/// Added to the mean square in [`normalise`].
pub const NORM_EPSILON: f32 = 1e-6;

/// The hot kernel: `out = x W + bias`, compiled for AVX-512, AVX2 with FMA, NEON and the baseline, chosen at run time.
///
/// Register tiles of `ROWS` x `LANES` keep the sums in registers over the whole inner loop, so that a weight is loaded
/// once per four rows; a single row runs over two tiles of columns side by side to hide the latency of the additions.
///
/// # Shapes
///
/// `x: [R, input]`, `weight: [input, output]`, `bias: [output]` -> `out: [R, output]`, all row-major; R and `input` follow
/// from the lengths.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2+fma", "aarch64+neon"))]
pub fn affine(x: &[f32], weight: &[f32], bias: &[f32], out: &mut [f32]) {
    const FMA: bool = multiversion::target::target_cfg_f!(target_feature = "fma") || cfg!(target_arch = "aarch64");
    // Twice as many sums fit into the registers of AVX-512.
    const WIDE: bool = multiversion::target::target_cfg_f!(target_feature = "avx512f");
    let output = bias.len();
    if output == 0 || out.is_empty() {
        return;
    }
    let (input, rows) = (weight.len() / output, out.len() / output);
    debug_assert_eq!((x.len(), weight.len(), out.len()), (rows * input, input * output, rows * output));
    let mut row = 0;
    while row < rows {
        let block = if rows - row >= ROWS { ROWS } else { 1 };
        let x = &x[row * input..(row + block) * input];
        let out = &mut out[row * output..(row + block) * output];
        let mut column = 0;
        while column < output {
            let (x, left) = (x, output - column);
            column += match (block, left) {
                (1, left) if left >= 4 * LANES => tile::<1, { 4 * LANES }, FMA>(x, weight, bias, out, column),
                (1, left) if left >= 2 * LANES => tile::<1, { 2 * LANES }, FMA>(x, weight, bias, out, column),
                (1, left) if left >= LANES => tile::<1, LANES, FMA>(x, weight, bias, out, column),
                (1, _) => tile::<1, 1, FMA>(x, weight, bias, out, column),
                (_, left) if WIDE && left >= 2 * LANES => {
                    tile::<ROWS, { 2 * LANES }, FMA>(x, weight, bias, out, column)
                }
                (_, left) if left >= LANES => tile::<ROWS, LANES, FMA>(x, weight, bias, out, column),
                _ => tile::<ROWS, 1, FMA>(x, weight, bias, out, column),
            };
        }
        row += block;
    }
}

/// `R` rows and `C` columns, from column `column` on, of [`affine`]; returns C.
#[inline(always)]
fn tile<const R: usize, const C: usize, const FMA: bool>(
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    out: &mut [f32],
    column: usize,
) -> usize {
    let output = bias.len();
    let input = x.len() / R;
    let rows: [&[f32]; R] = std::array::from_fn(|row| &x[row * input..(row + 1) * input]);
    let mut sums = [[0.0f32; C]; R];
    for row in &mut sums {
        row.copy_from_slice(&bias[column..column + C]);
    }
    for (feature, weights) in weight.chunks_exact(output).enumerate().take(input) {
        let weights = &weights[column..column + C];
        for (sums, row) in sums.iter_mut().zip(rows) {
            let value = row[feature];
            for (sum, weight) in sums.iter_mut().zip(weights) {
                *sum = if FMA { value.mul_add(*weight, *sum) } else { value * weight + *sum };
            }
        }
    }
    for (row, sums) in sums.iter().enumerate() {
        out[row * output + column..row * output + column + C].copy_from_slice(sums);
    }
    C
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Noise;

    /// Definition of [`affine`], the oracle.
    fn naive(x: &[f32], weight: &[f32], bias: &[f32], rows: usize) -> Vec<f32> {
        let (output, input) = (bias.len(), weight.len() / bias.len());
        let mut out = vec![0.0; rows * output];
        for row in 0..rows {
            for column in 0..output {
                let products =
                    (0..input).map(|i| f64::from(x[row * input + i]) * f64::from(weight[i * output + column]));
                out[row * output + column] = (products.sum::<f64>() + f64::from(bias[column])) as f32;
            }
        }
        out
    }

    #[test]
    fn kernel_agrees_with_the_definition() {
        let mut noise = Noise::new(7);
        for (rows, input, output) in
            [(1, 1, 1), (1, 216, 128), (1, 64, 3), (3, 5, 17), (4, 27, 48), (9, 64, 96), (6, 3, 35), (5, 2, 64)]
        {
            let (x, weight) = (noise.vector(rows * input), noise.vector(input * output));
            let bias = noise.vector(output);
            let mut out = vec![f32::NAN; rows * output];
            affine(&x, &weight, &bias, &mut out);
            for (fast, slow) in out.iter().zip(naive(&x, &weight, &bias, rows)) {
                assert!((fast - slow).abs() < 1e-4, "{rows}x{input}x{output}: {fast} against {slow}");
            }
        }
    }

    #[test]
    fn kernel_accepts_empty_inputs() {
        affine(&[], &[1.0, 2.0], &[0.0, 0.0], &mut []);
        let mut out = [0.0; 2];
        affine(&[], &[], &[1.0, 2.0], &mut out);
        assert!((out[0] - 1.0).abs() < 1e-6 && (out[1] - 2.0).abs() < 1e-6);
    }

    #[test]
    fn shared_features_agree_with_the_whole_input() {
        let shape = MlpShape { module: Module::Cell, input: 7, hidden: 16, output: 5, layers: 4 };
        let mut noise = Noise::new(3);
        let mlp = Mlp::new(shape, &noise.vector(7 * 16 + 16 + 2 * (16 * 16 + 16) + 16 * 5 + 5));
        let (leading, rest) = (noise.vector(3 * 3), noise.vector(4));
        let whole: Vec<f32> =
            leading.chunks(3).flat_map(|row| row.iter().chain(&rest).copied().collect::<Vec<_>>()).collect();
        let hidden = mlp.hidden_with_shared(3, &leading, &mlp.first_of_shared(3, &rest));
        let (mut split, mut joint) = (vec![0.0; 15], vec![0.0; 15]);
        mlp.last(&hidden, &mut split);
        mlp.forward(&whole, &mut joint);
        for (split, joint) in split.iter().zip(&joint) {
            assert!((split - joint).abs() < 1e-4);
        }
    }
}
