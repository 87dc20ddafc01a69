//! The loss of a task and its gradient, backwards through the tape of the forward pass.
//!
//! The transformer is small and its tables differ in shape from task to task: a pass of its own, with all products in one
//! library, takes a fraction of the time of a framework's.

use crate::in_context::config::{Axis, LayerTensor, OUTPUTS, Tensor};
use crate::in_context::encoding::{
    CELL_FEATURES, ColumnEncoder, LABEL_FEATURES, LabelEncoder, MOST_CLASSES, QUANTILES,
};
use crate::in_context::kernels::{Matrix, gelu_gradient, normalise_gradient, product, softmax, softmax_gradient};
use crate::in_context::network::{AttentionTape, Context, DecoderTape, LayerTape, Network, exchanged, labels_of};
use crate::in_context::ridge::Ridge;
use crate::in_context::{Labels, encode};
use crate::train::in_context::Task;

/// Weight of the quantiles of a number beside the cross-entropy of classes.
const NUMBER_WEIGHT: f32 = 2.0;

/// A task as the transformer reads it.
#[derive(Debug, Clone)]
pub(crate) struct EncodedTask {
    /// Columns, with that of the labels.
    columns: usize,
    /// Rows that are examples.
    examples: usize,
    cells: Vec<f32>,
    labels: Vec<f32>,
    targets: Targets,
    /// The loss of a prediction that only knows the labels of the examples.
    pub(crate) known: f32,
}

/// What is to be predicted: a class of so many, or a squashed number.
#[derive(Debug, Clone)]
enum Targets {
    Classes(Vec<u32>, usize),
    Numbers(Vec<f32>),
}

impl EncodedTask {
    pub(crate) fn new(task: &Task) -> Self {
        let (ridge, predicted) = Ridge::fit(&task.examples, &task.labels);
        let asked_of = [&task.rows[..], &ridge.predict(&task.rows)].concat();
        let features = [&task.examples[..], &predicted].concat();
        let encoders: Vec<ColumnEncoder> = features.iter().map(ColumnEncoder::fit).collect();
        let encoder = LabelEncoder::fit(&task.labels);
        let (examples, rows) = (task.labels.len(), task.answers.len());
        let (mut cells, mut labels) = encode(&encoders, &encoder, &features, Some(&task.labels), 0..examples);
        let (of_rows, asked) = encode(&encoders, &encoder, &asked_of, None, 0..rows);
        cells.extend(of_rows);
        labels.extend(asked);
        let targets = match (&task.answers, encoder) {
            (Labels::Numbers(answers), LabelEncoder::Numbers(scale)) => {
                // An outlier of outliers does not decide a step.
                Targets::Numbers(answers.iter().map(|answer| scale.apply(*answer).clamp(-8.0, 8.0)).collect())
            }
            (Labels::Classes { labels, count }, _) => Targets::Classes(labels.clone(), *count),
            (Labels::Numbers(answers), LabelEncoder::Classes(_)) => Targets::Numbers(answers.clone()),
        };
        let known = loss(&targets, &mut known(&task.labels, encoder).repeat(rows));
        Self { columns: encoders.len() + 1, examples, cells, labels, targets, known }
    }

    /// Whether classes are predicted.
    pub(crate) fn has_classes(&self) -> bool {
        matches!(self.targets, Targets::Classes(..))
    }

    /// A measure of the time that a pass takes.
    pub(crate) fn work(&self) -> usize {
        self.labels.len() / LABEL_FEATURES * self.columns * (400 + self.examples)
    }
}

/// What the labels of the examples alone say: the shares of their classes, or their quantiles. `[OUTPUTS]`
fn known(labels: &Labels, encoder: LabelEncoder) -> Vec<f32> {
    let mut output = vec![0.0; OUTPUTS];
    match (labels, encoder) {
        (Labels::Classes { labels, .. }, _) => {
            let share = |class: usize| labels.iter().filter(|label| **label as usize == class).count() as f32 + 0.5;
            output[..MOST_CLASSES].iter_mut().enumerate().for_each(|(class, logit)| *logit = share(class).ln());
        }
        (Labels::Numbers(labels), LabelEncoder::Numbers(scale)) => {
            let mut sorted: Vec<f32> = labels.iter().map(|label| scale.apply(*label)).collect();
            sorted.sort_unstable_by(f32::total_cmp);
            let last = (sorted.len() - 1) as f32;
            for (quantile, level) in output[MOST_CLASSES..].iter_mut().zip(QUANTILES) {
                *quantile = sorted[(level * last).round() as usize];
            }
        }
        _ => {}
    }
    output
}

/// The loss of each output and its gradient, in place of the outputs. `[R, OUTPUTS]`
fn loss(targets: &Targets, outputs: &mut [f32]) -> f32 {
    let rows = outputs.len() / OUTPUTS;
    let share = 1.0 / rows.max(1) as f32;
    let mut total = 0.0;
    for (row, output) in outputs.chunks_exact_mut(OUTPUTS).enumerate() {
        let (logits, quantiles) = output.split_at_mut(MOST_CLASSES);
        match targets {
            Targets::Classes(labels, count) => {
                softmax(&mut logits[..*count], *count, 1.0);
                let label = labels[row] as usize;
                total -= logits[label].max(1e-9).ln() * share;
                logits[label] -= 1.0;
                logits[..*count].iter_mut().for_each(|logit| *logit *= share);
                logits[*count..].fill(0.0);
                quantiles.fill(0.0);
            }
            Targets::Numbers(labels) => {
                logits.fill(0.0);
                let share = NUMBER_WEIGHT * share / QUANTILES.len() as f32;
                for (output, level) in quantiles.iter_mut().zip(QUANTILES) {
                    // The pinball loss (Koenker and Bassett, "Regression quantiles", 1978).
                    let error = labels[row] - *output;
                    total += share * if error > 0.0 { level * error } else { (level - 1.0) * error };
                    *output = share * if error > 0.0 { -level } else { 1.0 - level };
                }
            }
        }
    }
    total
}

/// The loss of a task, without a gradient.
pub(crate) fn task_loss(network: &Network<'_>, task: &EncodedTask) -> f32 {
    let mut pass = Pass::forward(network, task);
    loss(&task.targets, &mut pass.outputs)
}

/// Adds the gradient of the loss of a task times `weight` to `gradient`, and returns the loss.
pub(crate) fn add_gradient(network: &Network<'_>, task: &EncodedTask, weight: f32, gradient: &mut [f32]) -> f32 {
    let mut pass = Pass::forward(network, task);
    let loss = loss(&task.targets, &mut pass.outputs);
    pass.outputs.iter_mut().for_each(|output| *output *= weight);
    Backward { network, task, gradient }.run(&pass);
    loss
}

/// A forward pass with all it computed.
struct Pass {
    /// Of each, with the keys that columns attend to. `[A, context, 2 D / heads]`
    layers: Vec<(LayerTape, Vec<f32>)>,
    decoder: DecoderTape,
    /// Of the rows whose labels are asked for. `[R, OUTPUTS]`
    outputs: Vec<f32>,
}

/// Rows that others attend to: the thinking ones and the examples.
fn context_rows(network: &Network<'_>, task: &EncodedTask) -> usize {
    network.config.thinking + task.examples
}

impl Pass {
    fn forward(network: &Network<'_>, task: &EncodedTask) -> Self {
        let rows = context_rows(network, task);
        let mut x = network.thinking(task.columns);
        x.extend(network.embed(&task.cells, &task.labels));
        let mut layers = Vec::with_capacity(network.config.layers);
        for layer in 0..network.config.layers {
            let mut tape = LayerTape::default();
            let active = if network.is_last(layer) { 1 } else { task.columns };
            network.attend_features(layer, &mut x, task.columns, &mut tape.features);
            let key = network.context_keys(layer, &x[..rows * active * network.config.width]);
            let key = exchanged(&[key], active, network.key_width());
            network.attend_rows(layer, &mut x, active, Context { key: &key, rows }, &mut tape);
            layers.push((tape, key));
        }
        let mut decoder = DecoderTape::default();
        let outputs = network.decode(&x[rows * network.config.width..], &mut decoder);
        Self { layers, decoder, outputs }
    }
}

struct Backward<'a> {
    network: &'a Network<'a>,
    task: &'a EncodedTask,
    gradient: &'a mut [f32],
}

impl Backward<'_> {
    fn run(mut self, pass: &Pass) {
        let (width, columns) = (self.network.config.width, self.task.columns);
        let decoded = self.decoder(&pass.decoder, &pass.outputs);
        // Only the rows that are asked for are decoded.
        let mut dx = vec![0.0; context_rows(self.network, self.task) * width];
        dx.extend(decoded);
        for (layer, (tape, key)) in pass.layers.iter().enumerate().rev() {
            let active = if self.network.is_last(layer) { 1 } else { columns };
            self.mlp(layer, tape, &mut dx);
            self.rows(layer, active, &tape.rows, key, &mut dx);
            dx = self.features(layer, active, &tape.features, dx);
        }
        self.embedding(&dx);
    }

    /// `x W`: adds the gradient of W, and returns that of x: `dy: [R, output]` -> `[R, input]`.
    fn linear(&mut self, tensor: Tensor, x: &[f32], dy: &[f32], input: usize, output: usize) -> Vec<f32> {
        let rows = dy.len() / output;
        let mut dx = vec![0.0; rows * input];
        let weight = Matrix::strided(self.network.tensor(tensor), output).transposed();
        product([rows, output, input], Matrix::strided(dy, output), weight, &mut dx, input, false);
        self.weight(tensor, x, dy, input, output);
        dx
    }

    fn weight(&mut self, tensor: Tensor, x: &[f32], dy: &[f32], input: usize, output: usize) {
        let gradient = &mut self.gradient[self.network.places.of(tensor)];
        let (x, dy_matrix) = (Matrix::strided(x, input).transposed(), Matrix::strided(dy, output));
        product([input, dy.len() / output, output], x, dy_matrix, gradient, output, true);
    }

    fn bias(&mut self, tensor: Tensor, dy: &[f32]) {
        let gradient = &mut self.gradient[self.network.places.of(tensor)];
        for row in dy.chunks_exact(gradient.len()) {
            gradient.iter_mut().zip(row).for_each(|(sum, dy)| *sum += dy);
        }
    }

    fn decoder(&mut self, tape: &DecoderTape, doutput: &[f32]) -> Vec<f32> {
        let width = self.network.config.width;
        self.bias(Tensor::OutputBias, doutput);
        let mut dinner = self.linear(Tensor::Output, &tape.active, doutput, 2 * width, OUTPUTS);
        gelu_gradient(&tape.inner, &mut dinner);
        self.bias(Tensor::DecodeBias, &dinner);
        let dnormalised = self.linear(Tensor::Decode, &tape.normalised, &dinner, width, 2 * width);
        let mut dx = vec![0.0; dnormalised.len()];
        normalise_gradient(&tape.normalised, &tape.scales, width, &dnormalised, &mut dx);
        dx
    }

    fn mlp(&mut self, layer: usize, tape: &LayerTape, dx: &mut [f32]) {
        let (width, hidden) = (self.network.config.width, self.network.config.hidden);
        let tensor = |tensor| Tensor::Layer(layer, tensor);
        let mut dinner = self.linear(tensor(LayerTensor::Outer), &tape.active, dx, hidden, width);
        gelu_gradient(&tape.inner, &mut dinner);
        self.bias(tensor(LayerTensor::InnerBias), &dinner);
        let dnormalised = self.linear(tensor(LayerTensor::Inner), &tape.normalised, &dinner, width, hidden);
        normalise_gradient(&tape.normalised, &tape.scales, width, &dnormalised, dx);
    }

    /// Back through [`Network::attend_rows`] and [`Network::context_keys`], whose shares are computed once more.
    fn rows(&mut self, layer: usize, active: usize, tape: &AttentionTape, key: &[f32], dx: &mut [f32]) {
        let (network, context) = (self.network, context_rows(self.network, self.task));
        let (width, head, keys) = (network.config.width, network.config.head(), network.key_width());
        let tensor = |of: fn(Axis) -> LayerTensor| Tensor::Layer(layer, of(Axis::Rows));
        let rows = dx.len() / width / active;
        let dsaid = self.linear(tensor(LayerTensor::Mix), &tape.said, dx, width, width);
        let mut dquery = vec![0.0; dx.len()];
        // `[context, A, 2 D / heads]`
        let mut dkey = vec![0.0; key.len()];
        let (mut shares, mut dshares) = (vec![0.0; rows * context], vec![0.0; rows * context]);
        let (stride, key_stride) = (active * width, active * keys);
        for place in 0..active * network.config.heads {
            let (column, from) = (place / network.config.heads, place % network.config.heads * head);
            let key = &key[column * context * keys..][..context * keys];
            let (to, from) = (column * keys, column * width + from);
            let (query, own) = (Matrix::strided(&tape.query[from..], stride), Matrix::strided(key, keys));
            self.shares([rows, context], query, own, &mut shares);
            let said = Matrix::strided(&dsaid[from..], stride);
            let value = Matrix::strided(&key[head..], keys).transposed();
            product([rows, head, context], said, value, &mut dshares, context, false);
            let transposed = Matrix::strided(&shares, context).transposed();
            product([context, rows, head], transposed, said, &mut dkey[to + head..], key_stride, true);
            softmax_gradient(&shares, &mut dshares, context, network.score_scale());
            let dscores = Matrix::strided(&dshares, context);
            product([rows, context, head], dscores, own, &mut dquery[from..], stride, false);
            product([context, rows, head], dscores.transposed(), query, &mut dkey[to..], key_stride, true);
        }
        let mut dnormalised = self.linear(tensor(LayerTensor::Query), &tape.normalised, &dquery, width, width);
        let of_context = &tape.normalised[..context * active * width];
        let from_keys = self.linear(tensor(LayerTensor::Key), of_context, &dkey, width, keys);
        dnormalised.iter_mut().zip(from_keys).for_each(|(sum, one)| *sum += one);
        normalise_gradient(&tape.normalised, &tape.scales, width, &dnormalised, dx);
    }

    /// The shares that keys have of queries. `[queries, keys]`
    fn shares(&self, [queries, keys]: [usize; 2], query: Matrix<'_>, key: Matrix<'_>, out: &mut [f32]) {
        product([queries, self.network.config.head(), keys], query, key.transposed(), out, keys, false);
        softmax(out, keys, self.network.score_scale());
    }

    /// Back through [`Network::attend_features`], whose shares are computed once more: `[R, A, D] -> [R, C, D]`.
    fn features(&mut self, layer: usize, active: usize, tape: &AttentionTape, dx: Vec<f32>) -> Vec<f32> {
        let (network, columns) = (self.network, self.task.columns);
        let (width, head, keys) = (network.config.width, network.config.head(), network.key_width());
        let tensor = |of: fn(Axis) -> LayerTensor| Tensor::Layer(layer, of(Axis::Features));
        let (rows, asked) = (dx.len() / width / active, active * network.config.heads);
        let dsaid = self.linear(tensor(LayerTensor::Mix), &tape.said, &dx, width, width);
        let mut dquery = vec![0.0; dx.len()];
        let mut dkey = vec![0.0; tape.key.len()];
        let (mut shares, mut dshares) = (vec![0.0; asked * columns], vec![0.0; asked * columns]);
        for row in 0..rows {
            let key = &tape.key[row * columns * keys..][..columns * keys];
            let dkey = &mut dkey[row * columns * keys..][..columns * keys];
            let query = Matrix::strided(&tape.query[row * active * width..], head);
            let own = Matrix::strided(key, keys);
            self.shares([asked, columns], query, own, &mut shares);
            let said = Matrix::strided(&dsaid[row * active * width..], head);
            let value = Matrix::strided(&key[head..], keys).transposed();
            product([asked, head, columns], said, value, &mut dshares, columns, false);
            let transposed = Matrix::strided(&shares, columns).transposed();
            product([columns, asked, head], transposed, said, &mut dkey[head..], keys, true);
            softmax_gradient(&shares, &mut dshares, columns, network.score_scale());
            let dscores = Matrix::strided(&dshares, columns);
            let dquery = &mut dquery[row * active * width..][..active * width];
            product([asked, columns, head], dscores, own, dquery, head, false);
            product([columns, asked, head], dscores.transposed(), query, dkey, keys, true);
        }
        let mut dnormalised = self.linear(tensor(LayerTensor::Key), &tape.normalised, &dkey, width, keys);
        if active == columns {
            let from_queries = self.linear(tensor(LayerTensor::Query), &tape.normalised, &dquery, width, width);
            dnormalised.iter_mut().zip(from_queries).for_each(|(sum, one)| *sum += one);
            let mut dx = dx;
            normalise_gradient(&tape.normalised, &tape.scales, width, &dnormalised, &mut dx);
            return dx;
        }
        let labels = labels_of(&tape.normalised, columns, width);
        let from_queries = self.linear(tensor(LayerTensor::Query), &labels, &dquery, width, width);
        let mut all = vec![0.0; rows * columns * width];
        let last = (columns - 1) * width;
        for row in 0..rows {
            let (from, to) = (row * width, row * columns * width + last);
            all[to..to + width].copy_from_slice(&dx[from..from + width]);
            let sums = dnormalised[to..to + width].iter_mut();
            sums.zip(&from_queries[from..from + width]).for_each(|(sum, one)| *sum += one);
        }
        normalise_gradient(&tape.normalised, &tape.scales, width, &dnormalised, &mut all);
        all
    }

    fn embedding(&mut self, dx: &[f32]) {
        let (width, columns, thinking) = (self.network.config.width, self.task.columns, self.network.config.thinking);
        let (of_thinking, dx) = dx.split_at(thinking * columns * width);
        let gradient = &mut self.gradient[self.network.places.of(Tensor::Thinking)];
        let (cells, labels) = gradient.split_at_mut(thinking * width);
        for (row, dx) in of_thinking.chunks_exact(columns * width).enumerate() {
            for (column, dx) in dx.chunks_exact(width).enumerate() {
                let part = if column + 1 == columns { &mut *labels } else { &mut *cells };
                part[row * width..][..width].iter_mut().zip(dx).for_each(|(sum, dx)| *sum += dx);
            }
        }
        let cells: Vec<f32> =
            dx.chunks_exact(columns * width).flat_map(|row| &row[..(columns - 1) * width]).copied().collect();
        self.weight(Tensor::Cell, &self.task.cells, &cells, CELL_FEATURES, width);
        self.weight(Tensor::Label, &self.task.labels, &labels_of(dx, columns, width), LABEL_FEATURES, width);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Noise;
    use crate::in_context::network::Places;
    use crate::in_context::{Column, InContextConfig};

    fn task(noise: &mut Noise, classes: bool) -> Task {
        let mut columns = |rows: usize| -> Vec<Column> {
            let codes = noise.vector(rows).iter().map(|x| Some((x.abs() * 5.0) as u32)).collect();
            vec![Column::Number(noise.vector(rows)), Column::Category(codes), Column::Number(noise.vector(rows))]
        };
        let (examples, rows) = (columns(9), columns(5));
        let mut labels = |rows: usize| match classes {
            true => Labels::Classes { labels: (0..rows as u32).map(|row| row % 3).collect(), count: 3 },
            false => Labels::Numbers(noise.vector(rows)),
        };
        Task { labels: labels(9), answers: labels(5), examples, rows }
    }

    #[test]
    fn gradients_are_those_of_the_loss() {
        let config = InContextConfig { width: 8, heads: 2, layers: 2, hidden: 12, thinking: 2 };
        let (places, mut noise) = (Places::new(&config), Noise::new(5));
        let mut flat: Vec<f32> = noise.vector(config.parameter_count()).iter().map(|value| 0.5 * value).collect();
        for classes in [true, false] {
            let task = EncodedTask::new(&task(&mut noise, classes));
            let loss = |flat: &[f32]| task_loss(&Network { config: &config, places: &places, flat }, &task);
            let mut gradient = vec![0.0; flat.len()];
            let network = Network { config: &config, places: &places, flat: &flat };
            add_gradient(&network, &task, 1.0, &mut gradient);
            for parameter in config.parameters() {
                // Along the gradient of each tensor the loss changes by its squared norm.
                let range = parameter.range();
                let norm = gradient[range.clone()].iter().map(|slope| slope * slope).sum::<f32>().sqrt();
                assert!(
                    norm > 1e-7 || !classes || parameter.name.contains("bias"),
                    "{} has no gradient",
                    parameter.name
                );
                if norm < 1e-4 {
                    continue;
                }
                let before = flat.clone();
                let step = 4e-3;
                let mut shifted = |sign: f32| {
                    for place in range.clone() {
                        flat[place] = before[place] + sign * step * gradient[place] / norm;
                    }
                    loss(&flat)
                };
                let slope = (shifted(1.0) - shifted(-1.0)) / (2.0 * step);
                flat = before;
                assert!((slope - norm).abs() < 0.03 * norm + 1e-3, "{}: {slope} against {norm}", parameter.name);
            }
        }
    }
}
