//! The experts in burn: the same forward pass as inference, with gradients.
//!
//! Parameters come in and gradients go out as one flat vector in the order of [`ExpertConfig::parameters`]; everything
//! between is tensors on whatever device burn was built for.

use burn::tensor::activation::{relu, softplus};
use burn::tensor::{Device, Gradients, IndexingUpdateOp, Int, Tensor, TensorData, module::linear};

use crate::config::{ExpertConfig, HEAD_OUTPUTS, MlpShape, Module};
use crate::message_passing::{Gather, Group, Schedule};
use crate::mlp::NORM_EPSILON;
use crate::train::batch::Batch;

/// One layer.
pub(crate) struct Layer {
    /// `[input, output]`
    pub(crate) weight: Tensor<2>,
    /// `[output]`
    pub(crate) bias: Tensor<1>,
}

/// An MLP, see [`crate::mlp`].
pub(crate) struct Mlp {
    pub(crate) layers: Vec<Layer>,
}

impl Mlp {
    fn new(shape: MlpShape, parameters: &[f32], device: &Device) -> Self {
        let mut offset = 0;
        let mut take = |count: usize| {
            offset += count;
            parameters[offset - count..offset].to_vec()
        };
        let layers = (0..shape.layers)
            .map(|layer| {
                let (input, output) = shape.layer(layer);
                let weight = TensorData::new(take(input * output), [input, output]);
                let bias = TensorData::new(take(output), [output]);
                Layer {
                    weight: Tensor::from_data(weight, device).require_grad(),
                    bias: Tensor::from_data(bias, device).require_grad(),
                }
            })
            .collect();
        Self { layers }
    }

    /// `[.., input]` -> `[.., output]`
    pub(crate) fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        self.last(self.hidden(x))
    }

    /// `[.., input]` -> `[.., hidden]`
    pub(crate) fn hidden<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let first = &self.layers[0];
        self.middle(relu(linear(x, first.weight.clone(), Some(first.bias.clone()))))
    }

    /// `[.., hidden]` -> `[.., hidden]`: the residual layers.
    pub(crate) fn middle<const D: usize>(&self, mut hidden: Tensor<D>) -> Tensor<D> {
        for layer in &self.layers[1..self.layers.len() - 1] {
            hidden = hidden.clone() + relu(linear(hidden, layer.weight.clone(), Some(layer.bias.clone())));
        }
        hidden
    }

    /// `[.., hidden]` -> `[.., output]`
    pub(crate) fn last<const D: usize>(&self, hidden: Tensor<D>) -> Tensor<D> {
        let last = &self.layers[self.layers.len() - 1];
        linear(hidden, last.weight.clone(), Some(last.bias.clone()))
    }
}

/// The MLPs of an expert with gradients.
pub(crate) struct Models {
    device: Device,
    mlps: Vec<(Module, Mlp)>,
}

impl Models {
    /// The MLPs `shapes` of a flat parameter vector on a device with autodiff.
    pub(crate) fn new(shapes: &[MlpShape], parameters: &[f32], device: &Device) -> Self {
        let mut rest = parameters;
        let mlps = shapes
            .iter()
            .map(|shape| {
                let (own, others) = rest.split_at(shape.parameter_count());
                rest = others;
                (shape.module, Mlp::new(*shape, own, device))
            })
            .collect();
        Self { device: device.clone(), mlps }
    }

    /// The gradients as a flat vector; zero where a parameter took no part.
    pub(crate) fn gradients(&self, mut gradients: Gradients) -> Vec<f32> {
        let mut flat = Vec::new();
        for layer in self.mlps.iter().flat_map(|(_, mlp)| &mlp.layers) {
            let count = layer.weight.shape().num_elements();
            extend(&mut flat, layer.weight.grad_remove(&mut gradients), count);
            let count = layer.bias.shape().num_elements();
            extend(&mut flat, layer.bias.grad_remove(&mut gradients), count);
        }
        flat
    }

    pub(crate) fn mlp(&self, module: Module) -> &Mlp {
        // Modules are few and all are there: `new` builds every one of them.
        let index = self.mlps.iter().position(|(name, _)| *name == module).unwrap_or(0);
        &self.mlps[index].1
    }

    /// A constant on the device.
    pub(crate) fn constant<const D: usize>(&self, values: &[f32], shape: [usize; D]) -> Tensor<D> {
        Tensor::from_data(TensorData::new(values.to_vec(), shape), &self.device)
    }

    pub(crate) fn indices(&self, values: &[u32]) -> Tensor<1, Int> {
        let values: Vec<i32> = values.iter().map(|&value| value as i32).collect();
        let length = values.len();
        Tensor::from_data(TensorData::new(values, [length]), &self.device)
    }

    /// The summed inputs of one role of `rows` nodes: states `[N, width]` -> `[rows, width]`.
    pub(crate) fn role(&self, role: &Gather, rows: usize, states: Option<&Tensor<2>>, width: usize) -> Tensor<2> {
        let zeros = || self.zeros([rows, width]);
        let Some(states) = states.filter(|_| !role.sources.is_empty()) else { return zeros() };
        let gathered = states.clone().select(0, self.indices(&role.sources)); // [E, D]
        if role.is_one_to_one(rows) {
            return gathered;
        }
        zeros().select_assign(0, self.indices(&role.targets), gathered, IndexingUpdateOp::Add)
    }

    /// The pinball losses of the quantiles that a head's output stands for (Koenker and Bassett, Econometrica 1978), in `ln` units:
    /// `raw: [L, 3]`, `residuals: [L, 1]` -> `[L, 3]`.
    pub(crate) fn pinball(&self, raw: &Tensor<2>, residuals: Tensor<2>, quantiles: &[f32; HEAD_OUTPUTS]) -> Tensor<2> {
        let column = |index: usize| raw.clone().slice_dim(1, index..index + 1);
        let median = column(0);
        let lower = median.clone() - softplus(column(1), 1.0);
        let upper = median.clone() + softplus(column(2), 1.0);
        let error = residuals - Tensor::cat(vec![lower, median, upper], 1);
        error.clone() * self.constant(quantiles, [1, HEAD_OUTPUTS]) + relu(-error)
    }

    pub(crate) fn zeros<const D: usize>(&self, shape: [usize; D]) -> Tensor<D> {
        Tensor::zeros(shape, &self.device)
    }
}

/// The experts above the data expert, with gradients.
pub struct TrainingStack {
    config: ExpertConfig,
    models: Models,
}

impl std::fmt::Debug for TrainingStack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TrainingStack").field("config", &self.config).finish_non_exhaustive()
    }
}

impl TrainingStack {
    /// The experts of a flat parameter vector on a device with autodiff.
    pub fn new(config: &ExpertConfig, parameters: &[f32], device: &Device) -> Self {
        Self { config: config.clone(), models: Models::new(&config.shapes(), parameters, device) }
    }

    /// The states of all nodes in the order of the schedule: embeddings, a row each -> `[N, D]`.
    pub fn states(&self, schedule: &Schedule, embeddings: &Tensor<2>) -> Tensor<2> {
        let mut states: Option<Tensor<2>> = None;
        for level in schedule.groups.chunk_by(|left, right| left.level == right.level) {
            let mut known: Vec<Tensor<2>> = states.iter().cloned().collect();
            known.extend(level.iter().map(|group| self.group(group, states.as_ref(), embeddings)));
            states = Some(Tensor::cat(known, 0));
        }
        states.unwrap_or_else(|| self.models.zeros([0, self.config.width]))
    }

    /// The states of one group: `[rows, D]`.
    fn group(&self, group: &Group, states: Option<&Tensor<2>>, embeddings: &Tensor<2>) -> Tensor<2> {
        let mut input = vec![self.models.constant(&group.features, [group.rows, group.kind.features()])];
        if group.kind.embedded() {
            input.push(embeddings.clone().select(0, self.models.indices(&group.embeddings)));
        }
        input.extend(group.roles.iter().map(|role| self.models.role(role, group.rows, states, self.config.width)));
        normalise(self.models.mlp(Module::Node(group.kind)).forward(Tensor::cat(input, 1)))
    }

    /// What the cardinality head returns for the labelled nodes: `[L, 3]`.
    pub fn head(&self, batch: &Batch) -> Tensor<2> {
        let embeddings = self
            .models
            .constant(&batch.embeddings, [batch.embeddings.len() / self.config.embedding, self.config.embedding]);
        let states = self.states(&batch.schedule, &embeddings);
        self.models.mlp(Module::Cardinality).forward(states.select(0, self.models.indices(&batch.labelled)))
    }

    /// The weighted pinball loss of the three quantiles.
    pub fn loss(&self, batch: &Batch) -> Tensor<1> {
        let labels = batch.labelled.len();
        let residuals = self.models.constant(&batch.residuals, [labels, 1]);
        let pinball = self.models.pinball(&self.head(batch), residuals, &self.config.quantiles); // [L, 3]
        (pinball * self.models.constant(&batch.weights, [labels, 1])).sum()
    }

    /// Loss and gradients of one batch.
    pub fn step(&self, batch: &Batch) -> (f32, Vec<f32>) {
        let loss = self.loss(batch);
        let gradients = self.models.gradients(loss.backward());
        (loss.into_scalar::<f32>(), gradients)
    }
}

/// Scales each row to a root mean square of 1; see [`crate::mlp::normalise`].
pub(crate) fn normalise(states: Tensor<2>) -> Tensor<2> {
    let scale = states.clone().square().mean_dim(1).add_scalar(NORM_EPSILON).sqrt();
    states / scale
}

/// Appends a gradient of `count` numbers, or zeros if there is none.
fn extend<const D: usize>(flat: &mut Vec<f32>, gradient: Option<Tensor<D>>, count: usize) {
    let values = gradient.and_then(|gradient| gradient.into_data().try_into_vec::<f32>().ok());
    flat.extend(values.unwrap_or_else(|| vec![0.0; count]));
}
