//! The transformer of the in-context predictor: states of cells attend to each other along rows and along columns.
//!
//! A table has a column per feature and, as the last one, that of the labels. In each layer a cell attends to the cells of its row,
//! then to those of its column in the rows of the context, and passes an MLP; before each, states are normalised. Queries have
//! several heads, keys and values one (Shazeer, "Fast transformer decoding: one write-head is all you need", 2019), so that what is
//! kept of the context is small. Of the last layer only the labels are read, so only theirs are computed.
//!
//! What a layer computes on its way is left in a tape, which training reads backwards; a tape can be written again.

use std::ops::Range;

use crate::in_context::attention::Attention;
use crate::in_context::config::{Axis, InContextConfig, LayerTensor, OUTPUTS, Tensor};
use crate::in_context::encoding::{CELL_FEATURES, LABEL_FEATURES};
use crate::in_context::kernels::{Matrix, gelu, normalise, product};

/// The sizes with the flat parameter vector.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Network<'a> {
    pub(crate) config: &'a InContextConfig,
    pub(crate) places: &'a Places,
    pub(crate) flat: &'a [f32],
}

/// Where every tensor lies in the flat parameter vector.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    tensors: Vec<(Tensor, Range<usize>)>,
}

impl Places {
    pub(crate) fn new(config: &InContextConfig) -> Self {
        let ranges = config.parameters().into_iter().map(|parameter| parameter.range());
        Self { tensors: config.tensors().into_iter().zip(ranges).collect() }
    }

    /// The range of a tensor; empty for one of a layer that there is not.
    pub(crate) fn of(&self, tensor: Tensor) -> Range<usize> {
        self.tensors.iter().find(|(own, _)| *own == tensor).map_or(0..0, |(_, range)| range.clone())
    }
}

/// What an attention computes on its way.
#[derive(Debug, Clone, Default)]
pub(crate) struct AttentionTape {
    /// Normalised states, and what they were scaled by.
    pub(crate) normalised: Vec<f32>,
    pub(crate) scales: Vec<f32>,
    pub(crate) query: Vec<f32>,
    /// Keys and values of the cells of a row; empty along columns.
    pub(crate) key: Vec<f32>,
    /// What the heads say.
    pub(crate) said: Vec<f32>,
}

/// What a layer computes on its way.
#[derive(Debug, Clone, Default)]
pub(crate) struct LayerTape {
    pub(crate) features: AttentionTape,
    pub(crate) rows: AttentionTape,
    /// Of the MLP.
    pub(crate) normalised: Vec<f32>,
    pub(crate) scales: Vec<f32>,
    pub(crate) inner: Vec<f32>,
    pub(crate) active: Vec<f32>,
}

/// What the decoder computes on its way.
#[derive(Debug, Clone, Default)]
pub(crate) struct DecoderTape {
    pub(crate) normalised: Vec<f32>,
    pub(crate) scales: Vec<f32>,
    pub(crate) inner: Vec<f32>,
    pub(crate) active: Vec<f32>,
}

/// The keys and values that a column's cells attend to, of `rows` rows of the context. `[A, rows, 2 D / heads]`
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) key: &'a [f32],
    pub(crate) rows: usize,
}

impl<'a> Network<'a> {
    pub(crate) fn tensor(&self, tensor: Tensor) -> &'a [f32] {
        &self.flat[self.places.of(tensor)]
    }

    /// Width of keys together with values.
    pub(crate) fn key_width(&self) -> usize {
        2 * self.config.head()
    }

    /// What scores are scaled by before the softmax.
    pub(crate) fn score_scale(&self) -> f32 {
        1.0 / (self.config.head() as f32).sqrt()
    }

    /// `x: [R, input] -> [R, output]`
    fn linear(&self, tensor: Tensor, x: &[f32], input: usize, output: usize, out: &mut Vec<f32>) {
        let rows = x.len() / input;
        let weight = Matrix::strided(self.tensor(tensor), output);
        product([rows, input, output], Matrix::strided(x, input), weight, sized(out, rows * output), output, false);
    }

    /// The same with a bias.
    fn affine(&self, [weight, bias]: [Tensor; 2], x: &[f32], input: usize, output: usize, out: &mut Vec<f32>) {
        self.linear(weight, x, input, output, out);
        let bias = self.tensor(bias);
        out.chunks_exact_mut(output).for_each(|row| row.iter_mut().zip(bias).for_each(|(out, bias)| *out += bias));
    }

    /// Normalised states with what they were scaled by.
    fn normalise(&self, x: &[f32], normalised: &mut Vec<f32>, scales: &mut Vec<f32>) {
        let width = self.config.width;
        normalise(x, width, sized(normalised, x.len()), sized(scales, x.len() / width));
    }

    /// States of rows from the features of their cells and labels.
    ///
    /// # Shapes
    ///
    /// `cells: [R (C - 1), CELL_FEATURES]`, `labels: [R, LABEL_FEATURES]` -> `[R, C, D]`
    pub(crate) fn embed(&self, cells: &[f32], labels: &[f32]) -> Vec<f32> {
        let width = self.config.width;
        let rows = labels.len() / LABEL_FEATURES;
        let features = cells.len() / CELL_FEATURES / rows.max(1);
        let (mut of_cells, mut of_labels) = (vec![], vec![]);
        self.linear(Tensor::Cell, cells, CELL_FEATURES, width, &mut of_cells);
        self.linear(Tensor::Label, labels, LABEL_FEATURES, width, &mut of_labels);
        let mut states = Vec::with_capacity(rows * (features + 1) * width);
        for row in 0..rows {
            states.extend_from_slice(&of_cells[row * features * width..][..features * width]);
            states.extend_from_slice(&of_labels[row * width..][..width]);
        }
        states
    }

    /// States of the thinking rows of a table with `columns` columns. `[thinking, C, D]`
    pub(crate) fn thinking(&self, columns: usize) -> Vec<f32> {
        let (width, rows) = (self.config.width, self.config.thinking);
        let (cells, labels) = self.tensor(Tensor::Thinking).split_at(rows * width);
        let mut states = Vec::with_capacity(rows * columns * width);
        for (cell, label) in cells.chunks_exact(width).zip(labels.chunks_exact(width)) {
            (1..columns).for_each(|_| states.extend(cell));
            states.extend(label);
        }
        states
    }

    /// Whether only the labels are computed in a layer.
    pub(crate) fn is_last(&self, layer: usize) -> bool {
        layer + 1 == self.config.layers
    }

    /// The cells of every row attend to each other: `[R, C, D] -> [R, A, D]`, where A is C, or 1 in the last layer.
    pub(crate) fn attend_features(&self, layer: usize, x: &mut Vec<f32>, columns: usize, tape: &mut AttentionTape) {
        let width = self.config.width;
        let tensor = |of: fn(Axis) -> LayerTensor| Tensor::Layer(layer, of(Axis::Features));
        let rows = x.len() / width / columns;
        self.normalise(x, &mut tape.normalised, &mut tape.scales);
        self.linear(tensor(LayerTensor::Key), &tape.normalised, width, self.key_width(), &mut tape.key);
        let asked = if self.is_last(layer) { 1 } else { columns };
        if asked == columns {
            self.linear(tensor(LayerTensor::Query), &tape.normalised, width, width, &mut tape.query);
        } else {
            *x = labels_of(x, columns, width);
            let labels = labels_of(&tape.normalised, columns, width);
            self.linear(tensor(LayerTensor::Query), &labels, width, width, &mut tape.query);
        }
        let attention = Attention {
            heads: self.config.heads,
            head: self.config.head(),
            scale: self.score_scale(),
            asked,
            cell_stride: width,
            group_stride: asked * width,
            query: &tape.query,
            keys: columns,
            key: &tape.key,
        };
        attention.apply(sized(&mut tape.said, rows * asked * width));
        self.add_linear(tensor(LayerTensor::Mix), &tape.said, width, x);
    }

    /// Keys and values of rows of the context, for those that attend to them. `x: [R, A, D] -> [R, A, 2 D / heads]`
    pub(crate) fn context_keys(&self, layer: usize, x: &[f32]) -> Vec<f32> {
        let (mut normalised, mut scales, mut key) = (vec![], vec![], vec![]);
        self.normalise(x, &mut normalised, &mut scales);
        let tensor = Tensor::Layer(layer, LayerTensor::Key(Axis::Rows));
        self.linear(tensor, &normalised, self.config.width, self.key_width(), &mut key);
        key
    }

    /// The cells of every column attend to those of the context, then each passes the MLP. `x: [R, A, D]`
    pub(crate) fn attend_rows(
        &self,
        layer: usize,
        x: &mut [f32],
        active: usize,
        context: Context<'_>,
        tape: &mut LayerTape,
    ) {
        let width = self.config.width;
        let tensor = |of: fn(Axis) -> LayerTensor| Tensor::Layer(layer, of(Axis::Rows));
        let AttentionTape { normalised, scales, query, said, .. } = &mut tape.rows;
        self.normalise(x, normalised, scales);
        self.linear(tensor(LayerTensor::Query), normalised, width, width, query);
        let attention = Attention {
            heads: self.config.heads,
            head: self.config.head(),
            scale: self.score_scale(),
            asked: x.len() / width / active,
            cell_stride: active * width,
            group_stride: width,
            query,
            keys: context.rows,
            key: context.key,
        };
        attention.apply(sized(said, x.len()));
        self.add_linear(tensor(LayerTensor::Mix), said, width, x);
        self.mlp(layer, x, tape);
    }

    fn mlp(&self, layer: usize, x: &mut [f32], tape: &mut LayerTape) {
        let (width, hidden) = (self.config.width, self.config.hidden);
        let tensor = |tensor| Tensor::Layer(layer, tensor);
        self.normalise(x, &mut tape.normalised, &mut tape.scales);
        let weights = [tensor(LayerTensor::Inner), tensor(LayerTensor::InnerBias)];
        self.affine(weights, &tape.normalised, width, hidden, &mut tape.inner);
        gelu(&tape.inner, sized(&mut tape.active, tape.inner.len()));
        self.add_linear(tensor(LayerTensor::Outer), &tape.active, hidden, x);
    }

    /// What the states of labels say: `[R, D] -> [R, OUTPUTS]`
    pub(crate) fn decode(&self, x: &[f32], tape: &mut DecoderTape) -> Vec<f32> {
        let width = self.config.width;
        self.normalise(x, &mut tape.normalised, &mut tape.scales);
        let weights = [Tensor::Decode, Tensor::DecodeBias];
        self.affine(weights, &tape.normalised, width, 2 * width, &mut tape.inner);
        gelu(&tape.inner, sized(&mut tape.active, tape.inner.len()));
        let mut out = vec![];
        self.affine([Tensor::Output, Tensor::OutputBias], &tape.active, 2 * width, OUTPUTS, &mut out);
        out
    }

    /// `out += x W`, with `x: [R, input]`, `out: [R, D]`
    fn add_linear(&self, tensor: Tensor, x: &[f32], input: usize, out: &mut [f32]) {
        let width = self.config.width;
        let (x, weight) = (Matrix::strided(x, input), Matrix::strided(self.tensor(tensor), width));
        product([out.len() / width, input, width], x, weight, out, width, true);
    }
}

/// The last column: `[R, C, D] -> [R, D]`
pub(crate) fn labels_of(x: &[f32], columns: usize, width: usize) -> Vec<f32> {
    let mut labels = Vec::with_capacity(x.len() / columns);
    x.chunks_exact(columns * width).for_each(|row| labels.extend_from_slice(&row[(columns - 1) * width..]));
    labels
}

/// First and second axis exchanged, of a matrix in parts along the first: `[first, second, width] -> [second, first, width]`
pub(crate) fn exchanged(parts: &[Vec<f32>], second: usize, width: usize) -> Vec<f32> {
    let mut exchanged = Vec::with_capacity(parts.iter().map(Vec::len).sum());
    for place in 0..second {
        let rows = parts.iter().flat_map(|part| part.chunks_exact(second * width));
        rows.for_each(|row| exchanged.extend_from_slice(&row[place * width..][..width]));
    }
    exchanged
}

/// A vector of this length whose old numbers are of no use.
fn sized(values: &mut Vec<f32>, length: usize) -> &mut [f32] {
    values.resize(length, 0.0);
    values
}
