//! The transformer of the in-context predictor: states of cells attend to each other along rows and along columns.
//!
//! A table has a column per feature and, as the last one, that of the labels. In each layer a cell attends to the cells of its row,
//! then to those of its column in the rows of the context, and passes an MLP; before each, states are normalised. Queries have
//! several heads, keys and values one (Shazeer, "Fast transformer decoding: one write-head is all you need", 2019), so that what is
//! kept of the context is small. Of the last layer only the labels are read, so only theirs are computed.
//!
//! What a layer computes on its way is left in a tape, which training reads backwards.

use std::ops::Range;

use crate::in_context::config::{Axis, InContextConfig, LayerTensor, OUTPUTS, Tensor};
use crate::in_context::encoding::{CELL_FEATURES, LABEL_FEATURES};
use crate::in_context::kernels::{Matrix, gelu, normalise, product, softmax};

/// The sizes with the flat parameter vector.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Network<'a> {
    pub(crate) config: &'a InContextConfig,
    pub(crate) places: &'a Places,
    pub(crate) flat: &'a [f32],
    /// Whether the tapes are read: otherwise shares are forgotten on the way.
    pub(crate) keeps: bool,
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
    /// Keys and values.
    pub(crate) key: Vec<f32>,
    /// The shares that cells have of each other: of a row `[R, C heads, C]`, of a column `[C, heads, R, context]`.
    pub(crate) shares: Vec<f32>,
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

/// The keys and values that a column's cells attend to, of `rows` rows of the context.
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
    fn linear(&self, tensor: Tensor, x: &[f32], input: usize, output: usize) -> Vec<f32> {
        let rows = x.len() / input;
        let mut out = vec![0.0; rows * output];
        let weight = Matrix::strided(self.tensor(tensor), output);
        product([rows, input, output], Matrix::strided(x, input), weight, &mut out, output, false);
        out
    }

    /// The same with a bias.
    fn affine(&self, [weight, bias]: [Tensor; 2], x: &[f32], input: usize, output: usize) -> Vec<f32> {
        let mut out = self.linear(weight, x, input, output);
        let bias = self.tensor(bias);
        out.chunks_exact_mut(output).for_each(|row| row.iter_mut().zip(bias).for_each(|(out, bias)| *out += bias));
        out
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
        let cells = self.linear(Tensor::Cell, cells, CELL_FEATURES, width);
        let labels = self.linear(Tensor::Label, labels, LABEL_FEATURES, width);
        let mut states = Vec::with_capacity(rows * (features + 1) * width);
        for row in 0..rows {
            states.extend(&cells[row * features * width..][..features * width]);
            states.extend(&labels[row * width..][..width]);
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
    pub(crate) fn attend_features(
        &self,
        layer: usize,
        x: Vec<f32>,
        columns: usize,
        tape: &mut AttentionTape,
    ) -> Vec<f32> {
        let (width, head, keys) = (self.config.width, self.config.head(), self.key_width());
        let tensor = |of: fn(Axis) -> LayerTensor| Tensor::Layer(layer, of(Axis::Features));
        let rows = x.len() / width / columns;
        let mut normalised = vec![0.0; x.len()];
        let mut scales = vec![0.0; rows * columns];
        normalise(&x, width, &mut normalised, &mut scales);
        let key = self.linear(tensor(LayerTensor::Key), &normalised, width, keys);
        let (active, mut x) = if self.is_last(layer) { (1, labels_of(&x, columns, width)) } else { (columns, x) };
        let query = match active == columns {
            true => self.linear(tensor(LayerTensor::Query), &normalised, width, width),
            false => self.linear(tensor(LayerTensor::Query), &labels_of(&normalised, columns, width), width, width),
        };
        let asked = active * self.config.heads;
        let of_row = asked * columns;
        let mut shares = vec![0.0; if self.keeps { rows } else { 1 } * of_row];
        let mut said = vec![0.0; query.len()];
        for row in 0..rows {
            let key = &key[row * columns * keys..][..columns * keys];
            let query = &query[row * active * width..][..active * width];
            let shares = &mut shares[if self.keeps { row * of_row } else { 0 }..][..of_row];
            let transposed = Matrix::strided(key, keys).transposed();
            product([asked, head, columns], Matrix::strided(query, head), transposed, shares, columns, false);
            softmax(shares, columns, self.score_scale());
            let (shares, value) = (Matrix::strided(shares, columns), Matrix::strided(&key[head..], keys));
            let said = &mut said[row * active * width..][..active * width];
            product([asked, columns, head], shares, value, said, head, false);
        }
        self.add_linear(tensor(LayerTensor::Mix), &said, width, &mut x);
        *tape = AttentionTape { normalised, scales, query, key, shares, said };
        x
    }

    /// Normalised states with their queries, and the keys and values of the first `context` rows, before a column's cells attend
    /// to each other. `x: [R, A, D]`
    pub(crate) fn ask_rows(&self, layer: usize, x: &[f32], active: usize, context: usize, tape: &mut AttentionTape) {
        let width = self.config.width;
        let tensor = |of: fn(Axis) -> LayerTensor| Tensor::Layer(layer, of(Axis::Rows));
        let mut normalised = vec![0.0; x.len()];
        let mut scales = vec![0.0; x.len() / width];
        normalise(x, width, &mut normalised, &mut scales);
        tape.query = self.linear(tensor(LayerTensor::Query), &normalised, width, width);
        let of_context = &normalised[..context * active * width];
        tape.key = self.linear(tensor(LayerTensor::Key), of_context, width, self.key_width());
        (tape.normalised, tape.scales) = (normalised, scales);
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
        let (width, head, keys) = (self.config.width, self.config.head(), self.key_width());
        let rows = x.len() / width / active;
        let of_head = rows * context.rows;
        let mut said = vec![0.0; x.len()];
        let all = active * self.config.heads;
        let mut shares = vec![0.0; if self.keeps { all } else { 1 } * of_head];
        for place in 0..all {
            let (column, from) = (place / self.config.heads, place % self.config.heads * head);
            let shares = &mut shares[if self.keeps { place * of_head } else { 0 }..][..of_head];
            let key = &context.key[column * keys..];
            let query = Matrix::strided(&tape.rows.query[column * width + from..], active * width);
            let transposed = Matrix::strided(key, active * keys).transposed();
            product([rows, head, context.rows], query, transposed, shares, context.rows, false);
            softmax(shares, context.rows, self.score_scale());
            let (shares, value) = (Matrix::strided(shares, context.rows), Matrix::strided(&key[head..], active * keys));
            let said = &mut said[column * width + from..];
            product([rows, context.rows, head], shares, value, said, active * width, false);
        }
        self.add_linear(Tensor::Layer(layer, LayerTensor::Mix(Axis::Rows)), &said, width, x);
        (tape.rows.shares, tape.rows.said) = (shares, said);
        self.mlp(layer, x, tape);
    }

    fn mlp(&self, layer: usize, x: &mut [f32], tape: &mut LayerTape) {
        let (width, hidden) = (self.config.width, self.config.hidden);
        let tensor = |tensor| Tensor::Layer(layer, tensor);
        let mut normalised = vec![0.0; x.len()];
        let mut scales = vec![0.0; x.len() / width];
        normalise(x, width, &mut normalised, &mut scales);
        let weights = [tensor(LayerTensor::Inner), tensor(LayerTensor::InnerBias)];
        let inner = self.affine(weights, &normalised, width, hidden);
        let mut active = vec![0.0; inner.len()];
        gelu(&inner, &mut active);
        self.add_linear(tensor(LayerTensor::Outer), &active, hidden, x);
        (tape.normalised, tape.scales, tape.inner, tape.active) = (normalised, scales, inner, active);
    }

    /// What the states of labels say: `[R, D] -> [R, OUTPUTS]`
    pub(crate) fn decode(&self, x: &[f32], tape: &mut DecoderTape) -> Vec<f32> {
        let width = self.config.width;
        let mut normalised = vec![0.0; x.len()];
        let mut scales = vec![0.0; x.len() / width];
        normalise(x, width, &mut normalised, &mut scales);
        let inner = self.affine([Tensor::Decode, Tensor::DecodeBias], &normalised, width, 2 * width);
        let mut active = vec![0.0; inner.len()];
        gelu(&inner, &mut active);
        let out = self.affine([Tensor::Output, Tensor::OutputBias], &active, 2 * width, OUTPUTS);
        *tape = DecoderTape { normalised, scales, inner, active };
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
    x.chunks_exact(columns * width).flat_map(|row| &row[(columns - 1) * width..]).copied().collect()
}
